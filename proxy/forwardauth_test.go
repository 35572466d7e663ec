package proxy_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"postern/proxy/proxytest"
)

// asking is a configuration for which direct requests and questions of another proxy meet the same routes.
const asking = `
server: {listen: "${LISTEN}", trusted_proxies: [127.0.0.1/32]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
forward_auth: {dialect: DIALECT}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /public, access: public, upstream: "${UPSTREAM}"}
  - {path: /team, access: {groups: [wiki-users]}, upstream: "${UPSTREAM}"}
  - {path: /closed, access: deny, upstream: "${UPSTREAM}"}
  - {path: /form, methods: [GET], access: public, upstream: "${UPSTREAM}"}
  - {path: /elsewhere, access: public}
`

var dialects = []string{"nginx", "traefik", "caddy", "envoy"}

// question is the request by which a proxy of that dialect asks about another.
func question(dialect, method, target, host string) (askMethod, askTarget string, header map[string]string) {
	switch dialect {
	case "nginx":
		return "GET", "/oauth2/auth", map[string]string{"X-Original-URL": "http://" + host + target, "X-Original-Method": method}
	case "envoy":
		return method, "/oauth2/auth" + target, map[string]string{"X-Forwarded-Proto": "http"}
	}
	return "GET", "/oauth2/auth", map[string]string{"X-Forwarded-Method": method, "X-Forwarded-Proto": "http", "X-Forwarded-Host": host, "X-Forwarded-Uri": target}
}

// lastRequest is what the log says of the newest request.
func lastRequest(t *testing.T, s *proxytest.Stack) (line struct{ Verdict, Reason, Method, Path, Client string }) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(s.Log.String()), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.Contains(lines[i], `"msg":"request"`) {
			if err := json.Unmarshal([]byte(lines[i]), &line); err != nil {
				t.Fatal(err)
			}
			return line
		}
	}
	t.Fatal("no request was logged")
	return line
}

func TestForwardAuthDecidesAsProxyingDoes(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", dialect, 1)})
			host := strings.TrimPrefix(s.URL, "http://")
			alice := s.Browser()
			alice.Go("/")
			s.Provider.SignInAs("bob")
			bob := s.Browser()
			bob.Go("/")
			forged := s.Browser()
			script := map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
			socket := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Sec-Fetch-Mode": "websocket"}
			evil := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "x", "Origin": "https://evil.example"}
			for name, c := range map[string]struct {
				b      *proxytest.Browser
				method string
				target string
				header map[string]string
			}{
				"signed in":               {alice, "GET", "/page?x=1", nil},
				"signed in, group":        {alice, "GET", "/team/board", nil},
				"group by escape":         {alice, "GET", "/%74eam/board", nil},
				"other group":             {bob, "GET", "/team/board", nil},
				"other group, prefix":     {bob, "GET", "/teams", nil},
				"closed":                  {alice, "GET", "/closed/x", nil},
				"public":                  {s.Browser(), "GET", "/public/logo.png", nil},
				"public prefix":           {s.Browser(), "GET", "/publicity", nil},
				"stranger":                {s.Browser(), "GET", "/page", nil},
				"stranger by script":      {s.Browser(), "GET", "/page", script},
				"stranger posts":          {s.Browser(), "POST", "/page", nil},
				"method of a route":       {s.Browser(), "GET", "/form", nil},
				"other method of a route": {s.Browser(), "POST", "/form", nil},
				"post":                    {alice, "POST", "/page", nil},
				"delete":                  {alice, "DELETE", "/team/1", nil},
				"lower-case method":       {alice, "get", "/public", nil},
				"encoded dot segments":    {s.Browser(), "GET", "/public/%2e%2e/team", nil},
				"encoded slash":           {s.Browser(), "GET", "/public%2fx", nil},
				"double slash":            {s.Browser(), "GET", "/public//x", nil},
				"parameter":               {s.Browser(), "GET", "/public;x/y", nil},
				"backslash":               {s.Browser(), "GET", `/public\x`, nil},
				"websocket":               {alice, "GET", "/ws", socket},
				"websocket of elsewhere":  {alice, "GET", "/ws", evil},
				"garbage for a session":   {forged, "GET", "/page", map[string]string{"Cookie": "postern=garbage"}},
			} {
				direct := c.b.Do(c.method, c.target, nil, c.header)
				want := lastRequest(t, s)
				method, target, header := question(dialect, c.method, c.target, host)
				for k, v := range c.header {
					header[k] = v
				}
				asked := c.b.Do(method, target, nil, header)
				got := lastRequest(t, s)
				if want.Reason == "upstream_broken" || want.Reason == "upstream_switched_protocol" {
					want.Reason = got.Reason // that application speaks no WebSocket; passing was decided before
				}
				if got.Verdict != want.Verdict || got.Reason != want.Reason || got.Path != want.Path {
					t.Errorf("%s: asked %+v, direct %+v", name, got, want)
				}
				wantStatus := direct.StatusCode
				switch {
				case want.Verdict == "allow":
					wantStatus = 200
				case dialect == "nginx" && wantStatus == 303:
					wantStatus = 401
				case dialect == "nginx" && (wantStatus == 400 || wantStatus == 404 || wantStatus == 405):
					wantStatus = 403
				}
				if asked.StatusCode != wantStatus {
					t.Errorf("%s: asked %d, direct %d", name, asked.StatusCode, direct.StatusCode)
				}
				if (asked.Header.Get("X-Forwarded-User") != "") != (want.Verdict == "allow" && want.Reason != "public") {
					t.Errorf("%s: identity %q with verdict %s", name, asked.Header.Get("X-Forwarded-User"), want.Verdict)
				}
				if asked.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: the answer may be cached", name)
				}
			}
		})
	}
}

