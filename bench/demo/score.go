package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

type scoreVerb struct {
	Truth string        `required:"" placeholder:"FILE" help:"truth.jsonl of the demonstration."`
	URL   string        `default:"http://127.0.0.1:8080" help:"Page of the daemon that shows the clips, freshly started or not."`
	For   time.Duration `default:"80s" help:"How long to watch; a little longer than the clips."`
	Again bool          `help:"Then wait until the live model is another, and watch again; until the daemon ends."`
	JSON  bool          `help:"Print one JSON object."`
}

func (scoreVerb) Help() string {
	return `Asks the daemon's page, camera by camera, for each answer that it gives, with the number of the frame that it
is about. Frames are counted from the start of the camera over all rounds of the clip, so the number gives the
place in the clip; what the clock says plays no part. A frame counts when at least half of an object is in view.`
}

// tally counts the frames of one camera that were judged.
type tally struct {
	Camera  string         `json:"camera"`
	Frames  int            `json:"frames"` // answers seen
	With    int            `json:"with"`   // of frames with an object
	Right   int            `json:"right"`  // of those
	ByClass map[string]hit `json:"by_class"`
}

type hit struct {
	With  int `json:"with"`
	Right int `json:"right"`
}

func (v scoreVerb) Run(ctx context.Context) error {
	clips, err := readTruth(v.Truth)
	if err != nil {
		return err
	}
	if err := v.score(ctx, clips); err != nil || !v.Again {
		return err
	}
	for version, known := v.version(ctx); known; {
		sleep(ctx, 2*time.Second)
		is, up := v.version(ctx)
		if !up {
			return nil
		}
		if is == version {
			continue
		}
		version = is
		fmt.Printf("version %d is live:\n", version)
		if err := v.score(ctx, clips); err != nil {
			return err
		}
	}
	return nil
}

// version is that of the live model; false where the daemon does not answer.
func (v scoreVerb) version(ctx context.Context) (int64, bool) {
	var status struct {
		Health struct {
			Model struct {
				Version int64 `json:"version"`
			} `json:"model"`
		} `json:"health"`
	}
	code, err := get(ctx, v.URL+"/api/status", &status)
	return status.Health.Model.Version, err == nil && code == http.StatusOK
}

// score watches the clips once.
func (v scoreVerb) score(ctx context.Context, clips []clip) error {
	ctx, cancel := context.WithTimeout(ctx, v.For)
	defer cancel()
	tallies := make([]*tally, len(clips))
	g, ctx := errgroup.WithContext(ctx)
	for i, clip := range clips {
		g.Go(func() (err error) {
			tallies[i], err = watch(ctx, v.URL, clip)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if v.JSON {
		return json.NewEncoder(os.Stdout).Encode(tallies)
	}
	total := tally{Camera: "all", ByClass: map[string]hit{}}
	for _, t := range tallies {
		t.print()
		total.add(t)
	}
	total.print()
	return nil
}

// clip is the truth of one camera, frame by frame.
type clip struct {
	camera string
	frames []truth
}

func readTruth(name string) ([]clip, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var clips []clip
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var t truth
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if len(clips) == 0 || clips[len(clips)-1].camera != t.Camera {
			clips = append(clips, clip{camera: t.Camera})
		}
		c := &clips[len(clips)-1]
		if c.frames = append(c.frames, t); t.Frame != len(c.frames) {
			return nil, fmt.Errorf("%s:%d: frame %d of %s follows frame %d", name, n, t.Frame, t.Camera, len(c.frames)-1)
		}
	}
	if len(clips) == 0 {
		return nil, fmt.Errorf("%s is empty", name)
	}
	return clips, lines.Err()
}

// at is the truth of the n-th frame of a camera that shows the clip round after round, n from 1.
func (c clip) at(n uint64) truth { return c.frames[(n-1)%uint64(len(c.frames))] }

// answer is what the page tells of a frame.
type answer struct {
	Seq     uint64 `json:"seq"`
	Guesses []struct {
		Label string `json:"label"`
	} `json:"guesses"`
}

// watch asks for one answer after another until the time is over.
func watch(ctx context.Context, page string, c clip) (*tally, error) {
	t := &tally{Camera: c.camera, ByClass: map[string]hit{}}
	after := ""
	for ctx.Err() == nil {
		a, err := ask(ctx, page+"/api/cameras/"+url.PathEscape(c.camera)+"/view"+after)
		switch {
		case ctx.Err() != nil:
		case err != nil && t.Frames > 0: // the daemon has ended
			return t, nil
		case err != nil && errors.Is(err, syscall.ECONNREFUSED): // it has not begun to listen
			sleep(ctx, 200*time.Millisecond)
		case err != nil:
			return nil, err
		case a == nil: // nothing new in the page's time
		default:
			after = "?after=" + strconv.FormatUint(a.Seq, 10)
			t.judge(c.at(a.Seq), a.Guesses[0].Label)
		}
	}
	if t.Frames == 0 {
		return nil, fmt.Errorf("camera %s of %s gave no answer: is the daemon running with the demonstration's fovea.yaml?", c.camera, page)
	}
	return t, nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// ask returns the next answer; nil where none came in the page's time.
func ask(ctx context.Context, address string) (*answer, error) {
	var a answer
	code, err := get(ctx, address, &a)
	if err != nil || code == http.StatusNoContent {
		return nil, err
	}
	if a.Seq == 0 || len(a.Guesses) == 0 {
		return nil, errors.New(address + ": the answer has no frame number or no guess")
	}
	return &a, nil
}

// get reads JSON from the page, where it has content.
func get(ctx context.Context, address string, into any) (code int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		return response.StatusCode, nil
	default:
		return 0, fmt.Errorf("%s: %s", address, response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return 0, fmt.Errorf("%s: %w", address, err)
	}
	return response.StatusCode, nil
}

func (t *tally) judge(is truth, said string) {
	t.Frames++
	if !is.withObject() {
		return
	}
	h := t.ByClass[is.Class]
	h.With++
	t.With++
	if said == is.Class {
		h.Right++
		t.Right++
	}
	t.ByClass[is.Class] = h
}

func (t *tally) add(o *tally) {
	t.Frames, t.With, t.Right = t.Frames+o.Frames, t.With+o.With, t.Right+o.Right
	for name, h := range o.ByClass {
		sum := t.ByClass[name]
		t.ByClass[name] = hit{sum.With + h.With, sum.Right + h.Right}
	}
}

func (t *tally) print() {
	var classes []string
	for _, c := range classNames() {
		if h, seen := t.ByClass[c]; seen {
			classes = append(classes, fmt.Sprintf("%s %.0f %%", c, 100*float64(h.Right)/float64(h.With)))
		}
	}
	fmt.Printf("%-8s %5.1f %% of %d frames with an object labelled right (%s); %d frames judged\n",
		t.Camera, 100*float64(t.Right)/float64(max(1, t.With)), t.With, strings.Join(classes, ", "), t.Frames)
}
