package capture

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v4"
	"github.com/bluenviron/gortsplib/v4/pkg/auth"
	"github.com/bluenviron/gortsplib/v4/pkg/base"
	"github.com/bluenviron/gortsplib/v4/pkg/description"
	"github.com/bluenviron/gortsplib/v4/pkg/format"
	"github.com/pion/rtp"
)

// rtspCamera is an RTSP server in a process of its own with an ffmpeg that
// publishes the moving clip to it, over and over, at 10 frames a second.
type rtspCamera struct {
	t       testing.TB
	address string
	server  *exec.Cmd

	stop      chan struct{}
	published sync.WaitGroup
}

const (
	rtspUser     = "viewer"
	rtspPassword = "se:cr@t/wört"
)

// digest is what cameras ask for; FFmpeg 5.1 knows no newer kind.
var digest = []auth.ValidateMethod{auth.ValidateMethodDigestMD5}

func newRTSPCamera(t testing.TB) *rtspCamera {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	r := &rtspCamera{t: t, address: address}
	r.start()
	t.Cleanup(r.kill)
	return r
}

// url of the stream; below /locked the password is asked for.
func (r *rtspCamera) url(path string) string { return "rtsp://" + r.address + path }

// start returns once the stream can be read.
func (r *rtspCamera) start() {
	r.t.Helper()
	cmd, out := process(r.t, "rtsp", "FOVEA_TEST_ADDRESS="+r.address)
	r.server, r.stop = cmd, make(chan struct{})
	source, ffmpeg := moving(r.t), tool(r.t, "ffmpeg")
	ready := make(chan struct{})
	r.published.Go(func() {
		_, _ = out.Read(make([]byte, 1)) // "listening"
		r.published.Go(func() {
			_, _ = out.Read(make([]byte, 1)) // "published"
			close(ready)
			_, _ = io.Copy(io.Discard, out)
		})
		for {
			p := exec.Command(ffmpeg, "-hide_banner", "-loglevel", "quiet", "-re", "-stream_loop", "-1", "-i", source,
				"-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", r.url("/stream"))
			ended := make(chan struct{})
			if err := p.Start(); err == nil {
				go func() { _ = p.Wait(); close(ended) }()
			} else {
				close(ended)
			}
			select {
			case <-ended: // the server threw it out, or it is gone: try again
				time.Sleep(50 * time.Millisecond)
			case <-r.stop:
				_ = p.Process.Kill()
				<-ended
				return
			}
		}
	})
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		r.t.Fatal("the RTSP server has no stream after 30 s")
	}
}

// kill ends server and publisher, as a camera that loses its power.
func (r *rtspCamera) kill() {
	if r.server == nil {
		return
	}
	_ = r.server.Process.Kill()
	close(r.stop)
	r.published.Wait()
	_ = r.server.Wait()
	r.server = nil
}

func (r *rtspCamera) freeze() { r.signal(syscall.SIGSTOP) }
func (r *rtspCamera) thaw()   { r.signal(syscall.SIGCONT) }

func (r *rtspCamera) signal(s os.Signal) {
	r.t.Helper()
	if err := r.server.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// serveRTSP is the server's process: gortsplib's own example, with a password
// below /locked. It writes a byte to stdout when it listens and one when a
// stream is published, and ends when stdin closes.
func serveRTSP() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	h := &rtspHandler{nonces: map[*gortsplib.ServerConn]string{}}
	h.server = &gortsplib.Server{Handler: h, RTSPAddress: os.Getenv("FOVEA_TEST_ADDRESS"), ReadTimeout: time.Minute}
	if err := h.server.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "rtsp server:", err)
		os.Exit(1)
	}
	fmt.Print("l")
	fmt.Fprintln(os.Stderr, "rtsp server:", h.server.Wait())
	os.Exit(1)
}

type rtspHandler struct {
	server *gortsplib.Server

	mu        sync.Mutex
	stream    *gortsplib.ServerStream
	publisher *gortsplib.ServerSession
	nonces    map[*gortsplib.ServerConn]string
}

func (h *rtspHandler) OnConnClose(ctx *gortsplib.ServerHandlerOnConnCloseCtx) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nonces, ctx.Conn)
}

func (h *rtspHandler) OnSessionClose(ctx *gortsplib.ServerHandlerOnSessionCloseCtx) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream != nil && ctx.Session == h.publisher {
		h.stream.Close()
		h.stream = nil
	}
}

func (h *rtspHandler) OnDescribe(ctx *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.HasPrefix(ctx.Path, "/locked") {
		nonce := h.nonces[ctx.Conn]
		if nonce == "" || auth.Validate(ctx.Request, rtspUser, rtspPassword, digest, "test", nonce) != nil {
			nonce, _ = auth.GenerateNonce()
			h.nonces[ctx.Conn] = nonce
			return &base.Response{
				StatusCode: base.StatusUnauthorized,
				Header:     base.Header{"WWW-Authenticate": auth.GenerateWWWAuthenticate(digest, "test", nonce)},
			}, nil, nil
		}
	} else if ctx.Path != "/stream" {
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	return h.serve()
}

func (h *rtspHandler) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.serve()
}

func (h *rtspHandler) serve() (*base.Response, *gortsplib.ServerStream, error) {
	if h.stream == nil {
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	return &base.Response{StatusCode: base.StatusOK}, h.stream, nil
}

func (h *rtspHandler) OnAnnounce(ctx *gortsplib.ServerHandlerOnAnnounceCtx) (*base.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream != nil {
		h.stream.Close()
		h.publisher.Close()
	}
	h.stream = gortsplib.NewServerStream(h.server, ctx.Description)
	h.publisher = ctx.Session
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (h *rtspHandler) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (h *rtspHandler) OnRecord(ctx *gortsplib.ServerHandlerOnRecordCtx) (*base.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	stream := h.stream
	ctx.Session.OnPacketRTPAny(func(media *description.Media, _ format.Format, packet *rtp.Packet) {
		_ = stream.WritePacketRTP(media, packet)
	})
	fmt.Print("p")
	return &base.Response{StatusCode: base.StatusOK}, nil
}
