package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/page"
)

// A form to another origin that sends itself, and by its button where scripts are off; nothing but its own script may run.
func TestPostSendsItsForm(t *testing.T) {
	fields := map[string]string{"id_token_hint": strings.Repeat("e30.", 5000), "state": `"><script>alert(1)</script>`, "post_logout_redirect_uri": "https://wiki.example.com/oauth2/logout/callback"}
	for url, formAction := range map[string]string{
		"https://id.example.com/end?tenant=7": "'self' https:",
		"http://127.0.0.1:9000/end?a=b":       "'self' https: http://127.0.0.1:9000",
		"http://127.0.0.1:9000?a=b":           "'self' https: http://127.0.0.1:9000",
	} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) { pages().Post(w, r, page.SigningOut, url, fields) })
		text := body(t, res)
		doc := parse(t, text)
		forms, buttons, scripts := find(doc, "form"), find(doc, "button"), find(doc, "script")
		if len(forms) != 1 || attr(forms[0], "method") != "post" || attr(forms[0], "action") != url || len(buttons) != 1 || len(scripts) != 1 {
			t.Fatalf("the page is %s", text)
		}
		got := map[string]string{}
		for _, n := range find(doc, "input") {
			if attr(n, "type") == "hidden" {
				got[attr(n, "name")] = attr(n, "value")
			}
		}
		if diff := cmp.Diff(fields, got); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
		if strings.Contains(text, "by itself.") || !strings.Contains(text, "press "+content(buttons[0])+".") {
			t.Errorf("without scripts the page says what is not so: %s", content(find(doc, "main")[0]))
		}
		sum := sha256.Sum256([]byte(scripts[0].FirstChild.Data))
		csp := directives(t, res)
		if want := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; csp["script-src"] != want || csp["default-src"] != "'none'" {
			t.Errorf("script-src %q, want %q", csp["script-src"], want)
		}
		if csp["form-action"] != formAction || csp["frame-ancestors"] != "'none'" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", csp)
		}
	}
	for _, url := range []string{"javascript:alert(1)", "//evil.example", ""} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) { pages().Post(w, r, page.SigningOut, url, fields) })
		if text := body(t, res); strings.Contains(text, "<form") || strings.Contains(text, "<script") {
			t.Errorf("%q: %s", url, text)
		}
	}
	// No other page runs any script, but for the one that keeps a fragment: its own, which is a file of ours.
	for _, s := range samples() {
		want := map[string]string{"fragment": "'self'"}[s.name]
		if csp := directives(t, get(t, s.show)); csp["script-src"] != want {
			t.Errorf("%s allows scripts %q", s.name, csp["script-src"])
		}
	}
}
