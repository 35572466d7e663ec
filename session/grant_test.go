package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/redistest"
	"postern/session/seal"
)

// jealous is an identity provider at which every new grant of a person makes the one before void.
type jealous struct {
	now     func() time.Time
	life    time.Duration
	mu      sync.Mutex
	issued  int
	valid   map[string]string // refresh token by subject
	sent    []string
	refused int
	hold    chan struct{} // if set, an answer to a refresh waits for it
	begun   chan struct{} // if set, gets something when a refresh is decided
	fail    error         // instead of an answer
}

func newJealous(f *fixture, life time.Duration) *jealous {
	return &jealous{now: f.clock.now, life: life, valid: map[string]string{}}
}

// grant signs sub in, at the provider.
func (p *jealous) grant(sub string) session.Grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.issue(sub)
}

func (p *jealous) issue(sub string) session.Grant {
	p.issued++
	p.valid[sub] = fmt.Sprintf("refresh-%d", p.issued)
	now := p.now()
	return session.Grant{
		Issuer: issuer, Subject: sub,
		Identity: session.Identity{User: sub, Groups: []string{fmt.Sprintf("group-%d", p.issued)}},
		Extra:    map[string]string{"picture": fmt.Sprintf("picture-%d", p.issued)},
		Tokens:   session.Tokens{Access: fmt.Sprintf("access-%d", p.issued), Refresh: p.valid[sub], Obtained: now, Expiry: now.Add(p.life)},
	}
}

func (p *jealous) refresh(ctx context.Context, s *session.Session) (session.Grant, error) {
	g, err := p.exchange(s)
	if p.begun != nil {
		p.begun <- struct{}{}
	}
	if p.hold != nil {
		<-p.hold
	}
	return g, err
}

func (p *jealous) exchange(s *session.Session) (session.Grant, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, s.Tokens.Refresh)
	if p.fail != nil {
		return session.Grant{}, p.fail
	}
	if s.Tokens.Refresh != p.valid[s.Subject] {
		p.refused++
		return session.Grant{}, &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
	}
	return p.issue(s.Subject), nil
}

func (p *jealous) count() (sent, refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent), p.refused
}

// sharing makes a replica whose sessions share their grants.
func sharing(t *testing.T, store session.Store, change func(*session.Options)) *fixture {
	return replica(t, store, func(o *session.Options) {
		o.SharedGrant = true
		if change != nil {
			change(o)
		}
	})
}

// use is a request of the browser with h: it wants a session with a usable token.
func (f *fixture) use(h http.Header, p *jealous) (*session.Session, error) {
	s, err := f.load(h)
	if err != nil {
		return nil, err
	}
	if s, err = f.Fresh(context.Background(), s, p.refresh); err != nil {
		return nil, err
	}
	f.Touch(s)
	return s, nil
}

// wantAccess makes a request of the browser with h and looks at its token.
func (f *fixture) wantAccess(h http.Header, p *jealous, n int) *session.Session {
	f.t.Helper()
	s, err := f.use(h, p)
	if err != nil {
		f.t.Fatalf("want access-%d: %v", n, err)
	}
	if want := fmt.Sprintf("access-%d", n); s.Tokens.Access != want {
		f.t.Fatalf("got %s, want %s", s.Tokens.Access, want)
	}
	return s
}

// Two browsers of one person on two replicas, each of which refreshes three times.
func TestBrowsersShareTheNewestGrant(t *testing.T) {
	for _, notices := range []bool{true, false} {
		t.Run(fmt.Sprintf("notices=%v", notices), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				a, b := sharing(t, store, nil), sharing(t, store, nil)
				if notices {
					defer a.watch()()
					defer b.watch()()
				}
				p := newJealous(a, 10*time.Minute)
				_, first := a.signIn(p.grant(alice), session.CreateOptions{})
				_, second := b.signIn(p.grant(alice), session.CreateOptions{})
				_, bob := a.signIn(p.grant("bob"), session.CreateOptions{})
				synctest.Wait()
				a.wantAccess(first, p, 2)
				n := 3
				a.wantAccess(bob, p, n)
				for i := range 6 {
					time.Sleep(9*time.Minute + 30*time.Second)
					who, h, also, hAlso := a, first, b, second
					if i%2 == 1 {
						who, h, also, hAlso = b, second, a, first
					}
					old := who.wantAccess(h, p, max(n, 2)-boolInt(n == 3))
					synctest.Wait() // until the refresh that this has started is done
					if !notices {
						time.Sleep(5 * time.Second) // max_stale
					}
					n++
					s := who.wantAccess(h, p, n)
					also.wantAccess(hAlso, p, n)
					if s.Identity.Groups[0] != fmt.Sprintf("group-%d", n) || s.Extra["picture"] != fmt.Sprintf("picture-%d", n) {
						t.Errorf("refreshed identity: %+v, %v", s.Identity, s.Extra)
					}
					if s.Handle() != old.Handle() || s.RefreshDue().Before(s.Tokens.Obtained) {
						t.Error("not the same session with a new token")
					}
				}
				if sent, refused := p.count(); sent != 6 || refused != 0 {
					t.Errorf("%d refreshes, %d refused, want 6 and none", sent, refused)
				}
				if s, err := a.load(bob); err != nil || s.Tokens.Access != "access-3" {
					t.Errorf("another person: %v, %v", s, err)
				}
			})
		})
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A burst of requests of both browsers over three replicas is one exchange.
func TestStormOnSharedGrantIsOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		var rs []*fixture
		for range 3 {
			r := sharing(t, store, nil)
			defer r.watch()()
			rs = append(rs, r)
		}
		p := newJealous(rs[0], 10*time.Minute)
		_, first := rs[0].signIn(p.grant(alice), session.CreateOptions{})
		_, second := rs[1].signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				s, err := rs[i%3].use([]http.Header{first, second}[i%2], p)
				if err != nil || s.Tokens.Access != "access-3" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if sent, _ := p.count(); sent != 1 {
			t.Errorf("%d exchanges, want 1", sent)
		}
	})
}

