//go:build gocv_videoio

package main

import (
	"image"
	"image/color"
	"math"

	"gocv.io/x/gocv"
)

// areas keeps what is computed once for each size of picture.
type areas struct {
	full     image.Point // size for which polygons were scaled
	polygons []gocv.PointsVector
	small    image.Point // size of shown
	shown    []byte      // [h][w], 0 hidden, 255 visible; nil where nothing is hidden
}

// blank paints the polygons (points in 0..1) black into the full-size picture.
func (a *areas) blank(img *gocv.Mat, privacy [][][2]float64) error {
	if len(privacy) == 0 {
		return nil
	}
	if size := image.Pt(img.Cols(), img.Rows()); size != a.full {
		for _, p := range a.polygons {
			p.Close()
		}
		a.full, a.polygons = size, scaled(privacy, size)
	}
	return fill(img, a.polygons, color.RGBA{})
}

// visible tells for the scaled picture which pixels no polygon hides.
func (a *areas) visible(w, h int, privacy [][][2]float64) ([]byte, error) {
	if len(privacy) == 0 || a.small == image.Pt(w, h) {
		return a.shown, nil
	}
	mask := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(255, 0, 0, 0), h, w, gocv.MatTypeCV8UC1)
	defer mask.Close()
	polygons := scaled(privacy, image.Pt(w, h))
	defer func() {
		for _, p := range polygons {
			p.Close()
		}
	}()
	if err := fill(&mask, polygons, color.RGBA{}); err != nil {
		return nil, err
	}
	a.small, a.shown = image.Pt(w, h), mask.ToBytes()
	return a.shown, nil
}

// fill paints one polygon after the other: together, OpenCV would leave open
// where two overlap. The boundary is painted too.
func fill(img *gocv.Mat, polygons []gocv.PointsVector, c color.RGBA) error {
	for _, p := range polygons {
		if err := gocv.FillPoly(img, p, c); err != nil {
			return err
		}
	}
	return nil
}

func scaled(privacy [][][2]float64, size image.Point) []gocv.PointsVector {
	all := make([]gocv.PointsVector, len(privacy))
	for i, polygon := range privacy {
		points := make([]image.Point, len(polygon))
		for j, p := range polygon {
			points[j] = image.Pt(pixel(p[0], size.X), pixel(p[1], size.Y))
		}
		all[i] = gocv.NewPointsVectorFromPoints([][]image.Point{points})
	}
	return all
}

// pixel is the index of the pixel at the part v of n pixels; 1 is the last one.
func pixel(v float64, n int) int { return min(int(math.Floor(v*float64(n))), n-1) }
