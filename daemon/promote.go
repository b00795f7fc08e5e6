package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-a98b2d25/fovea/adapt"
	"github.com/seed-a98b2d25/fovea/fleet"
	"github.com/seed-a98b2d25/fovea/store"
)

// candidate keeps what the gate let pass, and makes it live, or lets it wait for approval.
func (d *daemon) candidate(ctx context.Context, config *Config, weights string, verdict adapt.Receipt, standing store.Standing) (fleet.AdaptResult, error) {
	details, err := json.Marshal(versionDetails{Report: verdict.Report})
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	models := d.models()
	receipt, err := models.AddFile(weights, store.Receipt{Digest: verdict.Model, Parent: standing.Active, Details: details})
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	if err := d.keepMaps(config, filepath.Join(filepath.Dir(weights), mapsDir), receipt.SHA256); err != nil {
		d.log.Warn("no maps of the new model", "error", err)
	}
	if _, err := models.Prune(int64(config.Adapt.KeepMegabytes) << 20); err != nil {
		d.log.Warn("old weights stay", "error", err)
	}
	if config.Adapt.Approval == "manual" {
		d.record(verdict)
		if err := models.SetCandidate(receipt.SHA256); err != nil {
			return fleet.AdaptResult{}, err
		}
		return fleet.AdaptResult{Verdict: fleet.Waiting, Version: &receipt.Number, Reason: "waits for approval: " + verdict.Report.Verdict.Reason}, nil
	}
	return d.goLive(ctx, receipt, verdict)
}

// goLive warms a kept model beside the live one, commits the promotion, and hands the net over; the old one is its
// parent in the probation that begins.
func (d *daemon) goLive(ctx context.Context, receipt store.Receipt, verdict adapt.Receipt) (fleet.AdaptResult, error) {
	next, err := d.loadVersion(ctx, receipt.SHA256)
	if err != nil {
		return fleet.AdaptResult{}, fmt.Errorf("the candidate does not load: %w", err)
	}
	text, err := encodeReceipt(verdict)
	if err == nil {
		err = d.models().Promote(receipt.SHA256, text, nil)
	}
	if err != nil {
		next.close()
		return fleet.AdaptResult{}, err
	}
	config, _ := d.configs.get()
	next.probation = &probation{config: config.Adapt.Probation, parent: d.live.Load()}
	d.handOver(ctx, next)
	return fleet.AdaptResult{Verdict: fleet.Promoted, Version: &receipt.Number, Reason: verdict.Report.Verdict.Reason}, nil
}

// approve makes the candidate that waits live.
func (d *daemon) approve(ctx context.Context, o order) (fleet.AdaptResult, error) {
	models := d.models()
	receipt, err := models.Get(models.Standing().Candidate)
	switch {
	case err != nil:
		return fleet.AdaptResult{}, &fleet.Error{Code: fleet.Failed, Reason: "no candidate waits for approval"}
	case o.version != nil && *o.version != 0 && *o.version != receipt.Number:
		return fleet.AdaptResult{}, &fleet.Error{Code: fleet.Invalid, Field: "version", Reason: fmt.Sprintf("the candidate that waits is version %d", receipt.Number)}
	}
	var details versionDetails
	if err := json.Unmarshal(receipt.Details, &details); err != nil || details.Report == nil {
		return fleet.AdaptResult{}, fmt.Errorf("the receipt of version %d has no report", receipt.Number)
	}
	// The live model may be another than the one that it was compared with.
	if standing := models.Standing(); receipt.Parent != standing.Active {
		if err := models.SetCandidate(""); err != nil {
			return fleet.AdaptResult{}, err
		}
		return fleet.AdaptResult{}, &fleet.Error{Code: fleet.Failed, Reason: fmt.Sprintf("version %d was compared with another model than the live one: adapt again", receipt.Number)}
	}
	result, err := d.goLive(ctx, receipt, adapt.Receipt{Event: adapt.EventPromotion, Model: receipt.Digest, Reason: o.why, Report: details.Report})
	if err == nil {
		d.emit(fleet.Event{Type: fleet.AdaptPromoted, Command: o.command, Version: result.Version, Reason: o.why})
	}
	return result, err
}

// goBack makes an earlier model live on a person's word.
func (d *daemon) goBack(ctx context.Context, o order) (fleet.AdaptResult, error) {
	models := d.models()
	for _, r := range models.List() {
		if o.version != nil && r.Number == *o.version && r.SHA256 == models.Standing().Active {
			return fleet.AdaptResult{Version: &r.Number, Reason: "it is live already"}, nil
		}
	}
	to, err := models.Rollback(o.why)
	for err == nil && o.version != nil { // as far as asked
		receipt, getErr := models.Get(to)
		if getErr != nil || receipt.Number == *o.version {
			err = getErr
			break
		}
		to, err = models.Rollback(o.why)
	}
	if errors.Is(err, store.ErrNoEarlier) && to == "" {
		return fleet.AdaptResult{}, &fleet.Error{Code: fleet.Failed, Reason: "there is no earlier model to go back to"}
	}
	if err != nil && !errors.Is(err, store.ErrNoEarlier) {
		return fleet.AdaptResult{}, err
	}
	to = models.Standing().Active
	receipt, err := models.Get(to)
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	next, err := d.loadVersion(ctx, to)
	if err != nil {
		return fleet.AdaptResult{}, err
	}
	d.handOver(ctx, next)
	d.emit(fleet.Event{Type: fleet.RolledBack, Command: o.command, Version: &receipt.Number, Reason: o.why})
	return fleet.AdaptResult{Version: &receipt.Number, Reason: o.why}, nil
}

// endProbation commits what the inference goroutine has decided; after a tripwire the parent is live already.
func (d *daemon) endProbation(end probationEnd) {
	models := d.models()
	receipt, err := models.Get(end.sha)
	if err != nil || models.Standing().Active != end.sha {
		return // somebody went back meanwhile
	}
	if end.reason == "" {
		text, err := encodeReceipt(adapt.Receipt{Event: adapt.EventPassed, Model: receipt.Digest, Reason: "its probation found nothing"})
		if err == nil {
			err = models.PassProbation(text)
		}
		if err != nil {
			d.log.Error("a passed probation is not recorded", "error", err)
		}
		d.log.Info("probation passed", "version", receipt.Number)
		return
	}
	d.log.Error("rolled back", "version", receipt.Number, "reason", end.reason)
	to, err := models.Rollback("probation: " + end.reason)
	if err != nil {
		d.log.Error("the roll-back is not recorded; it happens again at the next start", "error", err)
		d.problems.set("lineage", "a roll-back could not be recorded: "+err.Error())
		return
	}
	if live, err := models.Get(to); err == nil {
		d.emit(fleet.Event{Type: fleet.RolledBack, Version: &live.Number, Reason: end.reason})
	}
}

// keepPack keeps the pack of a promoted candidate for replay, and no other: it holds pictures.
func (d *daemon) keepPack(config *Config, pack, digest string) error {
	dir := filepath.Join(config.StateDir, packsDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Rename(pack, filepath.Join(dir, digest+".pack"))
}
