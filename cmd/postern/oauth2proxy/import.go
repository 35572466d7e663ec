// Package oauth2proxy turns a configuration of oauth2-proxy into one of Postern. [Import] reads the files (read.go), the table (table.go)
// says what becomes of each option, and the result carries that report as comments.
//
// What it guarantees: no option of the input is silently left out, and no secret is copied. What was unsafe, or could let somebody in who
// was kept out before, is a question, and so is what cannot be known. The questions stand in the result under a key that Postern refuses,
// so that nothing runs before somebody has answered them.
package oauth2proxy

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// Input is one file of the configuration, or its environment.
type Input struct {
	// Name says where the data is from.
	Name   string
	Format Format
	Data   []byte
}

// Format is how an input is written.
type Format int

// The formats that oauth2-proxy reads.
const (
	TOML  Format = iota
	Alpha        // the structured configuration, in YAML
	Env          // lines of NAME=value
)

// FormatOf tells a file's format by its name.
func FormatOf(name string) Format {
	switch path.Ext(name) {
	case ".yaml", ".yml":
		return Alpha
	case ".env":
		return Env
	}
	return TOML
}

// Result is what Import made.
type Result struct {
	// YAML is the configuration, with a report on each option as comments.
	YAML string
	// Questions are what has to be decided before Postern takes the configuration.
	Questions []string
}

// Import turns the inputs into a configuration. Of an option that several of them name the last one counts.
func Import(inputs []Input) (Result, error) {
	var in options
	for _, i := range inputs {
		if err := in.read(i); err != nil {
			return Result{}, fmt.Errorf("%s: %w", i.Name, err)
		}
	}
	d := newDraft(&in)
	d.providers()
	d.server()
	d.session()
	for _, r := range table() {
		if strings.HasPrefix(r.key, "redis_") && !d.usesRedis() {
			r = row{r.key, kept, notInUse, nil}
		}
		d.row(r, in.values, nil)
	}
	d.unknown()
	d.routes()
	text, err := d.text(inputs)
	return Result{YAML: text, Questions: d.questions}, err
}

// verdict is what became of an option.
type verdict int

const (
	kept        verdict = iota // it means the same
	changed                    // it means something else
	unsupported                // nothing stands for it
	asked                      // somebody has to decide
)

const notInUse = "not in use"

// line is what is said about one option.
type line struct {
	verdict    verdict
	name, text string
}

// draft is a configuration while it is made.
type draft struct {
	in        *options
	doc       *mapping
	lines     []line
	questions []string

	first    *provider // the one whose sign-in every route takes
	groups   []string  // who may enter: members of any of these,
	roles    []string  // of any of these roles,
	domains  []string  // people of these mail domains
	limited  bool      // and who fulfils a condition that is asked about
	open     []openPath
	upstream []upstream
	request  []header // injectRequestHeaders
	response []header // injectResponseHeaders
}

func newDraft(in *options) *draft {
	d := &draft{in: in, doc: &mapping{}}
	for _, section := range []string{"server", "session", "providers"} { // in this order, whatever is set first
		d.doc.put(section, &mapping{})
	}
	return d
}

// row does what a row of the table says about an option, if it is given. p is the provider that it is about.
func (d *draft) row(r row, values map[string]option, p *provider) {
	o, ok := values[r.key]
	if !ok {
		return
	}
	before := len(d.lines)
	if r.apply != nil {
		r.apply(d, p, o)
	}
	switch said := slices.ContainsFunc(d.lines[before:], func(l line) bool { return l.name == o.name }); {
	case said:
	case r.text == "":
		d.say(kept, o.name, notInUse)
	default:
		d.say(r.verdict, o.name, r.text)
	}
}

// say adds to the report.
func (d *draft) say(v verdict, name, text string) { d.lines = append(d.lines, line{v, name, text}) }

// ask adds a question.
func (d *draft) ask(name, question string) {
	d.say(asked, name, question)
	d.questions = append(d.questions, name+": "+question)
}

