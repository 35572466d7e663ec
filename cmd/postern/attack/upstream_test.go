//go:build attack

package attack_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

func TestA144_ApplicationsDoNotGetOurCookies(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/x")
	b.navigate("/oauth2/start?rd=/x") // leaves the cookie of an attempt
	var attempts []string
	for _, c := range b.all() {
		if c.Name != w.cookie {
			attempts = append(attempts, c.Name+"="+c.Value)
		}
	}
	if len(attempts) == 0 {
		t.Fatal("no cookie of an attempt")
	}
	ours := w.cookie + "=" + b.session()
	for _, lines := range [][]string{
		{"Cookie: a=1; " + ours + "; b=2"}, {"Cookie: " + ours + "; a=1; b=2"}, {"Cookie: a=1; b=2;" + ours}, {"Cookie: a=1", "Cookie: " + ours, "Cookie: b=2"},
		{"Cookie: a=1; " + ours + "; " + ours + "; b=2"}, {"Cookie: a=1; =" + ours + "; b=2; " + ours}, {"Cookie: a=1;\t" + w.cookie + " = " + b.session() + " ; b=2; " + ours},
		{"cookie: a=1; " + ours + "; " + strings.Join(attempts, "; ") + "; b=2"}, {"Cookie: a=1; " + strings.Repeat("c=3; ", 900) + ours + "; b=2"}, {"Cookie: a=1; j={\"x\":1}; " + ours + "; b=2; \"q"},
	} {
		for _, path := range []string{"/public/x", "/optional/x", "/x"} {
			w.app.forget()
			if a := w.ask(w.get(path, lines...)); a == nil || a.status != http.StatusOK && a.status != http.StatusUnauthorized {
				t.Errorf("%.200q: %+v", lines, a)
				continue
			}
			for _, got := range w.app.received() {
				if strings.Contains(got.raw, w.cookie) || strings.Contains(got.raw, b.session()) {
					t.Errorf("%.200q: the application gets %q", lines, got.folded("Cookie"))
				}
				for _, c := range attempts {
					if _, value, _ := strings.Cut(c, "="); strings.Contains(got.raw, value) {
						t.Errorf("the application gets an attempt: %q", got.folded("Cookie"))
					}
				}
				if all := strings.Join(got.folded("Cookie"), "; "); !strings.Contains(all, "a=1") || !strings.Contains(all, "b=2") {
					t.Errorf("%.200q: the application's own cookies arrive as %q", lines, all)
				}
			}
		}
	}
}

func TestA145_ApplicationsDoNotSetOurCookies(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	var evil []string
	for _, set := range []string{"=stolen; Path=/; Secure", "=; Max-Age=0; Path=/", "=stolen; Domain=example.com", " =stolen", "=stolen; Path=/x"} {
		evil = append(evil, "Set-Cookie: "+w.cookie+set, "Set-Cookie: ="+w.cookie+set, "Set-Cookie: __Host-postern-login-x"+set)
	}
	evil = append(evil, `Clear-Site-Data: "cookies"`, `Clear-Site-Data: "*"`, "Set-Cookie: own=1")
	w.app.answers("HTTP/1.1 103 Early Hints\r\n" + strings.Join(evil, "\r\n") + "\r\nLink: </x.css>; rel=preload\r\n\r\n" +
		"HTTP/1.1 200 OK\r\nTrailer: Set-Cookie, X-Sum\r\nTransfer-Encoding: chunked\r\n" + strings.Join(evil, "\r\n") + "\r\n\r\n3\r\nok\n\r\n0\r\n" + strings.Join(evil, "\r\n") + "\r\nX-Sum: 1\r\n\r\n")
	c := w.dial().send(w.get("/x", b.cookies(), "TE: trailers", "Connection: close"))
	var all strings.Builder
	for {
		a := c.answer("GET")
		if a == nil {
			break
		}
		all.WriteString(a.raw)
		if a.status >= 200 && !strings.Contains(a.raw, "own=1") {
			t.Errorf("the application's own cookie is gone: %q", a.raw)
		}
	}
	if text := all.String(); strings.Contains(text, "stolen") || strings.Contains(text, w.cookie) || strings.Contains(text, "__Host-postern") || strings.Contains(text, `"cookies"`) || strings.Contains(text, `"*"`) {
		t.Errorf("the browser gets %q", text)
	}
	if !b.signedIn() {
		t.Error("signed out")
	}
}

