package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/gomlx/go-huggingface/hub"
)

// hubReference is hf:ORG/NAME with an optional @REVISION, a branch, tag or commit.
var hubReference = regexp.MustCompile(`^hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*))?$`)

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Pull fetches a checkpoint from the Hugging Face hub, ref being hf:ORG/NAME or hf:ORG/NAME@REVISION, and
// writes it to dir as Save does. config.json is looked at before any weights are fetched; weights must have
// the checksum that the hub gives. progress, which may be nil, is told the bytes so far and in total, from
// another goroutine. The environment gives HF_TOKEN for models behind a licence, and HF_ENDPOINT for a mirror.
func Pull(ctx context.Context, ref, dir string, progress func(done, total int64)) (*Checkpoint, error) {
	c, err := pull(ctx, ref, dir, progress)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", ref, err)
	}
	return c, nil
}

func pull(ctx context.Context, ref, dir string, progress func(done, total int64)) (*Checkpoint, error) {
	name := hubReference.FindStringSubmatch(ref)
	if name == nil {
		return nil, errors.New("want hf:ORG/NAME or hf:ORG/NAME@REVISION, such as hf:facebook/dinov2-small")
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	cache, err := os.MkdirTemp(parent, ".pull-") // on the same disk as dir, and gone afterwards
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(cache)

	repo := hub.New(name[1]).WithCacheDir(cache).WithAuth(os.Getenv("HF_TOKEN"))
	repo.Verbosity = 0
	if name[2] != "" {
		repo.WithRevision(name[2])
	}
	if err := interruptible(ctx, func() error { return repo.DownloadInfo(true) }); err != nil {
		return nil, fmt.Errorf("%w (is the name right, is the hub reachable, does it need HF_TOKEN?)", err)
	}
	info := repo.Info()
	if !commitHash.MatchString(info.CommitHash) { // it becomes a path
		return nil, fmt.Errorf("the hub gives %q for a commit", info.CommitHash)
	}
	text, err := fetch(ctx, repo, "config.json")
	if err != nil {
		return nil, err
	}
	config, err := readText(text)
	if err != nil {
		return nil, err
	}
	if _, err := familyOf(config); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	files, err := weightsOf(ctx, repo)
	if err != nil {
		return nil, err
	}
	stop := watch(cache, files, progress)
	for _, f := range files {
		if err = fetchChecked(ctx, repo, f); err != nil {
			break
		}
	}
	stop()
	if err != nil {
		return nil, err
	}

	c, err := loadNative(filepath.Dir(text))
	if err != nil {
		return nil, err
	}
	c.Source = fmt.Sprintf("hf:%s@%s", name[1], info.CommitHash)
	if info.CardData != nil && info.CardData.License != "" {
		c.Source += ", " + info.CardData.License
	}
	return c, c.Save(dir)
}

// weightsOf lists the files that a checkpoint needs beside config.json, and fetches the index of shards.
func weightsOf(ctx context.Context, repo *hub.Repo) ([]*hub.FileInfo, error) {
	const single, index, preprocess = "model.safetensors", "model.safetensors.index.json", "preprocessor_config.json"
	there := map[string]*hub.FileInfo{}
	for _, f := range repo.Info().Siblings {
		there[f.Name] = f
	}
	var files []*hub.FileInfo
	if f := there[preprocess]; f != nil {
		files = append(files, f)
	}
	switch {
	case there[single] != nil:
		files = append(files, there[single])
	case there[index] != nil:
		path, err := fetch(ctx, repo, index)
		if err != nil {
			return nil, err
		}
		text, err := readText(path)
		if err != nil {
			return nil, err
		}
		names, err := readIndex(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", index, err)
		}
		listed := map[string]bool{}
		for _, shard := range names {
			if there[shard] == nil {
				return nil, fmt.Errorf("%s names %s, which is not there", index, shard)
			}
			if !listed[shard] {
				files = append(files, there[shard])
			}
			listed[shard] = true
		}
	default:
		return nil, fmt.Errorf("it has no %s: only weights in that form are read", single)
	}
	total := int64(0)
	for _, f := range files {
		if total += f.Size; f.Size < 0 || total > 4*maxParameters {
			return nil, fmt.Errorf("more than %d bytes of weights", int64(4*maxParameters))
		}
	}
	return files, nil
}

// fetch downloads one file of the repository and returns its path.
func fetch(ctx context.Context, repo *hub.Repo, name string) (path string, err error) {
	err = interruptible(ctx, func() error {
		var err error
		path, err = repo.DownloadFileCtx(ctx, name)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if _, err := os.Stat(path); err != nil { // the client takes a broken connection for an end
		return "", fmt.Errorf("%s: the connection broke: try again", name)
	}
	return path, nil
}

// fetchChecked downloads a file and compares it with the size and the checksum that the hub gives.
func fetchChecked(ctx context.Context, repo *hub.Repo, file *hub.FileInfo) error {
	path, err := fetch(ctx, repo, file.Name)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	if file.Size > 0 && n != file.Size {
		return fmt.Errorf("%s: %d bytes arrived, want %d: try again", file.Name, n, file.Size)
	}
	if file.LFS != nil && file.LFS.SHA256 != "" && !strings.EqualFold(file.LFS.SHA256, hex.EncodeToString(sum.Sum(nil))) {
		return fmt.Errorf("%s: its sha256 is %x, the hub says %s: try again", file.Name, sum.Sum(nil), file.LFS.SHA256)
	}
	return nil
}

// interruptible returns when ctx ends, whatever f does: the hub client waits for a silent server for ever.
func interruptible(ctx context.Context, f func() error) error {
	done := make(chan error, 1) // room for the answer that nobody waits for any more
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch reports the bytes that lie under cache until it is stopped; the hub client does not tell.
func watch(cache string, files []*hub.FileInfo, progress func(done, total int64)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	total := int64(0)
	for _, f := range files {
		total += f.Size
	}
	report := func() {
		done := int64(0)
		filepath.WalkDir(cache, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					done += info.Size()
				}
			}
			return nil
		})
		progress(min(done, total), total)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report()
			case <-end:
				report()
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}
