package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// brokerSide is a link that keeps what a broker would: all messages by topic,
// and the retained ones.
type brokerSide struct {
	mu       sync.Mutex
	got      map[string][]string
	retained map[string]string
	flags    map[string]bool // the retain flag of the newest message
	qos      map[string]byte // of the newest message
}

func newBrokerSide() *brokerSide {
	return &brokerSide{got: map[string][]string{}, retained: map[string]string{}, flags: map[string]bool{}, qos: map[string]byte{}}
}

func (b *brokerSide) send(m outgoing) func(time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got[m.topic] = append(b.got[m.topic], string(m.payload))
	b.flags[m.topic], b.qos[m.topic] = m.retained, m.qos
	switch {
	case m.retained && len(m.payload) == 0:
		delete(b.retained, m.topic)
	case m.retained:
		b.retained[m.topic] = string(m.payload)
	}
	return func(time.Duration) error { return nil }
}

func (b *brokerSide) lost() <-chan struct{} { return nil }

// states returns what was said of a command.
func (b *brokerSide) states(t interface{ Fatal(...any) }, topic string) []CommandState {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []CommandState
	for _, text := range b.got[topic] {
		if text == "" {
			continue
		}
		var s CommandState
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// commandStates counts the retained states of commands.
func (b *brokerSide) commandStates() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic := range b.retained {
		if parseTopic("fovea", topic).kind == commandStateTopic {
			n++
		}
	}
	return n
}

// desk is a device without a connection: commands go in by receive, answers
// come out at the broker's side. For use in a synctest bubble.
type desk struct {
	*Device
	broker *brokerSide
	ran    map[string]int
	gate   chan struct{} // adapt runs until it can receive
	stop   context.CancelFunc
}

func newDesk(t *testing.T, cfg Config, memory CommandLog, queue Queue) *desk {
	t.Helper()
	cfg.Device, cfg.Broker = "gate-1", "mqtt://127.0.0.1"
	if cfg.Allow == nil {
		cfg.Allow = []Verb{VerbHealth, VerbAdapt, VerbCancel, VerbAuto, VerbSnapshot}
	}
	d, err := New(cfg, queue, memory, quiet)
	if err != nil {
		t.Fatal(err)
	}
	k := &desk{Device: d, broker: newBrokerSide(), ran: map[string]int{}, gate: make(chan struct{})}
	offer := func(s VerbSpec) {
		t.Helper()
		if err := d.Handle(s); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	count := func(cmd Command) {
		mu.Lock()
		defer mu.Unlock()
		k.ran[cmd.ID]++
	}
	offer(VerbSpec{Verb: VerbAdapt, Args: AdaptArgs{}, Exclusive: true, Handler: func(ctx context.Context, cmd Command, progress func(float64)) (any, error) {
		count(cmd)
		progress(0.25)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-k.gate:
			return AdaptResult{Verdict: Rejected, Reason: "not better"}, nil
		}
	}})
	offer(VerbSpec{Verb: VerbHealth, Repeatable: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		count(cmd)
		return Health{Health: HealthOK}, nil
	}})
	offer(VerbSpec{Verb: VerbCancel, Args: CancelArgs{}, Repeatable: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		count(cmd)
		if !d.CancelCommand(cmd.Args.(CancelArgs).ID) {
			return nil, &Error{Code: Failed, Reason: "nothing runs"}
		}
		return nil, nil
	}})
	offer(VerbSpec{Verb: VerbAuto, Args: AutoArgs{}, Repeatable: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		count(cmd)
		if cmd.Args.(AutoArgs).On == nil {
			panic("auto without on")
		}
		return nil, nil
	}})
	offer(VerbSpec{Verb: VerbSnapshot, Args: SnapshotArgs{}, Repeatable: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
		count(cmd)
		return nil, d.PublishImage("yard", []byte{0xff, 0xd8})
	}})
	offer(VerbSpec{Verb: VerbReload, Handler: func(context.Context, Command, func(float64)) (any, error) { return nil, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	k.stop = cancel
	d.commands.announce()
	go d.commands.judgeAll(ctx)
	go d.out.drain(ctx, k.broker)
	synctest.Wait()
	return k
}

// close ends the desk's goroutines, its handlers too.
func (k *desk) close() {
	k.commands.stop()
	k.stop()
	synctest.Wait()
}

// ask sends a command and returns the last that is said of it.
func (k *desk) ask(t *testing.T, verb Verb, id, payload string) CommandState {
	t.Helper()
	return k.askAs(t, arrival{topic: k.topics.Command(string(verb), id), payload: []byte(payload)})
}

func (k *desk) askAs(t *testing.T, a arrival) CommandState {
	t.Helper()
	topic := a.topic + "/state"
	before := len(k.broker.states(t, topic))
	k.receive(a)
	synctest.Wait()
	said := k.broker.states(t, topic)
	if len(said) == before {
		t.Fatalf("%s got no answer", a.topic)
	}
	return said[len(said)-1]
}

func TestCommandLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{}, NewCommandLog(), NewQueue(100))
		defer k.close()
		topic := k.topics.CommandState("adapt", "a1")

		k.ask(t, VerbAdapt, "a1", `{"force":true}`)
		time.Sleep(2 * time.Second) // for the progress
		synctest.Wait()
		phases := []Phase{}
		for _, s := range k.broker.states(t, topic) {
			phases = append(phases, s.State)
		}
		if want := []Phase{PhaseAccepted, PhaseExecuting, PhaseExecuting}; !slices.Equal(phases, want) {
			t.Fatalf("phases %v, want %v", phases, want)
		}
		if s := k.broker.states(t, topic)[2]; *s.Progress != 0.25 {
			t.Errorf("progress %+v", s)
		}
		if s := k.ask(t, VerbAdapt, "a2", ""); s.Code != Busy {
			t.Errorf("a second one while it runs: %+v", s)
		}
		if s := k.ask(t, VerbAdapt, "a1", ""); s.State != PhaseExecuting {
			t.Errorf("asked again while it runs: %+v", s)
		}
		k.gate <- struct{}{}
		synctest.Wait()
		said := k.broker.states(t, topic)
		var result AdaptResult
		final := said[len(said)-1]
		if err := json.Unmarshal(final.Result, &result); err != nil || final.State != PhaseSuccessful || result.Verdict != Rejected {
			t.Errorf("a rejected candidate is a command that worked: %+v %v", final, err)
		}
		if s := k.ask(t, VerbAdapt, "a1", ""); s.State != PhaseSuccessful || k.ran["a1"] != 1 {
			t.Errorf("a known id: %+v, ran %d times", s, k.ran["a1"])
		}
		if s := k.ask(t, VerbHealth, "a1", ""); s.State != PhaseSuccessful || s.Verb != VerbAdapt {
			t.Errorf("a known id with another verb: %+v", s)
		}
		if _, kept := k.broker.retained[k.topics.CommandState("health", "a1")]; kept {
			t.Error("the answer under the wrong verb is retained, and nobody would clear it")
		}
		k.ask(t, VerbAdapt, "a2", "") // it was busy: the same id may be tried again
		if s := k.ask(t, VerbCancel, "c1", `{"id":"a2"}`); s.State != PhaseSuccessful {
			t.Errorf("cancel: %+v", s)
		}
		if s := k.ask(t, VerbAdapt, "a2", ""); s.Code != Canceled || k.ran["a2"] != 1 {
			t.Errorf("canceled: %+v", s)
		}

		time.Sleep(retainedAge + sweepEvery)
		synctest.Wait()
		if n := k.broker.commandStates(); n != 0 {
			t.Errorf("%d states are still on the broker after a day", n)
		}
		if s := k.ask(t, VerbAdapt, "a1", ""); s.State != PhaseSuccessful || k.broker.commandStates() != 0 {
			t.Errorf("known after a day: %+v, %d retained", s, k.broker.commandStates())
		}
	})
}

