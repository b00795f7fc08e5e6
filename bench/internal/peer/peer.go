// Package peer runs programs that are to be compared as child processes, one round at a time, so that they take
// turns in one run and drift of the machine meets them all.
package peer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// Peer is a child process that does one round for each line on its standard input and answers with a Result. Its
// first answer comes when it has loaded what it needs.
type Peer struct {
	Loaded Result

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// Result is one answer, a line of JSON.
type Result struct {
	Seconds float64   `json:"seconds"`
	Value   float64   `json:"value"`            // what all programs must agree on, a loss
	Values  []float64 `json:"values,omitempty"` // the same where it is several, logits
	Memory  int       `json:"memory"`           // KiB: resident once loaded, the peak since then after a round
}

// Start runs cmd and gives it its first line, a specification in JSON.
func Start(cmd *exec.Cmd, spec any) (*Peer, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Peer{cmd: cmd, in: in, out: bufio.NewReader(out)}
	p.Loaded, err = p.ask(string(text))
	return p, err
}

// Self is this program again, with other arguments.
func Self(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	return exec.Command(self, args...), err
}

// Round does one round.
func (p *Peer) Round() (Result, error) { return p.ask("round") }

// Stop ends the child.
func (p *Peer) Stop() {
	_ = p.in.Close()
	_ = p.cmd.Wait()
}

func (p *Peer) ask(line string) (Result, error) {
	var r Result
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return r, fmt.Errorf("the program ended: %w", err)
	}
	answer, err := p.out.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("the program ended: %w", err)
	}
	return r, json.Unmarshal(answer, &r)
}

// Serve is the child's side in Go: load is given the specification and returns one round.
func Serve[S any](load func(S) (round func() (Result, error), err error)) error {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	out := json.NewEncoder(os.Stdout)
	if !in.Scan() {
		return fmt.Errorf("no specification on standard input")
	}
	var spec S
	if err := json.Unmarshal(in.Bytes(), &spec); err != nil {
		return err
	}
	round, err := load(spec)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()                                                          // what loading left behind is not the model
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // the peak starts here
		return err
	}
	if err := out.Encode(Result{Memory: memory("VmRSS")}); err != nil {
		return err
	}
	for in.Scan() {
		r, err := round()
		if err != nil {
			return err
		}
		r.Memory = memory("VmHWM")
		if err := out.Encode(r); err != nil {
			return err
		}
	}
	return in.Err()
}

// memory reads a line of /proc/self/status, KiB.
func memory(field string) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// Median of a list that is not empty.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

// WriteFloats writes a file of raw little-endian float32, which every program reads alike.
func WriteFloats(file string, v []float32) error {
	raw, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o600)
}

// ReadFloats reads what WriteFloats wrote.
func ReadFloats(file string) ([]float32, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v := make([]float32, len(raw)/4)
	_, err = binary.Decode(raw, binary.LittleEndian, v)
	return v, err
}
