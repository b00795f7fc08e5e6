package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// pageTypes finds the pages of each type as bbolt marks them: meta, freelist, branch, leaf, free.
func pageTypes(t *testing.T, file string) map[string][]int {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	must(t, err)
	defer db.Close()
	found := map[string][]int{}
	must(t, db.View(func(tx *bbolt.Tx) error {
		for id := 0; ; id++ {
			page, err := tx.Page(id)
			if err != nil || page == nil {
				return err
			}
			found[page.Type] = append(found[page.Type], id)
			id += page.OverflowCount
		}
	}))
	return found
}

// TestDamage flips bytes in every page type of both files, cuts them off and empties them: each time what can
// be told is told, the file set aside, a new one begun, and the live model is kept.
func TestDamage(t *testing.T) {
	whole := t.TempDir()
	s := open(t, whole)
	_, good, trial := history(t, s)
	r := rand.New(rand.NewPCG(1, 1))
	marked := sample(r, "door", noon.Add(-time.Hour), 9000)
	put(t, s, marked)
	for i := range 59 {
		put(t, s, sample(r, "door", noon.Add(time.Duration(i)*time.Hour), 3000+i*300))
		must(t, s.State.Commands.Save(fmt.Sprint("id-", i), picture(r, 600)))
		must(t, s.State.Queue.Push(picture(r, 700)))
		_, err := s.State.AppendVerdict(json.RawMessage(fmt.Sprintf(`{"n":%d}`, i)))
		must(t, err)
	}
	must(t, s.Samples.Drop(3, 4, 5)) // so that there are free pages
	must(t, s.Close())

	for _, name := range []string{"state.db", "samples.db"} {
		file := filepath.Join(whole, name)
		types := pageTypes(t, file)
		wanted := []string{"meta", "freelist", "branch", "leaf"}
		for _, kind := range wanted {
			if len(types[kind]) == 0 {
				t.Fatalf("%s has no page of type %s: %v", name, kind, types)
			}
			pages := types[kind]
			for _, page := range []int{pages[0], pages[len(pages)/2], pages[len(pages)-1]} {
				harm(t, whole, name, fmt.Sprintf("%s page %d", kind, page), trial.SHA256, kind == "meta", func(data []byte) []byte {
					for i := 0; i < 4096; i += 97 { // header, elements and content
						data[page*os.Getpagesize()+i] ^= 0x55
					}
					return data
				})
			}
		}
		harm(t, whole, name, "both meta pages", trial.SHA256, false, func(data []byte) []byte {
			for i := range 2 * os.Getpagesize() {
				data[i] ^= 0xff
			}
			return data
		})
		harm(t, whole, name, "cut off", trial.SHA256, false, func(data []byte) []byte { return data[:5*os.Getpagesize()] })
		harm(t, whole, name, "cut off within a page", trial.SHA256, false, func(data []byte) []byte { return data[:7000] })
		harm(t, whole, name, "empty", trial.SHA256, false, func([]byte) []byte { return []byte{} })
		harm(t, whole, name, "something else", trial.SHA256, false, func(data []byte) []byte { return []byte(strings.Repeat("no database ", 3000)) })
	}
	harm(t, whole, "samples.db", "one bit of a picture", trial.SHA256, false, func(data []byte) []byte {
		at := strings.Index(string(data), string(marked.JPEG[3000:3100]))
		if at < 0 {
			t.Fatal("not found")
		}
		data[at+50] ^= 1
		return data
	})
	harm(t, whole, "state.db", "the live model's name", trial.SHA256, false, func(data []byte) []byte {
		text := strings.ReplaceAll(string(data), `"active":"`+trial.SHA256, `"active":"`+good.SHA256)
		if text == string(data) {
			t.Fatal("not found")
		}
		return []byte(text)
	})
}

// harm opens a copy of a folder with one file changed. may says that the file may pass as whole: one of two
// meta pages is enough for it, and the other may tell of the state before the last commit.
func harm(t *testing.T, whole, name, what, live string, may bool, change func([]byte) []byte) {
	t.Run(name+" "+what, func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.CopyFS(dir, os.DirFS(whole)))
		file := filepath.Join(dir, name)
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, change(data), 0o600))
		s := openChecked(t, dir)
		aside, err := filepath.Glob(file + ".corrupt-*")
		must(t, err)
		if (len(aside) != 1 || len(s.Alarms) == 0) && !(may && aside == nil && len(s.Alarms) == 0) {
			t.Fatalf("set aside %q, alarms %q", aside, s.Alarms)
		}
		if got := s.State.Models.Standing().Active; got != live {
			t.Errorf("live is %.8s, want %.8s", got, live)
		}
		if name == "state.db" && aside != nil && s.State.Commands.LostAt().IsZero() {
			t.Error("the commands are not said to be lost")
		}
		if n := s.Samples.Summary().Samples; name == "state.db" && n != 57 {
			t.Errorf("%d samples of the other file are left", n)
		}
		put(t, s, sample(rand.New(rand.NewPCG(1, 1)), "door", noon, 3000))
		must(t, s.State.Queue.Push([]byte("it goes on")))
		again := reopen(t, s, dir)
		if len(again.Alarms) > 0 {
			t.Errorf("alarms after a second start: %q", again.Alarms)
		}
	})
}

// TestTooNew: a file that only a newer version can read is set aside whole, and taken back later.
func TestTooNew(t *testing.T) {
	for _, name := range []string{"state.db", "samples.db"} {
		dir := t.TempDir()
		s := open(t, dir)
		_, _, trial := history(t, s)
		seq := put(t, s, sample(rand.New(rand.NewPCG(1, 1)), "door", noon, 3000))
		must(t, s.Close())
		file := filepath.Join(dir, name)
		setFormat(t, file, format{Version: 3, MinReader: 2})
		s = openChecked(t, dir)
		aside, err := filepath.Glob(file + ".newer-*")
		if err != nil || len(aside) != 1 || len(s.Alarms) == 0 || s.State.Models.Standing().Active != trial.SHA256 {
			t.Fatalf("%s: aside %q, alarms %q, %v", name, aside, s.Alarms, err)
		}
		must(t, s.Close())
		must(t, os.Rename(aside[0], file))
		setFormat(t, file, format{Version: 3, MinReader: 1}) // additions alone
		s = openChecked(t, dir)
		if _, err := s.Samples.Get(seq); err != nil || len(s.Alarms) > 0 {
			t.Errorf("%s taken back: %v, alarms %q", name, err, s.Alarms)
		}
		must(t, s.Close())
	}
}

func setFormat(t *testing.T, file string, f format) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error { return putJSON(tx.Bucket(formatBucket), formatKey, f) }))
	must(t, db.Close())
}

// TestSeal: any changed byte of a record is noticed, in key or value.
func TestSeal(t *testing.T) {
	key, sealed := []byte("key"), seal([]byte("key"), []byte("value"))
	for i := range sealed {
		bad := append([]byte{}, sealed...)
		bad[i] ^= 4
		if _, err := unseal(key, bad); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	if _, err := unseal([]byte("kez"), sealed); err == nil {
		t.Error("another key passes")
	}
	if got, err := unseal(key, sealed); err != nil || string(got) != "value" {
		t.Error(string(got), err)
	}
	if binary.BigEndian.Uint32(seal(nil, []byte("123456789"))[9:]) != 0xe3069283 { // RFC 3720, B.4
		t.Error("not CRC-32C")
	}
}
