package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"image/jpeg"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/capture"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// keeper finds the object in explained frames and keeps those that are worth learning from, in a goroutine of
// its own: inference hands over what it has and never waits.
type keeper struct {
	offers  chan offer     // capacity offerQueue; more are dropped and counted
	imports chan importJob // no buffer: the one who imports waits

	dropped    atomic.Uint64
	foreground atomic.Pointer[foregroundMean] // nil: not known yet
	ready      atomic.Int64                   // samples that could be trained on
}

// foregroundMean is a running mean of the share of relevance on the object.
type foregroundMean struct {
	model  string // digest
	share  float64
	frames int
}

// offerQueue is how many frames wait for their masks.
const offerQueue = 4

// offer is a frame with what the live net said of it.
type offer struct {
	watched *watched
	answer  *answer
	out     *model.Output // with Class and Features
	sight   *sight        // what was cut of it for a second look; nil where nothing was
}

const (
	sampleQuality = 92 // of a kept JPEG
	meanOver      = 50 // frames of the running mean of the foreground share

	// plainEvery is the least time between two frames of a camera with features where no relevance is computed.
	plainEvery = time.Second
)

func newKeeper() *keeper {
	return &keeper{offers: make(chan offer, offerQueue), imports: make(chan importJob)}
}

// offer hands a frame over; it never waits.
func (k *keeper) offer(o offer) {
	select {
	case k.offers <- o:
	default:
		k.dropped.Add(1)
	}
}

// keepSamples is the keeper's goroutine.
func (d *daemon) keepSamples(ctx context.Context) error {
	samples := d.samples()
	if samples == nil {
		return nil
	}
	eye := &eye{daemon: d}
	defer eye.close()
	aged := time.NewTicker(10 * time.Minute)
	defer aged.Stop()
	d.keeper.count(samples)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-aged.C:
			if time.Since(eye.asked) > time.Minute { // it was for an import, or the base is live again
				eye.close()
			}
			if timeSynced() {
				if err := samples.Age(time.Now()); err != nil {
					d.log.Error("old samples stay", "error", err)
				}
			}
		case o := <-d.keeper.offers:
			if err := d.keep(ctx, eye, samples, o); err != nil && ctx.Err() == nil {
				if d.problems.set("samples", err.Error()) {
					d.log.Error("a frame was not kept", "camera", o.watched.config.ID, "error", err)
				}
			}
		case job := <-d.keeper.imports:
			job.done <- d.takeIn(ctx, eye, samples, job.sample)
		}
	}
}

// count notes how many samples could be trained on.
func (k *keeper) count(samples *store.Samples) { k.ready.Store(int64(samples.Summary().Masks)) }

// keep looks for the object in a frame, notes where the model looked, and keeps the frame if it is worth it.
func (d *daemon) keep(ctx context.Context, eye *eye, samples *store.Samples, o offer) error {
	frame, net := o.answer.frame, o.answer.by.net
	seen, err := eye.see(ctx, frame, o.answer.by, o.out, o.sight)
	if err != nil || seen == nil {
		return err
	}
	var share *float64
	if seen.accepted && o.answer.overlay != nil && o.answer.overlay.relevance != nil {
		share = foregroundShare(o.answer.overlay, seen.mask, seen.view)
		d.keeper.note(net.Digest, share)
		o.watched.foreground.set(share)
	}

	config, _ := d.configs.get()
	c := store.Candidate{
		Camera: frame.Camera, Time: frame.Time.Round(0), Features: seen.features, Backbone: seen.backbone,
		Margin: 1, Relevance: share,
	}
	meta := store.Meta{
		Camera: c.Camera, Time: c.Time.UTC(), TimeSynced: timeSynced(), Width: frame.Width, Height: frame.Height, Margin: o.answer.margin,
		Relevance: share, Model: net.Digest, ModelVersion: o.answer.by.version, Backbone: seen.backbone, Mask: seen.facts(),
	}
	for _, g := range o.answer.guesses {
		meta.Scores = append(meta.Scores, store.Score{Label: g.Label, Score: g.Score})
	}
	if len(meta.Scores) > 0 {
		meta.Predicted = meta.Scores[0].Label
		c.Predicted, c.Margin = meta.Predicted, o.answer.margin
	}
	if frame.Quality != capture.OK {
		return nil
	}
	why, worth := config.Samples.taste().Judge(c, samples.Around(c))
	if !worth {
		return nil
	}
	meta.Why = string(why)
	picture, err := encodeFrame(frame)
	if err != nil {
		return err
	}
	if _, err := samples.Put(ctx, store.Sample{Meta: meta, JPEG: picture, MaskPixels: seen.pixels(), Features: seen.features}); err != nil {
		return fmt.Errorf("%w; is the disk full, or broken?", err)
	}
	d.problems.set("samples", "")
	d.keeper.count(samples)
	return nil
}

