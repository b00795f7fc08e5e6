package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
)

// execution is a running command.
type execution struct {
	record    *commandRecord
	exclusive bool
	cancel    context.CancelCauseFunc
}

// errStopping is why a command ends when the daemon does.
var (
	errStopping = errors.New("the daemon was stopped; send it again when the device is online")
	errCanceled = errors.New("stopped by the verb cancel")
)

// start remembers the command, then runs it.
func (c *commands) start(cmd Command) {
	spec := c.specs[cmd.Verb]
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return
	case spec.Exclusive && c.exclusive != "":
		c.remember(request{verb: cmd.Verb, id: cmd.ID}, refusal(&Error{Code: Busy, Reason: fmt.Sprintf("the command %s runs: wait for it, or cancel it, then send this one again with the same id", c.exclusive)}))
		return
	case len(c.running) >= atOnceLimit:
		c.remember(request{verb: cmd.Verb, id: cmd.ID}, refusal(&Error{Code: Busy, Reason: "too many commands run at the same time: send this one again with the same id"}))
		return
	}
	record, err := c.remember(request{verb: cmd.Verb, id: cmd.ID}, CommandState{State: PhaseAccepted})
	if err != nil && !spec.Repeatable {
		c.settle(record, refusal(&Error{Code: Failed, Reason: "the device cannot remember this command, so it must not run it: check its disk, then send a new one"}))
		return
	}
	c.change(record, CommandState{State: PhaseExecuting, Progress: new(float64)})
	c.push(record)

	ctx, cancel := context.WithCancelCause(context.Background())
	run := &execution{record: record, exclusive: spec.Exclusive, cancel: cancel}
	c.running[cmd.ID] = run
	if spec.Exclusive {
		c.exclusive = cmd.ID
	}
	c.handlers.Add(1)
	go func() {
		defer c.handlers.Done()
		defer cancel(nil)
		result, err := c.call(ctx, spec.Handler, cmd, run)
		c.finish(run, outcome(ctx, result, err))
	}()
}

// call runs a handler and survives its panic.
func (c *commands) call(ctx context.Context, h Handler, cmd Command, run *execution) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error("mqtt: a command's handler panicked", "verb", cmd.Verb, "id", cmd.ID, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("a fault in the daemon (%v): please report it with the log", p)
		}
	}()
	return h(ctx, cmd, func(share float64) { c.progress(run, share) })
}

func (c *commands) progress(run *execution, share float64) {
	if Known(share) == nil {
		return
	}
	share = min(max(share, 0), 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[run.record.State.ID] != run {
		return // it is over
	}
	c.change(run.record, CommandState{State: PhaseExecuting, Progress: &share})
	c.dev.out.pass(c.message(run.record.State, true), progressEvery, true)
}

// outcome is the final state of a handler that returned.
func outcome(ctx context.Context, result any, err error) CommandState {
	var told *Error
	switch {
	case err == nil:
		text, err := json.Marshal(result)
		switch {
		case err != nil:
			return CommandState{State: PhaseSuccessful, Reason: "it worked, but its result cannot be written: " + err.Error()}
		case len(text) > resultLimit:
			return CommandState{State: PhaseSuccessful, Reason: fmt.Sprintf("it worked, but its result has more than %d bytes and was left out", resultLimit)}
		case string(text) == "null":
			return CommandState{State: PhaseSuccessful}
		}
		return CommandState{State: PhaseSuccessful, Result: text}
	case errors.As(err, &told):
		return refusal(told)
	case ctx.Err() != nil:
		return refusal(&Error{Code: Canceled, Reason: context.Cause(ctx).Error()})
	}
	return refusal(&Error{Code: Failed, Reason: err.Error()})
}

func refusal(e *Error) CommandState {
	return CommandState{State: PhaseFailed, Code: e.Code, Reason: cut(strings.ToValidUTF8(e.Reason, "?"), 1000), Field: e.Field}
}

// finish makes a command's final state known, unless it is over already.
func (c *commands) finish(run *execution, state CommandState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := run.record.State.ID
	if c.running[id] != run {
		return
	}
	delete(c.running, id)
	if c.exclusive == id {
		c.exclusive = ""
	}
	c.settle(run.record, state)
	c.sweep()
}

func (c *commands) cancel(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == "" {
		id = c.exclusive
	}
	run := c.running[id]
	if run != nil {
		run.cancel(errCanceled)
	}
	return run != nil
}

// stop ends what runs and waits a while for it. What does not end by then is
// recorded as canceled all the same. A second call does nothing.
func (c *commands) stop() {
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return
	}
	c.stopped = true
	runs := make([]*execution, 0, len(c.running))
	for _, run := range c.running {
		run.cancel(errStopping)
		runs = append(runs, run)
	}
	c.mu.Unlock()

	done := make(chan struct{})
	go func() { c.handlers.Wait(); close(done) }()
	timer := time.NewTimer(handlersLimit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	for _, run := range runs {
		c.finish(run, refusal(&Error{Code: Canceled, Reason: errStopping.Error()}))
	}
}
