package session_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/redistest"
	"postern/session/seal"
)

var newKey = bytes.Repeat([]byte{9}, 32)

func replace(t *testing.T, r *seal.Ring, keys ...[]byte) {
	t.Helper()
	if err := r.Replace(keys...); err != nil {
		t.Fatal(err)
	}
}

// A189: the whole dance, under load: the old key, the new one before it, the new one alone. What is in use stays signed in, on every
// replica, and is found; what nobody used ends as of an unknown key.
func TestA189_KeyRotationUnderLoadLogsNobodyOut(t *testing.T) {
	for name, store := range map[string]func() session.Store{
		"memory": func() session.Store { return memstore.New(memstore.Options{}) },
		"redis":  func() session.Store { return redisStore(t, redistest.Start(t, redistest.Options{Forgetful: true})) },
	} {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " shared grant ", shared), func(t *testing.T) { keyDance(t, store(), shared) })
		}
	}
}

func keyDance(t *testing.T, store session.Store, shared bool) {
	var rs []*fixture
	var rings []*seal.Ring
	now := &clock{}
	for range 2 {
		r := ring(t)
		f := replica(t, store, func(o *session.Options) { o.Ring, o.SharedGrant, o.Now = r, shared, now.now })
		f.watch()
		rs, rings = append(rs, f), append(rings, r)
	}
	const people = 20
	jars := make([]atomic.Pointer[http.Header], people)
	for i := range people {
		g := rs[0].grant(time.Hour)
		g.Subject = fmt.Sprint("person-", i)
		g.SID = fmt.Sprint("sid-", i)
		_, h := rs[i%2].signIn(g, session.CreateOptions{})
		jars[i].Store(&h)
	}
	g := rs[0].grant(time.Hour)
	g.Subject = "idle"
	_, idle := rs[0].signIn(g, session.CreateOptions{})
	rs[0].mustLoad(idle) // its ticket is in the cache
	rs[1].mustLoad(idle)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	over := sync.OnceFunc(func() { close(stop) })
	defer over()
	var served atomic.Int64
	for i := range people {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				f, h := rs[n%2], *jars[i].Load()
				s, err := f.load(h)
				if err != nil {
					t.Errorf("person %d: %v", i, err)
					return
				}
				if want := fmt.Sprint("person-", i); s.Subject != want || s.Tokens.Access != "access-0" {
					t.Errorf("%s has the session of %s", want, s.Subject)
					return
				}
				if c := f.Reseal(h); c != nil {
					h := header(c)
					jars[i].Store(&h)
				}
				f.Touch(s)
				served.Add(1)
			}
		})
	}
	round := func() { // until everyone was served several times again
		t.Helper()
		for until := served.Load() + 20*people; served.Load() < until && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
	}
	round()
	for _, keys := range [][][]byte{{ringKey, newKey}, {newKey, ringKey}} {
		for _, r := range rings {
			replace(t, r, keys...)
			round()
			now.advance(6 * time.Minute)
			round()
		}
	}
	// Everyone has a cookie under the new key, and their sessions are moved.
	moved := replica(t, store, func(o *session.Options) { o.Ring, o.SharedGrant, o.Now = ring(t, newKey), shared, now.now })
	deadline := time.Now().Add(20 * time.Second)
	for i := 0; i < people; {
		list, _, err := moved.List(t.Context(), session.Match{Subject: fmt.Sprint("person-", i)}, "", 0)
		if err == nil && len(list) == 1 {
			i++
		} else if time.Now().After(deadline) {
			t.Fatalf("person %d is not found under the new key: %v", i, err)
		}
	}
	for _, r := range rings {
		replace(t, r, newKey)
		round()
	}
	over()
	wg.Wait()
	for i, f := range rs {
		_, err := f.load(idle)
		ended(t, err, session.ReasonKeyUnknown)
		if c := f.Reseal(*jars[0].Load()); c != nil {
			t.Error("resealed with one key")
		}
		if n, err := f.EndMatching(t.Context(), session.Match{SID: fmt.Sprint("sid-", i)}, session.ReasonBackChannel); n != 1 || err != nil {
			t.Errorf("ended %d, %v", n, err)
		}
		_, err = f.load(*jars[i].Load())
		ended(t, err, session.ReasonBackChannel)
		f.load(*jars[2].Load())
	}
}

