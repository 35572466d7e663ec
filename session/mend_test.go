package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/redistest"
)

// pair is a store with a copy that takes over when it fails. The copy lacks what was written since it was cut off.
type pair struct {
	mu      sync.Mutex
	main    session.Store
	copy    session.Store
	cut     bool
	changed chan struct{} // closed at the failover
}

func newPair() *pair {
	return &pair{main: memstore.New(memstore.Options{}), copy: memstore.New(memstore.Options{}), changed: make(chan struct{})}
}

func (p *pair) cutOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
}

func (p *pair) failOver() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.main, p.cut = p.copy, true
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pair) both() (main, copy session.Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return p.main, memstore.New(memstore.Options{})
	}
	return p.main, p.copy
}

func (p *pair) Get(ctx context.Context, key string) (session.Record, error) {
	m, _ := p.both()
	return m.Get(ctx, key)
}

func (p *pair) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	m, c := p.both()
	c.Create(ctx, key, rec, ttl, index)
	return m.Create(ctx, key, rec, ttl, index)
}

func (p *pair) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	m, c := p.both()
	c.Swap(ctx, key, rec, from)
	return m.Swap(ctx, key, rec, from)
}

func (p *pair) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	m, c := p.both()
	c.Touch(ctx, seen, keys...)
	return m.Touch(ctx, seen, keys...)
}

func (p *pair) End(ctx context.Context, key string, why session.Reason, keep bool, index []session.IndexEntry) (bool, error) {
	m, c := p.both()
	c.End(ctx, key, why, keep, index)
	return m.End(ctx, key, why, keep, index)
}

func (p *pair) Strip(ctx context.Context, key string, rest []byte) (bool, error) {
	m, c := p.both()
	c.Strip(ctx, key, rest)
	return m.Strip(ctx, key, rest)
}

func (p *pair) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	m, c := p.both()
	c.Keep(ctx, key, value, ttl, total)
	return m.Keep(ctx, key, value, ttl, total)
}

func (p *pair) Kept(ctx context.Context, key string) ([]byte, error) {
	m, _ := p.both()
	return m.Kept(ctx, key)
}

func (p *pair) TakeKept(ctx context.Context, key string) error {
	m, c := p.both()
	c.TakeKept(ctx, key)
	return m.TakeKept(ctx, key)
}

func (p *pair) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	m, c := p.both()
	c.Reindex(ctx, add, remove)
	return m.Reindex(ctx, add, remove)
}

func (p *pair) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	m, _ := p.both()
	return m.Index(ctx, name)
}

func (p *pair) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	m, _ := p.both()
	return m.Acquire(ctx, key, owner, ttl)
}

func (p *pair) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	m, _ := p.both()
	return m.Renew(ctx, key, owner, ttl)
}

func (p *pair) Release(ctx context.Context, key, owner string) error {
	m, _ := p.both()
	return m.Release(ctx, key, owner)
}

func (p *pair) Watch(ctx context.Context, changed func(string), gap func(bool)) error {
	for ctx.Err() == nil {
		p.mu.Lock()
		m, over := p.main, p.changed
		p.mu.Unlock()
		sub, cancel := context.WithCancel(ctx)
		stop := make(chan struct{})
		go func() {
			select {
			case <-over:
			case <-stop:
			}
			cancel()
		}()
		m.Watch(sub, changed, gap)
		close(stop)
		cancel()
	}
	return nil
}

func (p *pair) Ping(context.Context) error { return nil }
func (p *pair) Close() error               { return nil }

