package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// slack is what a busy machine may add to a time limit. It is well below patient, which is what is waited for when a limit is not kept.
const slack = 4 * time.Second

// fill opens n connections of s and leaves them in its pool.
func fill(t testing.TB, server *redistest.Server, s session.Store, n int) {
	t.Helper()
	server.Pause() // so that no command is done before all have begun
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	server.Resume()
	wg.Wait()
}

// operations calls every method once.
func operations(ctx context.Context, s session.Store) map[string]func() error {
	return map[string]func() error{
		"get": func() error { _, err := s.Get(ctx, "k"); return err },
		"create": func() error {
			_, err := s.Create(ctx, fmt.Sprint(time.Now().UnixNano()), record("x"), time.Hour, []session.IndexEntry{{Name: "user", Handle: "h", Expires: time.Now().Add(time.Hour)}})
			return err
		},
		"swap":    func() error { return s.Swap(ctx, "k", record("x"), 99) },
		"touch":   func() error { return s.Touch(ctx, time.Now(), "k") },
		"end":     func() error { _, err := s.End(ctx, "gone", session.ReasonAdmin, false, nil); return err },
		"index":   func() error { _, err := s.Index(ctx, "user"); return err },
		"acquire": func() error { _, err := s.Acquire(ctx, "k", "a", time.Hour); return err },
		"renew":   func() error { _, err := s.Renew(ctx, "k", "a", time.Hour); return err },
		"release": func() error { return s.Release(ctx, "k", "a") },
		"ping":    func() error { return s.Ping(ctx) },
	}
}

// A restart of Redis leaves a pool of dead connections and no scripts. No request may notice: neither a read nor a write.
func TestRestartWithPooledConnections(t *testing.T) {
	for name, o := range map[string]redistest.Options{"plain": {}, "tls": {TLS: true, Password: "p"}} {
		for end, stop := range map[string]func(*redistest.Server){"stop": (*redistest.Server).Stop, "kill": (*redistest.Server).Kill} {
			t.Run(name+" "+end, func(t *testing.T) {
				server := redistest.Start(t, o)
				s := newStore(t, server, redisstore.Options{PoolSize: 12})
				mustCreate(t, s, "k")
				for what := range operations(t.Context(), s) {
					fill(t, server, s, 12)
					stop(server)
					server.Start()
					if err := operations(t.Context(), s)[what](); err != nil && !errors.Is(err, session.ErrConflict) {
						t.Errorf("%s after a restart: %v", what, err)
					}
				}
				if rec, err := s.Get(t.Context(), "k"); err != nil || string(rec.Sealed) != "sealed" {
					t.Errorf("get: %v, %v", rec, err)
				}
			})
		}
	}
}

