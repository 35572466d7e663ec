package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
)

// refreshed signs Alice in with a token of that life and returns what the tests need.
func refreshed(t *testing.T, life time.Duration) (*fixture, *provider, func() *session.Session) {
	f := replica(t, nil, nil)
	_, h := f.signIn(f.grant(life), session.CreateOptions{})
	return f, f.provider(life), func() *session.Session { t.Helper(); return f.mustLoad(h) }
}

func TestFreshLeavesAloneWhatIsNotDue(t *testing.T) {
	f, p, load := refreshed(t, 10*time.Minute)
	s := load()
	if got, err := f.Fresh(t.Context(), s, p.refresh); got != s || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	g := f.grant(0) // no expiry known: never due
	eternal, _ := f.signIn(g, session.CreateOptions{})
	f.clock.advance(11 * time.Hour)
	if got, err := f.Fresh(t.Context(), eternal, p.refresh); got != eternal || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if len(p.calls()) != 0 || !eternal.RefreshDue().IsZero() {
		t.Error("a token without a known expiry was refreshed")
	}
}

func TestRefreshIsDueAtMostAThirdBeforeExpiry(t *testing.T) {
	f := replica(t, nil, nil)
	for life, before := range map[time.Duration]time.Duration{
		time.Hour: time.Minute, 3 * time.Minute: time.Minute, 90 * time.Second: 30 * time.Second, 3 * time.Second: time.Second,
	} {
		s, _ := f.signIn(f.grant(life), session.CreateOptions{})
		if got := s.Tokens.Expiry.Sub(s.RefreshDue()); got.Round(10*time.Millisecond) != before {
			t.Errorf("token of %v: due %v before its expiry, want %v", life, got, before)
		}
	}
}

// The storm: 200 requests at the moment of expiry, a provider that takes seconds, rotates, and refuses spent tokens.
func TestStormIsOneExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p, load := refreshed(t, 10*time.Minute)
		p.delay = 3 * time.Second
		time.Sleep(10 * time.Minute)
		s := load()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				got, err := a.Fresh(t.Context(), s, p.refresh)
				if err != nil || got.Tokens.Access != "access-1" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		// A latecomer still holds the old view.
		if got, err := a.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("latecomer: %v", err)
		}
		if n := len(p.calls()); n != 1 {
			t.Errorf("%d exchanges, want 1", n)
		}
		if n := a.store.count("acquire"); n != 1 {
			t.Errorf("the latecomer took the lease again")
		}
	})
}

// The same over three replicas: one exchange, and few operations of the store for those who wait.
func TestStormOverReplicasIsOneExchange(t *testing.T) {
	for _, notices := range []bool{true, false} {
		t.Run(fmt.Sprintf("notices=%v", notices), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				a := replica(t, store, nil)
				rs := []*fixture{a, replica(t, store, nil), replica(t, store, nil)}
				for _, r := range rs {
					if notices {
						defer r.watch()()
					}
				}
				_, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
				p := a.provider(10 * time.Minute)
				p.delay = 3 * time.Second
				time.Sleep(10 * time.Minute)
				var wg sync.WaitGroup
				for i := range 300 {
					wg.Go(func() {
						r := rs[i%3]
						s, err := r.load(h)
						if err != nil {
							t.Error(err)
							return
						}
						if got, err := r.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
							t.Errorf("got %v", err)
						}
					})
				}
				wg.Wait()
				if n := len(p.calls()); n != 1 {
					t.Errorf("%d exchanges, want 1", n)
				}
				for i, r := range rs[1:] {
					t.Logf("replica %d: %d acquire, %d get", i+1, r.store.count("acquire"), r.store.count("get"))
				}
				if notices {
					waiting := 0
					for _, r := range rs {
						if r.store.count("swap") == 0 {
							waiting++
							// The first load of a replica is one of these reads.
							if n := r.store.count("acquire") + r.store.count("get"); n > 1+3 {
								t.Errorf("a replica that waits made %d store operations", n)
							}
						}
					}
					if waiting != 2 {
						t.Errorf("%d replicas waited, want 2", waiting)
					}
				}
			})
		})
	}
}

