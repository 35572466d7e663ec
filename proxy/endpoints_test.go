package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// A file may have public routes alone on a host whose origin nothing tells. There nobody can sign in, and no stranger can cause a panic.
func TestWithoutOriginThereAreNoEndpoints(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: ":8080"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {access: public, upstream: "${UPSTREAM}"}
  - {host: wiki.example.com, upstream: "${UPSTREAM}"}
`})
	b := s.Browser()
	b.Go("/").Received(t)
	for _, endpoint := range []string{"", "/start?rd=/x", "/callback?state=a&code=b", "/logout", "/logout/callback", "/session"} {
		if a := b.Step("/oauth2" + endpoint); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", endpoint, a.Status)
		}
	}
	if strings.Contains(s.Log.String(), `"panic"`) {
		t.Error("a stranger caused a panic")
	}
}

func TestStartReturnsToAnotherHostThatIsListed(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `server: {`, `server: {return_hosts: [docs.example.com], `, 1)})
	b := s.Browser()
	a := b.Step("/oauth2/start?rd=" + url.QueryEscape("https://docs.example.com/x?y=z"))
	if a.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s %.300s", a.Status, a.Text)
	}
	callback := b.Step(a.Header.Get("Location"))
	end := b.Step(callback.Header.Get("Location"))
	if got := end.Header.Get("Location"); got != "https://docs.example.com/x?y=z" {
		t.Errorf("ended at %q", got)
	}
}

// RFC 9110 section 15.5.6: a 405 names what is allowed.
func TestEvery405NamesWhatIsAllowed(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	for method, path := range map[string]string{"TRACE": "/", "get": "/", "TRACK": "/x", "DELETE": "/oauth2/start", "PUT": "/oauth2/callback"} {
		if a := s.Browser().Do(method, path, nil, nil); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: %s, Allow %q", method, path, a.Status, a.Header.Get("Allow"))
		}
	}
}

// RFC 9110 section 15.5.2: a 401 says how one may be known, in a page too.
func TestEvery401HasAChallenge(t *testing.T) {
	s, _ := passwordStack(t)
	b := s.Browser()
	form := b.Go("/")
	for name, a := range map[string]proxytest.Answer{
		"program": b.Fetch("/"),
		"frame":   b.Do("GET", "/", nil, map[string]string{"Sec-Fetch-Dest": "iframe"}),
		"form":    b.Do("POST", "/save", nil, nil),
		"account": b.Step("/oauth2"),
		"guess":   b.Post("/oauth2/start", url.Values{"state": {stateOf(t, form)}, "username": {"ada@example.com"}, "password": {"wrong"}}),
	} {
		if a.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer realm=") {
			t.Errorf("%s: %s, WWW-Authenticate %q", name, a.Status, a.Header.Get("WWW-Authenticate"))
		}
	}
}

// twoProviders is a stack with a second provider for the pages below /other.
func twoProviders(t *testing.T, o proxytest.Options) (*proxytest.Stack, *idptest.Server) {
	t.Helper()
	other := idptest.NewServer(t)
	other.AddUser(idptest.User{Sub: "carol"})
	other.SignInAs("carol")
	o.Env = map[string]string{"OTHER": other.URL}
	o.Config = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
  other: {issuer: "${OTHER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, provider: corp, upstream: "${UPSTREAM}"}
  - {path: /other, provider: other, upstream: "${UPSTREAM}"}
`
	s := proxytest.New(t, o)
	other.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic",
		RedirectURIs: []string{s.URL + "/oauth2/callback"}, PostLogoutRedirectURIs: []string{s.URL + "/oauth2/logout/callback"}})
	return s, other
}

// "You are signed out" must hold for every session of the browser, not for the first that is found.
func TestSignOutEndsTheSessionsOfAllProviders(t *testing.T) {
	s, _ := twoProviders(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	b.Go("/other").Received(t)
	thief := s.Browser()
	for _, c := range b.Cookies() {
		thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/"}})
	}
	b.Post("/oauth2/logout", nil)
	for _, path := range []string{"/", "/other"} {
		if a := thief.Fetch(path); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s after signing out: %s", path, a.Status)
		}
	}
}

// A cookie that is none must not hide that the store does not answer for the other provider's: then nobody is signed out.
func TestSignOutIsNotSaidWhileTheStoreIsDownForOneProvider(t *testing.T) {
	store := newCountingStore()
	s, _ := twoProviders(t, proxytest.Options{Store: store})
	b := s.Browser()
	b.Go("/other").Received(t)
	b.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: "made-up", Path: "/"}})
	s.Clock.Add(time.Minute) // past what the cache vouches for
	store.down.Store(true)
	defer store.down.Store(false)
	for path, a := range map[string]proxytest.Answer{"logout": b.Post("/oauth2/logout", nil), "session": b.Fetch("/oauth2/session")} {
		if a.StatusCode != http.StatusServiceUnavailable || len(a.Cookies()) > 0 {
			t.Errorf("%s: %s %s", path, a.Status, a.Header.Get("Location"))
		}
	}
}

// Anyone can link to the page that the provider sends people back to. It must not say "signed out" to someone who is not.
func TestSignedOutPageIsNotShownToTheSignedIn(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	if a := b.Go("/oauth2/logout/callback"); strings.Contains(a.Text, "You are signed out") {
		t.Errorf("%s %.300s", a.Status, a.Text)
	}
	b.Fetch("/").Received(t)
}

func TestRefusalForEveryoneDoesNotClaimASession(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: routed})
	if a := s.Browser().Step("/closed"); a.StatusCode != http.StatusForbidden || strings.Contains(a.Text, "You are signed in") {
		t.Errorf("%s %.400s", a.Status, a.Text)
	}
}

// A113: the answer that takes a cookie of ours along is for one browser, whatever the application says of its own part.
func TestA113_AnswerWithACookieOfOursIsNotCached(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{App: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
	})})
	b := s.Browser()
	first := b.Go("/app.js")
	if len(first.Cookies()) == 0 || first.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("first: %v", first.Header)
	}
	if second := b.Go("/app.js"); len(second.Cookies()) > 0 || second.Header.Get("Cache-Control") != "public, max-age=3600" {
		t.Errorf("second: %v", second.Header)
	}
}
