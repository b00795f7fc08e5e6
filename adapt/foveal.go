package adapt

import (
	"image"
	"math"

	"gonum.org/v1/gonum/floats"

	"github.com/seed-a98b2d25/fovea/model"
)

const (
	fovealDilation = .15 // the box grows by this part of its side
	fovealLeast    = .5  // least side of the box, in parts of the shorter side of the frame: a quarter of its square
	fovealBorder   = .5  // a mask that touches more of the border is the background: look again at nothing
)

// FovealBox is where a second look goes: the square around the largest region of a mask [height, width] (255 on
// the object), dilated, moved into the frame. ok is false where a second look would show nothing new: no mask,
// one that holds most of the border, or a box as large as the frame.
func FovealBox(mask []byte, width, height int) (box image.Rectangle, ok bool) {
	ones := make([]uint8, len(mask))
	for i, v := range mask {
		ones[i] = v >> 7
	}
	var r regions
	r.label(ones, height, width)
	region := r.largestOnes()
	if region == noRegion {
		return image.Rectangle{}, false
	}
	touched, all := r.borderAreas()
	if float64(touched[region]) > fovealBorder*float64(all) {
		return image.Rectangle{}, false
	}
	object := make([]byte, len(mask))
	r.extract(object, region)
	in := maskBox(object, width)

	frame := float64(min(width, height))
	side := min(frame, max(fovealLeast*frame, (1+fovealDilation)*float64(max(in.Dx(), in.Dy()))))
	place := func(low, high, length int) int {
		at := (float64(low+high) - side) / 2
		return int(math.Round(min(max(at, 0), float64(length)-side)))
	}
	s := int(math.Round(side))
	x, y := place(in.Min.X, in.Max.X, width), place(in.Min.Y, in.Max.Y, height)
	box = image.Rect(x, y, min(x+s, width), min(y+s, height))
	return box, s < min(width, height)
}

// SecondLook is where to look again in a frame of width x height pixels, of which m covers the part view: FovealBox of m
// in the pixels of the frame. A mask that is not to be trusted points nowhere.
func (m *Mask) SecondLook(view image.Rectangle, width, height int, floor float64) (box image.Rectangle, ok bool) {
	if m.Quality < floor {
		return image.Rectangle{}, false
	}
	box, ok = FovealBox(m.Pixels, m.Width, m.Height)
	at := func(v, side, from, length int) int { return from + v*length/side }
	box = image.Rect(
		at(box.Min.X, m.Width, view.Min.X, view.Dx()), at(box.Min.Y, m.Height, view.Min.Y, view.Dy()),
		at(box.Max.X, m.Width, view.Min.X, view.Dx()), at(box.Max.Y, m.Height, view.Min.Y, view.Dy()),
	).Intersect(image.Rect(0, 0, width, height))
	return box, ok && !box.Empty()
}

// LookAgain classifies what a frame, [height, width, 3], shows inside box, and joins that with the logits of the whole
// frame.
func LookAgain(net *model.Net, rgb []byte, width int, box image.Rectangle, frame []float32) ([]float32, error) {
	pixels := make([]float32, 3*net.Config.ImageHeight*net.Config.ImageWidth)
	if err := net.Preprocess.Pixels(FovealView(rgb, width, box), box.Dx(), box.Dy(), pixels); err != nil {
		return nil, err
	}
	out, err := net.Run(0, pixels, nil)
	if err != nil {
		return nil, err
	}
	return FovealLogits(frame, out.Logits), nil
}

// lookAgain is LookAgain where a mask, [height, width] with 255 on the object, says; else the logits of the whole.
func lookAgain(net *model.Net, rgb, mask []byte, width, height int, whole []float32) ([]float32, error) {
	box, ok := FovealBox(mask, width, height)
	if !ok {
		return whole, nil
	}
	return LookAgain(net, rgb, width, box, whole)
}

// lookTwice is what a net says, as probabilities, of a picture whose object is known.
func lookTwice(net *model.Net, p *Picture, mask []byte) ([]float32, error) {
	pixels := make([]float32, 3*net.Config.ImageHeight*net.Config.ImageWidth)
	if err := net.Preprocess.Pixels(p.RGB, p.Width, p.Height, pixels); err != nil {
		return nil, err
	}
	out, err := net.Run(0, pixels, nil)
	if err != nil {
		return nil, err
	}
	said, err := lookAgain(net, p.RGB, mask, p.Width, p.Height, out.Logits)
	if err != nil {
		return nil, err
	}
	return model.Probabilities(said), nil
}

// FovealView cuts the second view out of a frame, [height, width, 3]: a picture for the network's own
// preprocessing.
func FovealView(rgb []byte, width int, box image.Rectangle) []byte {
	view := make([]byte, 0, 3*box.Dx()*box.Dy())
	for y := box.Min.Y; y < box.Max.Y; y++ {
		view = append(view, rgb[3*(y*width+box.Min.X):3*(y*width+box.Max.X)]...)
	}
	return view
}

// FovealLogits joins what a model says of the frame and of the second view: the sum of the log-probabilities, as
// logits whose softmax is the product of both, normalised.
func FovealLogits(frame, view []float32) []float32 {
	out := make([]float32, len(frame))
	a, b := logSumExp(frame), logSumExp(view)
	for i := range out {
		out[i] = float32(float64(frame[i]) - a + float64(view[i]) - b)
	}
	return out
}

func logSumExp(logits []float32) float64 {
	wide := make([]float64, len(logits))
	for i, v := range logits {
		wide[i] = float64(v)
	}
	return floats.LogSumExp(wide)
}
