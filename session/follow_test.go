package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
)

// stream is an open stream as a test has it: it notes what it is told, and when.
type stream struct {
	*session.Following
	start time.Time

	mu       sync.Mutex
	sessions []*session.Session
	over     session.Reason
	after    time.Duration // from the start until it was over
	calls    int
}

func (st *stream) told(s *session.Session, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.calls++
	var e *session.EndedError
	switch {
	case st.over != "":
		panic("told after the end")
	case errors.As(err, &e) && s == nil:
		st.over, st.after = e.Reason, time.Since(st.start)
	case err == nil && s != nil:
		st.sessions = append(st.sessions, s)
	default:
		panic(fmt.Sprintf("told %v, %v", s, err))
	}
}

// end is why it is over, "" while it is open, and when that was told.
func (st *stream) end() (session.Reason, time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.over, st.after
}

// want checks whether and why it is over by now.
func (st *stream) want(t *testing.T, why session.Reason) {
	t.Helper()
	synctest.Wait()
	if got, at := st.end(); got != why {
		t.Fatalf("%v after its start the stream is over by %q (told after %v), want %q", time.Since(st.start), got, at, why)
	}
}

func (st *stream) tokens() (access []string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, s := range st.sessions {
		access = append(access, s.Tokens.Access)
	}
	return access
}

// open opens a stream on s. It is closed with the test.
func (f *fixture) open(s *session.Session, refresh session.RefreshFunc) *stream {
	st := &stream{start: time.Now()}
	st.Following = f.Follow(s, refresh, st.told)
	f.t.Cleanup(st.Close)
	return st
}

// inBubble runs a test with two replicas that hear each other.
func inBubble(t *testing.T, change func(*session.Options), test func(t *testing.T, a, b *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := replica(t, store, change), replica(t, store, change)
		a.watch()
		b.watch()
		time.Sleep(time.Minute) // whatever the subscription began is over
		test(t, a, b)
	})
}

// A131: a stream is told at once that its session is over, whoever ended it, and on which replica.
func TestA131_EndReachesStreamsOfEveryReplicaAtOnce(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, h := a.signIn(a.grant(0), session.CreateOptions{})
		other, _ := a.signIn(a.grant(0), session.CreateOptions{})
		here, there, again, stays := a.open(s, nil), b.open(b.mustLoad(h), nil), b.open(b.mustLoad(h), nil), b.open(other, nil)
		here.want(t, "")
		time.Sleep(time.Minute)
		if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		for _, st := range []*stream{here, there, again} {
			st.want(t, session.ReasonSignedOut)
			if st.after != time.Minute {
				t.Errorf("told %v after the end", st.after-time.Minute)
			}
		}
		stays.want(t, "")
		if n, streams := b.Followed(); n != 1 || streams != 1 {
			t.Errorf("%d sessions and %d streams are still followed, want one", n, streams)
		}
	})
}

// The session may end between the gate and the registration of the stream.
func TestA131_StreamOfASessionThatHasJustEnded(t *testing.T) {
	for _, notices := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := memstore.New(memstore.Options{})
			a, b := replica(t, store, nil), replica(t, store, nil)
			if notices {
				b.watch()
			}
			s, h := a.signIn(a.grant(0), session.CreateOptions{})
			loaded := b.mustLoad(h)
			if err := a.End(t.Context(), s, session.ReasonAdmin); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			b.open(loaded, nil).want(t, session.ReasonAdmin)
		})
	}
}

// A131: notices that were lost, and no notices at all, leave the stated bound of 30 s.
func TestA131_GapIsMadeUpForWithin30Seconds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		const n = 300
		var streams []*stream
		var sessions []*session.Session
		for i := range n {
			g := a.grant(0)
			g.Subject = fmt.Sprint("user-", i)
			s, _ := a.signIn(g, session.CreateOptions{})
			sessions, streams = append(sessions, s), append(streams, b.open(s, nil))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		b.store.deaf.Store(true)
		for _, s := range sessions {
			if err := a.End(t.Context(), s, session.ReasonAdmin); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		streams[0].want(t, "") // so the notices are what told it in other tests
		reads := b.store.count("get")
		start := time.Now()
		b.Gap()
		for second := 1; second <= 30; second++ {
			time.Sleep(time.Second)
			synctest.Wait()
			if got, want := b.store.count("get")-reads, second*n/30; got < want-1 || got > want+1 {
				t.Fatalf("%d reads after %d s, want %d", got, second, want)
			}
		}
		for _, st := range streams {
			st.want(t, session.ReasonAdmin)
			if st.start.Add(st.after).Sub(start) > 30*time.Second {
				t.Error("told too late")
			}
		}
	})
}