func TestA146_AnswersThatPointInsideHoldNoToken(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	for _, line := range []string{
		"Location: http://10.0.0.5/x", "Refresh: 0; url=http://10.0.0.5/x", "Content-Location: http://10.0.0.5/x", "Link: <http://10.0.0.5/x>; rel=next", "Location: //10.0.0.5/x", "Location: /\\10.0.0.5",
	} {
		w.app.answers(reply("302 Found", "", line))
		p := b.fetch(http.MethodGet, "/x", "")
		if p.status != http.StatusFound {
			t.Errorf("%s: %d", line, p.status)
		}
		for name, values := range p.header { // the tokens are searched for in pages and logs; this is the header
			w.secrets.Search(t, "the header "+name, strings.Join(values, "\n"))
		}
	}
}

func TestA147_An401OfTheApplicationMakesNoLoop(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.answers(reply("401 Unauthorized", "no", `WWW-Authenticate: Bearer error="invalid_token"`))
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		w.app.forget()
		calls := w.provider.Calls(idptest.Token) + w.provider.Calls(idptest.Authorize)
		p := b.fetch(method, "/x", "body")
		if p.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", method, p.status)
		}
		if n := len(w.app.received()); n > 2 || method == http.MethodPost && n > 1 {
			t.Errorf("%s: the application is asked %d times", method, n)
		}
		if n := w.provider.Calls(idptest.Token) + w.provider.Calls(idptest.Authorize) - calls; n > 1 {
			t.Errorf("%s: the provider is asked %d times", method, n)
		}
	}
	if !b.signedIn() {
		t.Error("an answer of the application ended the session")
	}
}

func TestA148_WhatIsForTheNextHopStopsHere(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {upstream: {app}, access: public, headers_response: {X-Accel-Redirect: '\"\"', X-Sendfile: '\"\"', Server: '\"\"'}}\n"})
	w.app.answers(reply("200 OK", "ok\n", "Connection: X-Named", "X-Named: 31337", "Keep-Alive: timeout=31337", "Proxy-Authenticate: Basic realm=31337", "Proxy-Connection: 31337", "Upgrade: 31337",
		"Alt-Svc: h3=\":31337\"", "TE: 31337", "X-Accel-Redirect: /31337", "X-Sendfile: /31337", "Server: 31337"))
	a := w.ask(w.get("/x"))
	if a.status != http.StatusOK || strings.Contains(a.raw, "31337") {
		t.Errorf("%q", a.raw)
	}
}

func TestA149_TheRequestDoesNotChooseItsApplication(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {upstream: {app}, access: public}\n"})
	canary := startApp(t)
	at, err := url.Parse(canary.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{
		"GET " + canary.URL + "/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: " + at.Host + "\r\n\r\n",
		"GET //" + at.Host + "/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET @" + at.Host + "/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /@" + at.Host + "/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com@" + at.Host + "\r\n\r\n",
		"GET http://app.example.com@" + at.Host + "/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET " + at.Host + " HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"CONNECT " + at.Host + " HTTP/1.1\r\nHost: " + at.Host + "\r\n\r\n",
		"GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n",
		"GET :@" + at.Host + "/ HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		w.get("/x", "X-Forwarded-Host: "+at.Host, "X-Original-URL: "+canary.URL, "X-Rewrite-URL: "+canary.URL, "Forwarded: host="+at.Host, fmt.Sprintf("X-Upstream: %s", canary.URL)),
	} {
		a := w.ask(request)
		if a == nil {
			t.Errorf("%q: no answer", request)
		}
		canary.none(t)
	}
	for _, got := range w.app.received() {
		got.canonical(t)
	}
}

// startTLS is an application that speaks TLS with a certificate. It counts handshakes that came through, and keeps the names asked for.
func startTLS(t *testing.T, c certificate) (port string, names func() []string, through func() int) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	requests := 0
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, h.ServerName)
		return nil, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(proctest.Patience))
				if n, _ := conn.Read(make([]byte, 4096)); n > 0 {
					mu.Lock()
					requests++
					mu.Unlock()
					_, _ = io.WriteString(conn, reply("200 OK", "ok"))
				}
			})
		}
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, func() []string {
			mu.Lock()
			defer mu.Unlock()
			return append([]string(nil), asked...)
		}, func() int {
			mu.Lock()
			defer mu.Unlock()
			return requests
		}
}

