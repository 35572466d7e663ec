package proxy

import (
	"net/url"
	"strings"
	"testing"

	whatwg "github.com/nlnwa/whatwg-url/url"
)

var wikiOrigin = &url.URL{Scheme: "https", Host: "wiki.example.com"}

// leaving is the corpus of attacks A20–A45: what a browser could read as another host, a loop, or a script.
var leaving = []string{
	"", "evil", "?x", "#x",
	"//evil.com", "///evil.com", "////evil.com", // A20, A21
	`/\evil.com`, `/\/evil.com`, `\\evil.com`, `\evil.com`, `/a\..\evil`, // A22
	"/%2fevil", "/%5cevil", "/%2F/evil", "/%5Cevil", // A23
	"/\t/evil.com", "\t//evil.com", " //evil.com", "/\n/evil.com", "/\r\nSet-Cookie: a=b", "/a\x00b", "/ /evil\x7f", // A24, A41
	"https:evil.com", "https:/evil.com", "https:///evil.com", `http:\\evil.com`, `https:\\wiki.example.com`, // A25
	"https://wiki.example.com@evil.com", "https://wiki.example.com:443@evil.com", "//wiki.example.com@evil.com", "https://u@wiki.example.com/", // A26
	"https://wiki.example.com.evil.com", "https://evilwiki.example.com", "https://x.docs.example.com/", // A27
	"https://evil.com#.wiki.example.com", "https://evil.com?.wiki.example.com", `https://evil.com\.wiki.example.com`, // A28
	"javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "javascript://wiki.example.com/%0aalert(1)", // A29
	"https://wiki。example.com/", "https://ⓦiki.example.com/", "https://wiki.example.com./", "https://xn--wiki-.example.com/", // A30
	"https://wiki.example.com%00.evil.com", "https://wiki.example.com%2eevil.com/", "https://%zz/", // A31
	"https://wiki.example.com:8443/", "http://wiki.example.com/", "http://docs.example.com/", "https://[::1%25eth0]/", "https://0x7f.1/", // A32
	"/.//evil", "/a/..//evil", "/./evil", "/../evil", "/a/%2e%2e/b", "/..;/x", // A35
	"/oauth2/callback", "/oauth2/logout", "/oauth2/start?rd=/", "/oauth2", "/oauth2/", "/%6fauth2/logout", "/oauth%32/logout", // A37
	"https://wiki.example.com/oauth2/logout", "HTTPS://wiki.example.com/", "https://wiki.example.com//evil.com",
	"/" + strings.Repeat("a", maxReturnTo), // A38
}

func TestReturnToNeverLeavesTheHost_A20toA45(t *testing.T) {
	for _, raw := range leaving {
		if got := returnTo(raw, wikiOrigin, []string{"docs.example.com"}, "/oauth2"); got != "/" {
			t.Errorf("returnTo(%q) = %q, want /", raw, got)
		}
	}
}

func TestReturnToKeepsThePageAPersonWanted(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                                    "/",
		"/orders/7?tab=a&b=%2F#note":           "/orders/7?tab=a&b=%2F#note",
		"/oauth2x":                             "/oauth2x",
		"/a?next=//evil.com":                   "/a?next=//evil.com",
		"/a%20b/ü?q=ö":                         "/a%20b/%C3%BC?q=%C3%B6",
		"/\u00a0\u202e":                        "/%C2%A0%E2%80%AE", // A36
		`/a?q="><script>`:                      "/a?q=%22%3E%3Cscript%3E",
		"https://wiki.example.com/a?b":         "/a?b",
		"https://WIKI.example.com":             "/",
		"https://docs.example.com/x?y=1":       "https://docs.example.com/x?y=1",
		"https://docs.example.com/oauth2/page": "https://docs.example.com/oauth2/page",
		"/long?" + strings.Repeat("q", 4000):   "/long",
		"/long?q#" + strings.Repeat("f", 4000): "/long?q",
		"/#" + strings.Repeat("?", 4000):       "/",
		"/a?b#c\\d":                            "/a?b", // no server has seen it: the page is the same without
		"/a?b#c\x00d":                          "/a?b",
		"/a#b#c?d":                             "/a#b#c?d",
	} {
		if got := returnTo(raw, wikiOrigin, []string{"docs.example.com"}, "/oauth2"); got != want {
			t.Errorf("returnTo(%.80q) = %q, want %q", raw, got, want)
		}
	}
}

// Whatever goes in, the result is a path on this host, or https on a listed one, and a fixed point. Browsers, which read addresses by the URL
// standard of the WHATWG, end at the same place as Go's reader.
func FuzzReturnToStaysOnHost(f *testing.F) {
	for _, s := range []string{"/", "https://docs.example.com/a", "/a?b#c", "/\x80", "/a#b%", "/a?b=100%#c%2", "/a?next=//evil.com", "https://wiki.example.com?x", "/a%20b/ü?q=ö#ß"} {
		f.Add(s)
	}
	for _, s := range leaving {
		f.Add(s)
	}
	const callback = "https://wiki.example.com/oauth2/callback?code=x#y" // the address at which a browser reads it
	f.Fuzz(func(t *testing.T, raw string) {
		got := returnTo(raw, wikiOrigin, []string{"docs.example.com"}, "/oauth2")
		path, listed := strings.CutPrefix(got, "https://docs.example.com")
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.HasPrefix(path, `/\`) {
			t.Fatalf("returnTo(%q) = %q leaves the host", raw, got)
		}
		for i := range len(got) {
			if got[i] <= ' ' || got[i] >= 0x7f || got[i] == '"' || got[i] == '<' {
				t.Fatalf("returnTo(%q) = %q holds byte %#x", raw, got, got[i])
			}
		}
		u, err := url.Parse(got)
		if err != nil || !listed && u.Host != "" || u.User != nil {
			t.Fatalf("returnTo(%q) = %q parses as %v, %v", raw, got, u, err)
		}
		if again := returnTo(got, wikiOrigin, []string{"docs.example.com"}, "/oauth2"); again != got {
			t.Fatalf("returnTo(%q) = %q, and again %q", raw, got, again)
		}
		seen, err := whatwg.ParseRef(callback, got)
		if err != nil {
			t.Fatalf("returnTo(%q) = %q is no address to a browser: %v", raw, got, err)
		}
		host := "wiki.example.com"
		if listed {
			host = "docs.example.com"
		}
		if seen.Protocol() != "https:" || seen.Host() != host || seen.Username()+seen.Password() != "" {
			t.Fatalf("returnTo(%q) = %q is %s to a browser", raw, got, seen.Href(false))
		}
		// The same page, too: no segments that it would take out, and none of our endpoints in another spelling.
		if page := path[:strings.IndexAny(path+"?", "?#")]; seen.Pathname() != page {
			t.Fatalf("returnTo(%q) = %q has the path %s to a browser", raw, got, seen.Pathname())
		}
		if canonical := canonicalPath(seen.Pathname()); !listed && got != "/oauth2"+keptEndpoint && strings.HasPrefix(canonical+"/", "/oauth2/") {
			t.Fatalf("returnTo(%q) = %q is an endpoint of ours", raw, got)
		}
	})
}
