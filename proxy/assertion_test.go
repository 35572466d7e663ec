package proxy_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const assertionConfig = `
server: {listen: "${LISTEN}", assertion_keys: [{file: "${FIRST}"}, {file: "${SECOND}"}]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /wiki, upstream: "${UPSTREAM}", assertion: {audience: wiki}, access: {bearer_tokens: {audience: "${ISSUER}/api", introspect: true}}}
  - {path: /shop, upstream: "${UPSTREAM}", assertion: {audience: shop, header: X-Proof}, headers: {X-User: user}, bearer: none}
  - {path: /maybe, upstream: "${UPSTREAM}", access: optional, assertion: {audience: maybe}}
  - {path: /open, upstream: "${UPSTREAM}", access: public}
`

// assertionStack has two key files.
func assertionStack(t *testing.T, text string) (s *proxytest.Stack, first, second string) {
	t.Helper()
	dir := t.TempDir()
	first, second = filepath.Join(dir, "first"), filepath.Join(dir, "second")
	for _, name := range []string{first, second} {
		if err := os.WriteFile(name, []byte(proxy.NewAssertionKey()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return proxytest.New(t, proxytest.Options{Config: text, Env: map[string]string{"FIRST": first, "SECOND": second}}), first, second
}

// stated verifies an assertion as an application would, by the published keys.
func stated(t *testing.T, s *proxytest.Stack, assertion, audience string) map[string]any {
	t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(s.Browser().Fetch("/oauth2/jwks").Text), &set); err != nil {
		t.Fatal(err)
	}
	token, err := jwt.ParseSigned(assertion, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("%q: %v", assertion, err)
	}
	var claims map[string]any
	var registered jwt.Claims
	if err := token.Claims(set, &claims, &registered); err != nil {
		t.Fatal(err)
	}
	if err := registered.ValidateWithLeeway(jwt.Expected{Issuer: s.URL, AnyAudience: jwt.Audience{audience}, Time: s.Clock.Now()}, time.Second); err != nil {
		t.Error(err)
	}
	if life := registered.Expiry.Time().Sub(registered.IssuedAt.Time()); life > time.Minute {
		t.Errorf("it lives for %v", life)
	}
	return claims
}

func TestAssertionTellsWhoAsks(t *testing.T) {
	s, _, _ := assertionStack(t, assertionConfig)
	b := s.Browser()
	got := b.Go("/wiki").Received(t).Header
	claims := stated(t, s, got.Get("X-Postern-Assertion"), "wiki")
	for name, want := range map[string]string{"sub": "alice", "user": "alice", "email": "alice@example.com", "name": "Alice Example", "preferred_username": "alice", "provider": "corp"} {
		if claims[name] != want {
			t.Errorf("%s is %v, want %s", name, claims[name], want)
		}
	}
	if groups, _ := claims["groups"].([]any); len(groups) != 1 || groups[0] != "wiki-users" || claims["sid"] == nil || !strings.Contains(s.Log.String(), claims["sid"].(string)) {
		t.Errorf("%v", claims)
	}
	if got.Get("X-Forwarded-User") != "alice" || got.Get("Authorization") == "" {
		t.Errorf("the other headers: %v", got)
	}
	got = b.Fetch("/shop").Received(t).Header
	stated(t, s, got.Get("X-Proof"), "shop")
	if got.Get("X-User") != "alice" || got.Get("X-Postern-Assertion") != "" {
		t.Errorf("%v", got)
	}
	presented := strings.TrimPrefix(b.Fetch("/").Received(t).Header.Get("Authorization"), "Bearer ")
	got = present(t, s, "/wiki", "Bearer "+presented).Received(t).Header
	if claims := stated(t, s, got.Get("X-Postern-Assertion"), "wiki"); claims["sub"] != "alice" || claims["sid"] != nil {
		t.Errorf("of a presented token: %v", claims)
	}
}

// Nobody but Postern sends the header, in no spelling, on no route.
func TestAssertionsOfClientsNeverPass(t *testing.T) {
	s, _, _ := assertionStack(t, assertionConfig)
	b := s.Browser()
	b.Go("/")
	header := map[string]string{"X-Postern-Assertion": "forged", "X_Postern_Assertion": "forged", "x-proof": "forged", "X.Postern-Assertion": "forged"}
	for _, path := range []string{"/", "/wiki", "/shop", "/maybe", "/open"} {
		for name, values := range b.Do("GET", path, nil, header).Received(t).Header {
			if values[0] == "forged" {
				t.Errorf("%s: %s passed", path, name)
			}
		}
	}
	for name := range s.Browser().Do("GET", "/maybe", nil, header).Received(t).Header {
		if strings.Contains(name, "Assertion") {
			t.Errorf("without a session: %s", name)
		}
	}
}

func TestAssertionIsSignedAgainInTimeAndForEachSession(t *testing.T) {
	s, _, _ := assertionStack(t, assertionConfig)
	of := func(b *proxytest.Browser) string {
		return b.Fetch("/wiki").Received(t).Header.Get("X-Postern-Assertion")
	}
	alice := s.Browser()
	alice.Go("/")
	s.Provider.SignInAs("bob")
	bob := s.Browser()
	bob.Go("/")
	first := of(alice)
	if of(alice) != first {
		t.Error("it is signed for each request")
	}
	if claims := stated(t, s, of(bob), "wiki"); claims["sub"] != "bob" {
		t.Errorf("bob's is %v", claims)
	}
	s.Clock.Add(31 * time.Second)
	next := of(alice)
	stated(t, s, next, "wiki")
	if next == first {
		t.Error("it was kept for more than half its life")
	}
	s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"new"}}})
	alice.Post("/oauth2/session/refresh", nil)
	if claims := stated(t, s, of(alice), "wiki"); claims["groups"].([]any)[0] != "new" {
		t.Errorf("after a refresh with other groups: %v", claims)
	}
}

