package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-a98b2d25/fovea/internal/realparts"
	"github.com/seed-a98b2d25/fovea/internal/toyworld"
)

// holds is what a daemon has at one moment.
type holds struct {
	Resident    int64 `json:"resident"` // bytes, after a collection that gives free memory back
	Heap        int64 `json:"heap"`     // bytes that are live after that collection
	Descriptors int64 `json:"descriptors"`
	Threads     int64 `json:"threads"`
	Children    int64 `json:"children"`
}

// tellHoldings writes once in two seconds what this process holds, a line each, into a file.
func tellHoldings(ctx context.Context, file string) {
	f, err := os.Create(file)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	lines := json.NewEncoder(f)
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		debug.FreeOSMemory() // twice: finalizers run between them
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		h := holds{Resident: residentOf(os.Getpid()), Heap: int64(m.HeapAlloc), Children: int64(len(children(os.Getpid())))}
		for dir, n := range map[string]*int64{"/proc/self/fd": &h.Descriptors, "/proc/self/task": &h.Threads} {
			if entries, err := os.ReadDir(dir); err == nil {
				*n = int64(len(entries))
			}
		}
		if err := lines.Encode(h); err != nil {
			panic(err)
		}
	}
}

// webcam is a camera that sends MJPEG over HTTP, and can be taken from its network.
type webcam struct {
	address string
	frames  [][]byte
	server  *http.Server
}

func newWebcam(t *testing.T) *webcam {
	t.Helper()
	c := &webcam{address: "127.0.0.1:" + realparts.FreePort(t)}
	err := toyworld.Watch(rand.New(rand.NewPCG(6, 6)), func(v toyworld.View) error {
		var b bytes.Buffer
		err := jpeg.Encode(&b, toyworld.Picture(v.RGB), nil)
		c.frames = append(c.frames, b.Bytes())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *webcam) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		jpeg := c.frames[n%len(c.frames)]
		if _, err := fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(jpeg), jpeg); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func (c *webcam) plug() error {
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		return err
	}
	c.server = &http.Server{Handler: c}
	go c.server.Serve(l) //nolint:errcheck // it ends when unplugged
	return nil
}

func (c *webcam) unplug() { c.server.Close() }

