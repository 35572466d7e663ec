package config_test

import (
	"strings"
	"testing"

	"postern/config"
)

// An excerpt shows the line of a problem with a mark below the place, and of the values in it none but the one that is wrong.
func TestExcerpt(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{
			"misspelt key",
			"providers:\n  corp:\n    isuer: http://127.0.0.1:9000 # was: hunter2\n",
			"  3 |     isuer: …\n    |     ^\n",
		},
		{
			"a word among others",
			"providers: {corp: {issuer: \"http://127.0.0.1:9000\", client_id: wiki, client_secret: hunter2, pkce: maybe}}\n",
			"  1 | providers: {corp: {issuer: …, client_id: …, client_secret: …, pkce: maybe}}\n    |                                                                     ^\n",
		},
		{
			"a secret of the wrong kind",
			"providers:\n  corp:\n    client_secret: [hunter2]\n",
			"  3 |     client_secret: […]\n    |                    ^\n",
		},
		{
			"a password in an address",
			"routes:\n  - upstream: http://me:hunter2@127.0.0.1\n",
			"  2 |   - upstream: …\n    |     ^\n",
		},
		{
			"a variable, not what it holds",
			"server: {shutdown_timeout: \"${PASSWORD}\"}\n",
			"  1 | server: {shutdown_timeout: \"${PASSWORD}\"}\n    |                            ^\n",
		},
		{
			"a token parameter",
			"providers:\n  corp:\n    token_params: {client_secret: hunter2}\n",
			"  3 |     token_params: {client_secret: …}\n    |                    ^\n",
		},
		{
			"no YAML",
			"providers:\n  corp:\n    client_secret: hunter2: hunter2\n",
			"  3 |     client_secret: …: …\n    |                    ^\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := config.Parse("postern.yaml", []byte(c.file), goldenEnv())
			var all strings.Builder
			for _, p := range problemsOf(t, nil, err) {
				all.WriteString(p.Excerpt)
			}
			if !strings.Contains(all.String(), c.want) {
				t.Errorf("no problem has the excerpt\n%sonly\n%s", c.want, all.String())
			}
			if strings.Contains(all.String(), "hunter2") || strings.Contains(all.String(), canary) {
				t.Errorf("tells a secret:\n%s", all.String())
			}
		})
	}
}
