package main_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the layout: a package imports only packages of lower floors. A new package needs a line here; so does an exception.
var floors = map[string]int{
	"postern/config":                    0,
	"postern/session/seal":              0,
	"postern/proxy/page":                0,
	"postern/proxy/expr":                0,
	"postern/proxy/metrics":             0,
	"postern/proxy/wire":                0,
	"postern/proxy/idp/idptest":         0,
	"postern/proxy/idp/simtest":         0,
	"postern/session":                   1,
	"postern/proxy/access":              2,
	"postern/proxy/idp":                 2,
	"postern/session/memstore":          2,
	"postern/session/redisstore":        2,
	"postern/session/storetest":         2,
	"postern/session/redistest":         0,
	"postern/proxy":                     3,
	"postern/proxy/proxytest":           4,
	"postern/proxy/proxytest/canary":    0,
	"postern/cmd/postern":               4,
	"postern/cmd/postern/oauth2proxy":   0,
	"postern/cmd/postern/doctor":        3,
	"postern/cmd/postern/e2e":           4,
	"postern/cmd/postern/chaos":         4,
	"postern/cmd/postern/proctest":      0,
	"postern/cmd/demo":                  4,
	"postern/cmd/bench":                 4,
	"postern/cmd/scale":                 4,
	"postern/proxy/tracing":             0,
	"postern/proxy/tracing/tracingtest": 0,
	"postern/cmd/postern/attack":        4,
}

// onlyFor names packages that few may import, beside any test.
var onlyFor = map[string]struct {
	importers []string
	why       string
}{
	"postern/config": {
		[]string{"postern/proxy", "postern/proxy/access", "postern/cmd/postern", "postern/cmd/postern/doctor", "postern/cmd/demo", "postern/cmd/scale", "postern/proxy/proxytest"},
		"every constructor takes its narrow part, so only proxy.New and cmd know the file",
	},
	"postern/session/memstore": {
		[]string{"postern/cmd/postern", "postern/cmd/demo", "postern/proxy/proxytest"},
		"proxy is handed a session.Store",
	},
	"postern/session/redisstore": {
		[]string{"postern/cmd/postern", "postern/cmd/postern/doctor", "postern/cmd/bench"},
		"proxy is handed a session.Store",
	},
	"postern/session/seal": {
		[]string{"postern/session", "postern/proxy", "postern/cmd/postern", "postern/cmd/postern/doctor", "postern/cmd/demo", "postern/cmd/bench", "postern/proxy/proxytest"},
		"a store never sees what is sealed",
	},
	"postern/proxy/idp": {
		[]string{"postern/proxy", "postern/cmd/postern", "postern/cmd/postern/doctor", "postern/proxy/proxytest"},
		"only proxy, doctor and the sign-in from a terminal speak to providers; session is handed a refresh function",
	},
	"postern/session/storetest":         {nil, testHelper},
	"postern/session/redistest":         {nil, testHelper},
	"postern/cmd/postern/proctest":      {nil, testHelper},
	"postern/proxy/proxytest":           {nil, testHelper},
	"postern/proxy/proxytest/canary":    {[]string{"postern/proxy/proxytest"}, testHelper},
	"postern/proxy/idp/simtest":         {nil, testHelper},
	"postern/proxy/tracing/tracingtest": {nil, testHelper},
	"postern/proxy/idp/idptest":         {[]string{"postern/proxy/proxytest", "postern/cmd/demo", "postern/cmd/bench"}, testHelper},
}

const testHelper = "it is a helper of tests"

// neverShipped are import paths, whole or up to a slash, that must not end up in the postern program.
var neverShipped = []string{
	"testing",
	"net/http/httptest",
	"postern/cmd/demo",
	"postern/proxy/idp/idptest",
	"postern/proxy/idp/simtest",
	"postern/proxy/proxytest",
	"postern/proxy/tracing/tracingtest",
	"postern/session/storetest",
	"postern/session/redistest",
	"postern/cmd/postern/proctest",
	"github.com/chromedp",
	"github.com/google/go-cmp",
	"github.com/rogpeppe/go-internal",
	"github.com/santhosh-tekuri/jsonschema",
	"go.uber.org/goleak",
}