// Twenty minutes in which a camera is lost all the time, the broker often, and the model adapted again and again: in
// the last third the daemon holds what it held in the middle one. FOVEA_SOAK_TIME shortens it.
func TestSoak(t *testing.T) {
	if os.Getenv("FOVEA_SOAK") == "" {
		t.Skip("20 minutes; set FOVEA_SOAK=1")
	}
	length := 20 * time.Minute
	if text := os.Getenv("FOVEA_SOAK_TIME"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	grab, err := realGrabber()
	if err != nil {
		t.Fatal(err)
	}
	cam, broker := newWebcam(t), realparts.StartMosquitto(t, "allow_anonymous true")
	if err := cam.plug(); err != nil {
		t.Fatal(err)
	}
	defer func() { cam.unplug() }()
	held := t.TempDir() + "/held"
	t.Setenv("FOVEA_TEST_HOLDS", held)
	k := newKilled(t, fmt.Sprintf(`
cameras:
  - {id: shaky, source: "http://%s/", grabber: %q}
  - {id: steady, source: %q, fps: 5, loop: true, grabber: %q}
mqtt: {url: %q}
samples: {megabytes: 1}
`, cam.address, grab, blobs(t, 40), grab, broker.URL())+strings.Replace(quiet, "auto: false", "auto: false, keep_megabytes: 1", 1)) // ten versions
	k.start()
	k.wait("the daemon", func() bool { return k.status() != nil })

	var losses, brokerLosses, adaptations atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	until := time.Now().Add(length)
	wait := func(what string, happened func(*status) bool) error {
		for limit := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
			if s := k.status(); s != nil && happened(s) || ctx.Err() != nil {
				return ctx.Err()
			}
			if time.Now().After(limit) {
				return fmt.Errorf("%s did not come in %v", what, patience)
			}
		}
	}
	again := func(count *atomic.Int64, round func() error) {
		group.Go(func() error {
			for time.Now().Before(until) {
				if err := round(); err != nil {
					return err
				}
				count.Add(1)
			}
			return nil
		})
	}
	again(&losses, func() error {
		if err := wait("the camera", func(s *status) bool { return s.camera("shaky").Phase == "running" }); err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
		cam.unplug()
		if err := wait("the loss", func(s *status) bool { return s.camera("shaky").Phase != "running" }); err != nil {
			return err
		}
		return cam.plug()
	})
	again(&brokerLosses, func() error {
		if err := wait("the broker", func(s *status) bool { return s.Broker.Connected }); err != nil {
			return err
		}
		time.Sleep(20 * time.Second)
		broker.Stop()
		// Back before the daemon asked again, it would look like a broker that gives our place to another (fleet's back-off).
		if err := wait("its loss", func(s *status) bool { return strings.Contains(s.Broker.Problem, "nothing listens") }); err != nil {
			return err
		}
		broker.Start()
		return nil
	})
	again(&adaptations, func() error {
		for _, verb := range []string{"adapt --force", "rollback"} {
			var out, said bytes.Buffer
			code := execute(ctx, append(append([]string{"models"}, strings.Fields(verb)...), "-c", k.config), &out, &said)
			if text := out.String() + said.String(); verb != "rollback" && (code != 0 || !strings.Contains(text, "promoted: ") && !strings.Contains(text, "rejected: ")) {
				return fmt.Errorf("models %s: exit %d, %s", verb, code, text)
			}
		}
		time.Sleep(time.Minute) // a part of it computes
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatalf("%v; log of the daemon:\n%s", err, last(k.log.String(), 4000))
	}
	if err := k.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = k.command.Wait()

	var all []holds
	text := read(t, held)
	for decoder := json.NewDecoder(strings.NewReader(text)); decoder.More(); {
		var h holds
		if err := decoder.Decode(&h); err != nil {
			t.Fatal(err)
		}
		all = append(all, h)
	}
	if len(all) < 9 {
		t.Fatalf("%d measurements", len(all))
	}
	third := len(all) / 3
	middle, end := median(all[third:2*third]), median(all[2*third:])
	t.Logf("%v: %d camera losses, %d broker losses, %d adaptations", length, losses.Load(), brokerLosses.Load(), adaptations.Load())
	t.Logf("medians of %d moments of the middle third %+v, of the last third %+v", third, middle, end)
	share := length.Minutes() / 20
	for name, c := range map[string]struct {
		got  int64
		want float64
	}{"camera losses": {losses.Load(), 100}, "broker losses": {brokerLosses.Load(), 30}, "adaptations": {adaptations.Load(), 10}} {
		if want := int64(c.want * share); c.got < want {
			t.Errorf("%d %s, want %d", c.got, name, want)
		}
	}
	if float64(end.Resident) > 1.02*float64(middle.Resident) || float64(end.Heap) > 1.02*float64(middle.Heap) {
		t.Error("memory grows")
	}
	if end.Descriptors != middle.Descriptors || end.Threads != middle.Threads || end.Children != middle.Children {
		t.Error("descriptors, threads or children are others")
	}
}

// median of each of what was held.
func median(all []holds) holds {
	of := func(field func(holds) int64) int64 {
		var values []int64
		for _, h := range all {
			values = append(values, field(h))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return holds{
		Resident: of(func(h holds) int64 { return h.Resident }), Heap: of(func(h holds) int64 { return h.Heap }),
		Descriptors: of(func(h holds) int64 { return h.Descriptors }), Threads: of(func(h holds) int64 { return h.Threads }),
		Children: of(func(h holds) int64 { return h.Children }),
	}
}

func last(text string, n int) string { return text[max(0, len(text)-n):] }
