package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const ruled = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /domain, access: {email_domains: [example.com]}, upstream: "${UPSTREAM}"}
  - {path: /emails, access: {emails: [bob@example.com]}, upstream: "${UPSTREAM}"}
  - {path: /users, access: {users: [alice]}, upstream: "${UPSTREAM}"}
  - {path: /claims, access: {claims: {realm.roles: [ops], level: [3]}}, upstream: "${UPSTREAM}"}
  - {path: /level, access: {rule: 'claims.level >= 3 || request.method == "GET"'}, upstream: "${UPSTREAM}"}
  - {path: /strict, access: {groups: [wiki-users], rule: 'claims.level >= 4'}, upstream: "${UPSTREAM}"}
  - {path: /missing, access: {rule: 'claims.nowhere == 1'}, upstream: "${UPSTREAM}"}
  - {path: /raw-email, access: {rule: 'claims.email.endsWith("@example.com")'}, upstream: "${UPSTREAM}"}
  - {path: /request, access: {rule: 'request.path == "/request/a b" && request.host == "127.0.0.1" && ip.startsWith("127.") && request.headers["x-tenant"] == "blue" && time > session.created'}, upstream: "${UPSTREAM}"}
  - {path: /optional, access: optional, upstream: "${UPSTREAM}"}
`

func levelled(level any, verified any) idptest.User {
	return idptest.User{Sub: "alice", Claims: map[string]any{
		"name": "Alice Example", "email": "alice@example.com", "email_verified": verified, "groups": []string{"wiki-users"},
		"level": level, "realm": map[string]any{"roles": []string{"dev", "ops"}},
	}}
}

func TestAccessConditionsInTheFlow(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: ruled})
	s.Provider.AddUser(levelled(3, true))
	b := s.Browser()
	for _, c := range []struct {
		path   string
		status int
		reason string
	}{
		{"/domain", 200, "conditions"}, {"/emails", 403, "emails"}, {"/users", 200, "conditions"}, {"/claims", 200, "conditions"},
		{"/level", 200, "conditions"}, {"/strict", 403, "rule"}, {"/missing", 403, "rule: no such key: nowhere"}, {"/raw-email", 200, "conditions"},
		{"/request", 403, "rule"},
	} {
		a := b.Go(c.path)
		if a.StatusCode != c.status {
			t.Errorf("%s: %s, want %d", c.path, a.Status, c.status)
		}
		lines := strings.Split(strings.TrimSpace(s.Log.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, `"reason":"`+c.reason+`"`) {
			t.Errorf("%s: logged %s", c.path, last)
		}
		if c.status == 403 && (!strings.Contains(a.Text, "Signed in as alice@example.com") || !strings.Contains(a.Text, "another account")) {
			t.Errorf("%s: the refusal does not name the account and another: %s", c.path, a.Text)
		}
	}
	if a := b.Do("POST", "/level", nil, nil); a.StatusCode != 200 {
		t.Errorf("POST with level 3: %s", a.Status)
	}
	if a := b.Do("GET", "/request/a%20b", nil, map[string]string{"X-Tenant": "blue"}); a.StatusCode != 200 {
		t.Errorf("a rule about the request: %s", a.Status)
	}
}

// A81: an address that the provider does not vouch for decides nothing, whether by its own condition or as a claim.
func TestA81_UnverifiedEmailDecidesNothing(t *testing.T) {
	for _, verified := range []any{false, nil, "false", 1, "yes"} {
		s := proxytest.New(t, proxytest.Options{Config: ruled})
		s.Provider.AddUser(levelled(3, verified))
		b := s.Browser()
		for _, path := range []string{"/domain", "/raw-email"} {
			if a := b.Go(path); a.StatusCode != 403 {
				t.Errorf("email_verified %v, %s: %s", verified, path, a.Status)
			}
		}
	}
	assumed := strings.Replace(ruled, "client_id: wiki,", "client_id: wiki, assume_email_verified: true,", 1)
	s := proxytest.New(t, proxytest.Options{Config: assumed})
	s.Provider.AddUser(levelled(3, nil))
	b := s.Browser()
	for _, path := range []string{"/domain", "/raw-email"} {
		if a := b.Go(path); a.StatusCode != 200 {
			t.Errorf("assume_email_verified, %s: %s", path, a.Status)
		}
	}
}

// A172: rules are decided again on the claims that a refresh brings.
func TestA172_RulesAreDecidedAgainAfterARefresh(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: ruled})
	s.Provider.AddUser(levelled(3, true))
	s.Provider.SetIDTokenOnRefresh(true)
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/users").Received(t) // signed in, or the test ends here
	if a := b.Do("POST", "/level", nil, nil); a.StatusCode != 200 {
		t.Fatalf("level 3: %s", a.Status)
	}
	s.Provider.AddUser(levelled(2, true))
	s.Clock.Add(2 * time.Minute)
	if a := b.Do("POST", "/level", nil, nil); a.StatusCode != 403 {
		t.Errorf("level 2 after a refresh: %s", a.Status)
	}
}

func TestOptionalUsesASessionWhereThereIsOne(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Config: ruled, Store: store})
	b := s.Browser()
	a := b.Do("GET", "/optional", nil, map[string]string{"Authorization": "Basic own", "X-Forwarded-User": "root", "x_forwarded_email": "root@x"})
	got := s.App.Requests()[0].Header
	if a.StatusCode != 200 || got.Get("Authorization") != "Basic own" || got.Get("X-Forwarded-User") != "" || got.Get("x_forwarded_email") != "" || len(a.Cookies()) > 0 {
		t.Errorf("stranger: %s %v", a.Status, got)
	}
	if n := store.calls.Load(); n != 0 {
		t.Errorf("a stranger caused %d store operations", n)
	}
	b.Go("/users").Received(t) // signed in, or the test ends here
	a = b.Do("GET", "/optional", nil, map[string]string{"Authorization": "Basic own", "X-Forwarded-User": "root"})
	all := s.App.Requests()
	got = all[len(all)-1].Header
	if a.StatusCode != 200 || got.Get("X-Forwarded-User") != "alice" || !strings.HasPrefix(got.Get("Authorization"), "Bearer ") {
		t.Errorf("signed in: %s %v", a.Status, got)
	}
	// What is over is absent; what cannot be known is 503.
	s.Clock.Add(24 * time.Hour)
	a = b.Do("GET", "/optional", nil, nil)
	all = s.App.Requests()
	if got = all[len(all)-1].Header; a.StatusCode != 200 || got.Get("X-Forwarded-User") != "" {
		t.Errorf("session over: %s %v", a.Status, got)
	}
}

func TestOptionalWithACookieDuringAnOutageIs503(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Config: ruled, Store: store})
	b := s.Browser()
	b.Go("/users").Received(t) // signed in, or the test ends here
	store.down.Store(true)
	s.Clock.Add(10 * time.Minute)
	before := len(s.App.Requests())
	if a := b.Do("GET", "/optional", nil, nil); a.StatusCode != http.StatusServiceUnavailable || len(s.App.Requests()) != before {
		t.Errorf("%s", a.Status)
	}
	if a := s.Browser().Do("GET", "/optional", nil, nil); a.StatusCode != 200 {
		t.Errorf("without a cookie nothing needs the store: %s", a.Status)
	}
}
