package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
)

// peer is the Python side, from the root of the repository.
var peer = filepath.Join("bench", "compare_masks.py")

var sizes = []struct{ gridH, gridW, height, width int }{{14, 14, 224, 224}, {16, 16, 224, 224}, {30, 40, 332, 500}}

// compare times a mask, all but the forward pass, here and in Python, in turn,
// one thread each, and prints the medians and their ratio: wall clock, and
// processor time, which a busy machine disturbs less.
func compare(python string, rounds int) error {
	if _, err := os.Stat(peer); err != nil {
		return fmt.Errorf("run it from the root of the repository: %w", err)
	}
	runtime.GOMAXPROCS(1)
	wall, processor := make([][2][]float64, len(sizes)), make([][2][]float64, len(sizes))
	for range rounds {
		theirs := exec.Command(python, peer, "1")
		theirs.Stderr = os.Stderr
		text, err := theirs.Output()
		if err != nil {
			return fmt.Errorf("%s %s: %w (it needs numpy and scipy)", python, peer, err)
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		if len(lines) != len(sizes) {
			return fmt.Errorf("%s %s printed %d lines, want %d", python, peer, len(lines), len(sizes))
		}
		for i, s := range sizes {
			var patches int
			var w, p float64
			if _, err := fmt.Sscan(string(lines[i]), &patches, &w, &p); err != nil || patches != s.gridH*s.gridW {
				return fmt.Errorf("%s %s printed %q for %d patches", python, peer, lines[i], s.gridH*s.gridW)
			}
			ourWall, ourProcessor, err := timeMask(s.gridH, s.gridW, s.height, s.width)
			if err != nil {
				return err
			}
			wall[i][0], wall[i][1] = append(wall[i][0], ourWall), append(wall[i][1], w)
			processor[i][0], processor[i][1] = append(processor[i][0], ourProcessor), append(processor[i][1], p)
		}
	}
	fmt.Printf("a mask beyond the forward pass, one thread, median of %d rounds in turn\n", rounds)
	fmt.Println("patches  picture    wall ms: here  SciPy  ratio   processor ms: here  SciPy  ratio")
	for i, s := range sizes {
		a, b := median(wall[i][0]), median(wall[i][1])
		c, d := median(processor[i][0]), median(processor[i][1])
		fmt.Printf("%7d  %4dx%-4d %14.2f %6.1f %5.1fx %19.2f %6.1f %5.1fx\n", s.gridH*s.gridW, s.height, s.width, a, b, b/a, c, d, d/c)
	}
	return nil
}

// timeMask returns the milliseconds of a mask, the mean of ten.
func timeMask(gridH, gridW, height, width int) (wall, processor float64, err error) {
	const repeats = 10
	view := adapt.View{GridH: gridH, GridW: gridW, Height: height, Width: width}
	view.Features, view.RGB = material(gridH, gridW, height, width)
	m := adapt.NewMasker(adapt.DefaultMasks)
	if _, err := m.Mask(view); err != nil {
		return 0, 0, err
	}
	start, used := time.Now(), processorTime()
	for range repeats {
		if _, err := m.Mask(view); err != nil {
			return 0, 0, err
		}
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / repeats }
	return ms(time.Since(start)), ms(processorTime() - used), nil
}

// material is that of compare_masks.py, with other random numbers: three things
// in a row, and a picture of sloping colours with noise.
func material(gridH, gridW, height, width int) (features []float32, rgb []uint8) {
	const dim, things = 384, 3
	random := rand.New(rand.NewPCG(5, 1))
	n := gridH * gridW
	var centre [things][dim]float64
	for t := range centre {
		for k := range centre[t] {
			centre[t][k] = random.NormFloat64()
		}
	}
	for i := range n {
		for k := range dim {
			features = append(features, float32(centre[i*things/n][k]+.9*random.NormFloat64()))
		}
	}
	for y := range height {
		for x := range width {
			for c := range 3 {
				rgb = append(rgb, uint8(min(255, 60+40*c+(x*(c+1)/3+y*(3-c)/4)%90+random.IntN(25))))
			}
		}
	}
	return features, rgb
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
