package adapt

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// LabelledDir is the folder of a model folder in which the labelled pictures of its head lie:
//
//	labelled/manifest.json
//	labelled/fit/cup/blue/1.jpg        part, class, group, picture
//	labelled/accept/cup/3fa9c01b77de/2.jpg
//
// docs/formats/labelled.md is its page.
const (
	LabelledDir  = "labelled"
	manifestName = "manifest.json"
)

const (
	manifestVersion = 1 // of what WriteTo writes
	manifestReads   = 1 // the newest that is understood
)

type manifest struct {
	Version   int               `json:"version"`
	MinReader int               `json:"min_reader"`
	Classes   []string          `json:"classes"`
	Pictures  []manifestPicture `json:"pictures"`
}

type manifestPicture struct {
	File   string `json:"file"` // below the manifest's folder, with slashes
	Class  string `json:"class"`
	Group  string `json:"group"`
	Part   Part   `json:"part"`
	SHA256 string `json:"sha256"`
	Mask   string `json:"mask,omitempty"`
}

// WriteTo copies the grouped and split pictures into dir, which must not exist, with a manifest.json as the
// last file, so that ReadLabelled gives the same set with the same parts. Every file is synced.
func (s *Labelled) WriteTo(dir string) error {
	m := manifest{Version: manifestVersion, MinReader: 1, Classes: s.Classes}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("write labelled pictures: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("write labelled pictures: %w", err)
	}
	for _, p := range s.Pictures {
		to := manifestPicture{
			File:  path.Join(string(p.Part), p.Group, path.Base(p.File)),
			Class: s.Classes[p.Class], Group: p.Group, Part: p.Part, SHA256: p.SHA256,
		}
		if err := copyFile(s.at(p.File), filepath.Join(dir, filepath.FromSlash(to.File))); err != nil {
			return fmt.Errorf("write labelled pictures: %w", err)
		}
		if p.Mask != "" {
			to.Mask = path.Join(string(p.Part), p.Group, path.Base(p.Mask))
			if err := copyFile(s.at(p.Mask), filepath.Join(dir, filepath.FromSlash(to.Mask))); err != nil {
				return fmt.Errorf("write labelled pictures: %w", err)
			}
		}
		m.Pictures = append(m.Pictures, to)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write labelled pictures: %w", err)
	}
	return writeSynced(filepath.Join(dir, manifestName), func(f io.Writer) error {
		_, err := f.Write(append(text, '\n'))
		return err
	})
}

// readManifest reads what WriteTo left. A picture that is gone or changed is an error and not one more bad
// picture: the set is part of a model, and what is judged on must not shrink unseen.
func readManifest(dir string) (*Labelled, error) {
	text, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, fmt.Errorf("labelled pictures: %w", err)
	}
	fail := func(format string, args ...any) (*Labelled, error) {
		return nil, fmt.Errorf("labelled pictures: %s: "+format, append([]any{filepath.Join(dir, manifestName)}, args...)...)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return fail("%w", err)
	}
	switch {
	case m.MinReader > manifestReads:
		return fail("needs a reader of version %d and this Fovea is one of version %d: install a newer one", m.MinReader, manifestReads)
	case m.MinReader < 1:
		return fail("min_reader is %d, want 1 or more", m.MinReader)
	case len(m.Pictures) == 0:
		return fail("names no picture")
	}
	s := &Labelled{Dir: dir, Classes: m.Classes}
	for i, p := range m.Pictures {
		class := slices.Index(m.Classes, p.Class)
		local := filepath.IsLocal(filepath.FromSlash(p.File)) && (p.Mask == "" || filepath.IsLocal(filepath.FromSlash(p.Mask)))
		switch {
		case !local:
			return fail("pictures[%d]: file %q leaves the folder", i, p.File)
		case class < 0:
			return fail("pictures[%d]: class %q is none of the classes", i, p.Class)
		case p.Part != Fit && p.Part != Accept:
			return fail("pictures[%d]: part %q, want %q or %q", i, p.Part, Fit, Accept)
		case !strings.HasPrefix(p.Group, p.Class+"/"):
			return fail("pictures[%d]: group %q is not of class %q", i, p.Group, p.Class)
		}
		digest, err := hashFile(s.at(p.File))
		if err != nil {
			return fail("pictures[%d]: %w", i, err)
		}
		if digest != p.SHA256 {
			return fail("pictures[%d]: %s was changed: its SHA-256 is %s, noted is %s", i, p.File, digest, p.SHA256)
		}
		s.Pictures = append(s.Pictures, LabelledPicture{
			File: p.File, Class: class, SHA256: p.SHA256, Mask: p.Mask, Group: p.Group, Part: p.Part,
			Object: strings.TrimPrefix(p.Group, p.Class+"/"),
		})
	}
	return s, nil
}

// at is the path of a file named with slashes below Dir.
func (s *Labelled) at(file string) string { return filepath.Join(s.Dir, filepath.FromSlash(file)) }

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return writeSynced(to, func(f io.Writer) error { _, err := io.Copy(f, in); return err })
}

// writeSynced writes a new file and syncs it.
func writeSynced(name string, content func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("two pictures of one group are called %s: %w", filepath.Base(name), err)
	}
	if err != nil {
		return err
	}
	if err := content(f); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
