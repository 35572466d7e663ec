package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
)

// decoder walks the tree of a file along the structs and notes every problem on the way.
type decoder struct {
	src      *source
	lookup   func(string) (string, bool)
	problems Problems

	// Of a preset alone: fill replaces its placeholders in one value, and lacks is told of each path where it could not.
	fill  func(text string) (string, *mistake)
	lacks func(path string)
}

// field is what the struct tags say about a key.
type field struct {
	key       string
	oneOf     []string // the words that a text may be
	multiline bool     // a text may hold line breaks
	script    bool     // a text is an expression
	forms     string   // what else may stand there beside a word, in one phrase with the words
}

// custom is a type with a form of its own, such as "a word or a mapping".
type custom interface {
	decodeNode(d *decoder, path string, n ast.Node)
}

// keysOf are the keys of a struct.
type keysOf struct {
	fields []field
	names  []string
	index  []int  // of each among the struct's fields
	want   string // what a problem says must stand there
}

var knownKeys sync.Map // of each type: reading the tags is most of the work for a file with thousands of routes

// fieldsOf lists the keys of a struct.
func fieldsOf(t reflect.Type) *keysOf {
	if known, ok := knownKeys.Load(t); ok {
		return known.(*keysOf)
	}
	k := &keysOf{}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		k.fields = append(k.fields, field{
			key:       key,
			oneOf:     strings.Fields(f.Tag.Get("oneof")),
			multiline: f.Tag.Get("multiline") != "" || f.Tag.Get("script") != "",
			script:    f.Tag.Get("script") != "",
		})
		k.names = append(k.names, key)
		k.index = append(k.index, i)
	}
	k.want = "a mapping of " + keyList(k.names)
	knownKeys.Store(t, k)
	return k
}

// reflectValue is the value that a pointer points to.
func reflectValue(pointer any) reflect.Value { return reflect.ValueOf(pointer).Elem() }

var knownDefaults sync.Map // of each type: its value with the default tags of the struct and of the structs in it, which hold no pointers

// setDefaults makes all of a struct what it is where the file says nothing.
func setDefaults(v reflect.Value) {
	known, ok := knownDefaults.Load(v.Type())
	if !ok {
		made := reflect.New(v.Type()).Elem()
		fillDefaults(made)
		known, _ = knownDefaults.LoadOrStore(v.Type(), made)
	}
	v.Set(known.(reflect.Value))
}

func fillDefaults(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		text, ok := v.Type().Field(i).Tag.Lookup("default")
		switch {
		case !ok && f.Kind() == reflect.Struct && v.Type().Field(i).IsExported():
			fillDefaults(f)
		case ok && f.Kind() == reflect.Struct: // a union: its zero value, or normalise, is the default
		case ok:
			if err := setText(f, text); err != nil {
				panic("config: default of " + v.Type().Field(i).Name + ": " + err.Error())
			}
		}
	}
}

// maxProblems bounds what is told about one file.
const maxProblems = 200

// add notes a problem.
func (d *decoder) add(m mark, path, what, mend string) {
	if len(d.problems) >= maxProblems {
		return
	}
	d.problems = append(d.problems, Problem{File: d.src.file, Line: m.line, Column: m.col, Path: path, What: what, Mend: mend, Excerpt: d.src.excerpts.of(m.line, m.col)})
}

// fail notes a problem with the value n at path; nothing more will be said about that path.
func (d *decoder) fail(path string, n ast.Node, what, mend string) {
	d.src.failed[path] = true
	d.add(markOf(first(n)), path, what, mend)
}

// decode puts n into v.
func (d *decoder) decode(path string, n ast.Node, v reflect.Value, f field) {
	if n == nil || n.Type() == ast.NullType {
		d.fail(path, n, "has no value", "Give it one, or leave the key out")
		return
	}
	if c, ok := v.Addr().Interface().(custom); ok {
		c.decodeNode(d, path, n)
		return
	}
	switch {
	case isText(v.Type()):
		d.text(path, n, v, f)
	case v.Kind() == reflect.Pointer:
		if v.IsNil() { // else a preset filled it, and the file's keys go over that
			v.Set(reflect.New(v.Type().Elem()))
			setDefaults(v.Elem())
		}
		d.decode(path, n, v.Elem(), f)
	case v.Kind() == reflect.Struct:
		d.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		d.list(path, n, v, f)
	case v.Kind() == reflect.Map:
		d.dict(path, n, v, f)
	default:
		panic("config: no decoding of " + v.Type().String())
	}
}

