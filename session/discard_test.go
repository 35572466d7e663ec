package session_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/redistest"
)

// bin collects discarded tokens.
type bin struct {
	mu  sync.Mutex
	all []session.Discarded
}

func (b *bin) take(_ context.Context, d session.Discarded) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, d)
}

func (b *bin) got() []session.Discarded {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all)
}

func (b *bin) options(without bool) func(*session.Options) {
	return func(o *session.Options) { o.Discarded, o.RevokeWithoutCookie = b.take, without }
}

func (f *fixture) settle() {
	f.t.Helper()
	if err := f.Close(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

// The tokens of a session that ended without its cookie come to light when that comes next: once, whatever replicas and requests see it.
func TestTokensAreDiscardedOnceWhenTheCookieComes(t *testing.T) {
	for name, store := range map[string]func() session.Store{
		"memory": func() session.Store { return memstore.New(memstore.Options{}) },
		"redis":  func() session.Store { return redisStore(t, redistest.Start(t, redistest.Options{Forgetful: true})) },
	} {
		t.Run(name, func(t *testing.T) {
			s, b := store(), &bin{}
			rs := []*fixture{replica(t, s, b.options(false)), replica(t, s, b.options(false)), replica(t, s, b.options(false))}
			made, h := rs[0].signIn(rs[0].grant(time.Hour), session.CreateOptions{})
			if n, err := rs[1].EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel); n != 1 || err != nil {
				t.Fatalf("ended %d, %v", n, err)
			}
			if got := b.got(); len(got) > 0 {
				t.Fatalf("%d discarded before they were known", len(got))
			}
			var wg sync.WaitGroup
			for i := range 60 {
				wg.Go(func() {
					r := rs[i%3]
					r.clock.advance(time.Second)
					_, err := r.load(h)
					ended(t, err, session.ReasonBackChannel)
				})
			}
			wg.Wait()
			for _, r := range rs {
				r.settle()
			}
			got := b.got()
			if len(got) != 1 {
				t.Fatalf("discarded %d times, want once", len(got))
			}
			if d := got[0]; d.Handle != made.Handle() || d.Reason != session.ReasonBackChannel || d.Tokens.Refresh != "refresh-0" ||
				d.Tokens.Access != "access-0" || d.Tokens.Scope != "openid" {
				t.Errorf("discarded %+v", d)
			}
			if rec, err := s.Get(t.Context(), made.ID()); err != nil || rs[0].TokensBehind(made.ID(), rec) || rec.Ended != session.ReasonBackChannel {
				t.Errorf("left: %d bytes, ended %q, %v", len(rec.Sealed), rec.Ended, err)
			}
		})
	}
}

// The replica that ends a session may have it in its cache. Then nothing waits for the cookie.
func TestTokensInTheCacheAreDiscardedAtOnce(t *testing.T) {
	b := &bin{}
	f := replica(t, nil, b.options(false))
	s, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	if n, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 1 || err != nil {
		t.Fatalf("ended %d, %v", n, err)
	}
	_, err := f.load(h)
	ended(t, err, session.ReasonAdmin)
	f.settle()
	if got := b.got(); len(got) != 1 || got[0].Tokens.Refresh != "refresh-0" {
		t.Errorf("discarded %+v", got)
	}
	if rec, _ := f.store.Get(t.Context(), s.ID()); f.TokensBehind(s.ID(), rec) {
		t.Error("left behind the tombstone")
	}
}

// The store does not answer when the cookie comes: its tokens are not forgotten.
func TestDiscardIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bin{}
		f := replica(t, nil, b.options(false))
		_, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		// By a replica that does not know its tokens.
		if _, err := replica(t, f.store, nil).EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); err != nil {
			t.Fatal(err)
		}
		f.store.fail("strip")
		_, err := replica(t, f.store, b.options(false)).load(h)
		ended(t, err, session.ReasonAdmin)
		time.Sleep(10 * time.Second)
		if len(b.got()) > 0 {
			t.Error("discarded, though another may do so too")
		}
		f.store.fail()
		time.Sleep(2 * time.Second)
		if len(b.got()) != 1 {
			t.Errorf("discarded %d times", len(b.got()))
		}
	})
}