func TestNobodyWaitsWhileTheTokenIsUsable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.delay = 3 * time.Second
		time.Sleep(9*time.Minute + time.Second)
		start := time.Now()
		for range 10 {
			if got, err := f.Fresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-0" {
				t.Fatalf("got %v", err)
			}
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v though the token is valid", waited)
		}
		time.Sleep(4 * time.Second)
		if got := load(); got.Tokens.Access != "access-1" || len(p.calls()) != 1 {
			t.Errorf("afterwards: %s, %d exchanges", got.Tokens.Access, len(p.calls()))
		}
		// In the last seconds everybody waits: it would expire on its way upstream.
		time.Sleep(10*time.Minute - 6*time.Second)
		if got, err := f.Fresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-2" {
			t.Errorf("in the last seconds: %v", err)
		}
	})
}

// A closed tab never loses a rotated token.
func TestClientLeavesDuringRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.delay = 3 * time.Second
		time.Sleep(10 * time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := f.Fresh(ctx, load(), p.refresh)
		var retry *session.RetryError
		if !errors.As(err, &retry) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want RetryError that names the deadline", err)
		}
		time.Sleep(3 * time.Second)
		if got := load(); got.Tokens.Refresh != "refresh-1" {
			t.Errorf("stored %q", got.Tokens.Refresh)
		}
		if got, err := f.Fresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-1" || len(p.calls()) != 1 {
			t.Errorf("got %v after %d exchanges", err, len(p.calls()))
		}
	})
}

func TestCloseWaitsForRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.delay = 3 * time.Second
		time.Sleep(9*time.Minute + 30*time.Second)
		s := load()
		if _, err := f.Fresh(t.Context(), s, p.refresh); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		rec, _ := f.store.Get(t.Context(), s.Key())
		if rec.Version != 2 {
			t.Error("closed before the rotated token was stored")
		}
		// Requests that still run get what is valid, and no new exchange begins.
		time.Sleep(30 * time.Minute)
		if _, err := f.Fresh(t.Context(), load(), p.refresh); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCloseGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		time.Sleep(9*time.Minute + 30*time.Second)
		f.store.fail("swap")
		f.Fresh(t.Context(), load(), p.refresh)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		synctest.Wait()
		if n := f.Flights(); n != 0 {
			t.Errorf("%d flights go on", n)
		}
	})
}

// A176: ended while it is refreshed, it stays ended.
func TestEndDuringRefreshIsNotUndone(t *testing.T) {
	f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 0 })
	f.watch()
	for i := range 1000 {
		g := f.grant(time.Minute)
		g.Tokens.Obtained = g.Tokens.Obtained.Add(-2 * time.Minute)
		g.Tokens.Expiry = f.clock.now().Add(-time.Second)
		s, h := f.signIn(g, session.CreateOptions{})
		p := f.provider(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() {
			if got, err := f.Fresh(t.Context(), s, p.refresh); err == nil && got.Tokens.Access != "access-1" {
				t.Errorf("got %s", got.Tokens.Access)
			}
		})
		wg.Go(func() {
			if i%2 == 0 {
				time.Sleep(time.Duration(i%50) * time.Microsecond)
			}
			if err := f.End(context.Background(), s, session.ReasonSignedOut); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		_, err := f.load(h)
		ended(t, err, session.ReasonSignedOut)
		rec, err := f.store.Get(t.Context(), s.Key())
		if err != nil || rec.Ended != session.ReasonSignedOut || rec.Sealed != nil {
			t.Fatalf("race %d: the store has %q, %v", i, rec.Ended, err)
		}
	}
}

func TestEndBetweenExchangeAndWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p, load := refreshed(t, 10*time.Minute)
		b := replica(t, a.store, nil)
		time.Sleep(10 * time.Minute)
		s := load()
		p.hold, p.begun = make(chan struct{}), make(chan struct{}, 1)
		go func() {
			<-p.begun
			if _, err := b.EndMatching(context.Background(), session.Match{Subject: alice}, session.ReasonBackChannel); err != nil {
				t.Error(err)
			}
			close(p.hold)
		}()
		_, err := a.Fresh(t.Context(), s, p.refresh)
		ended(t, err, session.ReasonBackChannel)
	})
}

func TestLostAnswerOfWriteIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		time.Sleep(10 * time.Minute)
		s := load()
		f.store.set(nil, func(op string) error {
			if op == "swap" {
				return errStore
			}
			return nil
		})
		got, err := f.Fresh(t.Context(), s, p.refresh)
		if err != nil || got.Tokens.Access != "access-1" {
			t.Fatalf("got %v", err)
		}
		synctest.Wait()
		if n := f.store.count("swap"); n != 1 {
			t.Errorf("written %d times though the first was taken", n)
		}
		if n := strings.Count(f.logged(), "session refreshed"); n != 1 {
			t.Errorf("taken for a write of someone else: logged %d times", n)
		}
		if got := load(); got.Version != 2 {
			t.Errorf("version %d", got.Version)
		}
	})
}

// The store goes away between the exchange and the write.
func TestRotatedTokenIsWrittenLater(t *testing.T) {
	for _, lost := range []bool{false, true} { // lost: the first write happens, but nobody learns it
		t.Run(fmt.Sprintf("lost=%v", lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := replica(t, nil, nil)
				_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
				p := f.provider(10 * time.Minute)
				time.Sleep(10 * time.Minute)
				s := f.mustLoad(h)
				p.hold, p.begun = make(chan struct{}), make(chan struct{}, 1)
				go func() {
					<-p.begun
					var swaps atomic.Int32
					fail := func(op string) error {
						if lost && op == "swap" && swaps.Add(1) == 1 {
							return nil
						}
						return errStore
					}
					f.store.set(fail, func(string) error { return errStore })
					close(p.hold)
				}()
				got, err := f.Fresh(t.Context(), s, p.refresh)
				if err != nil || got.Tokens.Access != "access-1" {
					t.Fatalf("got %v", err)
				}
				time.Sleep(time.Minute)
				if got, err := f.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
					t.Errorf("a request with the old view: %v", err)
				}
				if _, err := f.load(h); !errors.Is(err, session.ErrUnavailable) {
					t.Errorf("load during the outage: %v", err)
				}
				f.store.fail()
				// The store answers again and may still have the old version; this process knows better.
				if got := f.mustLoad(h); got.Tokens.Access != "access-1" {
					t.Errorf("loaded %s", got.Tokens.Access)
				}
				time.Sleep(2 * time.Second)
				other := replica(t, f.store.Store, nil)
				if got := other.mustLoad(h); got.Tokens.Refresh != "refresh-1" {
					t.Errorf("another replica reads %s", got.Tokens.Refresh)
				}
				if n := len(p.calls()); n != 1 || f.Flights() != 0 {
					t.Errorf("%d exchanges, %d flights", n, f.Flights())
				}
			})
		})
	}
}

func TestRotatedTokenIsWrittenDuringClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		time.Sleep(9*time.Minute + 30*time.Second)
		s := load()
		f.store.fail("swap")
		f.Fresh(t.Context(), s, p.refresh)
		synctest.Wait()
		time.AfterFunc(5*time.Second, func() { f.store.fail() })
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rec, _ := f.store.Get(t.Context(), s.Key()); rec.Version != 2 {
			t.Error("closed without writing the rotated token")
		}
	})
}

func TestNothingIsSentWithoutTheStore(t *testing.T) {
	for _, op := range []string{"acquire", "get"} {
		synctest.Test(t, func(t *testing.T) {
			f, p, load := refreshed(t, 10*time.Minute)
			time.Sleep(9*time.Minute + 30*time.Second)
			s := load()
			f.store.fail(op)
			if got, err := f.Fresh(t.Context(), s, p.refresh); got != s || err != nil {
				t.Errorf("%s, valid token: %v", op, err)
			}
			time.Sleep(30 * time.Second)
			if _, err := f.Fresh(t.Context(), s, p.refresh); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("%s, expired token: %v", op, err)
			}
			if len(p.calls()) != 0 {
				t.Errorf("%s: sent without lease", op)
			}
			f.store.fail()
			time.Sleep(time.Second)
			if got, err := f.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
				t.Errorf("%s, after the outage: %v", op, err)
			}
		})
	}
}

func TestRejectedEndsTheSessionOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
		p := f.provider(10 * time.Minute)
		p.fail = func(int) error {
			return &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
		}
		time.Sleep(10 * time.Minute)
		s := f.mustLoad(h)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := f.Fresh(t.Context(), s, p.refresh)
				ended(t, err, session.ReasonRefreshRejected)
			})
		}
		wg.Wait()
		_, err := f.load(h)
		ended(t, err, session.ReasonRefreshRejected)
		_, err = replica(t, f.store, nil).load(h)
		ended(t, err, session.ReasonRefreshRejected)
		if n := strings.Count(f.logged(), `msg="session ended"`); n != 1 || len(p.calls()) != 1 {
			t.Errorf("ended %d times after %d exchanges", n, len(p.calls()))
		}
	})
}

// The store does not take the end: the refused token is not sent again all the same.
func TestRejectedIsRememberedWithoutTheStore(t *testing.T) {
	for _, ops := range [][]string{{"end"}, {"end", "get"}} {
		synctest.Test(t, func(t *testing.T) {
			f := replica(t, nil, nil)
			_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
			p := f.provider(10 * time.Minute)
			p.fail = func(int) error {
				f.store.fail(ops...)
				return &session.RefreshError{Kind: session.Rejected, Err: errors.New("invalid_grant")}
			}
			time.Sleep(10 * time.Minute)
			s := f.mustLoad(h)
			for range 10 {
				if _, err := f.Fresh(t.Context(), s, p.refresh); err == nil {
					t.Error("refreshed")
				}
				time.Sleep(2 * time.Second)
			}
			f.store.fail()
			time.Sleep(2 * time.Second)
			_, err := f.Fresh(t.Context(), s, p.refresh)
			ended(t, err, session.ReasonRefreshRejected)
			_, err = f.load(h)
			ended(t, err, session.ReasonRefreshRejected)
			if n := len(p.calls()); n != 1 {
				t.Errorf("%v: the refused token was sent %d times", ops, n)
			}
			time.Sleep(2 * time.Second)
			_, err = replica(t, f.store.Store, nil).load(h)
			ended(t, err, session.ReasonRefreshRejected)
		})
	}
}

// Another replica has won though we held the lease: ours was refused because it came too late.
func TestRejectedButAnotherReplicaHasWon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := replica(t, nil, nil)
		_, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
		p := a.provider(10 * time.Minute)
		time.Sleep(10 * time.Minute)
		s := a.mustLoad(h)
		b := replica(t, &leaseless{a.store.Store}, nil)
		mine := func(ctx context.Context, s *session.Session) (session.Grant, error) {
			if _, err := b.Fresh(ctx, b.mustLoad(h), p.refresh); err != nil {
				t.Error(err)
			}
			return p.refresh(ctx, s)
		}
		got, err := a.Fresh(t.Context(), s, mine)
		if err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("got %v", err)
		}
		if want := []string{"refresh-0", "refresh-0"}; !slices.Equal(p.calls(), want) {
			t.Errorf("sent %v", p.calls())
		}
	})
}

// leaseless is a store that gives every lease, as after a failover.
type leaseless struct{ session.Store }

func (leaseless) Acquire(context.Context, string, string, time.Duration) (bool, error) {
	return true, nil
}

