package main

import (
	"image"
	"image/draw"
	"image/png"
	"io"

	xdraw "golang.org/x/image/draw"
)

// drawSheet draws rows of pictures: labelled, the stream of each camera, each test set.
func drawSheet(d *studio, file string) error {
	const small, across = 112, 16
	type row struct {
		name  string // of the set, as its random numbers know it
		first int
		shots []shot
	}
	labels, frames := d.labelShots(), d.frames()
	var rows []row
	add := func(name string, first int, shots []shot) {
		rows = append(rows, row{name, first, shots[first : first+across]})
	}
	for class := range d.scenes {
		add("labelled", class*d.labelled, labels)
	}
	for i := range d.fixed {
		add("stream", i*framesPerCamera, frames)
	}
	for _, set := range testSets {
		shots := d.tests(set, across)
		add("test "+set, 0, shots)
		add("test "+set, 2*across, shots)
	}
	sheet := image.NewRGBA(image.Rect(0, 0, across*small, len(rows)*small))
	for y, r := range rows {
		for x, s := range r.shots {
			p, _ := d.draw(s, d.random(r.name, r.first+x))
			xdraw.BiLinear.Scale(sheet, image.Rect(x*small, y*small, (x+1)*small-2, (y+1)*small-2), p, p.Rect, draw.Src, nil)
		}
	}
	return writeFile(file, func(w io.Writer) error { return png.Encode(w, sheet) })
}
