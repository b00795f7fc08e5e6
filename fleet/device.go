package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

const (
	// statusEvery is how often status is published when nothing changes, and
	// changeEvery how often at most when something does.
	statusEvery = time.Minute
	changeEvery = time.Second
	// A session that the other side ends within shortSession may be a takeover
	// by a client with the same id; takeoverAfter of them in a row are.
	shortSession  = 5 * time.Minute
	takeoverAfter = 3
	// stopLimit is how long a clean stop may take to say what is left to say.
	stopLimit = 3 * time.Second
)

// Device is a daemon's presence on its broker. Its Set methods never wait for
// the network and may be called before, during and after Run.
type Device struct {
	cfg      Config
	topics   Topics
	log      *slog.Logger
	out      *outbox
	inbox    chan arrival // capacity inboxLimit; a full one drops, counted
	commands *commands

	mu         sync.Mutex
	status     Status
	connects   int                    // how many
	lastKey    string                 // of the newest Health: what makes it a change
	lastCamera map[string]CameraState // by camera
	described  map[string]string      // cameras at the last Describe
	announced  map[string][]byte      // discovery messages by topic, nil for those taken back
	lastID     uint64                 // of events minted by this process
	eventRun   string                 // random: tells this process's events from others'
}

// Status is how the connection stands, for the page, the log and doctor.
type Status struct {
	Connected  bool
	Since      time.Time // of Connected being what it is
	Broker     string    // without its password
	ClientID   string
	Problem    Problem   // may be set while connected: SubscribeDenied, Takeover
	Reason     string    // what is wrong, a sentence; "" with NoProblem
	Hint       string    // what a person can do
	RetryAt    time.Time // of the next attempt; zero while connected
	Reconnects uint64    // connections after the first
	Queue      int       // events and results waiting
	Dropped    uint64    // events and results lost to the bound of the queue
	Overrun    uint64    // arriving messages dropped because they came faster than they could be judged
}

// New returns a device that is not connected yet. It reads what memory knows of
// earlier commands. The error lists all faults of cfg, each with its field.
func New(cfg Config, queue Queue, memory CommandLog, log *slog.Logger) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Device{
		cfg:        cfg,
		topics:     Topics{Root: cfg.Root, Device: cfg.Device},
		log:        log,
		out:        newOutbox(queue, log),
		inbox:      make(chan arrival, inboxLimit),
		lastCamera: map[string]CameraState{},
		eventRun:   strconv.FormatUint(rand.Uint64(), 36),
		status: Status{
			Broker:   Redact(cfg.Broker),
			ClientID: cfg.ClientID,
			Since:    time.Now(),
		},
	}
	d.out.set(outgoing{topic: d.topics.Availability(), qos: 1, retained: true, payload: []byte(Online)}, 0)
	d.commands, err = newCommands(d, memory)
	return d, err
}

// Handle offers a verb. All calls come before Run.
func (d *Device) Handle(spec VerbSpec) error { return d.commands.offer(spec) }

// CancelCommand stops the running command with that id, or, with "", the
// running exclusive one. It says whether there was one; the command's own
// answer tells how it ended.
func (d *Device) CancelCommand(id string) bool { return d.commands.cancel(id) }

// Topics are the device's own.
func (d *Device) Topics() Topics { return d.topics }

// Status is a snapshot.
func (d *Device) Status() Status {
	d.mu.Lock()
	s := d.status
	d.mu.Unlock()
	s.Queue, s.Dropped = d.out.queue.Len(), d.out.queue.Dropped()
	return s
}

// Run keeps the device connected until ctx is done, then says offline and
// leaves. It may be called once.
func (d *Device) Run(ctx context.Context) error {
	d.commands.announce()
	judged := make(chan struct{})
	go func() {
		defer close(judged)
		d.commands.judgeAll(ctx)
	}()
	defer func() {
		<-judged
		d.commands.stop()
	}()
	b := backoff{}
	for ctx.Err() == nil {
		s, err := d.connect(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			b.failed(d.Status().Problem == Unreachable)
		} else {
			began := time.Now()
			err = d.serve(ctx, s)
			if err == nil {
				break
			}
			b.ended(time.Since(began), peerClosed(err))
			d.sayLost(err, b.takeover())
		}
		d.sleep(ctx, b.wait())
	}
	return nil
}

