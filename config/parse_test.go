package config_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/config"
)

func mustLoad(t *testing.T, file string, o config.LoadOptions) *config.Config {
	t.Helper()
	c, err := config.Load(file, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func ExampleParse() {
	const file = `
providers:
  corp:
    issuer: https://id.example.com
    client_id: wiki
    client_secrt: ${CLIENT_SECRET}
routes:
  - host: wiki.example.com
    upstream: http://127.0.0.1:3000
    access: {groups: [staff]}
session:
  idle_timeout: 30
`
	_, err := config.Parse("postern.yaml", []byte(file), config.LoadOptions{})
	fmt.Println(err)
	// Output:
	// postern.yaml:6:5: providers.corp.client_secrt: is not a key that Postern knows. Did you mean client_secret?
	// postern.yaml:12:17: session.idle_timeout: "30" is not a duration. Write a number with its unit, such as 500ms, 30s, 15m or 12h
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, "testdata/target/minimal.yaml", env())
	s := c.Session
	got := map[string]any{
		"listen": c.Server.Listen, "admin_listen": c.Server.AdminListen, "shutdown": c.Server.ShutdownTimeout, "hsts": c.Server.HSTS,
		"prefix": c.Server.Prefix, "log": c.Server.Log, "trusted": len(c.Server.TrustedProxies), "admin": c.Server.Admin == nil,
		"idle": s.IdleTimeout, "lifetime": s.Lifetime, "refresh": s.RefreshBefore, "persistent": s.Cookie.Persistent, "same_site": s.Cookie.SameSite,
		"insecure": s.Cookie.Insecure, "cache": s.Cache, "keep": s.OnStoreError.Keep, "max": s.MaxSessionsPerUser,
		"timeout": c.Providers[0].Timeout, "leeway": c.Providers[0].Leeway, "alg": c.Providers[0].IDTokenSignedResponseAlg,
		"mode": c.Providers[0].ResponseMode, "identity": c.Providers[0].Identity, "path": c.Routes[0].Path, "access": c.Routes[0].Access.Level,
		"groups": c.Routes[0].Access.Groups == nil,
	}
	want := map[string]any{
		"listen": "127.0.0.1:4180", "admin_listen": "127.0.0.1:9090", "shutdown": 20 * time.Second, "hsts": 180 * 24 * time.Hour,
		"prefix": "/oauth2", "log": config.Log{Format: "json", Level: "info", Requests: 1}, "trusted": 0, "admin": true,
		"idle": time.Hour, "lifetime": 12 * time.Hour, "refresh": time.Minute, "persistent": true, "same_site": "lax",
		"insecure": false, "cache": config.Cache{MaxSize: 64 << 20, MaxStale: 5 * time.Second}, "keep": time.Duration(0), "max": 1000,
		"timeout": 10 * time.Second, "leeway": time.Minute, "alg": "RS256",
		"mode": "query", "identity": "id_token", "path": "/", "access": config.SignedIn,
		"groups": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestSidecarValues(t *testing.T) {
	c := mustLoad(t, "testdata/target/sidecar.yaml", env("REDIS_PASSWORD", "p@ss: #word"))
	r := c.Session.Store.Redis
	if got, _ := r.Password.Value(); got != "p@ss: #word" {
		t.Errorf("password = %q", got)
	}
	if r.URL.String() != "rediss://postern@redis.internal:6379/0" || r.Timeout != 250*time.Millisecond || r.KeyPrefix != "postern:wiki:" {
		t.Errorf("redis = %v, %v, %q", r.URL, r.Timeout, r.KeyPrefix)
	}
	if got := c.Server.TrustedProxies; len(got) != 1 || got[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("trusted_proxies = %v", got)
	}
	if len(c.Session.Keys) != 2 || c.Session.Keys[1].File() != "/etc/postern/keys/previous" {
		t.Errorf("keys = %v", c.Session.Keys)
	}
	if diff := cmp.Diff([]string{"openid", "profile", "email", "offline_access"}, c.Providers[0].Scopes); diff != "" {
		t.Error(diff)
	}
	if a := c.Routes[0].Access; a.Level != config.Public || a.Groups != nil {
		t.Errorf("access of /healthz = %v", a)
	}
	if a := c.Routes[1].Access; a.Level != config.SignedIn || len(a.Groups) != 2 {
		t.Errorf("access of / = %v", a)
	}
}

func TestForms(t *testing.T) {
	c := mustLoad(t, "testdata/good/forms.yaml", env())
	if got := c.Server.TrustedProxies; len(got) != 1 || got[0] != netip.MustParsePrefix("10.0.0.1/32") {
		t.Errorf("a bare address = %v, want one host", got)
	}
	if got := c.Server.PublicURL.String(); got != "https://wiki.example.com" {
		t.Errorf("public_url = %q", got)
	}
	if diff := cmp.Diff([]string{"app.example.com", "app.example.com:8443"}, c.Server.ReturnHosts); diff != "" {
		t.Error(diff)
	}
	p := c.Providers[0]
	if secret, _ := p.ClientSecret.Value(); secret != "folded text" || p.ClientID != "12345" || len(p.Scopes) != 1 {
		t.Errorf("provider = %q %q %v", secret, p.ClientID, p.Scopes)
	}
	if got := c.Routes[0].Upstream[0]; got.Scheme != "unix" || got.Path != "/run/app.sock" {
		t.Errorf("upstream = %#v", got)
	}
	if got := c.Routes[2].Access.Groups; len(got) != 1 || got[0] != "staff" {
		t.Errorf("one group without brackets = %v", got)
	}
	if got := c.Routes[5].Host; got != "*.example.com" {
		t.Errorf("host = %q", got)
	}
}

// An empty list is not an absent one: it lets nobody in.
func TestEmptyGroupsIsNotNil(t *testing.T) {
	const file = "providers: {corp: {issuer: \"https://id.example.com\", client_id: a}}\nroutes: [{host: a.example.com, upstream: \"http://127.0.0.1:3000\", access: {groups: []}}]\n"
	c, err := config.Parse("x", []byte(file), env())
	if err != nil {
		t.Fatal(err)
	}
	if c.Routes[0].Access.Groups == nil || len(c.Warnings) != 1 {
		t.Errorf("groups = %#v, warnings %v", c.Routes[0].Access.Groups, c.Warnings)
	}
}

func TestVariables(t *testing.T) {
	c := mustLoad(t, "testdata/good/variables.yaml", goldenEnv())
	if c.Server.DrainDelay != 7*time.Second {
		t.Errorf("drain_delay = %v", c.Server.DrainDelay)
	}
	if got, want := c.Providers[0].ClientID, "a${b} $c $$ wiki.example.com"; got != want {
		t.Errorf("client_id = %q, want %q", got, want)
	}
	if got := c.Server.PublicURL.Host; got != "wiki.example.com" {
		t.Errorf("public_url = %v", c.Server.PublicURL)
	}
}

// Whatever a variable holds becomes one text, never structure, another variable, or another type of key.
func TestVariableCannotAddYAML(t *testing.T) {
	const file = "providers:\n  corp:\n    issuer: https://id.example.com\n    client_id: %s\n    client_secret: ${V}\nroutes:\n  - host: a.example.com\n    upstream: http://127.0.0.1:3000\n"
	for _, value := range []string{
		"a: b", "a # b", `a" b`, "a' b", "{file: /etc/passwd}", "[a, b]", "*alias", "&anchor", "!!str a", "- a", "${HOME}", "$${HOME}", "null", "~", "true", "0x10", "| a", "%A", "@", "`", "<<",
	} {
		for _, form := range []string{"${V}", `"${V}"`, "'${V}'", "|-\n      ${V}"} {
			c, err := config.Parse("x", fmt.Appendf(nil, file, form), env("V", value))
			if err != nil {
				t.Errorf("%s with V=%q: %v", form, value, err)
				continue
			}
			if got := c.Providers[0].ClientID; got != value {
				t.Errorf("%s with V=%q: client_id = %q", form, value, got)
			}
			if got, err := c.Providers[0].ClientSecret.Value(); got != value || err != nil || c.Providers[0].ClientSecret.File() != "" {
				t.Errorf("%s with V=%q: client_secret = %q, %v", form, value, got, err)
			}
		}
	}
	for _, value := range []string{"a\nclient_auth: none", "a\r\n    public: true", "a\x1b[2Jb", "a\x00b", "\xff"} {
		c, err := config.Parse("x", fmt.Appendf(nil, file, "${V}"), env("V", value))
		if problems := problemsOf(t, c, err); err == nil || strings.Contains(problems.Error(), "a\n") || strings.Contains(problems.Error(), "client_auth: none") {
			t.Errorf("V=%q: %v", value, problems)
		}
	}
}

func TestOverrides(t *testing.T) {
	o := env()
	o.Listen, o.AdminListen, o.LogLevel = "127.0.0.1:1", "127.0.0.1:2", "debug"
	c := mustLoad(t, "testdata/target/minimal.yaml", o)
	if c.Server.Listen != o.Listen || c.Server.AdminListen != o.AdminListen || c.Server.Log.Level != "debug" {
		t.Errorf("server = %q %q %q", c.Server.Listen, c.Server.AdminListen, c.Server.Log.Level)
	}
	o.Listen, o.LogLevel = "nowhere", "loud"
	_, err := config.Load("testdata/target/minimal.yaml", o)
	want := "testdata/target/minimal.yaml: server.listen: \"nowhere\" is not an address to listen on. Write host:port, such as 127.0.0.1:4180, or :4180 for every interface\n" +
		"testdata/target/minimal.yaml: server.log.level: \"loud\" is not one of the words that it can be. Write one of: debug, info, warn, error"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%v", err, want)
	}
}

func TestLoadMissingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing.yaml")
	c, err := config.Load(path, env())
	problems := problemsOf(t, c, err)
	if len(problems) != 1 || problems[0].File != path || !strings.Contains(err.Error(), "no such file") || strings.Count(err.Error(), path) != 1 {
		t.Errorf("problems = %v", err)
	}
}

func TestSizeString(t *testing.T) {
	for size, want := range map[config.Size]string{0: "0", 1: "1B", 1 << 10: "1KiB", 64 << 20: "64MiB", 1<<20 + 1: "1048577B", 3 << 30: "3GiB"} {
		if got := size.String(); got != want {
			t.Errorf("Size(%d) = %q, want %q", int64(size), got, want)
		}
	}
}

// What a plain value means depends on its key alone: a secret of digits stays those digits.
func TestPlainValuesAreTakenAsWritten(t *testing.T) {
	for _, value := range []string{"0123", "0x1F", "0o17", "0b11", "1_000", "1e3", ".5", "+12", "-12", "12345678901234567890123456789", "1.10", ".inf", ".nan", "2026-11-21", "yes", "off", "a:b", "007"} {
		file := "providers:\n  corp:\n    issuer: https://id.example.com\n    client_id: " + value + "\n    client_secret: " + value + "\nroutes:\n  - {host: a.example.com, upstream: \"http://127.0.0.1:3000\"}\n"
		c, err := config.Parse("x", []byte(file), env())
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if got, _ := c.Providers[0].ClientSecret.Value(); got != value || c.Providers[0].ClientID != value {
			t.Errorf("%s became %q and %q", value, c.Providers[0].ClientID, got)
		}
	}
}

// A variable that holds a secret, written where a path belongs, is not told.
func TestSecretAsFileNameIsNotTold(t *testing.T) {
	const file = "providers:\n  corp:\n    issuer: https://id.example.com\n    client_id: a\n    client_secret: {file: \"${V}\"}\nroutes:\n  - {host: a.example.com, upstream: \"http://127.0.0.1:3000\"}\n"
	c, err := config.Parse("x", []byte(file), env("V", canary))
	if err != nil {
		t.Fatal(err)
	}
	if problems := c.CheckFiles(); len(problems) != 1 || strings.Contains(problems.Error(), canary) || !strings.Contains(problems.Error(), "${V}") {
		t.Errorf("problems = %v", problems)
	}
	if _, err := c.Providers[0].ClientSecret.Value(); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("Value: %v", err)
	}
}
