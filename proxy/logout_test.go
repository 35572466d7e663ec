package proxy_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

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

// -rp-init-logout with a wanted address: it travels sealed in the state and comes back by it.
func TestSignOutLeadsOnToTheWantedAddress(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `server: {`, `server: {return_hosts: [www.example.com], `, 1) +
		"  - {path: /public, access: public, upstream: \"${UPSTREAM}\"}\n"})
	for _, rd := range []string{"/public/bye?a=b", s.URL + "/public/bye?a=b", "https://www.example.com/bye"} {
		want := strings.TrimPrefix(rd, s.URL)
		b := s.Browser()
		b.Go("/").Received(t)
		ask := b.Go("/oauth2/logout?rd=" + url.QueryEscape(rd)) // typed, so it asks first
		a := b.Post("/oauth2/logout", url.Values{"rd": {inputValue(t, ask.Text, "rd")}})
		there := mustURL(t, a.Onward())
		if state := there.Query().Get("state"); !strings.HasPrefix(there.String(), s.Provider.URL) || strings.Contains(state, "bye") {
			t.Fatalf("%s: led to %s", rd, there)
		}
		back := b.Step(there.String())
		if end := b.Step(back.Header.Get("Location")); end.StatusCode != http.StatusSeeOther || end.Header.Get("Location") != want {
			t.Errorf("%s: ended at %s %q", rd, end.Status, end.Header.Get("Location"))
		}
		if isSignedIn(t, b) {
			t.Errorf("%s: still signed in", rd)
		}
	}
	// A link of a page of ours asks nothing; without a session there is no provider to go to.
	b := s.Browser()
	if a := b.Do("GET", "/oauth2/logout?rd=/public/bye", nil, map[string]string{"Sec-Fetch-Site": "same-origin"}); a.Header.Get("Location") != "/public/bye" {
		t.Errorf("without a session: %s %s", a.Status, a.Header.Get("Location"))
	}
	if a := b.Do("GET", "/oauth2/logout?rd=/", nil, map[string]string{"Sec-Fetch-Site": "same-origin"}); a.Header.Get("Location") != "/" {
		t.Errorf("the first page: %s %s", a.Status, a.Header.Get("Location"))
	}
}

