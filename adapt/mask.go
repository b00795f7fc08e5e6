package adapt

// upsample writes grid [gridH][gridW] to mask [height][width], nearest
// neighbour: source = floor(destination * grid / size).
func upsample(mask []uint8, height, width int, grid []uint8, gridH, gridW int) {
	last := -1
	for y := range height {
		row := mask[y*width : (y+1)*width]
		if gy := y * gridH / height; gy != last {
			last = gy
			for x := range row {
				row[x] = grid[gy*gridW+x*gridW/width]
			}
			continue
		}
		copy(row, mask[(y-1)*width:y*width])
	}
}

// overlap is the intersection over union of two masks of zeros and ones; 0
// where both are empty.
func overlap(a, b []uint8) float64 {
	var both, either int
	for i, v := range a {
		both += int(v & b[i])
		either += int(v | b[i])
	}
	if either == 0 {
		return 0
	}
	return float64(both) / float64(either)
}
