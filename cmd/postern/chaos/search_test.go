//go:build chaos

package chaos_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/proxytest/canary"
)

// search looks for secrets in whatever the replicas have left behind, at the end of a test. What only a running process has is searched by
// [replica.search] before its end.
func (w *world) search(s *canary.Secrets, r canary.Reporter) {
	r.Helper()
	for _, one := range w.replicas {
		s.Search(r, "the log", one.logged())
		printed, err := exec.Command(program, "check", "--print", "--config", one.file).CombinedOutput()
		if err != nil {
			r.Errorf("postern check --print: %v", err)
		}
		s.Search(r, "postern check --print", string(printed))
	}
	s.SearchPages(r)
	s.Search(r, "Redis", w.store.dump())
	s.Search(r, "a trace", w.traces.Dump())
}

// search looks for secrets in what is known of a process, unless it has ended.
func (r *replica) search(p *proctest.Process, s *canary.Secrets, t canary.Reporter) {
	t.Helper()
	if p.Ended() {
		return
	}
	s.SearchProcess(t, p.PID())
	metrics, err := r.metrics()
	if err != nil {
		t.Errorf("the metrics of %s: %v", r.name, err)
	}
	s.Search(t, "the metrics", metrics)
}

func (r *replica) metrics() (string, error) {
	resp, err := http.Get("http://" + r.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// leaks is a test that fails on purpose.
type leaks []string

func (*leaks) Helper() {}

func (l *leaks) Errorf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Every test ends in a search; this one sees that it finds what stands in each of the places, and that it looks for what it must.
func TestSearchLooksEverywhere(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	w := newWorld(t, settings{replicas: 1, keys: fmt.Sprintf("[%q]", key)})
	w.secrets.Add("session key", key)
	b := w.signedInBrowser("b1", "planted-in-the-application")
	if err := w.store.clients()[0].Set(t.Context(), "planted-in-redis", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	b.do(t.Context(), http.MethodGet, "/oauth2/planted-in-the-path", nil)
	proctest.Eventually(t, "a trace arrives", func() error {
		b.get(t.Context()) // some are sampled
		if !strings.Contains(w.traces.Dump(), "service.name") {
			return fmt.Errorf("%d bytes", len(w.traces.Dump()))
		}
		return nil
	})
	for where, value := range map[string]string{
		"the log": "/oauth2/planted-in-the-path", "a page": "planted-on-a-page", "Redis": "planted-in-redis", "a trace": "service.name", "postern check --print": "client_id: wiki",
		"/proc/PID/cmdline": "--admin-listen", "/proc/PID/environ": "PATH=" + os.Getenv("PATH"), "the metrics": "go_goroutines",
	} {
		var planted canary.Secrets
		planted.Add("planted value", value)
		planted.Page("a page with planted-on-a-page")
		var found leaks
		w.search(&planted, &found)
		w.replicas[0].search(w.replicas[0].process, &planted, &found)
		if len(found) == 0 || !strings.HasPrefix(found[0], where+" holds the planted value") {
			t.Errorf("%s in %s: %q", value, where, found)
		}
	}
	for name, secret := range map[string]string{
		"the session's cookie": b.cookie(), "an access token": w.provider.accessToken(), "the session key": key, "the client's secret": w.clientSecret, "the operator's token": adminToken,
	} {
		var found leaks
		w.secrets.Search(&found, "a leak", "x"+secret+"x")
		if len(found) != 1 {
			t.Errorf("%s is not searched for: %q", name, found)
		}
	}
}
