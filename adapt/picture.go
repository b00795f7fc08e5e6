package adapt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	_ "image/jpeg" // registers the format
	_ "image/png"  // registers the format
	"io"
	"math/bits"
	"os"
)

// Picture is a decoded picture in 8-bit sRGB.
type Picture struct {
	Width, Height int    // pixels
	RGB           []byte // [Height, Width, 3]; transparent parts laid over backdrop
	Alpha         []byte // [Height, Width]; nil where every pixel is opaque
}

// backdrop is what transparent parts are laid over: the mean colour of ImageNet, which normalisation turns
// into zeros.
var backdrop = color.NRGBA{R: 124, G: 116, B: 104, A: 255}

// Bounds on a picture file: whoever fills the folder must not make us take gigabytes.
const (
	maxPictureBytes  = 64 << 20
	maxPicturePixels = 64 << 20
	maxPictureSide   = 1 << 14
)

// ReadPicture decodes a JPEG or PNG file, turned upright as its EXIF orientation says. Its size is checked
// before memory is taken for the pixels.
func ReadPicture(path string) (*Picture, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPictureBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	p, err := DecodePicture(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// DecodePicture is ReadPicture for the content of a file.
func DecodePicture(data []byte) (*Picture, error) {
	if len(data) > maxPictureBytes {
		return nil, fmt.Errorf("larger than %d MiB", maxPictureBytes>>20)
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	switch {
	case err != nil:
		return nil, fmt.Errorf("no JPEG or PNG picture: %w", err)
	case c.Width < 1 || c.Height < 1 || c.Width > maxPictureSide || c.Height > maxPictureSide || c.Width*c.Height > maxPicturePixels:
		return nil, fmt.Errorf("%d x %d pixels, want sides of 1 to %d and at most %d million pixels", c.Width, c.Height, maxPictureSide, maxPicturePixels>>20)
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("damaged picture: %w", err)
	}
	return newPicture(img).upright(orientation(data)), nil
}

// newPicture copies an image into a Picture.
func newPicture(img image.Image) *Picture {
	b := img.Bounds()
	p := &Picture{Width: b.Dx(), Height: b.Dy()}
	p.RGB = make([]byte, 3*p.Width*p.Height)

	opaque, known := img.(interface{ Opaque() bool })
	if !known || !opaque.Opaque() {
		straight := image.NewNRGBA(image.Rect(0, 0, p.Width, p.Height))
		draw.Draw(straight, straight.Rect, img, b.Min, draw.Src)
		p.Alpha = make([]byte, p.Width*p.Height)
		for i := range p.Alpha {
			p.Alpha[i] = straight.Pix[4*i+3]
		}
	}
	flat := image.NewRGBA(image.Rect(0, 0, p.Width, p.Height))
	draw.Draw(flat, flat.Rect, image.NewUniform(backdrop), image.Point{}, draw.Src)
	draw.Draw(flat, flat.Rect, img, b.Min, draw.Over)
	for i := range p.Width * p.Height {
		copy(p.RGB[3*i:3*i+3], flat.Pix[4*i:])
	}
	return p
}

// upright undoes an EXIF orientation, 1 to 8 (EXIF 2.32, table 6); anything else leaves p alone.
func (p *Picture) upright(orientation int) *Picture {
	if orientation < 2 || orientation > 8 {
		return p
	}
	o := &Picture{Width: p.Width, Height: p.Height, RGB: make([]byte, len(p.RGB))}
	if orientation >= 5 {
		o.Width, o.Height = p.Height, p.Width
	}
	if p.Alpha != nil {
		o.Alpha = make([]byte, len(p.Alpha))
	}
	for y := range o.Height {
		for x := range o.Width {
			sx, sy := x, y // in p, once transposed
			if orientation >= 5 {
				sx, sy = y, x
			}
			switch orientation {
			case 2:
				sx = p.Width - 1 - sx
			case 3:
				sx, sy = p.Width-1-sx, p.Height-1-sy
			case 4:
				sy = p.Height - 1 - sy
			case 6:
				sy = p.Height - 1 - sy
			case 7:
				sx, sy = p.Width-1-sx, p.Height-1-sy
			case 8:
				sx = p.Width - 1 - sx
			}
			from, to := sy*p.Width+sx, y*o.Width+x
			copy(o.RGB[3*to:3*to+3], p.RGB[3*from:])
			if p.Alpha != nil {
				o.Alpha[to] = p.Alpha[from]
			}
		}
	}
	return o
}

// orientation finds the EXIF orientation of a JPEG, 1 where there is none.
func orientation(jpeg []byte) int {
	at := 2
	for at+4 <= len(jpeg) && jpeg[at] == 0xff && jpeg[at+1] != 0xda { // until the scan starts
		size := int(binary.BigEndian.Uint16(jpeg[at+2:]))
		end := min(at+2+size, len(jpeg))
		if body, is := bytes.CutPrefix(jpeg[min(at+4, end):end], []byte("Exif\x00\x00")); is && jpeg[at+1] == 0xe1 {
			return tiffOrientation(body)
		}
		at += 2 + size
	}
	return 1
}

// tiffOrientation reads tag 0x0112 of the first directory.
func tiffOrientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	if tiff[0] == 'M' {
		order = binary.BigEndian
	}
	at := uint64(order.Uint32(tiff[4:]))
	if at+2 > uint64(len(tiff)) {
		return 1
	}
	entries := tiff[at+2:]
	for range order.Uint16(tiff[at:]) {
		if len(entries) < 12 {
			break
		}
		if order.Uint16(entries) == 0x0112 {
			return int(order.Uint16(entries[8:]))
		}
		entries = entries[12:]
	}
	return 1
}

// differenceHash is a perceptual hash: whether each of 8 x 8 cells is lighter than its right neighbour. It
// stays within a few bits under scaling, compression and small changes of light.
func (p *Picture) differenceHash() uint64 {
	const rows, cols = 8, 9
	var sum, n [rows * cols]int
	for y := range p.Height {
		for x := range p.Width {
			cell := y*rows/p.Height*cols + x*cols/p.Width
			at := 3 * (y*p.Width + x)
			sum[cell] += 299*int(p.RGB[at]) + 587*int(p.RGB[at+1]) + 114*int(p.RGB[at+2])
			n[cell]++
		}
	}
	var hash uint64
	for y := range rows {
		for x := range cols - 1 {
			left, right := y*cols+x, y*cols+x+1
			hash <<= 1
			if sum[left]*max(n[right], 1) > sum[right]*max(n[left], 1) {
				hash |= 1
			}
		}
	}
	return hash
}

func hamming(a, b uint64) int { return bits.OnesCount64(a ^ b) }
