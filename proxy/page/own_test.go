package page_test

import (
	"bytes"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"postern/proxy/page"
)

// own is a folder with one file.
func own(name, data string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(data)}} }

// builtin is one of our templates, changed.
func builtin(t *testing.T, name, before, after string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("templates", name))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), before) {
		t.Fatalf("%s does not hold %q", name, before)
	}
	return strings.ReplaceAll(string(data), before, after)
}

func TestOwnTemplateTakesThePlaceOfOurs(t *testing.T) {
	p := branded(page.Options{Templates: own("head.html", builtin(t, "head.html", "<header>", `<header class="acme"><p>{{call .Say "foot.support"}}, {{.Site}}</p>`))})
	for _, s := range samplesOf(p) {
		res := get(t, inLanguage("de", s.show))
		b := body(t, res)
		if !strings.Contains(b, `<header class="acme"><p>Hilfe, Example Wiki</p>`) {
			t.Errorf("%s is ours", s.name)
		}
		if directives(t, res)["style-src"] != styleHash(t, b) {
			t.Errorf("%s: the style is not allowed", s.name)
		}
	}
}

func TestOwnStyleIsAllowed(t *testing.T) {
	p := branded(page.Options{Templates: own("page.css", "h1 > a {\r\n  color: #123;\r}\n"), Colors: page.Colors{Accent: "#0b57d0"}})
	res := get(t, func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, page.Notice{}) })
	b := body(t, res)
	if !strings.Contains(b, "<style>h1 > a {\n  color: #123;\n}\n") || directives(t, res)["style-src"] != styleHash(t, b) {
		t.Error("the style is not there or not allowed")
	}
	for _, css := range []string{"", "a{}</style><script>alert(1)</script>", "a{}</STYLE >", "a\x00{}"} {
		if got := problemsOf(t, page.Options{Templates: own("page.css", css)}); !strings.Contains(got, "templates: page.css: is empty or ends its own element") {
			t.Errorf("%q: %q", css, got)
		}
	}
}

// What an operator's template says of a stranger's text is escaped as ours are.
func TestOwnTemplatesEscape(t *testing.T) {
	for _, attack := range attacks {
		p, err := page.New(page.Options{Title: attack, Templates: own("foot.html", builtin(t, "foot.html", "</body>", `<p title="{{.Site}}" class={{.Site}}>{{.Site}}</p></body>`))})
		if err != nil {
			t.Fatalf("%.30q: %v", attack, err)
		}
		doc := parse(t, body(t, get(t, func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, page.Notice{}) })))
		for _, bad := range []string{"script", "iframe", "base", "img", "form"} {
			if n := len(find(doc, bad)); n > 0 {
				t.Errorf("%.30q: %d %s", attack, n, bad)
			}
		}
	}
}

// A page without what makes it work would lock people out: it is refused at load, and the message says what is missing where.
func TestOwnTemplateWithoutWhatItNeedsIsRefused(t *testing.T) {
	for _, tt := range []struct{ file, before, after, want string }{
		{"signin.html", `name="password"`, `name="pass"`, "templates: signin.html: the page lacks the field password of the form to /sample/start"},
		{"signin.html", `{{- template "hidden" .Fields}}`, "", "templates: signin.html: the page lacks the hidden field sample with its value in the form to /sample/start (value-1)"},
		{"signin.html", `method="post"`, `method="get"`, "templates: signin.html: the page lacks the form to /sample/start"},
		{"signin.html", `<button class="button primary" type="submit">{{call $.Say "link.sign_in"}}</button>`, "", "lacks the button of the form to /sample/start"},
		{"hidden.html", `value="{{$value}}"`, `value=""`, "templates: confirm.html: the page lacks the hidden field sample"},
		{"confirm.html", `href="{{.}}"`, `href="/"`, "lacks the link to /sample/back"},
		{"notice.html", ` target="_top"`, ``, `lacks the link to /sample/sign-in with target="_top"`},
		{"head.html", `<meta http-equiv="refresh" content="{{.}}">`, "", "templates: continue.html: the page lacks the meta element that goes on: 0; url=/sample/on?a=b&c=d"},
		{"head.html", ` dir="{{.Dir}}"`, "", `lacks lang="en" dir="ltr" of html`},
		{"post.html", "<script>{{.Script}}</script>", "", "templates: post.html: the page lacks the script document.forms[0].submit()"},
		{"fragment.html", `id="on"`, "", `lacks the link to /sample/start?rd=%2F with id="on"`},
		{"fragment.html", `<script src="{{.ScriptURL}}"></script>`, "", "lacks the script at /sample/fragment.js"},
		{"kept.html", `{{- template "hidden" .DropMarker}}`, "", "lacks the hidden field rd with its value in the form to /sample/drop (/sample/back)"},
		{"session.html", `value="{{.ID}}"`, `value="others"`, "lacks the hidden field end with its value in the form to /sample/end (sample-1)"},
		{"foot.html", `<a href="{{.URL}}">{{.Text}}</a>`, "", "lacks the link to https://help.example.com/"},
	} {
		got := problemsOf(t, page.Options{Support: page.Support{URL: "https://help.example.com/"}, Templates: own(tt.file, builtin(t, tt.file, tt.before, tt.after))})
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s without %s: %q, want %q", tt.file, tt.before, got, tt.want)
		}
	}
}