func TestA131_WithoutAnyNoticesStreamsAreReadEvery30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		st := f.open(s, nil)
		time.Sleep(5 * time.Minute)
		st.want(t, "")
		if _, err := f.store.Store.End(t.Context(), s.Key(), session.ReasonAdmin, false, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		st.want(t, session.ReasonAdmin)
	})
}

// A133: a stream ends with its session's time; that nobody uses it is told by the store, which knows of other replicas.
func TestA133_StreamEndsAtIdleAndLifetime(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, h := a.signIn(a.grant(0), session.CreateOptions{})
		st := a.open(s, nil)
		time.Sleep(59 * time.Minute)
		b.Touch(b.mustLoad(h)) // on another replica, without a notice
		time.Sleep(59 * time.Minute)
		st.want(t, "")
		time.Sleep(time.Minute)
		st.want(t, session.ReasonIdle)
		if st.after != 119*time.Minute {
			t.Errorf("told after %v", st.after)
		}
	})
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, h := a.signIn(a.grant(0), session.CreateOptions{})
		st := a.open(s, nil)
		for range 12*2 - 1 {
			time.Sleep(30 * time.Minute)
			b.Touch(b.mustLoad(h))
			st.want(t, "")
		}
		time.Sleep(30 * time.Minute)
		st.want(t, session.ReasonLifetime)
		if st.after != 12*time.Hour {
			t.Errorf("told after %v", st.after)
		}
	})
}

// Activity in a stream keeps its session, everywhere, and costs the store no more than requests do.
func TestStreamActivityKeepsTheSession(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, _ := a.signIn(a.grant(0), session.CreateOptions{})
		used, unused := a.open(s, nil), b.open(s, nil)
		touches := a.store.count("touch")
		for range 3 * 60 * 6 {
			time.Sleep(10 * time.Second)
			used.Used()
		}
		used.want(t, "")
		unused.want(t, "")
		if n := a.store.count("touch") - touches; n < 170 || n > 180 {
			t.Errorf("%d touches in 180 minutes", n)
		}
		time.Sleep(time.Hour)
		used.want(t, session.ReasonIdle)
		unused.want(t, session.ReasonIdle)
	})
}

// A store that does not answer ends no stream before lifetime, and is asked again.
func TestStoreDownEndsNoStreamBeforeItsTime(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, _ := a.signIn(a.grant(0), session.CreateOptions{})
		st := b.open(s, nil)
		time.Sleep(time.Minute)
		b.store.fail("all")
		b.Gap()
		time.Sleep(20 * time.Minute)
		st.want(t, "")
		if n := b.store.count("get"); n < 30 || n > 100 {
			t.Errorf("asked %d times in 20 minutes", n)
		}
		if err := a.End(t.Context(), s, session.ReasonAdmin); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		st.want(t, "")
		b.store.fail()
		time.Sleep(30 * time.Second)
		st.want(t, session.ReasonAdmin)
	})
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		s, _ := a.signIn(a.grant(0), session.CreateOptions{})
		st := b.open(s, nil)
		time.Sleep(time.Minute)
		b.store.fail("all")
		time.Sleep(12*time.Hour - 2*time.Minute)
		st.want(t, "") // idle, but nobody can say so
		time.Sleep(time.Minute)
		st.want(t, session.ReasonLifetime)
		b.store.fail()
	})
}

