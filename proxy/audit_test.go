package proxy_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// audited are the lines of the audit log of one kind so far.
func audited(t *testing.T, s *proxytest.Stack, event string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(s.Audit.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil || m["audit"] != true || m["msg"] != "audit" || m["event"] == nil || m["time"] == nil {
			t.Fatalf("not a line of the audit log: %s", line)
		}
		if m["event"] == event {
			lines = append(lines, m)
		}
	}
	return lines
}

// oneAudited is the only line of that kind; it must hold what is wanted.
func oneAudited(t *testing.T, s *proxytest.Stack, event string, want map[string]any) map[string]any {
	t.Helper()
	lines := audited(t, s, event)
	if len(lines) != 1 {
		t.Fatalf("%d lines of %s:\n%s", len(lines), event, s.Audit)
	}
	for name, value := range want {
		if lines[0][name] != value {
			t.Errorf("%s: %s = %v, want %v", event, name, lines[0][name], value)
		}
	}
	return lines[0]
}

func TestAuditTellsWhoSignedInFromWhere(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	b.Fetch("/").Received(t)
	line := oneAudited(t, s, "sign_in", map[string]any{"user": "alice", "subject": "alice", "provider": "corp", "client": "127.0.0.1", "browser": "Firefox", "method": "redirect", "level": "INFO"})
	if line["session"] == "" || line["request_id"] == "" || line["host"] == "" {
		t.Errorf("the line is %v", line)
	}
	b.Post("/oauth2/logout", nil)
	if out := oneAudited(t, s, "sign_out", map[string]any{"user": "alice"}); out["session"] != line["session"] {
		t.Errorf("signed out of %v, in to %v", out["session"], line["session"])
	}
}

func TestAuditTellsOfRefusedSignInsInWordsOfOurOwn(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	for _, c := range [][2]string{{"access_denied", "access_denied"}, {"canary-code\nevil", "bad_provider_answer"}} {
		s.Provider.RefuseSignIn(c[0], "canary-description")
		s.Browser().Go("/")
		lines := audited(t, s, "sign_in_refused")
		if len(lines) == 0 || lines[len(lines)-1]["reason"] != c[1] || lines[len(lines)-1]["provider"] != "corp" {
			t.Errorf("%q: %v", c[0], lines)
		}
	}
	if strings.Contains(s.Audit.String(), "canary") || len(audited(t, s, "sign_in")) > 0 {
		t.Errorf("audit log:\n%s", s.Audit)
	}
}

// What people type into the wrong field must not stand in a file for years.
func TestAuditHoldsNothingThatWasTyped(t *testing.T) {
	s, _ := passwordStack(t)
	b := s.Browser()
	form := b.Go("/")
	b.Submit(form, map[string]string{"username": "canary-name", "password": "canary-wrong"})
	oneAudited(t, s, "sign_in_refused", map[string]any{"reason": "wrong_password", "method": "password", "provider": "team"})
	b.Submit(b.Go("/"), map[string]string{"username": "ada@example.com", "password": "canary-password"})
	oneAudited(t, s, "sign_in", map[string]any{"method": "password", "user": "ada@example.com"})
	if strings.Contains(s.Audit.String(), "canary") {
		t.Errorf("audit log:\n%s", s.Audit)
	}
}

func TestAuditTellsWhoWasKeptOutOfWhat(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /payroll/, access: {groups: [accounting]}, upstream: "${UPSTREAM}"}
  - {path: /, upstream: "${UPSTREAM}"}