func TestRefusedCommands(t *testing.T) {
	past, later := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) // the bubble's clock begins in 2000
	for _, c := range []struct {
		name     string
		topic    string
		payload  string
		retained bool
		unsynced bool
		want     Code
		field    string
	}{
		{name: "retained", topic: "fovea/gate-1/cmd/adapt/x", retained: true, want: RetainedCommand},
		{name: "too large", topic: "fovea/gate-1/cmd/adapt/x", payload: strings.Repeat(" ", commandLimit+1), want: TooLarge},
		{name: "unknown verb", topic: "fovea/gate-1/cmd/fly/x", want: Unsupported},
		{name: "not offered", topic: "fovea/gate-1/cmd/promote/x", want: Unsupported},
		{name: "not allowed", topic: "fovea/gate-1/cmd/reload/x", want: NotAllowed},
		{name: "pictures are off", topic: "fovea/gate-1/cmd/snapshot/x", want: NotAllowed},
		{name: "adapt to all", topic: "fovea/all/cmd/adapt/x", want: NotAllowed},
		{name: "bad id", topic: "fovea/gate-1/cmd/adapt/a b", want: Invalid, field: "id"},
		{name: "reserved id", topic: "fovea/gate-1/cmd/adapt/state", want: Invalid, field: "id"},
		{name: "expired", topic: "fovea/gate-1/cmd/adapt/x", payload: `{"expires_at":"` + past.Format(time.RFC3339) + `"}`, want: Expired},
		{name: "clock", topic: "fovea/gate-1/cmd/adapt/x", payload: `{"expires_at":"` + later.Format(time.RFC3339) + `"}`, unsynced: true, want: ClockUntrusted},
		{name: "no time", topic: "fovea/gate-1/cmd/adapt/x", payload: `{"expires_at":"tomorrow"}`, want: Invalid, field: "expires_at"},
		{name: "no JSON", topic: "fovea/gate-1/cmd/adapt/x", payload: `{`, want: Invalid},
		{name: "no object", topic: "fovea/gate-1/cmd/adapt/x", payload: `[1]`, want: Invalid},
		{name: "two objects", topic: "fovea/gate-1/cmd/adapt/x", payload: `{}{}`, want: Invalid},
		{name: "unknown field", topic: "fovea/gate-1/cmd/adapt/x", payload: `{"Force":true}`, want: Invalid, field: "Force"},
		{name: "wrong kind", topic: "fovea/gate-1/cmd/adapt/x", payload: `{"force":"yes"}`, want: Invalid, field: "force"},
		{name: "missing field", topic: "fovea/gate-1/cmd/auto/x", want: Invalid, field: "on"},
		{name: "bad value", topic: "fovea/gate-1/cmd/cancel/x", payload: `{"id":"a/b"}`, want: Invalid, field: "id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newDesk(t, Config{TimeSynced: func() bool { return !c.unsynced }}, NewCommandLog(), NewQueue(100))
				defer k.close()
				k.receive(arrival{topic: c.topic, payload: []byte(c.payload), retained: c.retained})
				time.Sleep(6 * time.Second)
				synctest.Wait()
				answer := strings.Replace(c.topic, "/all/", "/gate-1/", 1) + "/state"
				said := k.broker.states(t, answer)
				if len(said) != 1 || said[0].Code != c.want || said[0].Field != c.field || said[0].Reason == "" || len(k.ran) != 0 {
					t.Errorf("%+v, want %s %s; ran %v", said, c.want, c.field, k.ran)
				}
			})
		})
	}
}

