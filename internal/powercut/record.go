// Package powercut records what a real program writes into a folder and makes the folder as a power cut would have
// left it at any moment of that: what was synced is there, anything else may be there, be missing, or be torn.
//
// The disk that is assumed keeps no more than POSIX asks for. A write is durable from the end of the first fsync or
// fdatasync of its file that began after it; a name (made, renamed, removed) from that of an fsync of its folder. What is
// not durable yet is lost or kept each by itself, in any order, a write by sectors of 512 bytes; a rename happens or not.
package powercut

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Recording is what a program did to a folder, and what it said meanwhile.
type Recording struct {
	root  *node
	ops   []op   // in the order in which they began
	syncs []sync // in the order in which they ended
	lines int    // of the trace
}

// node is a file or a folder, whatever its names are.
type node struct {
	folder bool
	before []byte           // of a file, when the recording began
	names  map[string]*node // of a folder, when the recording began
	live   map[string]*node // and while it is read
}

// op is one thing that was done, or said.
type op struct {
	begin, end int // lines of the trace
	durable    int // the line from which on it outlives a power cut; never: the end of the trace

	file *node // a write: data at offset; data nil: size alone
	at   int64
	data []byte
	size int64 // of the file from then on, where data is nil; negative: at least that much

	names []naming // made, renamed or removed

	said string // a line on stdout
}

// naming gives a name in a folder to a node; nil takes it away.
type naming struct {
	in   *node
	name string
	node *node
}

// calls are what changes a file, a folder or a name; of the last line none may touch the folder, since they are not
// understood here.
var calls = "openat,write,pwrite64,ftruncate,fallocate,lseek,fsync,fdatasync,mkdirat,renameat,unlinkat," +
	"open,creat,mkdir,rename,renameat2,unlink,rmdir,link,linkat,symlink,symlinkat,truncate,writev,pwritev,pwritev2,sendfile,splice,copy_file_range,mmap"

// sync is an fsync or fdatasync.
type sync struct {
	call       string
	node       *node
	begin, end int
}

// Record runs a command under strace and returns what it and its children did to the folder, which must exist. It fails
// where the command does.
func Record(t testing.TB, folder string, command *exec.Cmd) *Recording {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("%v; install strace", err)
	}
	dir := t.TempDir()
	trace, said := filepath.Join(dir, "trace"), filepath.Join(dir, "said")
	stdout, err := os.Create(said)
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	command.Stdout = stdout
	r := &reader{t: t, folder: folder, stdout: said, Recording: &Recording{root: &node{folder: true, names: map[string]*node{}, live: map[string]*node{}}}, offsets: map[string]int64{}, unfinished: map[string]unfinished{}}
	r.above = &node{folder: true, live: map[string]*node{}}
	r.load(folder, r.root)
	args := []string{strace, "-f", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", "signal=none", "-e", "trace=" + calls, "-o", trace}
	command.Args = append(append(args, command.Path), command.Args[1:]...)
	command.Path = strace
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r.read(f)
	return r.Recording
}

// reader makes a recording of a trace.
type reader struct {
	*Recording
	t          testing.TB
	folder     string
	stdout     string
	above      *node // of all files outside of the folder
	line       int
	offsets    map[string]int64 // of open files: number and path
	unfinished map[string]unfinished
	text       string // said, before its newline
}

// unfinished is a call that another thread's cut in two.
type unfinished struct {
	text  string
	begin int
}

// load notes what is there before.
func (r *reader) load(dir string, n *node) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		path, child := filepath.Join(dir, e.Name()), &node{}
		switch {
		case e.IsDir():
			child = &node{folder: true, names: map[string]*node{}, live: map[string]*node{}}
			r.load(path, child)
		case e.Type().IsRegular():
			if child.before, err = os.ReadFile(path); err != nil {
				r.t.Fatal(err)
			}
		default:
			continue
		}
		n.names[e.Name()], n.live[e.Name()] = child, child
	}
}

// read understands the trace line by line, then says from when on each thing was durable.
func (r *reader) read(f io.Reader) {
	lines := bufio.NewReaderSize(f, 1<<20)
	for ; ; r.line++ {
		text, err := lines.ReadString('\n')
		if text == "" && err != nil {
			break
		}
		pid, rest, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
		rest = strings.TrimLeft(rest, " ")
		begin := r.line
		if first, cut := strings.CutSuffix(rest, " <unfinished ...>"); cut {
			r.unfinished[pid] = unfinished{first, r.line}
			continue
		}
		if strings.HasPrefix(rest, "<... ") {
			_, second, _ := strings.Cut(rest, " resumed>")
			first := r.unfinished[pid]
			rest, begin = first.text+second, first.begin
		}
		r.call(rest, begin)
	}
	r.lines = r.line
	slices.SortStableFunc(r.ops, func(a, b op) int { return a.begin - b.begin })
	r.ops = durable(r.ops, r.syncs, r.lines)
}

// Without is the recording as it were if a call, fsync or fdatasync, had done nothing.
func (r *Recording) Without(call string) *Recording {
	syncs := slices.DeleteFunc(slices.Clone(r.syncs), func(s sync) bool { return s.call == call })
	return &Recording{root: r.root, ops: durable(slices.Clone(r.ops), syncs, r.lines), syncs: syncs, lines: r.lines}
}

// durable fills in from when on each thing outlives a power cut.
func durable(ops []op, syncs []sync, never int) []op {
	for i := range ops {
		o := &ops[i]
		o.durable = never
		for _, s := range syncs {
			if s.begin > o.end && (s.node == o.file || len(o.names) > 0 && s.node == o.names[len(o.names)-1].in) {
				o.durable = s.end
				break
			}
		}
	}
	return ops
}

