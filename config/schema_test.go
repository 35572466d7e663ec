package config_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"postern/config"
)

// TestSchema holds schema.json against the code. `go test ./config -run Schema -update` writes it anew.
func TestSchema(t *testing.T) {
	const file = "schema.json"
	b := &schemaBuilder{comments: newReference(t).structs, defs: object{}}
	root := b.mapping(reflect.TypeFor[config.Config]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Postern configuration"
	root["$defs"] = b.defs
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), config.Schema()); diff != "" {
		t.Errorf("%s is not up to date; run go test ./config -run Schema -update (-want +got):\n%s", file, diff)
	}
}

// What loads is valid by the schema; what does not load for a key, a form or a word is not. The schema cannot know what variables hold.
func TestSchemaAgreesWithLoad(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	written, err := os.ReadFile("schema.json") // which -update may have changed since this was built
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(written))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.AddResource("postern.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("postern.json")
	if err != nil {
		t.Fatal(err)
	}
	shape := regexp.MustCompile(`is not a key that Postern knows|must be .*, but is |one of the words|has no value|is not a duration|has a sign\.|` +
		`is not a size|is neither true nor false|is not a whole number`)
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var valid, invalid int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var document any
		if yaml.Unmarshal(data, &document) != nil {
			continue
		}
		_, problems := config.Parse(file, data, anyVariable())
		found := schema.Validate(document)
		switch {
		case problems == nil:
			valid++
			if found != nil {
				t.Errorf("%s loads, but by the schema: %v", file, found)
			}
		case shape.MatchString(problems.Error()) && !bytes.Contains(data, []byte("${")):
			invalid++
			if found == nil {
				t.Errorf("%s is valid by the schema, but does not load: %v", file, problems)
			}
		}
	}
	if valid < 10 || invalid < 30 {
		t.Errorf("saw only %d files that load and %d whose form is wrong", valid, invalid)
	}
}

// anyVariable gives the variables of testdata a value, and those that it does not know a secret.
func anyVariable() config.LoadOptions {
	known := goldenEnv().LookupEnv
	return config.LoadOptions{LookupEnv: func(name string) (string, bool) {
		if v, ok := known(name); ok {
			return v, true
		}
		return canary, true
	}}
}

// object is one of JSON's.
type object = map[string]any

// schemaBuilder makes a schema of the types by reflection, with the comments of their fields.
type schemaBuilder struct {
	comments map[string]*ast.StructType
	defs     object
}

