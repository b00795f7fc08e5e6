package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// sendWindow is how many queued messages are on their way at once, so that
	// a full queue of QueueLimit is out within 10 s where a round trip to the
	// broker takes up to 600 ms.
	sendWindow = 64
	// ackLimit is how long the broker may take to acknowledge a window.
	ackLimit = 10 * time.Second
	// queueRest is how long a queue that fails (a full disk) is left alone.
	queueRest = 10 * time.Second
	// passingLimit bounds the slots of answers that nobody remembers.
	passingLimit = 256
)

// outgoing is a message on its way out.
type outgoing struct {
	topic    string
	qos      byte
	retained bool
	payload  []byte
}

// queued is a message as the queue has it, in JSON. It is sent with QoS 1.
type queued struct {
	Topic    string `json:"topic"`
	Retained bool   `json:"retained,omitempty"`
	Payload  []byte `json:"payload,omitempty"` // in base64
}

// link is one connection to a broker.
type link interface {
	// send hands m to the connection; the returned func waits until the broker
	// has it, at most limit.
	send(m outgoing) (acknowledged func(limit time.Duration) error)
	// lost is closed when the connection is gone.
	lost() <-chan struct{}
}

// outbox holds what is to be published: the newest value of each state topic,
// and the queue of what must not be lost.
type outbox struct {
	queue Queue
	log   *slog.Logger
	wake  chan struct{} // capacity 1: something changed

	resting time.Time // the queue failed: not touched before this; owned by the sender

	mu      sync.Mutex
	slots   map[string]*slot
	order   []string // topics of slots as they were first set: availability goes first
	passing int      // slots that are not kept
}

// slot is the newest value of one topic.
type slot struct {
	outgoing
	kept       bool      // sent again at every connect; otherwise gone once sent
	afterQueue bool      // waits until the queue is empty: it belongs after messages in it
	unsent     bool      // differs from what the broker has
	due        time.Time // not to be sent earlier
	sentAt     time.Time
}

func newOutbox(q Queue, log *slog.Logger) *outbox {
	return &outbox{queue: q, log: log, wake: make(chan struct{}, 1), slots: map[string]*slot{}}
}

func (o *outbox) notify() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// set makes m the newest value of its topic, sent at every connect. It goes
// out at once, or, with every > 0, not before that long after the last one.
// A value that the broker has already is not sent again.
func (o *outbox) set(m outgoing, every time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.slots[m.topic]
	if s == nil {
		s = &slot{kept: true}
		o.slots[m.topic] = s
		o.order = append(o.order, m.topic)
	} else if !s.unsent && bytes.Equal(s.payload, m.payload) && every == 0 {
		return
	}
	var due time.Time
	if every > 0 && !s.sentAt.IsZero() {
		due = s.sentAt.Add(every)
	}
	if s.unsent && s.due.Before(due) {
		due = s.due // an urgent value waits already: this one goes in its place
	}
	s.outgoing, s.unsent, s.due = m, true, due
	o.notify()
}

// again sends the newest values of these topics once more.
func (o *outbox) again(topics []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, topic := range topics {
		if s := o.slots[topic]; s != nil {
			s.unsent, s.due = true, time.Time{}
		}
	}
	o.notify()
}

// pass makes m the newest value of its topic, sent once, not before every after
// the last one and, with afterQueue, not before the queue is empty. It says
// false if there are too many already.
func (o *outbox) pass(m outgoing, every time.Duration, afterQueue bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.slots[m.topic]
	if s == nil {
		if o.passing >= passingLimit {
			return false
		}
		o.passing++
		s = &slot{due: time.Now().Add(every)}
		o.slots[m.topic] = s
		o.order = append(o.order, m.topic)
	}
	if every == 0 {
		s.due = time.Time{} // somebody asked: not to be kept waiting by progress
	}
	s.outgoing, s.unsent, s.afterQueue = m, true, afterQueue
	o.notify()
	return true
}

// drop forgets the newest value of topic, sent or not.
func (o *outbox) drop(topic string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(topic)
}

func (o *outbox) remove(topic string) {
	s := o.slots[topic]
	if s == nil {
		return
	}
	if !s.kept {
		o.passing--
	}
	delete(o.slots, topic)
	for i, t := range o.order {
		if t == topic {
			o.order = append(o.order[:i], o.order[i+1:]...)
			break
		}
	}
}

