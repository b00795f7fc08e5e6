package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// weightFiles are the open files of a checkpoint and what is in them.
type weightFiles struct {
	files   []*os.File
	tensors map[string]tensor
}

// openWeights reads the headers of model.safetensors, or of the shards that model.safetensors.index.json names.
func openWeights(dir string) (_ *weightFiles, err error) {
	w := &weightFiles{tensors: map[string]tensor{}}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	const single, index = "model.safetensors", "model.safetensors.index.json"
	err = w.open(dir, single)
	if !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	text, err := readText(filepath.Join(dir, index))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("neither %s nor %s is there; weights in another form (pytorch_model.bin, .npz) have to be saved as safetensors first", single, index)
	}
	if err != nil {
		return nil, err
	}
	names, err := readIndex(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", index, err)
	}
	shards := map[string]bool{}
	for _, shard := range names {
		shards[shard] = true
	}
	for _, shard := range slices.Sorted(maps.Keys(shards)) {
		if err := w.open(dir, shard); err != nil {
			return nil, err
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(names)) {
		if _, have := w.tensors[tensor]; !have {
			return nil, fmt.Errorf("%s: tensor %q is not in %s", index, tensor, names[tensor])
		}
	}
	return w, nil
}

// readIndex returns the shard of each tensor. A shard is a file of the folder itself, never a path.
func readIndex(text []byte) (map[string]string, error) {
	const maxShards = 256
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, err
	}
	if len(index.WeightMap) == 0 {
		return nil, errors.New("weight_map is empty")
	}
	shards := map[string]bool{}
	for _, tensor := range slices.Sorted(maps.Keys(index.WeightMap)) {
		shard := index.WeightMap[tensor]
		if shard != filepath.Base(shard) || !filepath.IsLocal(shard) || filepath.Ext(shard) != ".safetensors" {
			return nil, fmt.Errorf("tensor %q is said to lie in %q, want a .safetensors file of the same folder", tensor, shard)
		}
		if shards[shard] = true; len(shards) > maxShards {
			return nil, fmt.Errorf("more than %d shards", maxShards)
		}
	}
	return index.WeightMap, nil
}

// open adds the tensors of one file.
func (w *weightFiles) open(dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	w.files = append(w.files, f)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", name)
	}
	tensors, err := readHeader(f, info.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for tensor, t := range tensors {
		if _, twice := w.tensors[tensor]; twice {
			return fmt.Errorf("%s: tensor %q is in another shard too", name, tensor)
		}
		w.tensors[tensor] = t
	}
	return nil
}

// Close closes the files; their tensors cannot be read afterwards.
func (w *weightFiles) Close() {
	for _, f := range w.files {
		f.Close()
	}
}
