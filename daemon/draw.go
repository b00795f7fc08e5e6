package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/store"
)

// A pack's samples: blocks of consecutive ones of a camera, every fourth of which is held out, with a gap of time
// between held-out and trained on.
const (
	packBlock = 12
	packGap   = 30 * time.Second
	packMost  = 1200 // samples; the newest
)

// drawPack writes what a run learns from: all samples that the base's backbone saw, in parts from distinct times. It
// returns the pack's digest and how many samples it holds.
func drawPack(file string, samples *store.Samples, info adapt.PackInfo) (digest string, n int, err error) {
	metas := samples.List(func(m *store.Meta) bool { return m.Backbone == info.Base })
	slices.SortFunc(metas, func(a, b store.Meta) int { return int(a.Seq) - int(b.Seq) })
	metas = metas[max(0, len(metas)-packMost):]
	parts := divide(metas)
	metas = slices.DeleteFunc(metas, func(m store.Meta) bool { return parts[m.Seq] == "" })
	if len(metas) == 0 {
		return "", 0, fmt.Errorf("%w: no sample was seen by the base model", adapt.ErrFew)
	}
	info.Gap = packGap.Seconds()
	digest, err = adapt.WritePack(file, info, len(metas), func(i int) (adapt.Sample, error) {
		s, err := samples.Get(metas[i].Seq)
		if err != nil {
			return adapt.Sample{}, err
		}
		one := adapt.Sample{Part: parts[s.Seq], Camera: s.Camera, Time: s.Time, Sequence: s.Seq, Label: s.Label, JPEG: s.JPEG}
		if s.Mask != nil && s.Mask.Accepted {
			one.Mask, one.Quality = wholeMask(s).Pix, s.Mask.Quality
		}
		return one, nil
	})
	return digest, len(metas), err
}

// divide gives each sample its part, camera by camera.
func divide(metas []store.Meta) map[uint64]adapt.PackPart {
	cameras := map[string][]store.Meta{}
	for _, m := range metas {
		cameras[m.Camera] = append(cameras[m.Camera], m)
	}
	parts := map[uint64]adapt.PackPart{}
	for _, of := range cameras {
		var times []time.Time
		for _, m := range of {
			times = append(times, m.Time)
		}
		for i, part := range adapt.Divide(times, packBlock, packGap) {
			parts[of[i].Seq] = part
		}
	}
	return parts
}
