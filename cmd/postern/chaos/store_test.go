//go:build chaos

package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/cmd/postern/proctest"
	"postern/session/redistest"
)

// A store is Redis in one of its shapes.
type store interface {
	// config is the content of session.store.redis for one replica, in braces.
	config(replica int) string
	// clients reach each server that runs.
	clients() []*redis.Client
	// dump is all that they hold.
	dump() string
	// network is what stands between one replica and Redis; nil where the shape has none.
	network(replica int) *redistest.Proxy
	// upsets are what can happen to it, for random runs.
	upsets(random *rand.Rand) []fault
	// failedOver says when a server last took the place of another, which may lose what was written last.
	failedOver() time.Time
}

// A shape starts one for so many replicas.
type shape func(t *testing.T, replicas int) store

func nothing() {}

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

func (s standalone) config(i int) string {
	return fmt.Sprintf("url: %q", "redis://"+s.proxies[i].Address()+"/0")
}
func (s standalone) dump() string                   { return s.Dump() }
func (s standalone) clients() []*redis.Client       { return []*redis.Client{s.Client()} }
func (s standalone) network(i int) *redistest.Proxy { return s.proxies[i] }
func (s standalone) failedOver() time.Time          { return time.Time{} }
func (s standalone) upsets(*rand.Rand) []fault {
	return []fault{
		{"redis frozen", "redis", s.Pause, s.Resume},
		{"redis killed", "redis", s.Kill, s.Start},
		{"redis killed and back at once", "redis", func() { s.Kill(); s.Start() }, nothing},
	}
}

// times remembers the last failover.
type times struct {
	mu   sync.Mutex
	last time.Time
}

func (f *times) failedOver() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *times) now() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = time.Now()
}

// sentinel is a master with two replicas and three sentinels.
type sentinel struct {
	*redistest.Sentinel
	times
}

func startSentinel(t *testing.T, _ int) store {
	return &sentinel{Sentinel: redistest.StartSentinel(t, redistest.SentinelOptions{Replicas: 2})}
}

func (s *sentinel) config(int) string {
	return fmt.Sprintf("sentinel: {master: %s, addresses: [%q, %q, %q]}", redistest.MasterName, s.Addresses()[0], s.Addresses()[1], s.Addresses()[2])
}
func (s *sentinel) clients() []*redis.Client {
	return clientsOf(append(slices.Clone(s.Servers), s.Sentinels...))
}
func (s *sentinel) dump() string                 { return dumpOf(s.Servers) }
func (s *sentinel) network(int) *redistest.Proxy { return nil }

// failOver is an operator's.
func (s *sentinel) failOver() {
	s.now()
	s.Failover()
	s.now()
}

// crash kills the master and waits for the next one. The function that it returns brings it back.
func (s *sentinel) crash() (back func()) {
	old := s.Master()
	s.now()
	old.Kill()
	s.AwaitFailover(old)
	s.now()
	return old.Start
}

func (s *sentinel) upsets(*rand.Rand) []fault {
	back := nothing
	return []fault{
		{"sentinels fail over", "redis", s.failOver, nothing},
		{"master killed", "redis", func() { back = s.crash() }, func() { back() }},
		{"master frozen, and another takes over", "redis", func() {
			old := s.Master()
			s.now()
			old.Pause()
			back = func() { old.Resume(); s.now() }
			s.AwaitFailover(old)
		}, func() { back() }},
	}
}

// cluster is three masters with a replica each.
type cluster struct {
	*redistest.Cluster
	times
}

func startCluster(t *testing.T, _ int) store {
	return &cluster{Cluster: redistest.StartCluster(t, redistest.ClusterOptions{Replicas: 1})}
}

func (c *cluster) config(int) string {
	return fmt.Sprintf("cluster: {addresses: [%q, %q]}", c.Addresses()[0], c.Addresses()[1])
}
func (c *cluster) clients() []*redis.Client     { return clientsOf(c.Nodes) }
func (c *cluster) dump() string                 { return dumpOf(c.Nodes) }
func (c *cluster) network(int) *redistest.Proxy { return nil }

// moveSlot moves the slot of some key that is stored to another master.
func (c *cluster) moveSlot(random *rand.Rand) {
	slot := random.IntN(16384)
	owner := c.Owner(slot)
	if key, err := owner.Client().RandomKey(context.Background()).Result(); err == nil {
		slot = c.Slot(key)
	}
	for _, n := range random.Perm(len(c.Nodes)) {
		other := c.Nodes[n]
		if other.Running() && other != owner && strings.Contains(other.Client().Info(context.Background(), "replication").Val(), "role:master") {
			c.MigrateSlot(slot, other, nil)
			return
		}
	}
}

// crash kills the master of a slot and waits for the next one. The function that it returns brings it back.
func (c *cluster) crash(slot int) (back func()) {
	c.now()
	killed, _ := c.Failover(slot)
	c.now()
	return func() { killed.Start(); c.Await() }
}

func (c *cluster) upsets(random *rand.Rand) []fault {
	back, slot := nothing, random.IntN(16384)
	return []fault{
		{"a slot moves", "redis", func() { c.moveSlot(random) }, nothing},
		{"some slots move", "redis", func() {
			for range 10 {
				c.moveSlot(random)
			}
		}, nothing},
		{"a master killed", "redis", func() { back = c.crash(slot) }, func() { back() }},
		{"a master frozen", "redis", func() {
			owner := c.Owner(slot)
			c.now()
			owner.Pause()
			back = func() { owner.Resume(); c.Await(); c.now() }
		}, func() { back() }},
	}
}

func clientsOf(servers []*redistest.Server) []*redis.Client {
	var all []*redis.Client
	for _, s := range servers {
		if s.Running() {
			all = append(all, s.Client())
		}
	}
	return all
}

// dumpOf is all that the masters among servers hold: those that follow them have the same, and in a cluster do not tell it.
func dumpOf(servers []*redistest.Server) string {
	var all strings.Builder
	for _, s := range servers {
		if s.Running() && strings.Contains(s.Client().Info(context.Background(), "replication").Val(), "role:master") {
			all.WriteString(s.Dump())
		}
	}
	return all.String()
}

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
			own := strings.HasPrefix(line, fmt.Sprintf("id=%d ", self))
			if !own && !strings.Contains(line, " flags=S") && !strings.Contains(line, " flags=M") && !strings.Contains(line, " name=sentinel-") {
				n++
			}
		}
	}
	return n
}
