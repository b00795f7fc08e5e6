package adapt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Labelled is a set of pictures whose class is known. Pictures of one object, or nearly the same picture
// twice, form a group: a group is never split between what is fitted on and what is judged on, else the
// judgement would only measure memory.
type Labelled struct {
	Dir      string
	Classes  []string // in the order of their names
	Pictures []LabelledPicture
	Bad      []BadPicture // what was left out; it never stops anything
}

// LabelledPicture is one picture of a Labelled.
type LabelledPicture struct {
	File   string // below Labelled.Dir, with slashes
	Class  int    // in Labelled.Classes
	Object string // name of the folder inside the class folder; "" directly in it
	SHA256 string // of the file, hex
	Mask   string // file whose bright pixels are the object, beside the picture as NAME.mask.png; "" for none
	Group  string // class/name, the same for every picture of a group; "" before Group
	Part   Part   // "" before Split

	hash uint64 // differenceHash, after Run
}

// Digest names the set with its classes, groups and parts: the SHA-256 over all that is known of every picture but
// the names of files, in hexadecimal. Of masks it tells that they are there, not what they show.
func (s *Labelled) Digest() string {
	lines := make([]string, 0, len(s.Pictures))
	for _, p := range s.Pictures {
		lines = append(lines, fmt.Sprintln(s.Classes[p.Class], p.Group, p.Part, p.SHA256, p.Mask != ""))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}

// Part says what a picture may be used for.
type Part string

// The parts of a set.
const (
	Fit    Part = "fit"    // anything may be fitted on it
	Accept Part = "accept" // kept apart for acceptance, for ever: no generation is fitted on it
)

// BadPicture is a file that was left out.
type BadPicture struct {
	File    string `json:"file"`
	Problem string `json:"problem"`
}

// ReadLabelled lists a folder of class folders:
//
//	cup/one.jpg               pictures directly in a class folder are grouped by Group
//	cup/blue/1.jpg, 2.jpg     pictures in a folder of their own show one object: one group
//	cup/one.mask.png          the object in cup/one.jpg, bright on dark; may be left out
//
// A folder that WriteTo left (with a manifest.json) is read with its groups and parts. Hidden files are
// skipped; files that are no jpg or png, and the same file in two classes, are named in Bad. The pictures
// are decoded later, by Run. An error means that there is nothing to learn from.
func ReadLabelled(dir string) (*Labelled, error) {
	if _, err := os.Stat(filepath.Join(dir, manifestName)); err == nil {
		return readManifest(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("labelled pictures: %w", err)
	}
	s := &Labelled{Dir: dir}
	for _, e := range entries {
		switch {
		case hidden(e.Name()):
		case isDir(dir, e.Name()):
			if err := s.readClass(e.Name()); err != nil {
				return nil, fmt.Errorf("labelled pictures: %w", err)
			}
		default:
			s.bad(e.Name(), "lies in no class folder")
		}
	}
	s.dropConflicts()
	if len(s.Pictures) == 0 {
		return nil, fmt.Errorf("labelled pictures: %s holds no picture: make a folder for each class and put its jpg or png files there", dir)
	}
	return s, nil
}

// readClass lists one class folder and the object folders in it. A class without pictures is left out.
func (s *Labelled) readClass(class string) error {
	before := len(s.Pictures)
	if err := s.readObject(class, ""); err != nil {
		return err
	}
	if len(s.Pictures) > before {
		s.Classes = append(s.Classes, class)
	} else {
		s.bad(class, "class folder without pictures")
	}
	return nil
}

func (s *Labelled) readObject(class, object string) error {
	at := path.Join(class, object)
	entries, err := os.ReadDir(s.at(at))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(at, e.Name())
		switch ext := strings.ToLower(path.Ext(name)); {
		case hidden(e.Name()) || strings.HasSuffix(name, maskSuffix):
		case isDir(s.Dir, name) && object == "":
			if err := s.readObject(class, e.Name()); err != nil {
				return err
			}
		case isDir(s.Dir, name):
			s.bad(name, "folder too deep: class/object/picture is the deepest")
		case ext != ".jpg" && ext != ".jpeg" && ext != ".png":
			s.bad(name, "no .jpg or .png")
		default:
			digest, err := hashFile(s.at(name))
			if err != nil {
				s.bad(name, err.Error())
				continue
			}
			p := LabelledPicture{File: name, Class: len(s.Classes), Object: object, SHA256: digest}
			if mask := strings.TrimSuffix(name, path.Ext(name)) + maskSuffix; fileExists(s.at(mask)) {
				p.Mask = mask
			}
			s.Pictures = append(s.Pictures, p)
		}
	}
	return nil
}

const maskSuffix = ".mask.png"

// dropConflicts leaves out files that lie, byte for byte, in two classes: one of the labels is wrong.
func (s *Labelled) dropConflicts() {
	first := map[string]*LabelledPicture{}
	conflict := map[string]string{}
	for i := range s.Pictures {
		p := &s.Pictures[i]
		if f := first[p.SHA256]; f == nil {
			first[p.SHA256] = p
		} else if f.Class != p.Class {
			conflict[p.SHA256] = f.File + " and " + p.File
		}
	}
	s.Pictures = slices.DeleteFunc(s.Pictures, func(p LabelledPicture) bool {
		both, is := conflict[p.SHA256]
		if is {
			s.bad(p.File, "the same picture has two labels: "+both)
		}
		return is
	})
}

func (s *Labelled) bad(file, problem string) { s.Bad = append(s.Bad, BadPicture{file, problem}) }

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

// isDir follows links.
func isDir(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name)))
	return err == nil && info.IsDir()
}

func fileExists(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

func hashFile(name string) (string, error) {
	switch info, err := os.Stat(name); { // before opening: a pipe would block
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("no regular file")
	case info.Size() > maxPictureBytes:
		return "", fmt.Errorf("larger than %d MiB", maxPictureBytes>>20)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
