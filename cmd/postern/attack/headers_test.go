//go:build attack

package attack_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// threeWays are one route each for the kinds of access.
const threeWays = `
  - {path: /public/, upstream: {app}, access: public}
  - {path: /optional/, upstream: {app}, access: optional}
  - {path: /, upstream: {app}, access: signed_in}
`

// identity are the headers that tell an application who asks.
var identity = []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"}

func TestA50_ClientsCannotSayWhoTheyAre(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	spoofed := []string{
		"X-Forwarded-User: root", "X-Forwarded-Email: root@example.com", "X-Forwarded-Preferred-Username: root", "X-Forwarded-Groups: admins",
		"X-Forwarded-Access-Token: junk", "X-Auth-Request-User: root", "X-Auth-Request-Access-Token: junk", "Remote-User: root", "X-Remote-User: root",
		"X-WEBAUTH-USER: root", "X-Goog-Authenticated-User-Email: root", "Cf-Access-Authenticated-User-Email: root", "X-Amzn-Oidc-Data: junk",
		"OIDC_CLAIM_sub: root", "X-MS-Client-Principal: junk", "Tailscale-User-Login: root", "Auth-User: root",
	}
	for _, method := range []string{"GET", "OPTIONS", "POST", "DELETE"} {
		for _, path := range []string{"/public/x", "/optional/x", "/x"} {
			for _, cookie := range []string{"", b.cookies()} {
				if path == "/x" && cookie == "" {
					continue
				}
				w.app.forget()
				lines := append(slices.Clone(spoofed), "Content-Length: 0")
				if cookie != "" {
					lines = append(lines, cookie)
				}
				if a := w.ask(w.request(method+" "+path, lines...)); a.status != http.StatusOK {
					t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
				}
				got := w.app.one(t)
				want := "alice"
				if cookie == "" || path == "/public/x" {
					want = ""
				}
				if user := strings.Join(got.folded("X-Forwarded-User"), "|"); user != want {
					t.Errorf("%s %s: the application is told the user %q, want %q", method, path, user, want)
				}
				if strings.Contains(got.raw, "root") || strings.Contains(got.raw, "junk") || strings.Contains(got.raw, "admins") {
					t.Errorf("%s %s: the application gets %q", method, path, got.raw)
				}
			}
		}
	}
	w.app.forget()
	for _, path := range []string{"/oauth2/session", "/oauth2/nothing", "/x"} {
		if a := w.ask(w.get(path, append(spoofed, "Authorization: Bearer junk")...)); strings.Contains(a.raw, "root") || a.status == http.StatusOK {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	w.app.none(t)
}

func TestA55_ConnectionHeaderCannotDropIdentity(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	for _, named := range []string{
		"X-Forwarded-User, Authorization, Cookie, X-Forwarded-Email, X-Forwarded-For, X-Request-Id",
		"x-forwarded-user, authorization, cookie", "close, X-FORWARDED-USER,authorization", "X-Forwarded-User\r\nConnection: Authorization",
	} {
		w.app.forget()
		if a := w.ask(w.get("/x", b.cookies(), "Connection: "+named)); a.status != http.StatusOK {
			t.Fatalf("Connection: %s: %d %s", named, a.status, a.body)
		}
		got := w.app.one(t)
		for name, want := range map[string]string{"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com"} {
			if values := got.folded(name); len(values) != 1 || values[0] != want {
				t.Errorf("Connection: %s: %s is %q", named, name, values)
			}
		}
		for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Request-Id"} {
			if len(got.folded(name)) != 1 {
				t.Errorf("Connection: %s: %s is %q", named, name, got.folded(name))
			}
		}
		if strings.Contains(got.raw, b.session()) {
			t.Errorf("Connection: %s: the application gets the session's cookie", named)
		}
	}
}

func TestA66_JunkBearerIsNoSignIn(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	for _, junk := range []string{"Authorization: Bearer junk", "Authorization: Bearer " + b.session(), "Authorization: Basic cm9vdDpyb290", "authorization: bearer a.b.c"} {
		if a := w.ask(w.get("/x", junk)); a.status != http.StatusUnauthorized {
			t.Errorf("without cookie, %s: %d", junk, a.status)
		}
	}
	w.app.none(t)
	if a := w.ask(w.get("/x", b.cookies(), "Authorization: Bearer junk", "Authorization: Bearer more")); a.status != http.StatusOK {
		t.Fatalf("with cookie: %d %s", a.status, a.body)
	}
	got := w.app.one(t)
	if values := got.folded("Authorization"); len(values) != 1 || strings.Contains(values[0], "junk") || strings.Contains(values[0], "more") || !strings.HasPrefix(values[0], "Bearer ") {
		t.Errorf("the application gets Authorization %q", values)
	}
	for _, name := range identity {
		if len(got.folded(name)) != 1 {
			t.Errorf("%s is %q", name, got.folded(name))
		}
	}
}
