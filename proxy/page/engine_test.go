package page_test

import (
	"bytes"
	stdlib "html/template"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	engine "github.com/DataDog/datadog-agent/pkg/template/html"
	"github.com/google/go-cmp/cmp"
)

// Our templates run on a copy of html/template that lets the linker leave out what nobody calls. It must escape as the toolchain's does, so a mend of
// that must not be missed: this test then shows the lines that the copy lacks. Take a newer copy, or go back to html/template; a line that changes
// nothing of what is escaped may be added to the list.
func TestTemplateEngineLacksNothingOfTheToolchains(t *testing.T) {
	goroot := output(t, "go", "env", "GOROOT")
	module := output(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/DataDog/datadog-agent/pkg/template")
	var got []string
	for _, of := range []string{"html", "text"} {
		std, err := filepath.Glob(filepath.Join(goroot, "src", of, "template", "*.go"))
		if err != nil || len(std) == 0 {
			t.Fatal(std, err)
		}
		for _, file := range std {
			name := filepath.Base(file)
			if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_string.go") { // the latter are generated, for messages
				continue
			}
			have := code(t, filepath.Join(module, of, name))
			for _, line := range code(t, file) {
				if !slices.Contains(have, line) {
					got = append(got, of+"/"+name+": "+line)
				}
			}
		}
	}
	want := []string{
		// The types are aliases of html/template's.
		"html/content.go: CSS string",
		"html/content.go: HTML string",
		"html/content.go: HTMLAttr string",
		"html/content.go: JS string",
		"html/content.go: JSStr string",
		"html/content.go: URL string",
		"html/content.go: Srcset string",
		// What GODEBUG can switch off is always on.
		`html/escape.go: "internal/godebug"`,
		`html/escape.go: "text/template"`,
		`html/escape.go: var debugAllowActionJSTmpl = godebug.New("jstmpllitinterp")`,
		`html/escape.go: var htmlmetacontenturlescape = godebug.New("htmlmetacontenturlescape")`,
		`html/template.go: "text/template"`,
		// Faster, the same result: the copy compares with bytes.ToLower.
		`html/transition.go: if i > 0 && i+7 <= len(s) && bytes.EqualFold(s[i-1:i+7], []byte("</script")) {`,
		// Templates call no methods: that is what the copy is for.
		`text/exec.go: "internal/fmtsort"`,
		"text/exec.go: ptr := receiver",
		"text/exec.go: if ptr.Kind() != reflect.Interface && ptr.Kind() != reflect.Pointer && ptr.CanAddr() {",
		"text/exec.go: ptr = ptr.Addr()",
		"text/exec.go: if method := ptr.MethodByName(fieldName); method.IsValid() {",
		"text/exec.go: return s.evalCall(dot, method, false, node, fieldName, args, final)",
		"text/funcs.go: type FuncMap map[string]any",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the toolchain's templates have and the copy lacks is not what was looked at (-seen, +now):\n%s", diff)
	}
}

// code is a file's lines without indentation, comments of their own and empty ones.
func code(t *testing.T, file string) (lines []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines = append(lines, line)
		}
	}
	return lines
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

func TestTemplateEngineEscapesAsTheToolchains(t *testing.T) {
	const text = `<!DOCTYPE html><html><head><title>{{.}}</title><meta http-equiv="refresh" content="0; url={{.}}"><style>p { color: {{.}}; background: url("{{.}}") }</style>
<script>var x = {{.}}, y = "{{.}}", z = /{{.}}/, u = ` + "`{{.}}`" + `;</script></head><body title="{{.}}" class={{.}} onload="f({{.}})">{{.}}<!-- {{.}} -->
<a href="{{.}}">a</a><a href="/x?y={{.}}#{{.}}">b</a><img srcset="{{.}} 1x" style="color: {{.}}"><textarea>{{.}}</textarea><p {{.}}="x"></p></body></html>`
	var got, want bytes.Buffer
	ours, theirs := engine.Must(engine.New("x").Parse(text)), stdlib.Must(stdlib.New("x").Parse(text))
	for _, attack := range slices.Concat(attacks, []string{"javascript:alert(1)", "/x, javascript:alert(1)", "</ScRiPt >", "expression(alert(1))", "\u2028", "\x00"}) {
		attack = attack[:min(len(attack), 1000)]
		for _, value := range []any{attack, stdlib.HTML(attack), stdlib.JS(attack), stdlib.CSS(attack), stdlib.URL(attack), []string{attack}, map[string]string{attack: attack}} {
			got.Reset()
			want.Reset()
			errOurs, errTheirs := ours.Execute(&got, value), theirs.Execute(&want, value)
			if got.String() != want.String() || (errOurs == nil) != (errTheirs == nil) {
				t.Errorf("%T %.40q: %v, html/template: %v\n%.4000s\n%.4000s", value, attack, errOurs, errTheirs, &got, &want)
			}
		}
	}
}
