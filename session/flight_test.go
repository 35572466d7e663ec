package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

// A request that comes while a failed refresh gives back its lease (to a slow store) gets an answer of its own, not that old failure.
func TestLateRequestDoesNotJoinASettledFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		p.fail = func(n int) error {
			if n == 1 {
				return &session.RefreshError{Kind: session.Again, Err: errors.New("429")}
			}
			return nil
		}
		f.store.set(func(op string) error {
			if op == "release" {
				time.Sleep(3 * time.Second)
			}
			return nil
		}, nil)
		time.Sleep(10 * time.Minute)
		s := load()
		if _, err := f.Fresh(t.Context(), s, p.refresh); err == nil {
			t.Fatal("no failure")
		}
		time.Sleep(2 * time.Second) // the pause after the failure is over, the flight is not
		if f.Flights() != 1 {
			t.Fatal("the flight has gone already")
		}
		if got, err := f.Fresh(t.Context(), s, p.refresh); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("got %v", err)
		}
		// A person who asks for it now gets another one, though the last is not quite over.
		if got, err := f.Refresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-2" {
			t.Errorf("forced: %v", err)
		}
		// And nobody waits for longer than the request does.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Refresh(ctx, load(), p.refresh); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline: %v", err)
		}
	})
}

// Issue 4, item 1: a late comer, at whichever moment of another replica's refresh, who still holds the old view gets its result. Nobody sends
// the old token.
func TestLateComersAtAnyMomentGetTheResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		a, b := replica(t, store, nil), replica(t, store, nil)
		defer a.watch()()
		defer b.watch()()
		slow := func(op string) error { time.Sleep(10 * time.Millisecond); return nil }
		for _, r := range []*fixture{a, b} {
			r.store.set(slow, slow)
		}
		p := a.provider(10 * time.Minute)
		p.delay = 20 * time.Millisecond
		_, h := a.signIn(a.grant(10*time.Minute), session.CreateOptions{})
		for range 3 {
			time.Sleep(10*time.Minute + time.Second)
			want := fmt.Sprintf("access-%d", len(p.calls())+1)
			old := map[*fixture]*session.Session{a: a.mustLoad(h), b: b.mustLoad(h)}
			var wg sync.WaitGroup
			for i := range 200 { // one each millisecond, longer than a refresh takes
				wg.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					r := a
					if i%2 == 1 {
						r = b
					}
					if got, err := r.Fresh(t.Context(), old[r], p.refresh); err != nil || got.Tokens.Access != want {
						t.Errorf("after %d ms: %v", i, err)
					}
				})
			}
			wg.Wait()
		}
		if n := len(p.calls()); n != 3 {
			t.Errorf("%d exchanges for 3 rotations: %v", n, p.calls())
		}
	})
}

// A166: whoever held the lease was killed. If it had not sent the token, the next holder does, within the lease time and one exchange. If it may
// have, the token is sent once more, and only when the access token has run out, until when it serves.
func TestA166_TokenOfDeadHolderIsSentOnceMoreAtMost(t *testing.T) {
	for _, tc := range []struct {
		name          string
		before, noted bool // whether the access token is still valid, whether it was noted that the token is sent
		kills         int
		calls         int
		within        time.Duration
	}{
		{name: "not sent, valid", before: true, kills: 1, calls: 1},
		{name: "not sent, expired", kills: 1, calls: 1, within: 21 * time.Second},
		{name: "sent, valid", before: true, noted: true, kills: 1, calls: 1},
		{name: "sent, expired", noted: true, kills: 1, calls: 1, within: 21 * time.Second},
		{name: "sent twice", noted: true, kills: 2, calls: 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memstore.New(memstore.Options{})
				next := replica(t, store, nil)
				defer next.watch()()
				_, h := next.signIn(next.grant(10*time.Minute), session.CreateOptions{})
				p := next.provider(10 * time.Minute)
				time.Sleep(9*time.Minute + time.Second)
				if !tc.before {
					time.Sleep(time.Minute)
				}
				for i := range tc.kills {
					dead := replica(t, &killed{Store: store, noted: tc.noted}, nil)
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					dead.Refresh(ctx, dead.mustLoad(h), p.refresh)
					cancel()
					if n := len(p.calls()); n != 0 {
						t.Fatalf("the dead one sent %d", n)
					}
					if i+1 < tc.kills {
						time.Sleep(20 * time.Second)
					}
				}
				start := time.Now()
				s := next.mustLoad(h)
				expiry := s.Tokens.Expiry
				for {
					got, err := next.Fresh(t.Context(), s, p.refresh)
					if tc.kills > 1 {
						if retry := (*session.RetryError)(nil); errors.As(err, &retry) {
							time.Sleep(retry.After)
							continue
						}
						ended(t, err, session.ReasonRefreshRejected)
						break
					}
					if err != nil {
						t.Fatalf("after %v: %v", time.Since(start), err)
					}
					if n := len(p.calls()); n > 0 && tc.noted && time.Now().Before(expiry) {
						t.Fatal("sent again while the access token was valid")
					}
					if got.Tokens.Access == "access-1" {
						break
					}
					time.Sleep(time.Second)
				}
				if took := time.Since(start); tc.within > 0 && took > tc.within {
					t.Errorf("usable after %v", took)
				}
				if n := len(p.calls()); n != tc.calls {
					t.Errorf("sent %d times, want %d", n, tc.calls)
				}
			})
		})
	}
}

