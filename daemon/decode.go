package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// fault is one thing wrong in a configuration file.
type fault struct {
	line, column int    // from 1; 0 where the file does not have the key
	field        string // as in "cameras[0].source"; empty for the file as a whole
	problem      string // what is wrong and what to write instead
}

// configError is a configuration that cannot be used, with all that is wrong with it.
type configError struct {
	file   string
	faults []fault
}

func (e *configError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot be used, %d fault", e.file, len(e.faults))
	if len(e.faults) > 1 {
		b.WriteString("s")
	}
	b.WriteString(":")
	for _, f := range e.faults {
		fmt.Fprintf(&b, "\n  %s:", e.file)
		if f.line > 0 {
			fmt.Fprintf(&b, "%d:%d:", f.line, f.column)
		}
		if f.field != "" {
			fmt.Fprintf(&b, " %s:", f.field)
		}
		b.WriteString(" " + f.problem)
	}
	return b.String()
}

// decoder reads a YAML document into structs with yaml tags. Unlike the library's own decoding it goes on
// after a fault, so that all are told at once, and remembers where each key stands for the checks that follow.
type decoder struct {
	at      map[string]*token.Position // of each key and list item that the file has
	anchors map[string]ast.Node
	faults  []fault
}

// decode reads data over the values that into, a pointer to a struct, has already.
func decode(data []byte, into any) *decoder {
	d := &decoder{at: map[string]*token.Position{}, anchors: map[string]ast.Node{}}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		f := fault{problem: err.Error()}
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			f.problem = syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				f.line, f.column = t.Position.Line, t.Position.Column
			}
		}
		d.faults = append(d.faults, f)
		return d
	}
	for i, doc := range file.Docs {
		switch {
		case doc.Body == nil: // nothing but comments
		case i > 0:
			d.fault(doc.Body, "", "a second YAML document: write one, without ---")
		default:
			d.value(doc.Body, reflect.ValueOf(into).Elem(), "")
		}
	}
	return d
}

