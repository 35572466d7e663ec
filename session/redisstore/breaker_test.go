package redisstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// A Redis that stands still for seconds costs each caller one time limit at most and most of them nothing; nobody gets another error
// than that the store did not answer; no connections pile up; and it goes on by itself.
func TestStalledRedisUnderLoad(t *testing.T) {
	const timeout, pool = 250 * time.Millisecond, 10
	server := redistest.Start(t, redistest.Options{Proxied: true})
	s := newStore(t, server, redisstore.Options{Timeout: timeout, PoolSize: pool})
	mustCreate(t, s, "k")
	server.Pause()
	before := server.Proxy.Accepted()
	var answered, opened, slow atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				start := time.Now()
				_, err := s.Get(t.Context(), "k")
				switch {
				case err == nil:
				case !errors.Is(err, session.ErrUnavailable):
					t.Errorf("get: %v, want unavailable", err)
				case strings.Contains(err.Error(), "circuit breaker is open"):
					opened.Add(1)
				default:
					answered.Add(1)
				}
				if time.Since(start) > timeout+slack {
					slow.Add(1)
				}
				time.Sleep(2 * time.Millisecond) // a request has more to do than that
			}
		})
	}
	time.Sleep(3 * time.Second) // the stall
	if got := s.Status().Breaker; got == "closed" {
		t.Errorf("the breaker is %s", got)
	}
	// Each probe that was late costs a connection, and there are at most 4 a second.
	if made := server.Proxy.Accepted() - before; made > pool+20 {
		t.Errorf("%d connections were made during the stall", made)
	}
	server.Resume()
	eventually(t, "the breaker closes", func() bool { return s.Status().Breaker == "closed" })
	close(stop)
	wg.Wait()
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if slow.Load() > 0 || opened.Load() < 5*answered.Load() {
		t.Errorf("%d waited too long; %d failed at once, %d after waiting", slow.Load(), opened.Load(), answered.Load())
	}
	if open := server.Proxy.Open(); open > pool {
		t.Errorf("%d connections are open", open)
	}
}

// The answers of a healthy server never open the breaker, and neither do callers that do not wait.
func TestBreakerCountsOnlyTheServersFailures(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{})
	mustCreate(t, s, "k")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		if _, err := s.Get(t.Context(), "none"); !errors.Is(err, session.ErrNone) {
			t.Fatal(err)
		}
		if err := s.Swap(t.Context(), "k", record("x"), 99); !errors.Is(err, session.ErrConflict) {
			t.Fatal(err)
		}
		if _, err := s.Get(gone, "k"); !errors.Is(err, session.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	server.Pause()
	for range 10 {
		hasty, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if _, err := s.Get(hasty, "k"); !errors.Is(err, session.ErrUnavailable) {
			t.Error(err)
		}
		cancel()
	}
	server.Resume()
	if got := s.Status().Breaker; got != "closed" {
		t.Errorf("the breaker is %s", got)
	}
	if _, err := s.Get(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}

// While the breaker is open nobody is asked, and one at a time is when it tries.
func TestBreakerProbesOneAtATime(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Proxied: true})
	s := newStore(t, server, redisstore.Options{Timeout: 100 * time.Millisecond})
	mustCreate(t, s, "k")
	server.Proxy.Refuse(true)
	server.Proxy.Cut()
	eventually(t, "the breaker opens", func() bool {
		if _, err := s.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) {
			t.Error(err)
		}
		return s.Status().Breaker == "open"
	})
	before := server.Proxy.Accepted()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			for range 10 {
				_, err := s.Get(t.Context(), "k")
				if !errors.Is(err, session.ErrUnavailable) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// 2,000 callers within one pause or two.
	if made := server.Proxy.Accepted() - before; made > 20 {
		t.Errorf("%d connections were tried", made)
	}
	server.Proxy.Heal()
	eventually(t, "it answers again", func() bool { _, err := s.Get(t.Context(), "k"); return err == nil })
}

// A failure that the breaker remembers is told to whoever is refused because of it, without its secrets.
func TestOpenBreakerSaysWhy(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Password: "hunter2"})
	s := newStore(t, server, redisstore.Options{URL: "redis://" + server.Address(), Password: always("wrong hunter")})
	var err error
	eventually(t, "the breaker opens", func() bool {
		err = s.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "circuit breaker is open")
	})
	if !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "hunter") {
		t.Errorf("ping: %v", err)
	}
}
