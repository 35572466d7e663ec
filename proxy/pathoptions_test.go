package proxy_test

import (
	"bufio"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"postern/proxy/proxytest"
)

const pathOptions = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, access: public, upstream: "${UPSTREAM}"}
  - {path: /files, access: public, upstream: "${UPSTREAM}", allow_encoded_slash: true}
  - {path: /files/secret, access: deny}
  - {path: /Admin, access: deny, case_insensitive_paths: true}
  - {path: /legacy, access: {rule: 'request.path == "/legacy/report"'}, upstream: "${UPSTREAM}", case_insensitive_paths: true}
`

// A104, CVE-2026-41059 and their like: what is decided on is what is forwarded.
func TestEncodedSlashPassesOnlyWhereItChangesNoRoute(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: pathOptions})
	b := s.Browser()
	for path, want := range map[string]int{
		"/files/a%2Fb":            200,
		"/files/a%2fb/c":          200,
		"/a%2Fb":                  400, // not allowed on this route
		"/files/a%252Fb":          400, // encoded twice
		"/files/a%5Cb":            400,
		"/files%2Fa":              400, // would leave the route
		"/files/secret%2Fx":       400, // is below /files/secret to some
		"/files/secret%2F":        400,
		"/files/%2e%2e%2Fx":       400,
		"/files/a%2F..%2Fsecret":  400,
		"/files/%2F":              400, // an empty segment to some
		"/files/a;b%2Fc":          400, // parameters and an encoded slash together
		"/files/..%2F..%2Foauth2": 400,
		"/oauth2%2Flogout":        400, // ours to some
		"/files/secret":           403,
	} {
		a := b.Fetch(path)
		if a.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, a.Status, want)
		}
		if got := s.App.Requests(); want == 200 && got[len(got)-1].Target != path {
			t.Errorf("%s: the application got %s", path, got[len(got)-1].Target)
		}
	}
	if log := s.Log.String(); !strings.Contains(log, "allow_encoded_slash of the route would let through") {
		t.Error("the log does not name the option")
	}
}

// An application that folds case would serve /ADMIN as /Admin.
func TestCaseInsensitivePathsMatchInEveryCase(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: pathOptions})
	b := s.Browser()
	for _, path := range []string{"/Admin", "/admin", "/ADMIN/x", "/%41dmin", "/aDmin/", "/admın"} {
		want := 403
		if path == "/admın" { // a letter of its own in Unicode's simple folding
			want = 200
		}
		if a := b.Fetch(path); a.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, a.Status, want)
		}
	}
	for path, want := range map[string]int{"/legacy/report": 200, "/Legacy/REPORT": 200, "/LEGACY/\u017Fecret": 403} {
		if a := b.Go(path); a.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, a.Status, want)
		}
	}
}

// The routes of a fuzzed address. Each tells the application which one it was by its base path.
const fuzzedRoutes = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, access: public, upstream: "${UPSTREAM}/base-root"}
  - {path: /public, access: public, upstream: "${UPSTREAM}/base-public"}
  - {path: /public/secret, access: deny}
  - {path: /admin, access: deny}
  - {path: /files, access: public, upstream: "${UPSTREAM}/base-files", allow_encoded_slash: true}
  - {path: /files/secret, access: deny}
  - {path: /cut/off, access: public, upstream: "${UPSTREAM}/base-cut", strip_prefix: /cut/off}
  - {path: /cut/off/secret, access: deny}
  - {path: /Any, access: deny, case_insensitive_paths: true}
`