// A second sign-in makes the grant void at the provider, the first browser's refresh is refused, and only then the sign-in gets to the
// store: nobody is signed out.
func TestSignInOvertakesRefreshAtTheProvider(t *testing.T) {
	for _, notices := range []bool{true, false} {
		for _, expired := range []bool{true, false} {
			t.Run(fmt.Sprintf("notices=%v expired=%v", notices, expired), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := memstore.New(memstore.Options{})
					a, b := sharing(t, store, nil), sharing(t, store, nil)
					if notices {
						defer a.watch()()
						defer b.watch()()
					}
					p := newJealous(a, 10*time.Minute)
					_, first := a.signIn(p.grant(alice), session.CreateOptions{})
					time.Sleep(9*time.Minute + 30*time.Second)
					if expired {
						time.Sleep(time.Minute)
					}
					g := p.grant(alice) // the callback of the second browser, between the provider and the store
					start := time.Now()
					var wg sync.WaitGroup
					wg.Go(func() {
						want := 1
						if expired {
							want = 2
						}
						s, err := a.use(first, p)
						if err != nil || s.Tokens.Access != fmt.Sprintf("access-%d", want) {
							t.Errorf("during the sign-in: %+v, %v", s, err)
						}
						waited, most := time.Since(start), 8*time.Second
						if notices {
							most = 7500 * time.Millisecond
						}
						if !expired {
							most = 0
						}
						if waited > most {
							t.Errorf("waited %v, want at most %v", waited, most)
						}
					})
					time.Sleep(7500 * time.Millisecond)
					_, second := b.signIn(g, session.CreateOptions{})
					wg.Wait()
					time.Sleep(5 * time.Second)
					a.wantAccess(first, p, 2)
					b.wantAccess(second, p, 2)
					if sent, refused := p.count(); sent != 1 || refused != 1 {
						t.Errorf("%d refreshes, %d refused, want one that is refused", sent, refused)
					}
					time.Sleep(11 * time.Minute)
					a.wantAccess(first, p, 3)
					b.wantAccess(second, p, 3)
				})
			})
		}
	}
}

// The refresh is answered before the sign-in makes it void, and stored after it, or before it: the sign-in stays.
func TestSignInDuringRefresh(t *testing.T) {
	for _, signInFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := memstore.New(memstore.Options{})
			a, b := sharing(t, store, nil), sharing(t, store, nil)
			p := newJealous(a, 10*time.Minute)
			_, first := a.signIn(p.grant(alice), session.CreateOptions{})
			time.Sleep(11 * time.Minute)
			p.begun, p.hold = make(chan struct{}), make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() { a.use(first, p) })
			<-p.begun // access-2 is on its way
			time.Sleep(time.Second)
			g := p.grant(alice)
			if !signInFirst {
				close(p.hold)
				wg.Wait()
			}
			_, second := b.signIn(g, session.CreateOptions{})
			if signInFirst {
				close(p.hold)
				wg.Wait()
			}
			p.begun = nil
			time.Sleep(6 * time.Second)
			a.wantAccess(first, p, 3)
			b.wantAccess(second, p, 3)
			time.Sleep(11 * time.Minute)
			a.wantAccess(first, p, 4)
			if _, refused := p.count(); refused != 0 {
				t.Errorf("%d refused", refused)
			}
		})
	}
}

// Of two sign-ins at once the one that the provider answered later counts, in whichever order they are stored.
func TestLaterSignInAtTheProviderCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		slow := p.grant(alice)
		time.Sleep(time.Second)
		_, h2 := f.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(time.Second)
		s, h1 := f.signIn(slow, session.CreateOptions{})
		if s.Tokens.Access != "access-2" {
			t.Errorf("the slow sign-in uses %s", s.Tokens.Access)
		}
		time.Sleep(11 * time.Minute)
		f.wantAccess(h1, p, 3)
		f.wantAccess(h2, p, 3)
		// A time that is still to come is a wrong clock and counts for nothing.
		ahead := p.grant(alice)
		ahead.Tokens.Obtained = ahead.Tokens.Obtained.Add(time.Hour)
		f.signIn(ahead, session.CreateOptions{})
		_, h3 := f.signIn(p.grant(alice), session.CreateOptions{})
		f.wantAccess(h3, p, 5)
		f.wantAccess(h1, p, 5)
	})
}

// What the provider refuses for good ends nothing while the access token is valid; then everything, once, after a look for a newer one.
func TestRefusedSharedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		defer a.watch()()
		defer b.watch()()
		p := newJealous(a, 10*time.Minute)
		s1, first := a.signIn(p.grant(alice), session.CreateOptions{})
		s2, second := b.signIn(p.grant(alice), session.CreateOptions{})
		p.valid[alice] = "" // revoked there
		time.Sleep(9*time.Minute + 10*time.Second)
		a.wantAccess(first, p, 2)
		time.Sleep(20 * time.Second)
		if _, refused := p.count(); refused != 1 {
			t.Fatalf("%d refused, want 1", refused)
		}
		if _, err := a.Refresh(t.Context(), a.mustLoad(first), p.refresh); !errors.As(err, new(*session.RetryError)) {
			t.Errorf("forced: %v, want a RetryError", err)
		}
		for range 25 { // until shortly before the expiry
			start := time.Now()
			a.wantAccess(first, p, 2)
			if d := time.Since(start); d != 0 {
				t.Fatalf("waited %v for a token that is not needed yet", d)
			}
			time.Sleep(time.Second)
		}
		if _, refused := p.count(); refused != 1 {
			t.Errorf("%d refused, want 1: it was sent again", refused)
		}
		time.Sleep(10 * time.Second)
		start := time.Now()
		_, err := a.use(first, p)
		ended(t, err, session.ReasonRefreshRejected)
		if d := time.Since(start); d != 0 {
			t.Errorf("looked again for %v", d)
		}
		synctest.Wait()
		_, err = b.use(second, p)
		ended(t, err, session.ReasonRefreshRejected)
		for _, s := range []*session.Session{s1, s2} {
			if rec, err := store.Get(t.Context(), s.Key()); err != nil || rec.Ended != session.ReasonRefreshRejected {
				t.Errorf("no tombstone: %q, %v", rec.Ended, err)
			}
		}
		if _, refused := p.count(); refused != 1 {
			t.Errorf("%d refused, want 1", refused)
		}
		// What has ended stays ended, and the next sign-in works.
		_, third := b.signIn(p.grant(alice), session.CreateOptions{})
		synctest.Wait()
		a.wantAccess(third, p, 3)
		_, err = a.use(first, p)
		ended(t, err, session.ReasonRefreshRejected)
	})
}

func TestRefusedAfterExpiryIsLookedForBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		_, h := f.signIn(p.grant(alice), session.CreateOptions{})
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				start := time.Now()
				_, err := f.use(h, p)
				ended(t, err, session.ReasonRefreshRejected)
				if d := time.Since(start); d != 10*time.Second {
					t.Errorf("looked for %v, want 10s", d)
				}
			})
		}
		wg.Wait()
		if sent, _ := p.count(); sent != 1 {
			t.Errorf("sent %d times", sent)
		}
	})
}

