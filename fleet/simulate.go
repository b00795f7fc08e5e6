package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// Ending is how a simulated adaptation ends.
type Ending string

// The endings.
const (
	EndPromoted   Ending = "promoted"
	EndWaiting    Ending = "waiting" // for approval: the verb promote
	EndRejected   Ending = "rejected"
	EndRolledBack Ending = "rolled_back" // promoted, then the probation fails
	EndFailed     Ending = "failed"      // no verdict
)

// Simulation says how a simulated device behaves. Its zero value has one
// camera and adapts well in 5 s.
type Simulation struct {
	Labels    map[string]string
	Cameras   []string      // nil is one, "cam-1"
	Every     time.Duration // between two states of a camera, and twice that between two Healths; 0 is 5 s
	Adapt     time.Duration // how long an adaptation takes; 0 is 5 s
	Probation time.Duration // 0 is 5 s
	Ending    Ending        // "" is EndPromoted
}

// Simulated is a device that speaks the contract without cameras and model:
// its figures are invented, its messages, commands and connection are real. It
// is for trying dashboards and the operator's tool.
type Simulated struct {
	*Device
	sim Simulation

	telling sync.Mutex // held while a change is made and told, so that the newest is told last

	mu     sync.Mutex
	health Health
	newest int64 // version ever made
	waits  int64 // the version that waits for approval; 0 is none
}

// NewSimulated returns a simulated device with a queue and a memory of its own.
// It takes all its verbs from remote unless cfg.Allow says otherwise.
func NewSimulated(cfg Config, sim Simulation, log *slog.Logger) (*Simulated, error) {
	if cfg.Allow == nil {
		cfg.Allow = Verbs
	}
	d, err := New(cfg, NewQueue(QueueLimit), NewCommandLog(), log)
	if err != nil {
		return nil, err
	}
	if sim.Cameras == nil {
		sim.Cameras = []string{"cam-1"}
	}
	for _, v := range []*time.Duration{&sim.Every, &sim.Adapt, &sim.Probation} {
		if *v <= 0 {
			*v = 5 * time.Second
		}
	}
	if sim.Ending == "" {
		sim.Ending = EndPromoted
	}
	s := &Simulated{Device: d, sim: sim, health: Health{
		TimeSynced: true, Version: "simulated", Health: HealthOK, Labels: sim.Labels, Cameras: map[string]Camera{},
		Model:   Model{SHA256: "simulated", ForegroundRelevance: Known(0.6), SwapConsistency: Known(0.8), SwapPairs: 64},
		Adapt:   Adapt{State: AdaptIdle, SamplesReady: 100},
		Storage: Storage{BytesUsed: 3e8, BytesLimit: 1e9, FreeBytes: 8e9, Samples: 10000},
		Memory:  Memory{RSSBytes: 4e8}, Inference: Inference{Device: "simulated"},
	}}
	info := Info{Model: "simulated", Version: "simulated", Cameras: map[string]string{}}
	for _, spec := range []VerbSpec{
		{Verb: VerbAdapt, Args: AdaptArgs{}, Exclusive: true, Handler: s.adapt},
		{Verb: VerbRollback, Args: RollbackArgs{}, Exclusive: true, Handler: s.rollback},
		{Verb: VerbPromote, Args: PromoteArgs{}, Exclusive: true, Handler: s.promote},
		{Verb: VerbHealth, Repeatable: true, Handler: func(context.Context, Command, func(float64)) (any, error) {
			return s.complete(s.snapshot()), nil
		}},
		{Verb: VerbCancel, Args: CancelArgs{}, Repeatable: true, Handler: func(_ context.Context, cmd Command, _ func(float64)) (any, error) {
			if !s.CancelCommand(cmd.Args.(CancelArgs).ID) {
				return nil, &Error{Code: Failed, Reason: "no adaptation is running"}
			}
			return nil, nil
		}},
	} {
		if err := s.Handle(spec); err != nil {
			return nil, err
		}
	}
	for _, cam := range sim.Cameras {
		info.Cameras[cam] = ""
		if err := s.SetCamera(cam, true); err != nil {
			return nil, err
		}
	}
	if err := s.SetAuto(true, AutoSource{Source: SourceConfig}); err != nil {
		return nil, err
	}
	s.change(func(*Health) {})
	return s, s.Describe(info)
}

