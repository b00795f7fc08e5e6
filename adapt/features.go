package adapt

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-a98b2d25/fovea/model"
)

// Features runs every picture through the net and returns what a head reads, [pictures, width]: the class
// token, with class+mean the mean of the patch tokens too. Pictures that cannot be decoded move to Bad.
// progress, which may be nil, is called after each picture.
func (s *Labelled) Features(ctx context.Context, net *model.Net, readout model.Readout, progress func()) (x []float32, width int, err error) {
	d := net.Config.Dim
	width = d
	var want model.Want
	if readout == model.ReadClassMean {
		width, want = 2*d, model.WantFeatures
	}
	err = s.Run(ctx, net, want, progress, func(o *model.Output) { x = append(x, headInput(o, readout, d)...) })
	return x, width, err
}

// headInput is what a head reads of a pass.
func headInput(o *model.Output, readout model.Readout, d int) []float32 {
	if readout == model.ReadClassMean {
		return slices.Concat(o.Class, meanRow(o.Features, d))
	}
	return o.Class
}

// SecondViews runs the second views of the pictures of a part through the net, for a model that looks twice: x is
// [len(of), width] as Features gives it, of[i] the number of the picture. A view is placed by the mask beside the
// picture, else by one that is cut; a picture without one to be trusted has none. progress, which may be nil, is called
// after each picture of the part.
func (s *Labelled) SecondViews(ctx context.Context, net *model.Net, readout model.Readout, part Part, progress func()) (x []float32, of []int, err error) {
	var want model.Want
	if readout == model.ReadClassMean {
		want = model.WantFeatures
	}
	pixels := make([]float32, 3*net.Config.ImageHeight*net.Config.ImageWidth)
	masks := labelledMasks(s, net)
	for i, one := range s.Pictures {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if one.Part != part {
			continue
		}
		p, mask, err := masks(i)
		if err != nil {
			return nil, nil, fmt.Errorf("labelled pictures: %w", err)
		}
		if mask != nil {
			if box, ok := FovealBox(mask, p.Width, p.Height); ok {
				if err := net.Preprocess.Pixels(FovealView(p.RGB, p.Width, box), box.Dx(), box.Dy(), pixels); err != nil {
					return nil, nil, fmt.Errorf("labelled pictures: %s: %w", one.File, err)
				}
				o, err := net.Run(want, pixels, nil)
				if err != nil {
					return nil, nil, fmt.Errorf("labelled pictures: %w", err)
				}
				x, of = append(x, headInput(o, readout, net.Config.Dim)...), append(of, i)
			}
		}
		if progress != nil {
			progress()
		}
	}
	return x, of, nil
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

// Run puts the pictures through the net, one by one in their order, and calls each with what it says. Those
// that cannot be decoded move to Bad. The next ones are decoded while the net computes. A picture a call is
// the fastest on a processor: XLA took 2.7 times as long for each of four (fovea bench --batch 4).
func (s *Labelled) Run(ctx context.Context, net *model.Net, want model.Want, progress func(), each func(o *model.Output)) error {
	type decoded struct {
		picture LabelledPicture
		pixels  []float32
		err     error
	}
	one := 3 * net.Config.ImageHeight * net.Config.ImageWidth
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead := make(chan decoded, 2)
	go func() {
		defer close(ahead)
		for _, p := range s.Pictures {
			d := decoded{picture: p, pixels: make([]float32, one)}
			d.err = s.decode(&d.picture, net.Preprocess, d.pixels)
			select {
			case ahead <- d:
			case <-ctx.Done():
				return
			}
		}
	}()

	var good []LabelledPicture
	var bad []BadPicture
	for d := range ahead {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d.err != nil {
			bad = append(bad, BadPicture{d.picture.File, d.err.Error()})
		} else {
			o, err := net.Run(want, d.pixels, nil)
			if err != nil {
				return fmt.Errorf("labelled pictures: %w", err)
			}
			good = append(good, d.picture)
			each(o)
		}
		if progress != nil {
			progress()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(good) == 0 {
		return errors.New("labelled pictures: not one could be decoded: " + bad[0].File + ": " + bad[0].Problem)
	}
	s.Pictures, s.Bad = good, append(s.Bad, bad...)
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
