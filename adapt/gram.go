package adapt

import "unsafe"

// gramTileGo is gramTile where there is no assembly for the processor, and what
// the assembly is tested against.
func gramTileGo(dots *[gramRows * gramCols]float32, rows, cols *float32, stride int) {
	x := unsafe.Slice(rows, gramRows*stride)
	y := unsafe.Slice(cols, gramCols*stride)
	for r := range gramRows {
		a := x[r*stride : (r+1)*stride]
		var s0, s1, s2, s3 float32
		y0, y1, y2, y3 := y[:len(a)], y[stride:][:len(a)], y[2*stride:][:len(a)], y[3*stride:][:len(a)]
		for k, v := range a {
			s0 += v * y0[k]
			s1 += v * y1[k]
			s2 += v * y2[k]
			s3 += v * y3[k]
		}
		*(*[gramCols]float32)(dots[r*gramCols:]) = [gramCols]float32{s0, s1, s2, s3}
	}
}
