package config_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/config"
)

// needed are the lines that an operator writes for a preset: what it needs and no more.
func needed(p config.Preset, without string) string {
	values := map[string]string{"url": "https://id.example.com/", "tenant": "corp", "client_id": "wiki", "client_secret": "hunter2hunter2"}
	var b strings.Builder
	fmt.Fprintf(&b, "providers:\n  it:\n    preset: %s\n", p.Name)
	for _, key := range p.Needs {
		if key != without {
			fmt.Fprintf(&b, "    %s: %s\n", key, values[key])
		}
	}
	b.WriteString("routes:\n  - {host: a.example.com, upstream: \"http://127.0.0.1:3000\", access: signed_in}\n")
	return b.String()
}

// Every preset loads with what it says that it needs, and names each thing that is missing.
func TestPresetsNeedWhatTheySay(t *testing.T) {
	for _, p := range config.Presets() {
		t.Run(p.Name, func(t *testing.T) {
			c, err := config.Parse("x", []byte(needed(p, "")), env())
			problems := problemsOf(t, c, err)
			problems = slices.DeleteFunc(problems, func(p config.Problem) bool { return p.Warning && p.Path == "providers.it.grant" })
			if len(problems) > 0 {
				t.Errorf("problems:\n%v", problems)
			}
			for _, key := range p.Needs {
				c, err := config.Parse("x", []byte(needed(p, key)), env())
				if got := problemsOf(t, c, err).Errors(); len(got) != 1 || !strings.Contains(got.Error(), key) {
					t.Errorf("without %s: %v", key, got)
				}
			}
		})
	}
}

// Each preset documents itself.
func TestPresetsAreDocumented(t *testing.T) {
	for _, p := range config.Presets() {
		if !strings.HasPrefix(p.Documentation, "https://") || strings.ContainsAny(p.Documentation, " \n") {
			t.Errorf("%s: documentation %q", p.Name, p.Documentation)
		}
		if p.Title == "" || !strings.Contains(p.File, "# Register: ") && !strings.Contains(p.File, " Register: ") || !strings.Contains(p.File, "Oddities") {
			t.Errorf("%s says too little: title %q", p.Name, p.Title)
		}
		if strings.Contains(p.File, "${") {
			t.Errorf("%s names a variable: presets do not see the environment", p.Name)
		}
		for _, key := range []string{"client_secret", "client_key", "client_cert", "ca_file"} {
			if strings.Contains(p.File, "\n"+key+":") {
				t.Errorf("%s sets %s, which is the operator's alone", p.Name, key)
			}
		}
	}
}

