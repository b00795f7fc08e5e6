package capture

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strings"
)

// Config says where one camera's pictures come from and what is done to them
// before anything else sees them. Only ID and Source are needed.
type Config struct {
	// ID names the camera in topics, metrics and files: [a-z0-9-]{1,63}.
	ID string `json:"id" yaml:"id"`

	// Source is one of
	//
	//	/srv/clips/door.mp4             a video file (avi, mp4, mkv, ...)
	//	/srv/pictures                   a folder of pictures, in order of name; or one picture
	//	rtsp://10.0.0.7:554/stream1     RTSP (also rtsps, rtmp, srt, udp)
	//	http://10.0.0.8/video.mjpg      MJPEG over HTTP, or a video file there
	//	/dev/video0                     a V4L2 device (or a link to one)
	//	gst:nvarguscamerasrc ! ...      a GStreamer pipeline; "gst:" may be left
	//	                                out where " ! " occurs; an appsink is added
	//	                                where the pipeline has none
	Source string `json:"source" yaml:"source"`

	// Username and Password are put into the URL of a stream by the grabber, so
	// that the password can come from a file of its own. A password within
	// Source works too. Neither ever shows in a log, an error or a command line.
	Username string `json:"username,omitempty" yaml:"username,omitempty"`
	Password string `json:"-" yaml:"-"`

	// Transport of RTSP: "tcp" (the default) or "udp".
	Transport string `json:"transport,omitempty" yaml:"transport,omitempty"`

	// Loop starts a file or folder again at its end. Without it the camera
	// is Ended there, which is no fault.
	Loop bool `json:"loop,omitempty" yaml:"loop,omitempty"`

	// FPS is the most frames a second that are wanted, 0 to 240. 0 is the
	// source's own rate; for a folder, which has none, 1.
	FPS float64 `json:"fps,omitempty" yaml:"fps,omitempty"`

	// Privacy areas: polygons of 3 to 256 points in order around the area, each
	// point x, y in parts of the picture's width and height (0 to 1, from the
	// top left), so that they hold for every resolution of the source. They may
	// overlap. They are blanked in the full-size picture, before scaling,
	// quality and motion.
	Privacy []Polygon `json:"privacy,omitempty" yaml:"privacy,omitempty"`

	// MaxSide is the longest side of a frame in pixels, 32 to 4096; 0 is 640.
	// Smaller pictures are not enlarged.
	MaxSide int `json:"max_side,omitempty" yaml:"max_side,omitempty"`

	// MemoryLimit is the most resident memory of the grabber in bytes, at least
	// 64 MiB; above it the grabber is restarted. 0 is 768 MiB.
	MemoryLimit int64 `json:"memory_limit,omitempty" yaml:"memory_limit,omitempty"`

	// Width, Height (pixels) and FourCC (such as "MJPG") ask a V4L2 device for
	// a format; zero takes the device's own.
	Width  int    `json:"width,omitempty" yaml:"width,omitempty"`
	Height int    `json:"height,omitempty" yaml:"height,omitempty"`
	FourCC string `json:"fourcc,omitempty" yaml:"fourcc,omitempty"`

	// Grabber is the path of fovea-grab; empty looks beside the running program,
	// then in PATH.
	Grabber string `json:"grabber,omitempty" yaml:"grabber,omitempty"`
}

// Polygon is a privacy area; its points are {x, y} in 0..1, in order around it.
type Polygon [][2]float64

// crossesItself tells whether two edges cross each other's inside.
func (p Polygon) crossesItself() bool {
	// side is positive where c lies on one side of the line a b, negative on the other.
	side := func(a, b, c [2]float64) float64 {
		return (b[0]-a[0])*(c[1]-a[1]) - (b[1]-a[1])*(c[0]-a[0])
	}
	for i := range p {
		a, b := p[i], p[(i+1)%len(p)]
		for j := i + 2; j < len(p); j++ {
			c, d := p[j], p[(j+1)%len(p)]
			if side(a, b, c)*side(a, b, d) < 0 && side(c, d, a)*side(c, d, b) < 0 {
				return true
			}
		}
	}
	return false
}

const (
	defaultMaxSide     = 640
	defaultMemoryLimit = 768 << 20
	minMemoryLimit     = 64 << 20
	maxPoints          = 256 // of a polygon
)

// FieldError is a fault in one field of a Config.
type FieldError struct {
	Field   string // as in the configuration file: "source", "privacy[1][0]"
	Problem string // what is wrong and what to write instead
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

var (
	idPattern     = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
	schemePattern = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*)://`)
)

