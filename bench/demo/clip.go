package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-a98b2d25/fovea/bench/internal/collage"
)

// Of the clips.
const (
	framesPerSecond = 8
	enter           = 1.2 // seconds in which an object comes into view, and leaves it
	stay            = 3.5 // seconds in between
	counted         = .5  // least visible share of an object for its frame to count as one with an object
)

// truth is what is to be seen in one frame of a clip; a line of truth.jsonl.
type truth struct {
	Camera  string  `json:"camera"`
	Frame   int     `json:"frame"`            // from 1, as capture counts them
	Time    float64 `json:"time"`             // seconds into the clip
	Class   string  `json:"class,omitempty"`  // "" for an empty view
	Object  string  `json:"object,omitempty"` // name of the cut-out
	Box     *[4]int `json:"box,omitempty"`    // left, top, right, bottom of what is visible, in pixels
	Visible float64 `json:"visible"`          // share of the object inside the picture
}

// withObject says whether a frame counts in the share of frames labelled right.
func (t truth) withObject() bool { return t.Visible >= counted }

// pass is an object's way through the view: in from one side, slowly on, out at the other.
type pass struct {
	object       collage.Laid // at rest in the middle of its way
	begin, end   float64      // seconds into the clip
	fromRight    bool
	drift, bob   float64 // pixels
	bobFrequency float64 // per second
}

