package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/session"
	"postern/session/memstore"
)

func TestLoadReturnsWhatWasCreated(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(5 * time.Minute)
	g.SID, g.Tokens.Access, g.Tokens.ID = "sid-1", jwt(1193, "at"), jwt(950, "id")
	made, h := f.signIn(g, session.CreateOptions{Browser: "Firefox"})

	other := replica(t, f.store, nil) // has nothing in its cache
	got := other.mustLoad(h)
	// memory and store have the same precision, so nothing may differ.
	if diff := cmp.Diff(got, made, cmpopts.IgnoreUnexported(session.Session{})); diff != "" {
		t.Errorf("loaded (-) is not what was created (+):\n%s", diff)
	}
	if got.Handle() == "" || got.Handle() != made.Handle() || strings.Contains(h.Get("Cookie"), got.Handle()) {
		t.Errorf("handle %q, created with %q", got.Handle(), made.Handle())
	}
	if got, want := got.RefreshDue(), made.Tokens.Expiry.Add(-time.Minute); !got.Equal(want) {
		t.Errorf("refresh due at %v, want %v", got, want)
	}
}

func TestLoadWithoutCookieAsksNobody(t *testing.T) {
	f := replica(t, nil, nil)
	for _, h := range []http.Header{{}, {"Cookie": {"a=b; postern=x; __host-postern=y; __Host-postern2=z; __Host-postern="}}} {
		if _, err := f.load(h); !errors.Is(err, session.ErrNone) {
			t.Errorf("%v: got %v, want ErrNone", h, err)
		}
	}
	if n := f.store.count("get"); n != 0 {
		t.Errorf("%d store reads without a cookie", n)
	}
}