// Run keeps the device alive until ctx is done.
func (s *Simulated) Run(ctx context.Context) error {
	var g sync.WaitGroup
	defer g.Wait()
	g.Go(func() {
		began := time.Now()
		tick := time.NewTicker(s.sim.Every)
		defer tick.Stop()
		for n := 0; ; n++ {
			for _, cam := range s.sim.Cameras {
				label := []string{"bird", "cat", "nothing"}[rand.IntN(3)]
				state := CameraState{TS: time.Now(), Label: label, Score: 0.5 + rand.Float64()/2, Margin: rand.Float64() / 2, ForegroundRelevance: Known(0.6), Model: s.snapshot().Model.Version}
				if err := s.SetCameraState(cam, state); err != nil {
					s.log.Error("simulate", "err", err)
				}
			}
			if n%2 == 0 {
				s.change(func(h *Health) { h.UptimeSeconds = int64(time.Since(began).Seconds()) })
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return s.Device.Run(ctx)
}

func (s *Simulated) snapshot() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.health
	h.Cameras = map[string]Camera{}
	for _, cam := range s.sim.Cameras {
		h.Cameras[cam] = Camera{State: CameraOnline, FPS: Known(4 + rand.Float64()), LastFrameAgeSeconds: Known(rand.Float64()), Quality: "ok"}
	}
	h.Inference.P50Seconds, h.Inference.P95Seconds, h.Inference.RateHz = Known(0.06), Known(0.06+rand.Float64()/50), Known(4.5)
	return h
}

// change changes what the device says of itself and says it.
func (s *Simulated) change(f func(*Health)) {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.mu.Lock()
	f(&s.health)
	s.mu.Unlock()
	h := s.snapshot()
	if err := s.SetHealth(h); err != nil {
		s.log.Error("simulate", "err", err)
	}
	card := ModelCard{
		Version: h.Model.Version, SHA256: h.Model.SHA256, Parent: h.Model.Parent, Verdict: h.Adapt.LastVerdict,
		Probation: h.Model.Probation, Title: "simulated",
	}
	s.mu.Lock()
	if s.waits > 0 {
		card.LatestVersion = strconv.FormatInt(s.waits, 10)
	}
	s.mu.Unlock()
	if err := s.SetModel(card); err != nil {
		s.log.Error("simulate", "err", err)
	}
}

func (s *Simulated) event(t EventType, command string) {
	version := s.snapshot().Model.Version
	if err := s.Emit(Event{Type: t, Command: command, Version: &version}); err != nil {
		s.log.Error("simulate", "err", err)
	}
}

func (s *Simulated) adapt(ctx context.Context, cmd Command, progress func(float64)) (any, error) {
	s.change(func(h *Health) { h.Adapt.State = AdaptRunning })
	defer s.change(func(h *Health) {
		if h.Adapt.State = AdaptIdle; s.waits > 0 {
			h.Adapt.State = AdaptWaiting
		}
	})
	s.event(AdaptStarted, cmd.ID)
	const steps = 10
	for i := range steps {
		progress(float64(i) / steps)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(s.sim.Adapt / steps):
		}
	}
	switch s.sim.Ending {
	case EndFailed:
		s.event(AdaptFailed, cmd.ID)
		return nil, &Error{Code: Failed, Reason: "the simulated training failed, as it was told to"}
	case EndRejected:
		s.change(func(h *Health) { h.Adapt.LastVerdict = Rejected })
		s.event(AdaptRejected, cmd.ID)
		return AdaptResult{Verdict: Rejected, Reason: "not better, as it was told to be"}, nil
	}
	var version int64
	if s.sim.Ending == EndWaiting {
		s.change(func(h *Health) {
			s.newest++
			version, s.waits = s.newest, s.newest
			h.Adapt.LastVerdict = Waiting
		})
		s.event(AdaptWaits, cmd.ID)
		return AdaptResult{Verdict: Waiting, Version: &version}, nil
	}
	s.change(func(h *Health) {
		s.newest++
		version = s.newest
		s.goLive(h, version)
	})
	s.event(AdaptPromoted, cmd.ID)
	return AdaptResult{Verdict: Promoted, Version: &version}, nil
}

// goLive makes a version the live one, on probation. It wants s.mu held.
func (s *Simulated) goLive(h *Health, version int64) {
	parent := h.Model.Version
	h.Model.Version, h.Model.Parent, h.Model.PromotedAt = version, &parent, new(stamp(time.Now()))
	h.Model.Probation, h.Adapt.LastVerdict, h.Adapt.State, s.waits = ProbationRunning, Promoted, AdaptIdle, 0
	time.AfterFunc(s.sim.Probation, func() { s.endProbation(version) })
}

func (s *Simulated) promote(_ context.Context, cmd Command, _ func(float64)) (any, error) {
	var (
		version int64
		err     error
	)
	s.change(func(h *Health) {
		want := cmd.Args.(PromoteArgs).Version
		switch {
		case s.waits == 0:
			err = &Error{Code: Failed, Reason: "no candidate waits for approval"}
		case want != 0 && want != s.waits:
			err = &Error{Code: Invalid, Field: "version", Reason: fmt.Sprintf("the candidate that waits is version %d", s.waits)}
		default:
			version = s.waits
			s.goLive(h, version)
		}
	})
	if err != nil {
		return nil, err
	}
	s.event(AdaptPromoted, cmd.ID)
	return AdaptResult{Verdict: Promoted, Version: &version}, nil
}

// endProbation decides over a version, if it is still live.
func (s *Simulated) endProbation(version int64) {
	rolledBack := false
	s.change(func(h *Health) {
		switch {
		case h.Model.Version != version || h.Model.Probation != ProbationRunning:
		case s.sim.Ending == EndRolledBack:
			goBack(h)
			rolledBack = true
		default:
			h.Model.Probation = ProbationPassed
		}
	})
	if rolledBack {
		s.event(RolledBack, "")
	}
}

func goBack(h *Health) {
	h.Model.Version, h.Model.Parent, h.Model.Probation = *h.Model.Parent, nil, ProbationRolledBack
}

func (s *Simulated) rollback(_ context.Context, cmd Command, _ func(float64)) (any, error) {
	var err error
	s.change(func(h *Health) {
		want := cmd.Args.(RollbackArgs).Version
		switch {
		case h.Model.Parent == nil:
			err = &Error{Code: Failed, Reason: fmt.Sprintf("version %d has no parent to go back to", h.Model.Version)}
		case want != nil && *want != *h.Model.Parent:
			err = &Error{Code: Invalid, Field: "version", Reason: fmt.Sprintf("only the parent, %d, is kept here", *h.Model.Parent)}
		default:
			goBack(h)
		}
	})
	if err != nil {
		return nil, err
	}
	s.event(RolledBack, cmd.ID)
	version := s.snapshot().Model.Version
	return AdaptResult{Version: &version}, nil
}
