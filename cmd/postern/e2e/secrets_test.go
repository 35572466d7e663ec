//go:build e2e

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"postern/proxy/proxytest/canary"
	"postern/session/redistest"
)

// clientSecret is Postern's at the provider, unless a test says otherwise.
const clientSecret = "canary-client-secret"

// secrets are those of all tests so far: no process may show those of another one's either.
var secrets canary.Secrets

// lines are what a program writes.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// search looks for secrets in all that the program shows of itself.
func (p *postern) search(s *canary.Secrets, r canary.Reporter) {
	s.Search(r, "the log", p.log.String())
	s.Search(r, "standard output", p.Printed())
	for _, command := range [][]string{{"check", "--print"}, {"explain", "GET", p.origin + "/x"}, {"explain", "GET", p.origin + "/x", "--user", "alice"}} {
		cmd := exec.CommandContext(context.Background(), filepath.Join(programs, "postern"), append(command, "--config", p.config, "--listen", p.listen)...)
		cmd.Env = append(os.Environ(), p.env...)
		out, _ := cmd.CombinedOutput() // what it complains of is searched, too
		s.Search(r, "postern "+command[0], string(out))
	}
	if p.Ended() {
		return
	}
	s.SearchProcess(r, p.PID(), p.env...)
	for _, path := range []string{"/metrics", "/readyz"} {
		if _, text, err := fetch(p.admin + path); err == nil {
			s.Search(r, path, text)
		}
	}
}

// startRedis starts a server. When the test ends, all that was ever written to it is searched for secrets.
func startRedis(t *testing.T, o redistest.Options) *redistest.Server {
	t.Helper()
	r := redistest.Start(t, o)
	t.Cleanup(func() {
		if r.Running() {
			secrets.Search(t, "Redis", dataOf(t, r))
		}
	})
	return r
}

// leaks is a test that fails on purpose.
type leaks []string

func (*leaks) Helper() {}

func (l *leaks) Errorf(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// Every other test ends in a search; this one sees that it finds what stands in each of the places.
func TestSearchLooksEverywhere(t *testing.T) {
	r := startRedis(t, redistest.Options{})
	config := minimal(t, freePort(t), startUpstream(t), stored(r, keygen(t)), "server: {audit: {stdout: true}}")
	p := newPostern(t, config, freePort(t), "")
	p.start(t)
	get(t, p.origin+"/planted-in-the-path", nil)
	if err := r.Client().Set(t.Context(), "planted-in-redis", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for where, value := range map[string]string{
		"the log": "/planted-in-the-path", "postern check": "client_id: wiki", "postern explain": "Bearer ACCESS-TOKEN", "/proc/PID/cmdline": "--admin-listen",
		"/proc/PID/environ": "PATH=" + os.Getenv("PATH"), "/metrics": "go_goroutines", "/readyz": `"providers":`,
	} {
		var planted canary.Secrets
		planted.Add("planted value", value)
		eventually(t, where+" holds "+value, func() error { // a line arrives after the answer that it is about
			var found leaks
			p.search(&planted, &found)
			if !slices.ContainsFunc(found, func(leak string) bool { return strings.HasPrefix(leak, where+" holds the planted value") }) {
				return fmt.Errorf("found: %q", found)
			}
			return nil
		})
	}
	var planted canary.Secrets
	planted.Add("planted value", "planted-in-redis")
	var found leaks
	if planted.Search(&found, "Redis", dataOf(t, r)); len(found) == 0 {
		t.Error("what is in Redis is not found")
	}
}
