package session_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/redisstore"
	"postern/session/redistest"
)

func redisStore(t testing.TB, server *redistest.Server) session.Store {
	t.Helper()
	// Longer than in production: these tests are about what happens, on machines that are busy.
	s, err := redisstore.New(redisstore.Options{URL: server.URL(), KeyPrefix: "test:", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRedisStormOverReplicas(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Forgetful: true})
	var rs []*fixture
	for range 3 {
		r := replica(t, redisStore(t, server), nil)
		r.watch()
		rs = append(rs, r)
	}
	g := rs[0].grant(time.Hour)
	g.Tokens.Obtained, g.Tokens.Expiry = g.Tokens.Obtained.Add(-2*time.Hour), g.Tokens.Obtained.Add(-time.Hour)
	_, h := rs[0].signIn(g, session.CreateOptions{})
	p := rs[0].provider(time.Hour)
	p.delay = 500 * time.Millisecond
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			r := rs[i%3]
			s, err := r.load(h)
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			if got, err := r.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
				t.Errorf("fresh: %v", err)
			}
		})
	}
	wg.Wait()
	if n := len(p.calls()); n != 1 {
		t.Errorf("%d exchanges, want 1", n)
	}
}

// A176: sign-out, without the cookie and on another replica, during a refresh. In memory 10,000 times; on Redis POSTERN_RACES times.
func TestA176_EndDuringRefreshIsNeverUndone(t *testing.T) {
	store := memstore.New(memstore.Options{})
	endDuringRefresh(t, replica(t, store, noBound), replica(t, store, noBound), 10_000)
}

func TestA176_RedisEndDuringRefreshIsNeverUndone(t *testing.T) {
	n := 1000
	if text := os.Getenv("POSTERN_RACES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("POSTERN_RACES: %v", err)
		}
	}
	server := redistest.Start(t, redistest.Options{Forgetful: true})
	endDuringRefresh(t, replica(t, redisStore(t, server), noBound), replica(t, redisStore(t, server), noBound), n)
}

func noBound(o *session.Options) { o.MaxPerUser = 0 }

func endDuringRefresh(t *testing.T, f, other *fixture, n int) {
	undone, refreshed := 0, 0
	for i := range n {
		g := f.grant(time.Hour)
		g.Subject = fmt.Sprint("person-", i)
		g.Tokens.Obtained, g.Tokens.Expiry = g.Tokens.Obtained.Add(-2*time.Hour), g.Tokens.Obtained.Add(-time.Hour)
		s, h := f.signIn(g, session.CreateOptions{})
		p := f.provider(time.Hour)
		p.begun, p.hold = make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Fresh(t.Context(), s, p.refresh); err == nil {
				refreshed++
			}
		})
		<-p.begun // the exchange is under way: now both write
		wg.Go(func() { close(p.hold) })
		wg.Go(func() {
			for range i % 7 {
				runtime.Gosched()
			}
			if n, err := other.EndMatching(t.Context(), session.Match{Subject: g.Subject}, session.ReasonBackChannel); n != 1 || err != nil {
				t.Errorf("ended %d: %v", n, err)
			}
		})
		wg.Wait()
		for _, r := range []*fixture{f, other} {
			var end *session.EndedError
			if _, err := r.load(h); !errors.As(err, &end) || end.Reason != session.ReasonBackChannel {
				undone++
			}
		}
		if rec, err := f.store.Get(t.Context(), s.ID()); err != nil || rec.Ended != session.ReasonBackChannel {
			undone++
		}
	}
	t.Logf("%d races, of which the refresh won %d", n, refreshed)
	if undone > 0 {
		t.Errorf("%d of %d ends were undone", undone, n)
	}
}

func TestRedisOutage(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	f := replica(t, redisStore(t, server), nil)
	f.watch()
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	f.mustLoad(h)
	server.Stop()
	f.clock.advance(6 * time.Second)
	if _, err := f.load(h); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	server.Start()
	if _, err := f.load(h); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

func TestRedisLimit(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Forgetful: true})
	f := replica(t, redisStore(t, server), func(o *session.Options) { o.MaxPerUser = 1 })
	_, first := f.signIn(f.grant(0), session.CreateOptions{})
	f.clock.advance(time.Second)
	_, second := f.signIn(f.grant(0), session.CreateOptions{})
	_, err := f.load(first)
	ended(t, err, session.ReasonLimit)
	f.mustLoad(second)
}

// A185: whoever reads Redis learns nothing about anybody.
func TestRedisDumpHoldsNothing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	f := replica(t, redisStore(t, server), nil)
	g := f.grant(time.Hour)
	g.SID = "sid-of-alice"
	g.Tokens.Access, g.Tokens.ID = jwt(1193, "at"), jwt(950, "id")
	s, h := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	g.SID = ""
	other, _ := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	if _, err := f.Refresh(t.Context(), s, f.provider(time.Hour).refresh); err != nil {
		t.Fatal(err)
	}
	dump := server.Dump()
	if !strings.Contains(dump, s.Key()) {
		t.Fatal("the dump misses the session")
	}
	access := strings.Split(g.Tokens.Access, ".")
	cookie := strings.TrimPrefix(h.Get("Cookie"), "__Host-postern=")
	for _, secret := range []string{
		access[1][:20], access[2][:20], "refresh-", "access-", "sid-of", alice, "alice", "Liddell", "corp.example", "idp.example", "dev", "openid",
		"Firefox", other.SignIn, cookie[:20],
	} {
		if strings.Contains(dump, secret) {
			t.Errorf("redis holds %q", secret)
		}
	}
}

// While the subscription is broken, but Redis answers, nothing is served from memory, and streams are asked about.
func TestWithoutSubscriptionTheStoreIsAsked(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	f := replica(t, redisStore(t, server), nil)
	f.watch()
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	asked := func() bool {
		f.mustLoad(h)
		before := f.store.count("get")
		f.mustLoad(h)
		return f.store.count("get") > before
	}
	if asked() {
		t.Fatal("asked although notices arrive")
	}
	redis := server.Client()
	if err := redis.Do(t.Context(), "ACL", "SETUSER", "default", "resetchannels").Err(); err != nil {
		t.Fatal(err)
	}
	if err := redis.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	wait := func(want bool) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); asked() != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("asked for each request: %v", !want)
			}
		}
	}
	wait(true)
	refused := func() int { // subscriptions, by Redis
		_, rest, _ := strings.Cut(redis.Info(t.Context(), "commandstats").Val(), "cmdstat_subscribe:")
		_, rest, _ = strings.Cut(rest, "rejected_calls=")
		n := 0
		_, _ = fmt.Sscanf(rest, "%d", &n)
		return n
	}
	for end := time.Now().Add(20 * time.Second); refused() < 3; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d refused subscriptions, want some", refused())
		}
	}
	if !asked() {
		t.Error("served from memory although no notices arrive")
	}
	if err := redis.Do(t.Context(), "ACL", "SETUSER", "default", "allchannels").Err(); err != nil {
		t.Fatal(err)
	}
	wait(false)
	if err := f.End(t.Context(), s, session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkLoadRedis(b *testing.B) { loadRedis(b, false) }

func BenchmarkLoadRedisSharedGrant(b *testing.B) { loadRedis(b, true) }

func loadRedis(b *testing.B, shared bool) {
	server := redistest.Start(b, redistest.Options{Forgetful: true})
	m, h := benchManager(b, redisStore(b, server), 0, shared)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Load(context.Background(), h); err != nil {
			b.Fatal(err)
		}
	}
}