// A refusal is no end while the store cannot say whether there is a newer grant.
func TestRefusedWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		_, h := f.signIn(p.grant(alice), session.CreateOptions{})
		g := p.grant(alice)
		time.Sleep(11 * time.Minute)
		p.begun, p.hold = make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.use(h, p); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
		<-p.begun
		f.store.fail("get grant", "swap grant")
		close(p.hold)
		wg.Wait()
		time.Sleep(5 * time.Second)
		f.store.fail()
		p.begun = nil
		// The look begins anew.
		wg.Go(func() {
			if s, err := f.use(h, p); err != nil || s.Tokens.Access != "access-2" && s.Tokens.Access != "access-3" {
				t.Errorf("%v, %v", s, err)
			}
		})
		time.Sleep(5 * time.Second)
		f.signIn(g, session.CreateOptions{})
		wg.Wait()
		if _, refused := p.count(); refused != 1 {
			t.Errorf("refused %d times: it was sent again", refused)
		}
		// The same when the end of it does not get through.
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		f.store.fail("swap grant")
		if _, err := f.use(h, p); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		synctest.Wait() // until that flight is gone
		f.store.fail()
		start := time.Now()
		_, err := f.use(h, p)
		ended(t, err, session.ReasonRefreshRejected)
		if d := time.Since(start); d != 0 {
			t.Errorf("looked again for %v", d)
		}
	})
}

func TestSignOutOfSharedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, first := a.signIn(p.grant(alice), session.CreateOptions{})
		_, second := b.signIn(p.grant(alice), session.CreateOptions{})
		_, third := b.signIn(p.grant(alice), session.CreateOptions{})
		_, bob := b.signIn(p.grant("bob"), session.CreateOptions{})
		time.Sleep(6 * time.Second)
		out := func(f *fixture, h http.Header) (*session.Session, bool) {
			t.Helper()
			s := f.mustLoad(h)
			if err := f.End(t.Context(), s, session.ReasonSignedOut); err != nil {
				t.Fatal(err)
			}
			_, err := f.load(h)
			ended(t, err, session.ReasonSignedOut)
			tokens := f.StoredGrant(t.Context(), f.GrantKeys(s)[0]).Tokens
			revoke := f.Revocable(t.Context(), s)
			if revoke != (tokens == session.Tokens{}) {
				t.Errorf("revocable %v, while the store holds %q", revoke, tokens.Access)
			}
			return s, revoke
		}
		if _, revoke := out(a, first); revoke {
			t.Error("revoked under two other sessions")
		}
		time.Sleep(11 * time.Minute)
		b.wantAccess(second, p, 5)
		if _, revoke := out(b, second); revoke {
			t.Error("revoked under another session")
		}
		s, err := b.use(third, p)
		if err != nil {
			t.Fatal(err)
		}
		keys := a.GrantKeys(s)
		if _, revoke := out(b, third); !revoke || s.Tokens.Refresh != "refresh-5" {
			t.Errorf("the last session: revoke %v %s", revoke, s.Tokens.Refresh)
		}
		if g := a.StoredGrant(t.Context(), keys[0]); g.Tokens != (session.Tokens{}) || g.Identity.User != "" {
			t.Errorf("left in the store: %+v", g)
		}
		if s := b.mustLoad(bob); s.Tokens.Access != "access-4" {
			t.Error("another person lost the grant")
		}
		// And again from the beginning.
		_, again := a.signIn(p.grant(alice), session.CreateOptions{})
		a.wantAccess(again, p, 6)
		if s, revoke := out(b, again); !revoke || s.Tokens.Access != "access-6" {
			t.Error("the last session of the next time")
		}
	})
}

// Whoever is counted as using the grant: not who ended, was idle for too long, or signed in by another provider of the configuration.
func TestRevocableCountsTheLiving(t *testing.T) {
	store := memstore.New(memstore.Options{})
	f := sharing(t, store, nil)
	other := sharing(t, store, func(o *session.Options) { o.Provider = "other" })
	p := newJealous(f, 10*time.Hour)
	_, idle := f.signIn(p.grant(alice), session.CreateOptions{})
	f.clock.advance(30 * time.Minute)
	other.clock.advance(30 * time.Minute)
	other.signIn(p.grant(alice), session.CreateOptions{})
	s, h := f.signIn(p.grant(alice), session.CreateOptions{})
	last, hLast := f.signIn(p.grant(alice), session.CreateOptions{})
	f.clock.advance(31 * time.Minute)
	f.Touch(last)
	if _, err := f.load(idle); err == nil {
		t.Fatal("the idle session lives")
	}
	f.store.fail("index")
	f.End(t.Context(), s, session.ReasonSignedOut)
	if f.Revocable(t.Context(), s) {
		t.Error("revoked, though nobody knows who else uses it")
	}
	f.store.fail()
	if f.Revocable(t.Context(), s) {
		t.Error("revoked under a living session")
	}
	f.wantAccess(hLast, p, 4)
	f.store.fail("get", "get grant")
	if f.Revocable(t.Context(), last) {
		t.Error("revoked without the store")
	}
	f.store.fail()
	if _, err := f.EndMatching(t.Context(), session.Match{SignIn: last.SignIn}, session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	if !f.Revocable(t.Context(), last) {
		t.Error("not revoked after the last")
	}
	_, err := f.load(h)
	ended(t, err, session.ReasonSignedOut)

	plain := replica(t, nil, nil)
	s, _ = plain.signIn(plain.grant(0), session.CreateOptions{})
	plain.signIn(plain.grant(0), session.CreateOptions{})
	if !plain.Revocable(t.Context(), s) {
		t.Error("without a shared grant every token may be revoked")
	}
}

// Signing out the last session while another browser signs in: that has its grant, whoever is quicker.
func TestSignOutAgainstSignIn(t *testing.T) {
	store := memstore.New(memstore.Options{})
	signOutAgainstSignIn(t, sharing(t, store, nil), sharing(t, store, nil), 300)
}

func TestRedisSignOutAgainstSignIn(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Forgetful: true})
	signOutAgainstSignIn(t, sharing(t, redisStore(t, server), nil), sharing(t, redisStore(t, server), nil), 100)
}

func signOutAgainstSignIn(t *testing.T, a, b *fixture, n int) {
	p := newJealous(a, time.Hour)
	revoked := 0
	for i := range n {
		sub := fmt.Sprint("person-", i)
		s, _ := a.signIn(p.grant(sub), session.CreateOptions{})
		var h http.Header
		var revoke bool
		var wg sync.WaitGroup
		wg.Go(func() { _, h = b.signIn(p.grant(sub), session.CreateOptions{}) })
		wg.Go(func() {
			if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil {
				t.Error(err)
			}
			revoke = a.Revocable(t.Context(), s)
		})
		wg.Wait()
		got, err := b.use(h, p)
		if err != nil {
			t.Fatalf("the new session: %v", err)
		}
		if revoke {
			revoked++
			if got.Tokens.Refresh == s.Tokens.Refresh {
				t.Fatal("its token is to be revoked")
			}
		}
	}
	t.Logf("revocable %d times", revoked)
}

