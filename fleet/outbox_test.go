package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// fakeLink records what is sent. With failAfter >= 0 it acknowledges so many
// and then no more.
type fakeLink struct {
	mu        sync.Mutex
	got       []string // "topic payload"
	at        []time.Time
	failAfter int
	gone      chan struct{}
}

func newFakeLink(failAfter int) *fakeLink {
	return &fakeLink{failAfter: failAfter, gone: make(chan struct{})}
}

func (l *fakeLink) send(m outgoing) func(time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failAfter >= 0 && len(l.got) >= l.failAfter {
		return func(time.Duration) error { return errLost }
	}
	l.got = append(l.got, m.topic+" "+string(m.payload))
	l.at = append(l.at, time.Now())
	return func(time.Duration) error { return nil }
}

func (l *fakeLink) lost() <-chan struct{} { return l.gone }

func (l *fakeLink) sent() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

var quiet = slog.New(slog.DiscardHandler)

func state(topic, payload string) outgoing {
	return outgoing{topic: topic, payload: []byte(payload), retained: true}
}

func TestOnlyNewestStateOfflineEverythingQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(NewQueue(100), quiet)
		for i := range 10 {
			o.set(state("state", fmt.Sprint(i)), 0)
			if err := o.push(queued{Topic: "event", Payload: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		l := newFakeLink(-1)
		go o.drain(ctx, l)
		synctest.Wait()
		want := []string{}
		for i := range 10 {
			want = append(want, fmt.Sprint("event ", i))
		}
		if want = append(want, "state 9"); !slices.Equal(l.sent(), want) {
			t.Errorf("sent %q, want %q", l.sent(), want)
		}
		cancel()
		synctest.Wait()

		o.connected()
		again := newFakeLink(-1)
		go o.drain(t.Context(), again)
		synctest.Wait()
		if want := []string{"state 9"}; !slices.Equal(again.sent(), want) {
			t.Errorf("after a reconnect sent %q, want %q", again.sent(), want)
		}
		close(again.gone)
	})
}

func TestStateIsRateLimitedAndAChangeIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, l := newOutbox(NewQueue(1), quiet), newFakeLink(-1)
		go o.drain(t.Context(), l)
		start := time.Now()
		for i := range 25 { // 2.5 s
			o.set(state("s", fmt.Sprint(i)), 1030*time.Millisecond)
			time.Sleep(100 * time.Millisecond)
		}
		o.set(state("s", "changed"), 0)
		synctest.Wait()
		// The newest value every 1.03 s, then the change at once.
		want := []string{"s 0", "s 10", "s 20", "s changed"}
		if got := l.sent(); !slices.Equal(got, want) {
			t.Errorf("sent %q, want %q", got, want)
		}
		if at := l.at[len(l.at)-1].Sub(start); at != 2500*time.Millisecond {
			t.Errorf("the change was sent after %v", at)
		}
		close(l.gone)
	})
}

func TestResultReplacesOlderProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, l := newOutbox(NewQueue(10), quiet), newFakeLink(-1)
		o.push(queued{Topic: "c", Payload: []byte("accepted")})
		o.pass(state("c", "progress"), 0, true)
		o.push(queued{Topic: "c", Payload: []byte("done")})
		go o.drain(t.Context(), l)
		synctest.Wait()
		if want := []string{"c accepted", "c done"}; !slices.Equal(l.sent(), want) {
			t.Errorf("sent %q, want %q", l.sent(), want)
		}
		close(l.gone)
	})
}

func TestPassingAnswersAreBounded(t *testing.T) {
	o := newOutbox(NewQueue(1), quiet)
	for i := range passingLimit {
		if !o.pass(state(fmt.Sprint(i), "x"), 0, false) {
			t.Fatalf("answer %d was refused", i)
		}
	}
	if o.pass(state("one more", "x"), 0, false) {
		t.Error("an unbounded number of answers is kept")
	}
	o.drop("7")
	if !o.pass(state("one more", "x"), 0, false) {
		t.Error("room was not given back")
	}
}

// brokenQueue fails like one on a full disk.
type brokenQueue struct{ Queue }

func (brokenQueue) Lease(int) ([][]byte, error) { return nil, errors.New("no space left on device") }

func TestStateGoesOnWithABrokenQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, l := newOutbox(brokenQueue{NewQueue(1)}, quiet), newFakeLink(-1)
		go o.drain(t.Context(), l)
		o.set(state("s", "1"), 0)
		synctest.Wait()
		o.set(state("s", "2"), 0)
		synctest.Wait()
		if want := []string{"s 1", "s 2"}; !slices.Equal(l.sent(), want) {
			t.Errorf("sent %q, want %q", l.sent(), want)
		}
		close(l.gone)
	})
}

// TestQueueHistories checks, over random histories of pushes and connections
// that break anywhere, that nothing is lost but what Dropped counts, and that
// order is kept.
func TestQueueHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 200).Draw(t, "limit")
		o := newOutbox(NewQueue(limit), quiet)
		pushed := 0
		arrived := map[string]bool{}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				for range rapid.IntRange(1, 150).Draw(t, "n") {
					o.push(queued{Topic: "e", Payload: fmt.Appendf(nil, "%06d", pushed)})
					pushed++
				}
			},
			"connect": func(t *rapid.T) {
				l := newFakeLink(rapid.IntRange(-1, 100).Draw(t, "failAfter"))
				err := o.flush(context.Background(), l)
				if (err == nil) != (l.failAfter < 0 || len(l.got) < l.failAfter || o.queue.Len() == 0) {
					t.Fatalf("flush: %v after %d of %d", err, len(l.got), l.failAfter)
				}
				if !slices.IsSorted(l.got) {
					t.Fatalf("out of order: %q", l.got)
				}
				for _, m := range l.got {
					if arrived[m] {
						t.Fatalf("%q was acknowledged and sent again", m)
					}
					arrived[m] = true
				}
			},
			"": func(t *rapid.T) {
				if o.queue.Len() > limit {
					t.Fatalf("%d messages in a queue of %d", o.queue.Len(), limit)
				}
				if got := len(arrived) + o.queue.Len() + int(o.queue.Dropped()); got != pushed {
					t.Fatalf("pushed %d; arrived %d, waiting %d, dropped %d", pushed, len(arrived), o.queue.Len(), o.queue.Dropped())
				}
			},
		})
	})
}
