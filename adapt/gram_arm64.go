package adapt

// gramTile sets dots[r*gramCols+c] to the dot product of row r, at rows +
// r*stride, with row c, at cols + c*stride. stride is a multiple of gramStep.
//
//go:noescape
func gramTile(dots *[gramRows * gramCols]float32, rows, cols *float32, stride int)
