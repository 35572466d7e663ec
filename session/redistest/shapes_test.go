package redistest_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"postern/session/redistest"
)

func TestSentinelFailsOver(t *testing.T) {
	s := redistest.StartSentinel(t, redistest.SentinelOptions{Server: redistest.Options{Password: "p", Proxied: true}, SentinelPassword: "q"})
	old := s.Master()
	if err := old.Client().Set(t.Context(), "k", "v", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Client().Wait(t.Context(), 1, 10*time.Second).Result(); n != 1 || err != nil {
		t.Errorf("wait: %d replicas, %v", n, err)
	}
	old.Kill()
	master := s.AwaitFailover(old)
	if got := master.Client().Get(t.Context(), "k").Val(); got != "v" || master == old {
		t.Errorf("new master has %q", got)
	}
	if err := master.Client().Set(t.Context(), "k", "w", time.Hour).Err(); err != nil {
		t.Error(err)
	}
}

func TestClusterMovesSlotsAndFailsOver(t *testing.T) {
	c := redistest.StartCluster(t, redistest.ClusterOptions{Replicas: 1, Server: redistest.Options{Proxied: true}})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addresses(), Protocol: 2})
	defer client.Close()
	for _, key := range []string{"{k}1", "{k}2", "{k}3"} {
		if err := client.Set(t.Context(), key, "v", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	slot := c.Slot("{k}")
	from := c.Owner(slot)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	halfway := false
	c.MigrateSlot(slot, to, func() {
		halfway = len(from.Client().ClusterGetKeysInSlot(t.Context(), slot, 10).Val()) == 2 && len(to.Client().ClusterGetKeysInSlot(t.Context(), slot, 10).Val()) == 1
	})
	if !halfway || c.Owner(slot) == from {
		t.Errorf("half of the keys: %v, moved: %v", halfway, c.Owner(slot) != from)
	}
	if got := client.Get(t.Context(), "{k}2").Val(); got != "v" {
		t.Errorf("after the move: %q", got)
	}
	_, master := c.Failover(slot)
	c.Await()
	if err := master.Client().Set(t.Context(), "{k}2", "w", time.Hour).Err(); err != nil {
		t.Error(err)
	}
}

func TestProxyBreaksTheNetwork(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Proxied: true})
	p := s.Proxy
	client := redis.NewClient(&redis.Options{Addr: s.Address(), Protocol: 2, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, PoolSize: 1})
	defer client.Close()
	incr := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		return client.Incr(ctx, "n").Err()
	}
	want := func(what string, ok bool) {
		t.Helper()
		err := incr()
		for deadline := time.Now().Add(10 * time.Second); ok && err != nil && time.Now().Before(deadline); {
			err = incr()
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	count := func() string { return s.Client().Get(t.Context(), "n").Val() }
	want("at first", true)
	if p.Accepted() != 1 || p.Open() != 1 {
		t.Errorf("%d connections of %d", p.Open(), p.Accepted())
	}
	p.Stall(true, false)
	want("stalled to the server", false)
	p.Heal()
	want("healed", true)
	before := count()
	p.Stall(false, true)
	want("stalled from the server", false)
	if count() == before {
		t.Error("a server whose answers are held back did nothing")
	}
	p.Heal()
	want("healed again", true)
	p.Refuse(true)
	p.Cut()
	want("refused", false)
	p.Heal()
	want("healed at last", true)
	p.Swallow(1)
	if err := incr(); err == nil || errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("answer lost: %v", err)
	}
	p.Delay(20*time.Millisecond, 0)
	start := time.Now()
	want("delayed", true)
	if time.Since(start) < 20*time.Millisecond {
		t.Error("no delay")
	}
}

func TestClientCertificateIsNeeded(t *testing.T) {
	s := redistest.Start(t, redistest.Options{TLS: true, ClientCert: true})
	if err := s.Client().Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}
