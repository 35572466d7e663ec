package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// choosyApp refuses tokens that a test tells it to.
type choosyApp struct {
	mu        sync.Mutex
	challenge string
	all       bool            // every token
	refused   map[string]bool // these
	got       []http.Header
}

const invalidToken = `Bearer realm="app", error="invalid_token", error_description="The token was revoked"`

func newChoosyApp() *choosyApp {
	return &choosyApp{challenge: invalidToken, refused: map[string]bool{}}
}

func (a *choosyApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, r.Header.Clone())
	if token := r.Header.Get("Authorization"); a.all || a.refused[token] {
		w.Header().Set("WWW-Authenticate", a.challenge)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("the application's own words"))
		return
	}
	_ = json.NewEncoder(w).Encode(proxytest.Received{Method: r.Method, Target: r.RequestURI, Header: r.Header})
}

// change changes what the application refuses.
func (a *choosyApp) change(f func(a *choosyApp)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
}

// requests is how many have come since the last call.
func (a *choosyApp) requests() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, a.got = len(a.got), nil
	return n
}

const renewConfig = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}"}
  - {path: /staff, upstream: "${UPSTREAM}", access: {groups: [wiki-users]}, headers: {X-Groups: 'groups.join(";")'}}
  - {path: /id, upstream: "${UPSTREAM}", bearer: id_token}
  - {path: /none, upstream: "${UPSTREAM}", bearer: none}
  - {path: /open, upstream: "${UPSTREAM}", access: public}
  - {path: /balanced, upstream: ["${UPSTREAM}", "${UPSTREAM}/again"]}
