package redisstore_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// Slots move with sessions in them, while sessions are made, read, refreshed and ended: nobody hears more than, at worst, that the store did
// not answer.
func TestSlotMoveUnderLoad(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, redistest.ClusterOptions{})
	o := onCluster(c)
	o.Timeout = 2 * time.Second
	s := newStore(t, nil, o)
	_, gaps := watch(t, s)
	<-gaps
	stop := load(t, s, 8, false)
	var keys []string
	for i := range 6 {
		key := fmt.Sprint("mover", i)
		mustCreate(t, s, key)
		keys = append(keys, key)
	}
	for _, key := range keys {
		slot := c.Slot("s:{" + key + "}")
		to := c.Nodes[0]
		if c.Owner(slot) == to {
			to = c.Nodes[1]
		}
		c.MigrateSlot(slot, to, func() {
			// On neither side yet, on the other side already: ASK.
			if err := life(t, s, key+"}x{"); err != nil {
				t.Errorf("during the move: %v", err)
			}
			if rec, err := s.Get(t.Context(), key); err != nil || rec.Version != 1 {
				t.Errorf("during the move: %+v, %v", rec, err)
			}
		})
		if err := s.Swap(t.Context(), key, record("new"), 1); err != nil {
			t.Errorf("after the move: %v", err)
		}
	}
	await(t, "gap for the moved slots", gaps)
	whole, unavailable := stop()
	t.Logf("%d sessions whole, %d operations unavailable", whole, unavailable)
	if whole == 0 || unavailable > 0 {
		t.Errorf("%d sessions whole, %d operations unavailable; want many and none", whole, unavailable)
	}
}

// A node dies and its replica takes over: the rest of the cluster serves all the time, and then everything.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, redistest.ClusterOptions{Replicas: 1})
	o := onCluster(c)
	o.Cluster = c.Addresses()
	o.Timeout = time.Second
	o.Wait = redisstore.Wait{Replicas: 1, Timeout: patient}
	s := newStore(t, nil, o)
	_, gaps := watch(t, s)
	<-gaps
	dying := c.Owner(c.Slot("s:{k}"))
	mustCreate(t, s, "k")
	other := ""
	for i := 0; other == ""; i++ {
		if key := fmt.Sprint("other", i); c.Owner(c.Slot("s:{"+key+"}")) != dying {
			other = key
		}
	}
	mustCreate(t, s, other)
	dying.Kill()
	for len(gaps) > 0 {
		<-gaps
	}
	died := time.Now()
	await(t, "gap for a lost node", gaps)
	t.Logf("gap after %v", time.Since(died))
	if _, err := s.Get(t.Context(), "k"); err != nil && !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.Get(t.Context(), other); err != nil {
		t.Errorf("get of a session on a healthy node: %v", err)
	}
	eventually(t, "the replica serves", func() bool { return s.Swap(t.Context(), "k", record("new"), 1) == nil })
	c.Await()
	eventually(t, "all masters answer", func() bool { return s.Ping(t.Context()) == nil })
}

// Notices come over connections between the nodes that a client does not see. When these stand still, while all nodes serve and take each
// other for healthy, there is a gap, and as long as it lasts there is one after the other.
func TestClusterBusThatLosesNoticesIsAGap(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, redistest.ClusterOptions{Server: redistest.Options{Proxied: true}, NodeTimeout: time.Minute})
	s := newStore(t, nil, onCluster(c))
	_, gaps := watch(t, s)
	<-gaps
	for _, n := range c.Nodes {
		n.Bus.Stall(true, false)
	}
	for range 3 {
		await(t, "gap", gaps)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A cluster in order has none.
func TestClusterWatchIsSteady(t *testing.T) {
	c := redistest.StartCluster(t, redistest.ClusterOptions{NodeTimeout: 15 * time.Second})
	s := newStore(t, nil, onCluster(c))
	keys, gaps := watch(t, s)
	<-gaps
	time.Sleep(3500 * time.Millisecond) // longer than a silent node is believed
	if len(gaps) > 0 {
		t.Errorf("%d gaps without an interruption", len(gaps))
	}
	for i := range 20 { // on all nodes
		want := fmt.Sprint("k", i)
		if _, err := s.End(t.Context(), want, session.ReasonAdmin, false, nil); err != nil {
			t.Fatal(err)
		}
		if got := <-keys; got != want {
			t.Errorf("notice of %q, want %q", got, want)
		}
	}
}

// Startup without Redis works, and heals, in every shape. Until then everything is unavailable, soon.
func TestStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	single := redistest.Start(t, redistest.Options{})
	group := redistest.StartSentinel(t, redistest.SentinelOptions{})
	cluster := redistest.StartCluster(t, redistest.ClusterOptions{})
	for name, c := range map[string]struct {
		o    redisstore.Options
		real string
	}{
		"url":      {redisstore.Options{}, single.Address()},
		"sentinel": {redisstore.Options{Sentinel: &redisstore.Sentinel{Master: redistest.MasterName}}, group.Addresses()[0]},
		"cluster":  {redisstore.Options{}, cluster.Addresses()[0]},
	} {
		t.Run(name, func(t *testing.T) {
			proxy := redistest.NewProxy(t, nobody)
			o := c.o
			o.Timeout = 500 * time.Millisecond
			switch name {
			case "url":
				o.URL = "redis://" + proxy.Address()
			case "sentinel":
				o.Sentinel.Addresses = []string{proxy.Address()}
			case "cluster":
				o.Cluster = []string{proxy.Address()}
			}
			s := newStore(t, nil, o)
			keys, gaps := watch(t, s)
			for range 2 {
				wantUnavailable(t, s, o.Timeout)
			}
			if got := s.Status().Breaker; got == "closed" {
				t.Error("the breaker is closed")
			}
			proxy.Redirect(c.real)
			eventually(t, "it works", func() bool { return s.Ping(t.Context()) == nil })
			await(t, "subscription", gaps)
			mustCreate(t, s, "k")
			if _, err := s.End(t.Context(), "k", session.ReasonAdmin, false, nil); err != nil {
				t.Error(err)
			}
			if got := <-keys; got != "k" {
				t.Errorf("notice of %q", got)
			}
		})
	}
}
