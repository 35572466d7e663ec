//go:build chaos

package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// TestChaos is a random run: people who use, sign in and sign out, while parts fail. Seed and duration are flags.
func TestChaos(t *testing.T) {
	t.Run("standalone", func(t *testing.T) { chaos(t, startStandalone) })
	if testing.Short() {
		return
	}
	t.Run("sentinel", func(t *testing.T) { chaos(t, startSentinel) })
	t.Run("cluster", func(t *testing.T) { chaos(t, startCluster) })
}

func chaos(t *testing.T, start shape) {
	seed, lasts := seed(), duration()
	how := fmt.Sprintf("go test -tags=chaos ./cmd/postern/chaos -run='^%s$' -seed=%d -duration=%v", t.Name(), seed, lasts)
	t.Log(how)
	w := newWorld(t, settings{store: start, ttl: 6 * time.Second, steppable: steppable != ""})
	w.provider.clockSlack = maxStep
	before := w.baseline()
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()

	var people, ghosts sync.WaitGroup
	actors := make([]*actor, long(24, 12))
	for i := range actors {
		random := rand.New(rand.NewPCG(seed, uint64(i)+1))
		name := fmt.Sprint("b", i)
		a := &actor{w: w, random: random, browser: w.newBrowser(name, fmt.Sprint("user", i/2)), ghosts: &ghosts}
		actors[i] = a
		people.Go(func() { a.live(ctx) })
	}
	w.breakThings(ctx, rand.New(rand.NewPCG(seed, 0)))
	people.Wait()
	ghosts.Wait()

	w.note("all is well again")
	for _, r := range w.replicas {
		r.ready()
	}
	for _, a := range actors {
		people.Go(a.settle)
	}
	people.Wait()
	calls, rotated := w.provider.refreshes()
	most, tokens := w.provider.sends()
	t.Logf("%s\nrefresh requests %d, rotations %d, refresh tokens used %d, one sent at most %d times", w.summary(), calls, rotated, tokens, most)
	w.report(t, how)
	w.finish(before, 0)
}

// An actor is one person with one browser.
type actor struct {
	w       *world
	random  *rand.Rand
	browser *browser
	ghosts  *sync.WaitGroup // who goes on with cookies that are over
}

// live does what people do until ctx ends. What has begun is finished.
func (a *actor) live(ctx context.Context) {
	for pause(ctx, a.between(10, 150)) {
		if a.browser.current() == nil {
			if got := a.browser.signIn(a.w.t.Context()); got.status != http.StatusOK {
				pause(ctx, a.between(100, 500))
			}
			continue
		}
		a.act(ctx)
	}
}

func (a *actor) act(ctx context.Context) {
	background := a.w.t.Context()
	b := a.browser
	switch n := a.random.IntN(100); {
	case n < 60:
		b.get(background)
	case n < 75: // tabs
		var tabs sync.WaitGroup
		for range 2 + a.random.IntN(8) {
			tabs.Go(func() { b.get(background) })
		}
		tabs.Wait()
	case n < 80: // a tab that is closed at once
		soon, cancel := context.WithTimeout(background, a.between(1, 50))
		defer cancel()
		b.get(soon)
	case n < 83:
		b.refresh(background)
	case n < 87:
		s := b.current()
		b.signOut(background)
		a.haunt(s)
	case n < 89:
		a.signInElsewhere(ctx)
	case n < 90:
		s := b.current()
		s.askEnd()
		a.w.about(s.topics(), "%s is ended at the provider", b.user)
		a.w.provider.endUser(b.user)
	default:
		pause(ctx, a.between(300, 3000))
	}
}

func (a *actor) between(least, most int) time.Duration {
	return time.Duration(least+a.random.IntN(most-least)) * time.Millisecond
}

// signInElsewhere opens a second browser in the same session at the provider, uses it, and signs out in the first: that ends both.
func (a *actor) signInElsewhere(ctx context.Context) {
	w, b := a.w, a.browser
	other := w.newBrowser(b.name+"'", b.user)
	provider, err := url.Parse(w.provider.URL + "/connect/authorize")
	if err != nil {
		panic(err)
	}
	cookies := b.jar.Cookies(provider)
	for _, c := range cookies {
		c.Path = "/connect/"
	}
	other.jar.SetCookies(provider, cookies)
	if got := other.signIn(w.t.Context()); got.status != http.StatusOK {
		return
	}
	for range 1 + a.random.IntN(5) {
		other.get(w.t.Context())
		if !pause(ctx, a.between(10, 300)) {
			return
		}
	}
	s, t := b.current(), other.current()
	if s == nil || t == nil {
		return
	}
	if w.provider.together(s.label, t.label) { // else the provider has forgotten the first sign-in
		s.together = t
	}
	b.signOut(w.t.Context())
	a.haunt(s)
	if s.together != nil {
		a.haunt(t)
	}
}

