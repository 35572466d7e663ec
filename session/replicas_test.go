package session_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/redistest"
)

// threeReplicas are three managers on one Redis, and Alice's session, whose access token has run out, and whose refresh token the provider takes once.
func threeReplicas(t *testing.T) (rs []*fixture, p *provider, cookies func(*fixture) (*session.Session, error)) {
	server := redistest.Start(t, redistest.Options{Forgetful: true})
	for range 3 {
		r := replica(t, redisStore(t, server), func(o *session.Options) { o.ExchangeTimeout = 30 * time.Second })
		r.watch()
		rs = append(rs, r)
	}
	g := rs[0].grant(time.Hour)
	g.Tokens.Obtained, g.Tokens.Expiry = g.Tokens.Obtained.Add(-2*time.Hour), g.Tokens.Obtained.Add(-time.Hour)
	_, h := rs[0].signIn(g, session.CreateOptions{})
	p = rs[0].provider(time.Hour)
	return rs, p, func(r *fixture) (*session.Session, error) { return r.load(h) }
}

// A165: 300 requests over 3 replicas at expiry, all of whose clients leave: one token request. The next request has its result.
func TestA165_ClientsLeaveDuringTheStorm(t *testing.T) {
	rs, p, load := threeReplicas(t)
	p.delay = time.Second
	ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer leave()
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			r := rs[i%3]
			if s, err := load(r); err == nil {
				if _, err := r.Fresh(ctx, s, p.refresh); err == nil {
					t.Error("an answer before the provider's")
				}
			}
		})
	}
	wg.Wait()
	for i, r := range rs {
		s, err := load(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("replica %d: %v", i, err)
		}
	}
	if n := len(p.calls()); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
}

// commands is how many commands the server has run that touch a session, its lease or an index, by INFO commandstats.
func commands(t *testing.T, server *redistest.Server) (n int) {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || strings.HasPrefix(name, "info") || strings.HasPrefix(name, "ping") || strings.HasPrefix(name, "config") {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		i, err := strconv.Atoi(calls)
		if err != nil {
			t.Fatal(err)
		}
		n += i
	}
	return n
}

// Issue 4: at most one Redis operation for each request without cache, less than 0.01 with it at 100 requests a second.
func TestRedisOperationsForEachRequest(t *testing.T) {
	const requests = 20_000
	for _, tc := range []struct {
		stale time.Duration
		most  float64
	}{{0, 1.01}, {5 * time.Second, 0.01}} { // 1.01: a touch each minute
		t.Run(fmt.Sprintf("max_stale %v", tc.stale), func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{Forgetful: true})
			f := replica(t, redisStore(t, server), func(o *session.Options) { o.Cache.MaxStale = tc.stale })
			f.watch()
			_, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
			f.Touch(f.mustLoad(h))
			before := commands(t, server)
			for range requests {
				f.clock.advance(10 * time.Millisecond)
				s := f.mustLoad(h)
				s, err := f.Fresh(t.Context(), s, nil)
				if err != nil {
					t.Fatal(err)
				}
				f.Touch(s)
			}
			each := float64(commands(t, server)-before) / requests
			t.Logf("%.4f Redis operations for each request", each)
			if each > tc.most {
				t.Errorf("%.4f operations for each request, want at most %v", each, tc.most)
			}
		})
	}
}

// A175: a session that was refreshed or ended elsewhere is not served from memory beyond max_stale, though no notice comes and nobody says that
// they are missing.
func TestA175_NoticesThatNeverCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		p := a.provider(time.Hour)
		s, h := a.signIn(a.grant(time.Hour), session.CreateOptions{})
		var deaf []*fixture
		for range 2 {
			r := replica(t, a.store.Store, nil)
			r.store.deaf.Store(true)
			defer r.watch()()
			r.mustLoad(h)
			deaf = append(deaf, r)
		}
		s, err := a.Refresh(t.Context(), s, p.refresh)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Second - 1)
		for _, r := range deaf {
			if got := r.mustLoad(h); got.Tokens.Access != "access-0" {
				t.Error("heard of the refresh, so that this test shows nothing")
			}
		}
		time.Sleep(time.Nanosecond)
		for _, r := range deaf {
			if got := r.mustLoad(h); got.Tokens.Access != "access-1" {
				t.Error("the old token is served beyond max_stale")
			}
		}
		if err := a.End(t.Context(), s, session.ReasonAdmin); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		for _, r := range deaf {
			_, err := r.load(h)
			ended(t, err, session.ReasonAdmin)
		}
	})
}