// note adds a frame to the running mean of a model's share of relevance on the object.
func (k *keeper) note(model string, share *float64) {
	if share == nil {
		return
	}
	next := foregroundMean{model: model}
	if mean := k.foreground.Load(); mean != nil && mean.model == model {
		next = *mean
	}
	next.frames = min(next.frames+1, meanOver)
	next.share += (*share - next.share) / float64(next.frames)
	k.foreground.Store(&next)
}

// foregroundOf is the running mean of a model; nil where it is not known.
func (k *keeper) foregroundOf(model string) *float64 {
	if mean := k.foreground.Load(); mean != nil && mean.model == model {
		return fleet.Known(mean.share)
	}
	return nil
}

// foregroundShare is the part of the relevance that lies on the mask, 0 to 1: sum(r m) / sum(r), where m is the
// part of each patch that the mask covers. nil where the model found nothing relevant, or the two do not look
// at the same part of the frame.
func foregroundShare(o *overlay, mask adapt.Mask, view [4]int) *float64 {
	if [4]int{o.view.Min.X, o.view.Min.Y, o.view.Max.X, o.view.Max.Y} != view {
		return nil
	}
	cover := mask.Cover(o.rows, o.cols)
	var on, all float64
	for i, r := range o.relevance {
		on += float64(r) * cover[i]
		all += float64(r)
	}
	if all == 0 || math.IsNaN(all) {
		return nil
	}
	share := on / all
	return &share
}

func encodeFrame(f capture.Frame) ([]byte, error) { return encodeJPEG(f.RGB, f.Width, f.Height) }

func encodeJPEG(rgb []byte, width, height int) ([]byte, error) {
	var out bytes.Buffer
	err := jpeg.Encode(&out, rgba(&adapt.Picture{Width: width, Height: height, RGB: rgb}), &jpeg.Options{Quality: sampleQuality})
	return out.Bytes(), err
}

// importJob is a sample from outside; done has capacity 1.
type importJob struct {
	sample store.Sample
	done   chan error
}

// importSample takes a sample from outside in and waits for it. Features, and a mask if it brings none, are
// made by the base.
func (d *daemon) importSample(ctx context.Context, sample store.Sample) error {
	job := importJob{sample, make(chan error, 1)}
	select {
	case d.keeper.imports <- job:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-job.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *daemon) takeIn(ctx context.Context, eye *eye, samples *store.Samples, sample store.Sample) error {
	picture, err := admit(samples, &sample)
	if err != nil {
		return err
	}
	if err := eye.load(ctx); err == nil && eye.base != nil {
		frame := capture.Frame{Camera: sample.Camera, Width: picture.Width, Height: picture.Height, RGB: picture.RGB}
		seen, err := eye.ask(frame)
		if err != nil {
			return err
		}
		sample.Features, sample.Backbone = seen.features, seen.backbone
		if sample.MaskPixels == nil {
			sample.Mask, sample.MaskPixels = seen.facts(), seen.pixels()
		}
	}
	_, err = samples.Put(ctx, sample)
	if err == nil {
		d.keeper.count(samples)
	}
	return err
}

// admit decodes the picture of an imported sample, or says why it is not taken.
func admit(samples *store.Samples, sample *store.Sample) (*adapt.Picture, error) {
	picture, err := adapt.DecodePicture(sample.JPEG)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if !bytes.HasPrefix(sample.JPEG, []byte{0xff, 0xd8}) {
		return nil, fmt.Errorf("%w: the picture is no JPEG", store.ErrInvalid)
	}
	sum := sha256.Sum256(sample.JPEG)
	digest := hex.EncodeToString(sum[:])
	if kept := samples.List(func(m *store.Meta) bool { return m.SHA256 == digest }); len(kept) > 0 {
		return nil, fmt.Errorf("%w as sample %d", errKeptAlready, kept[0].Seq)
	}
	sample.Width, sample.Height = picture.Width, picture.Height
	return picture, nil
}

var errKeptAlready = errors.New("this picture is kept already")

// taste is how frames are chosen.
func (c SamplesConfig) taste() store.Taste {
	return store.Taste{Apart: c.Apart, Novel: c.Novel, Margin: c.Margin, Relevance: c.Relevance, Rare: c.Rare, Every: c.Every}
}

// view of a mask in Meta's form, and its evidence.
func (s *sight) facts() *store.Mask {
	if s.mask.Evidence.Area == 0 {
		return nil
	}
	evidence, err := json.Marshal(s.mask.Evidence)
	if err != nil {
		evidence = nil // a number that is not finite: the quality is 0 then
	}
	return &store.Mask{Width: s.mask.Width, Height: s.mask.Height, View: s.view, Quality: s.mask.Quality, Accepted: s.accepted, Evidence: evidence}
}

func (s *sight) pixels() []byte {
	if s.mask.Evidence.Area == 0 {
		return nil
	}
	return slices.Clone(s.mask.Pixels)
}
