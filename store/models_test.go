package store

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// open opens a folder and closes it with the test.
func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func reopen(t *testing.T, s *Store, dir string) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, dir)
}

// add keeps a weights file of the given content.
func add(t *testing.T, s *Store, content string) Receipt {
	t.Helper()
	r, err := s.State.Models.Add(strings.NewReader(content), Receipt{Digest: "digest of " + content, Details: json.RawMessage(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// history makes base, a good model and one in probation.
func history(t *testing.T, s *Store) (base, good, trial Receipt) {
	t.Helper()
	m := s.State.Models
	base = add(t, s, "base")
	must(t, m.SetBase(base.SHA256))
	good = add(t, s, "good")
	must(t, m.Promote(good.SHA256, json.RawMessage(`{"verdict":"promoted"}`), nil))
	must(t, m.PassProbation(nil))
	trial = add(t, s, "trial")
	must(t, m.SetCandidate(trial.SHA256))
	must(t, m.Promote(trial.SHA256, json.RawMessage(`{"verdict": "promoted"}`), json.RawMessage(`{"margin":0.5}`)))
	return base, good, trial
}

func TestPromotionAndRollback(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	base, good, trial := history(t, s)
	if base.Number != 0 || good.Number != 1 || trial.Number != 2 {
		t.Errorf("numbers %d, %d, %d", base.Number, good.Number, trial.Number)
	}
	s = reopen(t, s, dir)
	m := s.State.Models
	at := m.Standing()
	if at.Base != base.SHA256 || at.Active != trial.SHA256 || at.LastGood() != good.SHA256 || at.Candidate != "" ||
		at.Probation.State != ProbationRunning || at.Probation.Parent != good.SHA256 || string(at.Probation.Data) != `{"margin":0.5}` {
		t.Errorf("standing %+v", at)
	}
	for _, want := range []Receipt{good, base} {
		to, err := m.Rollback("answers collapsed")
		if err != nil || to != want.SHA256 || m.Standing().Active != to || m.Standing().Probation.State != ProbationRolledBack {
			t.Errorf("rolled back to %.8s, want %.8s: %v", to, want.SHA256, err)
		}
	}
	if _, err := m.Rollback("again"); !errors.Is(err, ErrNoEarlier) {
		t.Errorf("rolled back from the base: %v", err)
	}
	list, err := s.State.Verdicts(-1)
	if err != nil || len(list) != 4 || !strings.Contains(string(list[0].Body), "answers collapsed") {
		t.Errorf("verdicts %+v, %v", list, err)
	}
	must(t, s.State.VerifyVerdicts())
	if len(s.Alarms) > 0 {
		t.Errorf("alarms %q", s.Alarms)
	}
	if r, err := m.Get(trial.SHA256); err != nil || r.Rejected == nil || r.Reason != "answers collapsed" {
		t.Errorf("receipt of the one rolled back %+v, %v", r, err)
	}
}

func TestAddIsIdempotent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, again := add(t, s, "same"), add(t, s, "same")
	if first.Number != again.Number || len(s.State.Models.List()) != 1 {
		t.Errorf("kept twice: %+v, %+v", first, again)
	}
	must(t, s.State.Models.Verify(first.SHA256))
	if _, err := s.State.Models.Get("beef"); !errors.Is(err, ErrUnknownModel) {
		t.Error(err)
	}
	if err := s.State.Models.Promote("beef", nil, nil); !errors.Is(err, ErrUnknownModel) {
		t.Error(err)
	}
}

// TestRebuild: a state.db that is gone is made anew from the receipts.
func TestRebuild(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string, base, good, trial Receipt)
		live string
	}{
		"newest promoted": {func(*testing.T, string, Receipt, Receipt, Receipt) {}, "trial"},
		"its weights damaged": {func(t *testing.T, dir string, _, _, trial Receipt) {
			must(t, os.WriteFile(filepath.Join(dir, "models", trial.SHA256+".safetensors"), []byte("tr!al"), 0o600))
		}, "good"},
		"its receipt cut off": {func(t *testing.T, dir string, _, _, trial Receipt) {
			must(t, os.Truncate(filepath.Join(dir, "models", trial.SHA256+".json"), 20))
		}, "good"},
		"only the base is left": {func(t *testing.T, dir string, _, good, trial Receipt) {
			for _, r := range []Receipt{good, trial} {
				must(t, os.Remove(filepath.Join(dir, "models", r.SHA256+".safetensors")))
			}
		}, "base"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			base, good, trial := history(t, s)
			must(t, s.State.Commands.Save("id", []byte("ran")))
			must(t, s.Close())
			must(t, os.Remove(filepath.Join(dir, "state.db")))
			c.harm(t, dir, base, good, trial)

			s = open(t, dir)
			want := map[string]Receipt{"base": base, "good": good, "trial": trial}[c.live]
			if got := s.State.Models.Standing(); got.Active != want.SHA256 || got.Base != base.SHA256 || got.Numbers < want.Number {
				t.Errorf("live is %.8s, want %s %.8s: %+v", got.Active, c.live, want.SHA256, got)
			}
			if s.State.Commands.LostAt().IsZero() || len(s.Alarms) == 0 {
				t.Errorf("lost at %v, alarms %q", s.State.Commands.LostAt(), s.Alarms)
			}
			lost := s.State.Commands.LostAt()
			s = reopen(t, s, dir)
			if !s.State.Commands.LostAt().Equal(lost) {
				t.Errorf("lost at %v after a restart, was %v", s.State.Commands.LostAt(), lost)
			}
			if next := add(t, s, "next"); next.Number <= want.Number {
				t.Errorf("number %d again", next.Number)
			}
		})
	}
}

