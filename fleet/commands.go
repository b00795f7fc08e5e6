package fleet

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	commandLimit    = 64 << 10         // bytes of a command's payload
	resultLimit     = 64 << 10         // bytes of a result
	inboxLimit      = 64               // arrivals that wait to be judged
	topicLimit      = 256              // bytes of a topic that is answered
	delayedLimit    = 16               // fleet-wide commands that wait their random delay
	atOnceLimit     = 16               // commands that run at the same time
	retainedLimit   = 50               // retained states on the broker
	retainedAge     = 24 * time.Hour   // of a final state before it is cleared
	sweepEvery      = 10 * time.Minute // for what got old
	pressEvery      = 10 * time.Second // a dashboard's second press within this is the first one again
	ratePerMinute   = 10               // commands judged
	progressEvery   = time.Second      // at most
	handlersLimit   = 5 * time.Second  // for handlers to return on a clean stop
	retainedPressID = "retained-set"   // of the answer to a retained message on a set topic
)

// commands judges and runs what arrives. One goroutine judges; handlers run in
// their own.
type commands struct {
	dev     *Device
	memory  CommandLog
	log     *slog.Logger
	specs   map[Verb]VerbSpec
	pressed map[Verb]time.Time // last press on a set topic; owned by the judging goroutine
	rate    bucket             // owned by the judging goroutine

	mu        sync.Mutex
	known     map[string]*commandRecord
	order     []*commandRecord // by Seq
	seq       uint64
	running   map[string]*execution
	exclusive string // id of the running exclusive command
	delayed   int
	stopped   bool
	handlers  sync.WaitGroup
}

