package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/config"
)

const changesFrom = `
server: {listen: "127.0.0.1:1", public_url: "https://wiki.example.com", trusted_proxies: [10.0.0.0/8], log: {level: info}, tls: {cert_file: c, key_file: k}}
session: {keys: [{file: a}, "${KEY}"], store: {redis: {url: "redis://r", password: {file: p}}}}
providers:
  corp: {issuer: "https://corp.example.com", client_id: wiki, client_secret: "${SECRET}", authorize_params: {a: b}}
  other: {issuer: "https://other.example.com", client_id: wiki, client_secret: {file: s}}
routes:
  - {upstream: ["http://a", "http://b"], access: {groups: [staff]}}
  - {path: /b, upstream: "http://b", headers: {X-A: user}}
`

func TestChangesNameKeysAndNoValues(t *testing.T) {
	for name, tt := range map[string]struct {
		from, to string
		want     []string
	}{
		"nothing":                       {"", "", nil},
		"a word deep down":              {"level: info", "level: debug", []string{"server.log.level"}},
		"a file's name":                 {"cert_file: c", "cert_file: d", []string{"server.tls"}},
		"a section that goes":           {", tls: {cert_file: c, key_file: k}", "", []string{"server.tls"}},
		"an address":                    {"https://wiki", "https://wikis", []string{"server.public_url"}},
		"a network":                     {"10.0.0.0/8", "10.0.0.0/9", []string{"server.trusted_proxies"}},
		"a key in the file":             {"${KEY}", "${NEXT}", []string{"session.keys"}},
		"a secret's file":               {"password: {file: p}", "password: {file: q}", []string{"session.store.redis"}},
		"a variable's value":            {"${SECRET}", "${OTHER}", []string{"providers.corp"}},
		"a parameter":                   {"{a: b}", "{a: c}", []string{"providers.corp"}},
		"a provider goes and one comes": {"  other:", "  another:", []string{"providers.another", "providers.other"}},
		"providers change places": {"  corp: {issuer: \"https://corp.example.com\", client_id: wiki, client_secret: \"${SECRET}\", authorize_params: {a: b}}\n  other: {issuer: \"https://other.example.com\", client_id: wiki, client_secret: {file: s}}\n",
			"  other: {issuer: \"https://other.example.com\", client_id: wiki, client_secret: {file: s}}\n  corp: {issuer: \"https://corp.example.com\", client_id: wiki, client_secret: \"${SECRET}\", authorize_params: {a: b}}\n", []string{"providers"}},
		"a route's rule":    {"[staff]", "[]", []string{"routes (0 added, 1 changed, 0 removed)"}},
		"a route's address": {`"http://b"]`, `"http://c"]`, []string{"routes (0 added, 1 changed, 0 removed)"}},
		"a route's header":  {"X-A: user", "X-A: email", []string{"routes (0 added, 1 changed, 0 removed)"}},
		"another route":     {"/b, up", "/c, up", []string{"routes (1 added, 0 changed, 1 removed)"}},
		"a dialect":         {"routes:", "forward_auth: {dialect: nginx}\nroutes:", []string{"forward_auth"}},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(changesFrom, tt.from) {
				t.Fatalf("no %q", tt.from)
			}
			before, after := parseChanged(t, changesFrom), parseChanged(t, strings.Replace(changesFrom, tt.from, tt.to, 1))
			if diff := cmp.Diff(tt.want, config.Changes(before, after)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func parseChanged(t *testing.T, text string) *config.Config {
	t.Helper()
	env := map[string]string{"SECRET": "canary-secret", "OTHER": "canary-other", "KEY": "oQrSYKWRnOb26Bw/ssRrjKQBYbBaC0fAOP7P7lKXmBQ=", "NEXT": "XH6JUq0CxXE2kQ7nyTV+lsw72asEKMs37pdwXbMeDN0="}
	c, err := config.Parse("test.yaml", []byte(text), config.LoadOptions{LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFilesAreThoseThatTheConfigurationNames(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("file: ", "file: "+dir+"/").Replace(changesFrom) + "  - {path: /c, upstream: \"https://c\", upstream_tls: {ca_file: " + at("ca") + "}}\n"
	got := parseChanged(t, text).Files()
	want := []string{at("a"), at("c"), at("ca"), at("k"), at("p"), at("s")}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