// The sign-out of one browser during the refresh of both is not undone.
func TestSignOutDuringSharedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		defer a.watch()()
		p := newJealous(a, 10*time.Minute)
		_, first := a.signIn(p.grant(alice), session.CreateOptions{})
		_, second := a.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		p.begun, p.hold = make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := a.use(first, p)
			ended(t, err, session.ReasonSignedOut)
		})
		<-p.begun
		wg.Go(func() { a.wantAccess(second, p, 3) })
		s, err := b.load(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.End(t.Context(), s, session.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		close(p.hold)
		wg.Wait()
	})
}

func TestLastSignOutDuringSharedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, h := a.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		p.begun, p.hold = make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := a.use(h, p)
			ended(t, err, session.ReasonSignedOut)
		})
		<-p.begun
		s, err := b.load(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.End(t.Context(), s, session.ReasonSignedOut); err != nil || !b.Revocable(t.Context(), s) {
			t.Errorf("the last: %v", err)
		}
		close(p.hold)
		wg.Wait()
		if g := a.StoredGrant(t.Context(), a.GrantKeys(s)[0]); g.Tokens != (session.Tokens{}) {
			t.Error("the refresh has brought the grant back")
		}
	})
}

func TestSharedGrantWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		_, first := f.signIn(p.grant(alice), session.CreateOptions{})
		f.store.fail("get grant")
		if _, err := f.load(first); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("load: %v, want ErrUnavailable", err)
		}
		f.store.fail()
		f.wantAccess(first, p, 1)

		// A sign-in that cannot be stored fails, and yet its grant is saved for the others.
		for _, op := range []string{"swap grant", "get grant", "create"} {
			f.store.fail(op)
			if _, _, err := f.Create(t.Context(), p.grant(alice), session.CreateOptions{}); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("sign-in without %s: %v, want ErrUnavailable", op, err)
			}
			f.store.fail()
			time.Sleep(6 * time.Second)
			f.wantAccess(first, p, p.issued)
		}
		if s := f.mustLoad(first); f.End(t.Context(), s, session.ReasonSignedOut) != nil || !f.Revocable(t.Context(), s) {
			t.Error("sign-ins that failed are counted")
		}

		// A rotated token that the store does not take is used, and written later.
		_, first = f.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		f.store.fail("swap grant")
		n := p.issued
		f.wantAccess(first, p, n+1)
		time.Sleep(10 * time.Second)
		f.store.fail()
		time.Sleep(2 * time.Second)
		other := sharing(t, f.store.Store, nil)
		other.wantAccess(first, p, n+1)
		time.Sleep(11 * time.Minute)
		other.wantAccess(first, p, n+2)

		// The answer to a write is lost.
		f.store.set(nil, func(op string) error {
			if op == "swap grant" {
				return errStore
			}
			return nil
		})
		time.Sleep(11 * time.Minute)
		f.wantAccess(first, p, n+3)
		_, second := f.signIn(p.grant(alice), session.CreateOptions{})
		f.store.fail()
		f.wantAccess(second, p, n+4)
		f.wantAccess(first, p, n+4)
		if _, refused := p.count(); refused != 0 {
			t.Errorf("%d refused", refused)
		}
	})
}

// While a refresh waits for the store to take it, another replica signs the person in: that wins.
func TestSignInBeatsUnstoredRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		patient := func(o *session.Options) { o.IdleTimeout = 12 * time.Hour }
		a, b := sharing(t, store, patient), sharing(t, store, patient)
		p := newJealous(a, 10*time.Minute)
		_, first := a.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		a.store.fail("swap grant")
		a.clock.advance(time.Hour) // also when its clock is wrong
		p.now = b.clock.now
		a.wantAccess(first, p, 2)
		time.Sleep(10 * time.Second)
		_, second := b.signIn(p.grant(alice), session.CreateOptions{})
		given, back := make(chan struct{}), make(chan struct{})
		a.before("release grant", func() { close(given); <-back })
		<-given // the refresh is known to be lost, and its flight has not ended
		a.clock.advance(-time.Hour)
		a.wantAccess(first, p, 3)
		close(back)
		time.Sleep(6 * time.Second)
		a.wantAccess(first, p, 3)
		b.wantAccess(second, p, 3)
	})
}

func TestSharedGrantIsSeenWithinMaxStale(t *testing.T) {
	for _, notices := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			store := memstore.New(memstore.Options{})
			a, b := sharing(t, store, nil), sharing(t, store, nil)
			defer a.watch()()
			a.store.deaf.Store(!notices)
			p := newJealous(a, time.Hour)
			_, h := a.signIn(p.grant(alice), session.CreateOptions{})
			a.wantAccess(h, p, 1)
			synctest.Wait()
			a.wantAccess(h, p, 1)
			gets := a.store.count("get grant")
			a.wantAccess(h, p, 1)
			if n := a.store.count("get grant") - gets; n != 0 {
				t.Errorf("asked %d times for what is cached", n)
			}
			b.signIn(p.grant(alice), session.CreateOptions{})
			synctest.Wait()
			if notices {
				a.wantAccess(h, p, 2)
				return
			}
			a.wantAccess(h, p, 1)
			time.Sleep(5 * time.Second)
			a.wantAccess(h, p, 2)
		})
	}
}