// value describes what may stand after a key of that type.
func (b *schemaBuilder) value(t reflect.Type, tag reflect.StructTag) object {
	switch t {
	case reflect.TypeFor[config.Secret]():
		return b.named("secret", func() object {
			file := object{"file": b.text()}
			return anyOf(b.text(), object{"type": "object", "properties": file, "required": []string{"file"}, "additionalProperties": false})
		})
	case reflect.TypeFor[config.Providers]():
		return object{"type": "object", "additionalProperties": b.section(reflect.TypeFor[config.Provider]())}
	case reflect.TypeFor[config.Access]():
		return anyOf(oneOf(config.Public, config.Optional, config.SignedIn, config.Deny), b.section(t))
	case reflect.TypeFor[config.Bearer]():
		return anyOf(oneOf("access_token", "id_token", "none"), b.section(t))
	case reflect.TypeFor[config.OnStoreError]():
		return anyOf(oneOf("deny"), b.section(t))
	case reflect.TypeFor[time.Duration]():
		return b.named("duration", func() object {
			return zeroOr(`^0$|^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`, "a duration, such as 15m")
		})
	case reflect.TypeFor[config.Size]():
		return b.named("size", func() object { return zeroOr(`^0$|^[0-9]+(B|KiB|MiB|GiB|TiB)$`, "a size, such as 64MiB") })
	case reflect.TypeFor[*url.URL]():
		return b.named("url", func() object { return pattern(`^[A-Za-z][A-Za-z0-9+.-]*:`, "a URL, such as https://id.example.com") })
	case reflect.TypeFor[netip.Prefix]():
		return b.named("network", func() object { return pattern(`^[0-9A-Fa-f:.]+(/[0-9]+)?$`, "a network, such as 10.0.0.0/8") })
	}
	switch t.Kind() {
	case reflect.Bool:
		return b.named("boolean", func() object { return anyOf(object{"type": "boolean"}, pattern("^(true|false)$", "true or false")) })
	case reflect.Int:
		return b.named("integer", func() object { return anyOf(object{"type": "integer"}, pattern("^-?[0-9]+$", "a whole number")) })
	case reflect.Float64:
		return b.named("number", func() object { return anyOf(object{"type": "number"}, pattern("^-?[0-9.]", "a number")) })
	case reflect.String:
		if words := strings.Fields(tag.Get("oneof")); len(words) > 0 {
			return oneOf(words...)
		}
		return b.text()
	case reflect.Pointer:
		return b.value(t.Elem(), tag)
	case reflect.Struct:
		return b.section(t)
	case reflect.Map:
		return object{"type": "object", "additionalProperties": b.value(t.Elem(), tag)}
	case reflect.Slice:
		entry := b.value(t.Elem(), tag)
		list := object{"type": "array", "items": entry}
		if t.Elem().Kind() == reflect.Struct && t.Elem() != reflect.TypeFor[netip.Prefix]() {
			return list
		}
		return anyOf(list, entry) // one may stand without brackets
	}
	panic("no schema of " + t.String())
}

// section describes the mapping of that type, once.
func (b *schemaBuilder) section(t reflect.Type) object {
	return b.named(t.Name(), func() object { return b.mapping(t) })
}

// text is a single value that YAML does not take for true or false.
func (b *schemaBuilder) text() object {
	return b.named("text", func() object { return object{"type": []string{"string", "number"}, "minLength": 1} })
}

// named refers to a definition, which is made when it is first needed.
func (b *schemaBuilder) named(name string, made func() object) object {
	if b.defs[name] == nil {
		b.defs[name] = made()
	}
	return object{"$ref": "#/$defs/" + name}
}

// mapping describes a section: each key that works, and no other.
func (b *schemaBuilder) mapping(t reflect.Type) object {
	properties := object{}
	for _, comment := range b.comments[t.Name()].Fields.List {
		f, ok := t.FieldByName(comment.Names[0].Name)
		key := f.Tag.Get("yaml")
		if !ok || key == "" || key == "-" {
			continue
		}
		p := b.value(f.Type, f.Tag)
		p["description"] = meaning(comment)
		if text, ok := f.Tag.Lookup("default"); ok {
			p["default"] = defaultValue(f.Type, text)
		}
		properties[key] = p
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}
}

// defaultValue is a default as a file would write it.
func defaultValue(t reflect.Type, text string) any {
	if b, err := strconv.ParseBool(text); err == nil && t.Kind() == reflect.Bool {
		return b
	}
	if n, err := strconv.Atoi(text); err == nil && t.Kind() == reflect.Int {
		return n
	}
	return text
}

// pattern is a text of that form, or with a variable in it: that can become anything. VS Code says what is wanted where neither is written.
func pattern(form, want string) object {
	return object{"type": "string", "pattern": form + `|\$\{`, "patternErrorMessage": "Must be " + want}
}

// zeroOr also takes the number 0, which needs no unit.
func zeroOr(form, want string) object {
	o := pattern(form, want)
	o["type"], o["minimum"], o["maximum"] = []string{"string", "integer"}, 0, 0
	return o
}

// oneOf is one of these words, or a variable.
func oneOf(words ...string) object {
	return anyOf(object{"enum": words}, object{"type": "string", "pattern": `\$\{`})
}

func anyOf(forms ...object) object { return object{"anyOf": forms} }