func TestForwardAuthGivesIdentityAndBearerToCopy(t *testing.T) {
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", dialect, 1)})
		b := s.Browser()
		direct := b.Go("/page").Received(t)
		method, target, header := question(dialect, "GET", "/page", strings.TrimPrefix(s.URL, "http://"))
		header["X-Forwarded-Groups"] = "admins" // a client's own never comes back
		a := b.Do(method, target, nil, header)
		for _, name := range []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "Authorization"} {
			if got, want := a.Header.Get(name), direct.Header.Get(name); got != want || want == "" {
				t.Errorf("%s: %s is %q, proxying sends %q", dialect, name, got, want)
			}
		}
	}
}

// Where to sign in is for page navigations; a script gets the challenge alone.
func TestNginxGetsTheAddressToSignInAt(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", "nginx", 1)})
	b := s.Browser()
	ask := func(header map[string]string) proxytest.Answer {
		_, target, h := question("nginx", "GET", "/page?a=1&b=2", strings.TrimPrefix(s.URL, "http://"))
		for k, v := range header {
			h[k] = v
		}
		return b.Do("GET", target, nil, h)
	}
	a := ask(nil)
	want := s.URL + "/oauth2/start?rd=%2Fpage%3Fa%3D1%26b%3D2"
	if got := a.Header.Get("X-Postern-Redirect"); a.StatusCode != 401 || got != want {
		t.Errorf("%d, redirect %q, want 401 and %q", a.StatusCode, got, want)
	}
	if got := a.Header.Get("X-Postern-Verdict"); got != "sign_in" {
		t.Errorf("verdict %q", got)
	}
	if len(a.Cookies()) > 0 {
		t.Errorf("cookies %v before the sign-in has begun", a.Cookies())
	}
	a = ask(map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"})
	if a.StatusCode != 401 || a.Header.Get("X-Postern-Redirect") != "" || a.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("script: %d, redirect %q, challenge %q", a.StatusCode, a.Header.Get("X-Postern-Redirect"), a.Header.Get("WWW-Authenticate"))
	}
	if got := b.Go(want); got.Received(t).Target != "/page?a=1&b=2" {
		t.Errorf("sign-in ends at %s", got.Request.URL)
	}
}

