package adapt

import "slices"

// Summary is what frames are compared by: the class token, which a fixed view dominates, and the mean of the patch
// tokens on the object (of all, where there is none), each of length 1, end to end. [2 D]
//
// class [D] and features [rows*cols][D] are a network's output for the picture that the mask covers.
func Summary(class, features []float32, mask Mask, rows, cols int) []float32 {
	d := len(class)
	cover := mask.Cover(rows, cols)
	object := make([]float32, d)
	var all float64
	for _, c := range cover {
		all += c
	}
	for i, c := range cover {
		if all == 0 {
			c = 1
		}
		for k, v := range features[i*d : (i+1)*d] {
			object[k] += float32(c) * v
		}
	}
	view := slices.Clone(class)
	normalise(view)
	normalise(object)
	return append(view, object...)
}

// Cover is the part of each patch of a grid, row by row, that the mask covers, 0 to 1. [rows*cols]
func (m Mask) Cover(rows, cols int) []float64 {
	cover := make([]float64, rows*cols)
	for y := range m.Height {
		for x, p := range m.Pixels[y*m.Width : (y+1)*m.Width] {
			if p != 0 {
				cover[y*rows/m.Height*cols+x*cols/m.Width]++
			}
		}
	}
	perPatch := float64(m.Width*m.Height) / float64(rows*cols)
	for i := range cover {
		cover[i] = min(1, cover[i]/perPatch)
	}
	return cover
}