// Validate reports every fault of the configuration at once, each a
// *FieldError, joined (errors.Join). It looks at no file and no network: a
// source that is not there is no fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	fault := func(field, format string, args ...any) {
		faults = append(faults, &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	switch {
	case c.ID == "":
		fault("id", "missing; give the camera a name of a-z, 0-9 and -")
	case !idPattern.MatchString(c.ID):
		fault("id", "%q must be 1 to 63 of a-z, 0-9 and -", c.ID)
	}
	if problem := sourceProblem(c.Source); problem != "" {
		fault("source", "%s", problem)
	}
	if (c.Username != "" || c.Password != "") && KindOf(c.Source) != KindStream {
		fault("username", "only a stream (rtsp://, http://, ...) takes a user name and password")
	}
	switch c.Transport {
	case "", "tcp", "udp":
	default:
		fault("transport", "%q must be tcp or udp", c.Transport)
	}
	if !(c.FPS >= 0 && c.FPS <= 240) {
		fault("fps", "%v must be between 0 (the source's own rate) and 240", c.FPS)
	}
	for i, polygon := range c.Privacy {
		field := fmt.Sprintf("privacy[%d]", i)
		for j, p := range polygon {
			if !inUnit(p[0]) || !inUnit(p[1]) {
				fault(fmt.Sprintf("%s[%d]", field, j), "[%v, %v] must be parts of the width and height, each 0 to 1", p[0], p[1])
			}
		}
		switch n := len(polygon); {
		case n < 3 || n > maxPoints:
			fault(field, "has %d points; a polygon has 3 to %d", n, maxPoints)
		case polygon.crossesItself():
			fault(field, "crosses itself, which would leave a part of it open; list the corners in order, one after the other around the area")
		}
	}
	if c.MaxSide != 0 && (c.MaxSide < 32 || c.MaxSide > 4096) {
		fault("max_side", "%d must be between 32 and 4096 pixels", c.MaxSide)
	}
	if c.MemoryLimit != 0 && c.MemoryLimit < minMemoryLimit {
		fault("memory_limit", "%d bytes is too little for a decoder; at least %d", c.MemoryLimit, minMemoryLimit)
	}
	if c.Width < 0 || c.Width > 16384 {
		fault("width", "%d must be between 0 (the device's own) and 16384", c.Width)
	}
	if c.Height < 0 || c.Height > 16384 {
		fault("height", "%d must be between 0 (the device's own) and 16384", c.Height)
	}
	if (c.Width == 0) != (c.Height == 0) {
		fault("width", "give width and height together, or neither")
	}
	if c.FourCC != "" && len(c.FourCC) != 4 {
		fault("fourcc", "%q must be 4 characters, such as MJPG or YUYV", c.FourCC)
	}
	if (c.Width != 0 || c.FourCC != "") && KindOf(c.Source) != KindDevice {
		fault("width", "width, height and fourcc are for /dev/video devices only")
	}
	return errors.Join(faults...)
}

func inUnit(v float64) bool { return !math.IsNaN(v) && v >= 0 && v <= 1 }

// Kind is what a source string names.
type Kind uint8

const (
	KindUnknown  Kind = iota
	KindPath          // a video file, a picture or a folder: the grabber looks
	KindStream        // a URL
	KindDevice        // V4L2
	KindPipeline      // GStreamer
)

// streamSchemes are the URL schemes handed to FFmpeg.
var streamSchemes = map[string]bool{
	"rtsp": true, "rtsps": true, "http": true, "https": true, "rtmp": true, "srt": true, "udp": true,
}

// KindOf tells from the text alone what a source is.
func KindOf(source string) Kind {
	switch {
	case source == "":
		return KindUnknown
	case strings.HasPrefix(source, "gst:"), strings.Contains(source, " ! "):
		return KindPipeline
	case strings.HasPrefix(source, "/dev/"):
		return KindDevice
	}
	if m := schemePattern.FindStringSubmatch(source); m != nil {
		if streamSchemes[strings.ToLower(m[1])] {
			return KindStream
		}
		return KindUnknown
	}
	return KindPath
}

func sourceProblem(source string) string {
	if strings.ContainsFunc(source, func(r rune) bool { return r == 0 || r == '\n' || r == '\r' }) {
		return "must be one line"
	}
	switch KindOf(source) {
	case KindUnknown:
		if source == "" {
			return "missing; give a file, a folder, rtsp://..., http://..., /dev/video0 or gst:PIPELINE"
		}
		scheme, _, _ := strings.Cut(source, "://")
		return fmt.Sprintf("cannot read %s://; use rtsp, rtsps, http, https, rtmp, srt or udp, or a plain path for a file", scheme)
	case KindStream:
		u, err := url.Parse(source)
		if err != nil {
			return "is not a valid URL (is a special character in the password not percent-encoded? put it into password instead)"
		}
		if u.Host == "" {
			return "names no host; write it like rtsp://10.0.0.7:554/stream1"
		}
	case KindPipeline:
		if strings.TrimSpace(strings.TrimPrefix(source, "gst:")) == "" {
			return "names no pipeline after gst:"
		}
	}
	return ""
}
