package fleet

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"
)

// A Rollout adapts many devices: a few first, the canaries, and the rest only
// if those did well. Where too many do badly it stops, cancels what runs and
// takes back what was promoted.
//
// The ids of its commands are made of its name, so that the same Rollout run
// again goes on where an earlier one was interrupted: no device adapts twice.
type Rollout struct {
	Name        string   // 1 to 40 of [A-Za-z0-9_-]; a new one for each rollout
	Devices     []string // which; the canaries are drawn from them by the name
	Canary      int      // how many go first; 0, or all of them: there are none
	Args        AdaptArgs
	MaxFailures int           // so many may be rejected, fail, fall back or not answer; one more stops the rollout
	Limit       time.Duration // for one device, from the command to the end of its probation; 0 is 24 h
	// StartOnly ends after the canaries, once each has accepted its command.
	StartOnly bool
	// Follow, if there is one, is told what changed, one call at a time.
	Follow func(RolloutDevice)
}

// An Outcome is how a device came out of a rollout.
type Outcome string

// The outcomes. Those after OutcomeNotNeeded are failures, up to
// OutcomeNoAnswer; the rest follow from a stop.
const (
	OutcomePromoted   Outcome = "promoted"        // its candidate is live and passed the probation
	OutcomeWaiting    Outcome = "waiting"         // its candidate waits for approval: see the verb promote
	OutcomeNotNeeded  Outcome = "not_needed"      // it had nothing new to learn from
	OutcomeRejected   Outcome = "rejected"        // its candidate was not better
	OutcomeFailed     Outcome = "failed"          // it came to no verdict
	OutcomeRolledBack Outcome = "rolled_back"     // its candidate was promoted and failed the probation
	OutcomeNoAnswer   Outcome = "no_answer"       // it did not answer, or did not end its probation, in time
	OutcomeNotStarted Outcome = "not_started"     // the rollout stopped before its turn
	OutcomeCanceled   Outcome = "canceled"        // the rollout stopped while it adapted
	OutcomeTakenBack  Outcome = "taken_back"      // the rollout stopped, and its parent is live again
	OutcomeStuck      Outcome = "not_taken_back"  // the rollout stopped, and its parent could not be made live: see Reason
	OutcomeStarted    Outcome = "started"         // with StartOnly: it has accepted the command
	OutcomeUnknown    Outcome = "not_followed_up" // the rollout was interrupted while it adapted; it goes on by itself
)

// Failure says whether an outcome counts against MaxFailures.
func (o Outcome) Failure() bool {
	return o == OutcomeRejected || o == OutcomeFailed || o == OutcomeRolledBack || o == OutcomeNoAnswer
}

// RolloutDevice is how one device stands in a rollout.
type RolloutDevice struct {
	Device   string   `json:"device"`
	Canary   bool     `json:"canary"`
	ID       string   `json:"id"`              // of its command
	State    Phase    `json:"state,omitempty"` // of its command; absent: no answer yet
	Progress *float64 `json:"progress,omitempty"`
	Version  *int64   `json:"version,omitempty"` // its candidate
	Outcome  Outcome  `json:"outcome,omitempty"` // absent: not over
	Reason   string   `json:"reason,omitempty"`

	answered time.Time // the device's clock at its final answer
}

// RolloutReport is what came of a rollout.
type RolloutReport struct {
	Name     string          `json:"name"`
	Stopped  string          `json:"stopped,omitempty"` // why; absent: it went through
	Failures int             `json:"failures"`
	Devices  []RolloutDevice `json:"devices"` // in the order in which they were taken
	Seconds  float64         `json:"seconds"`
}

// Outcomes counts the devices by their outcome.
func (r RolloutReport) Outcomes() map[Outcome]int {
	n := map[Outcome]int{}
	for _, d := range r.Devices {
		n[d.Outcome]++
	}
	return n
}

