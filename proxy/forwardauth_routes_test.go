package proxy_test

import (
	"strings"
	"testing"

	"postern/proxy/proxytest"
)

// special are routes with each key that changes who passes, or what goes along.
const special = `
server: {listen: "${LISTEN}", trusted_proxies: [127.0.0.1/32]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
forward_auth: {dialect: DIALECT}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /optional, access: optional, upstream: "${UPSTREAM}"}
  - {path: /own, access: optional, bearer: none, headers: {X-Who: user, X-Absent: claims.nowhere, Authorization: 'basic(user, "x")'}, upstream: "${UPSTREAM}"}
  - {path: /id, bearer: id_token, upstream: "${UPSTREAM}"}
  - {path: /deny, unauthenticated: deny, upstream: "${UPSTREAM}"}
  - {path: /login, unauthenticated: login, upstream: "${UPSTREAM}"}
  - {path: /flight, preflight: pass, headers: {X-Who: user}, upstream: "${UPSTREAM}"}
  - {path: /guarded, csrf: fetch_metadata, allowed_origins: ["https://partner.example.com"], upstream: "${UPSTREAM}"}
  - {path: /cors, cors: ["https://app.example.com"], upstream: "${UPSTREAM}"}
`

// Every key of a route means the same to a proxy that asks as to a client that comes here: verdict, reason, who is sent to sign in, and every
// header about the person.
func TestForwardAuthKnowsEveryKeyOfARoute(t *testing.T) {
	identity := []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "Authorization", "X-Who", "X-Absent"}
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			s := proxytest.New(t, proxytest.Options{Config: strings.Replace(special, "DIALECT", dialect, 1)})
			host := strings.TrimPrefix(s.URL, "http://")
			alice := s.Browser()
			alice.Go("/")
			type h = map[string]string
			preflight := h{"Origin": "https://app.example.com", "Access-Control-Request-Method": "PUT", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Authorization": "Bearer own"}
			curl := h{"Accept": "*/*", "Sec-Fetch-Mode": "", "Sec-Fetch-Dest": "", "Sec-Fetch-Site": ""}
			for name, c := range map[string]struct {
				b      *proxytest.Browser
				method string
				target string
				header h
			}{
				"optional, nobody":              {s.Browser(), "GET", "/optional", nil},
				"optional, nobody, own token":   {s.Browser(), "GET", "/optional", h{"Authorization": "Bearer own"}},
				"optional, alice, own token":    {alice, "GET", "/optional", h{"Authorization": "Bearer own"}},
				"own headers":                   {alice, "GET", "/own", h{"X-Who": "forged", "X-Absent": "forged", "Authorization": "Bearer own"}},
				"own headers, nobody":           {s.Browser(), "GET", "/own", h{"X-Who": "forged", "X-Absent": "forged", "Authorization": "Bearer own"}},
				"another route's own headers":   {alice, "GET", "/page", h{"X-Who": "forged"}},
				"id token":                      {alice, "GET", "/id", nil},
				"deny":                          {s.Browser(), "GET", "/deny", nil},
				"deny, by script":               {s.Browser(), "GET", "/deny", curl},
				"login, by program":             {s.Browser(), "GET", "/login", curl},
				"by program":                    {s.Browser(), "GET", "/page", curl},
				"preflight":                     {alice, "OPTIONS", "/flight", preflight},
				"preflight elsewhere":           {alice, "OPTIONS", "/page", preflight},
				"preflight elsewhere, stranger": {s.Browser(), "OPTIONS", "/page", preflight},
				"cross-site post":               {alice, "POST", "/guarded", h{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}},
				"cross-site post, old browser":  {alice, "POST", "/guarded", h{"Origin": "https://evil.example", "Sec-Fetch-Site": ""}},
				"partner's post":                {alice, "POST", "/guarded", h{"Origin": "https://partner.example.com", "Sec-Fetch-Site": "cross-site"}},
				"own post":                      {alice, "POST", "/guarded", h{"Origin": "http://" + host, "Sec-Fetch-Site": "same-origin"}},
				"script of a listed origin":     {s.Browser(), "GET", "/cors", h{"Origin": "https://app.example.com", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}},
			} {
				direct := c.b.Do(c.method, c.target, nil, c.header)
				want := lastRequest(t, s)
				method, target, header := question(dialect, c.method, c.target, host)
				for k, v := range c.header {
					header[k] = v
				}
				asked := c.b.Do(method, target, nil, header)
				if got := lastRequest(t, s); got.Verdict != want.Verdict || got.Reason != want.Reason {
					t.Errorf("%s: asked %+v, direct %+v", name, got, want)
				}
				if want.Verdict == "allow" {
					received := direct.Received(t)
					for _, n := range identity {
						got, told := asked.Header[n]
						if asked.Header.Get(n) != received.Header.Get(n) {
							t.Errorf("%s: %s is %q, proxying sends %q", name, n, got, received.Header.Get(n))
						}
						if dialect == "caddy" && !told {
							t.Errorf("%s: nothing is said about %s, which Caddy takes for a word", name, n)
						}
					}
					continue
				}
				signIn := direct.StatusCode == 303
				if dialect == "nginx" && signIn != (asked.Header.Get("X-Postern-Redirect") != "") {
					t.Errorf("%s: %d, and nginx is told to send people to %q", name, direct.StatusCode, asked.Header.Get("X-Postern-Redirect"))
				} else if dialect != "nginx" && asked.StatusCode != direct.StatusCode {
					t.Errorf("%s: asked %d, direct %d", name, asked.StatusCode, direct.StatusCode)
				}
				if got, want := asked.Header.Get("Access-Control-Allow-Origin"), direct.Header.Get("Access-Control-Allow-Origin"); got != want {
					t.Errorf("%s: Access-Control-Allow-Origin is %q, direct %q", name, got, want)
				}
			}
		})
	}
}
