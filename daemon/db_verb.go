package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/seed-a98b2d25/fovea/store"
)

type dbVerb struct {
	Check   dbCheckVerb   `cmd:"" help:"Read the databases through: are they whole?"`
	Compact dbCompactVerb `cmd:"" help:"Write samples.db anew, without the pages that are free."`
}

type dbCheckVerb struct {
	samplesOf
	JSON  bool     `help:"As JSON, one line a file."`
	Files []string `arg:"" optional:"" placeholder:"FILE" help:"Databases that no daemon has open; default: those of the daemon's state folder, copied while it runs."`
}

func (dbCheckVerb) Help() string {
	return `Checks the pages, the checksum and form of every record, and that sums add up. The daemon does so at each start:
a damaged file is set aside as FILE.corrupt-TIME and a new one begun.

  fovea db check
  fovea db check /var/lib/fovea/samples.db.corrupt-20261124T120000Z`
}

func (v dbCheckVerb) Run(ctx context.Context, out io.Writer) error {
	if len(v.Files) == 1 && v.JSON { // also the child of checkInChild: what it reads may end it
		return printJSON(out, verdictOf(v.Files[0], store.CheckFile(v.Files[0])))
	}
	results, err := v.results(ctx)
	if err != nil {
		return err
	}
	bad := 0
	for _, r := range results {
		if r.Verdict != "sound" {
			bad++
		}
		switch {
		case v.JSON:
			if err := printJSON(out, r); err != nil {
				return err
			}
		case r.Problem != "":
			fmt.Fprintf(out, "%s: %s: %s\n", r.File, r.Verdict, r.Problem)
		default:
			fmt.Fprintf(out, "%s: %s\n", r.File, r.Verdict)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d files are not sound", bad, len(results))
	}
	return nil
}

func (v dbCheckVerb) results(ctx context.Context) ([]checked, error) {
	if v.Files == nil {
		config, err := loadConfig(v.Config)
		if err != nil {
			return nil, err
		}
		c, err := dialDaemon(config)
		if err != nil {
			return nil, err
		}
		if c != nil {
			defer c.close()
			var all []checked
			err := c.do(ctx, http.MethodPost, "/api/db/check", nil, decodeTo(&all))
			return all, err
		}
		for _, name := range storeFiles {
			v.Files = append(v.Files, filepath.Join(config.StateDir, name))
		}
	}
	var all []checked
	for _, file := range v.Files {
		if _, err := os.Stat(file); err != nil {
			return nil, err
		}
		all = append(all, verdictOf(file, checkInChild(ctx, file)))
	}
	return all, nil
}

// checking ends the name of a copy that is being checked; a purge removes it, and the next start.
const checking = ".checking"

var storeFiles = []string{"state.db", "samples.db"}

// checkStore checks the open databases: a copy of each, in a child process.
func (d *daemon) checkStore(ctx context.Context) []checked {
	config, _ := d.configs.get()
	var all []checked
	for _, name := range storeFiles {
		file := filepath.Join(config.StateDir, name)
		all = append(all, verdictOf(file, d.checkCopy(ctx, file)))
	}
	return all
}

func (d *daemon) checkCopy(ctx context.Context, file string) error {
	if d.store == nil {
		return errors.New("the daemon could not open its store")
	}
	copied := file + checking
	err := d.store.Copy(filepath.Base(file), copied)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("it is being checked already")
	}
	if err != nil {
		return err
	}
	return errors.Join(checkInChild(ctx, copied), os.Remove(copied))
}

type dbCompactVerb struct{ samplesOf }

func (dbCompactVerb) Help() string {
	return `Needs room for a second file meanwhile. Pixels of dropped samples are gone afterwards, from
the maps of versions and the pack of the live one too: both are deleted, and an adaptation that runs is ended.`
}

func (v dbCompactVerb) Run(ctx context.Context, out io.Writer) error {
	c, err := v.dial(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	var size struct{ Before, After int64 }
	if err := c.do(ctx, http.MethodPost, "/api/db/compact", nil, decodeTo(&size)); err != nil {
		return err
	}
	fmt.Fprintf(out, "samples.db: %.1f MB -> %.1f MB\n", float64(size.Before)/1e6, float64(size.After)/1e6)
	return nil
}
