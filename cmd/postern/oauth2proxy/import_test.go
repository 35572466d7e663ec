package oauth2proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func imported(t *testing.T, in ...Input) Result {
	t.Helper()
	made, err := Import(in)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Whatever an option holds, the result says what became of it.
func TestEveryOptionIsNamed(t *testing.T) {
	for _, r := range append(table(), providerTable()...) {
		for _, value := range []string{`"x"`, `true`, `["x"]`, `"a=b,c"`} {
			made := imported(t, Input{Name: "a.cfg", Data: fmt.Appendf(nil, "%s = %s", r.key, value)})
			if !strings.Contains(made.YAML, " "+r.key+": ") && !strings.Contains(made.YAML, `"`+r.key) {
				t.Errorf("%s = %s is not named in:\n%s", r.key, value, made.YAML)
			}
		}
	}
	for alpha, key := range alphaProviderKeys() {
		if !isProviderKey(key) {
			t.Errorf("%s stands for %s, which the table does not have", alpha, key)
		}
	}
	known := map[string]bool{}
	for _, r := range table() {
		if known[r.key] || isProviderKey(r.key) {
			t.Errorf("%s is there twice", r.key)
		}
		known[r.key] = true
	}
	for alpha, key := range alphaKeys() {
		if !known[key] {
			t.Errorf("%s stands for %s, which the table does not have", alpha, key)
		}
	}
}

// No secret of any input is in the result.
func TestNoSecretIsCopied(t *testing.T) {
	const canary = "canary-0123456789"
	toml := fmt.Sprintf(`
client_secret = %[1]q
cookie_secret = %[1]q
basic_auth_password = %[1]q
signature_key = "sha1:%[2]s"
github_token = %[1]q
jwt_key = %[1]q
session_store_type = "redis"
redis_connection_url = "redis://user:%[2]s@redis:6379/0?password=%[2]s"
redis_password = %[1]q
redis_sentinel_password = %[1]q
upstreams = ["http://user:%[2]s@127.0.0.1:3000/"]
redirect_url = "https://user:%[2]s@wiki.example.com/oauth2/callback"
`, canary, canary)
	sentinel := toml + `redis_use_sentinel = true
redis_sentinel_connection_urls = ["redis://user:` + canary + `@s1:26379"]`
	alpha := `
upstreamConfig: {upstreams: [{id: a, path: /, uri: "http://user:` + canary + `@127.0.0.1:3000"}]}
injectRequestHeaders:
  - {name: X-Key, values: [{value: ` + canary + `}]}
  - {name: Authorization, values: [{claim: email, basicAuthPassword: {value: ` + canary + `}}]}
injectResponseHeaders: [{name: X-Key, values: [{value: ` + canary + `}]}]
providers: [{id: a, provider: oidc, clientSecret: ` + canary + `}, {id: b, provider: login.gov, clientSecret: ` + canary + `, loginGovConfig: {jwtKey: ` + canary + `}}]
server: {TLS: {Key: {value: ` + canary + `}}}
`
	for name, in := range map[string]Input{
		"TOML": {Name: "a.cfg", Data: []byte(toml)}, "sentinel": {Name: "a.cfg", Data: []byte(sentinel)},
		"alpha": {Name: "a.yaml", Format: Alpha, Data: []byte(alpha)},
		"env":   {Name: "a.env", Format: Env, Data: []byte("OAUTH2_PROXY_CLIENT_SECRET=" + canary + "\nOAUTH2_PROXY_REDIS_PASSWORD='" + canary + "'\n")},
	} {
		if made := imported(t, in); strings.Contains(made.YAML+strings.Join(made.Questions, "\n"), canary) {
			t.Errorf("%s: a secret is in:\n%s", name, made.YAML)
		}
	}
}

// A path is open only where the expression opened all that is beneath it. Everything else is a question.
func TestOpenPaths(t *testing.T) {
	for pattern, want := range map[string]string{
		"^/public/":           "/public",
		"^/public/.*":         "/public",
		"^/public/.*$":        "/public",
		"^/public(/.*)?$":     "/public",
		"^/public(/|$)":       "/public",
		"^/public":            "/public",
		`^/\.well-known/acme`: "/.well-known/acme",
		"^/healthz$":          "",
		"^/favicon.ico$":      "",
		"/public":             "",
		"^/":                  "",
		"^":                   "",
		".*":                  "",
		"^/public|/admin":     "",
		"^/(public|static)/":  "",
		"^/public/[^/]+$":     "",
		"^/public/$":          "",
		"(?i)^/public/":       "",
		"^/public/.*/files":   "",
		"GET=/public":         "",
		"!=^/admin":           "",
		"POST!=^/admin":       "",
	} {
		made := imported(t, Input{Name: "a.cfg", Data: fmt.Appendf(nil, "upstreams = 'http://127.0.0.1:3000'\nskip_auth_routes = ['%s']", pattern)})
		var c struct {
			Routes []struct{ Path, Access string }
		}
		if err := yaml.Unmarshal([]byte(made.YAML), &c); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range c.Routes {
			if r.Access == "public" {
				got += r.Path
			}
		}
		if got != want {
			t.Errorf("%s opens %q, want %q", pattern, got, want)
		}
		if asks := strings.Contains(strings.Join(made.Questions, "\n"), "skip_auth_routes: "); asks != (want == "") {
			t.Errorf("%s: asked is %v in %q", pattern, asks, made.Questions)
		}
	}
}

// A path that is open for one method, or covers several applications, stays with the application that it belongs to.
func TestOpenPathsKeepTheirApplication(t *testing.T) {
	made := imported(t, Input{Name: "a.cfg", Data: []byte(`
upstreams = ["http://127.0.0.1:3000/", "http://127.0.0.1:4000/api/v1/", "http://127.0.0.1:5000/api/v2/"]
skip_auth_routes = ["GET=^/api/", "^/api/v2/"]
`)})
	var c struct {
		Routes []struct {
			Path, Access, Upstream string
			Methods                []string
		}
	}
	if err := yaml.Unmarshal([]byte(made.YAML), &c); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range c.Routes {
		got = append(got, fmt.Sprint(r.Path, r.Methods, r.Access, " ", r.Upstream))
	}
	want := []string{
		"/[]deny http://127.0.0.1:3000", "/api/v1/[]deny http://127.0.0.1:4000", "/api/v2[]public http://127.0.0.1:5000",
		"/api/v1[GET]public http://127.0.0.1:4000", "/api/v2[GET]public http://127.0.0.1:5000", "/api[GET]public http://127.0.0.1:3000",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzImportYieldsYAML holds that whatever the input, there is an error or a document.
func FuzzImportYieldsYAML(f *testing.F) {
	f.Add("client_id = 'a'\nupstreams = ['http://a/', 'file:///b#/c']\nskip_auth_routes = ['GET=^/a$']", 0)
	f.Add("providers: [{id: a, loginURLParameters: [{name: b, default: [c]}]}]\nupstreamConfig: {upstreams: [{path: '^/a/(.*)', rewriteTarget: /$1}]}", 1)
	f.Add("injectRequestHeaders: [{name: a, values: [{claim: b, prefix: c, basicAuthPassword: {value: d}}]}]", 1)
	f.Add("OAUTH2_PROXY_REDIS_CONNECTION_URL=redis://a:b@c", 2)
	f.Fuzz(func(t *testing.T, data string, format int) {
		if format < 0 || format > 2 {
			return
		}
		made, err := Import([]Input{{Name: "input", Format: Format(format), Data: []byte(data)}})
		if err != nil {
			return
		}
		var document any
		if err := yaml.Unmarshal([]byte(made.YAML), &document); err != nil {
			t.Errorf("%v in:\n%s", err, made.YAML)
		}
	})
}
