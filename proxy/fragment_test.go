package proxy_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

func fragmentStack(t *testing.T) *proxytest.Stack {
	return proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}"}
  - {path: /app, upstream: "${UPSTREAM}", keep_fragment: true}
`})
}

var onLink = regexp.MustCompile(`<a class="button primary" id="on" href="([^"]*)">`)

// onward is the link of the page that keeps a fragment.
func onward(t *testing.T, a proxytest.Answer) string {
	t.Helper()
	m := onLink.FindStringSubmatch(a.Text)
	if a.StatusCode != http.StatusOK || m == nil {
		t.Fatalf("%s: %s, not the page that keeps a fragment: %.500s", a.URL, a.Status, a.Text)
	}
	return html.UnescapeString(m[1])
}

// withFragment is what the page's script goes to: the link's address and location.hash as encodeURIComponent writes it.
func withFragment(link, hash string) string { return link + url.QueryEscape(hash) }

func TestFragmentSurvivesSignIn(t *testing.T) {
	s := fragmentStack(t)
	for hash, want := range map[string]string{
		"#/orders/7":                      "#/orders/7",
		"#/orders?tab=a&b=%2F":            "#/orders?tab=a&b=%2F",
		"":                                "",
		`#"><script>`:                     "#%22%3E%3Cscript%3E", // A44
		`#a\b`:                            "",
		"#a\nb":                           "",
		"#" + strings.Repeat("x", 40<<10): "",
		"#" + strings.Repeat("x", 1000):   "", // too long for the attempt's cookie
	} {
		b := s.Browser()
		page := b.Step("/app/?x=1&y=%23")
		if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "script-src 'self'") {
			t.Errorf("Content-Security-Policy: %s", csp)
		}
		if page.Header.Get("Cache-Control") != "no-store" || page.Header.Get("Referrer-Policy") != "no-referrer" || len(page.Cookies()) != 0 {
			t.Errorf("headers %v", page.Header)
		}
		if strings.Contains(page.Text, "<script>") || !strings.Contains(page.Text, `<script src="/oauth2/fragment.js"></script>`) {
			t.Errorf("the page holds a script of its own: %s", page.Text)
		}
		start := b.Step(withFragment(onward(t, page), hash))
		if len(hash) < 8<<10 && start.StatusCode != http.StatusSeeOther || start.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Fatalf("start: %s %v", start.Status, start.Header)
		}
		for _, c := range start.Cookies() {
			if len(c.Name)+len(c.Value) > 700 {
				t.Errorf("the attempt's cookie has %d bytes", len(c.Value))
			}
		}
		callback := b.Step(start.Header.Get("Location"))
		end := b.Step(callback.Header.Get("Location"))
		if got := end.Header.Get("Location"); got != "/app/?x=1&y=%23"+want {
			t.Errorf("%.40q: sign-in leads to %q, want %q", hash, got, "/app/?x=1&y=%23"+want)
		}
	}
	if log := s.Log.String(); strings.Contains(log, "orders") {
		t.Errorf("a fragment is in the log: %s", log)
	}
}

func TestWithoutScriptsTheLinkGoesOn(t *testing.T) {
	s := fragmentStack(t)
	b := s.Browser()
	if got := b.Go(onward(t, b.Step("/app/page?x=1"))).Received(t); got.Target != "/app/page?x=1" {
		t.Errorf("the application saw %s", got.Target)
	}
}

func TestOnlyNavigationsOfItsRouteGetTheFragmentPage(t *testing.T) {
	s := fragmentStack(t)
	b := s.Browser()
	if a := b.Step("/other"); a.StatusCode != http.StatusSeeOther {
		t.Errorf("another route answers %s", a.Status)
	}
	if a := b.Fetch("/app/data"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a fetch gets %s", a.Status)
	}
	b.Go("/other")
	if a := b.Go("/app/"); a.StatusCode != http.StatusOK || len(b.Trail) != 1 || a.Received(t).Target != "/app/" {
		t.Errorf("with a session: %s after %v", a.Status, b.Trail)
	}
}

func TestFragmentScriptIsOurs(t *testing.T) {
	a := fragmentStack(t).Browser().Do(http.MethodGet, "/oauth2/fragment.js", nil, map[string]string{
		"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script", "Sec-Fetch-Site": "same-origin", "Accept": "*/*",
	})
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "text/javascript; charset=utf-8" || a.Header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(a.Text, "location.replace(") || !strings.Contains(a.Text, "encodeURIComponent(location.hash)") {
		t.Errorf("%s %v %s", a.Status, a.Header, a.Text)
	}
}
