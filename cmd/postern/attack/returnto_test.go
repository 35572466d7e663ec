//go:build attack

package attack_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest/canary"
)

// lands signs in with rd as the address that is wanted afterwards, and returns where the callback leads.
func (b *browser) lands(rd string) string {
	b.w.t.Helper()
	p := b.navigate(b.callback("/oauth2/start?rd=" + url.QueryEscape(rd)).String())
	if p.status != http.StatusSeeOther {
		b.w.t.Fatalf("rd=%q: %d %s", rd, p.status, p.body)
	}
	return p.header.Get("Location")
}

// signsOutTo is where a click on sign-out leads that wants to go on to rd, for a browser without a session.
func (w *world) signsOutTo(b *browser, rd string) string {
	w.t.Helper()
	p := b.navigate("/oauth2/logout?rd="+url.QueryEscape(rd), "Sec-Fetch-Site: same-origin")
	if p.status != http.StatusSeeOther {
		w.t.Fatalf("rd=%q: %d %s", rd, p.status, p.body)
	}
	return p.header.Get("Location")
}

// reads is the host that a browser goes to which gets a Location on a page of ours: WHATWG's URL parser, as far as it matters for special
// schemes, is not that of Go.
func reads(location string) (host string) {
	s := strings.TrimFunc(location, func(c rune) bool { return c <= ' ' })
	s = strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(s)
	if scheme, rest, ok := strings.Cut(s, ":"); ok && !strings.ContainsAny(scheme, "/?#") {
		switch strings.ToLower(scheme) {
		case "https": // relative to an https page one without slashes is a path
			if !strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "/") {
				return publicHost
			}
		case "http":
		default:
			return "scheme " + scheme
		}
		s = "//" + strings.TrimLeft(rest, "/")
	}
	if !strings.HasPrefix(s, "//") {
		return publicHost
	}
	host = strings.TrimLeft(s, "/")
	if end := strings.IndexAny(host, "/?#"); end >= 0 {
		host = host[:end]
	}
	return host[strings.LastIndexByte(host, '@')+1:]
}

const returnHosts = "return_hosts: [docs.example.com, 'other.example.com:8443']"

// leadsNowhere checks that each address is refused, after sign-in and after sign-out: the person lands on the application's first page.
func leadsNowhere(t *testing.T, addresses ...string) {
	t.Helper()
	w := newWorld(t, settings{server: returnHosts})
	out := w.browser()
	for _, rd := range addresses {
		if at := w.browser().lands(rd); at != "/" {
			t.Errorf("rd=%q leads to %q", rd, at)
		}
		if at := w.signsOutTo(out, rd); at != "/oauth2/logout/callback" {
			t.Errorf("after sign-out rd=%q leads to %q", rd, at)
		}
		// As it is, where that is a request at all.
		if !strings.ContainsAny(rd, " \t\r\n\x00#") {
			a := w.ask(w.get("/oauth2/start?rd="+rd, "Accept: text/html"))
			if a == nil || a.status != http.StatusSeeOther && a.status != http.StatusBadRequest {
				t.Errorf("rd=%s as it is: %+v", rd, a)
			} else if l := a.header.Get("Location"); l != "" && !strings.HasPrefix(l, w.provider.URL+"/") {
				t.Errorf("rd=%s as it is leads to %q", rd, l)
			}
		}
	}
}

func TestA20_TwoSlashes(t *testing.T) {
	attack(t)
	leadsNowhere(t, "//evil.com", "//evil.com/", "//evil.com/%2f..", "//"+publicHost+"/x")
}

func TestA21_ManySlashes(t *testing.T) {
	attack(t)
	leadsNowhere(t, "///evil.com", "////evil.com", "/////evil.com/x", "///"+publicHost)
}

func TestA22_Backslashes(t *testing.T) {
	attack(t)
	leadsNowhere(t, `/\evil.com`, `/\/evil.com`, `\\evil.com`, `\evil.com`, `/a\..\evil`, `\/evil.com`, `https:\\evil.com`, `/a?b=\evil`)
}