func TestOwnTemplateThatFailsIsRefusedWithItsLine(t *testing.T) {
	for _, tt := range []struct{ file, text, want string }{
		{"notice.html", "<p>\n{{.Heading", "templates: notice.html:2: unclosed action"},
		{"notice.html", "<p>\n{{if}}", "templates: notice.html:2: missing value for if"},
		{"notice.html", "\n\n{{.NoSuchThing}}", "templates: notice.html:3:2: executing"},
		{"notice.html", `{{template "no-such"}}`, `templates: notice.html:1:11:`},
		{"notice.html", `{{call .Say "no.such.text"}}`, `there is no text "no.such.text"`},
		{"notice.html", `{{call .Say "signed_in_as" "name"}}`, "the values are no pairs"},
		{"notice.html", `{{nosuchfunction}}`, `templates: notice.html:1: function "nosuchfunction" not defined`},
		{"notice.html", `<a href="{{if .Text}}"{{end}}>`, "templates: notice.html:1"},
		{"notice.html", `{{index .Links 99}}`, "index out of range"},
		{"notice.html", `{{call .Heading}}`, "templates: notice.html:1"},
		{"notice.html", `{{.Say "link.home"}}`, "Say has arguments but cannot be invoked as function"},
	} {
		if got := problemsOf(t, page.Options{Templates: own(tt.file, tt.text)}); !strings.Contains(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

// A template that does not end, or grows, is refused at load and does not take the process along.
func TestOwnTemplateThatDoesNotEndIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"grows":              `{{range 1000000000}}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{{end}}`,
		"loops":              `{{range 1000000000}}{{range 1000000000}}{{end}}{{end}}`,
		"calls itself":       `{{template "notice" .}}`,
		"calls itself twice": `{{define "x"}}{{if lt (len .) 40}}{{template "x" (print . "x")}}{{template "x" (print . "x")}}{{end}}{{end}}{{template "x" ""}}`,
	} {
		if got := problemsOf(t, page.Options{Templates: own("notice.html", text)}); !strings.Contains(got, "templates: notice.html:") {
			t.Errorf("%s: %.200q", name, got)
		}
	}
}

// What passes the samples may fail with what a person's page holds: they get our page then, and the log says why.
func TestOwnTemplateThatFailsLaterGivesWay(t *testing.T) {
	for name, text := range map[string]string{
		"fails": `{{if eq .RequestID "unseen"}}{{index .Details 99}}{{end}}`,
		"grows": `{{if eq .RequestID "unseen"}}{{range 100000}}xxxxxxxxxxxxxxxx{{end}}{{end}}`,
	} {
		var log bytes.Buffer
		p := branded(page.Options{Templates: own("notice.html", builtin(t, "notice.html", "<main>", "<main>own "+text)), Log: slog.New(slog.NewTextHandler(&log, nil))})
		show := func(id string) string {
			return body(t, get(t, func(w http.ResponseWriter, r *http.Request) {
				p.Notice(w, r, page.Notice{Status: 403, Say: "denied", RequestID: id})
			}))
		}
		if b := show("seen"); !strings.Contains(b, "<main>own") || log.Len() > 0 {
			t.Errorf("%s: the own page is not shown: %s", name, log.String())
		}
		b := show("unseen")
		if strings.Contains(b, "<main>own") || !strings.Contains(b, "No access") || len(b) > 64<<10 {
			t.Errorf("%s: a page of %d bytes", name, len(b))
		}
		if !strings.Contains(log.String(), `msg="own template failed" page=notice`) {
			t.Errorf("%s: the log says %q", name, log.String())
		}
	}
}

func TestWhatIsNoFileOfOursIsNamed(t *testing.T) {
	for name, want := range map[string]string{
		"notise.html":      "templates: notise.html: is nothing that Postern reads. Known: confirm.html, continue.html",
		"logo.svg":         "templates: logo.svg: is nothing",
		"texts/german.yml": "templates: texts/german.yml: is nothing",
		"texts/DE.yaml":    "templates: texts/DE.yaml: is not named after a language",
		"texts/../x.yaml":  "templates: ",
		"texts/x_y.yaml":   "templates: texts/x_y.yaml: is not named after a language",
		"sub/notice.html":  "templates: sub: is not a regular file",
		"texts/de.yaml":    "templates: texts/de.yaml:1: a is no text that any page says",
	} {
		if got := problemsOf(t, page.Options{Templates: own(name, "a: b")}); !strings.Contains(got, want) && fs.ValidPath(name) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := problemsOf(t, page.Options{Templates: own("notice.html", strings.Repeat("x", 256<<10+1))}); !strings.Contains(got, "notice.html: is larger than 256 KiB") {
		t.Errorf("%.200q", got)
	}
	many := fstest.MapFS{}
	for i := range 200 {
		many["texts/"+strings.Repeat("x", i+1)+".yaml"] = &fstest.MapFile{}
	}
	if got := problemsOf(t, page.Options{Templates: many}); !strings.Contains(got, "has more than 100 files") {
		t.Errorf("%.200q", got)
	}
}

// The folder is opened as an os.Root: links inside it work, as Kubernetes makes them, and none leads out. A pipe is not waited for.
func TestOwnFilesAreOfTheFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	open := func() string {
		root, err := os.OpenRoot(filepath.Join(dir, "pages"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		return problemsOf(t, page.Options{Templates: root.FS()})
	}
	write("secret.yaml", "denied.title: secret\n")
	write("pages/..2026_11_22/page.css", "a{}")
	link("..2026_11_22", "pages/..data")
	link("..data/page.css", "pages/page.css")
	if got := open(); got != "" {
		t.Errorf("a mounted ConfigMap: %s", got)
	}
	link("../secret.yaml", "pages/notice.html")
	if got := open(); !strings.Contains(got, "templates: notice.html: cannot be read: ") || strings.Contains(got, dir) {
		t.Errorf("a link that leads out: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "pages/notice.html")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pages/notice.html"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := open(); !strings.Contains(got, "templates: notice.html: is not a regular file") {
		t.Errorf("a pipe: %q", got)
	}
}