// A107: a question that is not complete and well-formed is answered no.
func TestA107_MalformedQuestionsAreDenied(t *testing.T) {
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", dialect, 1)})
		host := strings.TrimPrefix(s.URL, "http://")
		b := s.Browser()
		b.Go("/")
		_, _, complete := question(dialect, "GET", "/public", host)
		refused := func(what, method, target string, header http.Header) {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), method, s.URL+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			for _, c := range b.Cookies() {
				r.AddCookie(c)
			}
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != http.StatusForbidden || res.Header.Get("X-Forwarded-User") != "" {
				t.Errorf("%s: %s: %d", dialect, what, res.StatusCode)
			}
		}
		for name := range complete {
			for what, values := range map[string][]string{
				"absent": nil, "empty": {""}, "twice": {complete[name], complete[name]}, "garbage": {"\x80 \x01"[:1]}, "relative": {"public"}, "list": {complete[name] + ", x"},
			} {
				if what == "list" && name == "X-Forwarded-Uri" || what == "list" && name == "X-Original-URL" || what == "relative" && strings.HasSuffix(name, "Method") || what == "relative" && name == "X-Forwarded-Host" {
					continue // a comma may stand in a path, and those words are a method or a host
				}
				header := http.Header{}
				for n, v := range complete {
					header.Set(n, v)
				}
				header[http.CanonicalHeaderKey(name)] = values
				target := "/oauth2/auth"
				if dialect == "envoy" {
					target += "/public"
				}
				refused(fmt.Sprint(name, " ", what), "GET", target, header)
			}
		}
		if dialect == "envoy" {
			refused("no path", "GET", "/oauth2/auth", http.Header{"X-Forwarded-Proto": {"http"}})
		}
	}
}

// A54: a proxy that overwrites X-Forwarded-User lets X_Forwarded_User pass, and CGI and WSGI read both alike. So nobody who sends that is let in, not even
// to public routes.
func TestA54_DisguisedIdentityIsDeniedToProxiesThatAsk(t *testing.T) {
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", dialect, 1)})
		for name, want := range map[string]int{"X_Forwarded_User": 403, "X-Forwarded.Email": 403, "X_AUTH_REQUEST_USER": 403, "X_Unrelated": 200, "X-Forwarded-User": 200} {
			method, target, header := question(dialect, "GET", "/public", strings.TrimPrefix(s.URL, "http://"))
			r, err := http.NewRequestWithContext(t.Context(), method, s.URL+target, nil)
			if err != nil {
				t.Fatal(err)
			}
			for n, v := range header {
				r.Header.Set(n, v)
			}
			r.Header[name] = []string{"admin"}
			res, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s asks about a request with %s: %d, want %d", dialect, name, res.StatusCode, want)
			}
		}
	}
}

// Only the headers of its own dialect decide: what a client adds from another changes nothing.
func TestA107_HeadersOfOtherDialectsDecideNothing(t *testing.T) {
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", dialect, 1)})
		host := strings.TrimPrefix(s.URL, "http://")
		b := s.Browser()
		method, target, own := question(dialect, "GET", "/team", host)
		all := map[string]string{
			"X-Forwarded-Server": "x", "X-Rewrite-URL": "/public", "X-HTTP-Method-Override": "OPTIONS", "X-Envoy-Original-Path": "/public",
			"X-Auth-Request-Redirect": "/public", "X-Forwarded-Prefix": "/public", "Forwarded": "for=127.0.0.1;host=evil.example;proto=https",
		}
		for _, other := range dialects {
			_, _, h := question(other, "OPTIONS", "/public", host)
			for k, v := range h {
				all[k] = v
			}
		}
		for k, v := range own {
			all[k] = v
		}
		if a := b.Do(method, target, nil, all); a.StatusCode == 200 {
			t.Errorf("%s: passed", dialect)
		}
		if line := lastRequest(t, s); line.Path != "/team" || line.Method != "GET" || line.Verdict != "sign_in" {
			t.Errorf("%s: decided on %+v", dialect, line)
		}
	}
}