func inputValue(t *testing.T, page, name string) string {
	t.Helper()
	m := regexp.MustCompile(`<input type="hidden" name="` + name + `" value="([^"]*)"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no field %s in %.1000s", name, page)
	}
	return html.UnescapeString(m[1])
}

// A42, V-19: the corpus of return addresses, as an address after signing out. All end on our page, not at another host and not in a loop.
func TestA42_SignOutLeadsToNoOtherHost(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	for _, rd := range []string{
		"//evil.com", "///evil.com", `/\evil.com`, `\\evil.com`, `/\/evil.com`, "/%2fevil.com", "/%5cevil.com", "\t//evil.com", " //evil.com", "/\r\nSet-Cookie: a=b",
		"https:evil.com", "https:///evil.com", `https:\\evil.com`, "https://evil.com", s.URL + "@evil.com", s.URL + ".evil.com", "javascript:alert(1)", "data:text/html,x",
		"https://wiki。example.com/", "/a/..//evil", "/.//evil", "/oauth2/logout", "/oauth2/callback", "/oauth2/start", "/%6fauth2/logout", "http://127.0.0.1:1/", "evil",
		"/" + strings.Repeat("a", 3000),
	} {
		query := "?rd=" + url.QueryEscape(rd)
		a := b.Do("GET", "/oauth2/logout"+query, nil, map[string]string{"Sec-Fetch-Site": "same-origin"})
		if got := a.Header.Get("Location"); got != "/oauth2/logout/callback" {
			t.Errorf("%q leads to %q", rd, got)
		}
		if ask := b.Go("/oauth2/logout" + query); strings.Contains(ask.Text, `name="rd"`) {
			t.Errorf("%q is kept in the form", rd)
		}
		if a := b.Post("/oauth2/logout", url.Values{"rd": {rd}}); a.Onward() != "/oauth2/logout/callback" {
			t.Errorf("%q, posted, leads to %q", rd, a.Onward())
		}
	}
}

// -rp-init-logout-other-state, -rp-init-logout-no-state, S42: another state or none lands safely; the session is gone by then.
func TestSignOutComesBackWithAnotherState(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: proxytest.Minimal + "  - {path: /public, access: public, upstream: \"${UPSTREAM}\"}\n"})
	b := s.Browser()
	b.Go("/").Received(t)
	a := b.Post("/oauth2/logout", url.Values{"rd": {"/public/bye"}})
	state := mustURL(t, a.Onward()).Query().Get("state")
	back := func(query string) proxytest.Answer { return b.Step("/oauth2/logout/callback" + query) }
	for name, query := range map[string]string{
		"other": "?state=" + url.QueryEscape(state+"_INVALID"), "none": "", "empty": "?state=", "cut": "?state=" + url.QueryEscape(state[:len(state)-2]),
		"twice": "?state=" + url.QueryEscape(state) + "&state=" + url.QueryEscape(state),
	} {
		if a := back(query); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "You are signed out") || a.Header.Get("Location") != "" {
			t.Errorf("%s: %s %s", name, a.Status, a.Header.Get("Location"))
		}
	}
	if isSignedIn(t, b) {
		t.Error("the session lives")
	}
	if a := back("?state=" + url.QueryEscape(state)); a.Header.Get("Location") != "/public/bye" {
		t.Errorf("the right one: %s %s", a.Status, a.Header.Get("Location"))
	}
	s.Clock.Add(31 * time.Minute)
	if a := back("?state=" + url.QueryEscape(state)); a.StatusCode != http.StatusOK {
		t.Errorf("the right one after half an hour: %s", a.Status)
	}
	s.Clock.Add(-31 * time.Minute)
	b.Go("/").Received(t)
	if a := back("?state=" + url.QueryEscape(state)); a.Header.Get("Location") != "/oauth2" {
		t.Errorf("for someone who is signed in: %s %s", a.Status, a.Header.Get("Location"))
	}
}

// S42: an ID token too long for a URL is posted to the provider, by a page that works without scripts.
func TestS42_LongSignOutIsPosted(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.MutateIDToken(func(_, claims map[string]any) { claims["pad"] = strings.Repeat("x", 6000) })
	for _, step := range []func(*proxytest.Browser) proxytest.Answer{
		func(b *proxytest.Browser) proxytest.Answer { return b.Post("/oauth2/logout", nil) },
		func(b *proxytest.Browser) proxytest.Answer {
			return b.Do("GET", "/oauth2/logout", nil, map[string]string{"Sec-Fetch-Site": "same-origin"})
		},
	} {
		b := s.Browser()
		b.Go("/").Received(t)
		page := step(b)
		if page.StatusCode != http.StatusOK || page.Onward() != "" || len(inputValue(t, page.Text, "id_token_hint")) < 6000 {
			t.Fatalf("%s %.500s", page.Status, page.Text)
		}
		if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self' https: "+s.Provider.URL+";") {
			t.Errorf("the form cannot be sent: %s", csp)
		}
		if end := b.Submit(page, nil); end.StatusCode != http.StatusOK || !strings.Contains(end.Text, "You are signed out") {
			t.Errorf("in the end: %s %s %.300s", end.URL, end.Status, end.Text)
		}
	}
	if n := s.Provider.Calls(idptest.EndSession); n != 2 {
		t.Errorf("the provider was asked %d times", n)
	}
	// A program gets no page: without the ID token the address is short enough.
	b := s.Browser()
	b.Go("/").Received(t)
	a := b.Do("POST", "/oauth2/logout", nil, map[string]string{"Accept": "application/json", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"})
	if u := mustURL(t, a.Header.Get("Location")); a.StatusCode != http.StatusSeeOther || u.Query().Get("client_id") != "wiki" || u.Query().Has("id_token_hint") {
		t.Errorf("a program: %s %.300s", a.Status, u)
	}
}

// A provider without end_session_endpoint, such as those that call it /v2/logout?returnTo=…
func TestSignOutByLogoutURI(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "client_secret: canary-client-secret",
		`client_secret: canary-client-secret, logout_uri: "${ISSUER}/v2/logout?federated&client={client_id}&returnTo={post_logout_redirect_uri}&s={state}&t={id_token_hint}"`, 1)})
	b := s.Browser()
	b.Go("/").Received(t)
	u := mustURL(t, b.Post("/oauth2/logout", url.Values{"rd": {"/x"}}).Onward())
	q := u.Query()
	if !strings.HasPrefix(u.String(), s.Provider.URL+"/v2/logout?federated&client=wiki&") || q.Get("returnTo") != s.URL+"/oauth2/logout/callback" || q.Get("t") == "" {
		t.Errorf("led to %s", u)
	}
	if a := b.Step("/oauth2/logout/callback?state=" + url.QueryEscape(q.Get("s"))); a.Header.Get("Location") != "/x" {
		t.Errorf("back: %s %s", a.Status, a.Header.Get("Location"))
	}
	s.Provider.MutateIDToken(func(_, claims map[string]any) { claims["pad"] = strings.Repeat("x", 6000) })
	b.Go("/").Received(t)
	if u := b.Post("/oauth2/logout", nil).Onward(); len(u) > 4096 || !strings.HasSuffix(u, "&t=") {
		t.Errorf("with a long ID token: %.200s…", u)
	}
}
