//go:build e2e

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A front is another proxy that asks Postern and carries the traffic itself.
type front struct {
	dialect string
	start   func(t *testing.T, port int, postern, app string) *process
}

var fronts = []front{{"nginx", startNginx}, {"caddy", startCaddy}}

// startNginx runs nginx with the recipe of deploy/nginx, on plain http, in one process, which ends when it is killed.
func startNginx(t *testing.T, port int, postern, app string) *process {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		program = "/usr/sbin/nginx" // not on everyone's PATH
	}
	dir := t.TempDir()
	recipe := adapt(t, "../../../deploy/nginx/postern.conf", "443 ssl", address(port), "127.0.0.1:4180", postern, "127.0.0.1:3000", app,
		"wiki.example.com;", "_;", "    ssl_certificate     /etc/nginx/tls/wiki.crt;\n", "", "    ssl_certificate_key /etc/nginx/tls/wiki.key;\n", "")
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	config := writeFile(t, dir, "nginx.conf", fmt.Appendf(nil, "daemon off; master_process off; pid %s/pid; error_log stderr;\nevents {}\nhttp {\naccess_log off;\n%s\n%s}\n", dir, temp.String(), recipe))
	p := start(t, dir, nil, nil, program, "-p", dir, "-c", config)
	p.Accepting(t, address(port))
	return p
}

