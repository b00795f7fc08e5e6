//go:build !amd64 && !arm64

package adapt

func gramTile(dots *[gramRows * gramCols]float32, rows, cols *float32, stride int) {
	gramTileGo(dots, rows, cols, stride)
}