// Replicas that have the same keys in another order, before, during and after the rotation.
func TestSharedGrantSurvivesKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keyOld, keyNew := ringKey, slices.Repeat([]byte{9}, 32)
		store := memstore.New(memstore.Options{})
		with := func(keys ...[]byte) *fixture {
			f := sharing(t, store, func(o *session.Options) { o.Ring = ring(t, keys...) })
			stop := f.watch()
			t.Cleanup(stop)
			return f
		}
		old, before, after := with(keyOld), with(keyOld, keyNew), with(keyNew, keyOld)
		p := newJealous(old, 10*time.Minute)
		_, h1 := old.signIn(p.grant(alice), session.CreateOptions{})
		for _, f := range []*fixture{before, after} {
			f.wantAccess(h1, p, 1)
		}
		time.Sleep(11 * time.Minute)
		after.wantAccess(h1, p, 2)
		before.wantAccess(h1, p, 2)
		_, h2 := after.signIn(p.grant(alice), session.CreateOptions{}) // moves it
		synctest.Wait()
		for _, h := range []http.Header{h1, h2} {
			before.wantAccess(h, p, 3)
			after.wantAccess(h, p, 3)
		}
		time.Sleep(11 * time.Minute)
		before.wantAccess(h1, p, 4)
		after.wantAccess(h2, p, 4)
		_, h3 := before.signIn(p.grant(alice), session.CreateOptions{}) // and back
		synctest.Wait()
		for _, h := range []http.Header{h1, h2, h3} {
			before.wantAccess(h, p, 5)
			after.wantAccess(h, p, 5)
		}
		_, h4 := after.signIn(p.grant(alice), session.CreateOptions{})
		after.wantAccess(h4, p, 6)
		alone := with(keyNew)
		alone.wantAccess(h4, p, 6)
		_, err := alone.use(h1, p)
		ended(t, err, session.ReasonKeyUnknown)
		time.Sleep(11 * time.Minute)
		alone.wantAccess(h4, p, 7)
		s := after.mustLoad(h4)
		for _, h := range []http.Header{h1, h2, h3} {
			out := after.mustLoad(h)
			if err := after.End(t.Context(), out, session.ReasonSignedOut); err != nil || after.Revocable(t.Context(), out) {
				t.Errorf("sign-out of one: %v", err)
			}
		}
		if err := after.End(t.Context(), s, session.ReasonSignedOut); err != nil || !after.Revocable(t.Context(), s) {
			t.Errorf("the last: %v", err)
		}
	})
}

// The grant lives as long as the last session that uses it.
func TestSharedGrantOutlivesItsFirstSession(t *testing.T) {
	f := sharing(t, nil, func(o *session.Options) { o.IdleTimeout = 24 * time.Hour })
	p := newJealous(f, time.Hour)
	f.signIn(p.grant(alice), session.CreateOptions{})
	f.clock.advance(11 * time.Hour)
	_, h := f.signIn(p.grant(alice), session.CreateOptions{})
	f.clock.advance(11*time.Hour + 59*time.Minute)
	f.wantAccess(h, p, 3)
	f.clock.advance(time.Minute)
	_, err := f.use(h, p)
	ended(t, err, session.ReasonLifetime)
	f.clock.advance(2 * time.Minute)
	s, _ := f.signIn(p.grant("bob"), session.CreateOptions{}) // a write, which makes the store forget
	if _, err := f.store.Get(t.Context(), f.GrantKeys(s)[0]); err != nil {
		t.Fatal(err)
	}
	s.Subject = alice
	if _, err := f.store.Get(t.Context(), f.GrantKeys(s)[0]); !errors.Is(err, session.ErrNone) {
		t.Errorf("the grant outlives its sessions: %v", err)
	}
}

// When and how a person signed in is the session's own: a step-up in one browser is none in the other.
func TestSharedGrantKeepsTheSignIn(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	g := p.grant(alice)
	g.ACR, g.SID, g.AuthTime = "1", "sid-1", f.clock.now().Add(-time.Hour)
	_, h := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
	g = p.grant(alice)
	g.ACR, g.SID, g.AuthTime = "2", "sid-2", f.clock.now()
	f.signIn(g, session.CreateOptions{Browser: "Edge"})
	f.clock.advance(2 * time.Hour / 3)
	s := f.mustLoad(h)
	s, err := f.Refresh(t.Context(), s, p.refresh)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*session.Session{s, f.mustLoad(h)} {
		if s.Tokens.Access != "access-3" || s.ACR != "1" || s.SID != "sid-1" || s.Browser != "Firefox" || f.clock.now().Sub(s.AuthTime) < time.Hour {
			t.Errorf("got %s, acr %q, sid %q", s.Tokens.Access, s.ACR, s.SID)
		}
	}
}

func TestForcedRefreshOfSharedGrant(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	_, h1 := f.signIn(p.grant(alice), session.CreateOptions{})
	_, h2 := f.signIn(p.grant(alice), session.CreateOptions{})
	s, err := f.Refresh(t.Context(), f.mustLoad(h1), p.refresh)
	if err != nil || s.Tokens.Access != "access-3" {
		t.Errorf("%v, %v", s, err)
	}
	f.wantAccess(h2, p, 3)
}

// A grant without a refresh token ends its sessions one by one, unless a newer one has come.
func TestSharedGrantWithoutRefreshToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		grant := func() session.Grant {
			g := p.grant(alice)
			g.Tokens.Refresh = ""
			return g
		}
		_, h1 := f.signIn(grant(), session.CreateOptions{})
		time.Sleep(5 * time.Minute)
		stale := f.mustLoad(h1)
		_, h2 := f.signIn(grant(), session.CreateOptions{})
		time.Sleep(6 * time.Minute)
		if s, err := f.Fresh(t.Context(), stale, p.refresh); err != nil || s.Tokens.Access != "access-2" {
			t.Errorf("%v, %v", s, err)
		}
		time.Sleep(6 * time.Minute)
		for _, h := range []http.Header{h1, h2} {
			_, err := f.use(h, p)
			ended(t, err, session.ReasonTokenExpired)
		}
	})
}

func TestSharedRefreshNeverChangesThePerson(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	_, h := f.signIn(p.grant(alice), session.CreateOptions{})
	_, err := f.Refresh(t.Context(), f.mustLoad(h), func(ctx context.Context, s *session.Session) (session.Grant, error) {
		g := s.Grant
		g.Subject, g.Tokens.Access = "mallory", "hers"
		return g, nil
	})
	ended(t, err, session.ReasonRefreshRejected)
}

// After two outcomes that nobody knows the token is never sent again.
func TestUnknownOutcomeOfSharedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, first := a.signIn(p.grant(alice), session.CreateOptions{})
		_, second := b.signIn(p.grant(alice), session.CreateOptions{})
		p.fail = errors.New("cut off")
		time.Sleep(9*time.Minute + 30*time.Second)
		for range 10 {
			a.wantAccess(first, p, 2)
			b.wantAccess(second, p, 2)
			time.Sleep(time.Second)
		}
		if sent, _ := p.count(); sent != 1 {
			t.Errorf("sent %d times before the expiry, want once", sent)
		}
		time.Sleep(time.Minute)
		_, err := b.use(second, p)
		ended(t, err, session.ReasonRefreshRejected)
		_, err = a.use(first, p)
		ended(t, err, session.ReasonRefreshRejected)
		if sent, _ := p.count(); sent != 2 {
			t.Errorf("sent %d times, want twice", sent)
		}
	})
}