// A182: after a failover ends and rotations are put back by whoever knows of them: who made them, or who read them before.
func TestA182_FailoverUndoesNoEndAndNoRotation(t *testing.T) {
	for _, shared := range []bool{false, true} {
		for _, survivor := range []string{"the one that wrote them", "one that read them"} {
			t.Run(survivor, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newPair()
					opt := func(o *session.Options) { o.SharedGrant = shared }
					a, b := replica(t, store, opt), replica(t, store, opt)
					stopA, stopB := a.watch(), b.watch()
					defer stopA()
					defer stopB()
					gone := a.grant(10 * time.Minute)
					gone.Subject = "bob"
					ending, hEnded := a.signIn(gone, session.CreateOptions{})
					s, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
					p := a.provider(10 * time.Minute)
					b.mustLoad(h)
					b.mustLoad(hEnded)
					time.Sleep(time.Minute)

					store.cutOff()
					if err := a.End(t.Context(), ending, session.ReasonSignedOut); err != nil {
						t.Fatal(err)
					}
					if _, err := a.Refresh(t.Context(), s, p.refresh); err != nil {
						t.Fatal(err)
					}
					if survivor == "one that read them" {
						synctest.Wait()
						b.load(hEnded)
						b.mustLoad(h)
						stopA()
					} else {
						stopB()
					}
					_, lost := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})

					store.failOver()
					time.Sleep(5 * time.Second)
					if survivor == "one that read them" {
						b.mustLoad(h) // which is what shows that the store is behind
						time.Sleep(5 * time.Second)
					}
					c := replica(t, store, opt)
					_, err := c.load(hEnded)
					ended(t, err, session.ReasonSignedOut)
					if got := c.mustLoad(h); got.Tokens.Refresh != "refresh-1" && !shared {
						t.Errorf("the store has %s again", got.Tokens.Refresh)
					}
					if !shared { // whose last sign-in brought other tokens, and is written back too
						_, err = c.load(lost)
						ended(t, err, session.ReasonStoreMiss)
					}
					if n := len(p.calls()); n != 1 {
						t.Errorf("sent %v", p.calls())
					}
					time.Sleep(10 * time.Minute)
					if !shared {
						if got, err := c.Fresh(t.Context(), c.mustLoad(h), p.refresh); err != nil || got.Tokens.Access != "access-2" {
							t.Errorf("the next refresh: %v", err)
						}
						if got := b.mustLoad(h); got.Tokens.Access != "access-2" {
							t.Errorf("the other replica has %s", got.Tokens.Access)
						}
					}
				})
			})
		}
	}
}

// Also before it was put back, what a process knows to have ended is not let in by it, though the store says that it lives.
func TestA182_LostEndIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newPair()
		f := replica(t, store, func(o *session.Options) { o.Cache.MaxSize, o.MaxPerUser = 64<<10, 0 })
		s, h := f.signIn(f.grant(0), session.CreateOptions{})
		store.cutOff()
		f.End(t.Context(), s, session.ReasonAdmin)
		store.failOver()
		for range 300 { // so that the cache forgets it
			f.signIn(f.grant(0), session.CreateOptions{})
		}
		_, err := f.load(h)
		ended(t, err, session.ReasonAdmin)
	})
}

// What was lost is written back also where another process has meanwhile moved what was left to another key, as the same version.
func TestWriteBackOverAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newPair()
		r := ring(t)
		opt := func(o *session.Options) { o.Ring = r }
		a, b := replica(t, store, opt), replica(t, store, opt)
		s, h := a.signIn(a.grant(20*time.Minute), session.CreateOptions{})
		p := a.provider(20 * time.Minute)
		time.Sleep(6 * time.Minute)
		replace(t, r, newKey, ringKey)
		store.cutOff()
		if _, err := a.Refresh(t.Context(), s, p.refresh); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		store.failOver()
		if b.mustLoad(h); b.Reseal(h) == nil {
			t.Fatal("no cookie under the new key")
		}
		time.Sleep(time.Second)
		defer a.watch()()
		time.Sleep(5 * time.Second)
		for name, r := range map[string]*fixture{"a": a, "b": b, "another": replica(t, store, opt)} {
			if got := r.mustLoad(h); got.Tokens.Refresh != "refresh-1" {
				t.Errorf("%s has %s", name, got.Tokens.Refresh)
			}
		}
		time.Sleep(19 * time.Minute)
		if got, err := b.Refresh(t.Context(), b.mustLoad(h), p.refresh); err != nil || got.Tokens.Access != "access-2" {
			t.Errorf("the next refresh: %v", err)
		}
	})
}

// The old token was exchanged again after the failover, and the provider took it: that is the newer one, and is not written over.
func TestWriteBackYieldsToALaterRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newPair()
		a, b := replica(t, store, nil), replica(t, store, nil)
		s, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
		p := a.provider(10 * time.Minute)
		b.mustLoad(h)
		store.cutOff()
		for range 2 {
			var err error
			if s, err = a.Refresh(t.Context(), s, p.refresh); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		store.failOver()
		time.Sleep(time.Second)
		_, err := b.Refresh(t.Context(), b.mustLoad(h), func(_ context.Context, s *session.Session) (session.Grant, error) {
			g := s.Grant
			g.Tokens = session.Tokens{Access: "access-b", Refresh: "refresh-b", Obtained: time.Now(), Expiry: time.Now().Add(10 * time.Minute)}
			return g, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer a.watch()()
		time.Sleep(5 * time.Second)
		for name, r := range map[string]*fixture{"a": a, "b": b, "another": replica(t, store, nil)} {
			if got := r.mustLoad(h); got.Tokens.Refresh != "refresh-b" {
				t.Errorf("%s has %s", name, got.Tokens.Refresh)
			}
		}
	})
}

