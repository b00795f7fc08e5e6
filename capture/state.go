package capture

import "time"

// Phase is what a camera is doing.
type Phase uint8

const (
	Connecting Phase = iota // the first grabber is starting; nothing known yet
	Running                 // frames arrive
	Stalled                 // frames stopped arriving; the grabber is being restarted
	Lost                    // the source cannot be read; tried again with back-off
	Ended                   // a file or folder without loop was read to its end
	Closed                  // Close was called
)

var phaseNames = [...]string{"connecting", "running", "stalled", "lost", "ended", "closed"}

// String gives the name used in topics and metrics: connecting, running,
// stalled, lost, ended, closed.
func (p Phase) String() string {
	if int(p) >= len(phaseNames) {
		return "unknown"
	}
	return phaseNames[p]
}

// State is a snapshot of a camera. Counters grow for the life of the Camera.
type State struct {
	Camera string
	Source string // without secrets
	Phase  Phase
	Since  time.Time // when Phase was entered

	// LastError says what went wrong last, naming the source and what a person
	// can do, without secrets; empty if nothing ever did. It stays after
	// recovery: LastErrorAt tells how old it is.
	LastError   string
	LastErrorAt time.Time

	Decoder string // what reads the source, such as "FFMPEG, h264"; empty before it was first open

	FPS     float64 // frames a second that arrived, over the last 5 s
	Quality Quality // of the newest frame
	Width   int     // of the newest frame, pixels
	Height  int

	Frames    uint64 // pictures taken from the source; Frames - Dropped were (or wait to be) handed over
	Dropped   uint64 // pictures overwritten by a newer one before anybody took them
	BadFrames uint64 // pictures that could not be decoded: skipped
	Restarts  uint64 // grabbers started after the first

	RestartsLastHour int
	StallsLastHour   int

	LastFrame    time.Time     // zero before the first
	LastFrameAge time.Duration // at the time of the snapshot; 0 before the first frame

	PID         int   // of the grabber; 0 while none runs
	MemoryBytes int64 // resident memory of the grabber, measured twice a second
}
