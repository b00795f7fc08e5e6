package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/model"
	"github.com/seed-a98b2d25/fovea/store"
)

// models are the versions of this device's model; nil without a store.
func (d *daemon) models() *store.Models {
	if d.store == nil {
		return nil
	}
	return d.store.State.Models
}

// living returns what is to be served of a configured base: the newest promoted model whose weights are whole, else
// the last good one, else the base itself. The base's weights are kept beside the others.
func (d *daemon) living(base *model.Checkpoint) (*model.Checkpoint, store.Receipt, error) {
	models := d.models()
	if models == nil {
		return base, store.Receipt{}, nil
	}
	first, err := d.keepBase(models, base)
	if err != nil {
		return nil, store.Receipt{}, err
	}
	standing := models.Standing()
	for _, sha := range []string{standing.Active, standing.LastGood()} {
		if sha == first.SHA256 {
			break
		}
		checkpoint, receipt, err := readVersion(models, base, sha)
		if err == nil {
			d.problems.set("lineage", "")
			return checkpoint, receipt, nil
		}
		d.log.Error("an adapted model cannot be used", "sha256", sha, "error", err)
		d.problems.set("lineage", fmt.Sprintf("an adapted model cannot be used, an older one goes on: %v", err))
	}
	return base, first, nil
}

// keepBase makes the configured model the base. Another one than before is a new beginning.
func (d *daemon) keepBase(models *store.Models, base *model.Checkpoint) (store.Receipt, error) {
	digest := base.Digest()
	if known, err := models.Get(models.Standing().Base); err == nil && known.Digest == digest {
		return known, nil
	}
	receipt, err := addModel(models, base, store.Receipt{Digest: digest})
	if err == nil {
		err = models.SetBase(receipt.SHA256)
	}
	return receipt, err
}

// addModel keeps the weights of a checkpoint.
func addModel(models *store.Models, c *model.Checkpoint, receipt store.Receipt) (store.Receipt, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.WriteWeights(w)) }()
	kept, err := models.Add(r, receipt)
	r.Close()
	return kept, err
}

// readVersion reads a kept model whose weights are whole and are those that its receipt was written for.
func readVersion(models *store.Models, base *model.Checkpoint, sha string) (*model.Checkpoint, store.Receipt, error) {
	receipt, err := models.Get(sha)
	if err != nil {
		return nil, receipt, err
	}
	if err := models.Verify(sha); err != nil {
		return nil, receipt, err
	}
	c, err := base.WithWeights(models.File(sha))
	if err != nil {
		return nil, receipt, err
	}
	if receipt.Digest != "" && c.Digest() != receipt.Digest {
		return nil, receipt, fmt.Errorf("model %d: its weights are not those of its receipt", receipt.Number)
	}
	return c, receipt, nil
}

// loadVersion returns a warmed net of a kept model.
func (d *daemon) loadVersion(ctx context.Context, sha string) (*served, error) {
	config, _ := d.configs.get()
	base, err := model.Load(config.Model.Dir)
	if err != nil {
		return nil, err
	}
	c, receipt, err := readVersion(d.models(), base, sha)
	if err != nil {
		return nil, err
	}
	return d.warm(ctx, config.Model, c, receipt)
}

// lineage is what the status says of the live version beside its weights.
func (d *daemon) lineage(live *served, h *fleet.Model) {
	models := d.models()
	if models == nil {
		return
	}
	receipt, err := models.Get(live.sha)
	if err != nil {
		return
	}
	h.PromotedAt = receipt.Promoted
	if parent, err := models.Get(receipt.Parent); err == nil {
		h.Parent = &parent.Number
	}
	h.Probation = models.Standing().Probation.State
	if figures := live.figures; figures != nil {
		h.LabelledSwapAccuracy = figures.LabelledSwap.Candidate
		h.SwapConsistency = figures.Follow.Candidate
		h.SwapPairs = int64(figures.Follow.Pictures)
		h.Agreement = figures.AgreementParent
	}
}

// versionDetails is what the receipt of a model keeps of how it came about.
type versionDetails struct {
	Report *adapt.RunReport `json:"report"`
}

func figuresOf(r store.Receipt) *adapt.Comparison {
	var details versionDetails
	if r.Details == nil || json.Unmarshal(r.Details, &details) != nil || details.Report == nil {
		return nil
	}
	return details.Report.Figures
}

// record appends an event of the model's life to the chained record.
func (d *daemon) record(r adapt.Receipt) {
	text, err := encodeReceipt(r)
	if err == nil {
		_, err = d.store.State.AppendVerdict(text)
	}
	if err != nil {
		d.log.Error("not recorded", "event", r.Event, "error", err)
		d.problems.set("record", "what became of an adaptation could not be recorded: "+err.Error())
	}
}

func encodeReceipt(r adapt.Receipt) (json.RawMessage, error) {
	r.Time = time.Now().UTC()
	return r.Encode()
}

var errNoStore = errors.New("there is no store: what is wrong with it stands in the status")