// SCRIPT FLUSH makes EVALSHA fail, in a pipeline too, where one script may be known and the next not.
func TestScriptsAreSentAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{})
	flush := func() {
		t.Helper()
		if err := server.Client().ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	expires := time.Now().Add(time.Hour)
	entry := func(handle string) []session.IndexEntry {
		return []session.IndexEntry{{Name: "user", Handle: handle, Expires: expires, Max: 2}, {Name: "sid", Handle: handle, Expires: expires}}
	}
	for i, known := range []func(){
		func() {},
		func() { s.Touch(t.Context(), time.Now(), "none") },
		func() { s.Create(t.Context(), fmt.Sprint("x", expires), record("x"), time.Hour, nil) }, // create is known, the index's is not
		func() { s.End(t.Context(), "none", session.ReasonAdmin, false, nil) },                  // end is known, the index's is not
	} {
		key := fmt.Sprint("k", i)
		flush()
		known()
		over, err := s.Create(t.Context(), key, record("sealed"), time.Hour, entry(key))
		if err != nil || (len(over) > 0) != (i >= 2) {
			t.Errorf("%s: create: %v too many, %v", key, over, err)
		}
		for _, name := range []string{"user", "sid"} {
			if entries, err := s.Index(t.Context(), name); err != nil || len(entries) == 0 || entries[len(entries)-1].Handle != key {
				t.Errorf("%s: index %s: %v, %v", key, name, entries, err)
			}
		}
		for _, e := range over {
			if _, err := s.End(t.Context(), e.Handle, session.ReasonLimit, false, entry(e.Handle)); err != nil {
				t.Error(err)
			}
		}
	}
	mustCreate(t, s, "k", entry("k")...)
	for _, f := range []func() (bool, error){
		func() (bool, error) { return true, s.Swap(t.Context(), "k", record("new"), 1) },
		func() (bool, error) { return true, s.Touch(t.Context(), time.Now(), "k") },
		func() (bool, error) { return s.Acquire(t.Context(), "k", "a", time.Hour) },
		func() (bool, error) { return s.Renew(t.Context(), "k", "a", time.Hour) },
		func() (bool, error) { return true, s.Release(t.Context(), "k", "a") },
		func() (bool, error) {
			flush()
			s.End(t.Context(), "none", session.ReasonAdmin, false, nil)
			return s.End(t.Context(), "k", session.ReasonAdmin, false, entry("k"))
		},
		func() (bool, error) {
			ended, err := s.End(t.Context(), "k", session.ReasonAdmin, false, entry("k"))
			return !ended, err
		},
	} {
		flush()
		if ok, err := f(); !ok || err != nil {
			t.Errorf("after SCRIPT FLUSH: %v, %v", ok, err)
		}
	}
}

// A stopped Redis is "did not answer", soon.
func TestStoppedIsUnavailable(t *testing.T) {
	const timeout = 250 * time.Millisecond
	for name, o := range map[string]redistest.Options{"port": {}, "unix": {Unix: true}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, o)
			s := newStore(t, server, redisstore.Options{Timeout: timeout, PoolSize: 3})
			fill(t, server, newStore(t, server, redisstore.Options{}), 1)
			server.Stop()
			for range 3 { // past the failures after which the pool stops dialing
				wantUnavailable(t, s, 2*timeout)
			}
			server.Start()
			// A pool that has seen many failures looks once a second whether there is a server again.
			deadline := time.Now().Add(patient)
			for s.Ping(t.Context()) != nil {
				if time.Now().After(deadline) {
					t.Fatal("it does not recover")
				}
			}
		})
	}
}

// wantUnavailable wants every operation to fail within d, and to say no more than that the store did not answer. A machine that is
// busy with other tests may stand still for a second, so an operation that was late is tried again: one that waits for what it
// should not is late each time.
func wantUnavailable(t *testing.T, s session.Store, d time.Duration) {
	t.Helper()
	for what, f := range operations(t.Context(), s) {
		for try := 1; ; try++ {
			start := time.Now()
			err := f()
			took := time.Since(start)
			if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrNone) || errors.Is(err, session.ErrConflict) {
				t.Errorf("%s: %v, want unavailable alone", what, err)
			}
			if took <= d+d/2 {
				break
			}
			if try == 5 {
				t.Errorf("%s took %v, want at most %v", what, took, d)
				break
			}
		}
	}
}

// A frozen Redis keeps its connections and answers nothing. Each command still ends in time, also when all connections are taken.
func TestFrozenIsUnavailable(t *testing.T) {
	const timeout = 100 * time.Millisecond
	for name, o := range map[string]redistest.Options{"port": {}, "tls": {TLS: true}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, o)
			s := newStore(t, server, redisstore.Options{Timeout: timeout, PoolSize: 2})
			eventually(t, "it answers", func() bool { return s.Ping(t.Context()) == nil })
			server.Pause()
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { wantUnavailable(t, s, 2*timeout) })
			}
			wg.Wait()
			server.Resume()
			eventually(t, "it answers again", func() bool { return s.Ping(t.Context()) == nil })
		})
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patient); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patient, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// An address that swallows packets, and one that accepts and says nothing, must not hold a request either.
func TestSilentServerIsUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // never accepts: the kernel completes the handshake, nobody answers
	for _, scheme := range []string{"redis://", "rediss://"} {
		s := newStore(t, nil, redisstore.Options{URL: scheme + l.Addr().String(), Timeout: 100 * time.Millisecond, PoolSize: 2})
		wantUnavailable(t, s, 200*time.Millisecond)
	}
}

