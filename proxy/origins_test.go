package proxy_test

import (
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

const crossed = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /api, upstream: "${UPSTREAM}", preflight: pass, cors: ["https://app.example.com"], headers: {X-Fixed: '"fixed"', X-Who: user}}
  - {path: /plain, upstream: "${UPSTREAM}"}
  - {path: /closed, access: deny, upstream: "${UPSTREAM}", preflight: pass}
  - {path: /guarded, upstream: "${UPSTREAM}", csrf: fetch_metadata, allowed_origins: ["https://partner.example.net"]}
  - {path: /guarded/hook, upstream: "${UPSTREAM}"}
  - {path: /public, access: public, upstream: "${UPSTREAM}", csrf: fetch_metadata}
`

func preflightOf(origin string) map[string]string {
	return map[string]string{"Origin": origin, "Access-Control-Request-Method": "POST", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
}

// A102, A103: a preflight passes where the route says so, without session, identity or token, and nothing else passes as one.
func TestA103_PreflightCarriesNobody(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Config: crossed, Store: store})
	b := s.Browser()
	b.Go("/plain")
	before := store.calls.Load()
	for name, browser := range map[string]*proxytest.Browser{"stranger": s.Browser(), "signed in": b} {
		header := preflightOf("https://app.example.com")
		header["Authorization"], header["X-Forwarded-User"], header["X-Who"] = "Basic own", "root", "root"
		got := browser.Do("OPTIONS", "/api", nil, header).Received(t).Header
		for _, h := range []string{"Authorization", "X-Forwarded-User", "X-Forwarded-Email", "X-Who", "X-Fixed"} {
			if got[h] != nil {
				t.Errorf("%s: %s: %q", name, h, got[h])
			}
		}
		if strings.Contains(got.Get("Cookie"), "postern") {
			t.Errorf("%s: our cookie reached the application", name)
		}
	}
	if n := store.calls.Load() - before; n != 0 {
		t.Errorf("%d store operations", n)
	}
	reached := len(s.App.Requests())
	for _, c := range []struct {
		method, path, drop string
		want               int
	}{
		{"OPTIONS", "/plain", "", 401}, {"OPTIONS", "/closed", "", 403}, {"OPTIONS", "/api", "Origin", 401}, {"OPTIONS", "/api", "Access-Control-Request-Method", 401},
		{"POST", "/api", "", 401}, {"GET", "/api", "", 401}, {"HEAD", "/api", "", 401}, {"options", "/api", "", 405},
	} {
		header := preflightOf("https://app.example.com")
		delete(header, c.drop)
		header["X-HTTP-Method-Override"] = "OPTIONS"
		if a := s.Browser().Do(c.method, c.path, nil, header); a.StatusCode != c.want {
			t.Errorf("%s %s without %s: %s, want %d", c.method, c.path, c.drop, a.Status, c.want)
		}
	}
	if n := len(s.App.Requests()); n != reached {
		t.Errorf("%d requests reached the application", n-reached)
	}
}

func TestCORSLetsListedOriginsReadOur401(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: crossed})
	for _, c := range []struct{ path, origin, want string }{
		{"/api", "https://app.example.com", "https://app.example.com"}, {"/api", "https://evil.example.com", ""}, {"/api", "null", ""},
		{"/api", "https://app.example.com.evil.com", ""}, {"/plain", "https://app.example.com", ""}, {"/api", "http://app.example.com", ""},
	} {
		a := s.Browser().Do("GET", c.path, nil, map[string]string{"Origin": c.origin, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"})
		if got := a.Header.Get("Access-Control-Allow-Origin"); a.StatusCode != 401 || got != c.want || (a.Header.Get("Access-Control-Allow-Credentials") != "") != (c.want != "") {
			t.Errorf("%s from %s: %s %v", c.path, c.origin, a.Status, a.Header)
		}
		if c.path == "/api" && a.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: Vary: %q", c.path, a.Header.Get("Vary"))
		}
	}
}

func TestCSRFGuardRefusesOtherSites(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: crossed})
	b := s.Browser()
	b.Go("/plain")
	for _, c := range []struct {
		name, method, path, site, origin string
		want                             int
	}{
		{"same origin", "POST", "/guarded", "same-origin", s.URL, 200},
		{"typed in", "POST", "/guarded", "none", "", 200},
		{"another site", "POST", "/guarded", "cross-site", "https://evil.example", 403},
		{"a sibling", "POST", "/guarded", "same-site", "https://other.example.com", 403},
		{"an old browser, another site", "POST", "/guarded", "", "https://evil.example", 403},
		{"an old browser, no origin to name", "DELETE", "/guarded", "", "null", 403},
		{"an old browser, same origin", "POST", "/guarded", "", s.URL, 200},
		{"a program", "POST", "/guarded", "", "", 200},
		{"a link", "GET", "/guarded", "cross-site", "", 200},
		{"an allowed origin", "POST", "/guarded", "cross-site", "https://partner.example.net", 200},
		{"an exception by path", "POST", "/guarded/hook", "cross-site", "https://evil.example", 200},
		{"a public route", "POST", "/public", "cross-site", "https://evil.example", 403},
		{"another method than it seems", "PUT", "/guarded", "cross-site", "https://evil.example", 403},
	} {
		a := b.Do(c.method, c.path, strings.NewReader("a=b"), map[string]string{"Sec-Fetch-Site": c.site, "Origin": c.origin})
		if a.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, a.Status, c.want)
		}
		if c.want == 403 && !strings.Contains(a.Text, "came from another site") {
			t.Errorf("%s: %s", c.name, a.Text)
		}
	}
}

// A130: a WebSocket handshake with a cookie, from a page of another origin.
func TestA130_WebSocketsOnlyFromOwnAndAllowedOrigins(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: crossed})
	b := s.Browser()
	b.Go("/plain")
	for origin, refused := range map[string]bool{
		s.URL: false, "": false, "https://partner.example.net": false, "HTTPS://PARTNER.example.net": false, "https://evil.example": true, "null": true,
		"https://partner.example.net.evil.example": true, "http://partner.example.net": true, "https://sub.partner.example.net": true,
	} {
		header := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13", "Sec-Fetch-Mode": "websocket"}
		if origin != "" {
			header["Origin"] = origin
		}
		if a := b.Do("GET", "/guarded", nil, header); (a.StatusCode == 403) != refused {
			t.Errorf("Origin %q: %s, refused should be %v", origin, a.Status, refused)
		}
		if a := b.Do("GET", "/plain", nil, header); origin == "https://partner.example.net" && a.StatusCode != 403 {
			t.Errorf("another route: %s", a.Status)
		}
	}
}
