package fleet

import (
	"encoding/json"
	"time"
)

// The methods of this file keep what is remembered of commands, and its copy
// on the broker, together. All want c.mu held, but message.

// remember makes a record of a new command, saves and publishes it. The record
// is made even if the log fails.
func (c *commands) remember(r request, state CommandState) (*commandRecord, error) {
	c.seq++
	record := &commandRecord{Seq: c.seq, Retained: true, State: CommandState{ID: r.id, Verb: r.verb}}
	c.change(record, state)
	if earlier := c.known[r.id]; earlier != nil { // it was retryable
		c.unlist(earlier)
	}
	c.known[r.id] = record
	c.order = append(c.order, record)
	err := c.save(record)
	c.push(record)
	return record, err
}

// settle gives a record its final state, saved before it is published.
func (c *commands) settle(r *commandRecord, state CommandState) {
	c.change(r, state)
	r.Retained = true
	c.save(r)
	c.push(r)
}

func (c *commands) change(r *commandRecord, state CommandState) {
	state.ID, state.Verb, state.TS = r.State.ID, r.State.Verb, stamp(time.Now())
	r.State, r.Synced = state, c.dev.cfg.TimeSynced()
}

func (c *commands) save(r *commandRecord) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = c.memory.Save(r.State.ID, text)
	}
	if err != nil {
		c.log.Error("mqtt: a command cannot be remembered: check the disk", "id", r.State.ID, "verb", r.State.Verb, "err", err)
	}
	return err
}

func (c *commands) push(r *commandRecord) {
	m := c.message(r.State, true)
	c.queue(queued{Topic: m.topic, Retained: true, Payload: m.payload})
}

func (c *commands) queue(m queued) {
	if err := c.dev.out.push(m); err != nil {
		c.log.Error("mqtt: the answer to a command cannot be queued: check the disk", "topic", m.Topic, "err", err)
	}
}

// message is a state on its topic.
func (c *commands) message(s CommandState, retained bool) outgoing {
	payload, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings, a time, a finite number and JSON that was made here
	}
	return outgoing{topic: c.dev.topics.CommandState(string(s.Verb), s.ID), qos: 1, retained: retained, payload: payload}
}

// sweep clears retained states that are old or too many, then forgets what is
// beyond the memory.
func (c *commands) sweep() {
	retained := 0
	for _, r := range c.order {
		if r.Retained {
			retained++
		}
	}
	for _, r := range c.order {
		if r.Retained && r.State.Final() && (retained > retainedLimit || time.Since(r.State.TS) > retainedAge) {
			retained--
			c.clear(r)
		}
	}

	// By sequence, so that a clock that jumped forgets nothing: all before the
	// newest record that is old beyond doubt.
	forget := max(len(c.order)-memoryLimit, 0)
	if c.dev.cfg.TimeSynced() {
		for i, r := range c.order {
			if r.Synced && r.State.Final() && time.Since(r.State.TS) > memoryAge {
				forget = max(forget, i+1)
			}
		}
	}
	var ids []string
	for _, r := range append([]*commandRecord(nil), c.order[:forget]...) {
		if !r.State.Final() {
			continue
		}
		if r.Retained {
			c.clear(r)
		}
		ids = append(ids, r.State.ID)
		delete(c.known, r.State.ID)
		c.unlist(r)
	}
	if ids == nil {
		return
	}
	if err := c.memory.Forget(ids); err != nil {
		c.log.Error("mqtt: old commands cannot be forgotten: check the disk", "err", err)
	}
}

// clear removes a state from the broker. Should the daemon go down between the
// two steps, it is cleared again.
func (c *commands) clear(r *commandRecord) {
	c.queue(queued{Topic: c.message(r.State, true).topic, Retained: true})
	r.Retained = false
	c.save(r)
}

func (c *commands) unlist(r *commandRecord) {
	for i, other := range c.order {
		if other == r {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}
