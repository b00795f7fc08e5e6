package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"

	"github.com/seed-a98b2d25/fovea/bench/internal/rank"
)

func report(w io.Writer, results []result) {
	column := func(f func(result) float64) []float64 {
		var values []float64
		for _, r := range results {
			values = append(values, f(r))
		}
		return values
	}
	overlap := column(func(r result) float64 { return r.overlap })
	var accepted []float64
	for _, r := range results {
		if r.accepted {
			accepted = append(accepted, r.overlap)
		}
	}
	fmt.Fprintf(w, "%-44s %s\n", "", "mean IoU")
	for i, tau := range plainTaus {
		fmt.Fprintf(w, "%-44s %.3f\n", fmt.Sprintf("plain TokenCut, tau %g", tau), stat.Mean(column(func(r result) float64 { return r.coarse[i] }), nil))
		fmt.Fprintf(w, "%-44s %.3f\n", "  and its bilateral solver", stat.Mean(column(func(r result) float64 { return r.plainSolver[i] }), nil))
	}
	fmt.Fprintf(w, "%-44s %.3f\n", "ours, all", stat.Mean(overlap, nil))
	fmt.Fprintf(w, "%-44s %.3f\n", fmt.Sprintf("ours, accepted (%.0f %%)", 100*float64(len(accepted))/float64(len(results))), stat.Mean(accepted, nil))
	quality := column(func(r result) float64 { return r.mask.Quality })
	fmt.Fprintf(w, "rank correlation of quality and IoU: %.2f\n", rank.Correlation(quality, overlap))
}

// fit prints the weights that predict the overlap best, by least squares over
// the terms of adapt's quality. Empty masks take no part.
func fit(w io.Writer, results []result) error {
	var rows, target []float64
	for _, r := range results {
		if e := r.mask.Evidence; e.Area > 0 {
			rows = append(rows, 1, math.Log10(e.Lambda2+.003), e.Decision, e.Border)
			target = append(target, r.overlap)
		}
	}
	var x mat.VecDense
	if err := x.SolveVec(mat.NewDense(len(target), 4, rows), mat.NewVecDense(len(target), target)); err != nil {
		return fmt.Errorf("fit the quality: %w", err)
	}
	fmt.Fprintf(w, "quality = %.2f %+.2f log10(Lambda2 + .003) %+.2f Decision %+.2f Border\n", x.AtVec(0), x.AtVec(1), x.AtVec(2), x.AtVec(3))
	return nil
}

const (
	sheetColumns, sheetRows = 6, 4
	gap                     = 4 // px between pictures
)

// drawSheets writes the pictures, the mask in red and the true outline in green;
// a grey bar below is as long as the quality, a white one as the overlap.
func drawSheets(folder string, results []result) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for n, sheet := 0, 0; n < len(results); sheet++ {
		side := results[n].width
		cell := side + gap + 10
		canvas := image.NewRGBA(image.Rect(0, 0, sheetColumns*cell, sheetRows*cell))
		for i := 3; i < len(canvas.Pix); i += 4 {
			canvas.Pix[i] = 255
		}
		for k := 0; k < sheetColumns*sheetRows && n < len(results); k, n = k+1, n+1 {
			drawResult(canvas, image.Pt(k%sheetColumns*cell, k/sheetColumns*cell), results[n])
		}
		file, err := os.Create(filepath.Join(folder, fmt.Sprintf("%02d.png", sheet)))
		if err != nil {
			return err
		}
		if err := png.Encode(file, canvas); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

func drawResult(canvas *image.RGBA, at image.Point, r result) {
	outline := func(x, y int) bool {
		if r.truth[y*r.width+x] == 0 {
			return false
		}
		for _, d := range []image.Point{{1, 0}, {-1, 0}, {0, 1}, {0, -1}} {
			p := image.Pt(x, y).Add(d)
			if !p.In(image.Rect(0, 0, r.width, r.height)) || r.truth[p.Y*r.width+p.X] == 0 {
				return true
			}
		}
		return false
	}
	for y := range r.height {
		for x := range r.width {
			i := y*r.width + x
			c := color.RGBA{r.rgb[3*i], r.rgb[3*i+1], r.rgb[3*i+2], 255}
			if r.mask.Pixels[i] != 0 {
				c = color.RGBA{c.R/2 + 127, c.G / 2, c.B / 2, 255}
			}
			if outline(x, y) {
				c = color.RGBA{G: 255, A: 255}
			}
			canvas.SetRGBA(at.X+x, at.Y+y, c)
		}
	}
	bar := func(y int, share float64, c color.RGBA) {
		for x := range int(share * float64(r.width)) {
			for d := range 4 {
				canvas.SetRGBA(at.X+x, at.Y+r.height+y+d, c)
			}
		}
	}
	bar(0, r.mask.Quality, color.RGBA{128, 128, 128, 255})
	bar(5, r.overlap, color.RGBA{255, 255, 255, 255})
}