// S36, and the conformance test oidcc-client-test-refresh-token-invalid-sub: no token of someone else is ever used.
func TestRefreshNeverChangesThePerson(t *testing.T) {
	for name, change := range map[string]func(*session.Grant) error{
		"subject":    func(g *session.Grant) error { g.Subject = "mallory"; return nil },
		"no subject": func(g *session.Grant) error { g.Subject = ""; return nil },
		"issuer":     func(g *session.Grant) error { g.Issuer = "https://evil.example"; return nil },
		"by idp": func(*session.Grant) error {
			return &session.RefreshError{Kind: session.Invalid, Err: errors.New("sub")}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, p, load := refreshed(t, 10*time.Minute)
			time.Sleep(9*time.Minute + 30*time.Second)
			s := load()
			_, err := f.Refresh(t.Context(), s, func(ctx context.Context, s *session.Session) (session.Grant, error) {
				g, err := p.refresh(ctx, s)
				return g, errors.Join(err, change(&g))
			})
			if e := (*session.EndedError)(nil); !errors.As(err, &e) || e.Reason != session.ReasonRefreshRejected {
				t.Errorf("%s: got %v", name, err)
			}
			if rec, _ := f.store.Get(t.Context(), s.Key()); rec.Ended != session.ReasonRefreshRejected {
				t.Errorf("%s: the session lives", name)
			}
		})
	}
}

// 429 and its like: the session stays, the provider is left alone as it asked, and the same token is sent again.
func TestAgainBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.fail = func(n int) error {
			if n <= 3 {
				return &session.RefreshError{Kind: session.Again, RetryAfter: 20 * time.Second, Err: errors.New("429")}
			}
			return nil
		}
		time.Sleep(9*time.Minute + time.Second) // 59 s left
		for range 55 {                          // served with the valid token meanwhile
			if got, err := f.Fresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-0" {
				t.Fatalf("got %v", err)
			}
			time.Sleep(time.Second)
		}
		if n := len(p.calls()); n != 3 {
			t.Errorf("%d sends in 55 s with Retry-After: 20", n)
		}
		time.Sleep(4 * time.Second) // expired
		_, err := f.Fresh(t.Context(), load(), p.refresh)
		var retry *session.RetryError
		if !errors.As(err, &retry) || retry.After < time.Second || retry.After > 2*time.Second {
			t.Errorf("got %v, want RetryError for what is left of the 20 s", err)
		}
		time.Sleep(2 * time.Second)
		if got, err := f.Fresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("got %v", err)
		}
	})
}

func TestAgainWithoutTimeDoublesThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, time.Minute)
		var at []time.Duration
		start := time.Now()
		p.fail = func(int) error {
			at = append(at, time.Since(start))
			return &session.RefreshError{Kind: session.Again, RetryAfter: 24 * time.Hour * time.Duration(len(at)/8), Err: errors.New("refused")}
		}
		time.Sleep(time.Minute)
		start = time.Now()
		for time.Since(start) < 500*time.Second {
			if _, err := f.Fresh(t.Context(), load(), p.refresh); err == nil {
				t.Fatal("refreshed")
			}
			f.Touch(load())
			time.Sleep(time.Second)
		}
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 391} // the last pause: a day, cut to five minutes
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(at, want) {
			t.Errorf("sent at %v, want %v", at, want)
		}
	})
}

// After an unknown outcome the token is sent at most once more, and only when the current one has expired, whoever sends it.
func TestUnknownIsSentOnceMoreAfterExpiry(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprintf("elsewhere=%v", elsewhere), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := replica(t, nil, nil)
				_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
				p := f.provider(10 * time.Minute)
				p.fail = func(n int) error {
					if n == 1 {
						return errors.New("connection reset") // not a RefreshError: unknown
					}
					return nil
				}
				second := f
				if elsewhere {
					second = replica(t, f.store, nil)
				}
				time.Sleep(9*time.Minute + time.Second)
				f.Fresh(t.Context(), f.mustLoad(h), p.refresh)
				synctest.Wait()
				for range 58 {
					time.Sleep(time.Second)
					if got, err := second.Fresh(t.Context(), second.mustLoad(h), p.refresh); err != nil || got.Tokens.Access != "access-0" {
						t.Fatalf("while it is valid: %v", err)
					}
				}
				_, err := second.Refresh(t.Context(), second.mustLoad(h), p.refresh)
				if retry := (*session.RetryError)(nil); !errors.As(err, &retry) {
					t.Errorf("forced: got %v", err)
				}
				if n := len(p.calls()); n != 1 {
					t.Fatalf("sent %d times before it expired", n)
				}
				time.Sleep(time.Second)
				got, err := second.Fresh(t.Context(), second.mustLoad(h), p.refresh)
				if err != nil || got.Tokens.Access != "access-1" || len(p.calls()) != 2 {
					t.Errorf("after expiry: %v, sent %v", err, p.calls())
				}
			})
		})
	}
}