func TestA23_EncodedSlashes(t *testing.T) {
	attack(t)
	leadsNowhere(t, "/%2fevil.com", "/%5cevil.com", "/%2F/evil.com", "/%5C%5Cevil.com", "%2f%2fevil.com", "%5c%5cevil.com")
	w := newWorld(t, settings{})
	if at := w.browser().lands("/%252fevil.com"); at != "/" && at != "/%252fevil.com" {
		t.Errorf("decoded once too often: %q", at)
	}
}

func TestA24_BytesThatBrowsersDrop(t *testing.T) {
	attack(t)
	leadsNowhere(t, "/\t/evil.com", "\t//evil.com", " //evil.com", "/\n/evil.com", "/\r/evil.com", "\r\n//evil.com", "\x00//evil.com", "/\x00/evil.com",
		"/ /evil.com\x7f", "\u0085//evil.com", "h\tttps://evil.com", "https:\n//evil.com", "java\tscript:alert(1)", "/x?a=\r\nb", "/x?\x00")
}

func TestA25_SchemesWithOddSlashes(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https:evil.com", "https:/evil.com", "https:///evil.com", `http:\\evil.com`, `https:\evil.com`, "http:evil.com", "https:", "https:/", "https://", "//")
}

func TestA26_Userinfo(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://"+publicHost+"@evil.com", "https://"+publicHost+":443@evil.com", "//"+publicHost+"@evil.com", "https://u@"+publicHost+"/", "https://u:p@docs.example.com/",
		"https://evil.com%40"+publicHost, "https://docs.example.com:x@evil.com/")
}

func TestA27_HostsThatLookAlike(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://"+publicHost+".evil.com", "https://evil"+publicHost, "https://x."+publicHost+"/", "https://evildocs.example.com/", "https://x.docs.example.com/",
		"https://docs.example.com.evil.com/", "https://docsXexample.com/", "https://example.com/", "https://.docs.example.com/", "https://docs.example.com./")
	// Those that are listed are let through, exactly.
	w := newWorld(t, settings{server: returnHosts})
	for rd, want := range map[string]string{
		"https://docs.example.com/x?y=1": "https://docs.example.com/x?y=1", "https://other.example.com:8443/": "https://other.example.com:8443/",
		"https://other.example.com/": "/", "https://docs.example.com:8443/": "/", "https://" + publicHost + "/x": "/x",
	} {
		if at := w.browser().lands(rd); at != want {
			t.Errorf("rd=%q leads to %q, want %q", rd, at, want)
		}
	}
}

func TestA28_OtherHostsBehindOurs(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://evil.com#."+publicHost, "https://evil.com?."+publicHost, `https://evil.com\.`+publicHost, "https://evil.com/"+publicHost, "https://evil.com;"+publicHost,
		"https://evil.com#@"+publicHost, "https://evil.com\\@"+publicHost)
}

func TestA29_Schemes(t *testing.T) {
	attack(t)
	leadsNowhere(t, "javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,<script>alert(1)</script>", "javascript://"+publicHost+"/%0aalert(1)", "vbscript:x", "file:///etc/passwd",
		"HTTPS://evil.com", "ftp://"+publicHost+"/", "blob:https://"+publicHost+"/x", "view-source:https://evil.com", "x")
}

func TestA30_UnicodeHosts(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://evil。com", "//evil。com", "https://ⓔvil.com", "https://ｅｖｉｌ.com", "https://app。example。com/", "https://ⓐpp.example.com/", "https://xn--app-.example.com/",
		"https://xn--docs-.example.com/", "https://docs.examplé.com/", "https://do\u00adcs.example.com/", "https://docs.example.com\u3000.evil.com")
}

func TestA31_EscapesInHosts(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://"+publicHost+"%00.evil.com", "https://"+publicHost+"%2eevil.com/", "https://%zz/", "https://docs%2eexample.com/", "https://docs.example.com%2f@evil.com", "https://[docs.example.com]/",
		"https://docs.example.com%09/", "https://%64ocs.example.com/")
}

func TestA32_AddressesPortsAndDowngrades(t *testing.T) {
	attack(t)
	leadsNowhere(t, "https://[::1%25eth0]/", "https://[::1]/", "https://"+publicHost+":443:443/", "https://0x7f.1/", "https://2130706433/", "https://"+publicHost+":8443/", "http://"+publicHost+"/",
		"http://docs.example.com/", "https://"+publicHost+":/", "https://docs.example.com:/", "https://docs.example.com:0443/")
}

