package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// passwords is a provider that knows one password (RFC 6749 section 4.3).
func passwords(t *testing.T, calls *atomic.Int64) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if user, secret, ok := r.BasicAuth(); !ok || user != "app" || secret != "canary-app" || r.FormValue("grant_type") != "password" {
			w.WriteHeader(http.StatusUnauthorized)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_client"})
			return
		}
		if r.FormValue("username") != "ada@example.com" || r.FormValue("password") != "canary-password" {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant"})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "the-token", "token_type": "bearer", "expires_in": 3600, "email": "ada@example.com"})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func passwordStack(t *testing.T) (*proxytest.Stack, *atomic.Int64) {
	calls := &atomic.Int64{}
	return proxytest.New(t, proxytest.Options{Config: strings.ReplaceAll(`
server: {listen: "${LISTEN}"}
providers:
  team:
    oauth2: {token_url: "TOKEN/token"}
    grant: password
    client_id: app
    client_secret: canary-app
    client_auth: client_secret_basic
    identity: token_response
    claims: {user: email}
routes: [{upstream: "${UPSTREAM}", access: signed_in}]
`, "TOKEN", passwords(t, calls))}), calls
}

var stateField = regexp.MustCompile(`name="state" value="([^"]+)"`)

func stateOf(t *testing.T, a proxytest.Answer) string {
	t.Helper()
	m := stateField.FindStringSubmatch(a.Text)
	if m == nil {
		t.Fatalf("no form: %s %s", a.Status, a.Text)
	}
	return m[1]
}

func TestPasswordFormSignsInAndReturns(t *testing.T) {
	s, _ := passwordStack(t)
	b := s.Browser()
	form := b.Go("/wanted?x=1")
	if form.StatusCode != http.StatusOK || !strings.Contains(form.Text, `autocomplete="current-password"`) || !strings.Contains(form.Text, `autocomplete="username"`) {
		t.Fatalf("%s %s", form.Status, form.Text)
	}
	state := stateOf(t, form)
	wrong := b.Post("/oauth2/start", url.Values{"state": {state}, "username": {"ada@example.com"}, "password": {"canary-wrong"}})
	unknown := b.Post("/oauth2/start", url.Values{"state": {state}, "username": {"nobody@example.com"}, "password": {"canary-wrong"}})
	for _, a := range []proxytest.Answer{wrong, unknown} {
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "User name or password is wrong.") || strings.Contains(a.Text, "canary") {
			t.Errorf("wrong: %s %s", a.Status, a.Text)
		}
	}
	if a := b.Post("/oauth2/start", url.Values{"state": {stateOf(t, wrong)}, "username": {"ada@example.com"}}); a.StatusCode != http.StatusBadRequest {
		t.Errorf("without password: %s", a.Status)
	}
	in := b.Post("/oauth2/start", url.Values{"state": {state}, "username": {"ada@example.com"}, "password": {"canary-password"}})
	if in.Onward() != "/wanted?x=1" {
		t.Fatalf("%s %s", in.Status, in.Text)
	}
	got := b.Go("/wanted?x=1").Received(t)
	if got.Header.Get("Authorization") != "Bearer the-token" || got.Header.Get("X-Forwarded-User") != "ada@example.com" {
		t.Errorf("the application received %v", got.Header)
	}
	if log := s.Log.String(); strings.Contains(log, "canary") || strings.Contains(log, "ada@") {
		t.Error("the log holds a credential or a name")
	}
}

// Login CSRF: another site's form, another browser's form and a form without its cookie sign nobody in, and ask the provider nothing.
func TestA1_ForeignFormsDoNotSignIn(t *testing.T) {
	s, calls := passwordStack(t)
	attacker, victim := s.Browser(), s.Browser()
	form := url.Values{"state": {stateOf(t, attacker.Go("/"))}, "username": {"ada@example.com"}, "password": {"canary-password"}}
	if a := victim.Post("/oauth2/start", form); victim.Cookie(sessionCookie) != nil {
		t.Errorf("another browser's form: %s", a.Status)
	}
	if a := attacker.Do("POST", "/oauth2/start", strings.NewReader(form.Encode()), map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.com",
	}); a.StatusCode != http.StatusForbidden {
		t.Errorf("another site's form: %s", a.Status)
	}
	form.Set("state", "made-up")
	if a := attacker.Post("/oauth2/start", form); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a made-up state: %s", a.Status)
	}
	if calls.Load() != 0 {
		t.Errorf("the provider was asked %d times", calls.Load())
	}
}

func TestS31_SignOutRevokesRefreshThenAccessToken(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.Fail(idptest.Revoke, http.StatusServiceUnavailable, 1, "Retry-After", "1")
	if a := b.Post("/oauth2/logout", nil); a.StatusCode != http.StatusOK { // nobody waits for the provider
		t.Errorf("%s", a.Status)
	}
	proxytest.Eventually(t, func() bool { return s.Provider.Calls(idptest.Revoke) >= 3 }) // refused once, then both tokens
}

func TestOnlyListedStartParametersReachTheProvider(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "client_id: wiki,", "client_id: wiki, start_params: [login_hint],", 1)})
	a := s.Browser().Step("/oauth2/start?rd=/&login_hint=ada&prompt=none&redirect_uri=https://evil.com&state=x")
	q := mustURL(t, a.Header.Get("Location")).Query()
	if q.Get("login_hint") != "ada" || q.Has("prompt") || q.Get("redirect_uri") != s.URL+"/oauth2/callback" || q.Get("state") == "x" {
		t.Errorf("authorize: %v", q)
	}
}

// A194 at our own form: where cookies are blocked it does not come back for ever, but ends in the page that says why.
func TestA194_PasswordFormWithoutCookiesEndsInThePageThatSaysWhy(t *testing.T) {
	s, calls := passwordStack(t)
	form := s.Browser().Go("/")
	for range 5 {
		if form.StatusCode == http.StatusBadRequest && strings.Contains(form.Text, "blocks or deletes cookies") {
			break
		}
		answer := s.Browser().Post("/oauth2/start", url.Values{"state": {stateOf(t, form)}, "username": {"ada@example.com"}, "password": {"canary-password"}})
		if location := answer.Header.Get("Location"); location != "" {
			answer = s.Browser().Go(location)
		}
		form = answer
	}
	if !strings.Contains(form.Text, "blocks or deletes cookies") {
		t.Errorf("still the form: %s %.300s", form.Status, form.Text)
	}
	if calls.Load() != 0 {
		t.Errorf("the provider was asked %d times", calls.Load())
	}
}

// Issue 4, item 8: the form says why one has to sign in again, and tells nothing to who makes cookies up.
func TestPasswordFormSaysWhyTheSessionEnded(t *testing.T) {
	s, _ := passwordStack(t)
	b := s.Browser()
	form := b.Go("/deep?x=1")
	if strings.Contains(form.Text, "away for a while") {
		t.Error("a newcomer is told of an end")
	}
	b.Post("/oauth2/start", url.Values{"state": {stateOf(t, form)}, "username": {"ada@example.com"}, "password": {"canary-password"}})
	b.Go("/").Received(t)
	s.Clock.Add(59 * time.Minute)
	s.Clock.Add(2 * time.Minute)
	if form := b.Go("/deep?x=1"); !strings.Contains(form.Text, "away for a while") {
		t.Errorf("the form does not say why: %s", form.Text)
	}
}
