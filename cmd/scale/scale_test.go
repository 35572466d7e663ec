package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

// counting counts the commands of a store by what they would be in Redis.
type counting struct {
	session.Store
	requests, hits, gets, scripts atomic.Int64
}

func (c *counting) Get(ctx context.Context, key string) (session.Record, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, key)
}

func (c *counting) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	c.scripts.Add(int64(len(keys)))
	return c.Store.Touch(ctx, seen, keys...)
}

func (c *counting) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	c.scripts.Add(1)
	return c.Store.Acquire(ctx, key, owner, ttl)
}

func (c *counting) Release(ctx context.Context, key, owner string) error {
	c.scripts.Add(1)
	return c.Store.Release(ctx, key, owner)
}

func (c *counting) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	c.scripts.Add(1)
	return c.Store.Swap(ctx, key, rec, from)
}

// The simulation says what the session package does: the same people, at the same pace, on one replica of each.
func TestSimulationIsLikeTheRealThing(t *testing.T) {
	d, err := newDeployment()
	if err != nil {
		t.Fatal(err)
	}
	d.Active, d.Rate, d.Replicas, d.Life = 400, 40, 1, 20*time.Minute
	said := d.replica(true, 20*time.Minute)
	var done counts
	synctest.Test(t, func(t *testing.T) { done = work(t, d, 20*time.Minute) })
	for _, c := range []struct {
		what       string
		said, done int
		within     float64
	}{
		{"hits", said.hits, done.hits, 0.02}, {"GETs", said.gets, done.gets, 0.06}, {"scripts", said.scripts, done.scripts, 0.06},
	} {
		s, r := float64(c.said)/float64(said.requests), float64(c.done)/float64(done.requests)
		t.Logf("%s for each request: %.4f simulated, %.4f real", c.what, s, r)
		if math.Abs(s-r) > c.within*r {
			t.Errorf("%s for each request: %.4f simulated, %.4f real", c.what, s, r)
		}
	}
}

// work lets people work on a real manager as the simulation has it, for so long to warm up and as long again.
func work(t *testing.T, d deployment, span time.Duration) counts {
	ring, err := seal.NewRing(bytes.Repeat([]byte{1}, seal.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	store := &counting{Store: memstore.New(memstore.Options{})}
	s := d.session
	m, err := session.NewManager(session.Options{
		Provider: "p", ClientID: "c", Issuer: "https://idp.example", Ring: ring, Store: store, Cookie: session.Cookie{Name: "s"},
		IdleTimeout: s.IdleTimeout, Lifetime: s.Lifetime, RefreshBefore: s.RefreshBefore, SpreadRefresh: true,
		Cache: session.CacheOptions{MaxSize: d.Cache, MaxStale: s.Cache.MaxStale},
		Looked: func(l session.Lookup) {
			store.requests.Add(1)
			if l == session.LookupHit {
				store.hits.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = m.Run(ctx) }()
	defer func() { cancel(); <-ran; _ = m.Close(t.Context()) }()

	var refreshes atomic.Int64
	refresh := func(_ context.Context, s *session.Session) (session.Grant, error) {
		g := s.Grant
		n := refreshes.Add(1)
		g.Tokens.Access, g.Tokens.Refresh = fmt.Sprint("access", n), fmt.Sprint("refresh", n)
		g.Tokens.Obtained, g.Tokens.Expiry = time.Now(), time.Now().Add(d.Life)
		return g, nil
	}
	rnd := rand.New(rand.NewPCG(d.Seed, 3))
	people := make([]http.Header, d.Active)
	for i := range people {
		g := session.Grant{Issuer: "https://idp.example", Subject: fmt.Sprint(i)}
		g.Tokens = session.Tokens{Access: "access", Refresh: "refresh", Obtained: time.Now(), Expiry: time.Now().Add(time.Duration(rnd.Float64() * float64(d.Life)))}
		_, cookie, err := m.Create(ctx, g, session.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		people[i] = http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}}
	}

	var pages sync.WaitGroup
	defer pages.Wait()
	start := time.Now()
	for at := time.Duration(0); at < 2*span; at += time.Duration(rnd.ExpFloat64() / d.Rate * float64(d.Page) * float64(time.Second)) {
		person := people[rnd.IntN(len(people))]
		pages.Go(func() {
			time.Sleep(time.Until(start.Add(at)))
			for range d.Page {
				s, err := m.Load(ctx, person)
				if err == nil {
					s, err = m.Fresh(ctx, s, refresh)
				}
				if err != nil {
					t.Error(err)
					return
				}
				m.Touch(s)
				time.Sleep(time.Second / time.Duration(d.Page))
			}
		})
	}
	time.Sleep(span)
	requests, hits, gets, scripts := store.requests.Load(), store.hits.Load(), store.gets.Load(), store.scripts.Load()
	time.Sleep(span)
	return counts{
		requests: int(store.requests.Load() - requests), hits: int(store.hits.Load() - hits),
		gets: int(store.gets.Load() - gets), scripts: int(store.scripts.Load() - scripts),
	}
}

// What is printed is the same for the same seed.
func TestPrintsTheSameAgain(t *testing.T) {
	var once, again strings.Builder
	args := []string{"-active=2000", "-rate=200", "-replicas=4"}
	if err := run(&once, args); err != nil {
		t.Fatal(err)
	}
	if err := run(&again, args); err != nil {
		t.Fatal(err)
	}
	if once.String() != again.String() || !strings.Contains(once.String(), "sticky") {
		t.Errorf("got\n%s\nand\n%s", once.String(), again.String())
	}
}