// A session that only a stream uses is refreshed on time, once over all replicas, and its streams see what came of it.
func TestStreamRefreshesItsSession(t *testing.T) {
	for _, shared := range []bool{false, true} {
		inBubble(t, func(o *session.Options) { o.SharedGrant = shared; o.IdleTimeout = 6 * time.Hour }, func(t *testing.T, a, b *fixture) {
			s, _ := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
			p := a.provider(10 * time.Minute)
			p.delay = time.Second
			here, there := a.open(s, p.refresh), b.open(s, p.refresh)
			time.Sleep(8*time.Minute + 59*time.Second)
			if n := len(p.calls()); n != 0 {
				t.Fatalf("refreshed before it is due")
			}
			time.Sleep(time.Hour - 8*time.Minute - 59*time.Second)
			here.want(t, "")
			there.want(t, "")
			if n := len(p.calls()); n != 6 {
				t.Errorf("shared %v: %d exchanges in an hour, want 6", shared, n)
			}
			for name, st := range map[string]*stream{"here": here, "there": there} {
				if got := fmt.Sprint(st.tokens()); got != "[access-1 access-2 access-3 access-4 access-5 access-6]" {
					t.Errorf("shared %v: %s sees %v", shared, name, got)
				}
			}
		})
	}
}

// A173: the provider refuses the refresh of a session that only a stream uses: it is over for all of its streams.
func TestRejectedRefreshOfAStreamEndsIt(t *testing.T) {
	for _, shared := range []bool{false, true} {
		inBubble(t, func(o *session.Options) { o.SharedGrant = shared }, func(t *testing.T, a, b *fixture) {
			s, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
			p := a.provider(10 * time.Minute)
			p.fail = func(int) error {
				return &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
			}
			here, there := a.open(s, p.refresh), b.open(s, p.refresh)
			time.Sleep(10*time.Minute + 30*time.Second) // a shared grant lives on while its token does
			here.want(t, session.ReasonRefreshRejected)
			there.want(t, session.ReasonRefreshRejected)
			if _, err := b.load(h); err == nil {
				t.Error("it still loads")
			}
			if n := len(p.calls()); n != 1 && !shared || n > 2 {
				t.Errorf("shared %v: %d exchanges", shared, n)
			}
		})
	}
}

// A provider that does not answer ends no stream, not even when the token has expired; it is asked again as the rules for refresh
// tokens allow.
func TestProviderDownEndsNoStream(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, _ *fixture) {
		s, _ := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
		p := a.provider(10 * time.Minute)
		down := true
		p.fail = func(int) error {
			if down {
				return &session.RefreshError{Kind: session.Again, RetryAfter: 20 * time.Second, Err: errors.New("503")}
			}
			return nil
		}
		st := a.open(s, p.refresh)
		time.Sleep(30 * time.Minute)
		st.want(t, "")
		if n := len(p.calls()); n < 40 || n > 64 { // 21 minutes, every 20 to 25 s
			t.Errorf("%d exchanges in 21 minutes", n)
		}
		p.mu.Lock()
		down = false
		p.mu.Unlock()
		time.Sleep(30 * time.Second)
		st.want(t, "")
		if got := fmt.Sprint(st.tokens()); got != "[access-1]" {
			t.Errorf("sees %v", got)
		}
	})
}

// Without a refresh token the access token's end is the session's.
func TestA133_StreamEndsWithATokenThatCannotBeRefreshed(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, _ *fixture) {
		g := a.grant(10 * time.Minute)
		g.Tokens.Refresh = ""
		s, _ := a.signIn(g, session.CreateOptions{})
		st := a.open(s, nil)
		time.Sleep(10*time.Minute - time.Second)
		st.want(t, "")
		time.Sleep(2 * time.Second)
		st.want(t, session.ReasonTokenExpired)
	})
}

// A provider whose tokens are over at once is not asked all the time for the sake of a stream.
func TestStreamRefreshesNoMoreThanEvery10Seconds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, _ *fixture) {
		s, _ := a.signIn(a.grant(time.Second), session.CreateOptions{})
		p := a.provider(-time.Second)
		a.open(s, p.refresh)
		time.Sleep(5 * time.Minute)
		if n := len(p.calls()); n < 20 || n > 31 {
			t.Errorf("%d exchanges in 5 minutes", n)
		}
	})
}