func TestCookieAttributes(t *testing.T) {
	f := replica(t, nil, nil)
	_, c, err := f.Create(t.Context(), f.grant(0), session.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := &http.Cookie{Name: "__Host-postern", Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: 12 * 3600}
	if diff := cmp.Diff(c, want, cmpopts.IgnoreFields(http.Cookie{}, "Value")); diff != "" {
		t.Errorf("cookie (-got +want):\n%s", diff)
	}
	t.Logf("cookie value of %d bytes", len(c.Value))
	if len(c.Value) > 220 {
		t.Errorf("cookie has %d bytes", len(c.Value))
	}
	want.MaxAge, want.Value = -1, ""
	if diff := cmp.Diff(f.ExpireCookie(), want); diff != "" {
		t.Errorf("expiring cookie differs, browsers would keep the first (-got +want):\n%s", diff)
	}
	if f.CookieName() != "__Host-postern" {
		t.Errorf("name %q", f.CookieName())
	}
}

func TestNewManagerRefusesUnsafeOptions(t *testing.T) {
	good := session.Options{
		Provider: "main", ClientID: "c", Ring: ring(t), Store: memstore.New(memstore.Options{}),
		Cookie: session.Cookie{Name: "postern"}, IdleTimeout: time.Hour, Lifetime: time.Hour,
	}
	if _, err := session.NewManager(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*session.Options){
		"no options":             func(o *session.Options) { *o = session.Options{} },
		"no keys":                func(o *session.Options) { o.Ring = nil },
		"no store":               func(o *session.Options) { o.Store = nil },
		"no idle timeout":        func(o *session.Options) { o.IdleTimeout = 0 },
		"no lifetime":            func(o *session.Options) { o.Lifetime = 0 },
		"negative stale":         func(o *session.Options) { o.Cache.MaxStale = -1 },
		"no cookie name":         func(o *session.Options) { o.Cookie.Name = "" },
		"bad cookie name":        func(o *session.Options) { o.Cookie.Name = "a;b" },
		"__Host- without Secure": func(o *session.Options) { o.Cookie.Name = "__Host-p" },
		"__secure- lower case":   func(o *session.Options) { o.Cookie.Name = "__secure-p" },
		"None without Secure":    func(o *session.Options) { o.Cookie.SameSite = http.SameSiteNoneMode },
	} {
		o := good
		change(&o)
		if _, err := session.NewManager(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A141: net/http returns no cookie at all when there are more than 3000.
func TestLoadFindsCookieAmongThousands(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "c%d=%d; ", i, i)
	}
	h = http.Header{"Cookie": {b.String() + h.Get("Cookie") + ";x=y"}}
	if got := f.mustLoad(h); got.Handle() != s.Handle() {
		t.Errorf("another session")
	}
}

// A140: a sibling host or a path may have planted cookies of our name.
func TestLoadTriesDuplicateCookies(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	pair := h.Get("Cookie")
	long := "__Host-postern=" + strings.Repeat("A", 5000)
	for _, lines := range [][]string{
		{"__Host-postern=junk; " + pair}, {pair + "; __Host-postern=junk"}, {"__Host-postern=junk", pair}, {long, long + ";" + pair},
	} {
		if got := f.mustLoad(http.Header{"Cookie": lines}); got.Handle() != s.Handle() {
			t.Errorf("%.60q: another session", lines)
		}
	}
	// One dead and one that nobody can tell about: the answer must not make the browser drop the second.
	_, h2 := f.signIn(f.grant(0), session.CreateOptions{})
	f.store.fail("get")
	fresh := replica(t, f.store, nil)
	_, err := fresh.load(http.Header{"Cookie": {"__Host-postern=junk; " + h2.Get("Cookie")}})
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A143: whatever is changed, there is no session and no panic.
func TestLoadRefusesEveryChangedCookie(t *testing.T) {
	f := replica(t, nil, nil)
	_, c, err := f.Create(t.Context(), f.grant(0), session.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	try := func(value string) {
		t.Helper()
		_, err := f.load(http.Header{"Cookie": {c.Name + "=" + value}})
		ended(t, err, session.ReasonKeyUnknown)
	}
	for i := range c.Value {
		b := []byte(c.Value)
		if b[i] ^= 1; b[i] == ';' {
			b[i] = 'A'
		}
		try(string(b))
		if i > 0 {
			try(c.Value[:i])
		}
	}
	try(c.Value + "A")
	try(base64.RawURLEncoding.EncodeToString(make([]byte, 200)))
	if n := f.store.count("get"); n != 0 {
		t.Errorf("%d store reads for cookies that are not ours", n)
	}
}

func TestLoadRefusesCookieOfOtherOwners(t *testing.T) {
	f := replica(t, nil, nil)
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	for name, change := range map[string]func(*session.Options){
		"provider":   func(o *session.Options) { o.Provider = "other" },
		"client":     func(o *session.Options) { o.ClientID = "other" },
		"issuer":     func(o *session.Options) { o.Issuer = "https://other.example" },
		"deployment": func(o *session.Options) { o.Deployment = "other:" },
		"keys":       func(o *session.Options) { o.Ring = ring(t, []byte("01234567890123456789012345678901")) },
	} {
		o := replica(t, f.store, change)
		_, err := o.load(h)
		if e := (*session.EndedError)(nil); !errors.As(err, &e) || e.Reason != session.ReasonKeyUnknown {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A189
func TestKeyRotationKeepsSessions(t *testing.T) {
	k1, k2 := ringKey, []byte("01234567890123456789012345678901")
	f := replica(t, nil, nil)
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	with := func(keys ...[]byte) *fixture {
		return replica(t, f.store, func(o *session.Options) { o.Ring = ring(t, keys...) })
	}
	rotated := with(k2, k1)
	old := rotated.mustLoad(h)
	s, h2 := rotated.signIn(f.grant(0), session.CreateOptions{SignIn: old.SignIn})
	if _, err := with(k2).load(h); err == nil {
		t.Error("a cookie of a removed key still opens")
	}
	with(k2).mustLoad(h2)
	// The index is looked up under every key.
	n, err := rotated.EndMatching(t.Context(), session.Match{SignIn: s.SignIn}, session.ReasonSignedOut)
	if n != 2 || err != nil {
		t.Errorf("ended %d sessions of both keys, want 2 (%v)", n, err)
	}
	// And an end removes the entries that were made under the old key.
	old, h = f.signIn(f.grant(0), session.CreateOptions{})
	if err := rotated.End(t.Context(), rotated.mustLoad(h), session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	before := f.store.count("end")
	f.EndMatching(t.Context(), session.Match{SignIn: old.SignIn}, session.ReasonAdmin)
	if n := f.store.count("end"); n != before {
		t.Error("an index entry of the old key is left")
	}
}

// A184: values that were swapped, or put back after they were replaced, do not open.
func TestLoadRefusesSwappedValues(t *testing.T) {
	f := replica(t, nil, nil)
	a, ha := f.signIn(f.grant(0), session.CreateOptions{})
	b, _ := f.signIn(f.grant(0), session.CreateOptions{})
	other, err := f.store.Get(t.Context(), b.Key())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Swap(t.Context(), a.Key(), session.Record{Version: 2, Sealed: other.Sealed}, 1); err != nil {
		t.Fatal(err)
	}
	fresh := replica(t, f.store, nil)
	_, err = fresh.load(ha)
	ended(t, err, session.ReasonTampered)

	c, hc := f.signIn(f.grant(0), session.CreateOptions{})
	own, _ := f.store.Get(t.Context(), c.Key())
	if err := f.store.Swap(t.Context(), c.Key(), session.Record{Version: 2, Sealed: own.Sealed}, 1); err != nil {
		t.Fatal(err)
	}
	_, err = fresh.load(hc)
	ended(t, err, session.ReasonTampered)
	if n := strings.Count(fresh.logged(), "does not open"); n != 2 {
		t.Errorf("tampering logged %d times, want once for each session", n)
	}
}

// Each session has its own key, so that this is the second lock of that door.
func TestValuesAreBoundToTheirPlace(t *testing.T) {
	with := func(change func(*session.Options)) *fixture { return replica(t, nil, change) }
	f := with(nil)
	places := map[string]string{}
	for name, place := range map[string]string{
		"this": f.Place("key", 1), "key": f.Place("kez", 1), "version": f.Place("key", 2), "large version": f.Place("key", 257),
		"deployment": with(func(o *session.Options) { o.Deployment = "other:" }).Place("key", 1),
		"issuer":     with(func(o *session.Options) { o.Issuer = "https://other.example" }).Place("key", 1),
		"client":     with(func(o *session.Options) { o.ClientID = "other" }).Place("key", 1),
		// V-27: parts must not run into each other.
		"shifted": with(func(o *session.Options) { o.Deployment, o.Issuer = "test:h", issuer[1:] }).Place("key", 1),
	} {
		if other, ok := places[place]; ok {
			t.Errorf("%s and %s have the same place", name, other)
		}
		places[place] = name
	}
}

func TestAbsentIsNotBroken(t *testing.T) {
	f := replica(t, nil, nil)
	s, h := f.signIn(f.grant(0), session.CreateOptions{})

	lost := replica(t, nil, nil) // the same keys, a store that knows nothing
	_, err := lost.load(h)
	ended(t, err, session.ReasonStoreMiss)

	f.store.fail("all")
	_, err = f.load(h)
	if !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, errStore) {
		t.Errorf("load: got %v, want ErrUnavailable with its cause", err)
	}
	if _, _, err := f.Create(t.Context(), f.grant(0), session.CreateOptions{}); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("create: got %v", err)
	}
	if _, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("end matching: got %v", err)
	}
	f.store.fail()
	if got := f.mustLoad(h); got != s {
		t.Error("after the outage the session was decoded again though it had not changed")
	}
}

func TestLoadObeysItsContext(t *testing.T) {
	f := replica(t, nil, nil)
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	release := make(chan struct{})
	f.store.set(func(op string) error { <-release; return nil }, nil)
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Load(ctx, h)
	if !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLoadFromCacheAsksNobody(t *testing.T) {
	f := replica(t, nil, nil)
	f.watch()
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	for range 100 {
		if got := f.mustLoad(h); got != s {
			t.Fatal("another copy")
		}
	}
	if n := f.store.count("get"); n != 0 {
		t.Errorf("%d store reads for 100 requests within max_stale", n)
	}
	f.clock.advance(6 * time.Second)
	f.mustLoad(h)
	f.mustLoad(h)
	if n := f.store.count("get"); n != 1 {
		t.Errorf("%d store reads after max_stale, want 1", n)
	}
}

func TestMaxStaleZeroAlwaysAsks(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.Cache.MaxStale = 0 })
	f.watch()
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	for range 10 {
		f.mustLoad(h)
	}
	if n := f.store.count("get"); n != 10 {
		t.Errorf("%d store reads for 10 requests", n)
	}
}

func TestBurstIsOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		_, h := a.signIn(a.grant(0), session.CreateOptions{})
		b := replica(t, a.store, nil)
		b.store.set(func(string) error { time.Sleep(100 * time.Millisecond); return nil }, nil)
		var wg sync.WaitGroup
		first, leave := context.WithCancel(t.Context())
		for i := range 200 {
			wg.Go(func() {
				ctx := t.Context()
				if i == 0 {
					ctx = first
				}
				if _, err := b.Load(ctx, h); err != nil && i > 0 {
					t.Errorf("load: %v", err)
				}
			})
		}
		synctest.Wait()
		leave() // whoever happened to begin the read may leave
		wg.Wait()
		if n := b.store.count("get"); n != 1 {
			t.Errorf("%d reads for a burst of 200, want 1", n)
		}
	})
}

// What max_stale promises, across two replicas.
func TestEndIsSeenWithinMaxStaleWithoutNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		b := replica(t, a.store, nil)
		stopA, stopB := a.watch(), b.watch()
		defer stopA()
		defer stopB()
		s, h := a.signIn(a.grant(0), session.CreateOptions{})
		b.mustLoad(h)

		b.store.deaf.Store(true) // the network is cut in one direction
		if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		_, err := a.load(h)
		ended(t, err, session.ReasonSignedOut)
		time.Sleep(5*time.Second - 1)
		b.mustLoad(h) // so this test shows something
		time.Sleep(time.Nanosecond)
		_, err = b.load(h)
		ended(t, err, session.ReasonSignedOut)
	})
}

func TestEndIsSeenAtOnceWithNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		b := replica(t, a.store, nil)
		stopA, stopB := a.watch(), b.watch()
		defer stopA()
		defer stopB()
		s, h := a.signIn(a.grant(0), session.CreateOptions{})
		b.mustLoad(h)
		if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, err := b.load(h)
		ended(t, err, session.ReasonSignedOut)
	})
}

func TestGapMakesCopiesUnconfirmed(t *testing.T) {
	f := replica(t, nil, nil)
	stop := f.watch()
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	f.mustLoad(h)
	stop() // the subscription is down
	f.mustLoad(h)
	f.mustLoad(h)
	if n := f.store.count("get"); n != 2 {
		t.Errorf("%d reads of 2 requests without a subscription", n)
	}
	f.watch() // it is back: what was read before is not trusted
	f.mustLoad(h)
	f.mustLoad(h)
	if n := f.store.count("get"); n != 3 {
		t.Errorf("%d reads after the gap, want one more", n-2)
	}
}

func TestCacheIsBounded(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.Cache.MaxSize, o.MaxPerUser = 64<<10, 0 })
	f.watch()
	var headers []http.Header
	for range 200 {
		_, h := f.signIn(f.grant(0), session.CreateOptions{})
		headers = append(headers, h)
	}
	for _, h := range headers {
		f.mustLoad(h) // eviction loses nothing
	}
	if n := f.store.count("get"); n < 100 {
		t.Errorf("only %d of 200 sessions were read again: 64 KiB cannot hold the others", n)
	}
}