// position finds where a field stands, or the nearest key above it.
func (d *decoder) position(field string) (line, column int) {
	for field != "" {
		if p := d.at[field]; p != nil {
			return p.Line, p.Column
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return 0, 0
}

func (d *decoder) fault(n ast.Node, field, format string, args ...any) {
	p := n.GetToken().Position
	d.faults = append(d.faults, fault{p.Line, p.Column, field, fmt.Sprintf(format, args...)})
}

var durationType = reflect.TypeFor[time.Duration]()

func (d *decoder) value(n ast.Node, into reflect.Value, field string) {
	switch n := n.(type) {
	case *ast.AnchorNode:
		d.anchors[n.Name.GetToken().Value] = n.Value
		d.value(n.Value, into, field)
		return
	case *ast.AliasNode:
		if to := d.anchors[n.Value.GetToken().Value]; to != nil {
			d.value(to, into, field)
		} else {
			d.fault(n, field, "no anchor &%s stands before this", n.Value.GetToken().Value)
		}
		return
	case *ast.TagNode:
		d.fault(n, field, "tags such as %s are not used here", n.GetToken().Value)
		return
	case *ast.NullNode: // a key without a value keeps its default
		return
	}
	switch kind := into.Kind(); {
	case into.Type() == durationType:
		d.duration(n, into, field)
	case kind == reflect.Struct:
		d.mapping(n, field, func(key string, entry *ast.MappingValueNode) {
			if f, ok := fieldOf(into, key); ok {
				d.value(entry.Value, f, join(field, key))
			} else {
				d.fault(entry.Key, join(field, key), "unknown key%s", didYouMean(key, keysOf(into.Type())))
			}
		})
	case kind == reflect.Map:
		into.Set(reflect.MakeMap(into.Type()))
		d.mapping(n, field, func(key string, entry *ast.MappingValueNode) {
			v := reflect.New(into.Type().Elem()).Elem()
			d.value(entry.Value, v, join(field, key))
			into.SetMapIndex(reflect.ValueOf(key), v)
		})
	case kind == reflect.Slice:
		d.items(n, field, -1, func(items int) { into.Set(reflect.MakeSlice(into.Type(), items, items)) }, into.Index)
	case kind == reflect.Array:
		d.items(n, field, into.Len(), func(int) {}, into.Index)
	default:
		d.scalar(n, into, field)
	}
}

func (d *decoder) mapping(n ast.Node, field string, each func(key string, entry *ast.MappingValueNode)) {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode: // a mapping of one entry
		entries = []*ast.MappingValueNode{n}
	default:
		d.fault(n, field, "must be a group of keys, indented below it")
		return
	}
	for _, e := range entries {
		if e.Key.IsMergeKey() { // "<<: *name": the keys of another mapping
			merged := e.Value
			if alias, ok := merged.(*ast.AliasNode); ok {
				merged = d.anchors[alias.Value.GetToken().Value]
			}
			if merged == nil {
				d.fault(e.Value, field, "no anchor of this name stands before it")
			} else {
				d.mapping(merged, field, each)
			}
			continue
		}
		t := e.Key.GetToken()
		d.at[join(field, t.Value)] = t.Position
		each(t.Value, e)
	}
}

// items reads a list; want is how many it must have, -1 any.
func (d *decoder) items(n ast.Node, field string, want int, length func(int), item func(int) reflect.Value) {
	list, ok := n.(*ast.SequenceNode)
	switch {
	case !ok:
		d.fault(n, field, "must be a list: items that each begin with a dash, or [a, b]")
	case want >= 0 && len(list.Values) != want:
		d.fault(n, field, "has %d items, needs %d", len(list.Values), want)
	default:
		length(len(list.Values))
		for i, v := range list.Values {
			at := fmt.Sprintf("%s[%d]", field, i)
			d.at[at] = v.GetToken().Position
			d.value(v, item(i), at)
		}
	}
}

func (d *decoder) duration(n ast.Node, into reflect.Value, field string) {
	v, err := time.ParseDuration(n.GetToken().Value)
	if err != nil {
		d.fault(n, field, "%q is no duration; write for example 500ms, 30s, 10m or 24h", n.GetToken().Value)
		return
	}
	into.SetInt(int64(v))
}

func (d *decoder) scalar(n ast.Node, into reflect.Value, field string) {
	if _, ok := n.(ast.ScalarNode); !ok {
		d.fault(n, field, "must be one value")
		return
	}
	text := n.GetToken().Value
	if literal, ok := n.(*ast.LiteralNode); ok {
		text = literal.Value.Value
	}
	var err error
	switch kind := into.Kind(); kind {
	case reflect.String: // 007 and true are texts where a text is wanted
		into.SetString(text)
	case reflect.Bool:
		var v bool
		if v, err = strconv.ParseBool(text); err == nil {
			into.SetBool(v)
		} else {
			err = fmt.Errorf("%q must be true or false", text)
		}
	case reflect.Int, reflect.Int64:
		var v int64
		if v, err = strconv.ParseInt(text, 0, into.Type().Bits()); err == nil {
			into.SetInt(v)
		} else {
			err = fmt.Errorf("%q must be a whole number", text)
		}
	case reflect.Float64:
		var v float64
		if v, err = strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
			into.SetFloat(v)
		} else {
			err = fmt.Errorf("%q must be a number", text)
		}
	default:
		panic("configuration field " + field + " has no reader for " + kind.String())
	}
	if err != nil {
		d.fault(n, field, "%v", err)
	}
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// fieldOf returns the field that a key names; those of an embedded struct count as its own.
func fieldOf(s reflect.Value, key string) (reflect.Value, bool) {
	for i := range s.NumField() {
		name, _, _ := strings.Cut(s.Type().Field(i).Tag.Get("yaml"), ",")
		if s.Type().Field(i).Anonymous {
			if f, ok := fieldOf(s.Field(i), key); ok {
				return f, true
			}
		} else if name == key && name != "-" {
			return s.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if t.Field(i).Anonymous {
			keys = append(keys, keysOf(t.Field(i).Type)...)
		} else if name != "-" && name != "" {
			keys = append(keys, name)
		}
	}
	return keys
}

// didYouMean names the known key that is nearest by edit distance, or, with none near, all of them.
func didYouMean(key string, known []string) string {
	nearest := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(editDistance(key, a), editDistance(key, b)) })
	if editDistance(key, nearest) <= max(1, (len(key)+1)/3) {
		return "; did you mean " + nearest + "?"
	}
	return "; known here: " + strings.Join(known, ", ")
}

// editDistance counts insertions, deletions and substitutions of bytes (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
