package adapt

import "golang.org/x/sys/cpu"

var haveAVX2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA

//go:noescape
func gramTileAVX2(dots *[gramRows * gramCols]float32, rows, cols *float32, stride int)

// gramTile sets dots[r*gramCols+c] to the dot product of row r, at rows +
// r*stride, with row c, at cols + c*stride. stride is a multiple of gramStep.
func gramTile(dots *[gramRows * gramCols]float32, rows, cols *float32, stride int) {
	if haveAVX2 {
		gramTileAVX2(dots, rows, cols, stride)
		return
	}
	gramTileGo(dots, rows, cols, stride)
}
