package main

import (
	"image/color"
	"strconv"
	"strings"
)

// colourMap is a perceptually even scale from dark (0) to bright (1).
type colourMap [33]color.RGBA

// Every eighth colour of the tables of Smith, van der Walt and Firing (2015), as matplotlib has them.
var (
	viridis = readColours("440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725")
	inferno = readColours("000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 a32c61 b0315b bc3754 c73e4c d24644 db503b e45a31 eb6628 f1731d f68013 f98e09 fb9d07 fcac11 fbbc21 f9cb35 f5db4c f2ea69 f3f68a fcffa4")
)

func readColours(table string) *colourMap {
	var m colourMap
	for i, hex := range strings.Fields(table) {
		v, err := strconv.ParseUint(hex, 16, 24)
		if err != nil {
			panic(err)
		}
		m[i] = color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
	}
	return &m
}

// at returns the colour of v in 0..1.
func (m *colourMap) at(v float32) color.RGBA {
	v = min(max(v, 0), 1) * float32(len(m)-1)
	i := min(int(v), len(m)-2)
	return mix(m[i], m[i+1], v-float32(i))
}

// mix goes from a (0) to b (1).
func mix(a, b color.RGBA, t float32) color.RGBA {
	part := func(x, y uint8) uint8 { return uint8(float32(x) + t*(float32(y)-float32(x)) + .5) }
	return color.RGBA{part(a.R, b.R), part(a.G, b.G), part(a.B, b.B), 255}
}
