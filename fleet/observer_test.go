package fleet

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what should take moments; it is long
// because the machine may be busy.
const patience = 40 * time.Second

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("in %v it did not happen: %s", patience, what)
}

// observer is another client that records what it sees.
type observer struct {
	t       *testing.T
	session *session

	mu  sync.Mutex
	got []arrival
}

func observe(t *testing.T, cfg Config, filters ...string) *observer {
	t.Helper()
	o := &observer{t: t}
	cfg.Device = "observer"
	cfg.ClientID = fmt.Sprintf("observer-%d", time.Now().UnixNano())
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	o.session, err = connect(t.Context(), cfg, nil, func(a arrival) {
		a.payload = append([]byte(nil), a.payload...)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.got = append(o.got, a)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.session.close)
	if len(filters) > 0 {
		if err := o.session.subscribe(t.Context(), 1, filters...); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// all returns the payloads seen on topic, oldest first.
func (o *observer) all(topic string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var p []string
	for _, a := range o.got {
		if a.topic == topic {
			p = append(p, string(a.payload))
		}
	}
	return p
}

// last returns the newest payload seen on topic.
func (o *observer) last(topic string) string {
	all := o.all(topic)
	if len(all) == 0 {
		return "(nothing)"
	}
	return all[len(all)-1]
}

// wants waits until the newest payload on topic is want.
func (o *observer) wants(topic, want string) {
	o.t.Helper()
	eventually(o.t, topic+" is "+want, func() bool { return o.last(topic) == want })
}

func (o *observer) publish(topic, payload string, retained bool) {
	o.t.Helper()
	if err := o.session.send(outgoing{topic: topic, qos: 1, retained: retained, payload: []byte(payload)})(patience); err != nil {
		o.t.Fatal(err)
	}
}

// run runs d until the test ends, or until the returned func is called, which
// waits for a clean stop.
func run(t *testing.T, d *Device) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func newDevice(t *testing.T, cfg Config) *Device {
	t.Helper()
	d, err := New(cfg, NewQueue(QueueLimit), NewCommandLog(), quiet)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// problem waits for a problem and returns the status.
func problem(t *testing.T, d *Device, want Problem) Status {
	t.Helper()
	eventually(t, "the problem "+string(want), func() bool { return d.Status().Problem == want })
	s := d.Status()
	if s.Reason == "" || s.Hint == "" {
		t.Errorf("%s has no reason or hint: %+v", want, s)
	}
	return s
}
