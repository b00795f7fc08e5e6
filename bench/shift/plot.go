package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// plot writes one SVG a study into a folder: of each recipe and test set the change in points with its interval.
func plot(dir, results string) error {
	studies, shown, err := readResults(results)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range studies {
		name := fmt.Sprintf("shift-%s-rho%g-%d.svg", s.part, s.rho, s.size)
		if err := writeFile(filepath.Join(dir, name), func(w io.Writer) error {
			_, err := io.WriteString(w, s.svg(shown))
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// svg draws a panel a test set, a row a recipe, a dot and a line an interval.
func (s *study) svg(shown map[string]pictures) string {
	const (
		left, top   = 250, 40 // pixels, of the first panel
		panel, gap  = 190, 40 // width, and between two
		row         = 22
		most, every = 30., 10. // points, of the axis
	)
	names := s.names(forward, trains, ceiling)[1:]
	bottom := top + row*len(names)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#222">`+"\n",
		left+len(testSets)*(panel+gap), bottom+30)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n") // for dark pages too
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">points of accuracy</text>`+"\n", left-24, bottom+16)
	for n, name := range names {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-10, top+row*n+row/2+4, name)
	}
	for k, set := range testSets {
		from := left + k*(panel+gap)
		at := func(points float64) float64 {
			return float64(from) + panel*(min(max(points, -most), most)+most)/(2*most)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s, before %.3f</text>`+"\n", from, top-15, set, s.accuracy(recipes[0].name, set))
		for v := -most; v <= most; v += every {
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="%s"/><text x="%.1f" y="%d" text-anchor="middle">%+g</text>`+"\n",
				at(v), at(v), top, bottom, map[bool]string{true: "#888", false: "#ddd"}[v == 0], at(v), bottom+16, v)
		}
		for n, name := range names {
			i, runs := s.change(shown, name, recipes[0].name, set)
			if runs == 0 {
				continue
			}
			y := top + row*n + row/2
			fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#0a6" stroke-width="2"/><circle cx="%.1f" cy="%d" r="4" fill="#0a6"/>`+"\n",
				at(100*i.low), at(100*i.high), y, y, at(100*i.mean), y)
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