func TestIdleAndLifetime(t *testing.T) {
	f := replica(t, nil, nil)
	f.watch()
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	other := replica(t, f.store, func(o *session.Options) { o.Now = f.clock.now })
	f.clock.advance(time.Hour - time.Second - time.Millisecond) // last seen is kept to the second
	f.mustLoad(h)
	f.clock.advance(time.Second + time.Millisecond)
	for _, m := range []*fixture{f, f, other} {
		_, err := m.load(h)
		ended(t, err, session.ReasonIdle)
	}
	if n := strings.Count(f.logged(), "reason=idle"); n != 1 {
		t.Errorf("the end was logged %d times", n)
	}

	// Used every half hour, it lives until its lifetime is over (A174).
	_, h = f.signIn(f.grant(0), session.CreateOptions{})
	for range 23 {
		f.clock.advance(30 * time.Minute)
		f.Touch(f.mustLoad(h))
	}
	f.clock.advance(30*time.Minute - 20*time.Second)
	f.mustLoad(h)
	f.clock.advance(20 * time.Second)
	_, err := f.load(h)
	ended(t, err, session.ReasonLifetime)
	// Also where nothing but the cookie is known, and the store has forgotten it.
	f.clock.advance(time.Second)
	third := replica(t, nil, func(o *session.Options) { o.Now = f.clock.now })
	_, err = third.load(h)
	ended(t, err, session.ReasonLifetime)
}