func TestA35_DotSegments(t *testing.T) {
	attack(t)
	leadsNowhere(t, "/.//evil.com", "/a/..//evil.com", "/./evil.com", "/../evil.com", "/a/%2e%2e/b", "/%2e/evil", "/..;/x", "/./", "/..//evil.com", "/a//..//evil")
}

func TestA36_CharactersThatMislead(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for rd, want := range map[string]string{
		"/\u00a0/x": "/%C2%A0/x", "/\u202e/x": "/%E2%80%AE/x", "/〱evil": "/%E3%80%B1evil", "/\u2028x": "/%E2%80%A8x", "/ü?q=ö#é": "/%C3%BC?q=%C3%B6#%C3%A9", "/\x80\xff": "/",
	} {
		if at := w.browser().lands(rd); at != want {
			t.Errorf("rd=%q leads to %q, want %q", rd, at, want)
		}
	}
}

func TestA37_OwnEndpoints(t *testing.T) {
	attack(t)
	leadsNowhere(t, "/oauth2/callback", "/oauth2/callback?code=x&state=y", "/oauth2/logout", "/oauth2/sign_out", "/oauth2/start?rd=/", "/oauth2/sign_in", "/oauth2", "/oauth2/", "/oauth2?x", "/oauth2#x",
		"/%6fauth2/logout", "/oauth%32/logout", "https://"+publicHost+"/oauth2/logout", "/oauth2/logout/backchannel")
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/oauth2/start?rd=" + url.QueryEscape("/oauth2/logout"))
	if len(b.trail) != 4 || !b.signedIn() { // start, provider, callback, page
		t.Errorf("the way in: %q", b.trail)
	}
}

func TestA38_LongAndNestedAddresses(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	nested := "/x"
	for range 10 {
		nested = "/oauth2/start?rd=" + url.QueryEscape(nested)
	}
	for rd, want := range map[string]string{
		"/" + strings.Repeat("a", 8<<10):          "/",
		"/a?" + strings.Repeat("b", 8<<10):        "/a",
		strings.Repeat("https://evil.com/", 500):  "/",
		nested:                                    "/",
		"/x?next=" + url.QueryEscape(nested)[:50]: "/x?next=" + url.QueryEscape(nested)[:50],
	} {
		b := w.browser()
		callback := b.callback("/oauth2/start?rd=" + url.QueryEscape(rd))
		for _, c := range b.all() {
			if len(c.Name)+len(c.Value) > 4096 {
				t.Errorf("rd of %d bytes: a cookie of %d", len(rd), len(c.Value))
			}
		}
		if p := b.navigate(callback.String()); p.header.Get("Location") != want || b.session() == "" {
			t.Errorf("rd=%.80q leads to %.80q, want %q", rd, p.header.Get("Location"), want)
		}
	}
}

func TestA39_FirstAddressShowsNowhere(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	secret := w.secrets.New("token-in-the-first-address")
	w.secrets.MayShow(secret)
	seen := make(chan string, 10)
	w.provider.On(idptest.Authorize, func(_ http.ResponseWriter, r *http.Request) bool {
		seen <- fmt.Sprint(r.URL, r.Header, r.Form)
		return false
	})
	b := w.browser()
	first := b.navigate("/x?access_token=" + secret + "&a=b")
	for _, c := range (&http.Response{Header: first.header}).Cookies() {
		if canary.Holds(c.Value, secret) || canary.Holds(c.Value, "access_token") {
			t.Errorf("a cookie holds %s", c.Value)
		}
	}
	if strings.Contains(first.header.Get("Location"), secret) || first.header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%v", first.header)
	}
	if p := b.open(first.header.Get("Location")); p.status != http.StatusOK || !strings.HasSuffix(p.url.String(), "/x?access_token="+secret+"&a=b") {
		t.Errorf("the way in ends at %s", p.url)
	}
	if at := <-seen; strings.Contains(at, secret) {
		t.Errorf("the provider sees %s", at)
	}
	// What a form sent is nowhere.
	posted := w.secrets.New("posted-to-a-page")
	other := w.browser()
	if p := other.post("/x", url.Values{"password": {posted}}); p.status != http.StatusUnauthorized || len(other.all()) > 0 {
		t.Errorf("a form without session: %d, cookies %v", p.status, other.all())
	}
}