func TestSharedGrantNeedsAPerson(t *testing.T) {
	f := sharing(t, nil, nil)
	g := f.grant(0)
	g.Subject = ""
	if _, _, err := f.Create(t.Context(), g, session.CreateOptions{}); err == nil || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if n := f.store.count("create"); n != 0 {
		t.Errorf("%d records written", n)
	}
}

// The option holds for the sessions that are made: those that exist go on as they are.
func TestSharedGrantCanBeSwitched(t *testing.T) {
	store := memstore.New(memstore.Options{})
	on, off := sharing(t, store, nil), replica(t, store, nil)
	p := newJealous(on, time.Hour)
	_, own := off.signIn(p.grant(alice), session.CreateOptions{})
	_, shared := on.signIn(p.grant(alice), session.CreateOptions{})
	for _, f := range []*fixture{on, off} {
		f.wantAccess(own, p, 1)
		f.wantAccess(shared, p, 2)
	}
	s, err := off.Refresh(t.Context(), off.mustLoad(shared), p.refresh)
	if err != nil || s.Tokens.Access != "access-3" {
		t.Errorf("%v, %v", s, err)
	}
	if off.Revocable(t.Context(), s) {
		t.Error("revocable under another session") // the one with tokens of its own: nobody can tell
	}
}

// Grants open only in their own place, under a key of the ring.
func TestSharedGrantIsBoundToItsPlace(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	sa, alices := f.signIn(p.grant(alice), session.CreateOptions{})
	sb, _ := f.signIn(p.grant("bob"), session.CreateOptions{})
	ka, kb := f.GrantKeys(sa)[0], f.GrantKeys(sb)[0]
	if ka == kb || strings.Contains(ka+kb, alice) {
		t.Fatalf("names: %s, %s", ka, kb)
	}
	other := sharing(t, f.store, func(o *session.Options) { o.Provider = "other" })
	if other.GrantKeys(sa)[0] == ka {
		t.Error("two providers of the configuration share a grant")
	}
	rec, err := f.store.Get(t.Context(), kb)
	if err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{rec.Sealed, nil, []byte("garbage")} {
		cur, err := f.store.Get(t.Context(), ka)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.store.Swap(t.Context(), ka, session.Record{Sealed: sealed}, cur.Version); err != nil {
			t.Fatal(err)
		}
		_, err = f.load(alices)
		ended(t, err, session.ReasonTampered)
		// Signing in mends it.
		f.signIn(p.grant(alice), session.CreateOptions{})
		f.wantAccess(alices, p, p.issued)
	}
	// An older value of the same place is refused, too.
	old, err := f.store.Get(t.Context(), ka)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.store.Swap(t.Context(), ka, old, old.Version); err != nil {
		t.Fatal(err)
	}
	_, err = f.load(alices)
	ended(t, err, session.ReasonTampered)
	if strings.Count(f.logged(), "does not open") > 3 {
		t.Error("the log is flooded")
	}
	strange := sharing(t, f.store, func(o *session.Options) { o.Ring = ring(t, slices.Repeat([]byte{8}, 32)) })
	_, err = strange.load(alices)
	ended(t, err, session.ReasonKeyUnknown)
}

func TestExtraIsBounded(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(0)
	g.Extra = map[string]string{"a": strings.Repeat("x", 1023), "b": strings.Repeat("x", 1024), "": "empty"}
	for i := range 20 {
		g.Extra[fmt.Sprintf("n%02d", i)] = "v"
	}
	s, h := f.signIn(g, session.CreateOptions{})
	g.Extra["a"] = "changed by the caller"
	for _, s := range []*session.Session{s, replica(t, f.store, nil).mustLoad(h)} {
		_, long := s.Extra["b"]
		if len(s.Extra) != 16 || len(s.Extra["a"]) != 1023 || long || s.Extra["n13"] != "v" {
			t.Errorf("kept %d: %v", len(s.Extra), s.Extra)
		}
	}
}

// A provider that does not tell who signed in.
func TestSessionWithoutSubject(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 1 })
	g := f.grant(0)
	g.Subject, g.Identity = "", session.Identity{}
	s, h := f.signIn(g, session.CreateOptions{})
	_, h2 := f.signIn(g, session.CreateOptions{})
	f.mustLoad(h2)
	p := f.provider(time.Hour)
	if got, err := f.Refresh(t.Context(), f.mustLoad(h), p.refresh); err != nil || got.Tokens.Access != "access-1" {
		t.Errorf("refresh: %v, %v", got, err)
	}
	if !f.Revocable(t.Context(), s) {
		t.Error("not revocable")
	}
	if n, err := f.EndMatching(t.Context(), session.Match{SignIn: s.SignIn}, session.ReasonSignedOut); n != 1 || err != nil {
		t.Errorf("ended %d: %v", n, err)
	}
	f.mustLoad(h2)
	_, err := f.Refresh(t.Context(), f.mustLoad(h2), func(context.Context, *session.Session) (session.Grant, error) {
		return f.grant(0), nil
	})
	ended(t, err, session.ReasonRefreshRejected) // suddenly somebody
}

func TestLogTellsNoSharedSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		_, h := f.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		f.wantAccess(h, p, 2)
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		f.use(h, p)
		log := f.logged()
		if !strings.Contains(log, "shared grant") {
			t.Error("nothing logged")
		}
		for _, secret := range []string{"access-", "refresh-", alice, "group-", "picture-", issuer} {
			if strings.Contains(log, secret) {
				t.Errorf("log holds %q", secret)
			}
		}
	})
}

