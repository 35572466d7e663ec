package config_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reference builds the README's table of keys from the structs and their comments.
type reference struct {
	structs map[string]*ast.StructType
	out     bytes.Buffer
	missing []string // fields without a comment
}

// preface stands above the table.
const preface = "A duration is written as `500ms`, `30s`, `15m` or `12h`; a size as `64MiB`; a network as `10.0.0.0/8` or one address; where a list of single\n" +
	"values is wanted, one of them may stand alone. A secret is a value or `{file: PATH}`: the file is read again when it changes, and newlines at its end\n" +
	"are dropped. `${NAME}` in a value is replaced from the environment (inside `{ }` and `[ ]` put it in quotes); `$${` stands for `${`. A key that Postern does not\n" +
	"know is an error. `postern check` names every problem at once.\n\n"

// TestReference holds the README's table against the code. `go test ./config -run Reference -update` writes it anew.
func TestReference(t *testing.T) {
	const file, begin, end = "../README.md", "<!-- config:begin -->\n", "<!-- config:end -->"
	r := newReference(t)
	r.out.WriteString(preface + "| key | type | default | meaning |\n| --- | --- | --- | --- |\n")
	r.section("Config", "", nil)
	if len(r.missing) > 0 {
		t.Errorf("without a comment: %v", r.missing)
	}
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(readme), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no block between %q and %q", file, begin, end)
	}
	want := r.out.String()
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the reference in README.md is not up to date; run go test ./config -run Reference -update (-want +got):\n%s", diff)
	}
}

func newReference(t *testing.T) *reference {
	t.Helper()
	r := &reference{structs: map[string]*ast.StructType{}}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					r.structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	return r
}

// section writes a line for each key of a struct, and of the structs in it.
func (r *reference) section(name, path string, above []string) {
	for _, f := range r.structs[name].Fields.List {
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		key := tag.Get("yaml")
		if key == "" || key == "-" {
			continue
		}
		if strings.TrimSpace(f.Doc.Text()) == "" {
			r.missing = append(r.missing, name+"."+key)
		}
		inner, kind, suffix := describe(f.Type)
		at := path + key
		if r.structs[inner] == nil || inner == "Secret" {
			if words := strings.Fields(tag.Get("oneof")); len(words) > 0 {
				kind = "`" + strings.Join(words, "`, `") + "`"
			}
			fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s |\n", at, kind, code(tag.Get("default")), cell(meaning(f)))
			continue
		}
		if slices.Contains(above, inner) {
			continue
		}
		fmt.Fprintf(&r.out, "| `%s` | %s | %s | %s |\n", at, kind, code(tag.Get("default")), cell(meaning(f)))
		r.section(inner, at+suffix+".", append(above, inner))
	}
}

// describe names a Go type as operators know it, and how its keys go on.
func describe(e ast.Expr) (inner, kind, suffix string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return describe(e.X)
	case *ast.ArrayType:
		inner, kind, _ := describe(e.Elt)
		return inner, "list of " + plural(kind), "[]"
	case *ast.MapType:
		return "", "mapping of names to texts", ""
	case *ast.SelectorExpr:
		switch e.Sel.Name {
		case "Duration":
			return "", "duration", ""
		case "URL":
			return "", "URL", ""
		case "Prefix":
			return "", "network", ""
		}
		return "", e.Sel.Name, ""
	case *ast.Ident:
		switch e.Name {
		case "string":
			return "", "text", ""
		case "int", "float64":
			return "", "number", ""
		case "bool":
			return "", "`true`, `false`", ""
		case "Size":
			return "", "size", ""
		case "Secret":
			return "Secret", "secret, or `{file: PATH}`", ""
		case "Upstreams":
			return "", "URL", ""
		case "Providers":
			return "Provider", "mapping of names", ".NAME"
		case "Access":
			return "Access", "word or mapping", ""
		case "Bearer":
			return "Bearer", "mapping", ""
		case "OnStoreError":
			return "OnStoreError", "word", ""
		}
		return e.Name, "mapping", ""
	}
	return "", "", ""
}

func plural(kind string) string {
	switch {
	case kind == "mapping":
		return "mappings"
	case strings.HasPrefix(kind, "secret"):
		return "secrets, or `{file: PATH}`"
	}
	return kind + "s"
}

// meaning is a field's comment without its Go name.
func meaning(f *ast.Field) string {
	text := strings.Join(strings.Fields(f.Doc.Text()), " ")
	if len(f.Names) > 0 {
		text = strings.TrimPrefix(text, f.Names[0].Name+" ")
	}
	for _, verb := range []string{"is ", "are "} {
		text = strings.TrimPrefix(text, verb)
	}
	if first, _, _ := strings.Cut(text, " "); !strings.Contains(first, ":") {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}

// cell writes a text so that a table of Markdown can hold it.
func cell(text string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text) }

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
