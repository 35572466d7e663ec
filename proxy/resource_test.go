package proxy_test

import (
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

const resourceConfig = `
server: {listen: "${LISTEN}", public_url: "${ORIGIN}"}
session: {keys: ["${KEY}"]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /orders, upstream: "${UPSTREAM}", resource: "https://orders.example"}
  - {path: /stock, upstream: "${UPSTREAM}", resource: "https://stock.example"}
  - {path: /mail, upstream: "${UPSTREAM}", resource: "https://mail.example"}
`

var resources = map[string]string{"/orders": "https://orders.example", "/stock": "https://stock.example", "/mail": "https://mail.example"}

func resourceStack(t *testing.T) *proxytest.Stack {
	t.Helper()
	return proxytest.New(t, proxytest.Options{Config: resourceConfig, Env: map[string]string{"KEY": seal.NewKey()}})
}

// Each application gets tokens for itself alone, and whoever asks for several at once spends each refresh token once.
func TestEachResourceHasItsOwnToken(t *testing.T) {
	for name, rotate := range map[string]bool{"rotating": true, "not rotating": false} {
		t.Run(name, func(t *testing.T) {
			s := resourceStack(t)
			s.Provider.SetRotation(rotate)
			b := s.Browser()
			own := sent(t, b.Go("/"))
			var wg sync.WaitGroup
			for path, resource := range resources {
				for range 5 {
					wg.Go(func() {
						if sub, audience, active := s.Provider.Issued(sent(t, b.Fetch(path))); sub != "alice" || !active || !slices.Equal(audience, []string{resource}) {
							t.Errorf("%s: token of %s for %v", path, sub, audience)
						}
					})
				}
			}
			wg.Wait()
			if token := sent(t, b.Fetch("/")); token != own {
				t.Error("the session has another token of its own")
			}
			if n := s.Provider.RefreshReuses(); n != 0 {
				t.Errorf("%d refresh tokens were sent twice", n)
			}
			asked := 0
			for _, r := range s.Provider.TokenRequests() {
				if r.Form.Has("resource") {
					asked++
				}
			}
			if asked != len(resources) {
				t.Errorf("%d requests for %d resources", asked, len(resources))
			}
		})
	}
}

// While tokens for resources come and go the session is refreshed as ever.
func TestResourcesAndRefreshesTakeTurns(t *testing.T) {
	s := resourceStack(t)
	b := s.Browser()
	b.Go("/")
	for range 8 {
		var wg sync.WaitGroup
		for path := range resources {
			wg.Go(func() {
				if a := b.Fetch(path); a.StatusCode != 200 {
					t.Errorf("%s: %s", path, a.Status)
				} else if _, audience, active := s.Provider.Issued(sent(t, a)); !active || audience[0] != resources[path] {
					t.Errorf("%s: for %v, active %v", path, audience, active)
				}
			})
		}
		wg.Wait()
		if _, audience, active := s.Provider.Issued(sent(t, b.Fetch("/"))); !active || audience[0] != s.Provider.URL+"/api" {
			t.Errorf("the session's own: for %v, active %v", audience, active)
		}
		s.Clock.Add(5*time.Minute + time.Second) // all of them expire
	}
	if n := s.Provider.RefreshReuses(); n != 0 {
		t.Errorf("%d refresh tokens were sent twice", n)
	}
}

// Replicas take turns too, whether or not the provider replaces refresh tokens.
func TestResourcesOnReplicas(t *testing.T) {
	for name, rotate := range map[string]bool{"rotating": true, "not rotating": false} {
		t.Run(name, func(t *testing.T) {
			clock := &proxytest.Clock{}
			o := proxytest.Options{Config: resourceConfig, Clock: clock, Store: memstore.New(memstore.Options{Now: clock.Now}), Env: map[string]string{"KEY": seal.NewKey()}}
			here := proxytest.New(t, o)
			o.Provider = here.Provider
			there := proxytest.New(t, o)
			here.Provider.SetRotation(rotate)
			here.Provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic",
				RedirectURIs: []string{here.URL + "/oauth2/callback", there.URL + "/oauth2/callback"}})
			b := here.Browser()
			b.Go("/")
			other := b.At(there)
			for range 3 {
				var wg sync.WaitGroup
				for path := range resources {
					wg.Go(func() { sent(t, b.Fetch(path)) })
					wg.Go(func() { sent(t, other.Fetch(path)) })
				}
				wg.Wait()
				clock.Add(5*time.Minute + time.Second)
			}
			if n := here.Provider.RefreshReuses(); n != 0 {
				t.Errorf("%d refresh tokens were sent twice", n)
			}
		})
	}
}

// A resource that the provider does not know costs the session nothing.
func TestResourceThatIsRefused(t *testing.T) {
	s := resourceStack(t)
	b := s.Browser()
	b.Go("/")
	s.Provider.FailOAuth(idptest.Token, 400, "invalid_target", -1)
	for range 3 {
		if a := b.Fetch("/orders"); a.StatusCode != 502 || !strings.Contains(a.Text, "application_token_refused") {
			t.Errorf("%s %s", a.Status, a.Text)
		}
	}
	s.Provider.Heal(idptest.Token)
	if a := b.Fetch("/stock"); a.StatusCode != 200 {
		t.Errorf("another resource: %s", a.Status)
	}
	s.Clock.Add(4*time.Minute + 30*time.Second)
	if a := b.Fetch("/"); a.StatusCode != 200 {
		t.Errorf("the session: %s", a.Status)
	}
	if a := b.Fetch("/orders"); a.StatusCode != 200 {
		t.Errorf("healed: %s", a.Status)
	}
	if n := s.Provider.RefreshReuses(); n != 0 {
		t.Errorf("%d refresh tokens were sent twice", n)
	}
}

func TestResourceWithoutRefreshToken(t *testing.T) {
	s := resourceStack(t)
	s.Provider.SetRefresh(idptest.RefreshNever)
	b := s.Browser()
	b.Go("/")
	if a := b.Fetch("/orders"); a.StatusCode != 502 {
		t.Errorf("%s %s", a.Status, a.Text)
	}
	if a := b.Fetch("/"); a.StatusCode != 200 {
		t.Errorf("the session: %s", a.Status)
	}
}

// A session that the provider ends while a token for a resource is asked for leads to a sign-in, as with any other refresh.
func TestResourceOfASessionThatIsOver(t *testing.T) {
	s := resourceStack(t)
	b := s.Browser()
	b.Go("/")
	s.Provider.RevokeUser("alice")
	if a := b.Fetch("/orders"); a.StatusCode != 401 {
		t.Errorf("%s %s", a.Status, a.Text)
	}
	if a := b.Fetch("/"); a.StatusCode != 401 {
		t.Errorf("the session: %s", a.Status)
	}
}
