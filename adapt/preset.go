package adapt

import (
	"fmt"
	"math"

	"github.com/seed-a98b2d25/fovea/model"
)

// Target says what the cross-entropy pulls the logits towards.
type Target string

const (
	// TargetOwnGuess is the model's own first guess, as published. On a device's unlabelled frames it
	// collapses to one class by itself: for labelled sets alone.
	TargetOwnGuess Target = "own_guess"
	// TargetParent is the probabilities that the model gave before it was tuned.
	TargetParent Target = "parent"
	// TargetTwice is what the model said of a picture before it was tuned when it looked twice, at the whole and at the
	// object (LookAgain): one look learns what two know.
	TargetTwice Target = "twice"
)

// Settings are all that a run of fine-tuning depends on beside weights and pictures.
type Settings struct {
	Preset        string    `json:"preset"`
	Objective     Objective `json:"objective"`
	AdamW         AdamW     `json:"adamw"`
	Target        Target    `json:"target"`
	Rate          float64   `json:"rate"`            // of the first epoch
	Decay         float64   `json:"decay"`           // the rate is multiplied by it every DecayEpochs
	DecayEpochs   int       `json:"decay_epochs"`    //
	StepsPerEpoch int       `json:"steps_per_epoch"` // an epoch is counted in steps, whatever the number of pictures
	Steps         int       `json:"steps"`
	Batch         int       `json:"batch"`
	MicroBatch    int       `json:"micro_batch"`  // 0: the whole batch at once
	FreezeBelow   int       `json:"freeze_below"` // negative counts from the last block: -2 trains the last two
	Seed          uint64    `json:"seed"`
	// MinMask drops pictures whose mask covers a smaller share; published are 520 of 256 x 256 pixels.
	MinMask float64 `json:"min_mask"`
	// HalfNormalisation normalises every picture by mean and deviation .5, as the published program does for
	// every model; otherwise the checkpoint's own preprocessing counts.
	HalfNormalisation bool `json:"half_normalisation"`
	// Confidence is the probability of the target's first guess from which on a picture's relevance is tuned, and a
	// frame of a pack is used at all with TargetTwice; 0: of all.
	Confidence float64 `json:"confidence"`
	// GradientRatio bounds the norm of the cross-entropy's gradient to so many times the relevance's; 0 is no bound.
	GradientRatio float64 `json:"gradient_ratio"`
}

// publishedObjective are the weights of Chefer et al. 2022, section 4.
var publishedObjective = Objective{Relevance: .8, Background: 2, Foreground: .3, Classification: .2, Temperature: 1}

var publishedAdamW = AdamW{Beta1: .9, Beta2: .999, Epsilon: 1e-8, WeightDecay: 1e-4}

// Published is the published recipe: 50 epochs of 188 steps of 8 pictures, the learning rate of ViT-B.
// Preset gives the one of a model.
var Published = Settings{
	Preset: "published", Objective: publishedObjective, AdamW: publishedAdamW, Target: TargetOwnGuess,
	Rate: 3e-6, Decay: .85, DecayEpochs: 2, StepsPerEpoch: 188, Steps: 50 * 188, Batch: 8,
	MinMask: 520. / (256 * 256), HalfNormalisation: true,
}

// Device is the recipe for unlabelled frames of a camera: short, the last blocks alone, the frozen parent that looks
// twice as teacher, relevance only where the model is sure of what it explains.
var Device = Settings{
	Preset: "device", Objective: publishedObjective, AdamW: publishedAdamW, Target: TargetTwice,
	Rate: 1e-5, Decay: .85, DecayEpochs: 2, StepsPerEpoch: 30, Steps: 300, Batch: 8, MicroBatch: 2, FreezeBelow: -2,
	MinMask: 520. / (256 * 256), Confidence: .5, GradientRatio: 3,
}

// Preset returns the settings of that name for a model: "published" takes the learning rate and temperature
// that the paper's appendix gives the family.
func Preset(name string, k *model.Checkpoint) (Settings, error) {
	c := k.Config
	switch name {
	case Device.Preset:
		return Device, nil
	case Published.Preset:
		s := Published
		switch {
		case deit(k):
			s.Rate, s.Objective.Temperature = 8e-7, .65
			if c.Dim <= 384 {
				s.Rate, s.Objective.Temperature = 1e-6, .55
			}
		case c.Dim > 768:
			s.Rate = 9e-7
		case c.Dim <= 384: // AugReg S is the published model of this width
			s.Rate = 2e-6
		}
		return s, nil
	}
	return Settings{}, fmt.Errorf("preset %q: want %q or %q", name, Published.Preset, Device.Preset)
}

// deit tells DeiT from the ViTs of Google and AugReg, which have the same shape: it is normalised by the mean
// of ImageNet, they by one half. DINOv2, which has that mean too, has LayerScale.
func deit(k *model.Checkpoint) bool {
	return k.Config.Distilled || !k.Config.LayerScale && k.Preprocess.Mean[0] != .5
}

// RateAt is the learning rate of step n, from 0: Rate x Decay^(epoch / DecayEpochs).
func (s Settings) RateAt(n int) float64 {
	epoch := n / s.StepsPerEpoch
	return s.Rate * math.Pow(s.Decay, float64(epoch/s.DecayEpochs))
}