// restricted are types that only some packages may name.
var restricted = []struct {
	importPath, name string
	allowed          func(file string) bool
	why              string
}{
	{"postern/config", "Config", func(file string) bool {
		return slices.Contains([]string{"proxy/proxy.go", "proxy/build.go"}, file) || under(file, "cmd") || under(file, "proxy/proxytest")
	}, "only proxy.New sees the whole configuration"},
	{"net/http", "ResponseWriter", func(file string) bool {
		return path.Dir(file) == "proxy" || under(file, "proxy/page") || under(file, "cmd") || under(file, "proxy/idp/idptest") ||
			under(file, "proxy/idp/simtest") || under(file, "proxy/tracing/tracingtest") || under(file, "proxy/proxytest")
	}, "leaves do not know the HTTP flow"},
}

func under(file, dir string) bool { return strings.HasPrefix(file, dir+"/") }

// TestFloors holds the imports of every package against the layout.
func TestFloors(t *testing.T) {
	packages := list(t, "./...")
	for importPath := range floors {
		if !slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == importPath }) {
			t.Errorf("%s is gone: take its line out", importPath)
		}
	}
	for _, p := range packages {
		floor, known := floors[p.ImportPath]
		if !known {
			t.Errorf("%s has no floor: give it one in floors_test.go, as low as it can be", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !ours(imported) {
				continue
			}
			if below, known := floors[imported]; known && below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down", p.ImportPath, floor, imported, below)
			}
			if rule, has := onlyFor[imported]; has && !slices.Contains(rule.importers, p.ImportPath) {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, rule.why)
			}
		}
	}
}

// TestFloorsShipNoTestHelper looks at everything that the program is linked from.
func TestFloorsShipNoTestHelper(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/postern") {
		for _, banned := range neverShipped {
			if p.ImportPath == banned || under(p.ImportPath, banned) {
				t.Errorf("the postern program would contain %s", p.ImportPath)
			}
		}
	}
}

// TestFloorsRestrictedTypes finds packages that name a type which is not for them, and init functions.
func TestFloorsRestrictedTypes(t *testing.T) {
	root := moduleRoot(t)
	for _, p := range list(t, "./...") {
		for _, name := range p.GoFiles {
			full := filepath.Join(p.Dir, name)
			file, err := filepath.Rel(root, full)
			if err != nil {
				t.Fatal(err)
			}
			file = filepath.ToSlash(file)
			parsed, err := parser.ParseFile(token.NewFileSet(), full, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range restricted {
				if !r.allowed(file) && names(parsed, r.importPath, r.name) {
					t.Errorf("%s names %s.%s: %s", file, r.importPath, r.name, r.why)
				}
			}
			for _, d := range parsed.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s has an init function: wire things in proxy/build.go", file)
				}
			}
		}
	}
}

// names reports whether file has the selector of that name in the package of that import path.
func names(file *ast.File, importPath, name string) bool {
	var local string
	for _, spec := range file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != importPath {
			continue
		}
		local = path.Base(importPath)
		if spec.Name != nil {
			local = spec.Name.Name
		}
	}
	if local == "" {
		return false
	}
	found := local == "." // every name in sight
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == name {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == local {
				found = true
			}
		}
		return !found
	})
	return found
}

func ours(importPath string) bool { return strings.HasPrefix(importPath, "postern/") }

// listed is what `go list -json` tells of a package.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// list runs go list in the root of the module.
func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports"}, args...)...)
	cmd.Dir = moduleRoot(t)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %s", exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	slices.SortFunc(packages, func(a, b listed) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	return packages
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}
