package adapt

import (
	"fmt"
	"math"

	"github.com/seed-a98b2d25/fovea/model"
)

// CutMasks finds masks without labels: the features of a self-supervised backbone are cut (TokenCut) for the part
// of a picture that the network sees, at the size of its input. What lies outside of it is background. A mask whose
// quality is below o.Floor is an error that says so. The function keeps buffers: one goroutine calls it.
func CutMasks(net *model.Net, o MaskOptions) MaskOf {
	c, masker := net.Config, NewMasker(o)
	plain := net.Preprocess
	plain.Scale, plain.Mean, plain.Std = 1, [3]float64{}, [3]float64{1, 1, 1}
	input := make([]float32, 3*c.ImageHeight*c.ImageWidth)
	levels := make([]float32, len(input))
	rgb := make([]byte, len(input))
	rows, cols := c.Grid()

	return func(_ string, p *Picture) ([]byte, error) {
		if err := net.Preprocess.Pixels(p.RGB, p.Width, p.Height, input); err != nil {
			return nil, err
		}
		if err := plain.Pixels(p.RGB, p.Width, p.Height, levels); err != nil {
			return nil, err
		}
		interleave(rgb, levels)
		out, err := net.Run(model.WantFeatures, input, nil)
		if err != nil {
			return nil, err
		}
		mask, err := masker.Mask(View{
			Features: out.Features, GridH: rows, GridW: cols, RGB: rgb, Height: c.ImageHeight, Width: c.ImageWidth,
		})
		if err != nil {
			return nil, err
		}
		if mask.Quality < o.Floor {
			return nil, fmt.Errorf("no mask to be trusted: its quality is %.2f, want %.2f", mask.Quality, o.Floor)
		}
		return mask.onto(p, net.Preprocess), nil
	}
}

// onto lays the mask of a view onto the whole picture, nearest neighbour.
func (m *Mask) onto(p *Picture, pre model.Preprocess) []byte {
	view := pre.View(p.Width, p.Height)
	whole := make([]byte, p.Width*p.Height)
	for y := max(0, view.Min.Y); y < min(p.Height, view.Max.Y); y++ {
		my := (y - view.Min.Y) * m.Height / view.Dy()
		for x := max(0, view.Min.X); x < min(p.Width, view.Max.X); x++ {
			whole[y*p.Width+x] = m.Pixels[my*m.Width+(x-view.Min.X)*m.Width/view.Dx()]
		}
	}
	return whole
}

// interleave turns planes of grey levels, [3, H, W], into pixels, [H, W, 3].
func interleave(rgb []byte, planes []float32) {
	n := len(planes) / 3
	for i := range n {
		for k := range 3 {
			rgb[3*i+k] = byte(math.Round(float64(planes[k*n+i])))
		}
	}
}