// Who signs out has the tokens at hand; nothing is left to discard.
func TestEndWithItsCookieDiscardsNothing(t *testing.T) {
	b := &bin{}
	f := replica(t, nil, b.options(false))
	s, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	if err := f.End(t.Context(), s, session.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	_, err := replica(t, f.store, b.options(false)).load(h)
	ended(t, err, session.ReasonSignedOut)
	f.settle()
	if got := b.got(); len(got) > 0 {
		t.Errorf("discarded %+v", got)
	}
}

// With revoke_without_cookie the refresh token of today, not that of sign-in, comes to light at once, and nothing stays behind.
func TestRefreshTokenIsKnownWithoutItsCookie(t *testing.T) {
	for name, match := range map[string]session.Match{"by subject": {Subject: alice}, "by sign-in": {SignIn: "x"}, "by id": {}} {
		t.Run(name, func(t *testing.T) {
			b := &bin{}
			f := replica(t, nil, b.options(true))
			g := f.grant(time.Hour)
			g.Tokens.Scope = "openid offline_access"
			if name == "by sign-in" {
				g.Subject = "" // a provider that does not tell who it is
			}
			s, h := f.signIn(g, session.CreateOptions{SignIn: "x"})
			p := f.provider(time.Hour)
			for len(p.calls()) < 3 {
				_, err := f.Refresh(t.Context(), f.mustLoad(h), func(ctx context.Context, s *session.Session) (session.Grant, error) {
					n, err := p.refresh(ctx, s)
					n.Tokens.Scope = s.Tokens.Scope
					return n, err
				})
				if err != nil {
					t.Fatalf("refresh: %v", err)
				}
			}
			other := replica(t, f.store, b.options(true))
			if name == "by id" {
				if ok, err := other.EndID(t.Context(), s.ID(), match, session.ReasonAdmin); !ok || err != nil {
					t.Fatal(err)
				}
			} else if n, err := other.EndMatching(t.Context(), match, session.ReasonAdmin); n != 1 || err != nil {
				t.Fatalf("ended %d, %v", n, err)
			}
			got := b.got()
			if len(got) != 1 || got[0].Tokens != (session.Tokens{Refresh: "refresh-3", Scope: "openid offline_access"}) || got[0].Handle != s.Handle() {
				t.Errorf("discarded %+v", got)
			}
			if rec, _ := f.store.Get(t.Context(), s.ID()); f.TokensBehind(s.ID(), rec) {
				t.Error("sealed tokens stay behind the tombstone")
			}
			_, err := f.load(h)
			ended(t, err, session.ReasonAdmin)
			if len(b.got()) != 1 {
				t.Error("discarded twice")
			}
		})
	}
}

// A refresh that is stored between the look at a session and its end brings another token: that one is discarded.
func TestRefreshBeforeTheEndIsDiscarded(t *testing.T) {
	b := &bin{}
	f := replica(t, nil, b.options(true))
	_, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	p := f.provider(time.Hour)
	other := replica(t, f.store, b.options(true))
	other.store.set(func(op string) error {
		if op == "end" {
			if _, err := f.Refresh(t.Context(), f.mustLoad(h), p.refresh); err != nil {
				t.Error(err)
			}
		}
		return nil
	}, nil)
	if n, err := other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 1 || err != nil {
		t.Fatalf("ended %d, %v", n, err)
	}
	if got := b.got(); len(got) != 1 || got[0].Tokens.Refresh != "refresh-1" {
		t.Errorf("discarded %+v", got)
	}
}

// Without it, the keys of the deployment open no token.
func TestRefreshTokenIsNotKnownUnlessAskedFor(t *testing.T) {
	b := &bin{}
	f := replica(t, nil, b.options(false))
	f.signIn(f.grant(time.Hour), session.CreateOptions{})
	on := replica(t, f.store, b.options(true))
	if n, err := on.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); n != 1 || err != nil {
		t.Fatalf("ended %d, %v", n, err)
	}
	if got := b.got(); len(got) > 0 {
		t.Errorf("discarded %+v", got)
	}
}

// An end that the store took later, in the background, discards too.
func TestLateEndDiscards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bin{}
		f := replica(t, nil, b.options(true))
		f.signIn(f.grant(time.Hour), session.CreateOptions{})
		f.store.fail("end")
		if _, err := f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonAdmin); err == nil {
			t.Error("no error")
		}
		if len(b.got()) > 0 {
			t.Error("discarded the tokens of a session that lives")
		}
		f.store.fail()
		time.Sleep(2 * time.Second)
		if len(b.got()) != 1 {
			t.Errorf("discarded %d times", len(b.got()))
		}
	})
}

// Sessions that share a grant: the last one that ends gives the tokens up, once, and they leave the store.
func TestSharedGrantIsDiscardedWithItsLastSession(t *testing.T) {
	store, b := memstore.New(memstore.Options{}), &bin{}
	f := sharing(t, store, b.options(false))
	p := newJealous(f, time.Hour)
	var hs []http.Header
	var last *session.Session
	for range 3 {
		s, h := f.signIn(p.grant(alice), session.CreateOptions{})
		hs, last = append(hs, h), s
	}
	other := sharing(t, store, b.options(false))
	if n, err := other.EndMatching(t.Context(), session.Match{Subject: alice, Except: last.ID()}, session.ReasonSignedOut); n != 2 || err != nil {
		t.Fatalf("ended %d, %v", n, err)
	}
	if got := b.got(); len(got) > 0 {
		t.Fatalf("discarded under a living session: %+v", got)
	}
	f.wantAccess(hs[2], p, 3)
	if n, err := other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel); n != 1 || err != nil {
		t.Fatalf("ended %d, %v", n, err)
	}
	if got := b.got(); len(got) != 1 || got[0].Tokens.Refresh != "refresh-3" || got[0].Reason != session.ReasonBackChannel {
		t.Errorf("discarded %+v", got)
	}
	if g := f.StoredGrant(t.Context(), f.GrantKeys(last)[0]); g.Tokens != (session.Tokens{}) {
		t.Error("the store still holds them")
	}
	for _, h := range hs {
		if _, err := f.load(h); err == nil {
			t.Error("a session lives")
		}
	}
	f.settle()
	if len(b.got()) != 1 {
		t.Error("discarded twice")
	}
}
