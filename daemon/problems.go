package main

import (
	"maps"
	"slices"
	"sync"
)

// problems are what is wrong with the parts of the daemon at this moment, a sentence for each part.
type problems struct {
	mu  sync.Mutex
	now map[string]string
}

// set replaces the problem of a part, "" for none, and says whether there is one now that was not told before.
func (p *problems) set(part, sentence string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := p.now[part]
	if sentence == "" {
		delete(p.now, part)
		return false
	}
	if p.now == nil {
		p.now = map[string]string{}
	}
	p.now[part] = sentence
	return sentence != told
}

// all returns the problems, each after the name of its part, sorted.
func (p *problems) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []string
	for _, part := range slices.Sorted(maps.Keys(p.now)) {
		list = append(list, part+": "+p.now[part])
	}
	return list
}

func (p *problems) of(part string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now[part]
}