// push queues m. A passing value of the same topic, which is older, is dropped.
func (o *outbox) push(m queued) error {
	o.mu.Lock()
	if s := o.slots[m.Topic]; s != nil && !s.kept {
		o.remove(m.Topic)
	}
	text, err := json.Marshal(m)
	if err == nil {
		err = o.queue.Push(text)
	}
	o.mu.Unlock()
	o.notify()
	return err
}

// connected makes every kept value unsent: the broker may have been started
// empty.
func (o *outbox) connected() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.slots {
		s.unsent, s.due = true, time.Time{}
	}
	o.notify()
}

// errLost says that a connection ended under what was being sent.
var errLost = errors.New("connection lost")

// drain publishes until ctx is done (nil), the connection is lost or does not
// acknowledge in time.
func (o *outbox) drain(ctx context.Context, l link) error {
	defer o.queue.Release()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		sent, err := o.sendWindow(l)
		if err != nil {
			return err
		}
		next, err := o.sendSlots(l)
		if err != nil {
			return err
		}
		switch rest := time.Until(o.resting); {
		case sent == sendWindow:
			next = 0
		case rest > 0:
			next = min(next, rest)
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case <-l.lost():
			return errLost
		case <-o.wake:
		case <-timer.C:
		}
	}
}

// flush publishes once all that is due. It returns early when ctx is done.
func (o *outbox) flush(ctx context.Context, l link) error {
	defer o.queue.Release()
	for ctx.Err() == nil {
		sent, err := o.sendWindow(l)
		if err != nil {
			return err
		}
		if sent < sendWindow {
			_, err := o.sendSlots(l)
			return err
		}
	}
	return nil
}

// sendWindow publishes up to sendWindow queued messages and removes the ones
// that were acknowledged, always the oldest first. Its error is the link's: a
// queue that fails is logged and left alone for a while, so that state topics
// go on.
func (o *outbox) sendWindow(l link) (sent int, err error) {
	if time.Until(o.resting) > 0 {
		return 0, nil
	}
	batch, err := o.queue.Lease(sendWindow)
	if err != nil {
		o.rest("read", err)
		return 0, nil
	}
	if len(batch) == 0 {
		return 0, nil
	}
	var (
		messages []outgoing
		place    = []int{0} // of the batch, how many are gone once so many messages have arrived
	)
	for i, text := range batch {
		var m queued
		if err := json.Unmarshal(text, &m); err != nil || m.Topic == "" {
			o.log.Error("mqtt: a queued message cannot be read and is left out", "bytes", len(text), "err", err)
			place[len(messages)] = i + 1
			continue
		}
		messages = append(messages, outgoing{topic: m.Topic, qos: 1, retained: m.Retained, payload: m.Payload})
		place = append(place, i+1)
	}
	arrived, err := sendAll(l, messages)
	if gone := place[arrived]; gone > 0 {
		if err := o.queue.Remove(gone); err != nil {
			o.rest("remove from", err)
			return 0, nil
		}
	}
	return len(batch), err
}

// sendAll sends a batch and waits until the broker has it all, at most
// ackLimit. It says how many of it, from the front, the broker has.
func sendAll(l link, batch []outgoing) (arrived int, err error) {
	limit := time.Now().Add(ackLimit)
	var waits []func(time.Duration) error
	for _, m := range batch {
		if time.Until(limit) <= 0 { // each send of a stalled connection takes long
			break
		}
		waits = append(waits, l.send(m))
	}
	for i, wait := range waits {
		if err := wait(time.Until(limit)); err != nil {
			return i, err
		}
	}
	if len(waits) < len(batch) {
		return len(waits), errNoAnswer
	}
	return len(batch), nil
}

func (o *outbox) rest(what string, err error) {
	o.resting = time.Now().Add(queueRest)
	o.log.Error("mqtt: cannot "+what+" the queue of events and results; they are held back, check the disk", "err", err, "again_in", queueRest)
}

// sendSlots publishes the values that are due and returns how long the next
// one has to wait.
func (o *outbox) sendSlots(l link) (next time.Duration, err error) {
	const idle = time.Hour
	queueEmpty := o.queue.Len() == 0
	next = idle

	o.mu.Lock()
	now := time.Now()
	var batch []outgoing
	for _, topic := range append([]string(nil), o.order...) {
		s := o.slots[topic]
		if !s.unsent {
			continue
		}
		if s.afterQueue && !queueEmpty {
			continue // the wake of a later round, or the queue's next window, brings it
		}
		if wait := s.due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		batch = append(batch, s.outgoing)
		s.unsent, s.sentAt = false, now
		if !s.kept {
			o.remove(topic)
		}
	}
	o.mu.Unlock()

	_, err = sendAll(l, batch)
	return next, err
}
