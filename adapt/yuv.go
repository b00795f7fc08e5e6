package adapt

import "math"

// yuvTerms holds, for each channel of RGB and each of its 256 values, what it
// adds to Y/16, U/8 and V/8: three fields of 21 bits, 14 of them behind the
// point. Negative terms are lifted; the lifts sum to the offset of 128.
var yuvTerms = func() (terms [3][256]uint64) {
	type row struct{ factor, lift [3]float64 } // for red, green, blue
	rows := [3]row{
		{factor: [3]float64{0.299 / sigmaLuma, 0.587 / sigmaLuma, 0.114 / sigmaLuma}},
		{factor: [3]float64{-0.168736 / sigmaChroma, -0.331264 / sigmaChroma, 0.5 / sigmaChroma}, lift: [3]float64{5.4, 10.6, 0}},
		{factor: [3]float64{0.5 / sigmaChroma, -0.418688 / sigmaChroma, -0.081312 / sigmaChroma}, lift: [3]float64{0, 13.37, 2.63}},
	}
	for channel := range terms {
		for v := range terms[channel] {
			for field, r := range rows {
				x := math.Round((float64(v)*r.factor[channel] + r.lift[channel]) * (1 << yuvPoint))
				terms[channel][v] |= uint64(x) << (yuvField * field)
			}
			if channel == 0 {
				terms[channel][v] += yuvMargin * yuvOnes
			}
		}
	}
	return terms
}()

const (
	yuvField = 21
	yuvPoint = 14
	yuvOnes  = 1 | 1<<yuvField | 1<<(2*yuvField)

	// yuvMargin, in units of the last place, is more than the three roundings of
	// a sum can add up to. It is added to every sum, so that one whose fraction is
	// below twice the margin may lie on either side of the step.
	yuvMargin = 2
)

// yuvSum is the packed sum for a colour.
func yuvSum(r, g, b uint8) uint64 { return yuvTerms[0][r] + yuvTerms[1][g] + yuvTerms[2][b] }

// nearStep tells whether a sum is too near a step of the grid to say on which
// side of it the colour lies: then exactColour does.
func nearStep(sum uint64) bool {
	const (
		point    = yuvOnes << yuvPoint
		fraction = point - yuvOnes*2*yuvMargin // bits behind the point worth 2 yuvMargin and more
	)
	return (sum&fraction+(point-yuvOnes))&point != point
}

// gridColour is Y + 16 (U + 32 V) in steps of the bilateral grid.
func gridColour(sum uint64) uint16 {
	return uint16(sum>>yuvPoint&15 | sum>>(yuvField+yuvPoint)&31<<4 | sum>>(2*yuvField+yuvPoint)&31<<9)
}

// exactColour is the same in the published program's own arithmetic, where the
// order of roundings decides on which side of a step a pixel falls: its matrix
// product fuses multiplications and additions, and all greys lie on a step of U
// and V.
func exactColour(r, g, b uint8) uint16 {
	red, green, blue := float64(r), float64(g), float64(b)
	y := math.FMA(blue, 0.114, math.FMA(green, 0.587, red*0.299))
	u := math.FMA(blue, 0.5, math.FMA(green, -0.331264, red*-0.168736)) + 128
	v := math.FMA(blue, -0.081312, math.FMA(green, -0.418688, red*0.5)) + 128
	return uint16(int(y/sigmaLuma) + 16*int(u/sigmaChroma) + 512*int(v/sigmaChroma))
}
