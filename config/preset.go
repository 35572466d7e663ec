package config

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// presetFiles are the presets: each file is what an operator would write below providers.NAME, without what only the operator knows.
//
//go:embed presets/*.yaml
var presetFiles embed.FS

// Preset is built-in defaults for one known provider. In its values, <url>, <tenant> and <client_id> stand for those keys of the
// operator's, or of the preset itself where the operator has none.
type Preset struct {
	// Name is what providers.*.preset names.
	Name string
	// Title is the provider's name as people write it.
	Title string
	// Documentation is the address of the provider's own documentation.
	Documentation string
	// Needs are the keys that the operator has to write beside the preset.
	Needs []string
	// Public says that anyone can register there.
	Public bool
	// File is the preset as it is stored, comments included.
	File string
}

// documented begins a preset's first line.
const documented = "# Documentation: "

// placeholders are the keys that a preset's values may refer to, in the order in which they are told.
func placeholders() []string { return []string{"url", "tenant", "client_id"} }

// Presets lists the presets by name.
func Presets() []Preset {
	var all []Preset
	for _, name := range presetNames() {
		if p, ok := LookupPreset(name); ok {
			all = append(all, p)
		}
	}
	return all
}

// LookupPreset finds a preset by name.
func LookupPreset(name string) (Preset, bool) {
	file, ok := presetFile(name)
	if !ok {
		return Preset{}, false
	}
	p := Preset{Name: name, File: file}
	first, _, _ := strings.Cut(p.File, "\n")
	p.Documentation = strings.TrimPrefix(first, documented)
	d := &decoder{src: newSource(name), lookup: func(string) (string, bool) { return "", false }}
	root := d.parse([]byte(file))
	used := map[string]bool{"client_id": true}
	d.fill = func(text string) (string, *mistake) {
		for _, key := range placeholders() {
			used[key] = used[key] || strings.Contains(text, "<"+key+">") && value(root, key) == ""
		}
		return strings.NewReplacer("<url>", "https://id.example.com", "<tenant>", "tenant", "<client_id>", "id").Replace(text), nil
	}
	var settings Provider
	if root != nil {
		d.decode("", root, reflectValue(&settings), field{})
	}
	p.Title, p.Public = settings.Title, settings.Public
	for _, key := range placeholders() {
		if used[key] {
			p.Needs = append(p.Needs, key)
		}
	}
	p.Needs = append(p.Needs, "client_secret")
	return p, true
}

// presetFile is the text of a preset.
func presetFile(name string) (string, bool) {
	if !slices.Contains(presetNames(), name) { // before the name becomes a path
		return "", false
	}
	data, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	return string(data), err == nil
}

func presetNames() []string {
	entries, err := presetFiles.ReadDir("presets")
	if err != nil {
		return nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	return names
}

// filling is a preset that was put below one provider.
type filling struct {
	preset   string
	missing  map[string][]string // paths that could not be filled → the keys that are needed for it
	failed   map[string]bool
	problems Problems
}

// preset puts the defaults of the preset that n names into p, before n itself is decoded over them.
func (d *decoder) preset(at string, n ast.Node, p *Provider) *filling {
	name, m := d.expand(value(n, "preset"))
	if m != nil || name == "" {
		return nil
	}
	file, ok := presetFile(name)
	if !ok {
		return nil // said by the validator
	}
	f := &filling{preset: name, missing: map[string][]string{}, failed: map[string]bool{}}
	// Its own source: the file does not have these keys. What variables held is remembered for both alike.
	sub := &decoder{src: newSource("preset " + name), lookup: d.lookup}
	sub.src.raw = d.src.raw
	root := sub.parse([]byte(file))
	if root == nil {
		f.problems = sub.problems
		return f
	}
	given := map[string]string{} // as the file writes them: variables are replaced afterwards
	for _, key := range placeholders() {
		given[key] = strings.TrimRight(value(n, key), "/")
		if given[key] == "" {
			given[key] = value(root, key)
		}
	}
	var lacking []string
	sub.fill = func(text string) (string, *mistake) {
		lacking = nil
		for _, key := range placeholders() {
			if strings.Contains(text, "<"+key+">") && given[key] == "" {
				lacking = append(lacking, key)
			}
			text = strings.ReplaceAll(text, "<"+key+">", given[key])
		}
		if len(lacking) > 0 {
			return "", &mistake{what: "needs " + strings.Join(lacking, " and ")}
		}
		return text, nil
	}
	sub.lacks = func(path string) { f.missing[path] = lacking }
	sub.decode(at, root, reflectValue(p), field{})
	f.failed = sub.src.failed
	f.problems = slices.DeleteFunc(sub.problems, func(p Problem) bool { return f.missing[p.Path] != nil })
	return f
}

// settle reports, once the operator's own keys are known, what the preset still lacks.
func (d *decoder) settle(at string, f *filling) {
	if f == nil {
		return
	}
	own := false // a problem with what the operator wrote is told there
	for _, key := range placeholders() {
		own = own || d.src.failed[join(at, key)]
	}
	for _, path := range slices.Sorted(maps.Keys(f.failed)) {
		if d.src.given(path) {
			continue
		}
		d.src.failed[path] = true
		for _, key := range f.missing[path] {
			if d.src.failed[join(at, key)] {
				continue
			}
			d.src.failed[join(at, key)] = true
			d.add(d.src.at(at), join(at, key), "is missing, and preset "+f.preset+" needs it", need(key))
		}
	}
	if len(f.problems) > 0 && !own && len(f.missing) == 0 {
		d.add(d.src.at(at), join(at, "preset"), fmt.Sprintf("preset %s cannot be used so: %s", f.preset, f.problems[0].What), "Write the provider's own keys instead")
	}
}

// need says how to mend a missing key of the operator's.
func need(key string) string {
	switch key {
	case "url":
		return "Write the address of your installation, such as url: https://id.example.com; `postern providers NAME` explains"
	case "tenant":
		return "Write the name of your part of the provider; `postern providers NAME` explains which"
	}
	return "Write the id that the provider gave this client"
}

// value is the text of one key of a mapping as the file writes it, or "".
func value(n ast.Node, key string) string {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	}
	for _, p := range pairs {
		if t := p.Key.GetToken(); t != nil && t.Value == key && p.Value != nil {
			text, _, _ := rawText(p.Value)
			return text
		}
	}
	return ""
}