// The endpoint is there for trusted proxies alone, and only where the file names a dialect.
func TestForwardAuthAnswersTrustedProxiesAlone(t *testing.T) {
	for name, c := range map[string]struct {
		config string
		want   int
	}{
		"not configured": {strings.Replace(asking, "forward_auth: {dialect: DIALECT}", "", 1), 404},
		"not trusted":    {strings.Replace(strings.Replace(asking, "127.0.0.1/32", "192.0.2.1/32", 1), "DIALECT", "caddy", 1), 403},
	} {
		config := c.config
		if name == "not configured" {
			config = strings.Replace(config, "  - {path: /elsewhere, access: public}\n", "", 1)
		}
		s := proxytest.New(t, proxytest.Options{Config: config})
		b := s.Browser()
		b.Go("/")
		method, target, header := question("caddy", "GET", "/public", strings.TrimPrefix(s.URL, "http://"))
		if a := b.Do(method, target, nil, header); a.StatusCode != c.want || a.Header.Get("X-Forwarded-User") != "" {
			t.Errorf("%s: %d, want %d", name, a.StatusCode, c.want)
		}
	}
}

// A route without upstream is for the proxy that asks; nothing is served there, to nobody.
func TestRouteWithoutUpstreamServesNothing(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", "caddy", 1)})
	b := s.Browser()
	if a := b.Do("GET", "/elsewhere", nil, nil); a.StatusCode != 404 {
		t.Errorf("direct: %d, want 404", a.StatusCode)
	}
	method, target, header := question("caddy", "GET", "/elsewhere", strings.TrimPrefix(s.URL, "http://"))
	if a := b.Do(method, target, nil, header); a.StatusCode != 200 {
		t.Errorf("asked: %d, want 200", a.StatusCode)
	}
	method, target, header = question("caddy", "GET", "/oauth2/callback", strings.TrimPrefix(s.URL, "http://"))
	if a := b.Do(method, target, nil, header); a.StatusCode != 403 {
		t.Errorf("asked about an endpoint of ours: %d, want 403", a.StatusCode)
	}
}

// Envoy sets the headers that we send and leaves the client's own where we send none, unless it is told to remove them.
func TestEnvoyIsToldWhichIdentityHeadersToRemove(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(asking, "DIALECT", "envoy", 1)})
	b := s.Browser()
	b.Go("/")
	for target, want := range map[string]string{
		"/":       "", // alice has everything
		"/public": "x-forwarded-user,x-forwarded-email,x-forwarded-preferred-username,x-forwarded-groups,authorization",
	} {
		method, address, header := question("envoy", "GET", target, "")
		a := b.Do(method, address, nil, header)
		if got := a.Header.Get("X-Envoy-Auth-Headers-To-Remove"); a.StatusCode != 200 || got != want {
			t.Errorf("%s: %s, remove %q, want %q", target, a.Status, got, want)
		}
	}
}

// The recipes that no test can run name what Postern's answers carry.
func TestRecipesCopyEveryIdentityHeader(t *testing.T) {
	for file, headers := range map[string][]string{
		"../deploy/envoy/envoy.yaml":     {"x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-username", "x-forwarded-groups", "authorization", "set-cookie", "location", "www-authenticate", "cookie", "x-forwarded-proto"},
		"../deploy/traefik/postern.yaml": {"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "Authorization"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var parsed map[string]any
		if err := yaml.Unmarshal(text, &parsed); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, name := range headers {
			if !strings.Contains(string(text), name+"}") && !strings.Contains(string(text), "- "+name+"\n") {
				t.Errorf("%s does not name %s", file, name)
			}
		}
	}
}

// Whoever asks takes every 2xx for a yes. A page that Postern would show a browser is none.
func TestNoPageOfOursIsAYes(t *testing.T) {
	config := strings.Replace(asking, `{path: /, upstream: "${UPSTREAM}"}`, `{path: /, upstream: "${UPSTREAM}", keep_fragment: true}`, 1)
	for _, dialect := range dialects {
		s := proxytest.New(t, proxytest.Options{Config: strings.Replace(config, "DIALECT", dialect, 1)})
		method, target, header := question(dialect, "GET", "/page", strings.TrimPrefix(s.URL, "http://"))
		header["Accept"], header["Sec-Fetch-Mode"], header["Sec-Fetch-Dest"] = "text/html", "navigate", "document"
		if a := s.Browser().Do(method, target, nil, header); a.StatusCode < 300 {
			t.Errorf("%s: a stranger's navigation gets %s", dialect, a.Status)
		}
	}
}
