package proxy_test

import (
	"strings"
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