// TestDamagedLiveModel: state.db is whole, the weights are not.
func TestDamagedLiveModel(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, good, trial := history(t, s)
	must(t, s.Close())
	must(t, os.WriteFile(s.State.Models.File(trial.SHA256), []byte("trixl"), 0o600))
	s = open(t, dir)
	if got := s.State.Models.Standing(); got.Active != good.SHA256 || got.Probation.State != ProbationRolledBack {
		t.Errorf("%+v", got)
	}
	if len(s.Alarms) == 0 || !s.State.Commands.LostAt().IsZero() {
		t.Errorf("alarms %q, lost at %v", s.Alarms, s.State.Commands.LostAt())
	}
}

// TestReceiptsFollow: what a crash kept from the receipts is written at the next start, and what it left over
// goes.
func TestReceiptsFollow(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	_, _, trial := history(t, s)
	stale := filepath.Join(dir, "models", incoming+"1")
	must(t, os.WriteFile(stale, []byte("half"), 0o600))
	receipt := filepath.Join(dir, "models", trial.SHA256+".json")
	want, err := os.ReadFile(receipt)
	must(t, err)
	must(t, os.WriteFile(receipt, []byte(strings.Replace(string(want), `"promoted"`, `"x"`, 1)), 0o600))
	reopen(t, s, dir)
	if got, err := os.ReadFile(receipt); err != nil || string(got) != string(want) {
		t.Errorf("receipt\n%s\nwant\n%s", got, want)
	}
	if _, err := os.Stat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", stale)
	}
}

func TestPruneKeepsWhatCounts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	m := s.State.Models
	base, good, trial := history(t, s)
	old := add(t, s, "never promoted")
	candidate := add(t, s, "candidate")
	must(t, m.SetCandidate(candidate.SHA256))
	removed, err := m.Prune(0)
	if err != nil || !slices.Equal(removed, []string{old.SHA256}) {
		t.Errorf("removed %q, %v", removed, err)
	}
	s = reopen(t, s, dir)
	var left []string
	for _, r := range s.State.Models.List() {
		left = append(left, r.SHA256)
		must(t, s.State.Models.Verify(r.SHA256))
	}
	if want := []string{base.SHA256, good.SHA256, trial.SHA256, candidate.SHA256}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

func TestSetBaseAnew(t *testing.T) {
	s := open(t, t.TempDir())
	history(t, s)
	other := add(t, s, "another base")
	must(t, s.State.Models.SetBase(other.SHA256))
	if got := s.State.Models.Standing(); got.Active != other.SHA256 || got.LastGood() != other.SHA256 || got.Probation.State != "" {
		t.Errorf("%+v", got)
	}
}

func TestVerdictChainShowsChanges(t *testing.T) {
	s := open(t, t.TempDir())
	for _, body := range []string{`{"n":1}`, `{"n": 2}`, `"three"`} {
		if _, err := s.State.AppendVerdict(json.RawMessage(body)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.State.AppendVerdict(json.RawMessage(`{`)); err == nil {
		t.Error("took what is no JSON")
	}
	list, err := s.State.Verdicts(-1)
	must(t, err)
	must(t, verifyChain(list))
	changed := slices.Clone(list)
	changed[1].Body = json.RawMessage(`{"n":3}`)
	if err := verifyChain(changed); !errors.Is(err, ErrDamaged) {
		t.Errorf("a changed verdict: %v", err)
	}
	if err := verifyChain(append(list[:1:1], list[2])); !errors.Is(err, ErrDamaged) {
		t.Errorf("a verdict left out: %v", err)
	}
}

func TestSettings(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	type auto struct{ On bool }
	var got auto
	if found, err := s.State.Setting("auto", &got); found || err != nil {
		t.Error(found, err)
	}
	must(t, s.State.SetSetting("auto", auto{true}))
	s = reopen(t, s, dir)
	if found, err := s.State.Setting("auto", &got); !found || err != nil || !got.On {
		t.Error(found, err, got)
	}
}
