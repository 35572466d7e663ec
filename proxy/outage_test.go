package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
)

// countingStore is a memory store that counts what it is asked and can be down.
type countingStore struct {
	session.Store
	calls atomic.Int64
	down  atomic.Bool
}

func newCountingStore() *countingStore {
	return &countingStore{Store: memstore.New(memstore.Options{})}
}

var errDown = errors.Join(session.ErrUnavailable, errors.New("test: down"))

func (c *countingStore) ask() error {
	c.calls.Add(1)
	if c.down.Load() {
		return errDown
	}
	return nil
}

func (c *countingStore) Get(ctx context.Context, key string) (session.Record, error) {
	if err := c.ask(); err != nil {
		return session.Record{}, err
	}
	return c.Store.Get(ctx, key)
}

func (c *countingStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	if err := c.ask(); err != nil {
		return nil, err
	}
	return c.Store.Create(ctx, key, rec, ttl, index)
}

func (c *countingStore) End(ctx context.Context, key string, why session.Reason, keep bool, index []session.IndexEntry) (bool, error) {
	if err := c.ask(); err != nil {
		return false, err
	}
	return c.Store.End(ctx, key, why, keep, index)
}

func (c *countingStore) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	if err := c.ask(); err != nil {
		return err
	}
	return c.Store.Swap(ctx, key, rec, from)
}

func (c *countingStore) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	if err := c.ask(); err != nil {
		return false, err
	}
	return c.Store.Acquire(ctx, key, owner, ttl)
}

func (c *countingStore) Ping(ctx context.Context) error {
	if c.down.Load() {
		return errDown
	}
	return c.Store.Ping(ctx)
}

const uncached = `
server: {listen: "${LISTEN}"}
session: {cache: {max_stale: 0s}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes: [{upstream: "${UPSTREAM}"}, {path: /open, access: public, upstream: "${UPSTREAM}"}]
`

// A180: a store that does not answer neither signs anyone out nor lets anyone in.
func TestA180_StoreDownIs503AndKeepsTheCookie(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Store: store, Config: uncached})
	b := s.Browser()
	b.Go("/").Received(t)
	store.down.Store(true)
	for name, a := range map[string]proxytest.Answer{"page": b.Step("/"), "fetch": b.Fetch("/"), "session": b.Fetch("/oauth2/session"), "account": b.Step("/oauth2")} {
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Header.Values("Set-Cookie")) > 0 || a.Header.Get("Location") != "" {
			t.Errorf("%s: %s %v", name, a.Status, a.Header)
		}
	}
	b.Go("/open").Received(t)
	if a := s.Browser().Step("/"); a.StatusCode != http.StatusSeeOther {
		t.Errorf("a stranger: %s", a.Status)
	}
	a := s.Browser().Go("/page?x=1")
	if a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "rd=%2Fpage%3Fx%3D1") {
		t.Errorf("a sign-in: %s\n%s", a.Status, a.Text)
	}
	// Nobody is told that they are signed in who is not.
	if !strings.Contains(a.Text, "You could not be signed in") || strings.Contains(a.Text, "You are not signed out") {
		t.Errorf("a sign-in: %s", a.Text)
	}
	store.down.Store(false)
	b.Go("/").Received(t)
}

// A165: 200 requests at the moment of expiry, rotation with family revocation: one refresh, 200 answers.
func TestA165_ManyRequestsAtExpiryRefreshOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetRotation(true)
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	before := b.Go("/").Received(t).Header.Get("Authorization")
	calls := s.Provider.Calls(idptest.Token)
	s.Clock.Add(61 * time.Second)
	var wg sync.WaitGroup
	tokens := make([]string, 200)
	for i := range tokens {
		wg.Go(func() { tokens[i] = b.Fetch("/").Received(t).Header.Get("Authorization") })
	}
	wg.Wait()
	for _, token := range tokens {
		if token != tokens[0] || token == before {
			t.Fatalf("tokens differ, or are the old one")
		}
	}
	if n := s.Provider.Calls(idptest.Token) - calls; n != 1 || s.Provider.RefreshReuses() != 0 {
		t.Errorf("%d refreshes, %d reuses", n, s.Provider.RefreshReuses())
	}
}