// haunt goes on with the cookie of a session whose end was asked for.
func (a *actor) haunt(s *signedIn) {
	if s == nil {
		return
	}
	w, wait := a.w, a.between(20, 200)
	a.ghosts.Go(func() {
		until := time.Now().Add(2*w.maxStale + 5*time.Second)
		for time.Now().Before(until) && pause(w.t.Context(), wait) {
			w.replay(w.t.Context(), s)
		}
	})
}

// settle wants an answer now that all is well: 200, or 401 for a session that is over.
func (a *actor) settle() {
	b := a.browser
	s := b.current()
	if s == nil {
		return
	}
	var last answer
	for until := time.Now().Add(proctest.Patience); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		last = b.get(a.w.t.Context())
		switch last.status {
		case http.StatusOK:
			a.w.count("alive at the end")
			return
		case http.StatusUnauthorized:
			return // check has judged it
		}
	}
	a.w.violated(s.topics(), "not usable again: %s", last)
}

// maxStep is how far clocks are stepped at most.
const maxStep = 20 * time.Second

// A fault is something that breaks, what it breaks, and how it heals.
type fault struct {
	name, target string
	begin, end   func()
}

// breakThings breaks one part or two at a time, until ctx ends, and leaves everything whole.
func (w *world) breakThings(ctx context.Context, random *rand.Rand) {
	for pause(ctx, time.Duration(300+random.IntN(1500))*time.Millisecond) {
		first := w.randomFault(random)
		faults := []fault{first}
		if second := w.randomFault(random); random.IntN(3) == 0 && second.target != first.target {
			faults = append(faults, second)
		}
		for _, f := range faults {
			w.note("fault: %s begins", f.name)
			w.count("faults: " + f.target)
			f.begin()
			pause(ctx, time.Duration(random.IntN(500))*time.Millisecond)
		}
		length := time.Duration(100+random.IntN(3000)) * time.Millisecond
		if random.IntN(8) == 0 {
			length = long(15*time.Second, 6*time.Second) // longer than leases and time limits
		}
		pause(ctx, length)
		for _, f := range faults {
			f.end()
			w.note("fault: %s is over", f.name)
		}
	}
}

// randomFault draws one.
func (w *world) randomFault(random *rand.Rand) fault {
	i := random.IntN(len(w.replicas))
	r := w.replicas[i]
	network := w.store.network(i)
	step := time.Duration(random.Int64N(int64(2*maxStep))) - maxStep
	swallowed := 1 + random.IntN(5)
	tokens := func(name string, f tokenFault) fault {
		return fault{"provider " + name, "provider", func() { w.provider.setFault(f) }, func() { w.provider.setFault(tokenFault{}) }}
	}
	between := func(name string, begin func()) fault {
		return fault{"network of " + r.name + " " + name, "network", begin, func() { network.Heal() }}
	}
	all := []fault{
		{r.name + " frozen", "replica", r.freeze, r.thaw},
		{r.name + " killed", "replica", r.kill, r.start},
		{r.name + " replaced", "replica", func() { r.replace(); r.start() }, nothing},
		tokens("slow", tokenFault{before: time.Second}),
		tokens("slow to answer", tokenFault{after: time.Second}),
		tokens("too slow", tokenFault{after: exchangeLimit + time.Second}),
		tokens("500", tokenFault{status: http.StatusInternalServerError}),
		tokens("429", tokenFault{status: http.StatusTooManyRequests, retryAfter: "1"}),
		tokens("503", tokenFault{status: http.StatusServiceUnavailable, retryAfter: "1"}),
		tokens("cuts", tokenFault{cut: true}),
		tokens("loses its answer", tokenFault{cutAfter: true}),
	}
	all = append(all, w.store.upsets(random)...)
	if network != nil {
		all = append(all,
			between("stalled to redis", func() { network.Stall(true, false) }),
			between("stalled from redis", func() { network.Stall(false, true) }),
			between("stalled", func() { network.Stall(true, true) }),
			between("cut", func() { network.Refuse(true); network.Cut() }),
			between("cut once", network.Cut),
			between("slow", func() { network.Delay(60*time.Millisecond, 60*time.Millisecond) }),
			between("loses answers", func() { network.Swallow(swallowed) }),
		)
	}
	if r.clock != "" {
		all = append(all, fault{fmt.Sprintf("clock of %s stepped by %v", r.name, step.Truncate(time.Second)), "clock",
			func() { r.stepClock(step) }, func() { r.stepClock(0) }})
	}
	return all[random.IntN(len(all))]
}
