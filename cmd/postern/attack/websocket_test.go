//go:build attack

package attack_test

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// handshake begins a WebSocket.
func (w *world) handshake(target string, header ...string) string {
	return w.get(target, append([]string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, header...)...)
}

// sockets makes the application open every WebSocket, and keep it until the other side ends it.
func (a *app) sockets() {
	a.answersBy(func(r *received, conn net.Conn) bool {
		if r.Header.Get("Upgrade") == "" {
			return ok(r, conn)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		_, _ = io.Copy(io.Discard, r.in)
		return false
	})
}

func TestA130_NoOtherSiteOpensAWebSocket(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {path: /chat/, upstream: {app}, allowed_origins: [\"https://partner.example.org\"]}\n  - {path: /, upstream: {app}}\n"})
	b := w.browser()
	b.signIn("/x")
	w.app.sockets()
	w.app.forget()
	for _, origin := range []string{
		"https://evil.example.net", "null", "https://sub.app.example.com", "https://app.example.com.evil.example.net", "https://example.com", "http://evil.example.net", "https://app.example.com:8443",
		"app.example.com", "https://", "file://", "https://app.example.com\r\nOrigin: https://evil.example.net", "https://partner.example.org",
	} {
		a := w.ask(w.handshake("/x", b.cookies(), "Origin: "+origin))
		if a == nil || a.status != http.StatusForbidden {
			t.Errorf("Origin: %s: %+v", origin, a)
		}
		w.app.none(t)
	}
	for _, c := range []struct{ target, origin string }{{"/x", "Origin: " + w.origin}, {"/x", "X-No-Origin: 1"}, {"/chat/x", "Origin: https://partner.example.org"}} {
		conn := w.dial().send(w.handshake(c.target, b.cookies(), c.origin))
		if a := conn.answer("GET"); a == nil || a.status != http.StatusSwitchingProtocols {
			t.Errorf("%s: %+v", c.origin, a)
		}
		conn.Close()
	}
	if a := w.ask(w.handshake("/x", "Origin: "+w.origin)); a.status != http.StatusUnauthorized {
		t.Errorf("without a session: %d", a.status)
	}
}

func TestA131_AWebSocketEndsWithItsSession(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.sockets()
	c := w.dial().send(w.handshake("/x", b.cookies()))
	if a := c.answer("GET"); a == nil || a.status != http.StatusSwitchingProtocols {
		t.Fatalf("%+v", a)
	}
	if p := b.post("/oauth2/logout", nil); p.status >= 400 {
		t.Fatalf("sign-out: %d %s", p.status, p.body)
	}
	last, err := io.ReadAll(c.in) // ends by the patience of the wire
	if err != nil {
		t.Errorf("after the sign-out the WebSocket is open: %v", err)
	}
	if len(last) < 4 || last[0] != 0x88 {
		t.Errorf("it ends without a close frame: %q", last)
	}
}

func TestA132_AWebSocketGoesTheSameWay(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.sockets()
	w.app.forget()
	c := w.dial().send(w.handshake("/x", b.cookies(), "Cookie: other=1", "X-Forwarded-User: root", "X_Forwarded_User: root", "X-Forwarded-For: 198.51.100.7", "Connection: X-Forwarded-User, Authorization", "Authorization: Bearer junk"))
	if a := c.answer("GET"); a == nil || a.status != http.StatusSwitchingProtocols {
		t.Fatalf("%+v", a)
	}
	got := w.app.reaches(t, 1)[0]
	for _, name := range append([]string{"Authorization"}, identity...) {
		if values := got.folded(name); len(values) != 1 || values[0] == "root" || strings.Contains(values[0], "junk") {
			t.Errorf("%s: %q", name, values)
		}
	}
	if strings.Contains(got.raw, b.session()) || !strings.Contains(got.raw, "other=1") || strings.Contains(got.raw, "198.51.100.7") {
		t.Errorf("the application gets %q", got.raw)
	}
	if !slices.Equal(got.folded("Upgrade"), []string{"websocket"}) {
		t.Errorf("the application gets %q", got.raw)
	}
	c.Close()
}

func TestA133_AStreamEndsWithItsSession(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.answersBy(func(r *received, conn net.Conn) bool {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
		_, _ = io.Copy(io.Discard, r.in)
		return false
	})
	c := w.dial().send(w.get("/events", b.cookies()))
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	if p := b.post("/oauth2/logout", nil); p.status >= 400 {
		t.Fatalf("sign-out: %d %s", p.status, p.body)
	}
	if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("after the sign-out the stream goes on: %q %v", rest, err)
	}
}

func TestA134_NoOtherSiteSendsAForm(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {path: /guarded/, upstream: {app}, csrf: fetch_metadata, allowed_origins: [\"https://partner.example.org\"]}\n  - {path: /, upstream: {app}}\n"})
	b := w.browser()
	b.signIn("/x")
	w.app.forget()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, lines := range [][]string{
			{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example.net"}, {"Sec-Fetch-Site: same-site", "Origin: https://sub.example.com"}, {"Origin: https://evil.example.net"}, {"Origin: null"},
			{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: cross-site", "Origin: https://app.example.com.evil.example.net"},
		} {
			a := w.ask(w.request(method+" /guarded/x", append(lines, b.cookies(), "Content-Length: 0")...))
			if a == nil || a.status != http.StatusForbidden {
				t.Errorf("%s %q: %+v", method, lines, a)
			}
			w.app.none(t)
		}
		for _, lines := range [][]string{{"Sec-Fetch-Site: same-origin", "Origin: " + w.origin}, {"Sec-Fetch-Site: cross-site", "Origin: https://partner.example.org"}, {"X-Program: 1"}} {
			if a := w.ask(w.request(method+" /guarded/x", append(lines, b.cookies(), "Content-Length: 0")...)); a.status != http.StatusOK {
				t.Errorf("%s %q: %d", method, lines, a.status)
			}
			w.app.forget()
		}
	}
	// Without the guard it is the cookie that other sites' forms do not carry. A jar drops attributes: they are in the answer that sets it.
	var callback *page
	other := w.browser()
	for at := "/x"; ; {
		callback = other.navigate(at)
		next, err := callback.url.Parse(callback.header.Get("Location"))
		if err != nil || callback.header.Get("Location") == "" {
			t.Fatalf("no session cookie is set on the way: %v", err)
		}
		if other.session() != "" {
			break
		}
		at = next.String()
	}
	for _, c := range (&http.Response{Header: callback.header}).Cookies() {
		if c.Name == w.cookie && (c.SameSite != http.SameSiteLaxMode || !c.HttpOnly || !c.Secure) {
			t.Errorf("the session's cookie: %s", c.Raw)
		}
	}
}

func TestA135_NoOtherOriginReadsOurEndpoints(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.forget()
	for _, path := range []string{"/oauth2/session", "/oauth2/userinfo", "/oauth2", "/oauth2/session/refresh", "/oauth2/logout", "/oauth2/start", "/oauth2/nothing", "/x"} {
		for _, origin := range []string{"https://evil.example.net", "null", "https://sub.app.example.com"} {
			for _, request := range []string{
				w.get(path, "Origin: "+origin), w.request("POST "+path, "Origin: "+origin, "Sec-Fetch-Site: cross-site", "Content-Length: 0", b.cookies()),
				w.request("OPTIONS "+path, "Origin: "+origin, "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"),
			} {
				a := w.ask(request)
				for name := range a.header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%q: %s: %q", request, name, a.header[name])
					}
				}
			}
		}
	}
	if !b.signedIn() {
		t.Error("a page of another site has signed the person out")
	}
}
