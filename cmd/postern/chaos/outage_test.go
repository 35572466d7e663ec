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
)

// An outage is something that happens to Redis under load. It ends when what it does has happened and is over.
type outage struct {
	name    string
	shape   shape
	long    bool // not with -short
	happens func(ctx context.Context, w *world)
}

// outages are those of all shapes.
func outages() []outage {
	length := long(10*time.Second, 4*time.Second)
	random := rand.New(rand.NewPCG(3, 3))
	return []outage{
		{"standalone frozen", startStandalone, false, func(ctx context.Context, w *world) {
			s := w.store.(standalone)
			s.Pause()
			pause(ctx, length)
			s.Resume()
		}},
		{"standalone restarted", startStandalone, false, func(_ context.Context, w *world) { w.store.(standalone).Restart() }},
		{"standalone killed and away", startStandalone, true, func(ctx context.Context, w *world) {
			s := w.store.(standalone)
			s.Kill()
			pause(ctx, length)
			s.Start()
		}},
		{"standalone cut off from one replica in one direction", startStandalone, true, func(ctx context.Context, w *world) {
			w.store.network(0).Stall(false, true)
			pause(ctx, length)
			w.store.network(0).Heal()
		}},
		{"sentinel failover", startSentinel, false, func(_ context.Context, w *world) { w.store.(*sentinel).failOver() }},
		{"sentinel, master killed", startSentinel, true, func(_ context.Context, w *world) { w.store.(*sentinel).crash()() }},
		{"cluster, slots moved", startCluster, false, func(_ context.Context, w *world) {
			for range 20 {
				w.store.(*cluster).moveSlot(random)
			}
		}},
		{"cluster, master killed", startCluster, true, func(_ context.Context, w *world) { w.store.(*cluster).crash(1)() }},
	}
}

// TestOutagesUnderLoad: whatever happens to Redis, an answer is 200 or 503, no cookie is deleted, nobody is signed out, and afterwards
// everything is as before. Sessions refresh meanwhile, too.
func TestOutagesUnderLoad(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		if o.long && testing.Short() {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{store: o.shape, ttl: 9 * time.Second})
			before := w.baseline()
			l := w.startLoad(30)
			ctx := t.Context()
			pause(ctx, 2*time.Second)
			w.note("%s", o.name)
			began := time.Now()
			o.happens(ctx, w)
			w.note("%s is over", o.name)
			took := time.Since(began)
			pause(ctx, 3*time.Second)
			l.stop()
			during := w.summary()
			l.settle()
			most, _ := w.provider.sends()
			bad := w.total("answers 0") + w.total("answers 401") + w.total("answers 302")
			t.Logf("%s for %v: 200 × %d, 503 × %d, other %d, deleting Set-Cookie %d; alive at the end %d of %d; a refresh token sent at most %d times\n%s",
				o.name, took.Round(10*time.Millisecond), w.total("answers 200"), w.total("answers 503"), bad+w.total("other"), w.total("deletes"),
				w.total("alive at the end"), len(l.browsers), most, during)
			for _, what := range []string{"lost in a failover", "tokens sent again after a failover had lost the newer"} {
				if n := w.total(what); n > 0 {
					t.Errorf("%s: %d, though writes wait for a replica", what, n)
				}
			}
			if bad > 0 || w.total("alive at the end") != len(l.browsers) {
				t.Errorf("%d other answers, %d of %d sessions alive at the end", bad, w.total("alive at the end"), len(l.browsers))
			}
			w.report(t, t.Name())
			w.finish(before, 0)
		})
	}
}

// A load is people who use the application all the time.
type load struct {
	w        *world
	browsers []*browser
	cancel   context.CancelFunc
	working  sync.WaitGroup
}

// startLoad signs in so many.
func (w *world) startLoad(people int) *load {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	l := &load{w: w, cancel: cancel}
	for i := range people {
		b := w.signedInBrowser(fmt.Sprint("b", i), fmt.Sprint("user", i))
		l.browsers = append(l.browsers, b)
		random := rand.New(rand.NewPCG(2, uint64(i)))
		l.working.Go(func() {
			for pause(ctx, time.Duration(50+random.IntN(200))*time.Millisecond) {
				b.get(w.t.Context())
			}
		})
	}
	return l
}

// stop ends it; what has begun is finished.
func (l *load) stop() {
	l.cancel()
	l.working.Wait()
}

// settle counts who is still signed in now that all is well.
func (l *load) settle() {
	for _, b := range l.browsers {
		l.working.Go((&actor{w: l.w, browser: b}).settle)
	}
	l.working.Wait()
}

// TestSignInsDuringAnOutageFailWithAPageAndWorkAfterwards: the wanted address survives.
func TestSignInsDuringAnOutageFailWithAPageAndWorkAfterwards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{replicas: 1})
	b := w.newBrowser("b1", "alice")
	w.store.(standalone).Pause()
	if a := b.signIn(t.Context()); a.status != http.StatusServiceUnavailable {
		t.Errorf("sign-in without Redis: %s", a)
	}
	w.store.(standalone).Resume()
	if a := b.signIn(t.Context()); a.status != http.StatusOK || a.echo.User != "alice" {
		t.Errorf("afterwards: %s", a)
	}
	w.report(t, t.Name())
}

// TestRevocationReachesAReplicaThatIsCutOff: what ends elsewhere is refused within max_stale by a replica that hears nothing of it, in
// whatever direction its network is cut.
func TestRevocationReachesAReplicaThatIsCutOff(t *testing.T) {
	for name, cut := range map[string]struct{ in, out bool }{"towards Redis": {true, false}, "from Redis": {false, true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, settings{maxStale: "1s"})
			deaf, other := w.replicas[0], w.replicas[1]
			b := w.signedInBrowser("b1", "alice")
			s := b.current()
			if a := b.get(via(t.Context(), deaf)); a.status != http.StatusOK { // it has a copy now
				t.Fatalf("%s", a)
			}
			w.store.network(0).Stall(cut.in, cut.out)
			b.signOut(via(t.Context(), other))
			_, ended := s.state()
			if ended.IsZero() {
				t.Fatal("the sign-out was not acknowledged")
			}
			last := ended
			for time.Since(ended) < 2*w.maxStale+2*time.Second {
				if a := w.replay(via(t.Context(), deaf), s); a.status == http.StatusOK {
					last = a.began
				}
				pause(t.Context(), 20*time.Millisecond)
			}
			w.store.network(0).Heal()
			t.Logf("cut %s: accepted until %v after the end was acknowledged (max_stale %v), %s", name, last.Sub(ended).Round(time.Millisecond), w.maxStale, w.summary())
			w.report(t, t.Name())
		})
	}
}
