//go:build attack

package attack_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"postern/cmd/postern/proctest"
)

// serves checks that somebody new is answered.
func (w *world) serves(what string) {
	w.t.Helper()
	if a := w.ask(w.get("/x")); a == nil || a.status != http.StatusOK {
		w.t.Errorf("%s: somebody new gets %+v", what, a)
	}
}

func TestA141_ACookieBombHasAWayOut(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/x")
	w.app.forget()
	html := "Accept: text/html"
	for what, bomb := range map[string]string{
		"3001 cookies": b.cookies() + strings.Repeat("; a=1", 3001), "1001 cookies": b.cookies() + strings.Repeat("; a=1", 1001), "70 KiB": b.cookies() + "; bomb=" + strings.Repeat("x", 70<<10),
		"200 KiB": b.cookies() + strings.Repeat("; bomb="+strings.Repeat("x", 4000), 50),
	} {
		a := w.ask(w.get("/x", bomb, html))
		if a == nil || a.status != http.StatusRequestHeaderFieldsTooLarge || a.header.Get("Location") != "" || !strings.Contains(a.body, `<form method="post" action="/oauth2/clear-cookies">`) {
			t.Fatalf("%s: %+v", what, a)
		}
		a.uncached(t, what)
		if a := w.ask(w.request("POST /oauth2/clear-cookies", bomb, html, "Content-Length: 0", "Sec-Fetch-Site: cross-site", "Origin: https://evil.example.net")); a.status != http.StatusForbidden || a.header.Get("Clear-Site-Data") != "" {
			t.Errorf("%s, by another site: %d", what, a.status)
		}
		a = w.ask(w.request("POST /oauth2/clear-cookies", bomb, html, "Content-Length: 0", "Sec-Fetch-Site: same-origin", "Origin: "+w.origin))
		if a.status != http.StatusOK || a.header.Get("Clear-Site-Data") != `"cookies"` || len(a.header["Set-Cookie"]) == 0 || len(a.raw) > 12<<10 {
			t.Errorf("%s: the way out: %d %q", what, a.status, a.header)
		}
		for _, c := range (&http.Response{Header: a.header}).Cookies() {
			if c.MaxAge >= 0 || c.Value != "" {
				t.Errorf("%s: %s", what, c.Raw)
			}
		}
	}
	for what, request := range map[string]string{
		"a header beyond all limits": w.get("/x", "X-Large: "+strings.Repeat("x", 400<<10)), "many headers": w.get("/x", strings.Split(strings.Repeat("X-A: 1\n", 40000), "\n")[:40000]...),
		"a large header": w.get("/x", "X-Large: "+strings.Repeat("x", 65<<10)), "a long address": w.get("/" + strings.Repeat("x", 100<<10)), "a program's cookies": w.get("/x", "Cookie: a="+strings.Repeat("x", 70<<10)),
	} {
		if a := w.ask(request); a != nil && a.status != http.StatusRequestHeaderFieldsTooLarge && a.status != http.StatusRequestURITooLong {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	w.app.none(t)
}

func TestA191_OneAddressHoldsFewConnections(t *testing.T) {
	attack(t)
	limited := newWorld(t, settings{routes: everyone, server: "max_connections_per_client: 5"})
	var open []*wire
	for range 5 {
		c := limited.dial().send(limited.get("/x"))
		if a := c.answer("GET"); a == nil || a.status != http.StatusOK {
			t.Fatalf("within the limit: %+v", a)
		}
		open = append(open, c)
	}
	if a := limited.dial().send(limited.get("/x")).answer("GET"); a != nil {
		t.Errorf("beyond the limit: %+v", a)
	}
	open[0].Close()
	proctest.Eventually(t, "a connection is free again", func() error {
		c := limited.dial()
		defer c.Close()
		if a := c.send(limited.get("/x")).answer("GET"); a == nil {
			return io.EOF
		}
		return nil
	})
}

func TestA193_OnlyAPersonsNavigationIsSentToTheProvider(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	navigation := []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	for what, c := range map[string]struct {
		method string
		lines  []string
		want   int
	}{
		"navigation":       {"GET", navigation, 303},
		"old browser":      {"GET", []string{"Accept: text/html,*/*;q=0.8"}, 303},
		"form":             {"POST", append(navigation, "Content-Length: 3"), 401},
		"fetch":            {"GET", []string{"Accept: */*", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 401},
		"fetch of a page":  {"GET", []string{"Accept: text/html", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"}, 401},
		"XMLHttpRequest":   {"GET", []string{"Accept: text/html", "X-Requested-With: XMLHttpRequest"}, 401},
		"image":            {"GET", []string{"Accept: image/*", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 401},
		"script":           {"GET", []string{"Accept: */*", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"}, 401},
		"frame":            {"GET", []string{"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 401},
		"JSON":             {"GET", []string{"Accept: application/json"}, 401},
		"nothing accepted": {"GET", nil, 401},
		"prefetch":         {"GET", append(navigation, "Sec-Purpose: prefetch"), 401},
		"WebSocket":        {"GET", []string{"Connection: Upgrade", "Upgrade: websocket"}, 401},
		"DELETE":           {"DELETE", nil, 401},
	} {
		request := w.request(c.method+" /x", c.lines...)
		if c.method == "POST" {
			request += "a=1"
		}
		a := w.ask(request)
		if a == nil || a.status != c.want {
			t.Errorf("%s: %+v, want %d", what, a, c.want)
			continue
		}
		if a.status == http.StatusUnauthorized && (len(a.header["Set-Cookie"]) > 0 || a.header.Get("WWW-Authenticate") == "" || a.header.Get("Location") != "") {
			t.Errorf("%s: %q", what, a.header)
		}
		a.uncached(t, what)
	}
	w.app.none(t)
}

// TestA191_HTTP2ClientsHoldNobodyUp is the same row for HTTP/2: resets, headers without end, settings and pings without end.
func TestA191_HTTP2ClientsHoldNobodyUp(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone, tls: true})
	w.app.answersBy(func(r *received, conn net.Conn) bool {
		if r.URL.Path != "/x" {
			_, _ = io.Copy(io.Discard, r.in) // never answers
			return false
		}
		return ok(r, conn)
	})
	before := w.memory("VmRSS")
	for what, flood := range map[string]func(c *h2) error{
		"resets": func(c *h2) error {
			for i := range uint32(5000) {
				if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.block(w.fields("GET", "/held")...), EndHeaders: true, EndStream: true}); err != nil {
					return err
				}
				if err := c.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
			return nil
		},
		"headers without end": func(c *h2) error {
			if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(w.fields("GET", "/held")...)}); err != nil {
				return err
			}
			for i := range 20000 {
				if err := c.WriteContinuation(1, false, c.block("x-a", strconv.Itoa(i), "x-b", strings.Repeat("x", 1000))); err != nil {
					return err
				}
			}
			return nil
		},
		"streams": func(c *h2) error {
			for i := range uint32(2000) {
				if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: c.block(w.fields("GET", "/held")...), EndHeaders: true, EndStream: true}); err != nil {
					return err
				}
			}
			return nil
		},
		"settings": func(c *h2) error {
			for range 20000 {
				if err := c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535}); err != nil {
					return err
				}
			}
			return nil
		},
		"pings": func(c *h2) error {
			for range 20000 {
				if err := c.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		c := w.h2()
		_ = c.conn.SetDeadline(time.Now().Add(5 * time.Second)) // nobody reads what comes back: that it stands still is an end, too
		if err := flood(c); err != nil {
			t.Logf("%s: %v", what, err)
		}
		w.serves(what)
		if n := len(w.app.received()); n > 4*250+20 {
			t.Errorf("%s: %d requests reach the application", what, n)
		}
		c.conn.Close()
		w.app.forget()
		w.app.cut()
	}
	if grown := w.memory("VmRSS") - before; grown > 128<<20 {
		t.Errorf("the floods take %d MiB", grown>>20)
	}
}