func TestDueRefreshMakesNobodyWait(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	before := b.Go("/").Received(t).Header.Get("Authorization")
	gate := s.Provider.Gate(idptest.Token)
	s.Clock.Add(45 * time.Second)
	if got := b.Fetch("/").Received(t).Header.Get("Authorization"); got != before { // the exchange hangs at the gate
		t.Error("a request waited for the refresh")
	}
	<-gate.Arrived()
	gate.Open()
	proxytest.Eventually(t, func() bool { return b.Fetch("/").Received(t).Header.Get("Authorization") != before })
}

// A167: the provider refuses the refresh token: one clean sign-in, 401 for programs, no loop.
func TestA167_RejectedRefreshEndsTheSessionOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.RevokeUser("alice")
	calls := s.Provider.Calls(idptest.Token)
	s.Clock.Add(2 * time.Minute)
	for range 3 {
		if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"refresh_rejected"`) {
			t.Errorf("%s %s", a.Status, a.Text)
		}
	}
	if n := s.Provider.Calls(idptest.Token) - calls; n != 1 {
		t.Errorf("%d refresh requests", n)
	}
}

// A168: the provider is ill: the valid token serves; after it 503, and the session is still there when the provider is back.
func TestA168_ProviderFailingKeepsTheSession(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.Fail(idptest.Token, http.StatusServiceUnavailable, 1, "Retry-After", "7")
	s.Clock.Add(45 * time.Second)
	b.Fetch("/").Received(t)
	proxytest.Eventually(t, func() bool { return strings.Contains(s.Log.String(), "refresh") })
	s.Clock.Add(20 * time.Second)
	s.Provider.Fail(idptest.Token, http.StatusServiceUnavailable, 1, "Retry-After", "7")
	proxytest.Eventually(t, func() bool { return b.Fetch("/").StatusCode == http.StatusServiceUnavailable })
	if a := b.Step("/"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Header.Values("Set-Cookie")) > 0 {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	s.Provider.Heal(idptest.Token)
	s.Clock.Add(time.Minute)
	b.Fetch("/").Received(t)
}

// A172: rules are decided again on the claims of a refresh.
func TestA172_GroupsAreDecidedAgainAfterARefresh(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: routed})
	s.Provider.SetIDTokenOnRefresh(true)
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/staff").Received(t)
	s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"leavers"}}})
	s.Clock.Add(2 * time.Minute)
	if a := b.Step("/staff"); a.StatusCode != http.StatusForbidden {
		t.Errorf("%s", a.Status)
	}
}

func TestSessionEndpointTellsEverythingButTokens_A120(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	token := strings.TrimPrefix(b.Go("/").Received(t).Header.Get("Authorization"), "Bearer ")
	for _, path := range []string{"/oauth2/session", "/oauth2/userinfo"} {
		a := b.Fetch(path)
		var got map[string]any
		if err := json.Unmarshal([]byte(a.Text), &got); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"user", "email", "name", "groups", "provider", "ends", "idle_until", "idle_timeout_seconds", "refresh_at"} {
			if got[name] == nil {
				t.Errorf("%s lacks %s: %s", path, name, a.Text)
			}
		}
		if strings.Contains(a.Text, token) || strings.Contains(a.Text, "eyJ") {
			t.Errorf("%s shows a token", path)
		}
		if a.Header.Get("Access-Control-Allow-Origin") != "" { // A135
			t.Error("readable by other origins")
		}
	}
	page := b.Go("/oauth2")
	if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "alice@example.com") || strings.Contains(page.Text, token) {
		t.Errorf("the page: %s %s", page.Status, page.Text)
	}
	if a := s.Browser().Fetch("/oauth2/session"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without session: %s", a.Status)
	}
}

func TestRefreshOnDemand(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	before := b.Go("/").Received(t).Header.Get("Authorization")
	if a := b.Post("/oauth2/session/refresh", nil); a.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", a.Status, a.Text)
	}
	if got := b.Fetch("/").Received(t).Header.Get("Authorization"); got == before {
		t.Error("the token stayed")
	}
	if a := b.Do("POST", "/oauth2/session/refresh", nil, map[string]string{"Sec-Fetch-Site": "cross-site"}); a.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %s", a.Status)
	}
	if a := b.Step("/oauth2/session/refresh"); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %s", a.Status)
	}
}

func TestReadiness(t *testing.T) {
	store := newCountingStore()
	store.down.Store(true)
	s := proxytest.New(t, proxytest.Options{Store: store})
	ask := func(path string) (int, string) {
		w := newRecorder()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1:9090"+path, nil)
		s.Proxy.Admin().ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if code, _ := ask("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	proxytest.Eventually(t, func() bool { _, body := ask("/readyz"); return strings.Contains(body, `"store":"does not answer"`) })
	if code, body := ask("/readyz"); code != 503 {
		t.Errorf("before the store ever answered: %d %s", code, body)
	}
	store.down.Store(false)
	proxytest.Eventually(t, func() bool { code, _ := ask("/readyz"); return code == 200 })
	if code, body := ask("/readyz?strict=1"); code != 200 {
		t.Errorf("strict: %d %s", code, body)
	}
	store.down.Store(true)
	proxytest.Eventually(t, func() bool { code, _ := ask("/readyz?strict=1"); return code == 503 })
	if code, body := ask("/readyz"); code != 200 || !strings.Contains(body, "does not answer") {
		t.Errorf("a later failure: %d %s", code, body)
	}
	s.Proxy.Drain()
	if code, body := ask("/readyz"); code != 503 || !strings.Contains(body, `"draining":true`) {
		t.Errorf("draining: %d %s", code, body)
	}
	if code, _ := ask("/debug/pprof/"); code != 404 {
		t.Errorf("profiles without server.admin: %d", code)
	}
}

func TestAdminTokenGuardsProfiles_A121(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `listen: "${LISTEN}"`, `listen: "${LISTEN}", admin: {token: admin-canary}`, 1)})
	for name, c := range map[string]struct {
		url    string
		header map[string]string
		want   int
	}{
		"no token":    {"http://127.0.0.1:9090/debug/pprof/", nil, 401},
		"wrong token": {"http://127.0.0.1:9090/debug/pprof/", map[string]string{"Authorization": "Bearer x"}, 401},
		"token":       {"http://127.0.0.1:9090/debug/pprof/", map[string]string{"Authorization": "Bearer admin-canary"}, 200},
		"browser":     {"http://127.0.0.1:9090/debug/pprof/", map[string]string{"Authorization": "Bearer admin-canary", "Origin": "http://127.0.0.1:9090"}, 403},
		"rebinding":   {"http://evil.com:9090/debug/pprof/", map[string]string{"Authorization": "Bearer admin-canary"}, 403},
	} {
		w := newRecorder()
		r, _ := http.NewRequestWithContext(t.Context(), "GET", c.url, nil)
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		s.Proxy.Admin().ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d", name, w.Code, c.want)
		}
	}
	if a := s.Browser().Fetch("/debug/pprof/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("on the public listener: %s", a.Status)
	}
}

func TestRedirectListenerKnowsItsHosts(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}", redirect_listen: "127.0.0.1:0"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes: [{host: wiki.example.com, upstream: "${UPSTREAM}"}]
`})
	for _, c := range []struct {
		host, target, want string
		status             int
	}{
		{"wiki.example.com", "/a?b=c%zz", "https://wiki.example.com/a?b=c%zz", 308},
		{"wiki.example.com:80", "/", "https://wiki.example.com/", 308},
		{"evil.com", "/", "", 404},
		{"wiki.example.com", "//evil.com", "", 404},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://x/", nil)
		r.Host, r.RequestURI = c.host, c.target
		w := newRecorder()
		s.Proxy.Redirect().ServeHTTP(w, r)
		if w.Code != c.status || w.Header().Get("Location") != c.want {
			t.Errorf("%s%s: %d %s", c.host, c.target, w.Code, w.Header().Get("Location"))
		}
	}
	if log := s.Log.String(); strings.Count(log, `"redirected_to_https"`) != 2 || strings.Count(log, `"not_redirected"`) != 2 {
		t.Errorf("not one line for each request: %s", log)
	}
}

// raw sends one request line as it stands and returns the status.
func raw(t *testing.T, s *proxytest.Stack, line string) int {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(line + "\r\nHost: " + conn.RemoteAddr().String() + "\r\nConnection: close\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