func TestA150_ACertificateThatIsNotRightGetsNoRequest(t *testing.T) {
	attack(t)
	for what, c := range map[string]certificate{
		"self-signed": newCertificate(t, "localhost"),
		"wrong name":  newCertificate(t, "evil.example.net"),
		"expired":     newCertificateUntil(t, time.Now().Add(-time.Hour), "localhost"),
	} {
		port, names, through := startTLS(t, c)
		w := newWorld(t, settings{routes: "  - {upstream: \"https://localhost:" + port + "\", access: public}\n"})
		for _, host := range []string{w.host, "evil.example.net", "localhost"} {
			if a := w.ask("GET /x HTTP/1.1\r\nHost: " + host + "\r\n\r\n"); a == nil || a.status != http.StatusBadGateway {
				t.Errorf("%s: %+v", what, a)
			}
		}
		for _, name := range names() {
			if name != "localhost" {
				t.Errorf("%s: the application is asked for as %q", what, name)
			}
		}
		if through() > 0 {
			t.Errorf("%s: the application gets a request", what)
		}
		w.log.reasons(t, "upstream_tls")
	}
	// The same of a provider.
	port, _, through := startTLS(t, newCertificate(t, "localhost"))
	w := newWorld(t, settings{unready: true, providers: "  other: {issuer: \"https://localhost:" + port + "\", client_id: a, client_secret: bbbbbbbbbbbbbbbb}\n",
		routes: "  - {upstream: {app}, provider: other}\n"})
	if p := w.browser().navigate("/x"); p.status < 500 {
		t.Errorf("a provider with a certificate of its own: %d", p.status)
	}
	if through() > 0 {
		t.Error("a provider with a certificate of its own gets a request")
	}
}

func TestA151_AnAnswerWithoutEndHoldsNothing(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	w.app.answers("HTTP/1.1 200 OK\r\nX-Large: " + strings.Repeat("x", 1<<20) + "\r\nContent-Length: 0\r\n\r\n")
	if a := w.ask(w.get("/x")); a == nil || a.status != http.StatusBadGateway {
		t.Errorf("a header of 1 MiB: %+v", a)
	}
	w.app.answersBy(func(_ *received, conn net.Conn) bool {
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return false
		}
		for piece := strings.Repeat("x", 32<<10); ; {
			if _, err := io.WriteString(conn, piece); err != nil {
				return false
			}
		}
	})
	before := w.memory("VmRSS")
	for range 20 {
		c := w.dial().send(w.get("/endless"))
		if _, err := io.ReadFull(c.in, make([]byte, 256<<10)); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if grown := w.memory("VmRSS") - before; grown > 64<<20 {
		t.Errorf("20 answers without end take %d MiB", grown>>20)
	}
	w.process.Signal(t, 0) // it runs
	for range 5 {          // clients that leave let go of the application
		c := w.dial().send(w.get("/left"))
		if _, err := io.ReadFull(c.in, make([]byte, 1024)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	proctest.Eventually(t, "the application's connections end", func() error {
		w.app.mu.Lock()
		defer w.app.mu.Unlock()
		if n := len(w.app.open); n > 21 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
	w.app.answersBy(func(_ *received, conn net.Conn) bool { return false })
	if a := w.ask(w.get("/cut")); a == nil || a.status != http.StatusBadGateway {
		t.Errorf("an application that hangs up: %+v", a)
	}
}

func TestA152_RedirectsAreNotFollowedWithAToken(t *testing.T) {
	attack(t)
	canary := startApp(t)
	w := newWorld(t, settings{routes: "  - {path: /other/, upstream: " + canary.URL + ", bearer: none}\n  - {path: /, upstream: {app}}\n"})
	b := w.browser()
	b.signIn("/x")
	for _, status := range []string{"301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"} {
		w.app.answers(reply(status, "", "Location: "+canary.URL+"/stolen"))
		if p := b.fetch(http.MethodGet, "/x", ""); fmt.Sprint(p.status) != status[:3] {
			t.Errorf("%s: %d", status, p.status)
		}
		canary.none(t)
	}
	if p := b.fetch(http.MethodGet, "/other/x", ""); p.status != http.StatusOK {
		t.Fatal(p.status)
	}
	if got := canary.one(t); len(got.folded("Authorization")) > 0 {
		t.Errorf("an application without bearer gets %q", got.folded("Authorization"))
	}
}