// saysMore tells whether there is more to say about an option than that it is kept.
func (d *draft) saysMore(name string) bool {
	return slices.ContainsFunc(d.lines, func(l line) bool { return l.verdict != kept && l.name == name })
}

// unknown asks about options that the table does not have: they may restrict something.
func (d *draft) unknown() {
	known := map[string]bool{}
	for _, r := range append(table(), providerTable()...) {
		known[r.key] = true
	}
	for _, o := range d.in.sorted() {
		if !known[o.key] {
			d.ask(o.name, "Postern does not know this option. What is it for?")
		}
	}
}

// text writes the report and the configuration.
func (d *draft) text(inputs []Input) (string, error) {
	var b strings.Builder
	names := make([]string, len(inputs))
	for i, in := range inputs {
		names[i] = plain(in.Name)
	}
	fmt.Fprintf(&b, "# Made by `postern import oauth2-proxy` from %s.\n#\n", strings.Join(names, ", "))
	b.WriteString("# People sign in once more: sessions of oauth2-proxy are not carried over. The cookies have other names, so both can run side by side.\n")
	for _, part := range []struct {
		verdict verdict
		title   string
	}{{changed, "Changed:"}, {unsupported, "Not supported:"}, {kept, "Kept:"}} {
		title := "#\n# " + part.title + "\n"
		for _, l := range d.lines {
			if l.verdict == part.verdict && !(l.verdict == kept && d.saysMore(l.name)) {
				fmt.Fprintf(&b, "%s#   %s: %s\n", title, plain(l.name), l.text)
				title = ""
			}
		}
	}
	if len(d.questions) > 0 {
		b.WriteString("\n# Postern refuses this file as long as these stand here. What is below takes the safe side in each: decide, change what the question says,\n# and take it out.\n")
		questions := &mapping{}
		questions.put("questions", d.questions)
		if err := questions.write(&b); err != nil {
			return "", err
		}
	}
	b.WriteString("\n")
	err := d.doc.write(&b)
	return b.String(), err
}

// mapping is one of YAML's, in the order in which its keys were put.
type mapping struct{ items yaml.MapSlice }

// put sets a key.
func (m *mapping) put(key string, value any) {
	for i := range m.items {
		if m.items[i].Key == key {
			m.items[i].Value = value
			return
		}
	}
	m.items = append(m.items, yaml.MapItem{Key: key, Value: value})
}

// set puts a value at a path of plain keys, such as session.cookie.name.
func (m *mapping) set(path string, value any) {
	key, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		m.put(key, value)
		return
	}
	m.sub(key).set(rest, value)
}

// sub is the mapping at a key, which is made if need be.
func (m *mapping) sub(key string) *mapping {
	for _, item := range m.items {
		if inner, ok := item.Value.(*mapping); ok && item.Key == key {
			return inner
		}
	}
	inner := &mapping{}
	m.put(key, inner)
	return inner
}

// has tells whether the mapping has a key.
func (m *mapping) has(key string) bool {
	return slices.ContainsFunc(m.items, func(i yaml.MapItem) bool { return i.Key == key })
}

// write writes the mapping without sections that are empty.
func (m *mapping) write(b *strings.Builder) error {
	items := slices.DeleteFunc(slices.Clone(m.items), func(i yaml.MapItem) bool {
		inner, ok := i.Value.(*mapping)
		return ok && len(inner.items) == 0
	})
	data, err := yaml.MarshalWithOptions(items, yaml.IndentSequence(true))
	b.Write(data)
	return err
}

// MarshalYAML lets a mapping stand in another one.
func (m *mapping) MarshalYAML() (any, error) { return m.items, nil }

// plain makes a name safe to stand in a comment.
func plain(name string) string {
	quoted := fmt.Sprintf("%q", name)
	if quoted == `"`+name+`"` {
		return name
	}
	return quoted
}