// entry is one key of a mapping.
type entry struct {
	key   string
	at    mark
	value ast.Node
}

// entries are the keys of a mapping, each once; false with a problem when n is none.
func (d *decoder) entries(path string, n ast.Node, want string) ([]entry, bool) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.fail(path, n, "must be "+want+", but is "+kind(n), "Write key: value, each in a line of its own beneath")
		return nil, false
	}
	out := make([]entry, 0, len(pairs))
	lines := make(map[string]int, len(pairs))
	for _, p := range pairs {
		e := entry{at: markOf(p.Key.GetToken()), value: p.Value}
		if t := p.Key.GetToken(); t != nil {
			e.key = t.Value
		}
		if line, ok := lines[e.key]; ok {
			d.add(e.at, join(path, e.key), fmt.Sprintf("is written twice; first in line %d", line), "Keep one")
			continue
		}
		lines[e.key] = e.at.line
		if strings.Contains(e.key, "${") {
			d.add(e.at, join(path, e.key), "variables are replaced in values, not in keys", "Write the key out")
			continue
		}
		out = append(out, e)
	}
	return out, true
}

// mapping puts the keys of n into the fields of a struct.
func (d *decoder) mapping(path string, n ast.Node, v reflect.Value) {
	known := fieldsOf(v.Type())
	keys := known.names
	entries, ok := d.entries(path, n, known.want)
	if !ok {
		return
	}
	for _, e := range entries {
		at := join(path, e.key)
		i := slices.Index(keys, e.key)
		if i < 0 {
			d.unknown(path, e, keys)
			continue
		}
		d.src.marks[at] = e.at
		d.decode(at, e.value, v.Field(known.index[i]), known.fields[i])
	}
}

// unknown notes a key that does not exist, with the nearest that does.
func (d *decoder) unknown(path string, e entry, keys []string) {
	mend := "Known here: " + strings.Join(keys, ", ")
	if near := nearest(e.key, keys); near != "" {
		mend = "Did you mean " + near + "?"
		if at := join(path, near); !d.src.given(at) {
			d.src.failed[at] = true // it is not missing, only misspelt
			d.src.marks[at] = e.at
		}
	}
	d.add(e.at, join(path, e.key), "is not a key that Postern knows", mend)
}

// list puts n into a slice. Where entries are single values, one of them may stand without brackets.
func (d *decoder) list(path string, n ast.Node, v reflect.Value, f field) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		if !isText(v.Type().Elem()) || !isScalar(n) {
			d.fail(path, n, "must be a list, but is "+kind(n), "Write one entry a line, each after a dash")
			return
		}
		one := reflect.New(v.Type().Elem()).Elem()
		d.text(path, n, one, f)
		if !d.src.failed[path] {
			v.Set(reflect.Append(reflect.MakeSlice(v.Type(), 0, 1), one))
		}
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.src.marks[at] = markOf(first(e))
		if out.Index(i).Kind() == reflect.Struct {
			setDefaults(out.Index(i))
		}
		d.decode(at, e, out.Index(i), f)
	}
	v.Set(out)
}

// dict puts n into a map with free keys, over those that a preset put there.
func (d *decoder) dict(path string, n ast.Node, v reflect.Value, f field) {
	entries, ok := d.entries(path, n, "a mapping of names to values")
	if !ok {
		return
	}
	out := reflect.MakeMapWithSize(v.Type(), len(entries))
	for before := v.MapRange(); before.Next(); {
		out.SetMapIndex(before.Key(), before.Value())
	}
	for _, e := range entries {
		at := join(path, e.key)
		d.src.marks[at] = e.at
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(at, e.value, value, f)
		out.SetMapIndex(reflect.ValueOf(e.key), value)
	}
	v.Set(out)
}
