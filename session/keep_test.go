package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
)

const keepFor = 5 * time.Minute

func keeping(o *session.Options) { o.KeepFor = keepFor }

// unavailableNow checks that h gets no session because the store does not answer, and is not signed out.
func unavailableNow(t *testing.T, f *fixture, what string, s *session.Session, err error) {
	t.Helper()
	if !errors.Is(err, session.ErrUnavailable) {
		t.Errorf("%s: got %v, %v, want ErrUnavailable", what, s, err)
	}
}

// Issue 4, item 4: what the cache holds is served while the store is down, so long after the store was last asked and no longer.
func TestKeepServesWhileTheStoreIsDown(t *testing.T) {
	for _, shared := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := replica(t, nil, func(o *session.Options) { keeping(o); o.SharedGrant = shared })
			defer f.watch()()
			_, h := f.signIn(f.grant(0), session.CreateOptions{})
			_, unread := f.signIn(f.grant(0), session.CreateOptions{})
			time.Sleep(10 * time.Second)
			s := f.mustLoad(h) // confirmed now
			down := replica(t, f.store, keeping)
			f.store.fail("all")
			time.Sleep(keepFor - time.Nanosecond)
			if got, err := f.load(h); err != nil || got != s {
				t.Errorf("shared %v: until the end of keep: %v", shared, err)
			}
			time.Sleep(time.Nanosecond)
			got, err := f.load(h)
			unavailableNow(t, f, "afterwards", got, err)
			got, err = f.load(unread) // last confirmed when it was made
			unavailableNow(t, f, "confirmed earlier", got, err)
			got, err = down.load(h)
			unavailableNow(t, f, "never read here", got, err)
			f.store.fail()
			f.mustLoad(h)
		})
	}
}

func TestKeepIsOffByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		_, h := f.signIn(f.grant(0), session.CreateOptions{})
		f.store.fail("all")
		got, err := f.load(h)
		unavailableNow(t, f, "by default", got, err)
	})
}

// A store that answers is believed, and a client that left is no store that is down.
func TestKeepIsForAStoreThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, keeping)
		_, h := f.signIn(f.grant(0), session.CreateOptions{})
		f.mustLoad(h)
		f.store.set(func(string) error { time.Sleep(time.Second); return nil }, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		got, err := f.Load(ctx, h)
		unavailableNow(t, f, "client left", got, err)
		time.Sleep(2 * time.Second)
		synctest.Wait() // the read that nobody waits for is over
		f.store.Store = memstore.New(memstore.Options{})
		_, err = f.load(h)
		ended(t, err, session.ReasonStoreMiss)
	})
}

func TestKeepObeysIdleTimeoutAndLifetime(t *testing.T) {
	for _, limit := range []string{"idle", "lifetime"} {
		synctest.Test(t, func(t *testing.T) {
			f := replica(t, nil, func(o *session.Options) {
				o.KeepFor, o.IdleTimeout, o.Lifetime = time.Hour, 10*time.Minute, 30*time.Minute
			})
			s, h := f.signIn(f.grant(0), session.CreateOptions{})
			f.store.fail("all")
			if limit == "idle" {
				time.Sleep(10*time.Minute - time.Second)
				f.mustLoad(h)
				time.Sleep(time.Second)
				got, err := f.load(h)
				unavailableNow(t, f, "idle", got, err) // used elsewhere? the store would know
				return
			}
			for range 29 {
				time.Sleep(time.Minute)
				f.Touch(f.mustLoad(h))
			}
			time.Sleep(time.Until(s.Ends))
			_, err := f.load(h)
			ended(t, err, session.ReasonLifetime)
		})
	}
}

// A180: what this process knows to have ended is not served from memory, whatever keep says, whether or not the store took the end.
func TestA180_KeepNeverServesWhatEnded(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, f, other *fixture, s *session.Session){
		"ended here": func(t *testing.T, f, _ *fixture, s *session.Session) {
			f.End(t.Context(), s, session.ReasonSignedOut)
		},
		"the store did not take it": func(t *testing.T, f, _ *fixture, s *session.Session) {
			f.store.fail("all")
			f.End(t.Context(), s, session.ReasonSignedOut)
		},
		"the store did not take it, and answered in between": func(t *testing.T, f, _ *fixture, s *session.Session) {
			f.store.fail("end")
			f.End(t.Context(), s, session.ReasonSignedOut)
			f.load(f.cookies)
		},
		"ended elsewhere, read here": func(t *testing.T, f, other *fixture, s *session.Session) {
			other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
			synctest.Wait()
			f.load(f.cookies)
		},
		"ended elsewhere, noticed here": func(t *testing.T, f, other *fixture, s *session.Session) {
			other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
			synctest.Wait()
		},
		"ended elsewhere, noticed here, and the store down since": func(t *testing.T, f, other *fixture, s *session.Session) {
			f.store.fail("all")
			other.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
			synctest.Wait()
		},
		"rejected by the provider": func(t *testing.T, f, _ *fixture, s *session.Session) {
			p := f.provider(time.Minute)
			p.fail = func(int) error {
				f.store.fail("end")
				return &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
			}
			f.Refresh(t.Context(), s, p.refresh)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				f, other := replica(t, store, keeping), replica(t, store, nil)
				defer f.watch()()
				_, f.cookies = f.signIn(f.grant(0), session.CreateOptions{})
				s := f.mustLoad(f.cookies)
				end(t, f, other, s)
				f.store.fail("all")
				for range 10 {
					time.Sleep(7 * time.Second)
					if got, err := f.load(f.cookies); err == nil {
						t.Fatalf("served %v", got.Handle())
					}
				}
			})
		})
	}
}

// A refresh by another replica, right before the store fails, costs nobody the session.
func TestKeepServesWhatChangedRightBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		f, other := replica(t, store, keeping), replica(t, store, nil)
		defer f.watch()()
		_, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
		f.mustLoad(h)
		if _, err := other.Refresh(t.Context(), other.mustLoad(h), f.provider(time.Hour).refresh); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.store.fail("all")
		time.Sleep(time.Minute)
		if got, err := f.load(h); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("got %v", err)
		}
	})
}

// While the access token is valid the session serves. When a refresh is needed and the store is down, nothing is sent.
func TestKeepServesNoLongerThanTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, func(o *session.Options) { o.KeepFor = time.Hour })
		defer f.watch()()
		p := f.provider(10 * time.Minute)
		_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
		f.store.fail("all")
		for range 9 {
			time.Sleep(time.Minute)
			if _, err := f.Fresh(t.Context(), f.mustLoad(h), p.refresh); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		got, err := f.Fresh(t.Context(), f.mustLoad(h), p.refresh)
		unavailableNow(t, f, "the token has run out", got, err)
		f.store.fail()
		time.Sleep(2 * time.Second)
		if got, err := f.Fresh(t.Context(), f.mustLoad(h), p.refresh); err != nil || got.Tokens.Access != "access-1" || len(p.calls()) != 1 {
			t.Errorf("the store is back: %v, sent %v", err, p.calls())
		}
	})
}
