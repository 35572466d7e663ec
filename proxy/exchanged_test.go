package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session/memstore"
	"postern/session/seal"
)

// exchangeConfig trades tokens on some of its routes.
const exchangeConfig = `
server: {listen: "${LISTEN}", public_url: "${ORIGIN}"}
session: {keys: ["${KEY}"]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /orders, upstream: "${UPSTREAM}", bearer: {exchange: {audience: "api://orders", scope: orders.read}}, access: {bearer_tokens: {audience: "${ISSUER}/api", introspect: true}}}
  - {path: /stock, upstream: "${UPSTREAM}", bearer: {exchange: {audience: "api://stock"}}}
  - {path: /behalf, upstream: "${UPSTREAM}", bearer: {exchange: {kind: jwt_bearer, scope: "api://behalf/.default"}}}
  - {path: /maybe, upstream: "${UPSTREAM}", access: optional, bearer: {exchange: {audience: "api://maybe"}}}
`

func exchangeStack(t *testing.T, o proxytest.Options) *proxytest.Stack {
	t.Helper()
	if o.Config == "" {
		o.Config = exchangeConfig
	}
	if o.Env == nil {
		o.Env = map[string]string{"KEY": seal.NewKey()}
	}
	return proxytest.New(t, o)
}

// sent is the token that reached the application.
func sent(t *testing.T, a proxytest.Answer) string {
	t.Helper()
	token, ok := strings.CutPrefix(a.Received(t).Header.Get("Authorization"), "Bearer ")
	if !ok {
		t.Fatalf("the application got no token: %s", a.Text)
	}
	return token
}

// exchanges counts the exchanges that the provider was asked for.
func exchanges(s *proxytest.Stack) (n int) {
	for _, r := range s.Provider.TokenRequests() {
		if grant := r.Form.Get("grant_type"); strings.HasSuffix(grant, "token-exchange") || strings.HasSuffix(grant, "jwt-bearer") {
			n++
		}
	}
	return n
}

func TestExchangedTokenIsForTheApplicationOfItsRoute(t *testing.T) {
	s := exchangeStack(t, proxytest.Options{})
	b := s.Browser()
	own := sent(t, b.Go("/"))
	for path, audience := range map[string]string{"/orders": "api://orders", "/stock": "api://stock", "/behalf": "api://behalf/.default"} {
		for range 3 {
			token := sent(t, b.Fetch(path))
			if sub, got, active := s.Provider.Issued(token); sub != "alice" || !slices.Equal(got, []string{audience}) || !active || token == own {
				t.Errorf("%s: token of %s for %v", path, sub, got)
			}
		}
	}
	if n := exchanges(s); n != 3 {
		t.Errorf("%d exchanges, want one for each target", n)
	}
	if got := b.Fetch("/maybe").Received(t); got.Header.Get("Authorization") == "" {
		t.Error("optional, signed in: no token")
	}
	if got := s.Browser().Do("GET", "/maybe", nil, map[string]string{"Authorization": "Basic YTpi"}).Received(t); got.Header.Get("Authorization") != "" {
		t.Errorf("optional, nobody: %v", got.Header)
	}
}