// killed is the store as a process uses it that dies when it is about to send a refresh token, or right after: nothing of it comes through then.
type killed struct {
	session.Store
	noted bool
	mu    sync.Mutex
	dead  bool
}

func (k *killed) is() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

func (k *killed) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	if strings.Contains(key, "!") {
		if k.noted {
			if ok, _ := k.Store.Acquire(ctx, key, owner, ttl); !ok {
				return false, nil // others have sent it, which it lives to see
			}
		}
		k.mu.Lock()
		k.dead = true
		k.mu.Unlock()
	}
	if k.is() {
		return false, errStore
	}
	return k.Store.Acquire(ctx, key, owner, ttl)
}

func (k *killed) Release(ctx context.Context, key, owner string) error {
	if k.is() {
		return errStore
	}
	return k.Store.Release(ctx, key, owner)
}

func (k *killed) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	if k.is() {
		return false, errStore
	}
	return k.Store.Renew(ctx, key, owner, ttl)
}

// A166: a process that was stopped for longer than its lease, right before it would send the token, does not send what another has sent since.
func TestA166_StoppedHolderDoesNotSendAnymore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(memstore.Options{})
		stopped, other := replica(t, store, nil), replica(t, store, nil)
		_, h := stopped.signIn(stopped.grant(10*time.Minute), session.CreateOptions{})
		p := stopped.provider(10 * time.Minute)
		p.delay = time.Hour // until its time limit: nobody knows whether the provider has it
		time.Sleep(10 * time.Minute)
		stopped.store.set(func(op string) error {
			if op == "note" || op == "renew" {
				time.Sleep(time.Minute)
			}
			return nil
		}, nil)
		var wg sync.WaitGroup
		wg.Go(func() { stopped.Fresh(t.Context(), stopped.mustLoad(h), p.refresh) })
		time.Sleep(25 * time.Second) // its lease is over
		wg.Go(func() { other.Fresh(t.Context(), other.mustLoad(h), p.refresh) })
		wg.Wait()
		if n := len(p.calls()); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

// After 429 the note is taken back: another replica may send the token.
func TestAgainElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p, load := refreshed(t, 10*time.Minute)
		other := replica(t, f.store, nil)
		p.fail = func(n int) error {
			if n <= 2 {
				return &session.RefreshError{Kind: session.Again, Err: errors.New("429")}
			}
			return nil
		}
		time.Sleep(9*time.Minute + time.Second)
		for range 2 {
			f.Refresh(t.Context(), load(), p.refresh)
			synctest.Wait()
			time.Sleep(5 * time.Second)
		}
		if got, err := other.Refresh(t.Context(), load(), p.refresh); err != nil || got.Tokens.Access != "access-1" {
			t.Errorf("got %v", err)
		}
	})
}

// The same tokens written again under another key of the deployment are the same tokens: what was noted of them holds.
func TestNotesOutliveAMoveToAnotherKey(t *testing.T) {
	moved := func(t *testing.T, f *fixture, r *seal.Ring, h http.Header) {
		t.Helper()
		replace(t, r, newKey, ringKey)
		was := f.mustLoad(h).Version
		if f.Reseal(h) == nil {
			t.Fatal("no cookie under the new key")
		}
		synctest.Wait()
		if got := f.mustLoad(h).Version; got <= was {
			t.Fatalf("version %d after %d", got, was)
		}
	}
	for _, shared := range []bool{false, true} {
		start := func(t *testing.T) (*fixture, *seal.Ring, http.Header, *provider) {
			r := ring(t)
			f := replica(t, nil, func(o *session.Options) { o.Ring, o.SharedGrant = r, shared })
			t.Cleanup(f.watch())
			_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
			time.Sleep(6 * time.Minute)
			return f, r, h, f.provider(10 * time.Minute)
		}
		t.Run(fmt.Sprint("sent by a process that died, shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r, h, p := start(t)
				dead := replica(t, &killed{Store: f.store, noted: true}, func(o *session.Options) { o.SharedGrant = shared })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				dead.Refresh(ctx, dead.mustLoad(h), p.refresh)
				time.Sleep(time.Minute) // its lease is over
				moved(t, f, r, h)
				if _, err := f.Refresh(t.Context(), f.mustLoad(h), p.refresh); err == nil || len(p.calls()) > 0 {
					t.Errorf("sent again while the access token is valid: %v", err)
				}
			})
		})
		t.Run(fmt.Sprint("to be left alone, shared ", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, r, h, p := start(t)
				p.fail = func(int) error {
					return &session.RefreshError{Kind: session.Again, RetryAfter: time.Minute, Err: errors.New("429")}
				}
				f.Refresh(t.Context(), f.mustLoad(h), p.refresh)
				moved(t, f, r, h)
				if f.Refresh(t.Context(), f.mustLoad(h), p.refresh); len(p.calls()) != 1 {
					t.Errorf("sent %d times within the time that the provider named", len(p.calls()))
				}
			})
		})
	}
}