const (
	retryEvery  = 10 * time.Second // a device that is busy is asked again
	lookEvery   = 200 * time.Millisecond
	undoLimit   = 30 * time.Second // for a device to answer cancel or rollback
	answerLimit = 5 * time.Second  // for an adaptation to end after its cancel
	rolloutTime = 24 * time.Hour
)

var rolloutName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`)

// rolloutID is a command's id: the same for the same rollout and device.
func rolloutID(name, device string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + device))
	return name + "-" + hex.EncodeToString(sum[:8])
}

// check refuses what cannot be rolled out.
func (r Rollout) check() error {
	switch {
	case !rolloutName.MatchString(r.Name):
		return fmt.Errorf("rollout %q: a name has 1 to 40 of the characters A-Z, a-z, 0-9, _ and -", r.Name)
	case len(r.Devices) == 0:
		return fmt.Errorf("rollout %s: no devices", r.Name)
	}
	for i, d := range r.Devices {
		if err := CheckName(d); err != nil {
			return fmt.Errorf("rollout %s: %w", r.Name, err)
		}
		if slices.Contains(r.Devices[:i], d) {
			return fmt.Errorf("rollout %s: device %s is there twice", r.Name, d)
		}
	}
	return nil
}

// order is the one in which devices are taken: by the id of the command, which
// is as good as random, and the same when run again.
func (r Rollout) order() []string {
	return slices.SortedFunc(slices.Values(r.Devices), func(a, b string) int {
		return cmp.Compare(rolloutID(r.Name, a), rolloutID(r.Name, b))
	})
}

// Canaries are the devices that go first; none if all go at once.
func (r Rollout) Canaries() []string {
	if r.Canary <= 0 || r.Canary >= len(r.Devices) {
		return nil
	}
	return r.order()[:r.Canary]
}

// rollout is a running one.
type rollout struct {
	Rollout
	operator *Operator
	stopping chan struct{} // closed when too many have failed

	mu       sync.Mutex
	devices  []*RolloutDevice
	failures int
	stopped  string
}

// Rollout runs r and says how each device came out of it. The error is about r
// itself, or ctx's: then nothing was undone, and what runs goes on.
func (o *Operator) Rollout(ctx context.Context, r Rollout) (RolloutReport, error) {
	if err := r.check(); err != nil {
		return RolloutReport{}, err
	}
	if r.Limit <= 0 {
		r.Limit = rolloutTime
	}
	began := time.Now()
	run := &rollout{Rollout: r, operator: o, stopping: make(chan struct{})}
	first := r.Canaries()
	for i, device := range r.order() {
		run.devices = append(run.devices, &RolloutDevice{Device: device, ID: rolloutID(r.Name, device), Canary: i < len(first)})
	}
	canaries := run.devices[:len(first)]
	if len(canaries) == 0 {
		canaries = run.devices
	}

	run.wave(ctx, canaries)
	if rest := run.devices[len(canaries):]; !r.StartOnly && run.goesOn() && ctx.Err() == nil {
		run.wave(ctx, rest)
	}
	if !run.goesOn() && ctx.Err() == nil {
		run.undo(ctx)
	}
	return run.report(ctx, time.Since(began)), ctx.Err()
}

func (r *rollout) report(ctx context.Context, took time.Duration) RolloutReport {
	report := RolloutReport{Name: r.Name, Stopped: r.stopped, Failures: r.failures, Seconds: took.Seconds()}
	for _, d := range r.devices {
		switch {
		case d.Outcome != "":
		case ctx.Err() != nil && d.State != "":
			d.Outcome = OutcomeUnknown
		default:
			d.Outcome = OutcomeNotStarted
		}
		report.Devices = append(report.Devices, *d)
	}
	return report
}

// wave takes devices side by side and waits for all of them.
func (r *rollout) wave(ctx context.Context, devices []*RolloutDevice) {
	var g sync.WaitGroup
	for _, d := range devices {
		g.Go(func() {
			limited, cancel := context.WithTimeout(ctx, r.Limit)
			defer cancel()
			r.take(limited, d)
			if ctx.Err() == nil && limited.Err() != nil && d.Outcome == "" {
				r.end(d, OutcomeNoAnswer, fmt.Sprintf("no end within %v; it may still come to one", r.Limit))
			}
		})
	}
	g.Wait()
}

// take adapts one device and follows its probation. It returns without an
// outcome when ctx is done.
func (r *rollout) take(ctx context.Context, d *RolloutDevice) {
	answer, ok := r.adapt(ctx, d)
	var result AdaptResult
	switch {
	case !ok:
		return
	case answer.Code == Canceled && !r.goesOn():
		r.end(d, OutcomeCanceled, answer.Reason)
		return
	case answer.State == PhaseFailed:
		r.end(d, OutcomeFailed, fmt.Sprintf("%s: %s", answer.Code, answer.Reason))
		return
	case json.Unmarshal(answer.Result, &result) != nil || result.Verdict == "":
		r.end(d, OutcomeFailed, "its answer has no verdict: is it of another version?")
		return
	case result.Verdict != Promoted:
		r.end(d, Outcome(result.Verdict), result.Reason)
		return
	case result.Version == nil:
		r.end(d, OutcomeFailed, "its answer does not say which version was promoted: is it of another version?")
		return
	}
	r.change(d, func() { d.Version, d.answered = result.Version, answer.TS })
	if r.StartOnly {
		r.end(d, OutcomeStarted, "")
		return
	}
	r.probation(ctx, d)
}

// adapt sends the command and returns its final answer. It is false when ctx
// is done, when StartOnly wants no more, or when the rollout stopped and the
// device says no more.
func (r *rollout) adapt(ctx context.Context, d *RolloutDevice) (CommandState, bool) {
	ctx, cancel := context.WithCancel(ctx)
	var (
		canceling sync.WaitGroup
		said      string // of the cancel
	)
	canceling.Go(func() {
		select {
		case <-ctx.Done():
		case <-r.stopping:
			said = r.cancelCommand(ctx, d)
			cancel()
		}
	})
	defer canceling.Wait()
	defer cancel()

	for {
		state, err := r.operator.Do(ctx, Request{
			Device: d.Device, Verb: VerbAdapt, ID: d.ID, Args: r.Args, Hold: r.stopping,
			Follow: func(s CommandState) {
				r.change(d, func() { d.State, d.Progress = s.State, s.Progress })
				if r.StartOnly && !s.Final() {
					cancel()
				}
			},
		})
		switch {
		case err == nil && (state.Code == Busy || state.Code == RateLimited):
			// It adapts by itself, or was told to by another: its turn comes.
			select {
			case <-ctx.Done():
				return state, false
			case <-r.stopping:
				return state, false
			case <-time.After(retryEvery):
			}
		case err == nil:
			return state, true
		case !r.goesOn():
			canceling.Wait()
			if d.State != "" {
				r.end(d, OutcomeStuck, "it adapts and was not canceled: "+said)
			} else {
				r.end(d, OutcomeNotStarted, said)
			}
			return state, false
		case r.StartOnly && d.State != "":
			r.end(d, OutcomeStarted, "")
			return state, false
		case ctx.Err() == nil: // not sent: the request is wrong
			r.end(d, OutcomeFailed, err.Error())
			return state, false
		default:
			return state, false
		}
	}
}

// cancelCommand has the device stop adapting, gives the answer of the
// adaptation time to come, which ends ctx, and returns what the device said.
func (r *rollout) cancelCommand(ctx context.Context, d *RolloutDevice) (said string) {
	limited, cancel := context.WithTimeout(ctx, undoLimit)
	defer cancel()
	state, err := r.operator.Do(limited, Request{Device: d.Device, Verb: VerbCancel, ID: rolloutID(r.Name+"-stop", d.Device), Args: CancelArgs{ID: d.ID}})
	if err != nil {
		return fmt.Sprintf("no answer to cancel within %v", undoLimit)
	}
	select {
	case <-ctx.Done():
	case <-time.After(answerLimit):
	}
	return state.Reason
}

// probation waits until the promoted version has passed it, or is live no more.
func (r *rollout) probation(ctx context.Context, d *RolloutDevice) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		switch r.standing(d) {
		case ProbationPassed:
			r.end(d, OutcomePromoted, "")
			return
		case ProbationRolledBack:
			r.end(d, OutcomeRolledBack, "it failed its probation and went back by itself")
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.stopping:
			return // undo takes it back
		case <-tick.C:
		}
	}
}

// standing is how the promoted version does, by what its device says.
func (r *rollout) standing(d *RolloutDevice) string {
	seen, _ := r.operator.Device(d.Device)
	h := seen.Health
	switch {
	case h == nil:
		return ""
	case h.Model.Version == *d.Version:
		return h.Model.Probation
	case h.Model.Version > *d.Version:
		return ProbationPassed // it has adapted since then
	case h.Model.Probation == ProbationRolledBack && h.TS.After(d.answered):
		return ProbationRolledBack
	}
	return "" // it was said before the promotion
}

// undo takes back what this rollout promoted.
func (r *rollout) undo(ctx context.Context) {
	var g sync.WaitGroup
	for _, d := range r.devices {
		if d.Version == nil || d.Outcome == OutcomeRolledBack {
			continue
		}
		g.Go(func() {
			limited, cancel := context.WithTimeout(ctx, undoLimit)
			defer cancel()
			r.takeBack(limited, d)
		})
	}
	g.Wait()
}

func (r *rollout) takeBack(ctx context.Context, d *RolloutDevice) {
	var args RollbackArgs // the parent of the live version
	if seen, _ := r.operator.Device(d.Device); seen.Health != nil && seen.Health.Model.Version == *d.Version {
		args.Version = seen.Health.Model.Parent
	}
	state, err := r.operator.Do(ctx, Request{Device: d.Device, Verb: VerbRollback, ID: rolloutID(r.Name+"-back", d.Device), Args: args})
	switch {
	case err == nil && state.State == PhaseSuccessful, r.wentBack(ctx, d):
		r.end(d, OutcomeTakenBack, "")
	case err != nil:
		r.end(d, OutcomeStuck, fmt.Sprintf("no answer to rollback within %v: roll it back when it is online", undoLimit))
	default:
		r.end(d, OutcomeStuck, fmt.Sprintf("rollback: %s: %s", state.Code, state.Reason))
	}
}

// wentBack says whether the device fell back by itself; what it says of itself
// may come a little after its answer.
func (r *rollout) wentBack(ctx context.Context, d *RolloutDevice) bool {
	for end := time.Now().Add(2 * changeEvery); ; {
		if r.standing(d) == ProbationRolledBack {
			return true
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		time.Sleep(lookEvery)
	}
}

// end gives a device its outcome and stops the rollout after one failure too
// many.
func (r *rollout) end(d *RolloutDevice, o Outcome, reason string) {
	r.change(d, func() {
		d.Outcome, d.Reason, d.Progress = o, reason, nil
		if !o.Failure() {
			return
		}
		if r.failures++; r.failures == r.MaxFailures+1 {
			r.stopped = fmt.Sprintf("%d failed, %d may; the last was %s: %s", r.failures, r.MaxFailures, d.Device, o)
			if reason != "" {
				r.stopped += ", " + reason
			}
			close(r.stopping)
		}
	})
}

func (r *rollout) change(d *RolloutDevice, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	if r.Follow != nil {
		r.Follow(*d)
	}
}

func (r *rollout) goesOn() bool { return !isClosed(r.stopping) }
