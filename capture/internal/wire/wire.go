// Package wire is the contract between the daemon's side of a camera and its
// child process fovea-grab: one [Request] as a JSON line on the child's stdin,
// then messages on a pipe, the child's file descriptor 3.
//
// Every message is a header of 12 bytes and a payload, integers little endian:
//
//	0  4  magic "fovg"
//	4  1  Version
//	5  1  type
//	6  2  zero
//	8  4  length of the payload in bytes
//
// The first message is a Hello. A frame's payload is a fixed part of 28 bytes
//
//	0  8  sequence number, from 1, rising
//	8  8  time of the picture, nanoseconds of CLOCK_MONOTONIC
//	16 2  width   18 2  height      pixels
//	20 1  quality                   scene.Quality
//	21 3  zero
//	24 2  mask width   26 2  height cells, both 0 where there is no mask
//
// then [height][width][3] bytes R G B and [mask height][mask width] bytes, 0
// or 255. The other payloads are JSON.
package wire

import "github.com/seed-a98b2d25/fovea/capture/internal/scene"

// Version of the contract. Both binaries are built together; a child of
// another version is refused rather than guessed at.
const Version = 1

// maxText is the longest JSON payload in bytes. The longest frame follows from
// the longest side, which comes with the request.
const maxText = 64 << 10

// MaxPixels of one picture in a folder. OpenCV takes its limit from the
// environment when it is loaded; its own would let one picture fill 3 GB.
const MaxPixels = 64_000_000

// Request tells a grabber what to read. It travels on stdin alone: there is a
// password in it.
type Request struct {
	Version   int            `json:"version"`
	Source    string         `json:"source"`
	Kind      string         `json:"kind"` // path, stream, device, pipeline
	Username  string         `json:"username,omitempty"`
	Password  string         `json:"password,omitempty"`
	Transport string         `json:"transport,omitempty"` // tcp, udp
	Loop      bool           `json:"loop,omitempty"`
	FPS       float64        `json:"fps,omitempty"`     // 0: the source's own
	Privacy   [][][2]float64 `json:"privacy,omitempty"` // polygons in 0..1
	MaxSide   int            `json:"max_side"`
	Width     int            `json:"width,omitempty"`
	Height    int            `json:"height,omitempty"`
	FourCC    string         `json:"fourcc,omitempty"`
}

// Hello says that the source is open.
type Hello struct {
	Backend string  `json:"backend"` // of OpenCV, or "pictures"
	Codec   string  `json:"codec"`   // four letters, such as h264 or MJPG; empty if it does not tell
	Width   int     `json:"width"`   // of the source, pixels; 0 if not known yet
	Height  int     `json:"height"`
	FPS     float64 `json:"fps"` // at which messages will come, as far as the source tells; 0 if it does not
}

// Frame is one picture.
type Frame struct {
	Seq           uint64
	Mono          int64 // CLOCK_MONOTONIC, ns
	Width, Height int
	Quality       scene.Quality
	RGB           []byte // [Height][Width][3]
	MaskWidth     int
	MaskHeight    int
	Mask          []byte // [MaskHeight][MaskWidth]; nil without a mask
}

// Alive says that the source delivers pictures though none is sent, because the
// wanted rate is lower than its own.
type Alive struct{}

// Bad reports a picture that was skipped because it could not be decoded.
type Bad struct {
	Text string `json:"text"`
}

// Note is something a person should know that stops nothing.
type Note struct {
	Text string `json:"text"`
}

// End says that a file or folder was read to its end; nothing follows.
type End struct{}

// Fault is the last message of a grabber that cannot go on.
type Fault struct {
	Text string `json:"text"` // names what failed
	// Explained: Text says already what to do. Otherwise the reason is in the
	// decoder's log, which only the parent holds.
	Explained bool `json:"explained"`
}

type kind = uint8

const (
	kindHello kind = 1 + iota
	kindFrame
	kindAlive
	kindBad
	kindNote
	kindEnd
	kindFault
)

const (
	magic      = "fovg"
	headerSize = 12
	frameFixed = 28
)

// maskSize is the number of cells that cover n pixels.
func maskSize(n int) int { return (n + scene.Cell - 1) / scene.Cell }
