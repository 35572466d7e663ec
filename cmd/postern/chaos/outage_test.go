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

// An outage is something that happens to Redis under load.
type outage struct {
	name    string
	store   func(t *testing.T, replicas int) store
	happens func(ctx context.Context, w *world)
}

// outages are those of all shapes.
func outages() []outage {
	length := long(10*time.Second, 4*time.Second)
	return []outage{
		{"standalone frozen", startStandalone, func(ctx context.Context, w *world) {
			w.store.pause()
			pause(ctx, length)
			w.store.resume()
		}},
		{"standalone restarted", startStandalone, func(_ context.Context, w *world) {
			w.store.stop()
			w.store.start()
		}},
		{"standalone killed and away", startStandalone, func(ctx context.Context, w *world) {
			w.store.kill()
			pause(ctx, length)
			w.store.start()
		}},
		{"standalone cut off from one replica in one direction", startStandalone, func(ctx context.Context, w *world) {
			w.store.network(0).Stall(false, true)
			pause(ctx, length)
			w.store.network(0).Heal()
		}},
	}
}

// TestOutagesUnderLoad: whatever happens to Redis, an answer is 200 or 503, no cookie is deleted, nobody is signed out, and afterwards
// everything is as before. Sessions refresh meanwhile, too.
func TestOutagesUnderLoad(t *testing.T) {
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			w := newWorld(t, settings{store: o.store, ttl: 9 * time.Second})
			before := w.baseline()
			browsers := make([]*browser, 30)
			for i := range browsers {
				browsers[i] = w.signedInBrowser(fmt.Sprint("b", i), fmt.Sprint("user", i))
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var load sync.WaitGroup
			for i, b := range browsers {
				random := rand.New(rand.NewPCG(2, uint64(i)))
				load.Go(func() {
					for pause(ctx, time.Duration(50+random.IntN(200))*time.Millisecond) {
						b.get(t.Context())
					}
				})
			}
			pause(ctx, 2*time.Second)
			w.note("%s", o.name)
			began := time.Now()
			o.happens(ctx, w)
			w.note("%s is over", o.name)
			took := time.Since(began)
			pause(ctx, 3*time.Second)
			cancel()
			load.Wait()
			during := w.summary()
			for _, b := range browsers {
				load.Go((&actor{w: w, browser: b}).settle)
			}
			load.Wait()
			most, _ := w.provider.sends()
			bad := w.total("answers 0") + w.total("answers 401") + w.total("answers 302")
			t.Logf("%s for %v: 200 × %d, 503 × %d, other %d, deleting Set-Cookie %d; alive at the end %d of %d; a refresh token sent at most %d times\n%s",
				o.name, took.Round(10*time.Millisecond), w.total("answers 200"), w.total("answers 503"), bad+w.total("other"), w.total("deletes"),
				w.total("alive at the end"), len(browsers), most, during)
			if bad > 0 || w.total("alive at the end") != len(browsers) {
				t.Errorf("%d other answers, %d of %d sessions alive at the end", bad, w.total("alive at the end"), len(browsers))
			}
			w.report(t, t.Name())
			w.finish(before)
		})
	}
}

// TestSignInsDuringAnOutageFailWithAPageAndWorkAfterwards: the wanted address survives.
func TestSignInsDuringAnOutageFailWithAPageAndWorkAfterwards(t *testing.T) {
	w := newWorld(t, settings{replicas: 1})
	b := w.newBrowser("b1", "alice")
	w.store.pause()
	if a := b.signIn(t.Context()); a.status != http.StatusServiceUnavailable {
		t.Errorf("sign-in without Redis: %s", a)
	}
	w.store.resume()
	if a := b.signIn(t.Context()); a.status != http.StatusOK || a.echo.User != "alice" {
		t.Errorf("afterwards: %s", a)
	}
	w.report(t, t.Name())
}
