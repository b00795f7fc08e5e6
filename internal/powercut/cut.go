package powercut

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// How says what becomes of the things that are not durable when the power goes.
type How int

// The ways of a cut.
const (
	Kept    How = iota // all are there: what kill -9 leaves
	Dropped            // none is
	Torn               // each is there, or not, or a part of it
)

func (h How) String() string { return [...]string{"kept", "dropped", "torn"}[h] }

// sector is what a disk writes whole or not at all.
const sector = 512

// Cuts is how many moments there are: before the first thing that the program did, after each, and after the last.
func (r *Recording) Cuts() int { return len(r.ops) + 1 }

// Said returns the lines that the program printed before a cut, and those after it.
func (r *Recording) Said(cut int) (before, after []string) {
	for i, o := range r.ops {
		switch {
		case o.said == "":
		case i < cut:
			before = append(before, o.said)
		default:
			after = append(after, o.said)
		}
	}
	return before, after
}

// Saying returns the cuts after the lines that are wanted.
func (r *Recording) Saying(wanted func(line string) bool) (cuts []int) {
	for i, o := range r.ops {
		if o.said != "" && wanted(o.said) {
			cuts = append(cuts, i+1)
		}
	}
	return cuts
}

// Leave makes a folder, which must not exist, as a power cut leaves it. The seed decides what is kept of what is
// Torn.
func (r *Recording) Leave(folder string, cut int, how How, seed uint64) error {
	now := 0
	if cut > 0 {
		now = r.ops[cut-1].begin
	}
	random := rand.New(rand.NewPCG(seed, uint64(cut)))
	d := disk{files: map[*node][]byte{}, folders: map[*node]map[string]*node{}}
	for _, o := range r.ops[:cut] {
		whole := o.durable <= now || how == Kept
		torn := false
		if !whole && how == Torn {
			fate := random.IntN(3)
			whole, torn = fate == 0, fate == 1
		}
		switch {
		case whole, torn && len(o.names) > 0 && random.IntN(2) == 0:
			d.do(o, nil)
		case torn && o.data != nil:
			d.do(o, func() bool { return random.IntN(2) == 0 })
		}
	}
	return d.write(folder, r.root)
}

// disk is what lies on it.
type disk struct {
	files   map[*node][]byte
	folders map[*node]map[string]*node
}

// do does an op; keeps says of each sector of a write whether it was kept, nil: all were.
func (d disk) do(o op, keeps func() bool) {
	for _, c := range o.names {
		names := d.names(c.in)
		if c.node == nil {
			delete(names, c.name)
		} else {
			names[c.name] = c.node
		}
	}
	if o.file == nil {
		return
	}
	content, ours := d.files[o.file]
	if !ours {
		content = append([]byte{}, o.file.before...)
	}
	switch {
	case o.data != nil:
		for at := o.at; at < o.at+int64(len(o.data)); {
			next := min((at/sector+1)*sector, o.at+int64(len(o.data)))
			if keeps == nil || keeps() {
				content = grown(content, next)
				copy(content[at:], o.data[at-o.at:next-o.at])
			}
			at = next
		}
	case o.size < 0:
		content = grown(content, -o.size)
	default:
		content = grown(content[:min(int64(len(content)), o.size)], o.size)
	}
	d.files[o.file] = content
}

func (d disk) names(in *node) map[string]*node {
	names, ours := d.folders[in]
	if !ours {
		if names = maps.Clone(in.names); names == nil {
			names = map[string]*node{}
		}
		d.folders[in] = names
	}
	return names
}

// grown is content with at least size bytes.
func grown(content []byte, size int64) []byte {
	if over := size - int64(len(content)); over > 0 {
		content = append(content, make([]byte, over)...)
	}
	return content
}

func (d disk) write(path string, n *node) error {
	if !n.folder {
		content, ours := d.files[n]
		if !ours {
			content = n.before
		}
		return os.WriteFile(path, content, 0o600)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for name, child := range d.names(n) {
		if err := d.write(filepath.Join(path, name), child); err != nil {
			return err
		}
	}
	return nil
}