func TestA40_AddressesInHeaders(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for _, header := range []string{
		"X-Auth-Request-Redirect: https://evil.com/", "X-Forwarded-Uri: //evil.com/", "X-Forwarded-Host: evil.com", "X-Forwarded-Prefix: //evil.com", "X-Forwarded-Proto: http", "X-Forwarded-Port: 8443",
		"X-Forwarded-Server: evil.com", "Referer: https://evil.com/", "Forwarded: host=evil.com;proto=http", "X-Original-URL: //evil.com", "X-Rewrite-URL: /evil", "X-Original-Host: evil.com", "X-Host: evil.com",
	} {
		b := w.browser()
		first := b.navigate("/wanted", header)
		at, err := url.Parse(first.header.Get("Location"))
		if err != nil || at.Query().Get("redirect_uri") != w.origin+"/oauth2/callback" || strings.Contains(at.String(), "evil") {
			t.Fatalf("%s: the sign-in begins at %s", header, at)
		}
		callback := b.navigate(at.String()).header.Get("Location")
		if p := b.navigate(callback, header); p.header.Get("Location") != "/wanted" {
			t.Errorf("%s: the callback leads to %q", header, p.header.Get("Location"))
		}
		for _, path := range []string{"/oauth2/start", "/oauth2/logout", "/oauth2/session", "/x"} {
			a := w.ask(w.get(path, header, "Accept: text/html"))
			if strings.Contains(a.raw, "evil") {
				t.Errorf("%s: %s answers %s", header, path, a.raw)
			}
			if a := w.ask(w.get(path, header)); strings.Contains(a.raw, "evil") {
				t.Errorf("%s: %s answers a program %s", header, path, a.raw)
			}
		}
	}
}

func TestA41_LineEnds(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for _, rd := range []string{"/%0d%0aSet-Cookie:%20evil=1", "/x%0d%0a%0d%0a<html>evil", "%0d%0aSet-Cookie:evil=1", "/x%0aevil:1", "/x%E5%98%8A%E5%98%8DSet-Cookie:evil=1", "/x?a=%250d%250aevil:1"} {
		for _, target := range []string{"/oauth2/start?rd=" + rd, "/oauth2/logout?rd=" + rd, "/oauth2/callback?state=" + rd, "/x" + rd} {
			a := w.ask(w.get(target, "Accept: text/html", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"))
			head, _, _ := strings.Cut(a.raw, "\r\n\r\n")
			for line := range strings.SplitSeq(head, "\r\n") {
				if strings.HasPrefix(line, "evil") || strings.HasPrefix(line, "Set-Cookie: evil") || strings.HasPrefix(line, "Set-Cookie:evil") || strings.ContainsAny(line, "\r\n") {
					t.Errorf("%s: %q", target, head)
				}
			}
		}
		b := w.browser()
		decoded, err := url.PathUnescape(rd)
		if err != nil {
			t.Fatal(err)
		}
		if at := b.lands(decoded); strings.ContainsAny(at, "\r\n") || reads(at) != publicHost {
			t.Errorf("rd=%q leads to %q", decoded, at)
		}
	}
}

// Where sign-out goes on to is checked like rd, which the rows above try too; here it is the state that brings it back.
func TestA42_SignOutAndInitiatedSignIn(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: returnHosts})
	for _, name := range []string{"target_link_uri", "post_logout_redirect_uri", "redirect_uri", "redirect", "return_to", "next", "url", "state"} {
		b := w.browser()
		callback := b.callback("/oauth2/start?iss=" + url.QueryEscape(w.provider.URL) + "&login_hint=alice&" + name + "=" + url.QueryEscape("https://evil.com/"))
		if at := b.navigate(callback.String()).header.Get("Location"); at != "/" {
			t.Errorf("%s leads to %q", name, at)
		}
		if p := b.open("/oauth2/logout?"+name+"="+url.QueryEscape("https://evil.com/"), "Sec-Fetch-Site: same-origin"); p.url.Host != publicHost && p.url.Hostname() != "127.0.0.1" || strings.Contains(strings.Join(b.trail, " "), "//evil") {
			t.Errorf("after sign-out %s leads to %q", name, b.trail)
		}
	}
	for _, state := range []string{"https://evil.com/", "//evil.com", "AAAA", ""} {
		if p := w.browser().navigate("/oauth2/logout/callback?state=" + url.QueryEscape(state)); p.status != http.StatusOK || strings.Contains(p.body, "evil") {
			t.Errorf("state %q: %d %s", state, p.status, p.header.Get("Location"))
		}
	}
}