`

// renewing is a stack with alice signed in for so long, whose application refuses her present token.
func renewing(t *testing.T, since time.Duration) (*proxytest.Stack, *proxytest.Browser, *choosyApp, func() int) {
	t.Helper()
	app := newChoosyApp()
	s := proxytest.New(t, proxytest.Options{Config: renewConfig, App: app})
	s.Provider.SetTokenTTL(time.Hour)
	s.Provider.SetIDTokenOnRefresh(true)
	b := s.Browser()
	token := b.Go("/").Received(t).Header.Get("Authorization")
	s.Clock.Add(since)
	app.change(func(a *choosyApp) { a.refused[token], a.got = true, nil })
	calls := s.Provider.Calls(idptest.Token)
	return s, b, app, func() int {
		n := s.Provider.Calls(idptest.Token) - calls
		calls += n
		return n
	}
}

func TestRefusedTokenIsRenewedAndTheRequestSentAgain(t *testing.T) {
	for _, path := range []string{"/", "/balanced"} {
		s, b, app, refreshes := renewing(t, 2*time.Minute)
		got := b.Fetch(path).Received(t).Header
		if got.Get("X-Forwarded-User") != "alice" || !strings.HasPrefix(got.Get("Authorization"), "Bearer ") {
			t.Errorf("%s: got %v", path, got)
		}
		if n := app.requests(); n != 2 || refreshes() != 1 {
			t.Errorf("%s: sent %d times", path, n)
		}
		b.Fetch(path).Received(t)
		if n := app.requests(); n != 1 || refreshes() != 0 {
			t.Errorf("%s: with the new token, sent %d times", path, n)
		}
		if !strings.Contains(s.Log.String(), `"token_renewed":true`) {
			t.Error("not logged")
		}
	}
}

// A147: an application that refuses every token costs each request at most two, and the provider one refresh a minute; its own answer passes.
func TestA147_NoLoopWithAnApplicationThatRefusesEveryToken(t *testing.T) {
	s, b, app, refreshes := renewing(t, 2*time.Minute)
	app.change(func(a *choosyApp) { a.all = true })
	for minute := range 3 {
		for i, want := range []int{2, 1, 1} {
			a := b.Fetch("/")
			if a.StatusCode != 401 || a.Text != "the application's own words" || a.Header.Get("WWW-Authenticate") != invalidToken {
				t.Errorf("got %s %q", a.Status, a.Text)
			}
			if n := app.requests(); n != want {
				t.Errorf("minute %d, request %d is sent %d times", minute, i, n)
			}
		}
		if n := refreshes(); n != 1 {
			t.Errorf("minute %d: %d refreshes", minute, n)
		}
		s.Clock.Add(time.Minute)
	}
}

// Many requests that are refused at once share one refresh.
func TestRefusedTokensAreRenewedOnce(t *testing.T) {
	s, b, _, refreshes := renewing(t, 2*time.Minute)
	cookies := b.Cookies()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/", nil)
			for _, c := range cookies {
				r.AddCookie(c)
			}
			res, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("got %s", res.Status)
			}
		})
	}
	wg.Wait()
	if n := refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
}

// What may have done something is not sent again, and what no renewal could mend is not tried: the application's answer passes.
func TestApplicationsAnswerPasses(t *testing.T) {
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for _, tt := range []struct {
		name, method, path, body, challenge string
		header                              map[string]string
		age                                 time.Duration
	}{
		{name: "POST", method: "POST", path: "/", body: "a=1", header: form},
		{name: "empty POST", method: "POST", path: "/"},
		{name: "PUT", method: "PUT", path: "/", body: "x"},
		{name: "GET with a body", method: "GET", path: "/", body: "x"},
		{name: "WebSocket", method: "GET", path: "/", header: map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}},
		{name: "young token", method: "GET", path: "/", age: 59 * time.Second},
		{name: "another error", method: "GET", path: "/", challenge: `Bearer error="insufficient_scope"`},
		{name: "no error", method: "GET", path: "/", challenge: `Bearer realm="error=\"invalid_token\""`},
		{name: "another scheme", method: "GET", path: "/", challenge: `DPoP error="invalid_token"`},
		{name: "ID token", method: "GET", path: "/id"},
		{name: "no token", method: "GET", path: "/none"},
		{name: "public", method: "GET", path: "/open"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.age == 0 {
				tt.age = 2 * time.Minute
			}
			_, b, app, refreshes := renewing(t, tt.age)
			app.change(func(a *choosyApp) {
				a.all = true
				if tt.challenge != "" {
					a.challenge = tt.challenge
				}
			})
			a := b.Do(tt.method, tt.path, strings.NewReader(tt.body), tt.header)
			if a.StatusCode != 401 || a.Text != "the application's own words" {
				t.Errorf("got %s %q", a.Status, a.Text)
			}
			if n := app.requests(); n != 1 || refreshes() != 0 {
				t.Errorf("sent %d times", n)
			}
		})
	}
}

// A provider that does not answer changes nothing: the session stays, and the application's answer passes.
func TestRefusedTokenWhileTheProviderIsDown(t *testing.T) {
	s, b, app, _ := renewing(t, 2*time.Minute)
	s.Provider.Fail(idptest.Token, http.StatusServiceUnavailable, -1, "Retry-After", "1")
	for range 3 {
		if a := b.Fetch("/"); a.StatusCode != 401 || a.Text != "the application's own words" {
			t.Errorf("got %s %q", a.Status, a.Text)
		}
	}
	s.Provider.Heal(idptest.Token)
	s.Clock.Add(5 * time.Minute)
	app.requests()
	b.Fetch("/").Received(t)
}

// A refresh that ends the session leads to signing in, not to an answer of the application.
func TestRefusedTokenWhoseSessionIsOver(t *testing.T) {
	s, b, _, _ := renewing(t, 2*time.Minute)
	s.Provider.RevokeUser("alice")
	if a := b.Fetch("/"); a.StatusCode != 401 || !strings.Contains(a.Text, `"code":"sign_in_required"`) || strings.Contains(a.Text, "own words") {
		t.Errorf("a program gets %s %q", a.Status, a.Text)
	}
	s, b, _, _ = renewing(t, 2*time.Minute)
	s.Provider.RevokeUser("alice")
	if a := b.Step("/"); a.StatusCode != 302 && a.StatusCode != 303 || !strings.HasPrefix(a.Header.Get("Location"), s.Provider.URL) {
		t.Errorf("a person gets %s to %s", a.Status, a.Header.Get("Location"))
	}
}

// The rule of the route is decided again on what the refresh brought, and the headers tell of it.
func TestRulesAreDecidedAgainAfterRenewal(t *testing.T) {
	s, b, _, _ := renewing(t, 2*time.Minute)
	s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"wiki-users", "new"}}})
	if got := b.Fetch("/staff").Received(t).Header.Get("X-Groups"); got != "wiki-users;new" {
		t.Errorf("groups are told as %q", got)
	}
	s, b, app, _ := renewing(t, 2*time.Minute)
	s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"leavers"}}})
	if a := b.Fetch("/staff"); a.StatusCode != 403 || app.requests() != 1 {
		t.Errorf("got %s", a.Status)
	}
}
