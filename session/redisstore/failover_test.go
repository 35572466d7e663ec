package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// load lets workers sign in, read, refresh and sign out until stop is called, which returns how many sessions went their whole way. No
// other error than ErrUnavailable may come, except where lossy says that a failover may lose what nobody confirmed.
func load(t *testing.T, s session.Store, workers int, lossy bool) (stop func() (whole, unavailable int64)) {
	t.Helper()
	var whole, unavailable atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				err := life(t, s, fmt.Sprint("load", w, "-", i))
				switch {
				case err == nil:
					whole.Add(1)
				case errors.Is(err, session.ErrUnavailable):
					unavailable.Add(1)
					time.Sleep(5 * time.Millisecond)
				case lossy && (errors.Is(err, session.ErrNone) || errors.Is(err, session.ErrConflict)):
				default:
					t.Errorf("worker %d, session %d: %v", w, i, err)
				}
			}
		})
	}
	end := sync.OnceFunc(func() { // before the store is closed, whatever becomes of the test
		close(done)
		wg.Wait()
	})
	t.Cleanup(end)
	return func() (int64, int64) {
		end()
		return whole.Load(), unavailable.Load()
	}
}

// life is a session from sign-in to sign-out.
func life(t *testing.T, s session.Store, key string) error {
	ctx := t.Context()
	index := []session.IndexEntry{
		{Name: "user-" + key, Handle: key, Expires: time.Now().Add(time.Hour)},
		{Name: "sid-" + key, Handle: key, Expires: time.Now().Add(time.Hour)},
	}
	if _, err := s.Create(ctx, key, record("sealed"), time.Hour, index); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if ok, err := s.Acquire(ctx, key, "a", time.Minute); err != nil || !ok {
		return fmt.Errorf("acquire: %v, %w", ok, err)
	}
	if err := s.Swap(ctx, key, record("new"), 1); err != nil {
		return fmt.Errorf("swap: %w", err)
	}
	if err := s.Release(ctx, key, "a"); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	rec, err := s.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if rec.Version != 2 || string(rec.Sealed) != "new" || rec.Ended != "" {
		return fmt.Errorf("get: %+v: %w", rec, session.ErrConflict)
	}
	if entries, err := s.Index(ctx, "sid-"+key); err != nil {
		return fmt.Errorf("index: %w", err)
	} else if len(entries) != 1 {
		return fmt.Errorf("index: %d entries: %w", len(entries), session.ErrConflict)
	}
	if _, err := s.End(ctx, key, session.ReasonSignedOut, false, index); err != nil {
		return fmt.Errorf("end: %w", err)
	}
	if rec, err = s.Get(ctx, key); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	if rec.Ended != session.ReasonSignedOut {
		return fmt.Errorf("get after the end: %+v: %w", rec, session.ErrConflict)
	}
	return nil
}

// The master dies, and another takes over: the store follows by itself, what was confirmed is there, and nobody heard another error than
// that the store did not answer. Then an operator moves it back, and the old master is a replica that answers and must not be read.
func TestSentinelFailoverUnderLoad(t *testing.T) {
	t.Parallel()
	g := redistest.StartSentinel(t, redistest.SentinelOptions{Replicas: 2})
	o := onSentinel(g)
	o.Timeout = time.Second
	o.Wait = redisstore.Wait{Replicas: 1, Timeout: patient}
	s := newStore(t, nil, o)
	keys, gaps := watch(t, s)
	<-gaps
	mustCreate(t, s, "before", session.IndexEntry{Name: "user", Handle: "before", Expires: time.Now().Add(time.Hour)})
	stop := load(t, s, 8, true)

	old := g.Master()
	old.Kill()
	master := g.AwaitFailover(old)
	eventually(t, "writes reach the new master", func() bool {
		_, err := s.End(t.Context(), "before", session.ReasonAdmin, false, nil)
		return err == nil
	})
	if rec, err := s.Get(t.Context(), "before"); err != nil || rec.Ended != session.ReasonAdmin {
		t.Errorf("a confirmed session after the failover: %+v, %v", rec, err)
	}
	await(t, "gap", gaps)

	old.Start()
	eventually(t, "the old master is a replica", func() bool {
		role, ok := old.Client().Do(t.Context(), "ROLE").Val().([]any) // not while it starts
		return ok && role[0] == "slave"
	})
	for g.Failover() == master {
	}
	eventually(t, "writes work again", func() bool {
		_, err := s.End(t.Context(), fmt.Sprint(time.Now()), session.ReasonAdmin, false, nil)
		return err == nil
	})
	// The subscription moved along: notices arrive.
	eventually(t, "a notice arrives", func() bool {
		_, _ = s.End(t.Context(), "notice", session.ReasonAdmin, false, nil)
		for {
			select {
			case key := <-keys:
				if key == "notice" {
					return true
				}
			default:
				return false
			}
		}
	})
	whole, unavailable := stop()
	t.Logf("%d sessions whole, %d operations unavailable", whole, unavailable)
	if whole == 0 {
		t.Error("no session went its whole way")
	}
}