// clips makes one clip a camera and truth.jsonl. The unseen cut-outs are shuffled within their class and shown
// class by class in turn, each camera its own half.
func (m *material) clips(ctx context.Context, dir string, length time.Duration, seed uint64) (string, error) {
	lines := make([][]truth, len(cameras))
	g, ctx := errgroup.WithContext(ctx)
	for i, camera := range cameras {
		scene, err := m.photographs.Read(camera.scene)
		if err != nil {
			return "", err
		}
		g.Go(func() (err error) {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			plate := collage.View(scene, 1, .5, .5, image.Pt(pictureWidth, pictureHeight))
			passes := schedule(m.turns(seed, i), plate.Rect, length.Seconds(), random)
			lines[i], err = film(ctx, dir, camera.name, plate, passes, int(length.Seconds()*framesPerSecond), random)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	frames, with := 0, 0
	for _, camera := range lines {
		for _, t := range camera {
			if err := e.Encode(t); err != nil {
				return "", err
			}
			frames++
			if t.withObject() {
				with++
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "truth.jsonl"), text.Bytes(), 0o644); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d clips, %d frames, %d of them with an object, %d unseen cut-outs", len(cameras), frames, with, len(m.unseen)), nil
}

// turns is the order in which a camera shows the unseen cut-outs: one of each class in turn, without end.
func (m *material) turns(seed uint64, camera int) func() *collage.Cutout {
	random := rand.New(rand.NewPCG(seed, 99)) // the same for every camera
	of := make([][]*collage.Cutout, len(collage.Classes))
	for i := range m.unseen {
		of[m.unseen[i].Class] = append(of[m.unseen[i].Class], &m.unseen[i])
	}
	for _, c := range of {
		random.Shuffle(len(c), func(a, b int) { c[a], c[b] = c[b], c[a] })
	}
	n := 0
	order := rand.New(rand.NewPCG(seed, uint64(camera))).Perm(len(collage.Classes))
	return func() *collage.Cutout {
		c, round := of[order[n%len(order)]], n/len(order)
		n++
		return c[(camera+round*len(cameras))%len(c)]
	}
}

// schedule plans the passes of a clip: an empty stretch, an object, and so on.
func schedule(next func() *collage.Cutout, in image.Rectangle, length float64, random *rand.Rand) []pass {
	var passes []pass
	for at := 1.5; ; {
		c := next()
		end := at + 2*enter + stay
		if end > length-.5 {
			return passes
		}
		size := c.Size(float64(in.Dy()) * clipSpan.Draw(random))
		x := (in.Dx()-size.X)/2 + int(40*(random.Float64()-.5))
		y := int(float64(in.Dy()-size.Y) * (.6 + .4*random.Float64()))
		passes = append(passes, pass{
			object: c.Lay(size, image.Pt(x, y), random), begin: at, end: end, fromRight: random.IntN(2) == 0,
			drift: 30 + 40*random.Float64(), bob: 2 + 4*random.Float64(), bobFrequency: .5 + random.Float64(),
		})
		at = end + 1 + 2*random.Float64()
	}
}

// at is where the object is at a time, in seconds into the clip; absent outside its time.
func (p pass) at(t float64, in image.Rectangle) (collage.Laid, bool) {
	if t < p.begin || t > p.end {
		return collage.Laid{}, false
	}
	smooth := func(v float64) float64 { v = min(max(v, 0), 1); return v * v * (3 - 2*v) }
	out := float64(in.Dx()+p.object.Image.Rect.Dx())/2 + 60 // from the middle until nothing is left in the picture
	x := out*(smooth((t-p.begin)/enter)-1) + out*smooth((t-p.end+enter)/enter)
	x += p.drift * ((t-p.begin)/(p.end-p.begin) - .5)
	if p.fromRight {
		x = -x
	}
	l := p.object
	l.At = l.At.Add(image.Pt(int(math.Round(x)), int(p.bob*math.Sin(2*math.Pi*p.bobFrequency*t))))
	return l, true
}

// film renders a clip through ffmpeg, and the masks of the frames that show an object.
func film(ctx context.Context, dir, name string, plate *image.RGBA, passes []pass, frames int, random *rand.Rand) ([]truth, error) {
	masks := filepath.Join(dir, "masks", name)
	if err := os.MkdirAll(masks, 0o755); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgba",
		"-s", fmt.Sprintf("%dx%d", plate.Rect.Dx(), plate.Rect.Dy()), "-r", strconv.Itoa(framesPerSecond), "-i", "-",
		"-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0", "-g", strconv.Itoa(2*framesPerSecond),
		"-pix_fmt", "yuv420p", "-threads", "1", filepath.Join(dir, name+".mp4"))
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: install the package ffmpeg", err)
	}
	lines, err := render(in, masks, name, plate, passes, frames, random)
	in.Close()
	if failed := cmd.Wait(); failed != nil {
		return nil, fmt.Errorf("ffmpeg: %w: %s", failed, bytes.TrimSpace(said.Bytes()))
	}
	return lines, err
}

func render(out io.Writer, masks, name string, plate *image.RGBA, passes []pass, frames int, random *rand.Rand) ([]truth, error) {
	grain := newGrain(plate.Rect, random)
	p, mask := image.NewRGBA(plate.Rect), image.NewGray(plate.Rect)
	phase := 2 * math.Pi * random.Float64()
	var lines []truth
	for n := range frames {
		t := float64(n) / framesPerSecond
		line := truth{Camera: name, Frame: n + 1, Time: t}
		copy(p.Pix, plate.Pix)
		for _, pass := range passes {
			l, here := pass.at(t, plate.Rect)
			if !here {
				continue
			}
			if line.Visible = l.Visible(plate.Rect); line.Visible == 0 {
				continue
			}
			clear(mask.Pix)
			l.Onto(p, mask)
			box := l.Box().Intersect(plate.Rect)
			line.Class, line.Object = collage.Classes[l.Cutout.Class].Name, l.Cutout.Object
			line.Box = &[4]int{box.Min.X, box.Min.Y, box.Max.X, box.Max.Y}
			if err := write(filepath.Join(masks, fmt.Sprintf("%05d.png", n+1)), func(w io.Writer) error { return encodeMask(w, mask) }); err != nil {
				return nil, err
			}
		}
		lines = append(lines, line)
		// Light as clouds and a lamp's flicker make it, and a sensor's grain: no two frames are the same.
		light := 1 + .05*math.Sin(2*math.Pi*t/47+phase) + .01*random.NormFloat64()
		collage.Tint(p, light, light, light)
		grain.onto(p, random)
		if _, err := out.Write(p.Pix); err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// grain is a field of noise, laid over each frame at another place.
type grain struct {
	size  image.Point
	value []int8
}

func newGrain(r image.Rectangle, random *rand.Rand) *grain {
	g := &grain{size: r.Size().Add(image.Pt(64, 64))}
	g.value = make([]int8, g.size.X*g.size.Y)
	for i := range g.value {
		g.value[i] = int8(math.Round(2 * random.NormFloat64()))
	}
	return g
}

func (g *grain) onto(p *image.RGBA, random *rand.Rand) {
	left, top := random.IntN(64), random.IntN(64)
	w := p.Rect.Dx()
	for y := range p.Rect.Dy() {
		row := g.value[(top+y)*g.size.X+left:]
		for x := range w {
			at := p.Pix[4*(y*w+x):]
			for c := range 3 {
				at[c] = uint8(min(max(int(at[c])+int(row[x]), 0), 255))
			}
		}
	}
}
