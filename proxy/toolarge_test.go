package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

// A141: cookies that a sibling host set until nothing works any more. The page says so and has a button, and the button works.
func TestA141_TooManyCookiesHaveAWayOut(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/")
	many, large := strings.TrimSuffix(strings.Repeat("a=1; ", 1001), "; "), "bomb="+strings.Repeat("x", 70<<10)
	before := len(s.App.Requests())
	for name, cookies := range map[string]string{"many": many, "large": large} {
		a := b.Do("GET", "/page", nil, map[string]string{"Cookie": cookies})
		if a.StatusCode != http.StatusRequestHeaderFieldsTooLarge || !strings.Contains(a.Text, `action="/oauth2/clear-cookies"`) {
			t.Errorf("%s: %s: %s", name, a.Status, a.Text)
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be cached", name)
		}
		a = b.Do("POST", "/oauth2/clear-cookies", nil, map[string]string{"Cookie": cookies, "Sec-Fetch-Site": "cross-site"})
		if a.StatusCode != http.StatusForbidden || a.Header.Get("Clear-Site-Data") != "" {
			t.Errorf("%s: another site's form: %s", name, a.Status)
		}
		a = b.Do("POST", "/oauth2/clear-cookies", nil, map[string]string{"Cookie": cookies})
		if a.StatusCode != http.StatusOK || a.Header.Get("Clear-Site-Data") != `"cookies"` || len(a.Header["Set-Cookie"]) == 0 {
			t.Errorf("%s: the button: %s %q", name, a.Status, a.Header)
		}
	}
	a := b.Do("GET", "/page", nil, map[string]string{"X-Large": strings.Repeat("x", 70<<10)})
	if a.StatusCode != http.StatusRequestHeaderFieldsTooLarge || strings.Contains(a.Text, "clear-cookies") {
		t.Errorf("a large header that is no cookie: %s: %s", a.Status, a.Text)
	}
	if a := b.Do("GET", "/"+strings.Repeat("x", 70<<10), nil, nil); a.StatusCode != http.StatusRequestURITooLong {
		t.Errorf("a long address: %s", a.Status)
	}
	if len(s.App.Requests()) != before {
		t.Error("a request that is too large reached the application")
	}
}
