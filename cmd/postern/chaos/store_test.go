//go:build chaos

package chaos_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/cmd/postern/proctest"
	"postern/session/redistest"
)

// A store is Redis in one of its shapes. Faults come in pairs: what pause froze, resume lets go on.
type store interface {
	shape() string
	// config is the content of session.store.redis for one replica, in braces.
	config(replica int) string
	// clients reach each server that runs.
	clients() []*redis.Client
	// network is what stands between one replica and Redis; nil where the shape has none.
	network(replica int) *redistest.Proxy
	pause()
	resume()
	stop() // in good order
	kill()
	start()
}

// standalone is one redis-server, behind a network of its own for each replica.
type standalone struct {
	*redistest.Server
	proxies []*redistest.Proxy
}

func startStandalone(t *testing.T, replicas int) store {
	s := standalone{Server: redistest.Start(t, redistest.Options{})}
	for range replicas {
		s.proxies = append(s.proxies, redistest.NewProxy(t, s.Address()))
	}
	return s
}

func (s standalone) shape() string { return "standalone" }
func (s standalone) config(i int) string {
	return fmt.Sprintf("url: %q", "redis://"+s.proxies[i].Address()+"/0")
}
func (s standalone) clients() []*redis.Client       { return []*redis.Client{s.Client()} }
func (s standalone) network(i int) *redistest.Proxy { return s.proxies[i] }
func (s standalone) pause()                         { s.Pause() }
func (s standalone) resume()                        { s.Resume() }
func (s standalone) stop()                          { s.Stop() }
func (s standalone) kill()                          { s.Kill() }
func (s standalone) start()                         { s.Start() }

// commands counts what Redis was asked, by INFO commandstats, without what scripts call and what keeps connections alive.
func commands(t *testing.T, s store) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, c := range s.clients() {
		info, err := c.Info(t.Context(), "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(info) {
			name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			if !ok {
				continue
			}
			calls, _, _ := strings.Cut(rest, ",")
			n, err := strconv.Atoi(calls)
			if err != nil {
				t.Fatalf("INFO commandstats: %q", line)
			}
			all[name] += n
		}
	}
	return all
}

// awaitLease waits until a replica has taken the lease of a refresh.
func (w *world) awaitLease() {
	w.t.Helper()
	proctest.Eventually(w.t, "a lease is taken", func() error {
		for _, c := range w.store.clients() {
			keys, err := c.Keys(w.t.Context(), "*").Result()
			if err != nil {
				return err
			}
			for _, key := range keys {
				// Of all that is stored only a lease lives this shortly.
				left, err := c.PTTL(w.t.Context(), key).Result()
				if err == nil && left > 0 && left <= exchangeLimit+5*time.Second {
					return nil
				}
			}
		}
		return errors.New("none yet")
	})
}

// connections are the clients that Redis sees, but for ours.
func connections(t *testing.T, s store) int {
	t.Helper()
	n := 0
	for _, c := range s.clients() {
		list, err := c.ClientList(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		self, err := c.ClientID(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(list) {
			// Replicas and sentinels of the shape itself are none of Postern's.
			if !strings.HasPrefix(line, fmt.Sprintf("id=%d ", self)) && !strings.Contains(line, " flags=S") && !strings.Contains(line, "name=sentinel") {
				n++
			}
		}
	}
	return n
}