// connect makes one attempt and says what came of it.
func (d *Device) connect(ctx context.Context) (*session, error) {
	s, err := connect(ctx, d.cfg, &will{d.topics.Availability(), Offline}, d.receive)
	if err != nil && ctx.Err() == nil {
		var failed *connectError
		errors.As(err, &failed)
		t := diagnose(d.cfg, failed.err, failed.code)
		d.say(func(s *Status) { s.Problem, s.Reason, s.Hint = t.Problem, t.Reason, t.Hint })
	}
	return s, err
}

// serve publishes over s until it is lost, or, with a nil error, until ctx is
// done and all has been said.
func (d *Device) serve(ctx context.Context, s *session) error {
	defer s.close()
	d.say(func(st *Status) {
		if st.Problem != Takeover { // which the next lost session, or its absence, decides
			st.Problem, st.Reason, st.Hint = NoProblem, "", ""
		}
		if d.connects++; d.connects > 1 {
			st.Reconnects++
		}
		st.Connected, st.Since, st.RetryAt = true, time.Now(), time.Time{}
	})
	err := s.subscribe(ctx, 1, d.filters()...)
	var denied errDenied
	switch {
	case errors.As(err, &denied):
		d.say(func(st *Status) {
			st.Problem, st.Reason = SubscribeDenied, err.Error()
			st.Hint = "allow this device to read these topics (the broker's ACL); until then no command reaches it"
		})
	case err != nil && ctx.Err() == nil:
		return s.reason(err)
	}
	calm := time.AfterFunc(shortSession, func() {
		d.say(func(st *Status) {
			if st.Problem == Takeover {
				st.Problem, st.Reason, st.Hint = NoProblem, "", ""
			}
		})
	})
	defer calm.Stop()

	d.out.connected()
	if err := d.out.drain(ctx, s); err != nil {
		return s.reason(err)
	}
	d.commands.stop() // so that their results go out, too
	d.sayOffline(s)
	return nil
}

// reason prefers the library's reason for a lost connection to err.
func (s *session) reason(err error) error {
	select {
	case <-s.gone:
		return s.why
	default:
		return err
	}
}

// sayOffline publishes what is left, then offline. Its failure is the last
// will's business.
func (d *Device) sayOffline(s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	d.out.set(outgoing{topic: d.topics.Availability(), qos: 1, retained: true, payload: []byte(Offline)}, 0)
	if err := d.out.flush(ctx, s); err != nil {
		d.log.Warn("mqtt: stopped before all was published", "err", err, "queue", d.out.queue.Len())
	}
	d.say(func(st *Status) { st.Connected, st.Since = false, time.Now() })
}

func (d *Device) sayLost(err error, takeover bool) {
	d.say(func(s *Status) {
		s.Connected, s.Since = false, time.Now()
		s.Problem, s.Reason, s.Hint = ConnectionLost, "the connection to the broker was lost: "+err.Error(), "nothing to do: this device connects again by itself"
		if takeover {
			s.Problem = Takeover
			s.Reason = fmt.Sprintf("the broker ended the connection soon after it was made, %d times or more in a row: another client with the id %q takes it", takeoverAfter, s.ClientID)
			s.Hint = "give each device a name (client id) of its own, or stop the second daemon; if there is none, look at the broker's log"
		}
	})
}

// say changes the status and logs a problem when it begins and ends.
func (d *Device) say(change func(*Status)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.status
	change(&d.status)
	switch now := d.status; {
	case now.Problem != NoProblem && now.Problem != was.Problem:
		d.log.Warn("mqtt: "+now.Reason, "problem", now.Problem, "do", now.Hint, "broker", now.Broker, "client_id", now.ClientID)
	case now.Connected && !was.Connected:
		d.log.Info("mqtt: connected", "broker", now.Broker, "client_id", now.ClientID)
	}
}

// sleep waits for d or until ctx is done.
func (d *Device) sleep(ctx context.Context, wait time.Duration) {
	d.say(func(s *Status) { s.RetryAt = time.Now().Add(wait) })
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