func await(t testing.TB, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patient):
		t.Fatalf("no %s within %v", what, patient)
	}
}

// A master that was cut off still takes itself for the master, and its connections stay open. It must not be asked once the sentinels
// have another.
func TestOldMasterIsLeftAlone(t *testing.T) {
	t.Parallel()
	g := redistest.StartSentinel(t, redistest.SentinelOptions{})
	o := onSentinel(g)
	o.Timeout = time.Second
	s := newStore(t, nil, o)
	_, gaps := watch(t, s)
	<-gaps
	mustCreate(t, s, "k")
	eventually(t, "every server has the session", func() bool { // else the failover may lose it
		return !slices.ContainsFunc(g.Servers, func(r *redistest.Server) bool { return r.Client().Exists(t.Context(), "s:{k}").Val() == 0 })
	})
	old := g.Master()
	old.Pause()
	master := g.AwaitFailover(old)
	old.Resume() // the sentinels have not told it yet
	for len(gaps) > 0 {
		<-gaps
	}
	// For about a second it may be asked by who does not know yet.
	eventually(t, "the end reaches the new master", func() bool {
		_, _ = s.End(t.Context(), "k", session.ReasonAdmin, false, nil)
		v := master.Client().Get(t.Context(), "s:{k}").Val()
		return len(v) > 2 && v[1] != 0
	})
	for range 50 {
		if rec, err := s.Get(t.Context(), "k"); err != nil || rec.Ended == "" {
			t.Errorf("get: %+v, %v: read from the past", rec, err)
		}
	}
}

// A name, or a balancer, that now leads to another server: the connections to the one that became a replica are replaced at its first
// refusal, and the write is done.
func TestReadOnlyIsFollowedByReconnecting(t *testing.T) {
	old, master := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	proxy := redistest.NewProxy(t, old.Address())
	s := newStore(t, old, redisstore.Options{URL: "redis://" + proxy.Address(), PoolSize: 4})
	fill(t, old, s, 4)
	mustCreate(t, s, "k") // loads the script
	host, port, _ := strings.Cut(master.Address(), ":")
	if err := old.Client().Do(t.Context(), "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	proxy.Redirect(master.Address())
	for i := range 4 {
		mustCreate(t, s, fmt.Sprint("new", i))
	}
	if n := master.Client().DBSize(t.Context()).Val(); n != 4 {
		t.Errorf("%d of 4 sessions are on the new master", n)
	}
}

// A server that sentinels still name, but that is a replica by now, answers reads, from the past. It is refused at the door.
func TestReplicaIsNeverRead(t *testing.T) {
	g := redistest.StartSentinel(t, redistest.SentinelOptions{DownAfter: time.Minute})
	s := newStore(t, nil, onSentinel(g))
	mustCreate(t, s, "k")
	host, port, _ := strings.Cut(redistest.Start(t, redistest.Options{}).Address(), ":")
	master := g.Servers[0]
	for _, command := range [][]any{{"REPLICAOF", host, port}, {"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}} {
		if err := master.Client().Do(t.Context(), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, session.ErrUnavailable) || !strings.Contains(err.Error(), "replica") {
		t.Errorf("get from a replica: %v, want unavailable", err)
	}
}