func TestShorterLifetimeHoldsForOldSessions(t *testing.T) {
	f := replica(t, nil, nil)
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	f.clock.advance(30 * time.Minute)
	strict := replica(t, f.store, func(o *session.Options) { o.Lifetime, o.Now = 20*time.Minute, f.clock.now })
	_, err := strict.load(h)
	ended(t, err, session.ReasonLifetime)
}

// A session that only another replica was used with is not idle.
func TestTouchIsSeenByOtherReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		b := replica(t, a.store, nil)
		stop := b.watch()
		defer stop()
		_, h := a.signIn(a.grant(0), session.CreateOptions{})
		b.mustLoad(h)
		for range 3 {
			time.Sleep(40 * time.Minute)
			a.Touch(a.mustLoad(h))
			synctest.Wait()
		}
		b.mustLoad(h)
		time.Sleep(61 * time.Minute)
		_, err := b.load(h)
		ended(t, err, session.ReasonIdle)
	})
}

func TestTouchIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		s, h := f.signIn(f.grant(0), session.CreateOptions{})
		for range 600 {
			time.Sleep(time.Second)
			f.Touch(f.mustLoad(h))
		}
		synctest.Wait()
		if n := f.store.count("touch"); n < 9 || n > 10 {
			t.Errorf("%d touches in ten minutes", n)
		}
		rec, _ := f.store.Get(t.Context(), s.Key())
		if age := time.Since(rec.Seen); age > time.Minute+time.Second {
			t.Errorf("the store saw it %v ago", age)
		}
	})
}

func TestTouchNeverWaits(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 0 })
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	defer release()
	var sessions []*session.Session
	for range 100 {
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		sessions = append(sessions, s)
	}
	f.store.set(func(op string) error {
		if op == "touch" {
			<-stuck
		}
		return nil
	}, nil)
	f.clock.advance(10 * time.Minute)
	for _, s := range sessions { // would hang here
		f.Touch(s)
	}
	release()
	closing, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.Close(closing); err != nil {
		t.Fatal(err)
	}
	if n := f.store.count("touch"); n == 0 || n > 2 {
		t.Errorf("the store was told %d times of 100 sessions", n)
	}
	for i, s := range sessions {
		if rec, err := f.store.Get(t.Context(), s.Key()); err != nil || !rec.Seen.After(s.Seen) {
			t.Errorf("session %d: seen %v, %v: Close lost its touch", i, rec.Seen, err)
		}
	}
	f.Touch(sessions[99]) // after Close: dropped, no panic
}

func TestLogTellsNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		p := f.provider(time.Hour)
		_, h := f.signIn(f.grant(time.Minute), session.CreateOptions{})
		time.Sleep(2 * time.Minute)
		s, err := f.Fresh(t.Context(), f.mustLoad(h), p.refresh)
		if err != nil {
			t.Fatal(err)
		}
		f.End(t.Context(), s, session.ReasonSignedOut)
		synctest.Wait()
		log := f.logged()
		for _, want := range []string{"session created", "session refreshed", `msg="session ended"`, "reason=signed_out"} {
			if strings.Count(log, want) != 1 {
				t.Errorf("%q is not logged once in\n%s", want, log)
			}
		}
		secrets := []string{"access-", "refresh-", "id-0", alice, "corp.example", "Liddell", h.Get("Cookie")[20:40], s.Key()}
		if i := slices.IndexFunc(secrets, func(s string) bool { return strings.Contains(log, s) }); i >= 0 {
			t.Errorf("log holds %q:\n%s", secrets[i], log)
		}
	})
}

func TestBrowserFamily(t *testing.T) {
	for ua, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                          "Firefox",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36":                 "Chrome",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0":   "Edge",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15":           "Safari",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/142.0 Mobile Safari/604.1": "Chrome",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 OPR/120.0.0.0":             "Other",
		"curl/8.0": "Other", "": "Other",
	} {
		if got := session.BrowserFamily(ua); got != want {
			t.Errorf("%q: got %s, want %s", ua, got, want)
		}
	}
}
