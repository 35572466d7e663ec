package proxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

// A189, A113: session.keys change while Postern runs. Who is signed in stays so and gets a cookie under the new key, with an answer that no cache
// keeps.
func TestA189_KeysChangeWithTheConfiguration(t *testing.T) {
	t.Parallel()
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spare, old, next := seal.NewKey(), seal.NewKey(), seal.NewKey()
	write(first, old)
	write(second, spare)
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write([]byte("page"))
	})
	s := proxytest.New(t, proxytest.Options{App: app, Env: map[string]string{"FIRST": first, "SECOND": second}, Config: proxytest.Minimal + `
session: {keys: [{file: "${FIRST}"}, {file: "${SECOND}"}]}
`})
	replaced := func(n int) {
		t.Helper()
		s.Reload("")
		proxytest.Eventually(t, func() bool { return strings.Count(s.Log.String(), "session keys replaced") == n })
	}
	b := s.Browser()
	b.Go("/")
	value := b.Cookie(sessionCookie).Value
	if a := b.Fetch("/"); a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" || a.Header.Get("Cache-Control") != "public, max-age=3600" {
		t.Fatalf("%s %v", a.Status, a.Header)
	}

	write(second, old)
	write(first, next)
	replaced(1)
	s.Clock.Add(6 * time.Minute) // younger cookies are left alone
	a := b.Fetch("/")
	if a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" || len(a.Header["Set-Cookie"]) != 1 {
		t.Fatalf("with the new key: %s %v", a.Status, a.Header)
	}
	if b.Cookie(sessionCookie).Value == value {
		t.Fatal("the cookie is the old one")
	}
	stale := s.Browser() // who was not here meanwhile
	stale.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: value, Path: "/"}})
	if a := stale.Fetch("/"); a.StatusCode != http.StatusOK {
		t.Errorf("the old cookie while its key is there: %s", a.Status)
	}

	write(second, spare)
	replaced(2)
	if a := b.Fetch("/"); a.StatusCode != http.StatusOK || len(a.Header["Set-Cookie"]) != 0 {
		t.Errorf("with the old key gone: %s %v", a.Status, a.Header["Set-Cookie"])
	}
	if a := stale.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(s.Log.String(), "session_ended_key_unknown") {
		t.Errorf("the old cookie without its key: %s", a.Status)
	}
	if a := s.Browser().Go("/"); a.StatusCode != http.StatusOK { // sign-ins under way follow too
		t.Errorf("sign-in: %s", a.Status)
	}
}

// S39: the tokens of a session that another replica ended without its cookie are revoked when the cookie comes, once; except those for
// offline access when the provider ended it.
func TestS39_TokensOfSessionsEndedElsewhereAreRevoked(t *testing.T) {
	for name, c := range map[string]struct {
		scopes string
		why    session.Reason
		want   int // the refresh token and the access token
	}{
		"by an operator":                     {"[openid, offline_access]", session.ReasonAdmin, 2},
		"by the provider, offline access":    {"[openid, offline_access]", session.ReasonBackChannel, 0},
		"by the provider, no offline access": {"[openid]", session.ReasonBackChannel, 2},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &proxytest.Clock{}
			store := memstore.New(memstore.Options{Now: clock.Now})
			key := seal.NewKey()
			s := proxytest.New(t, proxytest.Options{Clock: clock, Store: store, Env: map[string]string{"KEY": key}, Config: `
server: {listen: "${LISTEN}"}
session: {keys: ["${KEY}"], cache: {max_stale: 0s}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret, scopes: ` + c.scopes + `}
routes:
  - upstream: ${UPSTREAM}
`})
			b := s.Browser()
			b.Go("/").Received(t)
			raw, err := seal.ParseKey(key)
			if err != nil {
				t.Fatal(err)
			}
			ring, err := seal.NewRing(raw)
			if err != nil {
				t.Fatal(err)
			}
			other, err := session.NewManager(session.Options{
				Provider: "corp", ClientID: "wiki", Issuer: s.Provider.URL, Deployment: "memory", Ring: ring, Store: store, Now: clock.Now,
				Cookie: session.Cookie{Name: sessionCookie}, IdleTimeout: time.Hour, Lifetime: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := other.EndMatching(t.Context(), session.Match{Subject: "alice"}, c.why); n != 1 || err != nil {
				t.Fatalf("ended %d, %v", n, err)
			}
			for range 3 {
				if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("after the end: %s", a.Status)
				}
			}
			proxytest.Eventually(t, func() bool { return s.Provider.Calls(idptest.Revoke) >= c.want })
			s.Stop()
			if got := s.Provider.Calls(idptest.Revoke); got != c.want {
				t.Errorf("%d revocations, want %d", got, c.want)
			}
		})
	}
}