func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{Images: true}, NewCommandLog(), NewQueue(100))
		defer k.close()
		k.say(func(s *Status) { s.Connected = true })
		if s := k.ask(t, VerbSnapshot, "x", `{"camera":"yard"}`); s.State != PhaseSuccessful || len(k.broker.got[k.topics.CameraImage("yard")]) != 1 {
			t.Errorf("%+v", s)
		}
		if err := k.PublishImage("yard", make([]byte, ImageLimit+1)); err == nil {
			t.Error("a picture of any size is published")
		}
	})
}

func TestPresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{}, NewCommandLog(), NewQueue(100))
		defer k.close()
		press := func(verb Verb, payload string, duplicate bool) int {
			k.receive(arrival{topic: k.topics.Set(string(verb)), payload: []byte(payload), duplicate: duplicate})
			synctest.Wait()
			return len(k.ran)
		}
		if n := press(VerbAuto, "ON", false); n != 1 {
			t.Errorf("ON ran %d commands", n)
		}
		if n := press(VerbAuto, "OFF", false); n != 1 {
			t.Errorf("within 10 s of the same verb: %d", n)
		}
		if n := press(VerbHealth, "PRESS", true); n != 1 {
			t.Errorf("with DUP set: %d", n)
		}
		if n := press(VerbHealth, "PRESS", false); n != 2 {
			t.Errorf("PRESS: %d", n)
		}
		time.Sleep(pressEvery)
		if n := press(VerbHealth, `{}`, false); n != 3 {
			t.Errorf("JSON: %d", n)
		}
		for range 3 {
			k.receive(arrival{topic: k.topics.Set("adapt"), payload: []byte("PRESS"), retained: true})
			synctest.Wait()
		}
		said := k.broker.states(t, k.topics.CommandState("adapt", retainedPressID))
		if len(said) != 3 || said[2].Code != RetainedCommand || len(k.ran) != 3 {
			t.Errorf("a retained press: %+v", said)
		}
		if id := fmt.Sprint(k.ran); !strings.Contains(id, "set-") {
			t.Errorf("minted ids: %s", id)
		}
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{}, NewCommandLog(), NewQueue(100))
		defer k.close()
		for i := range 10 {
			if s := k.ask(t, VerbHealth, fmt.Sprint(i), ""); s.State != PhaseSuccessful {
				t.Fatalf("command %d: %+v", i, s)
			}
		}
		if s := k.ask(t, VerbHealth, "more", ""); s.Code != RateLimited {
			t.Errorf("the eleventh: %+v", s)
		}
		if k.broker.flags[k.topics.CommandState("health", "more")] {
			t.Error("of these answers there may be any number: they must not be retained")
		}
		if s := k.ask(t, VerbHealth, "3", ""); s.State != PhaseSuccessful {
			t.Errorf("a known id needs no token: %+v", s)
		}
		time.Sleep(6 * time.Second)
		if s := k.ask(t, VerbHealth, "more", ""); s.State != PhaseSuccessful {
			t.Errorf("6 s later, the same id: %+v", s)
		}
	})
}

func TestWholeFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{FleetDelay: 3 * time.Second}, NewCommandLog(), NewQueue(100))
		defer k.close()
		k.receive(arrival{topic: "fovea/all/cmd/health/h1"})
		synctest.Wait()
		time.Sleep(3 * time.Second)
		synctest.Wait()
		said := k.broker.states(t, k.topics.CommandState("health", "h1"))
		if len(said) == 0 || said[len(said)-1].State != PhaseSuccessful {
			t.Fatalf("said %+v", said)
		}
		for i := range 100 { // a flood
			k.receive(arrival{topic: fmt.Sprintf("fovea/all/cmd/health/f%d", i)})
			synctest.Wait()
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		for i := range 100 {
			if len(k.broker.states(t, k.topics.CommandState("health", fmt.Sprintf("f%d", i)))) == 0 {
				t.Errorf("f%d got no answer", i)
			}
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewCommandLog()
		k := newDesk(t, Config{}, memory, NewQueue(100))
		for i := range memoryLimit + 20 {
			k.ask(t, VerbHealth, fmt.Sprint(i), "")
			time.Sleep(6 * time.Second)
			if n := k.broker.commandStates(); n > retainedLimit {
				t.Fatalf("%d retained states", n)
			}
		}
		records := remembered(t, memory)
		if len(records) != memoryLimit || records[0].State.ID != "20" {
			t.Errorf("%d records, the oldest %s", len(records), records[0].State.ID)
		}
		if n := k.broker.commandStates(); n != retainedLimit {
			t.Errorf("%d retained states, want %d", n, retainedLimit)
		}
		time.Sleep(memoryAge + sweepEvery)
		synctest.Wait()
		if records = remembered(t, memory); len(records) != 0 {
			t.Errorf("%d records after 7 days", len(records))
		}
		k.close()
	})
}

// remembered are a log's records in order.
func remembered(t *testing.T, log CommandLog) []commandRecord {
	t.Helper()
	texts, err := log.Load()
	if err != nil {
		t.Fatal(err)
	}
	var all []commandRecord
	for _, text := range texts {
		var r commandRecord
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b commandRecord) int { return cmp.Compare(a.Seq, b.Seq) })
	return all
}

// TestDamagedMemory: what cannot be read is left out, the rest goes on.
func TestDamagedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, queue := NewCommandLog(), NewQueue(10)
		memory.Save("x", []byte("{damaged"))
		memory.Save("y", []byte("null"))
		for _, text := range []string{"damaged", `{"topic":"a"}`, "null", `{"topic":"b"}`, "[]"} {
			queue.Push([]byte(text))
		}
		k := newDesk(t, Config{}, memory, queue)
		defer k.close()
		if len(k.broker.got["a"]) != 1 || len(k.broker.got["b"]) != 1 || queue.Len() != 0 {
			t.Errorf("got %v, %d still queued", k.broker.got, queue.Len())
		}
		if s := k.ask(t, VerbHealth, "h", ""); s.State != PhaseSuccessful {
			t.Errorf("health: %+v", s)
		}
	})
}