// Whatever address a client sends: what reaches the application is what was decided about. The bytes are those that the client sent, and however
// an application reads them, it is a path of that very route.
func FuzzForwardedPathIsTheDecidedOne(f *testing.F) {
	for _, target := range []string{
		"/", "/x?y#z", "/public/a?next=/admin", "/public;x/secret", "/public/%73ecret", "/public//secret", "/public/./secret", "/public/x/../secret", "/public/..;/admin", "/admin;x", "/%61dmin", "/%2561dmin",
		"/files/a%2Fb", "/files/secret%2Fa", "/files%2Fsecret", "/files/%2e%2e/admin", "/files/..%2fadmin", `/public\..\admin`, "/public%5c..%5cadmin", "/cut/off/x", "/cut/off", "/cut/%6fff/secret", "/cut/off;a/x",
		"/cut/off/..%2Fadmin", "/ANY", "/an%79/x", "/\u0130", "/public%00/../admin", "/%c0%ae%c0%ae/admin", "/admin%20", "/admin/.", "//admin", "/public?/admin", "/public%3f/admin", "/public%23/admin",
		"http://app.example.com/admin", "http://wiki.example.com/public/x", "HTTP://wiki.example.com", "*", "admin", "http://wiki.example.com@evil.example/x", "/public/\xff", "/é",
	} {
		f.Add(target)
	}
	var reached atomic.Value // what came to the application
	s := proxytest.New(f, proxytest.Options{Config: fuzzedRoutes, App: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached.Store(r.RequestURI) })})
	f.Fuzz(func(t *testing.T, target string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET " + target + " HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")))
		if err != nil {
			return // net/http answers by itself
		}
		r.RemoteAddr = "192.0.2.1:1"
		reached.Store("")
		w := newRecorder()
		s.Proxy.ServeHTTP(w, r)
		got := reached.Load().(string)
		if got == "" {
			return // refused, denied or of ours
		}
		if w.Code != http.StatusOK {
			t.Errorf("%q: %d, and the application gets %q", target, w.Code, got)
		}
		route, forwarded, _ := strings.Cut(strings.TrimPrefix(got, "/base-"), "/")
		forwarded = "/" + forwarded
		sent := target
		if !strings.HasPrefix(sent, "/") { // absolute form
			_, sent, _ = strings.Cut(sent, "://")
			sent = strings.TrimPrefix(sent, sent[:strings.IndexAny(sent+"/", "/?")])
			if !strings.HasPrefix(sent, "/") {
				sent = "/" + sent
			}
		}
		if route == "cut" {
			if !strings.HasSuffix(sent, strings.TrimPrefix(forwarded, "/")) {
				t.Errorf("%q: other bytes are forwarded: %q", target, got)
			}
			forwarded = "/cut/off" + forwarded
		} else if forwarded != sent {
			t.Errorf("%q: other bytes are forwarded: %q", target, got)
		}
		raw, _, _ := strings.Cut(forwarded, "?")
		for reader, reading := range map[string]string{
			"nginx": resolved(raw), "IIS": strings.ReplaceAll(resolved(raw), `\`, "/"), "Tomcat": resolved(withoutParameters(raw)),
		} {
			if of := routeOf(path.Clean(reading)); of != route {
				t.Errorf("%q was decided as one of %s, and is %q to %s: of %s", target, route, reading, reader, of)
			}
		}
	})
}

// resolved is a path as servers read it that decode it, once, and then take out dots and doubled slashes.
func resolved(raw string) string {
	decoded, err := url.PathUnescape(raw)
	if err != nil {
		return "broken"
	}
	return path.Clean(decoded)
}

func withoutParameters(raw string) string {
	segments := strings.Split(raw, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// routeOf is the route of fuzzedRoutes that a plain path belongs to.
func routeOf(plain string) string {
	below := func(prefix string) bool { return strings.HasPrefix(plain+"/", prefix+"/") }
	switch {
	case below("/public/secret"), below("/admin"), below("/files/secret"), below("/cut/off/secret"), strings.HasPrefix(strings.ToLower(plain)+"/", "/any/"):
		return "denied"
	case below("/public"):
		return "public"
	case below("/files"):
		return "files"
	case below("/cut/off"):
		return "cut"
	}
	return "root"
}
