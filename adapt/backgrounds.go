package adapt

import (
	"context"
	"fmt"
)

// mostBackgrounds of a camera are made of a part of a pack: a plate costs the median of some 15 frames.
const mostBackgrounds = 4

// Backgrounds are the views without objects that a part of a pack gives: of each camera, plates of its frames in
// the order of their time; of a camera with too few frames for a plate, or whose plates were never seen free of
// objects, single frames whose own object is flattened. Frames without a mask count as they are in plates and
// are no background by themselves.
func (p *Pack) Backgrounds(ctx context.Context, part PackPart) ([]Background, error) {
	var order []string
	of := map[string][]int{}
	for i, s := range p.Samples {
		if s.Part != part {
			continue
		}
		if of[s.Camera] == nil {
			order = append(order, s.Camera)
		}
		of[s.Camera] = append(of[s.Camera], i)
	}
	var out []Background
	for _, camera := range order {
		plates, err := p.plates(ctx, camera, of[camera])
		if err != nil {
			return nil, fmt.Errorf("backgrounds: %w", err)
		}
		if len(plates) == 0 {
			if plates, err = p.flattened(ctx, camera, of[camera]); err != nil {
				return nil, fmt.Errorf("backgrounds: %w", err)
			}
		}
		out = append(out, plates...)
	}
	return out, nil
}

// plates cuts the frames of a camera into stretches of time, a plate each.
func (p *Pack) plates(ctx context.Context, camera string, frames []int) ([]Background, error) {
	n := min(mostBackgrounds, len(frames)/leastPlateFrames)
	var out []Background
	for k := range n {
		stretch := frames[k*len(frames)/n : (k+1)*len(frames)/n]
		use := min(mostPlateFrames, len(stretch))
		var list []Frame
		for i := range use {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			picture, mask, err := p.Read(stretch[i*len(stretch)/use])
			if err != nil {
				return nil, err
			}
			if len(list) > 0 && (picture.Width != list[0].Picture.Width || picture.Height != list[0].Picture.Height) {
				continue // the camera was set to another size
			}
			list = append(list, Frame{picture, mask})
		}
		if len(list) < leastPlateFrames {
			continue
		}
		b, err := Plate(camera, list)
		if err != nil {
			return nil, err
		}
		if b.Seen >= leastSeen {
			out = append(out, *b)
		}
	}
	return out, nil
}

// flattened takes single frames spread over the time, each without its own object.
func (p *Pack) flattened(ctx context.Context, camera string, frames []int) ([]Background, error) {
	var masked []int
	for _, i := range frames {
		if p.Samples[i].MaskBytes > 0 {
			masked = append(masked, i)
		}
	}
	n := min(mostBackgrounds, len(masked))
	var out []Background
	for k := range n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		picture, mask, err := p.Read(masked[k*len(masked)/n])
		if err != nil {
			return nil, err
		}
		covered := 0
		for _, m := range mask {
			covered += int(m >> 7)
		}
		out = append(out, Background{
			Camera: camera, Picture: picture.FlattenObject(mask), Frames: 1, Seen: 1 - float64(covered)/float64(len(mask)),
		})
	}
	return out, nil
}
