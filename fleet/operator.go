package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// devicesLimit bounds an operator's table against a broker full of names.
	devicesLimit = 10000
	// resendEvery is how long a command may be without news before it is sent
	// again, which brings the device's stored answer if one was lost.
	resendEvery = 15 * time.Second
)

// Operator is the other side of the contract: it watches all devices below a
// root and sends them commands.
type Operator struct {
	cfg Config
	log *slog.Logger

	changed chan struct{} // capacity 1

	mu      sync.Mutex
	session *session // nil: not connected
	trouble trouble
	devices map[string]*Seen
	waiting map[string]*awaited // by the topic of the command's state
}

// Seen is what a device has said. Nil pointers: nothing yet.
type Seen struct {
	Device string     `json:"device"`
	Online bool       `json:"online"`
	At     time.Time  `json:"at"` // of the newest message, by this machine's clock
	Health *Health    `json:"health,omitempty"`
	Model  *ModelCard `json:"model,omitempty"`
	Event  *Event     `json:"event,omitempty"` // the newest
}

// awaited is a command whose answers somebody waits for.
type awaited struct {
	state   CommandState  // the newest
	changed chan struct{} // capacity 1
}

// NewOperator takes of cfg what concerns the connection, and Root. An empty
// ClientID becomes a random one, so that several operators can watch.
func NewOperator(cfg Config, log *slog.Logger) (*Operator, error) {
	cfg.Device = "operator"
	if cfg.ClientID == "" {
		cfg.ClientID = "fovea-fleet-" + rand.Text()
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Operator{
		cfg: cfg, log: log, changed: make(chan struct{}, 1),
		devices: map[string]*Seen{}, waiting: map[string]*awaited{},
	}, nil
}

// Run keeps the operator connected until ctx is done. It may be called once.
func (o *Operator) Run(ctx context.Context) error {
	any := Topics{Root: o.cfg.Root, Device: "+"}
	b := backoff{}
	for ctx.Err() == nil {
		s, err := connect(ctx, o.cfg, nil, o.receive)
		if err == nil {
			// With QoS 0, since a broker queues only so many messages of QoS 1
			// for one client (Mosquitto 1000) and a fleet retains more.
			err = s.subscribe(ctx, 0, any.Availability(), any.Status(), any.Model(), any.CommandState("+", "+"))
		}
		if err == nil { // which retains nothing: a broker answers behind what it had to send for the others
			err = s.subscribe(ctx, 0, any.Event())
		}
		switch {
		case ctx.Err() != nil:
		case err == nil:
			began := time.Now()
			o.become(s, trouble{})
			select {
			case <-ctx.Done():
			case <-s.gone:
				b.ended(time.Since(began), peerClosed(s.why))
				o.become(nil, trouble{ConnectionLost, "the connection to the broker was lost: " + s.why.Error(), "nothing to do: it is made again"})
			}
		case s != nil:
			b.failed(false)
			o.become(nil, trouble{SubscribeDenied, err.Error(), "allow this user to read " + any.Status() + " and the topics beside it (the broker's ACL)"})
		default:
			var failed *connectError
			errors.As(err, &failed)
			t := diagnose(o.cfg, failed.err, failed.code)
			b.failed(t.Problem == Unreachable)
			o.become(nil, t)
		}
		if s != nil {
			s.close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(b.wait()):
		}
	}
	o.become(nil, trouble{})
	return nil
}

func (o *Operator) become(s *session, t trouble) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t.Problem != NoProblem && t.Problem != o.trouble.Problem {
		o.log.Warn("mqtt: "+t.Reason, "problem", t.Problem, "do", t.Hint, "broker", Redact(o.cfg.Broker))
	}
	o.session, o.trouble = s, t
	o.notify()
}

// Connected says whether the operator is, and if not, why and what to do.
func (o *Operator) Connected() (ok bool, problem Problem, reason, hint string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.session != nil, o.trouble.Problem, o.trouble.Reason, o.trouble.Hint
}

// Changed is sent to after something changed: the connection or a device. Many
// changes may be one.
func (o *Operator) Changed() <-chan struct{} { return o.changed }

func (o *Operator) notify() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// Devices are copies of all that were seen, by name. What their pointers lead
// to is not changed any more.
func (o *Operator) Devices() []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]Seen, 0, len(o.devices))
	for _, d := range o.devices {
		all = append(all, *d)
	}
	slices.SortFunc(all, func(a, b Seen) int { return cmp.Compare(a.Device, b.Device) })
	return all
}

// Device is a copy of what one device has said, false if it said nothing.
func (o *Operator) Device(name string) (Seen, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d, ok := o.devices[name]
	if !ok {
		return Seen{}, false
	}
	return *d, true
}

// receive takes a message in; it never waits.
func (o *Operator) receive(a arrival) {
	p := parseTopic(o.cfg.Root, a.topic)
	if CheckName(p.device) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.kind == commandStateTopic {
		o.answer(a)
		return
	}
	d := o.devices[p.device]
	if d == nil {
		if len(o.devices) >= devicesLimit || len(a.payload) == 0 {
			return
		}
		d = &Seen{Device: p.device}
	}
	switch p.kind {
	case availabilityTopic:
		d.Online = string(a.payload) == Online
	case statusTopic:
		d.Health = decoded(d.Health, a.payload)
	case modelTopic:
		d.Model = decoded(d.Model, a.payload)
	case eventTopic:
		d.Event = decoded(d.Event, a.payload)
	default:
		return
	}
	d.At = time.Now()
	o.devices[p.device] = d
	if !d.Online && d.Health == nil && d.Model == nil && len(a.payload) == 0 {
		delete(o.devices, p.device) // its retained messages were cleared: it is forgotten
	}
	o.notify()
}