// S29, V-42: nobody's traded token is ever sent for anybody else, however many ask at once.
func TestExchangedTokensNeverCrossPeople_S29(t *testing.T) {
	s := exchangeStack(t, proxytest.Options{})
	const people, each = 8, 10
	browsers := map[string]*proxytest.Browser{}
	for i := range people {
		name := fmt.Sprintf("person-%d", i)
		s.Provider.AddUser(idptest.User{Sub: name, Claims: map[string]any{"preferred_username": name}})
		s.Provider.SignInAs(name)
		browsers[name] = s.Browser()
		browsers[name].Go("/")
	}
	var wg sync.WaitGroup
	for name, b := range browsers {
		for range each {
			wg.Go(func() {
				for _, path := range []string{"/orders", "/stock"} {
					if sub, audience, _ := s.Provider.Issued(sent(t, b.Fetch(path))); sub != name || audience[0] != "api:/"+path {
						t.Errorf("%s got the token of %s for %v", name, sub, audience)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := exchanges(s); n != 2*people {
		t.Errorf("%d exchanges, want %d", n, 2*people)
	}
}

func TestExchangedTokenOfAPresentedTokenIsItsOwn(t *testing.T) {
	s := exchangeStack(t, proxytest.Options{})
	first := sent(t, s.Browser().Go("/"))
	s.Provider.SignInAs("bob")
	second := sent(t, s.Browser().Go("/"))
	for range 2 {
		for token, user := range map[string]string{first: "alice", second: "bob"} {
			if sub, audience, _ := s.Provider.Issued(sent(t, present(t, s, "/orders", "Bearer "+token))); sub != user || audience[0] != "api://orders" {
				t.Errorf("%s got the token of %s for %v", user, sub, audience)
			}
		}
	}
	if n := exchanges(s); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

func TestExchangedTokenIsRenewedAheadByOne(t *testing.T) {
	s := exchangeStack(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/")
	first := sent(t, b.Fetch("/stock"))
	s.Clock.Add(4*time.Minute + 10*time.Second) // of five
	b.Fetch("/")
	gate := s.Provider.Gate(idptest.Token)
	for range 5 {
		if token := sent(t, b.Fetch("/stock")); token != first {
			t.Error("somebody waited")
		}
	}
	gate.Open()
	proxytest.Eventually(t, func() bool { return sent(t, b.Fetch("/stock")) != first })
	if n := exchanges(s); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

// An application never gets another token than the one of its route.
func TestExchangeThatFailsForwardsNothing(t *testing.T) {
	s := exchangeStack(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/")
	before := len(s.App.Requests())
	s.Provider.Fail(idptest.Token, 503, -1, "Retry-After", "7")
	calls := s.Provider.Calls(idptest.Token)
	for range 5 {
		if a := b.Fetch("/stock"); a.StatusCode != 503 || a.Header.Get("Retry-After") != "7" {
			t.Errorf("busy: %s %v", a.Status, a.Header)
		}
	}
	if n := s.Provider.Calls(idptest.Token) - calls; n != 1 {
		t.Errorf("the failure was not remembered: %d calls", n)
	}
	s.Provider.FailOAuth(idptest.Token, 400, "invalid_target", -1)
	a := b.Fetch("/orders")
	if a.StatusCode != http.StatusBadGateway || !strings.Contains(a.Text, "application_token_refused") || strings.Contains(a.Text, "invalid_target") {
		t.Errorf("refused: %s %s", a.Status, a.Text)
	}
	if !strings.Contains(s.Log.String(), "invalid_target") {
		t.Error("the log does not say why")
	}
	if page := b.Go("/orders"); page.StatusCode != 502 || !strings.Contains(page.Header.Get("Content-Type"), "text/html") {
		t.Errorf("for a person: %s", page.Status)
	}
	s.Provider.Heal(idptest.Token)
	s.Provider.MutateTokenAnswer(func(answer map[string]any) { answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:id_token" })
	if a := b.Fetch("/behalf"); a.StatusCode != 200 {
		t.Errorf("on behalf of needs no type: %s", a.Status)
	}
	s.Clock.Add(11 * time.Second)
	if a := b.Fetch("/orders"); a.StatusCode != 502 {
		t.Errorf("wrong type: %s", a.Status)
	}
	s.Provider.MutateTokenAnswer(nil)
	if n := len(s.App.Requests()) - before; n != 1 {
		t.Errorf("%d requests reached the application", n)
	}
	s.Clock.Add(11 * time.Second)
	if a := b.Fetch("/stock"); a.StatusCode != 200 {
		t.Errorf("healed: %s", a.Status)
	}
}

// What a session's token was traded for goes with the session, on the process that traded it, wherever the session ended.
func TestExchangedTokensAreRevokedWithTheirSession(t *testing.T) {
	clock := &proxytest.Clock{}
	o := proxytest.Options{Clock: clock, Store: memstore.New(memstore.Options{Now: clock.Now}), Env: map[string]string{"KEY": seal.NewKey()}}
	here := exchangeStack(t, o)
	o.Provider = here.Provider
	there := exchangeStack(t, o)
	here.Provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic",
		RedirectURIs: []string{here.URL + "/oauth2/callback", there.URL + "/oauth2/callback"}})
	for name, other := range map[string]*proxytest.Stack{"here": here, "elsewhere": there} {
		b := here.Browser()
		b.Go("/")
		kept := here.Browser()
		kept.Go("/")
		token, others := sent(t, b.Fetch("/stock")), sent(t, kept.Fetch("/stock"))
		if _, _, active := here.Provider.Issued(token); !active {
			t.Fatal("not active")
		}
		b.At(other).Post("/oauth2/logout", nil)
		proxytest.Eventually(t, func() bool { _, _, active := here.Provider.Issued(token); return !active })
		if _, _, active := here.Provider.Issued(others); !active {
			t.Errorf("%s: another session's token was revoked", name)
		}
	}
}

func TestForwardAuthGrantsTheExchangedToken(t *testing.T) {
	config := strings.Replace(exchangeConfig, `public_url: "${ORIGIN}"}`, `public_url: "${ORIGIN}", trusted_proxies: [127.0.0.1/32]}`+"\nforward_auth: {dialect: traefik}", 1)
	s := exchangeStack(t, proxytest.Options{Config: config})
	b := s.Browser()
	b.Go("/")
	method, target, header := question("traefik", "GET", "/stock", strings.TrimPrefix(s.URL, "http://"))
	a := b.Do(method, target, nil, header)
	token, _ := strings.CutPrefix(a.Header.Get("Authorization"), "Bearer ")
	if sub, audience, _ := s.Provider.Issued(token); a.StatusCode != 200 || sub != "alice" || !slices.Equal(audience, []string{"api://stock"}) {
		t.Errorf("%s: token of %s for %v", a.Status, sub, audience)
	}
	s.Provider.Fail(idptest.Token, 500, -1)
	method, target, header = question("traefik", "GET", "/orders", strings.TrimPrefix(s.URL, "http://"))
	if a := b.Do(method, target, nil, header); a.StatusCode != 503 || a.Header.Get("Authorization") != "" {
		t.Errorf("without a token: %s %v", a.Status, a.Header)
	}
}