// A deadline of the caller's that is sooner counts.
func TestCallersDeadline(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{})
	mustCreate(t, s, "k")
	server.Pause()
	defer server.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Get(ctx, "k")
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("get: %v, want unavailable", err)
	}
	if took := time.Since(start); took > 50*time.Millisecond+slack {
		t.Errorf("get took %v", took)
	}
}

// More requests than connections wait for one; none of them fails.
func TestPoolIsBounded(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{PoolSize: 3})
	mustCreate(t, s, "k")
	before := received(t, server)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 40 {
				if _, err := s.Get(t.Context(), "k"); err != nil {
					t.Error(err)
				}
				if err := s.Touch(t.Context(), time.Now(), "k"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := received(t, server) - before; got > 3 {
		t.Errorf("%d connections, want at most 3", got)
	}
}

// The server did what it was asked, and the answer was lost with the connection. Asked again, each operation must give the answer
// that was lost: a conflict with one's own write, or an end that nobody did, would be wrong.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Address())
	s := newStore(t, server, redisstore.Options{URL: "redis://" + proxy.Address()})
	index := []session.IndexEntry{{Name: "user", Handle: "k", Expires: time.Now().Add(time.Hour), Max: 1}}
	mustCreate(t, s, "older", session.IndexEntry{Name: "user", Handle: "older", Expires: time.Now().Add(time.Minute)})
	for range 2 { // the first round loads the scripts
		server.Client().Del(t.Context(), "s:{k}")
		for _, step := range []struct {
			what string
			do   func() (bool, error)
		}{
			{"create", func() (bool, error) {
				over, err := s.Create(t.Context(), "k", record("sealed"), time.Hour, index)
				return len(over) == 1 && over[0].Handle == "older", err
			}},
			{"swap", func() (bool, error) { return true, s.Swap(t.Context(), "k", record("new"), 1) }},
			{"touch", func() (bool, error) { return true, s.Touch(t.Context(), time.Now(), "k") }},
			{"acquire", func() (bool, error) { return s.Acquire(t.Context(), "k", "a", time.Hour) }},
			{"renew", func() (bool, error) { return s.Renew(t.Context(), "k", "a", time.Hour) }},
			{"release", func() (bool, error) { return true, s.Release(t.Context(), "k", "a") }},
			{"get", func() (bool, error) {
				rec, err := s.Get(t.Context(), "k")
				return rec.Version == 2 && string(rec.Sealed) == "new", err
			}},
			{"end", func() (bool, error) { return s.End(t.Context(), "k", session.ReasonSignedOut, true, index) }},
		} {
			if err := s.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			proxy.Swallow(1)
			ok, err := step.do()
			if !ok || err != nil {
				t.Errorf("%s whose answer was lost: %v, %v", step.what, ok, err)
			}
			if proxy.Swallowing() > 0 {
				t.Errorf("%s: nothing was lost", step.what)
			}
		}
	}
	if ended, err := s.End(t.Context(), "k", session.ReasonSignedOut, true, nil); ended || err != nil {
		t.Errorf("end of what has ended: %v, %v", ended, err)
	}
}

// One repetition, not a storm of them.
func TestRetriesOnce(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Address())
	s := newStore(t, server, redisstore.Options{URL: "redis://" + proxy.Address()})
	mustCreate(t, s, "k")
	proxy.Swallow(1000)
	before := proxy.Accepted()
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("get: %v, want unavailable", err)
	}
	if got := proxy.Accepted() - before; got != 1 {
		t.Errorf("%d new connections, want 1", got)
	}
}

