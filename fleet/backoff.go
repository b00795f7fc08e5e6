package fleet

import (
	"errors"
	"io"
	"math/rand/v2"
	"syscall"
	"time"
)

// peerClosed says whether the broker's side ended the connection, rather than
// the network or a timeout.
func peerClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// backoff chooses how long to wait between attempts: 1 s to 2 min, growing
// with every failure, with jitter. A session that did not last counts as a
// failure, so that two daemons with one client id do not chase each other.
// While nothing listens at the address at most 5 s, so that all is out within
// 10 s of the broker's return: an attempt costs a broker that is not there
// nothing.
type backoff struct {
	failures    int
	short       int // sessions in a row that the other side ended early
	unreachable bool
}

func (b *backoff) failed(unreachable bool) {
	b.failures++
	b.unreachable = unreachable
	if unreachable {
		b.short = 0 // the broker was away, nobody took our place
	}
}

func (b *backoff) ended(lived time.Duration, byPeer bool) {
	b.unreachable = false
	if lived >= shortSession || !byPeer {
		b.failures, b.short = 0, 0
		return
	}
	b.short++
	b.failures = b.short - 1
}

func (b *backoff) takeover() bool { return b.short >= takeoverAfter }

// wait is in [w/2, w] with w doubling from 2 s.
func (b *backoff) wait() time.Duration {
	const least, most, whileUnreachable = time.Second, 2 * time.Minute, 5 * time.Second
	w := min(2*least<<min(b.failures, 10), most)
	if b.unreachable {
		w = min(w, whileUnreachable)
	}
	return w/2 + rand.N(w/2+1)
}