// decoded is the payload as a T, nil if it is empty, or before if it is not
// one: a newer device's words are not taken for nothing.
func decoded[T any](before *T, payload []byte) *T {
	if len(payload) == 0 {
		return nil
	}
	v := new(T)
	if json.Unmarshal(payload, v) != nil {
		return before
	}
	return v
}

func (o *Operator) answer(a arrival) {
	w := o.waiting[a.topic]
	if w == nil || len(a.payload) == 0 {
		return
	}
	var s CommandState
	if json.Unmarshal(a.payload, &s) != nil || w.state.Final() {
		return
	}
	w.state = s
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Request is a command to send.
type Request struct {
	Device    string
	Verb      Verb
	ID        string        // "" makes one
	Args      any           // AdaptArgs for adapt; nil is none
	ExpiresIn time.Duration // 0: never
	// Hold, once closed, keeps it from being sent, for the first time or again;
	// its answer is waited for all the same. Nil is never closed.
	Hold   <-chan struct{}
	Follow func(CommandState)
}

// Do sends a command and waits for its end, sending again with the same id
// when there is no news. Follow, if there is one, is told each state on the
// way. The error is ctx's, or about the request; that the command failed is in
// the state.
func (o *Operator) Do(ctx context.Context, r Request) (CommandState, error) {
	if err := CheckName(r.Device); err != nil {
		return CommandState{}, fmt.Errorf("send %s: device: %w", r.Verb, err)
	}
	if r.ID == "" {
		r.ID = rand.Text()
	}
	if err := CheckID(r.ID); err != nil {
		return CommandState{}, fmt.Errorf("send %s to %s: %w", r.Verb, r.Device, err)
	}
	payload, err := r.payload(time.Now())
	if err != nil {
		return CommandState{}, fmt.Errorf("send %s to %s: %w", r.Verb, r.Device, err)
	}

	topics := Topics{Root: o.cfg.Root, Device: r.Device}
	answer := topics.CommandState(string(r.Verb), r.ID)
	w := &awaited{changed: make(chan struct{}, 1)}
	o.mu.Lock()
	if o.waiting[answer] != nil {
		o.mu.Unlock()
		return CommandState{}, fmt.Errorf("send %s to %s: the id %s is in use", r.Verb, r.Device, r.ID)
	}
	o.waiting[answer] = w
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.waiting, answer)
	}()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var sent time.Time // or heard of
	for {
		o.mu.Lock()
		s, state := o.session, w.state
		o.mu.Unlock()
		if s != nil && time.Since(sent) >= resendEvery && !isClosed(r.Hold) {
			// Its loss is the next tick's business.
			s.send(outgoing{topic: topics.Command(string(r.Verb), r.ID), qos: 1, payload: payload})
			sent = time.Now()
		}
		select {
		case <-ctx.Done():
			return state, fmt.Errorf("wait for %s of %s: %w", r.Verb, r.Device, ctx.Err())
		case <-w.changed:
			sent = time.Now()
			o.mu.Lock()
			state = w.state
			o.mu.Unlock()
			if r.Follow != nil {
				r.Follow(state)
			}
			if state.Final() {
				return state, nil
			}
		case <-tick.C:
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// payload joins arguments and envelope.
func (r Request) payload(now time.Time) ([]byte, error) {
	fields := map[string]any{}
	if r.Args != nil {
		text, err := json.Marshal(r.Args)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &fields); err != nil {
			return nil, fmt.Errorf("arguments of type %T: use a struct", r.Args)
		}
	}
	fields["issued_at"] = stamp(now)
	if r.ExpiresIn > 0 {
		fields["expires_at"] = stamp(now.Add(r.ExpiresIn))
	}
	return json.Marshal(fields)
}

// Forget clears all retained messages of a device that is gone for good. It
// watches them for a while, so that it knows what there is.
func (o *Operator) Forget(ctx context.Context, device string, watch time.Duration) (cleared int, err error) {
	if err := CheckName(device); err != nil {
		return 0, fmt.Errorf("forget: %w", err)
	}
	cfg := o.cfg
	cfg.ClientID += "-forget"
	var (
		mu     sync.Mutex
		topics = map[string]bool{}
	)
	h := cfg.HomeAssistant
	s, err := connect(ctx, cfg, nil, func(a arrival) {
		mine := strings.HasPrefix(a.topic, cfg.Root+"/"+device+"/") || strings.HasPrefix(a.topic, h.Prefix+"/")
		mu.Lock()
		defer mu.Unlock()
		if a.retained && mine {
			topics[a.topic] = true
		}
	})
	if err != nil {
		return 0, fmt.Errorf("forget %s: %w", device, err)
	}
	defer s.close()
	if err := s.subscribe(ctx, 0, cfg.Root+"/"+device+"/#", h.deviceTopic(device), h.componentTopic("+", device, "+")); err != nil {
		return 0, fmt.Errorf("forget %s: %w", device, err)
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(watch):
	}
	mu.Lock()
	found := slices.Collect(maps.Keys(topics))
	mu.Unlock()
	for _, topic := range found {
		if err := s.send(outgoing{topic: topic, qos: 1, retained: true})(ackLimit); err != nil {
			return cleared, fmt.Errorf("forget %s: %w", device, err)
		}
		cleared++
	}
	return cleared, nil
}