// When one connection broke, those that rest in the pool are as old and as dead: a firewall that forgot them all must cost one
// repetition, not one failing request for each.
func TestBrokenConnectionEmptiesPool(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	var stale sync.Map
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var forgetful atomic.Bool
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			stale.Store(in, !forgetful.Load())
			go func() {
				defer in.Close()
				out, err := net.Dial("tcp", server.Address())
				if err != nil {
					return
				}
				defer out.Close()
				go func() {
					buf := make([]byte, 4096)
					for {
						n, err := out.Read(buf)
						if err != nil {
							return
						}
						in.Write(buf[:n])
					}
				}()
				buf := make([]byte, 4096)
				for {
					n, err := in.Read(buf)
					if err != nil {
						return
					}
					if old, _ := stale.Load(in); old.(bool) && forgetful.Load() {
						return // cut only when it is used again: no health check can see it before
					}
					out.Write(buf[:n])
				}
			}()
		}
	}()
	s := newStore(t, server, redisstore.Options{URL: "redis://" + l.Addr().String(), PoolSize: 8})
	mustCreate(t, s, "k")
	fill(t, server, s, 8)
	forgetful.Store(true)
	for i := range 12 {
		if _, err := s.Get(t.Context(), "k"); err != nil {
			t.Errorf("get %d: %v", i, err)
		}
	}
}

// Every interruption is a gap, and notices come again after it, whatever ended the subscription.
func TestWatchReportsEveryGap(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{})
	keys, gaps := watch(t, s)
	<-gaps
	for name, interrupt := range map[string]func(){
		"connection killed": func() { server.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub") },
		"restart":           server.Restart,
		"kill":              func() { server.Kill(); server.Start() },
	} {
		interrupt()
		<-gaps // it broke
		<-gaps // it is subscribed again
		if _, err := s.End(t.Context(), name, session.ReasonAdmin, false, nil); err != nil {
			t.Fatal(err)
		}
		if got := <-keys; got != name || len(gaps) > 0 {
			t.Errorf("after %s: notice of %q, %d more gaps", name, got, len(gaps))
		}
	}
}

// A subscription whose server says nothing any more is dead, and that is noticed by itself.
func TestWatchNoticesFrozenServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := newStore(t, server, redisstore.Options{})
	_, gaps := watch(t, s)
	<-gaps
	server.Pause()
	start := time.Now()
	<-gaps
	if took := time.Since(start); took > 4*time.Second+slack {
		t.Errorf("noticed after %v", took)
	}
	server.Resume()
	<-gaps
}

// The gap is known when the connection breaks, not when the next one has been tried.
func TestWatchReportsGapAtOnce(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Address())
	s := newStore(t, server, redisstore.Options{URL: "redis://" + proxy.Address()})
	_, gaps := watch(t, s)
	<-gaps
	server.Pause()
	defer server.Resume()
	start := time.Now()
	proxy.Cut()
	<-gaps
	if took := time.Since(start); took > slack {
		t.Errorf("told after %v", took)
	}
}

// A quiet subscription is a healthy one: no gap without an interruption.
func TestWatchIsSteady(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Unix: true})
	s := newStore(t, server, redisstore.Options{})
	_, gaps := watch(t, s)
	<-gaps
	select {
	case <-gaps:
		t.Error("a gap without an interruption")
	case <-time.After(3500 * time.Millisecond): // longer than a subscription lives without pings
	}
}

// It begins when there is a server, not only if there was one.
func TestWatchWaitsForServer(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	server.Stop()
	s := newStore(t, server, redisstore.Options{})
	_, gaps := watch(t, s)
	server.Start()
	<-gaps
	if err := s.Ping(t.Context()); err != nil && !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}
