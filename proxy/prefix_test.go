package proxy

import (
	"net/http/httptest"
	"strings"
	"testing"

	"postern/config"
)

func TestCutPrefix(t *testing.T) {
	for _, tt := range []struct{ path, prefix, want string }{
		{"/x", "/x", "/"},
		{"/x/", "/x", "/"},
		{"/x/y", "/x", "/y"},
		{"/%78/y", "/x", "/y"},
		{"/X/y", "/x", "/y"}, // the route has case_insensitive_paths, or it would not have matched
		{"/x/%79%2Fz;a=1/", "/x", "/%79%2Fz;a=1/"},
		{"/a/b/c", "/a/b", "/c"},
		{"/a/b", "/a/b", "/"},
		{"/caf%C3%A9/y", "/café", "/y"},
		{"/my%20files/y", "/my files", "/y"},
		{"/xy", "/x", ""},
		{"/", "/x", ""},
		{"/a", "/a/b", ""},
		{"/a%2Fb", "/a/b", ""},
		{"/a%2Fb/c", "/a/b", ""},
		{"/x;a/y", "/x", ""},
		{"/x%2Fy", "/x", ""},
		{"/%2578/y", "/x", ""},
	} {
		got, ok := cutPrefix(tt.path, tt.prefix)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s without %s is %q, %v", tt.path, tt.prefix, got, ok)
		}
	}
}

// The path that is decided about and the path that is forwarded are the same, but for the prefix (CVE-2026-67309 and its like).
func FuzzStrippedPathIsTheDecidedOne(f *testing.F) {
	for _, path := range []string{"/x/y", "/%78/y", "/x", "/x;a/y", "/x%2Fy", "/x/%2e%2e/z", "/a%2Fb/c", "/a/b/%41;p=1/c", "/X/É"} {
		f.Add(path, "/x")
		f.Add(path, "/a/b")
	}
	f.Fuzz(func(t *testing.T, path, prefix string) {
		if ambiguousPath(path, true) != "" || !strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || ambiguousPath(prefix, false) != "" || strings.ContainsAny(prefix, "%;") {
			return
		}
		rest, ok := cutPrefix(path, prefix)
		decided := config.FoldPath(canonicalPath(path))
		begins := decided == config.FoldPath(prefix) || strings.HasPrefix(decided, config.FoldPath(prefix)+"/")
		if !ok {
			if begins && config.FoldPath(otherReading(path)) == decided {
				t.Fatalf("%q has the prefix %q, and is refused", path, prefix)
			}
			return
		}
		if !strings.HasSuffix(path, rest) && rest != "/" {
			t.Fatalf("%q without %q is %q: other bytes", path, prefix, rest)
		}
		if why := ambiguousPath(rest, true); why != "" {
			t.Fatalf("%q without %q is %q: %s", path, prefix, rest, why)
		}
		forwarded := config.FoldPath(prefix + canonicalPath(rest))
		if strings.TrimSuffix(forwarded, "/") != strings.TrimSuffix(decided, "/") {
			t.Fatalf("decided about %q, forwarded %q", decided, forwarded)
		}
	})
}

func TestStripPrefix(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	f := newFront(t, server.URL+"/base", asAlice, func(o *upstreamOptions) { o.StripPrefix = "/my files" })
	for target, want := range map[string]string{
		"/my%20files": "/base/", "/my%20files?a=%zz;b": "/base/?a=%zz;b", "/m%79%20files/%7Ex?q": "/base/%7Ex?q", "/my%20files/": "/base/",
	} {
		say(t, f.URL, "GET "+target+" HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /evil\r\nX_Forwarded_Prefix: /evil\r\n\r\n")
		got := app.request()
		if got.RequestURI != want || strings.Join(got.Header["X-Forwarded-Prefix"], "|") != "/my%20files" || got.Header["X_forwarded_prefix"] != nil {
			t.Errorf("%s arrives as %s with %v", target, got.RequestURI, got.Header)
		}
	}
	app.last = nil
	for _, target := range []string{"/other", "/my%20filesx/y", "/my%20files;x/y", "/my%20files/../x", "/my%20files//x"} {
		if res, _ := say(t, f.URL, "GET "+target+" HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 400 || app.request() != nil {
			t.Errorf("%s: %s", target, res.Status)
		}
	}
	// Without strip_prefix the application hears of none.
	say(t, newFront(t, server.URL, asAlice).URL, "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Prefix: /evil\r\n\r\n")
	if got := app.request().Header["X-Forwarded-Prefix"]; got != nil {
		t.Errorf("got %v", got)
	}
}