// Sign-out everywhere, also of those that were not used since the new key came.
func TestSessionsUnderTheOldKeyAreFound(t *testing.T) {
	r := ring(t)
	f := replica(t, nil, func(o *session.Options) { o.Ring = r })
	old, h := f.signIn(f.grant(0), session.CreateOptions{})
	replace(t, r, newKey, ringKey)
	fresh, h2 := f.signIn(f.grant(0), session.CreateOptions{})
	want := []string{fresh.ID(), old.ID()}
	got, _ := f.listed(session.Match{Subject: alice}, "", 0)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
	// Moved, and not found twice.
	f.clock.advance(6 * time.Minute)
	f.mustLoad(h)
	if c := f.Reseal(h); c == nil {
		t.Fatal("not resealed")
	}
	f.settle()
	got, _ = f.listed(session.Match{Subject: alice}, "", 0)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed after the move: %q", got)
	}
	if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonSignedOut); n != 2 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	for _, h := range []http.Header{h, h2} {
		_, err := f.load(h)
		ended(t, err, session.ReasonSignedOut)
	}
}

func TestResealOffersOneCookieAMinute(t *testing.T) {
	r := ring(t)
	f := replica(t, nil, func(o *session.Options) { o.Ring = r })
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	if f.Reseal(h) != nil {
		t.Error("resealed under the same key")
	}
	replace(t, r, ringKey, newKey)
	if f.mustLoad(h); f.Reseal(h) != nil {
		t.Error("resealed though its key is the first")
	}
	replace(t, r, newKey, ringKey)
	f.clock.advance(4 * time.Minute)
	if f.mustLoad(h); f.Reseal(h) != nil {
		t.Error("resealed what another replica may just have sealed")
	}
	f.clock.advance(26 * time.Minute)
	f.mustLoad(h)
	c := f.Reseal(h)
	if c == nil {
		t.Fatal("not resealed")
	}
	if left := int(s.Ends.Sub(f.clock.now()).Seconds()); c.MaxAge < left-2 || c.MaxAge > left || !c.HttpOnly || !c.Secure || c.Name != "__Host-postern" || c.Path != "/" {
		t.Errorf("cookie %+v, want max-age %d", c, left)
	}
	if f.Reseal(h) != nil {
		t.Error("resealed again at once")
	}
	f.clock.advance(61 * time.Second)
	if f.Reseal(h) == nil {
		t.Error("not resealed again: the answer may have been lost")
	}
	only := replica(t, f.store, func(o *session.Options) { o.Ring, o.Now = ring(t, newKey), f.clock.now })
	if got := only.mustLoad(header(c)); got.ID() != s.ID() {
		t.Error("another session")
	}
	if f.Reseal(header(c)) != nil || f.Reseal(http.Header{}) != nil || f.Reseal(http.Header{"Cookie": {"__Host-postern=x"}}) != nil {
		t.Error("resealed what needs none")
	}
	// What has ended is not given a new cookie.
	if err := f.End(t.Context(), s, session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(61 * time.Second)
	if f.Reseal(h) != nil {
		t.Error("resealed an ended session")
	}
}

// A session that somebody planted behind the browser's own is not made its own.
func TestResealLeavesPlantedCookies(t *testing.T) {
	r := ring(t)
	f := replica(t, nil, func(o *session.Options) { o.Ring = r })
	_, planted := f.signIn(f.grant(0), session.CreateOptions{})
	replace(t, r, newKey, ringKey)
	f.clock.advance(6 * time.Minute)
	_, own := f.signIn(f.grant(0), session.CreateOptions{})
	both := http.Header{"Cookie": {own.Get("Cookie") + "; " + planted.Get("Cookie")}}
	f.mustLoad(planted)
	f.mustLoad(both)
	if f.Reseal(both) != nil {
		t.Error("the planted cookie took the place of the browser's own")
	}
}

// A removed key counts for nothing at once, also where its tickets are cached.
func TestRemovedKeyEndsSessions(t *testing.T) {
	r := ring(t, newKey, ringKey)
	told := &endings{}
	f := replica(t, nil, func(o *session.Options) { o.Ring = r; told.hear(o) })
	old := replica(t, f.store, nil)
	_, h := old.signIn(old.grant(0), session.CreateOptions{})
	_, h2 := f.signIn(f.grant(0), session.CreateOptions{})
	f.mustLoad(h)
	replace(t, r, newKey)
	for range 3 {
		_, err := f.load(h)
		ended(t, err, session.ReasonKeyUnknown)
	}
	if all := told.take(); len(all) != 1 || all[0].Reason != session.ReasonKeyUnknown {
		t.Errorf("told %+v", all)
	}
	f.mustLoad(h2)
	replace(t, r, newKey, ringKey) // a mistake, undone
	f.mustLoad(h)
}