// Two browsers, three replicas, a real Redis: three refreshes each, and then everything is gone from the store.
func TestRedisSharedGrant(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	var rs []*fixture
	for range 3 {
		r := sharing(t, redisStore(t, server), nil)
		r.watch()
		rs = append(rs, r)
	}
	p := newJealous(rs[0], time.Hour)
	_, first := rs[0].signIn(p.grant(alice), session.CreateOptions{Browser: "Firefox"})
	_, second := rs[1].signIn(p.grant(alice), session.CreateOptions{Browser: "Edge"})
	for i := range 6 {
		r, h, also := rs[i%3], first, second
		if i%2 == 1 {
			h, also = second, first
		}
		// A refresh that another replica is about to hear of: ask the store, as a notice would make it do.
		s, err := r.load(h)
		if err != nil {
			t.Fatal(err)
		}
		for want := fmt.Sprintf("access-%d", i+2); s.Tokens.Access != want; {
			if s, err = r.load(h); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := r.Refresh(t.Context(), s, p.refresh); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got, err := r.load(also); err != nil || got.Tokens.Access != fmt.Sprintf("access-%d", i+3) {
			t.Fatalf("refresh %d: %v, %v", i, got, err)
		}
	}
	if sent, refused := p.count(); sent != 6 || refused != 0 {
		t.Errorf("%d refreshes, %d refused", sent, refused)
	}
	s := rs[0].mustLoad(first)
	dump := server.Dump()
	if key := rs[0].GrantKeys(s)[0]; !strings.Contains(dump, key) {
		t.Fatal("the dump misses the grant")
	}
	for _, secret := range []string{"refresh-", "access-", "group-", "picture-", alice, issuer, "Firefox"} {
		if strings.Contains(dump, secret) {
			t.Errorf("redis holds %q", secret)
		}
	}
	// Who has the dump and guesses who is in it, but has no key of the ring, opens nothing.
	rec, err := rs[0].store.Get(t.Context(), rs[0].GrantKeys(s)[0])
	if err != nil {
		t.Fatal(err)
	}
	place := []byte(rs[0].Place(rs[0].GrantKeys(s)[0], rec.Version))
	if _, _, err := ring(t, slices.Repeat([]byte{3}, 32)).OpenBytes("grant", rec.Sealed, place); !errors.Is(err, seal.ErrInvalid) {
		t.Errorf("opened: %v", err)
	}
	if _, _, err := ring(t).OpenBytes("grant", rec.Sealed, place); err != nil {
		t.Errorf("the test does not try what would open it: %v", err)
	}
	if ttl := server.Client().PTTL(t.Context(), "test:s:{"+rs[0].GrantKeys(s)[0]+"}").Val(); ttl < 12*time.Hour || ttl > 12*time.Hour+2*time.Minute {
		t.Errorf("the grant lives for %v", ttl)
	}

	if err := rs[2].End(t.Context(), rs[2].mustLoad(second), session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	s = rs[0].mustLoad(first)
	if err := rs[0].End(t.Context(), s, session.ReasonSignedOut); err != nil || !rs[0].Revocable(t.Context(), s) {
		t.Errorf("the last: %v", err)
	}
	if g := rs[1].StoredGrant(t.Context(), rs[1].GrantKeys(s)[0]); g.Tokens != (session.Tokens{}) {
		t.Error("tokens are left")
	}
	_, third := rs[2].signIn(p.grant(alice), session.CreateOptions{})
	rs[2].wantAccess(third, p, 9)
}

func TestRedisSharedGrantOutage(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	f := sharing(t, redisStore(t, server), nil)
	p := newJealous(f, time.Hour)
	_, h := f.signIn(p.grant(alice), session.CreateOptions{})
	server.Stop()
	if _, err := f.use(h, p); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	g := p.grant(alice)
	if _, _, err := f.Create(t.Context(), g, session.CreateOptions{}); !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("sign-in: %v, want ErrUnavailable", err)
	}
	server.Start()
	f.signIn(g, session.CreateOptions{})
	f.wantAccess(h, p, 2)
}

// before makes something happen once, right before the next operation op of f.
func (f *fixture) before(op string, happens func()) {
	var once sync.Once
	f.store.set(func(got string) error {
		if got == op {
			once.Do(happens)
		}
		return nil
	}, nil)
}

// The writes of others come between reading a grant and writing it.
func TestWritesOfOthersComeBetween(t *testing.T) {
	for name, act := range map[string]func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()){
		"sign-in": func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()) {
			g := p.grant(alice)
			time.Sleep(time.Second)
			a.before("swap grant", signIn)
			if s, _ := a.signIn(g, session.CreateOptions{}); s.Tokens.Access != "access-3" {
				t.Errorf("the older sign-in uses %s", s.Tokens.Access)
			}
		},
		"refresh": func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()) {
			time.Sleep(11 * time.Minute)
			a.before("swap grant", signIn)
			a.wantAccess(first, p, 3)
		},
		"note of an unknown outcome": func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()) {
			p.fail = errors.New("cut off")
			time.Sleep(11 * time.Minute)
			a.before("swap grant", signIn)
			a.wantAccess(first, p, 2)
		},
		"end of a refused grant": func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()) {
			p.valid[alice] = ""
			time.Sleep(11 * time.Minute)
			a.before("swap grant", signIn)
			a.wantAccess(first, p, 2)
		},
		"sign-out": func(t *testing.T, a *fixture, p *jealous, first http.Header, signIn func()) {
			s := a.mustLoad(first)
			a.before("swap grant", signIn)
			if err := a.End(t.Context(), s, session.ReasonSignedOut); err != nil || a.Revocable(t.Context(), s) {
				t.Errorf("revocable under a new session, or %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				a, b := sharing(t, store, nil), sharing(t, store, nil)
				p := newJealous(a, 10*time.Minute)
				_, first := a.signIn(p.grant(alice), session.CreateOptions{})
				var second http.Header
				act(t, a, p, first, func() { _, second = b.signIn(p.grant(alice), session.CreateOptions{}) })
				a.store.fail()
				b.wantAccess(second, p, p.issued)
				time.Sleep(11 * time.Minute)
				p.fail = nil
				b.wantAccess(second, p, p.issued+1)
				if name != "sign-out" {
					a.wantAccess(first, p, p.issued)
				}
			})
		})
	}
}

// What somebody noted about the refresh token meanwhile does not cost the refresh.
func TestNoteComesBetweenSharedRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a := sharing(t, leaseless{store}, nil)
		b := sharing(t, leaseless{store}, nil)
		p := newJealous(a, 10*time.Minute)
		_, h := a.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		b.clock.advance(30 * time.Second) // it stamps later than the refresh that comes after it
		a.before("swap grant", func() {
			s, err := b.load(h)
			if err != nil {
				t.Error(err)
				return
			}
			_, err = b.Fresh(t.Context(), s, func(context.Context, *session.Session) (session.Grant, error) {
				return session.Grant{}, errors.New("cut off")
			})
			if !errors.As(err, new(*session.RetryError)) {
				t.Errorf("got %v", err)
			}
		})
		a.wantAccess(h, p, 2)
		a.store.fail()
		b.wantAccess(h, p, 2)
	})
}

// The store goes away while a newer grant is looked for: that is no proof that there is none.
func TestStoreFailsDuringTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, h := a.signIn(p.grant(alice), session.CreateOptions{})
		time.Sleep(11 * time.Minute)
		g := p.grant(alice)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.use(h, p); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
		time.Sleep(5 * time.Second)
		a.store.fail("get grant")
		wg.Wait()
		a.store.fail()
		wg.Go(func() { time.Sleep(7 * time.Second); b.signIn(g, session.CreateOptions{}) })
		time.Sleep(2 * time.Second)
		a.wantAccess(h, p, 2)
		wg.Wait()
		if sent, refused := p.count(); sent != 1 || refused != 1 {
			t.Errorf("sent %d times", sent)
		}
	})
}

