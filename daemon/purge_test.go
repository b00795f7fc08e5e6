package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
)

// trail is what would show that a picture lies somewhere: pieces of its encoded bytes, and of its pixels as a decoder
// gives them.
type trail map[[pieceOfTrail]byte]string

const pieceOfTrail = 24

func (tr trail) add(what string, data []byte) {
	for at := 0; at+pieceOfTrail <= len(data); at += pieceOfTrail {
		piece := [pieceOfTrail]byte(data[at:])
		distinct := map[byte]bool{}
		for _, b := range piece {
			distinct[b] = true
		}
		if len(distinct) > pieceOfTrail/2 { // not of an even ground, nor of the tables that every JPEG begins with
			tr[piece] = what
		}
	}
}

// addJPEG adds a picture, encoded and decoded, as RGB, as RGBA and as brightness.
func (tr trail) addJPEG(t *testing.T, what string, data []byte) {
	t.Helper()
	start := bytes.LastIndex(data, []byte{0xff, 0xda}) // what comes before is alike in all
	if start < 0 {
		t.Fatalf("%s is no JPEG", what)
	}
	tr.add(what, data[start+16:])
	picture, err := adapt.DecodePicture(data)
	if err != nil {
		t.Fatal(err)
	}
	tr.add(what+", decoded", picture.RGB)
	tr.add(what+", decoded", rgba(picture).Pix)
	grey := make([]byte, len(picture.RGB)/3)
	for i := range grey {
		grey[i] = picture.RGB[3*i+1]
	}
	tr.add(what+", decoded", grey)
}

// below looks at every byte of every file of a folder and returns, by file, what lies there.
func (tr trail) below(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for at := 0; at+pieceOfTrail <= len(data); at++ {
			if what, there := tr[[pieceOfTrail]byte(data[at:])]; there {
				found[strings.TrimPrefix(path, dir+"/")] = what
				break
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A purge of the running daemon, searched for in its whole state folder: samples, those set aside, the pack of the
// live version, the maps of its page, and the pack of an adaptation that runs.
func TestPurgeLeavesNoPixel(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	aside := jpegOf(t, blob(7))
	p := start(t, fmt.Sprintf(`
model: {dir: %q, backend: go}
inference: {relevance_every: 1}
samples: {every: 1ms, apart: 0, novel: 0}
cameras: [{id: door, source: %q, fps: 20, grabber: GRAB}]
`, toyModel(t), blobs(t, 10))+quiet, func(p *program) {
		state := filepath.Join(p.dir, "state")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"samples.db.corrupt-20260101T000000Z", "samples.db.newer-20260101T000000Z"} {
			if err := os.WriteFile(filepath.Join(state, name), slices.Concat(make([]byte, 5000), aside), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	p.wait("the end of the camera's pictures", func() bool { return p.state().camera("door").Phase == "ended" && len(p.keeper.offers) == 0 })
	p.wait("samples of the camera", func() bool { return p.samples().Summary().Samples > 0 })
	keepToySamples(t, p.samples(), p.live.Load().net.Digest)
	if result, err := p.adapt(t.Context()); err != nil || result.Verdict != fleet.Promoted {
		t.Fatalf("%+v, %v", result, err)
	}
	p.wait("version 1", func() bool { return p.live.Load().version == 1 })
	if _, err := p.cycle.do(t.Context(), order{verb: fleet.VerbRollback, why: "test"}); err != nil {
		t.Fatal(err)
	}
	p.wait("version 0", func() bool { return p.live.Load().version == 0 })
	p.cycle.child = trainerLimits{program: self, silence: time.Minute, env: []string{"FOVEA_TEST_CHILD=sleep"}}
	ended := make(chan error, 1)
	go func() { _, err := p.adapt(t.Context()); ended <- err }()
	p.wait("a run", func() bool { return p.cycle.state.Load().Stage.Stage != "" })

	pictures := trail{}
	pictures.addJPEG(t, "a picture that was set aside", aside)
	for _, m := range p.samples().List(nil) {
		s, err := p.samples().Get(m.Seq)
		if err != nil {
			t.Fatal(err)
		}
		pictures.addJPEG(t, fmt.Sprintf("sample %d of %s", m.Seq, m.Camera), s.JPEG)
	}
	maps, err := filepath.Glob(filepath.Join(p.stateDir(), mapsDir, "*", "*.jpg"))
	if err != nil || len(maps) == 0 {
		t.Fatalf("%d maps, %v", len(maps), err)
	}
	for _, file := range maps {
		pictures.addJPEG(t, "a map", []byte(read(t, file)))
	}
	before := pictures.below(t, p.stateDir())
	for _, want := range []string{"samples.db", "samples.db.corrupt-", "samples.db.newer-", packsDir + "/", mapsDir + "/", workDir + "/"} {
		if !slices.ContainsFunc(keys(before), func(file string) bool { return strings.HasPrefix(file, want) }) {
			t.Errorf("before the purge nothing was seen in %s: the search is blind there; it saw %v", want, before)
		}
	}
	t.Logf("before the purge, of %d pieces: %v", len(pictures), before)

	runVerbLine(t, 0, "samples", "purge", "--yes", "-c", p.file)
	if after := pictures.below(t, p.dir); len(after) > 0 {
		t.Errorf("after the purge: %v", after)
	}
	if err := <-ended; err == nil {
		t.Error("the run that held a pack did not end")
	}
	if n := p.samples().Summary().Samples; n != 0 {
		t.Errorf("%d samples", n)
	}
}

func keys(m map[string]string) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}