// newCommands reads the memory. What was running when it was written took the
// daemon down, or went down with it: it has failed, and says so.
func newCommands(d *Device, memory CommandLog) (*commands, error) {
	c := &commands{
		dev: d, memory: memory, log: d.log,
		specs: map[Verb]VerbSpec{}, pressed: map[Verb]time.Time{}, rate: bucket{tokens: ratePerMinute, last: time.Now()},
		known: map[string]*commandRecord{}, running: map[string]*execution{},
	}
	records, err := memory.Load()
	if err != nil {
		return nil, fmt.Errorf("mqtt: read the memory of commands: %w", err)
	}
	for _, text := range records {
		r := new(commandRecord)
		if err := json.Unmarshal(text, r); err != nil || r.State.ID == "" {
			c.log.Error("mqtt: a remembered command cannot be read; should it be sent again it would run again", "bytes", len(text), "err", err)
			continue
		}
		c.known[r.State.ID] = r
		c.order = append(c.order, r)
		c.seq = max(c.seq, r.Seq)
	}
	slices.SortFunc(c.order, func(a, b *commandRecord) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, r := range c.order {
		switch {
		case !r.State.Final():
			c.settle(r, CommandState{State: PhaseFailed, Code: Crashed, Reason: "the daemon went down while this ran; it is not run again: look at its log, then send a new command"})
		case r.Retained:
			// The daemon may have gone down before this was published.
			d.out.pass(c.message(r.State, true), 0, false)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep()
	return c, nil
}

func (c *commands) offer(spec VerbSpec) error {
	if spec.Args == nil {
		spec.Args = NoArgs{}
	}
	switch {
	case !slices.Contains(Verbs, spec.Verb):
		return fmt.Errorf("mqtt: there is no verb %q: use %v", spec.Verb, Verbs)
	case reflect.TypeOf(spec.Args).Kind() != reflect.Struct:
		return fmt.Errorf("mqtt: the arguments of %s are a %T: use a struct", spec.Verb, spec.Args)
	case spec.Handler == nil:
		return fmt.Errorf("mqtt: the verb %s has no handler", spec.Verb)
	}
	c.specs[spec.Verb] = spec
	return nil
}

// refused says why a verb is not taken from remote; "" is that it is.
func (c *commands) refused(v Verb) string {
	switch cfg := c.dev.cfg; {
	case !slices.Contains(cfg.Allow, v):
		return "this device's configuration (mqtt.allow) does not take the verb from remote"
	case v == VerbSnapshot && !cfg.Images:
		return noImages
	}
	return ""
}

// offers says whether a verb is there and taken from remote.
func (c *commands) offers(v Verb) bool {
	_, ok := c.specs[v]
	return ok && c.refused(v) == ""
}

// announce publishes what each verb takes, and nothing for those not offered.
func (c *commands) announce() {
	for _, v := range Verbs {
		var payload []byte
		if c.offers(v) {
			card, err := json.Marshal(VerbCard{Version: 1, Schema: commandSchema(c.specs[v].Args)})
			if err != nil {
				c.log.Error("mqtt: cannot describe a verb", "verb", v, "err", err)
				continue
			}
			payload = card
		}
		c.dev.out.set(outgoing{topic: c.dev.topics.Verb(string(v)), qos: 1, retained: true, payload: payload}, 0)
	}
}

// filters are all that a device subscribes to.
func (d *Device) filters() []string {
	f := []string{d.topics.Set("+"), d.topics.Command("+", "+"), d.topics.fleetWide().Command("+", "+")}
	if d.cfg.HomeAssistant.Discovery != DiscoveryOff {
		f = append(f, d.cfg.HomeAssistant.statusTopic())
	}
	return f
}

// receive takes an arrival from the connection. It never waits: commands that
// come faster than they are judged are dropped and counted, and their sender,
// without an answer, sends again.
func (d *Device) receive(a arrival) {
	select {
	case d.inbox <- a:
	default:
		d.overrun()
	}
}

func (d *Device) overrun() {
	d.mu.Lock()
	d.status.Overrun++
	n := d.status.Overrun
	d.mu.Unlock()
	if n&(n-1) == 0 { // 1, 2, 4, 8, ...
		d.log.Warn("mqtt: messages to this device come faster than they can be judged; some were dropped", "dropped", n)
	}
}

// judgeAll judges arrivals until ctx is done.
func (c *commands) judgeAll(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.mu.Lock()
			c.sweep()
			c.mu.Unlock()
		case a := <-c.dev.inbox:
			if a.topic == c.dev.cfg.HomeAssistant.statusTopic() {
				c.dev.homeAssistantSays(ctx, a)
				continue
			}
			c.judge(a)
		}
	}
}

// request is who asks for what.
type request struct {
	verb      Verb
	id        string
	minted    bool // by the device, for a press
	fleetWide bool
}

// judge answers one arrival: a stored answer for a known id, a refusal, or the
// start of the command.
func (c *commands) judge(a arrival) {
	if !utf8.ValidString(a.topic) || strings.ContainsAny(a.topic, "\x00+#") {
		// No broker may deliver these, and one that is sent an answer to them
		// ends the connection.
		c.log.Warn("mqtt: a message on a topic that MQTT forbids was ignored", "topic", strings.ToValidUTF8(cut(a.topic, topicLimit), "?"))
		return
	}
	p := parseTopic(c.dev.cfg.Root, a.topic)
	r := request{verb: Verb(p.verb), id: p.cmdID, fleetWide: p.device == Everyone}
	switch {
	case p.device != c.dev.cfg.Device && p.device != Everyone:
		return
	case p.kind == setTopic && !r.fleetWide:
		if !c.press(&r, a) {
			return
		}
		a.payload = fromDashboard(a.payload)
	case p.kind != commandTopic, len(a.topic) > topicLimit:
		c.log.Warn("mqtt: a message on a topic that is no command was ignored", "topic", cut(a.topic, topicLimit))
		return
	}
	if r.fleetWide && !a.delayed && c.delay(a) {
		return
	}

	if state, retained, known := c.lookup(r.id); known {
		c.replay(r, state, retained)
		return
	}
	if !c.rate.take(time.Now()) {
		c.passRefusal(r, &Error{Code: RateLimited, Reason: fmt.Sprintf("this device takes %d commands a minute: wait, then send it again with the same id", ratePerMinute)})
		return
	}
	if err := CheckID(r.id); err != nil {
		c.passRefusal(r, &Error{Code: Invalid, Field: "id", Reason: err.Error()})
		return
	}
	cmd, err := c.check(r, a)
	if err != nil {
		c.refuse(r, err)
		return
	}
	c.start(cmd)
}

// press gives a dashboard's message an id, or says that it is to be ignored:
// it was delivered before, or is the press of a moment ago.
func (c *commands) press(r *request, a arrival) bool {
	r.minted = true
	if a.retained {
		r.id = retainedPressID // always the same: answered once
		return true
	}
	last, pressed := c.pressed[r.verb]
	if a.duplicate || pressed && time.Since(last) < pressEvery {
		c.log.Info("mqtt: a repeated press was ignored", "verb", cut(string(r.verb), 64))
		return false
	}
	if slices.Contains(Verbs, r.verb) { // others would grow the map
		c.pressed[r.verb] = time.Now()
	}
	var random [8]byte
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	r.id = "set-" + hex.EncodeToString(random[:])
	return true
}

// delay has a fleet-wide command come again after a random while, so that not
// all devices answer at once. It says false if too many wait already.
func (c *commands) delay(a arrival) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.delayed >= delayedLimit {
		return false
	}
	c.delayed++
	a.delayed = true
	time.AfterFunc(rand.N(c.dev.cfg.FleetDelay), func() {
		c.mu.Lock()
		c.delayed--
		c.mu.Unlock()
		c.dev.receive(a)
	})
	return true
}

