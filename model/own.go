package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Fovea's own model folder; docs/formats/model-folder.md is its page.
const (
	ownModelType = "fovea"
	ownVersion   = 1 // of what Save writes
	ownReads     = 1 // the newest that Load understands
)

type ownConfig struct {
	ModelType string `json:"model_type"`
	Version   int    `json:"version"`    // of the writer
	MinReader int    `json:"min_reader"` // the oldest reader that understands it
	Source    string `json:"source,omitempty"`
	Weights   string `json:"weights_sha256,omitempty"` // of model.safetensors, in hexadecimal; empty is not checked
	Config    Config `json:"config"`
}

// Save writes c as a model folder: model.safetensors with timm's names, preprocessor_config.json with
// Hugging Face's fields, and config.json last. Each file is written beside its place, synced and renamed. Where a
// folder is written over, a power cut between two of them leaves one that Load refuses: prefer a new folder.
func (c *Checkpoint) Save(dir string) error {
	if err := c.save(dir); err != nil {
		return fmt.Errorf("save model %s: %w", dir, err)
	}
	return nil
}

func (c *Checkpoint) save(dir string) error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	preprocess, err := writePreprocess(c.Preprocess)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name string, content func(io.Writer) error) error {
		f, err := renameio.NewPendingFile(filepath.Join(dir, name), renameio.WithPermissions(0o644))
		if err != nil {
			return err
		}
		defer f.Cleanup()
		if err := content(f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return f.CloseAtomicallyReplace()
	}
	text := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(append(b, '\n')); return err }
	}
	sum := sha256.New()
	if err := write("model.safetensors", func(w io.Writer) error {
		return writeSafetensors(io.MultiWriter(w, sum), c.stored())
	}); err != nil {
		return err
	}
	if err := write("preprocessor_config.json", text(preprocess)); err != nil {
		return err
	}
	config, err := json.MarshalIndent(ownConfig{ownModelType, ownVersion, 1, c.Source, hex.EncodeToString(sum.Sum(nil)), c.Config}, "", "  ")
	if err != nil {
		return err
	}
	if err := write("config.json", text(config)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the renames of a folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// stored gathers the parameters into the tensors of the file: parts of one tensor follow each other in Each.
func (c *Checkpoint) stored() []namedTensor {
	find := timmFind(c.Config)
	var list []namedTensor
	index := map[string]int{}
	c.Params.Each(c.Config, func(p Param, v *[]float32) {
		at := find(p.Name)
		i, have := index[at.tensor]
		if !have {
			i = len(list)
			index[at.tensor] = i
			shape := append([]int(nil), p.Shape...)
			if at.of > 0 {
				shape[0] = at.of
			}
			list = append(list, namedTensor{name: at.tensor, shape: shape})
		}
		list[i].parts = append(list[i].parts, *v)
	})
	return list
}

// ownLayout reads the config.json that Save writes.
func ownLayout(text []byte, _ map[string]tensor) (layout, error) {
	var own ownConfig
	if err := json.Unmarshal(text, &own); err != nil {
		return layout{}, err
	}
	if own.MinReader > ownReads {
		return layout{}, fmt.Errorf("the folder needs a reader of version %d and this Fovea is one of version %d: install a newer one", own.MinReader, ownReads)
	}
	if own.MinReader < 1 {
		return layout{}, fmt.Errorf("min_reader is %d, want 1 or more", own.MinReader)
	}
	return layout{config: own.Config, find: timmFind(own.Config), source: own.Source, sha256: own.Weights}, nil
}

// checkSum refuses weights that are not those which config.json was written with.
func checkSum(f *os.File, want string) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return err
	}
	if hex.EncodeToString(sum.Sum(nil)) != want {
		return errors.New("model.safetensors is not the file that config.json was written with: copy the folder again, " +
			`or, if you changed the weights on purpose, take "weights_sha256" out of config.json`)
	}
	return nil
}
