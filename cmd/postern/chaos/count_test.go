//go:build chaos

package chaos_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRedisOperationsPerRequest counts what an authenticated request costs Redis, by INFO commandstats.
func TestRedisOperationsPerRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, maxStale string
		requests       int
		every          time.Duration
		most           float64
	}{
		{"without cache", "0s", 500, 2 * time.Millisecond, 1},
		{"with cache, 100 requests a second", "5s", long(3000, 1500), 10 * time.Millisecond, 0.01},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, settings{maxStale: c.maxStale})
			b := w.signedInBrowser("b1", "alice")
			for range 20 { // each replica has seen it
				b.get(t.Context())
			}
			before := commands(t, w.store)
			began := time.Now()
			for i := range c.requests {
				if !pause(t.Context(), time.Until(began.Add(time.Duration(i)*c.every))) {
					t.Fatal(t.Context().Err())
				}
				if a := b.get(t.Context()); a.status != http.StatusOK {
					t.Fatalf("%s", a)
				}
			}
			took := time.Since(began)
			ops := 0
			asked := map[string]int{}
			for name, n := range commands(t, w.store) {
				n -= before[name]
				// Pings keep connections alive and readiness true whether anybody asks or not; hello and the like begin a connection of
				// the pool, once; info is this test's own.
				if n == 0 || slices.Contains([]string{"ping", "hello", "auth", "select", "info"}, name) {
					continue
				}
				asked[name] = n
				ops += n
			}
			each := float64(ops) / float64(c.requests)
			names := slices.Sorted(maps.Keys(asked))
			t.Logf("%d requests in %v on %d replicas: %d Redis operations (%s), %.4f for each request", c.requests, took.Round(time.Second), len(w.replicas), ops, strings.Join(names, " "), each)
			if each > c.most {
				t.Errorf("%.4f operations for each request, want at most %v: %v", each, c.most, asked)
			}
			w.report(t, t.Name())
		})
	}
}

// TestIdleTimeoutAcrossReplicas: use anywhere counts everywhere, although each replica has its own copy, and nothing else does.
func TestIdleTimeoutAcrossReplicas(t *testing.T) {
	t.Parallel()
	const idle = 5 * time.Second
	w := newWorld(t, settings{session: "  idle_timeout: 5s\n"})
	b := w.signedInBrowser("b1", "alice")
	s := b.current()
	for _, r := range w.replicas { // all have a copy now
		b.get(via(t.Context(), r))
	}
	began := time.Now()
	for time.Since(began) < 2*idle {
		b.get(via(t.Context(), w.replicas[0]))
		pause(t.Context(), 400*time.Millisecond)
	}
	for _, r := range w.replicas[1:] {
		if a := b.get(via(t.Context(), r)); a.status != http.StatusOK {
			t.Errorf("%s after %v of use elsewhere: %s", r.name, 2*idle, a)
		}
	}
	last := time.Now()
	// Right to within a tenth, which is how often touches are written.
	pause(t.Context(), time.Until(last.Add(idle*85/100)))
	if a := b.get(via(t.Context(), w.replicas[1])); a.status != http.StatusOK {
		t.Errorf("after %v without use: %s", time.Since(last), a)
	}
	last = time.Now()
	s.askEnd()
	pause(t.Context(), idle+idle/5)
	for _, r := range w.replicas {
		a := w.replay(via(t.Context(), r), s)
		t.Logf("%s after %v without use: %d %.120s", r.name, time.Since(last).Round(10*time.Millisecond), a.status, a.body)
		if a.status != http.StatusUnauthorized {
			t.Errorf("%s: accepted after %v without use: %s", r.name, time.Since(last), a)
		}
	}
	w.report(t, t.Name())
}
