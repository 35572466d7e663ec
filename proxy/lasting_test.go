package proxy_test

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/proxy/metrics"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

// leaseStore counts the leases that are asked for.
type leaseStore struct {
	session.Store
	asked atomic.Int32
}

func (l *leaseStore) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	l.asked.Add(1)
	return l.Store.Acquire(ctx, key, owner, ttl)
}

// A165: a refresh is under way when the configuration changes: who is served by the new one waits for it, and the refresh token is sent once.
func TestRefreshAcrossAChangedConfigurationIsOne(t *testing.T) {
	clock := &proxytest.Clock{}
	store := &leaseStore{Store: memstore.New(memstore.Options{Now: clock.Now})}
	s := proxytest.New(t, proxytest.Options{Clock: clock, Store: store})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	before := b.Go("/").Received(t).Header.Get("Authorization")
	calls := s.Provider.Calls(idptest.Token)
	clock.Add(61 * time.Second)
	gate := s.Provider.Gate(idptest.Token)
	tokens := make(chan string, 20)
	var wg sync.WaitGroup
	ask := func() {
		for range 10 {
			wg.Go(func() { tokens <- b.Fetch("/").Received(t).Header.Get("Authorization") })
		}
	}
	ask()
	<-gate.Arrived()
	asked := store.asked.Load()
	s.Reload("")
	ask()
	proxytest.Eventually(t, func() bool { return store.asked.Load() > asked })
	gate.Open()
	wg.Wait()
	close(tokens)
	first := <-tokens
	for token := range tokens {
		if token != first || token == before {
			t.Fatal("tokens differ, or are the old one")
		}
	}
	if n := s.Provider.Calls(idptest.Token) - calls; n != 1 || s.Provider.RefreshReuses() != 0 {
		t.Errorf("%d refreshes, %d reuses", n, s.Provider.RefreshReuses())
	}
}

// A sign-in that was begun before the configuration changed goes on, with a key that was made at start; and a code is sent once though its callback
// comes to both.
func TestCallbackAcrossAChangedConfigurationSendsItsCodeOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	callback := b.Step(b.Step("/page").Onward()).Onward()
	gate := s.Provider.Gate(idptest.Token)
	answers := make(chan proxytest.Answer, 2)
	go func() { answers <- b.Step(callback) }()
	<-gate.Arrived()
	s.Reload("")
	go func() { answers <- b.Step(callback) }()
	gate.Open()
	for range 2 {
		if a := <-answers; a.StatusCode/100 != 3 {
			t.Errorf("callback: %s %.300s", a.Status, a.Text)
		}
	}
	if n := s.Provider.Calls(idptest.Token); n != 1 {
		t.Errorf("the code was sent %d times", n)
	}
	b.Go("/page").Received(t)
}

// A changed configuration does not make a provider unknown that does not answer now.
func TestProviderIsKnownAfterAChangeThoughItIsDown(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.Down()
	s.Reload("")
	if a := s.Browser().Step("/"); a.StatusCode != http.StatusSeeOther && a.StatusCode != http.StatusFound || !strings.HasPrefix(a.Onward(), s.Provider.URL) {
		t.Errorf("sign-in: %s to %q", a.Status, a.Onward())
	}
	b.Fetch("/").Received(t)
	w := newRecorder()
	s.Proxy.Admin().ServeHTTP(w, mustRequest(t, "/readyz"))
	if w.Code != http.StatusOK {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	s.Reload(strings.Replace(proxytest.Minimal, "${ISSUER}", "${ISSUER}/other", 1)) // another provider has to say it itself
	if a := s.Browser().Step("/"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("sign-in at an issuer that was never asked: %s", a.Status)
	}
}

func mustRequest(t *testing.T, target string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Who is signed in under a key that was made at start stays so when session.keys come, and when they go.
func TestSessionKeysMayComeAndGo(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Env: map[string]string{"KEY": seal.NewKey()}})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Reload(proxytest.Minimal + "session: {keys: [\"${KEY}\"]}\n")
	proxytest.Eventually(t, func() bool { return strings.Contains(s.Log.String(), "session keys replaced") })
	b.Fetch("/").Received(t)
	other := s.Browser()
	other.Go("/").Received(t)
	s.Reload(proxytest.Minimal)
	b.Fetch("/").Received(t)
	other.Fetch("/").Received(t)
}

// Applications have the key set for minutes: a key that was made at start stays.
func TestAssertionKeyOfTheProcessStays(t *testing.T) {
	config := strings.Replace(proxytest.Minimal, "upstream: ${UPSTREAM}", "upstream: ${UPSTREAM}\n    assertion: {audience: wiki}", 1)
	s := proxytest.New(t, proxytest.Options{Config: config})
	before := s.Browser().Fetch("/oauth2/jwks").Text
	s.Reload(config)
	if after := s.Browser().Fetch("/oauth2/jwks").Text; !strings.Contains(after, "kid") || after != before {
		t.Errorf("key set %s became %s", before, after)
	}
}

// Readiness stays, and tells what became of the file.
func TestReadinessTellsOfAConfigurationThatWasNotTaken(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	proxytest.Eventually(t, func() bool { return ready(t, s, "/readyz?strict=1").code == http.StatusOK })
	s.Reload("")
	if got := ready(t, s, "/readyz?strict=1"); got.code != http.StatusOK || got.Config != "ok" {
		t.Errorf("after a change: %+v", got)
	}
	s.Proxy.ConfigProblem("changed, but not taken")
	if got := ready(t, s, "/readyz"); got.code != http.StatusOK || got.Config != "changed, but not taken" {
		t.Errorf("with a problem: %+v", got)
	}
	if got := ready(t, s, "/readyz?strict=1"); got.code != http.StatusServiceUnavailable {
		t.Errorf("strictly: %+v", got)
	}
	s.Reload("")
	s.Proxy.ConfigProblem("")
	if got := ready(t, s, "/readyz?strict=1"); got.code != http.StatusOK {
		t.Errorf("afterwards: %+v", got)
	}
}

type readiness struct {
	code   int
	Config string
}

func ready(t *testing.T, s *proxytest.Stack, target string) (got readiness) {
	t.Helper()
	w := newRecorder()
	s.Proxy.Admin().ServeHTTP(w, mustRequest(t, target))
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	got.code = w.Code
	return got
}

// What was replaced and is closed is not kept in memory by what took its place.
func TestReplacedProxyIsForgotten(t *testing.T) {
	cfg, err := config.Parse("test.yaml", []byte(`
server: {listen: "127.0.0.1:0"}
providers: {corp: {issuer: "http://127.0.0.1:1", client_id: wiki, client_secret: secret}}
routes: [{upstream: "http://127.0.0.1:1"}]
`), config.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	env := proxy.Env{Store: memstore.New(memstore.Options{}), Metrics: metrics.New("test")}
	first, err := proxy.New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	env.Before = first
	second, err := proxy.New(cfg, env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = first.Run(ctx); close(ended) }()
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	<-ended
	kept := weak.Make(first)
	first, env = nil, proxy.Env{}
	proxytest.Eventually(t, func() bool { runtime.GC(); return kept.Value() == nil })
	if err := second.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