// Two thousand addresses made of dangerous pieces: what is answered reads as our host in a browser, and is what it is again when it comes back.
func TestA43_WhatIsCheckedIsWhatIsSent(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: returnHosts})
	pieces := []string{"/", "//", `\`, ".", "..", "%2f", "%5c", "%2e", "%00", "%25", "%", "\t", "\n", "\r", " ", "@", ":", "?", "#", ";", "&", "https:", "http:", "https://", "javascript:", "evil.com", publicHost,
		"docs.example.com", "[::1]", "。", "\u202e", "é", "\x80", "\"", "<", "'", "x", "oauth2", "/oauth2/logout", "|", "^", "{"}
	random := rand.New(rand.NewPCG(7, 43))
	b := w.browser()
	left := 0
	for range 2000 {
		var rd strings.Builder
		if random.IntN(2) == 0 {
			rd.WriteString("/")
		}
		for range 1 + random.IntN(6) {
			rd.WriteString(pieces[random.IntN(len(pieces))])
		}
		at := w.signsOutTo(b, rd.String())
		if at == "/oauth2/logout/callback" {
			continue
		}
		left++
		host := reads(at)
		parsed, err := url.Parse(at)
		if host != publicHost && host != "docs.example.com" || err != nil || strings.ContainsAny(at, "\\\"<' \t\r\n") || parsed.Host != "" && parsed.Host != host {
			t.Errorf("rd=%q leads to %q, which a browser reads as %q", rd.String(), at, host)
		}
		if again := w.signsOutTo(b, at); again != at {
			t.Errorf("rd=%q leads to %q, and that to %q", rd.String(), at, again)
		}
	}
	if left < 100 {
		t.Errorf("only %d addresses were good: this proves little", left)
	}
	// The checked value is the one that the callback uses.
	for _, rd := range []string{"/a?next=//evil.com", "/a#b%", "/a|b", "/a?%zz"} {
		if in, out := w.browser().lands(rd), w.signsOutTo(b, rd); in != out {
			t.Errorf("rd=%q leads to %q after sign-in and to %q after sign-out", rd, in, out)
		}
	}
}

func TestA44_AddressesOnPages(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{session: "cookie: {same_site: strict}"})
	for _, rd := range []string{`/"><script>alert(1)</script>`, `/';alert(1)//`, `/x?a="onload=alert(1) b="`, "/x?`${alert(1)}`", `/x?</title><svg/onload=alert(1)>`, "/x?&#34;&gt;", "/x;url=https://evil.com", "/x?;url='//evil.com'"} {
		b := w.browser()
		p := b.navigate(b.callback("/oauth2/start?rd=" + url.QueryEscape(rd)).String())
		if p.status != http.StatusOK {
			t.Fatalf("rd=%q: %d", rd, p.status)
		}
		pages := []*page{p,
			b.navigate("/oauth2/start?rd="+url.QueryEscape(rd), "Sec-Fetch-Dest: iframe"),
			b.navigate("/oauth2/logout?rd=" + url.QueryEscape(rd)),
			b.post("/oauth2/logout", url.Values{"rd": {rd}}),
		}
		for _, p := range pages {
			if strings.Contains(p.body, "alert(1)<") || strings.Contains(p.body, `"><script`) || strings.Contains(p.body, `"onload=`) || strings.Contains(p.body, "<svg/") || strings.Contains(p.body, "';alert") {
				t.Errorf("rd=%q: %s shows %s", rd, p.url, p.body)
			}
			if csp := p.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
				t.Errorf("%s: Content-Security-Policy %q", p.url, csp)
			}
			if refresh := p.header.Get("Refresh"); strings.Contains(refresh, "evil") && !strings.Contains(refresh, "%27") && reads(refresh) != publicHost {
				t.Errorf("%s: Refresh %q", p.url, refresh)
			}
		}
	}
}