// Nothing is put back that the store does not know at all, and a store that is down is asked again.
func TestMendingWaitsForTheStoreAndCreatesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newPair()
		f := replica(t, store, nil)
		stop := f.watch()
		kept, _ := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		store.cutOff()
		p := f.provider(time.Hour)
		lost, _ := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		if _, err := f.Refresh(t.Context(), lost, p.refresh); err != nil {
			t.Fatal(err)
		}
		gone, _ := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		f.End(t.Context(), gone, session.ReasonAdmin)
		f.End(t.Context(), kept, session.ReasonAdmin)
		f.store.fail("all")
		store.failOver()
		time.Sleep(30 * time.Second)
		f.store.fail()
		time.Sleep(5 * time.Second)
		if rec, err := store.Get(t.Context(), kept.Key()); err != nil || rec.Ended != session.ReasonAdmin {
			t.Errorf("the end is lost: %v %v", rec.Ended, err)
		}
		for _, s := range []*session.Session{lost, gone} {
			if rec, err := store.Get(t.Context(), s.Key()); !errors.Is(err, session.ErrNone) {
				t.Errorf("a lost session is back: %+v", rec)
			}
		}
		stop()
	})
}

// A failover is no stampede: what is remembered is bounded in number and time, and looked at slowly.
func TestMendingIsNoStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newPair()
		f := replica(t, store, func(o *session.Options) { o.MaxPerUser = 0 })
		defer f.watch()()
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		time.Sleep(time.Second)
		for range 20_000 {
			f.EndKey(t.Context(), session.ReasonAdmin)
		}
		if ends, _ := f.Remembered(); ends != 1<<14 {
			t.Errorf("%d ends are remembered", ends)
		}
		f.End(t.Context(), s, session.ReasonAdmin)
		var under, most atomic.Int32
		f.store.set(func(op string) error {
			if op == "get" {
				most.Store(max(most.Load(), under.Add(1)))
				time.Sleep(20 * time.Millisecond)
				under.Add(-1)
			}
			return nil
		}, nil)
		before := f.store.count("get")
		store.failOver()
		time.Sleep(time.Second)
		if n := f.store.count("get") - before; n < 100 || n > 1000 || most.Load() > 8 {
			t.Errorf("%d looks in the first second, %d at once", n, most.Load())
		}
		time.Sleep(5 * time.Minute)
		if n := f.store.count("get") - before; n != 1<<14 {
			t.Errorf("%d looks in all", n)
		}
		if ends, _ := f.Remembered(); ends != 0 {
			t.Errorf("%d ends are remembered for longer than that", ends)
		}
	})
}

// A182 on a real server: its records are those of before, the connections break, and it starts again.
func TestA182_RedisThatWentBack(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	f := replica(t, redisStore(t, server), nil)
	f.watch()
	s, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	gone, hGone := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	p := f.provider(time.Hour)
	keys := []string{"test:s:{" + s.Key() + "}", "test:s:{" + gone.Key() + "}"}
	var old []string
	for i, key := range keys {
		value, err := server.Client().Get(t.Context(), key).Result()
		if err != nil {
			all, _ := server.Client().Keys(t.Context(), "*").Result()
			for _, k := range all {
				if strings.Contains(k, []string{s.Key(), gone.Key()}[i]) && server.Client().Type(t.Context(), k).Val() == "string" {
					keys[i] = k
				}
			}
			value = server.Client().Get(t.Context(), keys[i]).Val()
		}
		if value == "" {
			t.Fatal("the session is not where it should be")
		}
		old = append(old, value)
	}
	if _, err := f.Refresh(t.Context(), s, p.refresh); err != nil {
		t.Fatal(err)
	}
	if err := f.End(t.Context(), gone, session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		server.Client().Set(t.Context(), key, old[i], time.Hour)
	}
	server.Restart()
	fresh := replica(t, redisStore(t, server), nil)
	deadline := time.Now().Add(30 * time.Second)
	for {
		got, err := fresh.load(h)
		_, errGone := fresh.load(hGone)
		var e *session.EndedError
		if err == nil && got.Tokens.Refresh == "refresh-1" && errors.As(errGone, &e) && e.Reason == session.ReasonSignedOut {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not put back: %v, %v", err, errGone)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := len(p.calls()); n != 1 {
		t.Errorf("sent %v", p.calls())
	}
}

// What the store still has is not written again.
func TestMendingWritesOnlyWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		defer f.watch()()
		s, _ := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
		if _, err := f.Refresh(t.Context(), s, f.provider(10*time.Minute).refresh); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		reads, writes := f.store.count("get"), f.store.count("swap")
		f.Gap()
		time.Sleep(5 * time.Second)
		if got := f.store.count("get") - reads; got != 1 {
			t.Errorf("%d reads", got)
		}
		if got := f.store.count("swap") - writes; got != 0 {
			t.Errorf("%d writes", got)
		}
	})
}