// lookup returns the newest state of a known id.
func (c *commands) lookup(id string) (state CommandState, retained, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.known[id]
	if r == nil || r.retryable() {
		return CommandState{}, false, false
	}
	return r.State, r.Retained, true
}

// replay publishes a stored answer again, where it was asked for.
func (c *commands) replay(r request, state CommandState, retained bool) {
	m := c.message(state, retained)
	if r.verb != state.Verb {
		m.topic, m.retained = c.dev.topics.CommandState(string(r.verb), r.id), false
	}
	if !c.dev.out.pass(m, 0, true) {
		c.dev.overrun()
	}
}

// check judges an unknown command in the order in which a refusal is cheapest
// and says most.
func (c *commands) check(r request, a arrival) (Command, error) {
	cfg := c.dev.cfg
	spec, offered := c.specs[r.verb]
	switch {
	case a.retained:
		return Command{}, &Error{Code: RetainedCommand, Reason: "it was published with the retain flag and would come again at every connect: delete it (an empty retained message on the same topic) and send a new command without the flag"}
	case len(a.payload) > commandLimit:
		return Command{}, &Error{Code: TooLarge, Reason: fmt.Sprintf("a command has at most %d bytes", commandLimit)}
	case r.fleetWide && !slices.Contains(fleetWideVerbs, r.verb):
		return Command{}, &Error{Code: NotAllowed, Reason: fmt.Sprintf("only %v may be sent to the whole fleet: send it to each device", fleetWideVerbs)}
	case !offered:
		return Command{}, &Error{Code: Unsupported, Reason: fmt.Sprintf("this device does not know the verb: it knows %v", c.offered())}
	case c.refused(r.verb) != "":
		return Command{}, &Error{Code: NotAllowed, Reason: c.refused(r.verb)}
	}
	envelope, args, err := decodeCommand(a.payload, spec.Args)
	if err != nil {
		return Command{}, err
	}
	cmd := Command{Verb: r.verb, ID: r.id, Minted: r.minted, FleetWide: r.fleetWide, Args: args}
	if envelope.ExpiresAt != nil {
		cmd.ExpiresAt = *envelope.ExpiresAt
		if !cfg.TimeSynced() {
			return Command{}, &Error{Code: ClockUntrusted, Reason: "this device's clock is not synchronised, so expires_at cannot be judged: leave it out, or try again with the same id"}
		}
		if !time.Now().Before(cmd.ExpiresAt) {
			return Command{}, &Error{Code: Expired, Reason: fmt.Sprintf("expires_at had passed when it arrived at %s", stamp(time.Now()).Format(time.RFC3339))}
		}
	}
	lost := c.memory.LostAt()
	if !lost.IsZero() && time.Since(lost) < memoryAge && !r.minted && !spec.Repeatable &&
		(envelope.IssuedAt == nil || envelope.IssuedAt.Before(lost)) {
		return Command{}, &Error{Code: StateLost, Reason: fmt.Sprintf("this device lost its memory of commands at %s and cannot tell whether this one ran before: send a new id with issued_at", stamp(lost).Format(time.RFC3339))}
	}
	return cmd, nil
}

func (c *commands) offered() []string {
	var names []string
	for _, v := range Verbs {
		if _, ok := c.specs[v]; ok {
			names = append(names, string(v))
		}
	}
	return names
}

// refuse remembers and publishes a refusal.
func (c *commands) refuse(r request, err error) {
	var told *Error
	if !errors.As(err, &told) {
		told = &Error{Code: Invalid, Reason: err.Error()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remember(r, refusal(told))
	c.sweep()
}

// passRefusal publishes a refusal that is not remembered and not retained: of
// these there may be any number.
func (c *commands) passRefusal(r request, e *Error) {
	state := refusal(e)
	state.ID, state.Verb, state.TS = r.id, r.verb, stamp(time.Now())
	m := c.message(state, false)
	if !c.dev.out.pass(m, 0, false) {
		c.dev.overrun()
	}
}
