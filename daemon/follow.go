package main

import (
	"context"
	"reflect"
	"sync"
)

// newest holds a value that one goroutine sets and any number read.
type newest[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{} // closed by the next set
}

// get returns the value and a channel that is closed once there is a newer one.
func (n *newest[T]) get() (T, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.value, n.changed
}

func (n *newest[T]) set(value T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.value = value
	if n.changed != nil {
		close(n.changed)
	}
	n.changed = make(chan struct{})
}

// follow runs part with its section of the configuration, and, each time a reload changes that section, ends
// it and runs it with the new one. It returns when ctx is done or part fails.
func follow[S any](ctx context.Context, configs *newest[*Config], section func(*Config) S, part func(context.Context, S) error) error {
	for ctx.Err() == nil {
		config, changed := configs.get()
		current := section(config)
		partCtx, end := context.WithCancel(ctx)
		result := make(chan error, 1)
		go func() { result <- part(partCtx, current) }()

		for running := true; running; {
			select {
			case err := <-result:
				end()
				if err != nil {
					return err
				}
				for ctx.Err() == nil && reflect.DeepEqual(section(config), current) { // it has no more to do until then
					select {
					case <-ctx.Done():
					case <-changed:
						config, changed = configs.get()
					}
				}
				running = false
			case <-changed:
				config, changed = configs.get()
				if !reflect.DeepEqual(section(config), current) {
					end()
					if err := <-result; err != nil {
						return err
					}
					running = false
				}
			}
		}
		end()
	}
	return nil
}
