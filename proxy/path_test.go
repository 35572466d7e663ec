package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestRefusedMethod(t *testing.T) {
	for _, m := range []string{"TRACE", "CONNECT", "TRACK", "PRI", "get", "GeT", "trace", "Post", ""} {
		if !refusedMethod(&http.Request{Method: m}) {
			t.Errorf("method %q passes", m)
		}
	}
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "VERSION-CONTROL", "FOO"} {
		if refusedMethod(&http.Request{Method: m}) {
			t.Errorf("method %q is refused", m)
		}
	}
}

func TestRequestTarget(t *testing.T) {
	for _, tt := range []struct {
		uri, host   string
		major       int
		path, query string
		ok          bool
	}{
		{uri: "/", host: "a", path: "/", ok: true},
		{uri: "/a?", host: "a", path: "/a", query: "?", ok: true},
		{uri: "/a?b?c", host: "a", path: "/a", query: "?b?c", ok: true},
		{uri: "/q?a=1;b=2&q=100%", host: "a", path: "/q", query: "?a=1;b=2&q=100%", ok: true},
		{uri: "/|\"^{}é", host: "a", path: "/|\"^{}é", ok: true},
		{uri: "//evil/x", host: "a", path: "//evil/x", ok: true}, // ambiguousPath refuses it
		{uri: "http://a/b?c", host: "a", path: "/b", query: "?c", ok: true},
		{uri: "HTTPS://A", host: "a", path: "/", ok: true},
		{uri: "http://a?x", host: "a", path: "/", query: "?x", ok: true},
		{uri: "http://a/b", host: "a", major: 2},
		{uri: "http://evil/b", host: "a"},
		{uri: "http://a@evil/b", host: "evil"},
		{uri: "http://a\\@evil/b", host: "evil"},
		{uri: "http:///b", host: ""},
		{uri: "ftp://a/b", host: "a"},
		{uri: "*", host: "a"},
		{uri: "a:443", host: "a:443"},
		{uri: "", host: "a"},
		{uri: "/a HTTP/1.1\r\nX: y", host: "a", major: 2},
		{uri: "/a b", host: "a", major: 2},
		{uri: "/a\tb", host: "a", major: 2},
		{uri: "/a?\x00", host: "a", major: 2},
		{uri: "/a\x7f", host: "a"},
	} {
		r := &http.Request{RequestURI: tt.uri, Host: tt.host, ProtoMajor: max(tt.major, 1)}
		p, q, err := requestTarget(r)
		if p != tt.path || q != tt.query || (err == nil) != tt.ok {
			t.Errorf("requestTarget(%q, Host %q) = %q, %q, %v", tt.uri, tt.host, p, q, err)
		}
	}
}

// A100: what two parsers read differently is refused.
func TestAmbiguousPathRefuses(t *testing.T) {
	for _, p := range []string{
		"", "a", "*",
		"/..", "/.", "/a/../b", "/a/./b", "/a/..", "/a/.", "/../", "/./",
		"/%2e%2e/a", "/%2E%2e/a", "/.%2e/a", "/%2e./a", "/a/%2e", "/%2e/",
		"/..;/a", "/..;x=1/a", "/.;/a", "/a/..;", "/%2e%2e;/a", "/..%3b/a", "/..%3Bx/a", "/..%20/a", "/.%20;x/a",
		"/;/a", "/;x/a", "/a/;x=1/b", "/%20/a", "/%3b/a",
		"//", "//a", "/a//b", "/a//",
		"/a%2fb", "/a%2Fb", "/%2f", "/a%5cb", "/a%5Cb", "/a\\b", "/\\evil",
		"/a%00", "/a%0a", "/a%0D%0A", "/a%1f", "/a%7f", "/a%09",
		"/a\x00", "/a\x1f", "/a\x7f", "/a b", "/a\tb",
		"/a#b", "/#", "/a?b",
		"/%252e%252e/a", "/%252e/a", "/a%252fb", "/a%255cb", "/a%2500b", "/a%250ab", "/a%2523b", "/a%253fb", "/..%253b/a",
		"/%25252e%25252e/a", "/a%25252fb", "/a%2525252fb", "/%25252525252525252e/", "/100%25/%252e%252e/a",
		"/%", "/%2", "/%zz", "/a%2gb", "/%u002e%u002e/",
		"/%c0%ae%c0%ae/a", "/%c0%af", "/%e0%80%af", "/%ff", "/\xff", "/\xc0\xae", "/%25c0%25ae/", "/caf%E9",
	} {
		if ambiguousPath(p, false) == "" {
			t.Errorf("%q passes", p)
		}
	}
}

func TestAmbiguousPathAllows(t *testing.T) {
	for _, p := range []string{
		"/", "/a", "/a/", "/a/b.c", "/.well-known/x", "/a/.git", "/a/..b", "/a/b..", "/...", "/.../a",
		"/C%23", "/Who%3F", "/100%25", "/100%25/a", "/50%25Fbonus", "/a%20b", "/a%3bb", "/a%2541",
		"/a;jsessionid=1", "/a/b;x=1;y=2", "/;jsessionid=1", "/cars;color=red/models",
		"/é", "/%C3%A9", "/日本", "/a+b", "/~me", "/a:b@c", "/|\"^{}`<>", "/a=1&b=2", "/(x)!$'*,",
	} {
		if why := ambiguousPath(p, false); why != "" {
			t.Errorf("%q is refused: %s", p, why)
		}
	}
}

