package main

import (
	"fmt"
	"io"
	"path/filepath"
)

type tokenVerb struct {
	Config string `short:"c" help:"Configuration file (default: /etc/fovea/fovea.yaml)." placeholder:"FILE"`
}

func (tokenVerb) Help() string {
	return `The page asks for it when it is not on loopback, and every request that changes something needs it.
It is made at the first start and lies in the state folder, readable by its owner alone; to change it
delete that file and restart.

  fovea token
  curl -X POST -H "Authorization: Bearer $(fovea token)" http://127.0.0.1:8080/api/reload`
}

func (v tokenVerb) Run(out io.Writer) error {
	c, err := loadConfig(v.Config)
	if err != nil {
		return err
	}
	if err := makeStateDir(c.StateDir); err != nil {
		return err
	}
	token, err := secretFile(filepath.Join(c.StateDir, tokenFile))
	if err != nil {
		return fmt.Errorf("token: %w", err)
	}
	fmt.Fprintln(out, token)
	return nil
}
