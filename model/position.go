package model

import "math"

// resizePosition lays the position embedding of c, [1, positions, D], out for the grid of to. The rows of
// class and distillation token stay as they are.
func resizePosition(position []float32, c, to Config) []float32 {
	rows, cols := c.Grid()
	newRows, newCols := to.Grid()
	if rows == newRows && cols == newCols {
		return position
	}
	prefix := len(position) - rows*cols*c.Dim
	grid := position[prefix:]
	grid = resizeColumns(grid, rows, cols, newCols, c.Dim, c.PositionResize)
	// Rows are columns whose elements are whole rows of the grid.
	grid = resizeColumns(grid, 1, rows, newRows, newCols*c.Dim, c.PositionResize)
	return append(append(make([]float32, 0, prefix+len(grid)), position[:prefix]...), grid...)
}

// resizeColumns turns [rows, cols, dim] into [rows, newCols, dim].
func resizeColumns(grid []float32, rows, cols, newCols, dim int, how PositionResize) []float32 {
	list := fourTaps(cols, newCols)
	if how == PositionAntialias {
		list = antialiased(kernels[Bicubic], cols, newCols)
	}
	out := make([]float32, rows*newCols*dim)
	for r := range rows {
		for i, t := range list {
			to := out[(r*newCols+i)*dim:][:dim]
			for k, w := range t.weights {
				for j, v := range grid[(r*cols+t.first+k)*dim:][:dim] {
					to[j] += float32(w) * v
				}
			}
		}
	}
	return out
}

// fourTaps is PyTorch's bicubic interpolation without antialiasing: a = -0.75, half-pixel centres, and the
// sample at the border in place of those beyond it.
func fourTaps(n, m int) []taps {
	const a = -0.75
	list := make([]taps, m)
	for i := range list {
		x := (float64(i)+0.5)*float64(n)/float64(m) - 0.5
		floor := math.Floor(x)
		t := x - floor
		first := min(max(int(floor)-1, 0), n-1)
		last := min(max(int(floor)+2, 0), n-1)
		w := make([]float64, last-first+1)
		for k, v := range []float64{cubic(t+1, a), cubic(t, a), cubic(1-t, a), cubic(2-t, a)} {
			w[min(max(int(floor)-1+k, 0), n-1)-first] += v
		}
		list[i] = taps{first, w}
	}
	return list
}