// startCaddy runs Caddy with the recipe of deploy/caddy, on plain http, and like the others at 127.0.0.1 alone: the port is this test's there.
func startCaddy(t *testing.T, port int, postern, app string) *process {
	t.Helper()
	dir := t.TempDir()
	recipe := adapt(t, "../../../deploy/caddy/Caddyfile", "wiki.example.com {", "http://127.0.0.1:"+fmt.Sprint(port)+" {", "127.0.0.1:4180", postern, "127.0.0.1:3000", app)
	config := writeFile(t, dir, "Caddyfile", append([]byte("{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n"), recipe...))
	p := start(t, dir, []string{"XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, nil, "caddy", "run", "--config", config, "--adapter", "caddyfile")
	p.Accepting(t, address(port))
	return p
}

// behind is the configuration of Postern behind a front: the same routes answer direct requests and questions.
const behind = `
server: {public_url: "http://127.0.0.1:%d", trusted_proxies: [127.0.0.1/32]}
providers:
  corp: {issuer: "%s", client_id: wiki, client_secret: canary-client-secret}
forward_auth: {dialect: %s}
routes:
  - {path: /, upstream: "%[4]s"}
  - {path: /public, access: public, upstream: "%[4]s"}
  - {path: /staff, access: {groups: [staff]}, upstream: "%[4]s"}
  - {path: /closed, access: deny, upstream: "%[4]s"}
  - {path: /mixed, methods: [GET], access: public, upstream: "%[4]s"}
`

// TestForwardAuth is a visit through nginx and through Caddy with the recipes as they are shipped, and a table of requests that must come
// out as they do when Postern carries them itself.
func TestForwardAuth(t *testing.T) {
	for _, f := range fronts {
		t.Run(f.dialect, func(t *testing.T) {
			idpPort, port, frontPort := freePort(t), freePort(t), freePort(t)
			app := startUpstream(t)
			p := newPostern(t, fmt.Appendf(nil, behind, frontPort, providerURL(idpPort), f.dialect, app.URL), port, "")
			origin := "http://" + address(frontPort)
			idp := startProvider(t, providerSettings{Port: idpPort, Origin: origin})
			p.start(t)
			p.ready(t)
			f.start(t, frontPort, p.listen, strings.TrimPrefix(app.URL, "http://"))

			b := startBrowser(t, nil)
			page := origin + "/wiki/page?x=1&y=2"
			b.open(page)
			b.signIn("alice")
			b.arrives(page)
			hasIdentity(t, b.seen(), "alice", idp.last(t).AccessToken)
			alice := b.cookie(origin, "postern")
			other := b.another()
			other.open(origin + "/")
			other.signIn("bob")
			other.seen()
			bob := other.cookie(origin, "postern")

			f.sameVerdicts(t, p, origin, alice, bob)
			f.keepsClaimsOut(t, origin, alice)

			b.open(origin + "/oauth2/logout")
			b.click("button")
			b.signOutAtProvider()
			if answer := get(t, origin+"/wiki", alice); answer.status != http.StatusUnauthorized {
				t.Errorf("after signing out: %d, want 401", answer.status)
			}

			p.Kill()
			<-p.Done()
			if answer := get(t, origin+"/wiki", alice); answer.status < 500 || strings.Contains(answer.body, "headers") {
				t.Errorf("without Postern: %d, want an error", answer.status)
			}
		})
	}
}

// sameVerdicts sends each request through the front and to Postern itself.
func (f front) sameVerdicts(t *testing.T, p *postern, origin string, alice, bob *http.Cookie) {
	navigation := []string{"Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	script := []string{"Accept", "application/json", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}
	n := 0
	for _, target := range []string{"/", "/wiki/a%20b?q=1", "/public/x", "/publicity", "/staff", "/%73taff/x", "/closed", "/mixed", "/public/%2e%2e/staff", "/public%2fstaff", "/public/..;/staff", "/public;/../staff", "/public%5cstaff"} {
		for _, c := range []struct {
			who    string
			method string
			cookie *http.Cookie
			header []string
		}{
			{"alice", "GET", alice, script}, {"bob", "GET", bob, script}, {"nobody", "GET", nil, navigation}, {"a script of nobody", "GET", nil, script},
			{"alice posting", "POST", alice, script}, {"nobody posting", "POST", nil, script},
		} {
			n++
			direct := send(t, c.method, "http://"+p.listen, target, c.cookie, c.header...)
			through := send(t, c.method, origin, target, c.cookie, c.header...)
			want := direct.status
			if f.dialect == "nginx" && want == http.StatusBadRequest {
				want = http.StatusForbidden
			}
			if through.status != want {
				t.Errorf("%s %s by %s: %d through %s, %d directly", c.method, target, c.who, through.status, f.dialect, direct.status)
				continue
			}
			if want == http.StatusOK && c.header[1] == "application/json" { // else the application answers with a page
				var a, b seen
				if json.Unmarshal([]byte(direct.body), &a) != nil || json.Unmarshal([]byte(through.body), &b) != nil {
					t.Errorf("%s %s by %s: not from the application: %s, %s", c.method, target, c.who, direct.body, through.body)
				}
				for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "Authorization"} {
					if a.Headers.Get(name) != b.Headers.Get(name) {
						t.Errorf("%s %s by %s: %s is %q through %s, %q directly", c.method, target, c.who, name, b.Headers.Get(name), f.dialect, a.Headers.Get(name))
					}
				}
				if b.Target != target || b.Method != c.method {
					t.Errorf("%s %s by %s arrives as %s %s", c.method, target, c.who, b.Method, b.Target)
				}
			}
		}
	}
	t.Logf("%d requests through %s ended as they do directly", n, f.dialect)
}

// keepsClaimsOut sends what other dialects and applications believe, through the real proxy (A50, A51, A107).
func (f front) keepsClaimsOut(t *testing.T, origin string, alice *http.Cookie) {
	foreign := []string{"Accept", "application/json",
		"X-Original-Url", origin + "/public/x", "X-Original-Method", "OPTIONS", "X-Original-Uri", "/public/x", "X-Rewrite-Url", "/public/x",
		"X-Forwarded-Uri", "/public/x", "X-Forwarded-Method", "OPTIONS", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
		"X-Forwarded-For", "192.0.2.7", "X-Forwarded-Prefix", "/public", "Forwarded", "for=192.0.2.7;host=evil.example", "X-Envoy-Original-Path", "/public/x",
		"X-Auth-Request-Redirect", "/public/x", "X-Postern-Verdict", "allow", "X-Http-Method-Override", "OPTIONS",
		"X-Forwarded-User", "root", "X_Forwarded_User", "root", "X.Forwarded.User", "root", "x-forwarded_user", "root", "X-Forwarded-Groups", "admins", "X-Forwarded.Groups", "admins", "Authorization", "Bearer forged"}
	if answer := send(t, "GET", origin, "/staff", nil, foreign...); answer.status != http.StatusUnauthorized {
		t.Errorf("%s: a stranger with foreign headers: %d, want 401", f.dialect, answer.status)
	}
	for _, target := range []string{"/wiki", "/public/x"} {
		saw := send(t, "GET", origin, target, map[string]*http.Cookie{"/wiki": alice}[target], foreign...).seen(t)
		for name, values := range saw.Headers {
			for _, v := range values {
				forged := v == "root" || strings.Contains(v, "admins")
				if strings.Contains(v, "forged") && target == "/wiki" { // on a public route it may be the application's own
					forged = true
				}
				if forged {
					t.Errorf("%s: %s: the application sees %s: %s", f.dialect, target, name, v)
				}
			}
		}
	}
	if answer := send(t, "GET", origin, "/oauth2/auth", alice, foreign...); answer.status == http.StatusOK {
		t.Errorf("%s: a client can ask at the endpoint itself", f.dialect)
	}
}

// send asks with a target that goes out as it is.
func send(t *testing.T, method, origin, target string, session *http.Cookie, header ...string) response {
	t.Helper()
	u, err := url.Parse(origin)
	if err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(target, "?")
	u.Opaque, u.RawQuery = "//"+u.Host+path, query
	r := (&http.Request{Method: method, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(t.Context())
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	if session != nil {
		r.AddCookie(&http.Cookie{Name: session.Name, Value: session.Value})
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{resp.StatusCode, resp.Header, string(body)}
}