// TestClockJumps: a clock that was wrong forgets nothing.
func TestClockJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewCommandLog()
		long := CommandState{State: PhaseSuccessful, Verb: VerbAdapt, TS: time.Unix(60, 0)}
		for i, id := range []string{"from-1970", "later"} {
			long.ID = id
			record, _ := json.Marshal(commandRecord{Seq: uint64(i + 1), State: long, Synced: false})
			memory.Save(id, record)
		}
		k := newDesk(t, Config{}, memory, NewQueue(100))
		defer k.close()
		if s := k.ask(t, VerbAdapt, "from-1970", ""); s.State != PhaseSuccessful || len(k.ran) != 0 {
			t.Errorf("%+v, ran %v", s, k.ran)
		}
	})
}

// lostLog began empty after a loss.
type lostLog struct {
	CommandLog
	at time.Time
}

func (l lostLog) LostAt() time.Time { return l.at }

func TestStateLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := time.Now().Add(-time.Hour)
		k := newDesk(t, Config{}, lostLog{NewCommandLog(), lost}, NewQueue(100))
		defer k.close()
		if s := k.ask(t, VerbAdapt, "a", ""); s.Code != StateLost {
			t.Errorf("an id that may be from before: %+v", s)
		}
		before := fmt.Sprintf(`{"issued_at":%q}`, lost.Add(-time.Minute).Format(time.RFC3339))
		if s := k.ask(t, VerbAdapt, "b", before); s.Code != StateLost {
			t.Errorf("an id from before: %+v", s)
		}
		if s := k.ask(t, VerbHealth, "h", ""); s.State != PhaseSuccessful {
			t.Errorf("what may run twice: %+v", s)
		}
		after := fmt.Sprintf(`{"issued_at":%q}`, lost.Add(time.Minute).Format(time.RFC3339))
		if s := k.ask(t, VerbAdapt, "c", after); s.State.final() {
			t.Errorf("an id from after: %+v", s)
		}
	})
}

func (p Phase) final() bool { return p == PhaseSuccessful || p == PhaseFailed }

// fullLog fails like one on a full disk.
type fullLog struct{ CommandLog }

func (fullLog) Save(string, []byte) error { return errors.New("no space left on device") }

func TestWhatCannotBeRememberedDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newDesk(t, Config{}, fullLog{NewCommandLog()}, NewQueue(100))
		defer k.close()
		if s := k.ask(t, VerbAdapt, "a", ""); s.Code != Failed || k.ran["a"] != 0 {
			t.Errorf("adapt: %+v, ran %d times", s, k.ran["a"])
		}
		if s := k.ask(t, VerbHealth, "h", ""); s.State != PhaseSuccessful {
			t.Errorf("health: %+v", s)
		}
	})
}

func TestHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Config{Device: "gate-1", Broker: "mqtt://h", Allow: Verbs}, NewQueue(100), NewCommandLog(), quiet)
		if err != nil {
			t.Fatal(err)
		}
		results := map[Verb]func() (any, error){
			VerbAdapt:    func() (any, error) { panic("oh") },
			VerbCancel:   func() (any, error) { return nil, &Error{Code: Invalid, Field: "id", Reason: "r"} },
			VerbPromote:  func() (any, error) { return strings.Repeat("x", resultLimit), nil },
			VerbRollback: func() (any, error) { return func() {}, nil },
			VerbReload:   func() (any, error) { return nil, errors.New("bad configuration") },
		}
		for v, f := range results {
			if err := d.Handle(VerbSpec{Verb: v, Handler: func(context.Context, Command, func(float64)) (any, error) { return f() }}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		b := newBrokerSide()
		go d.commands.judgeAll(ctx)
		go d.out.drain(ctx, b)
		for v, want := range map[Verb]string{
			VerbAdapt: "failed failed ", VerbCancel: "failed invalid id", VerbPromote: "successful  ",
			VerbRollback: "successful  ", VerbReload: "failed failed ",
		} {
			d.receive(arrival{topic: d.topics.Command(string(v), string(v))})
			synctest.Wait()
			said := b.states(t, d.topics.CommandState(string(v), string(v)))
			s := said[len(said)-1]
			if got := fmt.Sprintf("%s %s %s", s.State, s.Code, s.Field); got != want || s.Reason == "" {
				t.Errorf("%s: %q with reason %q, want %q", v, got, s.Reason, want)
			}
		}
		cancel()
		synctest.Wait()
	})
}

func TestCleanStopEndsCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := NewCommandLog()
		k := newDesk(t, Config{}, memory, NewQueue(100))
		k.ask(t, VerbAdapt, "a", "")
		k.close()
		records := remembered(t, memory)
		if len(records) != 1 || records[0].State.Code != Canceled {
			t.Errorf("%+v", records)
		}
	})
}

// mortal is a log on the disk of a machine that loses power at its countdown-th
// write: that one and all later ones do not happen, nor what would follow them.
type mortal struct {
	CommandLog
	countdown int // negative: immortal; 0: dead
}

func (m *mortal) Save(id string, record []byte) error {
	if m.countdown > 0 {
		m.countdown--
	}
	if m.countdown == 0 {
		runtime.Goexit()
	}
	return m.CommandLog.Save(id, record)
}

// TestHistories runs 1,000 random histories of commands, answers, outages,
// kills at any write, and restarts. No command runs twice, each gets an answer,
// and what is retained is bounded.
func TestHistories(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		flag.Set("rapid.checks", "1000")
		defer flag.Set("rapid.checks", checks.DefValue)
	}
	rapid.Check(t, func(rt *rapid.T) { history(t, rt) })
}

func history(t *testing.T, rt *rapid.T) {
	type step struct {
		do, id, verb string
		n            int
	}
	ids := rapid.SampledFrom([]string{"a", "b", "c", "d"})
	steps := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
		return step{
			do:   rapid.SampledFrom([]string{"send", "send", "send", "retained", "press", "finish", "wait", "kill", "power cut", "stop"}).Draw(rt, "do"),
			id:   ids.Draw(rt, "id"),
			verb: rapid.SampledFrom([]string{"adapt", "adapt", "health", "cancel"}).Draw(rt, "verb"),
			n:    rapid.IntRange(1, 8).Draw(rt, "n"),
		}
	}), 1, 40).Draw(rt, "steps")

	synctest.Test(t, func(t *testing.T) {
		memory, queue := NewCommandLog(), NewQueue(200)
		disk := &mortal{memory, -1}
		k := newDesk(t, Config{}, disk, queue)
		ran := map[string]int{}
		restart := func() {
			disk.countdown = 0
			k.stop()
			k.commands.mu.Lock()
			for _, run := range k.commands.running {
				run.cancel(nil) // its goroutine ends, and cannot say so any more
			}
			k.commands.mu.Unlock()
			synctest.Wait()
			for id, n := range k.ran {
				ran[id] += n
			}
			disk = &mortal{memory, -1}
			k = newDesk(t, Config{}, disk, queue)
		}
		for _, s := range steps {
			topic := k.topics.Command(s.verb, s.id)
			answered := func() int { return len(k.broker.states(t, topic+"/state")) }
			before := answered()
			switch s.do {
			case "send", "retained":
				k.receive(arrival{topic: topic, retained: s.do == "retained"})
				synctest.Wait()
				if disk.countdown != 0 && answered() == before {
					t.Fatalf("%+v got no answer in %+v", s, steps)
				}
			case "press":
				k.receive(arrival{topic: k.topics.Set(s.verb), payload: []byte("PRESS")})
				synctest.Wait()
			case "finish":
				select {
				case k.gate <- struct{}{}:
				default:
				}
				synctest.Wait()
			case "wait":
				time.Sleep(time.Duration(s.n) * 5 * time.Second)
				synctest.Wait()
			case "kill":
				restart()
			case "power cut":
				disk.countdown = s.n
			case "stop":
				if disk.countdown != 0 {
					k.close()
				}
				restart()
			}
			if disk.countdown == 0 {
				restart()
			}
			if n := k.broker.commandStates(); n > retainedLimit {
				t.Fatalf("%d retained states", n)
			}
		}
		restart()
		for id, n := range ran {
			if n > 1 {
				t.Errorf("%s ran %d times in %+v", id, n, steps)
			}
		}
		for _, r := range remembered(t, memory) {
			if !r.State.Final() {
				t.Errorf("after a restart %+v is still open", r.State)
			}
		}
		k.close()
	})
}