func TestUnknownTwiceEndsTheSession(t *testing.T) {
	for _, stored := range []bool{true, false} { // whether the store took the note
		t.Run(fmt.Sprintf("stored=%v", stored), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, p, load := refreshed(t, 10*time.Minute)
				p.fail = func(int) error { return &session.RefreshError{Kind: session.Unknown, Err: errors.New("502")} }
				if !stored {
					f.store.fail("swap")
				}
				time.Sleep(10 * time.Minute)
				s := load()
				_, err := f.Fresh(t.Context(), s, p.refresh)
				var retry *session.RetryError
				if !errors.As(err, &retry) || retry.After != 5*time.Second {
					t.Fatalf("got %v, want RetryError after 5 s", err)
				}
				time.Sleep(4 * time.Second)
				if _, err := f.Fresh(t.Context(), s, p.refresh); !errors.As(err, &retry) {
					t.Fatalf("got %v", err)
				}
				time.Sleep(time.Second)
				_, err = f.Fresh(t.Context(), s, p.refresh)
				ended(t, err, session.ReasonRefreshRejected)
				if n := len(p.calls()); n != 2 {
					t.Errorf("sent %d times", n)
				}
			})
		})
	}
}

func TestExchangeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.delay = time.Hour
		time.Sleep(10 * time.Minute)
		start := time.Now()
		_, err := f.Fresh(t.Context(), load(), p.refresh)
		if retry := (*session.RetryError)(nil); !errors.As(err, &retry) || time.Since(start) != 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestPanicOfRefreshIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, load := refreshed(t, 10*time.Minute)
		time.Sleep(10 * time.Minute)
		_, err := f.Fresh(t.Context(), load(), func(context.Context, *session.Session) (session.Grant, error) { panic("bug") })
		if retry := (*session.RetryError)(nil); !errors.As(err, &retry) {
			t.Errorf("got %v", err)
		}
	})
}

// A166: the holder of the lease is gone. The session is usable again within the lease time and one exchange.
func TestDeadHolderOfTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		defer f.watch()()
		time.Sleep(10 * time.Minute)
		s := load()
		if ok, err := f.store.Store.Acquire(t.Context(), s.Key(), "the dead", 15*time.Second); !ok || err != nil {
			t.Fatal(ok, err)
		}
		start := time.Now()
		got, err := f.Fresh(t.Context(), s, p.refresh)
		if err != nil || got.Tokens.Access != "access-1" {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(start); took > 16*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// The lease is kept while the exchange runs, and given back afterwards.
func TestLeaseOutlivesTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		time.Sleep(10 * time.Minute)
		s := load()
		p.delay = 9 * time.Second
		f.store.set(func(op string) error {
			if op == "get" || op == "swap" { // the store is slow, too: all that takes longer than one lease
				time.Sleep(4 * time.Second)
			}
			return nil
		}, nil)
		go f.Fresh(t.Context(), s, p.refresh)
		for range 16 {
			time.Sleep(time.Second)
			if ok, _ := f.store.Store.Acquire(t.Context(), s.Key(), "thief", time.Second); ok {
				t.Fatal("the lease was free while a token was being exchanged")
			}
		}
		time.Sleep(2 * time.Second)
		if ok, _ := f.store.Store.Acquire(t.Context(), s.Key(), "next", time.Second); !ok {
			t.Error("the lease was not given back")
		}
	})
}

