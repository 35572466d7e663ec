package proxy

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func trusting(prefixes ...string) forwarding {
	var f forwarding
	for _, p := range prefixes {
		f.trusted = append(f.trusted, netip.MustParsePrefix(p))
	}
	return f
}

func requestFrom(peer string, headers ...string) *http.Request {
	r := &http.Request{Method: "GET", Host: "wiki.example.com", RemoteAddr: peer, Header: http.Header{}, RequestURI: "/", ProtoMajor: 1, ProtoMinor: 1}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

func TestClient(t *testing.T) {
	f := trusting("10.0.0.0/8", "fd00::/8", "::ffff:172.16.0.0/108")
	const proxy, stranger = "10.0.0.1:1", "192.0.2.9:1"
	for _, tt := range []struct {
		name             string
		f                forwarding
		r                *http.Request
		addr             string
		trusted          bool
		scheme, host, pt string
		xff, forwarded   string
	}{
		{name: "nobody is trusted by default (A59)", r: requestFrom(proxy, "X-Forwarded-For", "1.1.1.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil", "Forwarded", "for=1.1.1.1"),
			addr: "10.0.0.1", scheme: "http", host: "wiki.example.com", pt: "80", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=wiki.example.com;proto=http"},
		{name: "a stranger says (A57)", f: f, r: requestFrom(stranger, "X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "https", "X-Forwarded-Port", "1", "X-Request-Id", "mine"),
			addr: "192.0.2.9", scheme: "http", host: "wiki.example.com", pt: "80", xff: "192.0.2.9", forwarded: "for=192.0.2.9;host=wiki.example.com;proto=http"},
		{name: "a trusted proxy says", f: f, r: requestFrom(proxy, "X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "pub.example.com"),
			addr: "192.0.2.9", trusted: true, scheme: "https", host: "pub.example.com", pt: "443", xff: "192.0.2.9, 10.0.0.1",
			forwarded: "for=192.0.2.9;host=pub.example.com;proto=https, for=10.0.0.1"},
		{name: "the left of the chain is spoofed (A58)", f: f, r: requestFrom(proxy, "X-Forwarded-For", "6.6.6.6, 10.9.9.9, 192.0.2.9", "X-Forwarded-For", "10.0.0.7"),
			addr: "192.0.2.9", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "192.0.2.9, 10.0.0.7, 10.0.0.1",
			forwarded: "for=192.0.2.9;host=wiki.example.com;proto=http, for=10.0.0.7, for=10.0.0.1"},
		{name: "all are trusted", f: f, r: requestFrom(proxy, "X-Forwarded-For", "10.1.1.1,10.2.2.2"),
			addr: "10.1.1.1", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "10.1.1.1, 10.2.2.2, 10.0.0.1",
			forwarded: "for=10.1.1.1;host=wiki.example.com;proto=http, for=10.2.2.2, for=10.0.0.1"},
		{name: "garbage ends the chain", f: f, r: requestFrom(proxy, "X-Forwarded-For", "192.0.2.9, unknown, 10.2.2.2"),
			addr: "10.2.2.2", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "10.2.2.2, 10.0.0.1",
			forwarded: "for=10.2.2.2;host=wiki.example.com;proto=http, for=10.0.0.1"},
		{name: "ports and IPv6", f: f, r: requestFrom("[fd00::1]:5", "X-Forwarded-For", "[2001:db8::1]:99", "X-Forwarded-Host", "[2001:db8::5]:8443", "X-Forwarded-Proto", "HTTPS"),
			addr: "2001:db8::1", trusted: true, scheme: "https", host: "[2001:db8::5]:8443", pt: "8443", xff: "2001:db8::1, fd00::1",
			forwarded: `for="[2001:db8::1]";host="[2001:db8::5]:8443";proto=https, for="[fd00::1]"`},
		{name: "mapped IPv4", f: f, r: requestFrom("[::ffff:10.0.0.1]:5", "X-Forwarded-For", "::ffff:192.0.2.9"),
			addr: "192.0.2.9", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "192.0.2.9, 10.0.0.1",
			forwarded: "for=192.0.2.9;host=wiki.example.com;proto=http, for=10.0.0.1"},
		{name: "mapped prefix", f: f, r: requestFrom("172.16.5.5:5", "X-Forwarded-For", "192.0.2.9"),
			addr: "192.0.2.9", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "192.0.2.9, 172.16.5.5",
			forwarded: "for=192.0.2.9;host=wiki.example.com;proto=http, for=172.16.5.5"},
		{name: "the last value is the peer's", f: f, r: requestFrom(proxy, "X-Forwarded-Proto", "https, http", "X-Forwarded-Host", "evil, ok.example.com", "X-Forwarded-Port", "1,8080"),
			addr: "10.0.0.1", trusted: true, scheme: "http", host: "ok.example.com", pt: "8080", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=ok.example.com;proto=http"},
		{name: "bad host, scheme and port are ignored", f: f, r: requestFrom(proxy, "X-Forwarded-Proto", "javascript", "X-Forwarded-Host", "a/b@c", "X-Forwarded-Port", "99999"),
			addr: "10.0.0.1", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=wiki.example.com;proto=http"},
		{name: "websocket scheme", f: f, r: requestFrom(proxy, "X-Forwarded-Proto", "wss"),
			addr: "10.0.0.1", trusted: true, scheme: "https", host: "wiki.example.com", pt: "443", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=wiki.example.com;proto=https"},
		{name: "Forwarded", f: f, r: requestFrom(proxy, "Forwarded", `for=6.6.6.6;host=evil, For="192.0.2.9:80";Host="pub.example.com:8443";Proto=https;by=_x`, "Forwarded", "for=10.0.0.8"),
			addr: "192.0.2.9", trusted: true, scheme: "https", host: "pub.example.com:8443", pt: "8443", xff: "192.0.2.9, 10.0.0.8, 10.0.0.1",
			forwarded: `for=192.0.2.9;host="pub.example.com:8443";proto=https, for=10.0.0.8, for=10.0.0.1`},
		{name: "one truth of two (S48)", f: f, r: requestFrom(proxy, "X-Forwarded-For", "192.0.2.9", "Forwarded", "for=6.6.6.6;proto=https;host=evil"),
			addr: "192.0.2.9", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "192.0.2.9, 10.0.0.1",
			forwarded: "for=192.0.2.9;host=wiki.example.com;proto=http, for=10.0.0.1"},
		{name: "broken Forwarded", f: f, r: requestFrom(proxy, "Forwarded", `for=192.0.2.9;proto="https`),
			addr: "10.0.0.1", trusted: true, scheme: "http", host: "wiki.example.com", pt: "80", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=wiki.example.com;proto=http"},
		{name: "obfuscated Forwarded", f: f, r: requestFrom(proxy, "Forwarded", `for=_hidden;proto=https`),
			addr: "10.0.0.1", trusted: true, scheme: "https", host: "wiki.example.com", pt: "443", xff: "10.0.0.1", forwarded: "for=10.0.0.1;host=wiki.example.com;proto=https"},
		{name: "unix socket", f: f, r: requestFrom("@", "X-Forwarded-For", "192.0.2.9"),
			addr: "invalid IP", scheme: "http", host: "wiki.example.com", pt: "80", forwarded: "for=unknown;host=wiki.example.com;proto=http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.f.client(tt.r)
			if c.Addr.String() != tt.addr || c.Trusted != tt.trusted || c.Scheme != tt.scheme || c.Host != tt.host || c.Port != tt.pt {
				t.Errorf("got %+v", c)
			}
			h := http.Header{}
			tt.f.set(h, c)
			want := http.Header{"X-Forwarded-Proto": {tt.scheme}, "X-Forwarded-Host": {tt.host}, "X-Forwarded-Port": {tt.pt}, "Forwarded": {tt.forwarded}, "X-Request-Id": {c.RequestID}}
			if tt.xff != "" {
				want["X-Forwarded-For"] = []string{tt.xff}
				want["X-Real-Ip"] = []string{tt.addr}
			}
			if diff := cmp.Diff(want, h); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClientTLS(t *testing.T) {
	r := requestFrom("192.0.2.9:1")
	r.TLS = &tls.ConnectionState{}
	if c := (forwarding{}).client(r); c.Scheme != "https" || c.Port != "443" {
		t.Errorf("got %+v", c)
	}
}

func TestRequestID(t *testing.T) {
	f := trusting("10.0.0.0/8")
	if got := f.client(requestFrom("10.0.0.1:1", "X-Request-Id", "abc-1.2_3")).RequestID; got != "abc-1.2_3" {
		t.Errorf("a trusted id becomes %q", got)
	}
	seen := map[string]bool{}
	for _, r := range []*http.Request{
		requestFrom("192.0.2.1:1", "X-Request-Id", "abc"),
		requestFrom("10.0.0.1:1", "X-Request-Id", "a b"),
		requestFrom("10.0.0.1:1", "X-Request-Id", strings.Repeat("x", 65)),
		requestFrom("10.0.0.1:1", "X-Request-Id", ""),
		requestFrom("10.0.0.1:1", "X-Request-Id", "a", "X-Request-Id", "b"),
		requestFrom("10.0.0.1:1", "X-Request-Id", "a\"}{"),
		requestFrom("10.0.0.1:1"),
	} {
		id := f.client(r).RequestID
		if seen[id] || len(id) < 22 || !isRequestID(id) || id == r.Header.Get("X-Request-Id") {
			t.Errorf("%v gets id %q", r.Header, id)
		}
		seen[id] = true
	}
}

func TestLongChainsAreBounded(t *testing.T) {
	c := trusting("0.0.0.0/0").client(requestFrom("10.0.0.1:1", "X-Forwarded-For", strings.Repeat("10.0.0.2,", 5000)+"10.0.0.3"))
	if len(c.hops) > maxHops {
		t.Errorf("%d hops", len(c.hops))
	}
}

// A130.
func TestCrossOriginUpgrade(t *testing.T) {
	for _, tt := range []struct {
		origin       []string
		scheme, host string
		foreign      bool
	}{
		{nil, "https", "wiki.example.com", false},
		{[]string{"https://wiki.example.com"}, "https", "wiki.example.com", false},
		{[]string{"https://WIKI.example.com"}, "https", "wiki.example.com:443", false},
		{[]string{"https://wiki.example.com:8443"}, "https", "wiki.example.com:8443", false},
		{[]string{"http://localhost:4180"}, "http", "localhost:4180", false},
		{[]string{"https://wiki.example.com"}, "http", "wiki.example.com", false}, // TLS ended before us, by a proxy that is not trusted
		{[]string{"http://[::1]:80"}, "http", "[::1]", false},
		{[]string{"http://wiki.example.com"}, "https", "wiki.example.com", true},
		{[]string{"https://wiki.example.com:8443"}, "https", "wiki.example.com", true},
		{[]string{"https://evil.example.com"}, "https", "wiki.example.com", true},
		{[]string{"https://wiki.example.com.evil"}, "https", "wiki.example.com", true},
		{[]string{"https://sub.wiki.example.com"}, "https", "wiki.example.com", true},
		{[]string{"null"}, "https", "wiki.example.com", true},
		{[]string{""}, "https", "wiki.example.com", true},
		{[]string{"https://"}, "https", "", true},
		{[]string{"chrome-extension://wiki.example.com"}, "https", "wiki.example.com", true},
		{[]string{"https://wiki.example.com", "https://evil"}, "https", "wiki.example.com", true},
	} {
		r := &http.Request{Header: http.Header{"Upgrade": {"websocket"}}}
		if tt.origin != nil {
			r.Header["Origin"] = tt.origin
		}
		if got := crossOriginUpgrade(r, clientInfo{Scheme: tt.scheme, Host: tt.host}); got != tt.foreign {
			t.Errorf("Origin %q at %s://%s: foreign is %v", tt.origin, tt.scheme, tt.host, got)
		}
		delete(r.Header, "Upgrade")
		if crossOriginUpgrade(r, clientInfo{Scheme: tt.scheme, Host: tt.host}) {
			t.Errorf("Origin %q without Upgrade is refused", tt.origin)
		}
	}
}

func FuzzForwardedIsRebuilt(f *testing.F) {
	f.Add("1.1.1.1, 10.0.0.2", "for=1.1.1.1;host=x", "https", "h:1")
	f.Add("[::1]:1", `for="[::1]:1";by=x, for=10.0.0.1`, "", "")
	f.Fuzz(func(t *testing.T, xff, fwd, proto, host string) {
		fw := trusting("10.0.0.0/8")
		for _, r := range []*http.Request{
			requestFrom("10.0.0.1:1", "X-Forwarded-For", xff, "X-Forwarded-Proto", proto, "X-Forwarded-Host", host),
			requestFrom("10.0.0.1:1", "Forwarded", fwd),
		} {
			c := fw.client(r)
			if !c.Addr.IsValid() || c.Scheme != "http" && c.Scheme != "https" || !isHost(c.Host) || !isPort(c.Port) {
				t.Fatalf("got %+v", c)
			}
			for _, hop := range c.hops {
				if !fw.trusts(hop) {
					t.Errorf("hop %v is not trusted", hop)
				}
			}
			h := http.Header{}
			fw.set(h, c)
			elements, ok := parseForwarded(h["Forwarded"])
			if !ok || len(elements) != 1+len(c.hops) || parseNode(elements[0].node) != c.Addr || elements[0].host != c.Host || elements[0].proto != c.Scheme {
				t.Errorf("Forwarded %q does not say %+v", h["Forwarded"], c)
			}
		}
		// Nothing is believed of a stranger.
		c := fw.client(requestFrom("192.0.2.9:1", "X-Forwarded-For", xff, "X-Forwarded-Proto", proto, "X-Forwarded-Host", host, "Forwarded", fwd))
		if c.Trusted || c.Addr.String() != "192.0.2.9" || c.Host != "wiki.example.com" || c.Scheme != "http" {
			t.Errorf("a stranger is believed: %+v", c)
		}
	})
}

func BenchmarkForwarding(b *testing.B) {
	f := trusting("10.0.0.0/8")
	r := requestFrom("192.0.2.9:1", "Accept", "*/*")
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		f.set(h, f.client(r))
	}
}