// A request that holds what it has loaded goes on though the grant has moved to the name under another key.
func TestMovedGrantIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		keyNew := slices.Repeat([]byte{9}, 32)
		before := sharing(t, store, func(o *session.Options) { o.Ring = ring(t, ringKey, keyNew) })
		after := sharing(t, store, func(o *session.Options) { o.Ring = ring(t, keyNew, ringKey) })
		defer before.watch()()
		p := newJealous(before, 10*time.Minute)
		_, h := before.signIn(p.grant(alice), session.CreateOptions{})
		held := before.mustLoad(h)
		after.signIn(p.grant(alice), session.CreateOptions{})
		synctest.Wait()
		before.wantAccess(h, p, 2)
		time.Sleep(11 * time.Minute)
		if s, err := before.Fresh(t.Context(), held, p.refresh); err != nil || s.Tokens.Access != "access-3" {
			t.Errorf("%v, %v", s, err)
		}
		after.wantAccess(h, p, 3)
	})
}

// A look for a newer grant ends with the manager.
func TestCloseDuringTheLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		_, h := f.signIn(p.grant(alice), session.CreateOptions{})
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.use(h, p); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
		})
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.Close(ctx)
		wg.Wait()
	})
}

// Signing in again in the same browser replaces the session, not the grant.
func TestReplacedSessionLeavesSharedGrant(t *testing.T) {
	f := sharing(t, nil, nil)
	p := newJealous(f, time.Hour)
	old, hOld := f.signIn(p.grant(alice), session.CreateOptions{})
	s, h := f.signIn(p.grant(alice), session.CreateOptions{Replaces: old, SignIn: old.SignIn})
	_, err := f.load(hOld)
	ended(t, err, session.ReasonReplaced)
	f.wantAccess(h, p, 2)
	if f.Revocable(t.Context(), old) {
		t.Error("the replaced session's grant may be revoked under the new one")
	}
	if err := f.End(t.Context(), s, session.ReasonSignedOut); err != nil || !f.Revocable(t.Context(), s) || !f.Revocable(t.Context(), old) {
		t.Errorf("the last one: %v", err)
	}
}

// failedOver is a store that has lost the writes of one record since old.
type failedOver struct {
	session.Store
	key string
	mu  sync.Mutex
	old session.Record
}

func (f *failedOver) Get(ctx context.Context, key string) (session.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.old.Version == 0 || key != f.key {
		return f.Store.Get(ctx, key)
	}
	return f.old, nil
}

func (f *failedOver) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.old.Version == 0 || key != f.key {
		return f.Store.Swap(ctx, key, rec, from)
	}
	if f.old.Version != from {
		return session.ErrConflict
	}
	f.old.Version, f.old.Sealed = from+1, rec.Sealed
	return nil
}

// After a failover a sign-in writes a lower version than others remember, and yet it is the newest grant.
func TestSharedGrantAfterFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &failedOver{Store: memstore.New(memstore.Options{})}
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		s, first := a.signIn(p.grant(alice), session.CreateOptions{})
		store.key = a.GrantKeys(s)[0]
		old, err := store.Get(t.Context(), store.key)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			time.Sleep(11 * time.Minute)
			a.wantAccess(first, p, 2+i)
		}
		store.mu.Lock()
		store.old = old
		store.mu.Unlock()
		// What the store has lost and this process has not is used...
		a.wantAccess(first, p, 4)
		for i := range 3 {
			time.Sleep(11 * time.Minute)
			a.wantAccess(first, p, 5+i)
			b.wantAccess(first, p, 5+i)
		}
		synctest.Wait()
		store.mu.Lock()
		store.old = old
		store.mu.Unlock()
		// ... until there is something newer.
		time.Sleep(time.Second)
		_, second := b.signIn(p.grant(alice), session.CreateOptions{})
		a.wantAccess(first, p, 8)
		b.wantAccess(second, p, 8)
		time.Sleep(11 * time.Minute)
		a.wantAccess(first, p, 9)
	})
}

// A failure is about the refresh token that was sent, not about the one that another replica got.
func TestFailureEndsWithTheNewGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, h := a.signIn(p.grant(alice), session.CreateOptions{})
		again := func(context.Context, *session.Session) (session.Grant, error) {
			return session.Grant{}, &session.RefreshError{Kind: session.Again, RetryAfter: 5 * time.Minute, Err: errors.New("503")}
		}
		if _, err := a.Refresh(t.Context(), a.mustLoad(h), again); !errors.As(err, new(*session.RetryError)) {
			t.Errorf("got %v, want a RetryError", err)
		}
		synctest.Wait()
		b.Refresh(t.Context(), b.mustLoad(h), p.refresh)
		synctest.Wait()
		if s, err := a.Refresh(t.Context(), a.mustLoad(h), p.refresh); err != nil || s.Tokens.Access != "access-3" {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// A sign-in that brings the refresh token that was refused a moment ago, allowed again, is a newer grant all the same.
func TestSameRefreshTokenComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := sharing(t, store, nil), sharing(t, store, nil)
		p := newJealous(a, 10*time.Minute)
		_, h := a.signIn(p.grant(alice), session.CreateOptions{})
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			start := time.Now()
			a.wantAccess(h, p, 2)
			if d := time.Since(start); d > 6*time.Second {
				t.Errorf("waited %v", d)
			}
		})
		time.Sleep(5 * time.Second)
		g := p.grant(alice)
		g.Tokens.Refresh = "refresh-1"
		b.signIn(g, session.CreateOptions{})
		wg.Wait()
	})
}

// A request that holds what it loaded before the grant was over gets no empty tokens.
func TestHeldSessionOfGoneGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := sharing(t, nil, nil)
		p := newJealous(f, 10*time.Minute)
		held, _ := f.signIn(p.grant(alice), session.CreateOptions{})
		s, h := f.signIn(p.grant(alice), session.CreateOptions{})
		p.valid[alice] = ""
		time.Sleep(11 * time.Minute)
		_, err := f.use(h, p)
		ended(t, err, session.ReasonRefreshRejected)
		synctest.Wait()
		for _, s := range []*session.Session{held, s} {
			_, err = f.Fresh(t.Context(), s, p.refresh)
			ended(t, err, session.ReasonRefreshRejected)
			_, err = f.Refresh(t.Context(), s, p.refresh)
			ended(t, err, session.ReasonRefreshRejected)
		}
	})
}
