//go:build chaos

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// signedInBrowser is a browser with a session that the world knows of.
func (w *world) signedInBrowser(name, user string) *browser {
	w.t.Helper()
	b := w.newBrowser(name, user)
	if a := b.signIn(w.t.Context()); a.status != http.StatusOK {
		w.violated(nil, "sign in: %s", a)
		w.report(w.t, w.t.Name())
		w.t.FailNow()
	}
	return b
}

// expires waits until the access token of a session has expired.
func (w *world) expires(s *signedIn) {
	w.t.Helper()
	f := w.provider.family(s.label)
	w.provider.mu.Lock()
	at := f.current.expires
	w.provider.mu.Unlock()
	proctest.Passes(w.t, at.Add(100*time.Millisecond))
}

// TestOneRefreshForManyParallelRequests: a burst of tabs over all replicas when the token has just expired, and a provider that takes
// its time.
func TestOneRefreshForManyParallelRequests(t *testing.T) {
	t.Parallel()
	const requests, delay = 300, 3 * time.Second
	for _, aborts := range []bool{false, true} {
		t.Run(fmt.Sprintf("aborts=%v", aborts), func(t *testing.T) {
			w := newWorld(t, settings{ttl: 2 * time.Second})
			before := w.baseline()
			b := w.signedInBrowser("b1", "alice")
			s := b.current()
			w.provider.setTTL(time.Hour)
			w.provider.setFault(tokenFault{before: delay})
			w.expires(s)
			var all sync.WaitGroup
			for range requests {
				all.Go(func() {
					ctx := t.Context()
					if aborts {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
						defer cancel()
					}
					b.get(ctx)
				})
			}
			all.Wait()
			if aborts {
				if n := w.total("answers 200"); n != 0 {
					t.Errorf("%d requests were answered within 50 ms of a refresh that takes %v", n, delay)
				}
				b.get(t.Context())
			}
			calls, rotated := w.provider.refreshes()
			t.Logf("%d requests, then %s; refresh requests %d, rotations %d", requests, w.summary(), calls, rotated)
			want := requests
			if aborts {
				want = 1
			}
			if ok := w.total("answers 200"); ok != want || calls != 1 || rotated != 1 {
				t.Errorf("got %d answers 200 with %d refresh requests, want %d with 1", ok, calls, want)
			}
			w.report(t, t.Name())
			w.finish(before, 0)
		})
	}
}

// TestRefreshStorm: every session's token runs out every 3 s and is due after 2 s, while all of them are in use on all replicas.
func TestRefreshStorm(t *testing.T) {
	sessions, lasts := *sessionsFlag, duration()
	if sessions == 0 {
		sessions = long(1000, 60)
	}
	const life = 3 * time.Second // due after two thirds
	// Everything, the load too, runs on one machine: slow is no failure here.
	w := newWorld(t, settings{ttl: life, timeout: 2 * time.Second})
	before := w.baseline()
	browsers := make([]*browser, sessions)
	var all sync.WaitGroup
	places := make(chan struct{}, 16)
	for i := range browsers {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			browsers[i] = w.newBrowser(fmt.Sprint("b", i), fmt.Sprint("user", i))
			if a := browsers[i].signIn(t.Context()); a.status != http.StatusOK {
				t.Errorf("sign in: %s", a)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	callsBefore, rotatedBefore := w.provider.refreshes()
	for i, b := range browsers {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		all.Go(func() {
			for pause(ctx, time.Duration(500+random.IntN(500))*time.Millisecond) {
				b.get(t.Context())
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	calls, rotated := w.provider.refreshes()
	calls, rotated = calls-callsBefore, rotated-rotatedBefore
	most, _ := w.provider.sends()
	t.Logf("%d sessions for %v: %s", sessions, took.Round(time.Second), w.summary())
	t.Logf("refresh requests %d (%.0f/s), rotations %d, a session every %.2f s, no token sent more than %d times", calls,
		float64(calls)/took.Seconds(), rotated, float64(sessions)*took.Seconds()/float64(rotated), most)
	if calls != rotated || most != 1 {
		t.Errorf("%d refresh requests for %d rotations, one token was sent %d times", calls, rotated, most)
	}
	if bad := w.total("answers 503") + w.total("answers 0") + w.total("answers 401"); bad > 0 {
		t.Errorf("%d requests failed", bad)
	}
	w.report(t, t.Name())
	w.finish(before, 0)
}

// pause waits and reports whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
