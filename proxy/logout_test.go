package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

func TestSignOutEndsTheSessionHereAndAtTheProvider(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	value := b.Cookie(sessionCookie).Value
	a := b.Post("/oauth2/logout", nil)
	if a.StatusCode != http.StatusOK || a.Header.Get("Location") != "" { // a page: form-action would hold a redirect
		t.Fatalf("%s %s", a.Status, a.Text)
	}
	u := mustURL(t, a.Onward())
	q := u.Query()
	if !strings.HasPrefix(u.String(), s.Provider.URL) || q.Get("id_token_hint") == "" || q.Get("post_logout_redirect_uri") != s.URL+"/oauth2/logout/callback" || q.Get("state") == "" {
		t.Errorf("end_session: %s", u)
	}
	expired := false
	for _, c := range a.Cookies() {
		expired = expired || c.Name == sessionCookie && c.MaxAge < 0 && c.Path == "/" && c.HttpOnly
	}
	if !expired || b.Cookie(sessionCookie) != nil {
		t.Errorf("the cookie was not expired: %v", a.Header.Values("Set-Cookie"))
	}
	if end := b.Go(u.String()); end.StatusCode != http.StatusOK || !strings.Contains(end.Text, "You are signed out") {
		t.Errorf("in the end: %s %.200s", end.Status, end.Text)
	}
	if s.Provider.Calls(idptest.EndSession) != 1 {
		t.Error("the provider was not asked")
	}
	thief := s.Browser()
	thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: value, Path: "/"}})
	if a := thief.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"signed_out"`) {
		t.Errorf("the old cookie: %s %s", a.Status, a.Text)
	}
}

// A89: a link, an image or a form of another site signs nobody out.
func TestA89_OtherSitesCannotSignOut(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	for name, header := range map[string]map[string]string{
		"typed address":  {"Sec-Fetch-Site": "none"},
		"link elsewhere": {"Sec-Fetch-Site": "cross-site"},
		"sibling":        {"Sec-Fetch-Site": "same-site"},
		"image":          {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
		"frame":          {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"},
		"old browser":    {"Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Sec-Fetch-Dest": ""},
	} {
		a := b.Do("GET", "/oauth2/logout", nil, header)
		if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `method="post"`) {
			t.Errorf("GET from %s: %s", name, a.Status)
		}
	}
	for name, header := range map[string]map[string]string{
		"other site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.com"},
		"sibling":    {"Sec-Fetch-Site": "same-site", "Origin": "https://sibling.example.com"},
		"by origin":  {"Sec-Fetch-Site": "", "Origin": "https://evil.com"},
		"null":       {"Sec-Fetch-Site": "", "Origin": "null"},
	} {
		if a := b.Do("POST", "/oauth2/logout", nil, header); a.StatusCode != http.StatusForbidden || len(a.Cookies()) > 0 {
			t.Errorf("POST from %s: %s", name, a.Status)
		}
	}
	b.Fetch("/").Received(t)
	if a := b.Do("GET", "/oauth2/logout", nil, map[string]string{"Sec-Fetch-Site": "same-origin"}); a.StatusCode != http.StatusSeeOther {
		t.Errorf("a link of our own: %s", a.Status)
	}
}

func TestSignOutTakesTheSessionsOfTheSameSignInAlong(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.MutateIDToken(func(_, claims map[string]any) { claims["sid"] = "one-session-at-the-provider" })
	one, two := s.Browser(), s.Browser()
	one.Go("/").Received(t)
	two.Go("/").Received(t)
	one.Post("/oauth2/logout", nil)
	if a := two.Fetch("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the other session of the same sid: %s", a.Status)
	}
}

func TestSignOutWithoutSessionLandsSafely(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	a := b.Post("/oauth2/logout", nil)
	if a.Header.Get("Location") != "/oauth2/logout/callback" {
		t.Errorf("%s %s", a.Status, a.Header.Get("Location"))
	}
	for _, query := range []string{"", "?state=", "?state=foreign", "?state=a&state=b", "?error=x"} { // rp-init-logout-other-state, -no-state
		if a := b.Go("/oauth2/logout/callback" + query); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", query, a.Status)
		}
	}
}

func TestSignOutWhileTheStoreIsDownSaysSo(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Store: store})
	b := s.Browser()
	b.Go("/").Received(t)
	store.down.Store(true)
	a := b.Post("/oauth2/logout", nil)
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Cookies()) > 0 {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	store.down.Store(false)
	b.Fetch("/").Received(t)
}
