//go:build gocv_videoio

package main

import (
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"gocv.io/x/gocv"

	"github.com/seed-a98b2d25/fovea/capture/internal/wire"
)

const (
	// dialTimeout: a host that is switched off costs so long an attempt.
	dialTimeout = 2500 * time.Millisecond
	// openTimeout is FFmpeg's limit for connecting and finding out what the
	// stream holds, which takes some seconds for slow streams. Reading has no
	// limit here: the parent judges that.
	openTimeout = 10 * time.Second
	readTimeout = 10 * time.Minute
)

func openFile(path string, req wire.Request, notify func(any)) (source, error) {
	f := &file{name: path, loop: req.Loop, limit: req.FPS, notify: notify, reopen: func() (*gocv.VideoCapture, error) {
		c, err := gocv.VideoCaptureFileWithAPI(path, gocv.VideoCaptureFFmpeg)
		if err != nil {
			return nil, &fault{text: path + " cannot be opened as a video; is it one, and whole? ffprobe tells more", opaque: true}
		}
		return c, nil
	}}
	return f, f.open()
}

func openStream(req wire.Request, notify func(any)) (source, error) {
	u, err := url.Parse(req.Source)
	if err != nil {
		return nil, faultf("the source is not a valid URL; is a special character in the password not percent-encoded?")
	}
	if err := dial(u); err != nil {
		return nil, err
	}
	address := req.Source // as it was written, unless credentials go in
	if req.Username != "" || req.Password != "" {
		u.User = url.UserPassword(req.Username, req.Password)
		address = u.String()
	}
	transport := req.Transport
	if transport == "" {
		transport = "tcp"
	}
	// Without fpsprobesize FFmpeg watches the stream for twice as long before it
	// opens, to learn a frame rate that nobody needs here (4 s against 2 at 10
	// frames a second).
	options := "fpsprobesize;0"
	if strings.HasPrefix(u.Scheme, "rtsp") {
		options += "|rtsp_transport;" + transport
	}
	os.Setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", options)
	openIt := func() (*gocv.VideoCapture, error) {
		began := time.Now()
		c, err := gocv.VideoCaptureFileWithAPIParams(address, gocv.VideoCaptureFFmpeg, []gocv.VideoCaptureProperties{
			propOpenTimeout, gocv.VideoCaptureProperties(openTimeout.Milliseconds()),
			propReadTimeout, gocv.VideoCaptureProperties(readTimeout.Milliseconds()),
		})
		switch {
		case err != nil && time.Since(began) >= openTimeout:
			return nil, faultf("the connection is taken but no stream sent within %v; is the camera hanging? switch it off and on", openTimeout)
		case err != nil:
			return nil, &fault{text: "the stream cannot be opened; try the URL with ffprobe", opaque: true}
		}
		return c, nil
	}
	c, err := openIt()
	if err != nil {
		return nil, err
	}
	// A finished video on a server is paced here; RTSP servers pace themselves,
	// and cameras announce odd lengths.
	if announced(c) > 0 && strings.HasPrefix(u.Scheme, "http") {
		c.Close()
		f := &file{name: u.Redacted(), loop: req.Loop, limit: req.FPS, notify: notify, reopen: openIt}
		return f, f.open()
	}
	return &live{capture: c, limit: req.FPS, notify: notify, backend: "FFMPEG", gone: func() error {
		return &fault{text: "the stream ended: the camera or server closed it; it is opened again", opaque: true}
	}}, nil
}

// dial tells in words why a host cannot be reached; FFmpeg would take half a
// minute and say "Input/output error".
func dial(u *url.URL) error {
	port := u.Port()
	if port == "" {
		port = map[string]string{"rtsp": "554", "rtsps": "322", "http": "80", "https": "443", "rtmp": "1935"}[u.Scheme]
	}
	if port == "" { // udp, srt: nothing answers before the stream is asked for
		return nil
	}
	address := net.JoinHostPort(u.Hostname(), port)
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case err == nil:
		return conn.Close()
	case errors.As(err, &dns):
		return faultf("the name %s is not known (%s); correct it in source, or give the address", u.Hostname(), dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return faultf("%s refuses the connection; is the camera's stream switched on, and the port right?", address)
	case errors.As(err, &timeout) && timeout.Timeout():
		return faultf("%s does not answer within %v; is the camera switched on, and on this network?", address, dialTimeout)
	}
	return faultf("%s cannot be reached: %v; check cable, address and network", address, innermost(err))
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
