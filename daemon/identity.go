package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// deviceID is the configured id, else fovea- and 8 hexadecimal digits of the hashed machine id: the same at
// every start, and it does not give the machine id away.
func deviceID(c *Config) (string, error) {
	if c.Device.ID != "" {
		return c.Device.ID, nil
	}
	machine, err := os.ReadFile("/etc/machine-id")
	if err != nil || strings.TrimSpace(string(machine)) == "" { // a minimal container: a number of our own
		own, err := secretFile(filepath.Join(c.StateDir, "machine-id"))
		if err != nil {
			return "", err
		}
		machine = []byte(own)
	}
	sum := sha256.Sum256(append([]byte("fovea device "), strings.TrimSpace(string(machine))...))
	return "fovea-" + hex.EncodeToString(sum[:4]), nil
}

// secretFile returns the text in file, which the first call fills with 256 random bits and which only this
// user may read.
func secretFile(file string) (string, error) {
	secret, err := readSecret(file)
	if err == nil && secret == "" {
		err = fmt.Errorf("%s is empty: delete it, and a new one is made", file)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	bits := make([]byte, 32)
	rand.Read(bits) // never fails
	secret = base64.RawURLEncoding.EncodeToString(bits)
	if err := renameio.WriteFile(file, []byte(secret+"\n"), 0o600, renameio.IgnoreUmask()); err != nil {
		return "", fmt.Errorf("make a secret: %w", err)
	}
	if err := syncFile(filepath.Dir(file)); err != nil { // a person may have read it before the power goes
		return "", fmt.Errorf("make a secret: %w", err)
	}
	return secret, nil
}

// tokenFile holds the token of the page and its API, inside the state folder.
const tokenFile = "token"

// makeStateDir makes the state folder, readable by this user alone.
func makeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("state folder: %w; make it for this user, or name another in state_dir", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("state folder %s cannot be written: %w; give it to this user, or name another in state_dir", dir, err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}