// What tokens are sent to is pinned: no address of a preset changes by accident.
func TestPresetAddresses(t *testing.T) {
	got := map[string]string{}
	for _, p := range config.Presets() {
		c, err := config.Parse("x", []byte(needed(p, "")), env())
		if err != nil {
			t.Fatal(err)
		}
		got[p.Name] = summary(c.Providers[0])
	}
	want := map[string]string{
		"auth0":     "public issuer https://id.example.com/",
		"authentik": "issuer https://id.example.com/application/o/corp/",
		"bitbucket": "public authorize https://bitbucket.org/site/oauth2/authorize token https://bitbucket.org/site/oauth2/access_token",
		"breakout":  "public password token https://id.example.com/oauth/token userinfo https://id.example.com/me/",
		"dex":       "public issuer https://id.example.com shared",
		"discord": "public authorize https://discord.com/oauth2/authorize token https://discord.com/api/oauth2/token userinfo https://discord.com/api/users/@me " +
			"revoke https://discord.com/api/oauth2/token/revoke",
		"entra":    "issuer https://login.microsoftonline.com/corp/v2.0",
		"forgejo":  "public issuer https://id.example.com",
		"gearcode": "public authorize https://auth.gearcode.eu/oauth/authorize token https://auth.gearcode.eu/oauth/token",
		"gitea":    "public issuer https://id.example.com",
		"github":   "public authorize https://github.com/login/oauth/authorize token https://github.com/login/oauth/access_token",
		"gitlab":   "public issuer https://gitlab.com",
		"google":   "public issuer https://accounts.google.com",
		"keycloak": "issuer https://id.example.com/realms/corp",
		"likecoin": "public authorize https://like.co/in/oauth/ token https://api.like.co/oauth/access_token shared",
		"metafy":   "public authorize https://metafy.gg/auth/authorize token https://metafy.gg/irk/oauth/token revoke https://metafy.gg/irk/oauth/revoke",
		"metamaps": "public authorize https://metamaps.cc/oauth/authorize token https://metamaps.cc/oauth/token",
		"okta":     "issuer https://id.example.com",
		"slack":    "public issuer https://slack.com",
		"zitadel":  "public issuer https://id.example.com",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// summary is where a provider is and what else decides about security.
func summary(p config.Provider) string {
	var words []string
	if p.Public {
		words = append(words, "public")
	}
	if p.Grant != "authorization_code" {
		words = append(words, p.Grant)
	}
	if p.Issuer != nil {
		words = append(words, "issuer", p.Issuer.String())
	}
	if o := p.OAuth2; o != nil {
		for _, u := range []struct {
			name string
			url  fmt.Stringer
			ok   bool
		}{
			{"authorize", o.AuthorizeURL, o.AuthorizeURL != nil}, {"token", o.TokenURL, o.TokenURL != nil}, {"userinfo", o.UserinfoURL, o.UserinfoURL != nil},
			{"revoke", o.RevokeURL, o.RevokeURL != nil}, {"introspect", o.IntrospectURL, o.IntrospectURL != nil},
		} {
			if u.ok {
				words = append(words, u.name, u.url.String())
			}
		}
	}
	if p.RefreshTokenScope == "user" {
		words = append(words, "shared")
	}
	return strings.Join(words, " ")
}

// The five contracts as presets are what the target file writes out in full.
func TestPresetsEqualTheTarget(t *testing.T) {
	o := env("GEARCODE_SECRET", "p", "METAFY_SECRET", "p", "LIKECOIN_SECRET", "p")
	const file = `
providers:
  metamaps: {preset: metamaps, client_id: THE_ID, client_secret: THE_SECRET}
  breakout: {preset: breakout, url: "https://yourdomain.org", client_id: breakout_app, client_secret: "123456789"}
  gearcode: {preset: gearcode, client_id: sample.webapp.fe9d3e203b164c7e8896369673003291, client_secret: "${GEARCODE_SECRET}"}
  metafy: {preset: metafy, client_id: ID, client_secret: "${METAFY_SECRET}"}
  likecoin: {preset: likecoin, client_id: CLIENT_ID, client_secret: "${LIKECOIN_SECRET}", scopes: [profile, email, "read:like.info"]}
routes: [{host: a.example.com, provider: metafy, upstream: "http://127.0.0.1:3000", access: signed_in}]
`
	c, err := config.Parse("x", []byte(file), o)
	if err != nil {
		t.Fatal(err)
	}
	target := mustLoad(t, "testdata/target/providers.yaml", o)
	for i, want := range target.Providers {
		got := c.Providers[i]
		got.Preset, got.URL, got.Title, got.Public = "", nil, "", false
		for _, p := range []*config.Provider{&got, &want} {
			p.ClientSecret = config.Secret{}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(config.Secret{})); diff != "" {
			t.Errorf("%s (-target +preset):\n%s", want.Name, diff)
		}
	}
}

// The operator's keys win, mappings key by key, lists as a whole.
func TestPresetIsBelowTheFile(t *testing.T) {
	const file = `
providers:
  gh:
    preset: ${PRESET}
    client_id: wiki
    client_secret: s
    title: Code
    scopes: [read:user]
    oauth2: {token_url: "https://git.example.com/token", revoke_url: "https://git.example.com/revoke"}
    userinfo: {bad: list}
    claims: {user: login, team: "teams[0].slug"}
    public: false
routes: [{host: a.example.com, upstream: "http://127.0.0.1:3000", access: signed_in}]
`
	if _, err := config.Parse("x", []byte(file), env("PRESET", "github")); err == nil || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("errors: %v", err)
	}
	c, err := config.Parse("x", []byte(strings.Replace(file, "    userinfo: {bad: list}\n", "", 1)), env("PRESET", "github"))
	if err != nil {
		t.Fatal(err)
	}
	p := c.Providers[0]
	if p.Title != "Code" || p.Public || len(p.Scopes) != 1 || len(p.Userinfo) != 3 {
		t.Errorf("title %q, public %v, scopes %v, userinfo %v", p.Title, p.Public, p.Scopes, p.Userinfo)
	}
	if got := summary(p); got != "authorize https://github.com/login/oauth/authorize token https://git.example.com/token revoke https://git.example.com/revoke" {
		t.Error(got)
	}
	if p.Claims["user"] != "login" || p.Claims["preferred_username"] != "login" || p.Claims["team"] != "teams[0].slug" {
		t.Errorf("claims = %v", p.Claims)
	}
	// With another identity than the preset's, what belongs to that is gone.
	none := "providers: {it: {preset: github, client_id: a, client_secret: s, identity: none}}\nroutes: [{host: a.example.com, upstream: \"http://127.0.0.1:3000\", access: signed_in}]\n"
	if c, err = config.Parse("x", []byte(none), env()); err != nil || c.Providers[0].Claims != nil || c.Providers[0].Userinfo != nil {
		t.Errorf("identity none: %v, %v", err, c)
	}
	// Presets are decoded for each provider anew: none sees another's keys.
	again, _ := config.Parse("x", []byte(needed(config.Preset{Name: "github", Needs: []string{"client_id", "client_secret"}}, "")), env())
	if again.Providers[0].Claims["user"] != "id" {
		t.Errorf("claims of another provider = %v", again.Providers[0].Claims)
	}
}

// TestPresetTable holds the README's list of presets against the files. `go test ./config -run PresetTable -update` writes it anew.
func TestPresetTable(t *testing.T) {
	const file, begin, end = "../README.md", "<!-- presets:begin -->\n", "<!-- presets:end -->"
	var b strings.Builder
	b.WriteString("| preset | provider | write besides |\n| --- | --- | --- |\n")
	for _, p := range config.Presets() {
		needs := "`" + strings.Join(p.Needs, "`, `") + "`"
		if p.Public {
			needs += "; `access` on its routes"
		}
		fmt.Fprintf(&b, "| `%s` | [%s](%s) | %s |\n", p.Name, p.Title, p.Documentation, needs)
	}
	readme, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(readme), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no block between %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(b.String(), got); diff != "" {
		t.Errorf("the presets in README.md are not up to date; run go test ./config -run PresetTable -update (-want +got):\n%s", diff)
	}
}

// What the README writes about providers can be written.
func TestReadmeProviders(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## Providers\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```yaml\n")[1:]
	if len(blocks) != 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	for i, b := range blocks {
		b, _, _ = strings.Cut(b, "```")
		if strings.HasPrefix(b, "providers:") {
			b += "routes: [{host: a.example.com, upstream: \"http://127.0.0.1:3000\", access: signed_in}]\n"
		} else {
			b = "server: {public_url: \"https://a.example.com\"}\nproviders: {acme: {issuer: \"https://id.example.com\", client_id: a, client_secret: s}}\n" + b
		}
		c, err := config.Parse("README.md", []byte(b), env())
		if problems := problemsOf(t, c, err); len(problems) > 0 {
			t.Errorf("example %d:\n%v", i, problems)
		}
	}
}
