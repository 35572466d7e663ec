//go:build attack

package attack_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/proxytest/canary"
)

// leaks is a test that fails on purpose.
type leaks []string

func (*leaks) Helper() {}

func (l *leaks) Errorf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Every test of the suite ends in a search; this one sees that it finds what stands in each of the places.
func TestSearchLooksEverywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/planted-in-the-path")
	if err := w.redis.Client().Set(t.Context(), "planted-in-redis", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	proctest.Eventually(t, "a trace arrives", func() error {
		if !strings.Contains(w.traces.Dump(), "service.name") {
			return fmt.Errorf("%d bytes", len(w.traces.Dump()))
		}
		return nil
	})
	for where, value := range map[string]string{
		"the log": "/planted-in-the-path", "a page": "planted-on-a-page", "Redis": "planted-in-redis", "a trace": "service.name", "postern check --print": "client_id: wiki",
		"/proc/PID/cmdline": "--admin-listen", "/proc/PID/environ": "PATH=" + os.Getenv("PATH"), "the metrics": "go_goroutines",
	} {
		search := w.in(t)
		search.secrets = &canary.Secrets{}
		search.secrets.Add("planted value", value)
		search.secrets.Page("a page with planted-on-a-page")
		var found leaks
		search.searchFor(&found)
		if len(found) == 0 || !strings.HasPrefix(found[0], where+" holds the planted value") {
			t.Errorf("%s in %s: %q", value, where, found)
		}
	}
}