// A clock that jumps is noticed.
func TestStreamEndsAlthoughTheClockJumps(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, _ *fixture) {
		s, _ := a.signIn(a.grant(0), session.CreateOptions{})
		st := a.open(s, nil)
		a.clock.advance(13 * time.Hour)
		time.Sleep(30 * time.Second)
		st.want(t, session.ReasonLifetime)
	})
}

// However slow the store is, no more reads than maxChecks are under way, and all are made.
func TestGapReadsAreBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, a, b *fixture) {
		const n = 400
		for i := range n {
			g := a.grant(0)
			g.Subject = fmt.Sprint("user-", i)
			s, _ := a.signIn(g, session.CreateOptions{})
			b.open(s, nil)
		}
		time.Sleep(time.Minute)
		var mu sync.Mutex
		running, most := 0, 0
		b.store.set(func(op string) error {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(4 * time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil
		}, nil)
		reads := b.store.count("get")
		b.Gap()
		b.Gap() // twice is not more
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if got := b.store.count("get") - reads; got != n || most > 64 {
			t.Errorf("%d reads, %d at once", got, most)
		}
		b.store.fail()
	})
}

// Streams come and go in any order; nothing stays behind.
func TestClosedStreamsLeaveNothing(t *testing.T) {
	store := memstore.New(memstore.Options{})
	a, b := replica(t, store, nil), replica(t, store, nil)
	a.watch()
	b.watch()
	p := a.provider(10 * time.Minute)
	var wg sync.WaitGroup
	for i := range 50 {
		g := a.grant(10 * time.Minute)
		g.Subject = fmt.Sprint("user-", i)
		s, _ := a.signIn(g, session.CreateOptions{})
		for range 4 {
			wg.Go(func() {
				st := b.open(s, p.refresh)
				st.Used()
				other := b.open(s, p.refresh)
				st.Close()
				b.Gap()
				if i%2 == 0 {
					_ = a.End(context.Background(), s, session.ReasonAdmin)
				}
				other.Close()
				other.Close()
			})
		}
	}
	wg.Wait()
	if n, streams := b.Followed(); n != 0 || streams != 0 {
		t.Errorf("%d sessions, %d streams", n, streams)
	}
	var none *session.Following
	none.Used()
	none.Close()
}

// What an idle stream costs beside its connection is known. (100,000 of them give the same figures.)
func TestFollowingIsSmall(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.Cache.MaxSize = 1 << 20 })
	const n = 20_000
	tmpl, _ := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	for name, one := range map[string]func(i int) *session.Session{
		"a session each": func(i int) *session.Session { return session.Keyed(tmpl, fmt.Sprintf("%043d", i)) },
		"one session":    func(int) *session.Session { return tmpl },
	} {
		f.store.fail("all") // the first look finds nothing, and waits
		kept := make([]*session.Following, n)
		told := func(*session.Session, error) {}
		before := heapInUse()
		for i := range n {
			kept[i] = f.Follow(one(i), nil, told)
		}
		per := (heapInUse() - before) / n
		t.Logf("%s: %d bytes a stream", name, per)
		if per > 700 {
			t.Errorf("%s: %d bytes a stream", name, per)
		}
		for _, k := range kept {
			k.Close()
		}
		f.store.fail()
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// After the deployment's keys have changed the streams hear of what becomes of a shared grant under its new name.
func TestStreamsFollowASharedGrantToItsNewName(t *testing.T) {
	r := ring(t)
	inBubble(t, func(o *session.Options) { o.SharedGrant, o.Ring = true, r }, func(t *testing.T, a, b *fixture) {
		_, h := a.signIn(a.grant(time.Hour), session.CreateOptions{})
		st := b.open(b.mustLoad(h), nil)
		time.Sleep(6 * time.Minute)
		replace(t, r, newKey, ringKey)
		s := a.mustLoad(h)
		if a.Reseal(h) == nil {
			t.Fatal("no cookie under the new key")
		}
		time.Sleep(time.Second)
		told := len(st.tokens())
		if _, err := a.Refresh(t.Context(), a.mustLoad(h), a.provider(time.Hour).refresh); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := st.tokens(); len(got) == told || got[len(got)-1] != "access-1" {
			t.Errorf("told %v", got)
		}
		if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		st.want(t, session.ReasonSignedOut)
	})
}
