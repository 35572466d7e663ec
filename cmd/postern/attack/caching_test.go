//go:build attack

package attack_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
)

// uncached checks that no cache keeps an answer.
func (a *answer) uncached(t *testing.T, what string) {
	t.Helper()
	if got := a.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s: Cache-Control %q", what, got)
	}
}

func TestA110_NoAnswerOfOursIsKept(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	for _, path := range []string{"/x", "/oauth2/start", "/oauth2/callback", "/oauth2/callback?error=x&state=y", "/oauth2/logout", "/oauth2/session", "/oauth2", "/oauth2/nothing", "/oauth2/clear-cookies", "/x%00", "/oauth2/logout/callback", "/oauth2/logout/frontchannel"} {
		p := b.navigate(path)
		p.uncached(t, path+" for a person")
		if p.status < 300 && path == "/x" {
			t.Errorf("%s: %d", path, p.status)
		}
		w.ask(w.get(path)).uncached(t, path+" for a program")
		w.ask(w.request("POST "+path, "Content-Length: 0")).uncached(t, "POST "+path)
	}
	b.signIn("/x")
	for _, path := range []string{"/oauth2/session", "/oauth2"} {
		p := b.navigate(path)
		p.uncached(t, path+" with a session")
	}
	w.app.cut()
	w.app.answersBy(func(*received, net.Conn) bool { return false })
	p := b.navigate("/x")
	if p.uncached(t, "an application that does not answer"); p.status != http.StatusBadGateway {
		t.Errorf("an application that does not answer: %d", p.status)
	}
}

func TestA111_AnAnswerForOnePersonIsPrivate(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: `
  - {path: /public/, upstream: {app}, access: public}
  - {path: /forced/, upstream: {app}, headers_response: {Cache-Control: '"no-store"'}}
  - {path: /, upstream: {app}}
`})
	b := w.browser()
	b.signIn("/x")
	for own, want := range map[string]string{
		"X-None: 1": "private", "Cache-Control: public, max-age=60": "public, max-age=60", "Cache-Control: no-cache": "no-cache", "Expires: Thu, 01 Jan 2099 00:00:00 GMT": "private", "Last-Modified: Thu, 01 Jan 2015 00:00:00 GMT": "private",
	} {
		w.app.answers(reply("200 OK", "ok", own))
		if got := b.fetch(http.MethodGet, "/x", "").header.Get("Cache-Control"); got != want {
			t.Errorf("the application says %q: Cache-Control %q, want %q", own, got, want)
		}
		if got := b.fetch(http.MethodGet, "/forced/x", "").header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("forced, the application says %q: Cache-Control %q", own, got)
		}
	}
	w.app.answers(reply("200 OK", "ok"))
	if got := b.fetch(http.MethodGet, "/public/x", "").header.Get("Cache-Control"); got != "" {
		t.Errorf("a public page: Cache-Control %q", got)
	}
}

func TestA112_NoEndingOfAPathMakesAPageCacheable(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	alice, mallory := w.browser(), w.browser()
	alice.signIn("/x")
	w.provider.SignInAs("mallory")
	mallory.signIn("/x")
	w.app.answersBy(func(r *received, conn net.Conn) bool {
		_, err := conn.Write([]byte(reply("200 OK", "page of "+r.Header.Get("X-Forwarded-User"), "Content-Type: text/css")))
		return err == nil
	})
	for _, path := range []string{"/account/x.css", "/account;x.css", "/account%2ecss", "/account/x.js?v=1", "/favicon.ico", "/account/%0a.css"} {
		for who, b := range map[string]*browser{"alice": alice, "mallory": mallory} {
			p := b.fetch(http.MethodGet, path, "")
			if p.status == http.StatusOK && (p.header.Get("Cache-Control") != "private" || p.body != "page of "+who) {
				t.Errorf("%s for %s: Cache-Control %q, %q", path, who, p.header.Get("Cache-Control"), p.body)
			}
		}
		if a := w.ask(w.get(path)); a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest || strings.Contains(a.body, "page of") {
			t.Errorf("%s for a stranger: %d %s", path, a.status, a.body)
		}
	}
}

func TestA113_AnAnswerWithOurCookieIsNotKept(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	w.app.answers(reply("200 OK", "ok", "Cache-Control: public, max-age=3600"))
	b := w.browser()
	p := b.open("/x")
	if p.status != http.StatusOK {
		t.Fatal(p.status)
	}
	// The first page after the sign-in deletes the cookie of the attempt or sets nothing.
	for range 3 {
		if ours := p.header["Set-Cookie"]; len(ours) > 0 {
			p.uncached(t, strings.Join(ours, "; "))
		}
		p = b.navigate("/x")
	}
	// An attempt that was left behind goes with the next page of the application.
	b.navigate("/oauth2/start?rd=/x")
	p = b.navigate("/x")
	if ours := p.header["Set-Cookie"]; len(ours) > 0 {
		p.uncached(t, strings.Join(ours, "; "))
	}
	if p := w.browser().navigate("/x"); len(p.header["Set-Cookie"]) == 0 {
		t.Error("the way to the provider sets no cookie")
	} else {
		p.uncached(t, "the way to the provider")
	}
}

func TestA114_NothingValidatesForSomebodyElse(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.forget()
	w.app.answers("HTTP/1.1 304 Not Modified\r\nETag: \"alice\"\r\n\r\n")
	if a := w.ask(w.get("/x", `If-None-Match: "alice"`)); a.status != http.StatusUnauthorized || a.header.Get("ETag") != "" {
		t.Errorf("a stranger with somebody's ETag: %d %q", a.status, a.header)
	}
	w.app.none(t)
	if p := b.fetch(http.MethodGet, "/x", "", `If-None-Match: "alice"`); p.status != http.StatusNotModified || p.header.Get("Cache-Control") != "private" {
		t.Errorf("304 with Cache-Control %q (%d)", p.header.Get("Cache-Control"), p.status)
	}
	for _, path := range []string{"/oauth2/session", "/oauth2"} {
		if p := b.navigate(path, `If-None-Match: *`, "If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT"); p.status != http.StatusOK || p.header.Get("ETag") != "" {
			t.Errorf("%s: %d, ETag %q", path, p.status, p.header.Get("ETag"))
		}
	}
}