func TestAssertionKeysChangeWithTheConfiguration(t *testing.T) {
	s, first, second := assertionStack(t, assertionConfig)
	b := s.Browser()
	kid := func() string {
		jws, err := jose.ParseSignedCompact(b.Fetch("/wiki").Received(t).Header.Get("X-Postern-Assertion"), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		return jws.Signatures[0].Protected.KeyID
	}
	b.Go("/")
	before := kid()
	a, errA := os.ReadFile(first)
	c, errC := os.ReadFile(second)
	if errA != nil || errC != nil || os.WriteFile(first, c, 0o600) != nil || os.WriteFile(second, a, 0o600) != nil {
		t.Fatal("files")
	}
	s.Reload("")
	if kid() == before {
		t.Error("the second key does not sign")
	}
	stated(t, s, b.Fetch("/wiki").Received(t).Header.Get("X-Postern-Assertion"), "wiki")
}

func TestKeySetOfAssertions(t *testing.T) {
	s, _, _ := assertionStack(t, assertionConfig)
	a := s.Browser().Do("GET", "/oauth2/jwks", nil, map[string]string{"Host": "postern.internal"})
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(a.Text), &set); err != nil || len(set.Keys) != 2 || a.Header.Get("Cache-Control") != "public, max-age=300" {
		t.Fatalf("%s %v %s", a.Status, a.Header, a.Text)
	}
	for _, key := range set.Keys {
		if key["kty"] != "EC" || key["crv"] != "P-256" || key["alg"] != "ES256" || key["use"] != "sig" || key["kid"] == "" || key["d"] != nil {
			t.Errorf("%v", key)
		}
	}
	if a := s.Browser().Do("POST", "/oauth2/jwks", nil, nil); a.StatusCode != 405 {
		t.Errorf("POST: %s", a.Status)
	}
	if a := proxytest.New(t, proxytest.Options{}).Browser().Fetch("/oauth2/jwks"); a.StatusCode != http.StatusNotFound {
		t.Errorf("without assertions: %s", a.Status)
	}
}

func TestForwardAuthGrantsTheAssertion(t *testing.T) {
	text := strings.Replace(assertionConfig, `server: {`, "forward_auth: {dialect: caddy}\nserver: {trusted_proxies: [127.0.0.1/32], ", 1)
	s, _, _ := assertionStack(t, text)
	b := s.Browser()
	b.Go("/")
	for path, want := range map[string]bool{"/wiki": true, "/": false} {
		method, target, header := question("caddy", "GET", path, strings.TrimPrefix(s.URL, "http://"))
		header["X-Postern-Assertion"] = "forged"
		a := b.Do(method, target, nil, header)
		values, there := a.Header["X-Postern-Assertion"]
		if a.StatusCode != 200 || !there || len(values) != 1 {
			t.Fatalf("%s: %s %v", path, a.Status, a.Header)
		}
		if want {
			stated(t, s, values[0], "wiki")
		} else if values[0] != "" {
			t.Errorf("%s: %q is copied", path, values[0])
		}
	}
}

func TestAssertionKeysThatAreNone(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "no PEM": "x", "a certificate": "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n",
		"another curve": "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n"} {
		if _, err := config.ParseAssertionKey(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := config.ParseAssertionKey(proxy.NewAssertionKey()); err != nil {
		t.Error(err)
	}
}