`})
	b := s.Browser()
	b.Fetch("/payroll/x") // nobody in particular: the request log's
	b.Go("/").Received(t)
	if len(audited(t, s, "access_refused")) > 0 {
		t.Errorf("refusals before: %s", s.Audit)
	}
	b.Fetch("/payroll/2026?canary=1")
	oneAudited(t, s, "access_refused", map[string]any{"user": "alice", "route": "/payroll/", "path": "/payroll/2026", "method": "GET", "reason": "groups"})
	b.Fetch("/payroll/2025")
	if n := len(audited(t, s, "access_refused")); n != 2 {
		t.Errorf("%d lines for two refusals", n)
	}
	if strings.Contains(s.Audit.String(), "canary") {
		t.Errorf("audit log:\n%s", s.Audit)
	}
}

func TestAuditTellsOfRefusedRefreshTokens(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetTokenTTL(10 * time.Minute)
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.RevokeUser("alice")
	s.Clock.Add(20 * time.Minute)
	if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized {
		t.Fatalf("%s", a.Status)
	}
	oneAudited(t, s, "refresh_rejected", map[string]any{"user": "alice", "subject": "alice", "provider": "corp"})
}

// No token, cookie or code is in the audit log, whatever happens.
func TestAuditHoldsNoTokenAndNoCookie(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	seen := b.Go("/").Received(t)
	secrets := []string{strings.TrimPrefix(seen.Header.Get("Authorization"), "Bearer "), b.Cookie(sessionCookie).Value}
	for _, at := range b.Trail {
		u, _ := url.Parse(at)
		secrets = append(secrets, u.Query().Get("code"), u.Query().Get("state"))
	}
	for _, r := range s.Provider.TokenRequests() {
		secrets = append(secrets, r.Form.Get("code"), r.Form.Get("code_verifier"))
	}
	b.Post("/oauth2/logout", nil)
	if s.Provider.Calls(idptest.Token) == 0 || s.Audit.String() == "" {
		t.Fatal("nothing happened")
	}
	for _, secret := range slices.Compact(secrets) {
		if secret != "" && strings.Contains(s.Audit.String(), secret) {
			t.Errorf("%q is in the audit log:\n%s", secret, s.Audit)
		}
	}
}

func TestAuditTellsEachEndOnceWithItsReasonAndActor(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: adminConfig})
	s.Provider.SetTokenTTL(5 * time.Minute)
	all := signedIn(t, s, 4)
	handles := map[string]bool{}
	for _, line := range audited(t, s, "sign_in") {
		handles[line["session"].(string)] = true
	}
	want := map[string]string{}
	expect := func(reason, actor string) {
		t.Helper()
		want[reason] = actor
		got := map[string]string{}
		ended := map[string]bool{}
		for _, line := range audited(t, s, "session_end") {
			got[line["reason"].(string)] = line["actor"].(string)
			handle := line["session"].(string)
			if !handles[handle] || ended[handle] || line["subject"] != "alice" || line["provider"] != "corp" {
				t.Errorf("the line is %v", line)
			}
			ended[handle] = true
		}
		if diff := cmp.Diff(want, got); diff != "" || len(ended) != len(want) {
			t.Errorf("reasons and actors (-want +got):\n%s", diff)
		}
	}
	all[0].Post("/oauth2/logout", nil)
	all[0].Fetch("/")
	expect("signed_out", "person")
	ask(t, s, "DELETE", "/sessions/"+ask(t, s, "GET", "/sessions?user=alice&limit=1").Sessions[0]["id"].(string))
	for _, b := range all {
		alive(b)
	}
	expect("admin", "admin")
	var left []*proxytest.Browser
	for _, b := range all {
		if alive(b) {
			left = append(left, b)
		}
	}
	left[0].Do("GET", "/oauth2/start?rd=/", nil, nil)
	left[0].Go("/oauth2/start?rd=/")
	for _, line := range audited(t, s, "sign_in") {
		handles[line["session"].(string)] = true
	}
	expect("replaced", "person")
	end(t, left[0], "others")
	s.Provider.RevokeUser("alice")
	s.Clock.Add(10 * time.Minute)
	left[0].Fetch("/")
	left[0].Fetch("/")
	if n := len(audited(t, s, "session_end")); n != 5 {
		t.Errorf("%d ends:\n%s", n, s.Audit)
	}
	if line := audited(t, s, "session_end")[4]; line["reason"] != "refresh_rejected" || line["actor"] != "provider" {
		t.Errorf("%v", line)
	}
}

// Anyone can make cookies up: they must not fill a disk.
func TestMadeUpCookiesWriteNoAudit(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	for i := range 20 {
		b := s.Browser()
		b.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: strings.Repeat("A", 100+i), Path: "/"}})
		b.Fetch("/")
	}
	if s.Audit.String() != "" {
		t.Errorf("audit log:\n%s", s.Audit)
	}
}

// Whichever proxy asks, the refusal is the same, and so is its line.
func TestAuditTellsOfRefusalsByForwardAuthToo(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			s := proxytest.New(t, proxytest.Options{Config: strings.NewReplacer("DIALECT", dialect, "wiki-users", "accounting").Replace(asking)})
			b := s.Browser()
			b.Go("/").Received(t)
			method, target, header := question(dialect, "POST", "/team/x?canary=1", strings.TrimPrefix(s.URL, "http://"))
			if a := b.Do(method, target, nil, header); a.StatusCode != http.StatusForbidden {
				t.Fatalf("%s %s", a.Status, a.Text)
			}
			oneAudited(t, s, "access_refused", map[string]any{"user": "alice", "route": "/team", "path": "/team/x", "method": "POST", "reason": "groups"})
			if strings.Contains(s.Audit.String(), "canary") {
				t.Errorf("audit log:\n%s", s.Audit)
			}
		})
	}
}