// call is one that has ended, such as: pwrite64(7</a/b>, "\x00\x01", 2, 4096) = 2
func (r *reader) call(text string, begin int) {
	head, result, ended := cutLast(text, " = ")
	name, list, isCall := strings.Cut(head, "(")
	if !ended || !isCall || strings.HasPrefix(result, "-1") || strings.HasPrefix(result, "?") {
		return
	}
	args := strings.Split(strings.TrimSuffix(strings.TrimRight(list, " "), ")"), ", ") // strings are in \x.., so no comma is theirs
	o := op{begin: begin, end: r.line}
	switch name {
	case "openat":
		r.open(o, args, result)
	case "write":
		if opened(args[0]) == r.stdout {
			r.say(o, unquote(args[1]))
			return
		}
		o.at = r.offsets[args[0]]
		o.data = []byte(unquote(args[1]))
		r.offsets[args[0]] += int64(len(o.data))
		r.write(o, args[0])
	case "pwrite64":
		o.at, o.data = number(args[3]), []byte(unquote(args[1]))
		r.write(o, args[0])
	case "ftruncate":
		o.size = number(args[1])
		r.write(o, args[0])
	case "fallocate":
		o.size = -(number(args[2]) + number(args[3]))
		r.write(o, args[0])
	case "lseek":
		r.offsets[args[0]] = number(result)
	case "fsync", "fdatasync":
		if path := opened(args[0]); path != "" {
			if in, last := r.find(path); in.live[last] != nil {
				r.syncs = append(r.syncs, sync{name, in.live[last], begin, r.line})
			} else if path == r.folder {
				r.syncs = append(r.syncs, sync{name, r.root, begin, r.line})
			}
		}
	case "mkdirat":
		in, last := r.find(named(args[0], args[1]))
		r.name(o, naming{in, last, &node{folder: true, live: map[string]*node{}}})
	case "unlinkat":
		in, last := r.find(named(args[0], args[1]))
		r.name(o, naming{in, last, nil})
	case "renameat":
		from, old := r.find(named(args[0], args[1]))
		to, last := r.find(named(args[2], args[3]))
		r.name(o, naming{from, old, nil}, naming{to, last, from.live[old]})
	default:
		if name == "mmap" && !(strings.Contains(list, "PROT_WRITE") && strings.Contains(list, "MAP_SHARED")) {
			return
		}
		for _, a := range args {
			if path := opened(a); r.within(path) || r.within(unquote(a)) {
				r.t.Fatalf("powercut: %s of %s is not understood", name, path)
			}
		}
	}
}

func (r *reader) open(o op, args []string, result string) {
	r.offsets[result] = 0
	path := named(args[0], args[1])
	in, last := r.find(path)
	file := in.live[last]
	switch {
	case file == nil && strings.Contains(args[2], "O_CREAT"):
		if !r.within(path) { // it may have been there before
			in.live[last] = &node{}
			return
		}
		r.name(o, naming{in, last, &node{}})
	case file != nil && strings.Contains(args[2], "O_TRUNC"):
		r.write(o, result)
	}
	if file != nil && strings.Contains(args[2], "O_APPEND") {
		r.t.Fatalf("powercut: appending to %s is not understood", path)
	}
}

// write notes a change of a file that is open.
func (r *reader) write(o op, fd string) {
	path := opened(fd)
	if path == "" || strings.HasSuffix(fd, "(deleted)") {
		return
	}
	in, last := r.find(path)
	if o.file = in.live[last]; o.file == nil {
		if r.within(path) {
			r.t.Fatalf("powercut: a write into %s, which nobody made", path)
		}
		return
	}
	r.ops = append(r.ops, o)
}

// name notes a change of names, and makes it.
func (r *reader) name(o op, changes ...naming) {
	for _, c := range changes {
		if c.node == nil {
			delete(c.in.live, c.name)
		} else {
			c.in.live[c.name] = c.node
		}
	}
	o.names = changes
	r.ops = append(r.ops, o)
}

func (r *reader) say(o op, text string) {
	r.text += text
	for {
		line, rest, whole := strings.Cut(r.text, "\n")
		if !whole {
			return
		}
		r.text = rest
		o.said = line
		r.ops = append(r.ops, o)
	}
}

func (r *reader) within(path string) bool {
	return path == r.folder || strings.HasPrefix(path, r.folder+"/")
}

// find returns the folder of a path and its last name. Folders elsewhere are one.
func (r *reader) find(path string) (*node, string) {
	rest, inside := strings.CutPrefix(path, r.folder+"/")
	if !inside {
		return r.above, path
	}
	in := r.root
	parts := strings.Split(filepath.Clean(rest), "/")
	for _, p := range parts[:len(parts)-1] {
		next := in.live[p]
		if next == nil || !next.folder {
			return r.above, path // of a call that failed
		}
		in = next
	}
	return in, parts[len(parts)-1]
}

// opened is the path of a descriptor such as 7<\x2f\x61>, "" for what is no file.
func opened(fd string) string {
	_, path, found := strings.Cut(fd, "<")
	if path, _, _ = strings.Cut(path, ">"); !found {
		return ""
	}
	if path = unquote(`"` + path + `"`); !filepath.IsAbs(path) {
		return ""
	}
	return path
}

// named is the path that a call names, relative to a folder's descriptor.
func named(fd, name string) string {
	if name = unquote(name); filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(opened(fd), name)
}

func unquote(s string) string {
	text, err := strconv.Unquote(s)
	if err != nil {
		return ""
	}
	return text
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 0, 64)
	return n
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