func TestTokenWithoutRefreshTokenEnds(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(10 * time.Minute)
	g.Tokens.Refresh = ""
	s, h := f.signIn(g, session.CreateOptions{})
	if !s.RefreshDue().IsZero() {
		t.Error("due without a refresh token")
	}
	f.clock.advance(10*time.Minute - time.Second)
	if got, err := f.Fresh(t.Context(), s, nil); got != s || err != nil {
		t.Errorf("got %v", err)
	}
	if got, err := f.Refresh(t.Context(), s, nil); got != s || err != nil {
		t.Errorf("forced: got %v", err)
	}
	f.clock.advance(time.Second)
	_, err := f.Fresh(t.Context(), s, nil)
	ended(t, err, session.ReasonTokenExpired)
	_, err = f.load(h)
	ended(t, err, session.ReasonTokenExpired)
}

func TestRefreshKeepsWhatDidNotComeAgain(t *testing.T) {
	f := replica(t, nil, nil)
	g := f.grant(10 * time.Minute)
	g.SID = "sid-1"
	s, h := f.signIn(g, session.CreateOptions{})
	got, err := f.Refresh(t.Context(), s, func(_ context.Context, s *session.Session) (session.Grant, error) {
		g := session.Grant{Issuer: issuer, Subject: alice, Identity: session.Identity{User: alice, Groups: []string{"dev"}}}
		g.Tokens.Access, g.Tokens.Expiry = "access-1", f.clock.now().Add(time.Hour)
		return g, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Tokens.Refresh != "refresh-0" || got.Tokens.ID != "id-0" || got.SID != "sid-1" || !got.AuthTime.Equal(s.AuthTime) {
		t.Errorf("lost something: %+v", got.Grant)
	}
	if len(got.Identity.Groups) != 1 || got.Created != s.Created || got.Ends != s.Ends || got.Version != 2 {
		t.Errorf("rules need the new groups, limits the old times: %+v", got)
	}
	if loaded := f.mustLoad(h); loaded.Tokens.Access != "access-1" {
		t.Errorf("loaded %s", loaded.Tokens.Access)
	}
}

func TestForcedRefreshesShareOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.delay = time.Second
		s := load()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := f.Refresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if len(p.calls()) != 1 {
			t.Errorf("%d exchanges", len(p.calls()))
		}
	})
}

// A provider that hands out expired tokens is not asked for every request.
func TestExpiredTokensCauseNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, time.Minute)
		p.life = -time.Second
		time.Sleep(time.Minute)
		for range 100 {
			f.Fresh(t.Context(), load(), p.refresh)
		}
		if n := len(p.calls()); n != 1 {
			t.Errorf("%d exchanges for 100 requests", n)
		}
	})
}

// The copy in this process does not know that it is over: the refresh token of an ended session is not even sent.
func TestNothingIsSentForAnEndedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, p, load := refreshed(t, 10*time.Minute)
		b := replica(t, a.store, nil)
		time.Sleep(10 * time.Minute)
		s := load()
		if _, err := b.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel); err != nil {
			t.Fatal(err)
		}
		_, err := a.Fresh(t.Context(), s, p.refresh)
		ended(t, err, session.ReasonBackChannel)
		if n := len(p.calls()); n != 0 {
			t.Errorf("sent %d times", n)
		}
	})
}

// A slow read that began before a refresh must not bring back the spent token.
func TestSlowReadDoesNotUndoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		s := load()
		read := make(chan struct{})
		var held atomic.Bool
		f.store.set(nil, func(op string) error {
			if op == "get" && held.CompareAndSwap(false, true) {
				<-read
			}
			return nil
		})
		var wg sync.WaitGroup
		wg.Go(func() {
			if got := load(); got.Tokens.Access != "access-1" {
				t.Errorf("the slow read yields %s", got.Tokens.Access)
			}
		})
		synctest.Wait()
		if _, err := f.Refresh(t.Context(), s, p.refresh); err != nil {
			t.Error(err)
		}
		close(read)
		wg.Wait()
		if got := load(); got.Tokens.Access != "access-1" {
			t.Errorf("then %s", got.Tokens.Access)
		}
	})
}
