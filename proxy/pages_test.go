package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/config"
	"postern/proxy"
	"postern/proxy/proxytest"
	"postern/session/memstore"
)

// People are answered in their language, programs in English.
func TestPagesSpeakTheBrowsersLanguage(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	for accept, want := range map[string]string{"de-AT,de;q=0.9": "Sie sind nicht angemeldet", "ja": "サインインしていません", "": "You are not signed in"} {
		a := b.Do("GET", "/oauth2", nil, map[string]string{"Accept-Language": accept})
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "<h1>"+want+"</h1>") {
			t.Errorf("%q: %s: %s", accept, a.Status, a.Text)
		}
		if !strings.Contains(strings.Join(a.Header.Values("Vary"), ","), "Accept-Language") {
			t.Errorf("%q: Vary %q", accept, a.Header.Values("Vary"))
		}
	}
	a := b.Do("GET", "/oauth2/nothing", nil, map[string]string{"Accept-Language": "de", "Accept": "application/json"})
	if a.StatusCode != http.StatusNotFound || !strings.Contains(a.Text, `"title":"Nothing here"`) {
		t.Errorf("a program is answered in German: %s", a.Text)
	}
	a = b.Do("GET", "/", nil, map[string]string{"Accept-Language": "de", "Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"})
	if !strings.Contains(a.Text, `"title":"Sign-in required"`) {
		t.Errorf("a program is answered with %s", a.Text)
	}
}

// A page about an ended session, its account and the sign-out button, with an operator's own look: everything works as it does on ours.
func TestBrandedPagesWork(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("logo.svg", `<svg xmlns="http://www.w3.org/2000/svg"/>`)
	write("pages/confirm.html", `{{template "head" .}}<main class="acme"><h1>{{.Heading}}</h1><form method="post" action="{{.Action}}">{{template "hidden" .Fields}}<button>{{.Button}}</button></form>`+
		`{{with .Cancel}}<a href="{{.}}">{{call $.Say "link.cancel"}}</a>{{end}}</main>{{template "foot" .}}`)
	write("pages/texts/en.yaml", "sign_out.title: Leaving already?\n")
	s := proxytest.New(t, proxytest.Options{Env: map[string]string{"DIR": dir}, Config: proxytest.Minimal +
		"pages: {title: Example AG, logo: \"${DIR}/logo.svg\", colors: {accent: \"#0b57d0\"}, support: {url: \"mailto:it@example.com\", text: IT desk}, templates: \"${DIR}/pages\"}\n"})
	b := s.Browser()
	b.Go("/")
	question := b.Go("/oauth2/logout")
	for _, want := range []string{`<main class="acme"><h1>Leaving already?</h1>`, "<span>Example AG</span>", `<img class="logo" src="data:image/svg`, `<a href="mailto:it@example.com">IT desk</a>`, "--accent: #0b57d0"} {
		if !strings.Contains(question.Text, want) {
			t.Errorf("the page lacks %s: %s", want, question.Text)
		}
	}
	if out := b.Submit(question, nil); !strings.Contains(out.Text, "You are signed out") {
		t.Errorf("the button: %s: %s", out.Status, out.Text)
	}
}

// What is wrong with own pages has its place in the file; a Proxy that serves already knows nothing of it.
func TestBadPagesMakeNoProxy(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct{ pages, file, text, want string }{
		"template": {`{templates: "${DIR}"}`, "notice.html", "\n{{.Nothing}}", "x.yaml:2:9: pages.templates: notice.html:2:2: "},
		"texts":    {`{templates: "${DIR}"}`, "texts/de.yaml", "\n\nx: y", "x.yaml:2:9: pages.templates: texts/de.yaml:3: x is no text that any page says. See "},
		"logo":     {`{logo: "${DIR}/logo.svg"}`, "logo.svg", "<html></html>", "x.yaml:2:9: pages.logo: is not an image that browsers show. Name an SVG"},
		"language": {`{languages: [xx]}`, "notice.html", "", `x.yaml:2:21: pages.languages[0]: there are no texts in "xx"`},
		"colour":   {`{colors: {accent: "#fc0"}}`, "notice.html", "", "x.yaml:2:18: pages.colors.accent: #ffcc00 has a contrast of 1.5:1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, tt.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			text := "\npages: " + tt.pages + proxytest.Minimal
			env := map[string]string{"DIR": dir, "LISTEN": "127.0.0.1:4180", "ISSUER": "http://127.0.0.1:9", "UPSTREAM": "http://127.0.0.1:9"}
			cfg, err := config.Parse("x.yaml", []byte(text), config.LoadOptions{LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := proxy.New(cfg, proxy.Env{Store: memstore.New(memstore.Options{})}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want %s", err, tt.want)
			}
			found := append(proxy.Check(cfg), proxy.CheckFiles(cfg)...)
			if len(found) != 1 || !strings.Contains(found.Error(), tt.want) {
				t.Errorf("Check: %v, want %s", found, tt.want)
			}
		})
	}
}
