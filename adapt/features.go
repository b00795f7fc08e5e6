package adapt

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-a98b2d25/fovea/model"
)

// Features runs every picture through the net and returns what a head reads, [pictures, width]: the class
// token, with class+mean the mean of the patch tokens too. Pictures that cannot be decoded move to Bad.
// progress, which may be nil, is called after each batch with its number of pictures.
func (s *Labelled) Features(ctx context.Context, net *model.Net, readout model.Readout, progress func(int)) (x []float32, width int, err error) {
	d, patches := net.Config.Dim, net.Config.Patches()
	width = d
	var want model.Want
	if readout == model.ReadClassMean {
		width, want = 2*d, model.WantFeatures
	}
	err = s.Run(ctx, net, want, progress, func(o *model.Output, n int) {
		for i := range n {
			x = append(x, o.Class[i*d:(i+1)*d]...)
			if readout == model.ReadClassMean {
				x = append(x, meanRow(o.Features[i*patches*d:(i+1)*patches*d], d)...)
			}
		}
	})
	return x, width, err
}

// meanRow is the mean of the rows of [n, d].
func meanRow(x []float32, d int) []float32 {
	mean := make([]float32, d)
	for i, v := range x {
		mean[i%d] += v
	}
	for i := range mean {
		mean[i] /= float32(len(x) / d)
	}
	return mean
}

// runBatch is the number of pictures in one call of the net; the last call is filled up, so that one
// program serves all.
const runBatch = 16

// Run puts the pictures through the net in their order, in batches whose first n rows are pictures. Those
// that cannot be decoded move to Bad. The next batch is decoded while the net computes.
func (s *Labelled) Run(ctx context.Context, net *model.Net, want model.Want, progress func(int), each func(o *model.Output, n int)) error {
	type batch struct {
		pixels []float32
		n      int // pictures in it
		tried  int // and those that could not be decoded
	}
	one := 3 * net.Config.ImageHeight * net.Config.ImageWidth
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan batch, 1) // the next one
	var good []LabelledPicture
	var bad []BadPicture
	go func() {
		defer close(batches)
		rest := s.Pictures
		for len(rest) > 0 {
			b := batch{pixels: make([]float32, runBatch*one)}
			for len(rest) > 0 && b.n < runBatch {
				p := rest[0]
				rest = rest[1:]
				b.tried++
				if err := s.decode(&p, net.Preprocess, b.pixels[b.n*one:(b.n+1)*one]); err != nil {
					bad = append(bad, BadPicture{p.File, err.Error()})
					continue
				}
				good = append(good, p)
				b.n++
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	for b := range batches {
		if err := ctx.Err(); err != nil {
			return err
		}
		if b.n > 0 {
			o, err := net.Run(want, b.pixels, nil)
			if err != nil {
				return fmt.Errorf("labelled pictures: %w", err)
			}
			each(o, b.n)
		}
		if progress != nil {
			progress(b.tried)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.Pictures, s.Bad = good, append(s.Bad, bad...)
	if len(good) == 0 {
		return errors.New("labelled pictures: not one could be decoded: " + bad[0].File + ": " + bad[0].Problem)
	}
	return nil
}

// decode reads one picture into the net's input and takes its perceptual hash.
func (s *Labelled) decode(p *LabelledPicture, pre model.Preprocess, out []float32) error {
	picture, err := ReadPicture(s.at(p.File))
	if err != nil {
		return err
	}
	p.hash = picture.differenceHash()
	return pre.Pixels(picture.RGB, picture.Width, picture.Height, out)
}