func TestCanonicalPath(t *testing.T) {
	for _, tt := range []struct{ raw, canonical, literal string }{
		{"/", "/", "/"},
		{"/admin", "/admin", "/admin"},
		{"/%61dmin", "/admin", "/admin"},
		{"/%41%7e", "/A~", "/A~"},
		{"/a%20b", "/a b", "/a b"},
		{"/100%25", "/100%25", "/100%25"},
		{"/%2541", "/%2541", "/%2541"},
		{"/%3bx", "/%3Bx", "/%3Bx"},
		{"/C%23", "/C#", "/C#"},
		{"/%C3%A9", "/é", "/é"},
		{"/admin;x=1/secret", "/admin/secret", "/admin;x=1/secret"},
		{"/admin;jsessionid=A%3bB", "/admin", "/admin;jsessionid=A%3BB"},
		{"/;x", "/", "/;x"},
	} {
		if got := canonicalPath(tt.raw); got != tt.canonical {
			t.Errorf("canonicalPath(%q) = %q, want %q", tt.raw, got, tt.canonical)
		}
		if got := otherReading(tt.raw); got != tt.literal {
			t.Errorf("otherReading(%q) = %q, want %q", tt.raw, got, tt.literal)
		}
	}
}

// The readings of other servers. A path that we let pass must mean to each of them what it means to the route table.
func nginxReading(p string) string { // decode once, merge slashes, resolve dots
	s, err := url.PathUnescape(p)
	if err != nil {
		return "broken"
	}
	return cleanKeepingSlash(s)
}

func tomcatReading(p string) string { // drop parameters, decode, resolve dots
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return nginxReading(strings.Join(segments, "/"))
}

func iisReading(p string) string { // backslashes are slashes
	s, err := url.PathUnescape(p)
	if err != nil {
		return "broken"
	}
	return cleanKeepingSlash(strings.ReplaceAll(s, "\\", "/"))
}

func cleanKeepingSlash(s string) string {
	c := path.Clean(s)
	if strings.HasSuffix(s, "/") && c != "/" {
		c += "/"
	}
	return c
}

func decided(canonical string) string {
	return strings.NewReplacer("%25", "%", "%3B", ";").Replace(canonical)
}

func FuzzAmbiguousPathHasOneReading(f *testing.F) {
	for _, s := range []string{"/a/../b", "/a;x/b", "/%2e%2e/", "/%252e/", "/é%C3%A9", "/a%2fb", "/..;/x", "/a/;x", "/a%3bb/%25", "/%2541", "//", "/a b", "/a%2Fb%2f", "/a%2F..", "/a%2F%2Fb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if ambiguousPath(p, false) != "" {
			canonicalPath(p) // must not panic
			if ambiguousPath(p, true) == "" {
				checkEncodedSlash(t, p)
			}
			return
		}
		canonical, literal := canonicalPath(p), otherReading(p)
		if again := canonicalPath(canonical); again != canonical {
			t.Errorf("%q: canonical %q is not stable: %q", p, canonical, again)
		}
		if again := otherReading(literal); again != literal {
			t.Errorf("%q: literal %q is not stable: %q", p, literal, again)
		}
		for name, reading := range map[string]string{"nginx": nginxReading(p), "iis": iisReading(p)} {
			if reading != decided(literal) {
				t.Errorf("%q: %s reads %q, decided on %q", p, name, reading, decided(literal))
			}
		}
		if got := tomcatReading(p); got != decided(canonical) {
			t.Errorf("%q: tomcat reads %q, decided on %q", p, got, decided(canonical))
		}
		// Whoever decodes twice finds neither another directory nor the end of the path.
		if twice, err := url.PathUnescape(decided(literal)); err == nil && strings.Count(twice, "/") != strings.Count(p, "/") {
			t.Errorf("%q: decoded twice it is %q", p, twice)
		}
		// Encoding more of it changes nothing.
		if got := canonicalPath(encodeLetters(p)); got != canonical {
			t.Errorf("%q: encoded over, canonical is %q, not %q", p, got, canonical)
		}
	})
}

// checkEncodedSlash holds that both readings of a path with %2F are those that an application can have: it is kept, or it is a slash.
func checkEncodedSlash(t *testing.T, p string) {
	kept, decoded := canonicalPath(p), otherReading(p)
	if again := canonicalPath(kept); again != kept {
		t.Errorf("%q: canonical %q is not stable: %q", p, kept, again)
	}
	if got := nginxReading(p); got != decided(decoded) {
		t.Errorf("%q: nginx reads %q, not %q", p, got, decided(decoded))
	}
	if strings.ReplaceAll(kept, "%2F", "/") != decoded {
		t.Errorf("%q: the readings %q and %q differ by more than slashes", p, kept, decoded)
	}
}

func encodeLetters(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '%':
			b.WriteString(p[i : i+3])
			i += 2
		case c == ';':
			return b.String() + p[i:] // parameters are dropped as they are written
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			b.WriteByte('%')
			b.WriteByte("0123456789abcdef"[c>>4])
			b.WriteByte("0123456789abcdef"[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func BenchmarkPath(b *testing.B) {
	r := httptest.NewRequest("GET", "http://wiki.example.com/", nil)
	r.RequestURI = "/wiki/some/page-name/index.html?a=1&b=2"
	b.ReportAllocs()
	for b.Loop() {
		p, _, err := requestTarget(r)
		if err != nil || ambiguousPath(p, false) != "" || canonicalPath(p) != p {
			b.Fatal(p)
		}
	}
}
