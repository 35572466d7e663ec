package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postern/config"
	"postern/proxy"
)

const (
	maxOld     = 4                // older configurations that still have WebSockets or long requests
	oldStreams = 30 * time.Second // over which the streams of one too many are ended
	oldMemory  = 5 * time.Minute  // in which one that serves nobody any more writes again what a failover of Redis has lost of its ends and refreshes
	oldWork    = 5 * time.Minute  // for its last refreshes
	lastLines  = time.Second      // for requests that were cut at the end of the process to be logged
)

// generation is one configuration with all that serves it. It never changes: a new configuration is a new generation.
type generation struct {
	server        config.Server // of the configuration; the rest of that is not kept, since old generations stay for a while
	proxy         *proxy.Proxy
	redirect      http.Handler
	tls, adminTLS *tls.Config // nil: http

	requests   atomic.Int64  // under way, and one more while it is the current generation
	idle       chan struct{} // closed when there are none, and will be none, nor WebSockets
	tooMany    chan struct{} // closed by the first endStreams
	endStreams func()        // ends its streams in the background
	stop       func()        // ends its background work and waits for it
}

// newGeneration makes a generation that takes the place of before, which is nil at start. It works from then on, but serves nobody yet.
func newGeneration(cfg *config.Config, env proxy.Env, before *generation) (*generation, error) {
	g := &generation{server: cfg.Server, idle: make(chan struct{}), tooMany: make(chan struct{})}
	g.requests.Store(1)
	var err error
	if g.tls, g.adminTLS, err = tlsConfigs(cfg.Server); err != nil {
		return nil, err
	}
	if before != nil {
		env.Before = before.proxy
	}
	if g.proxy, err = proxy.New(cfg, env); err != nil {
		return nil, err
	}
	g.redirect = g.proxy.Redirect()
	work, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.proxy.Run(work) })
	g.stop = func() { cancel(); running.Wait() }
	g.endStreams = sync.OnceFunc(func() {
		close(g.tooMany)
		go func() { // ends within the time
			ctx, cancel := context.WithTimeout(context.Background(), oldStreams)
			defer cancel()
			g.proxy.EndStreams(ctx)
		}()
	})
	return g, nil
}

// enter counts a request, unless the generation is over.
func (g *generation) enter() bool {
	for {
		n := g.requests.Load()
		if n == 0 {
			return false
		}
		if g.requests.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (g *generation) leave() {
	if g.requests.Add(-1) == 0 {
		go func() { // ends with the last of its WebSockets
			g.proxy.WaitForTunnels()
			close(g.idle)
		}()
	}
}

// close stores the refreshes under way, within ctx, and ends the generation.
func (g *generation) close(ctx context.Context) error {
	err := g.proxy.Close(ctx)
	g.stop()
	return err
}

// generations are the current one and the older ones that still have requests. Each request is served by one from its beginning to its end, and so is
// each WebSocket: it stays tied to its session there.
type generations struct {
	current atomic.Pointer[generation]
	log     *slog.Logger

	mu  sync.Mutex
	old []*generation // the oldest first; guarded by mu

	closing  sync.WaitGroup  // of older ones
	over     chan struct{}   // closed at the end of the process: older ones wait for requests no longer
	patience context.Context // for what they still have to do then
	hurry    context.CancelFunc
}

func newGenerations(first *generation, log *slog.Logger) *generations {
	gs := &generations{log: log, over: make(chan struct{})}
	gs.patience, gs.hurry = context.WithCancel(context.Background())
	gs.current.Store(first)
	return gs
}

// handler serves each request by what is of the current generation.
func (gs *generations) handler(of func(*generation) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := gs.current.Load()
		for !g.enter() { // it was replaced since
			g = gs.current.Load()
		}
		defer g.leave()
		of(g).ServeHTTP(w, r)
	})
}

// replace makes next the current generation. The one before ends when its last request has, and the streams of the oldest of too many are ended.
func (gs *generations) replace(next *generation) {
	next.proxy.TakeOver()
	before := gs.current.Swap(next)
	gs.mu.Lock()
	gs.old = append(gs.old, before)
	for _, g := range gs.old[:max(0, len(gs.old)-maxOld)] {
		g.endStreams()
	}
	gs.mu.Unlock()
	before.leave()
	gs.closing.Go(func() {
		select {
		case <-before.idle:
			before.proxy.Retire()
			gs.remember(before)
		case <-gs.over:
		}
		ctx, cancel := context.WithTimeout(gs.patience, oldWork)
		defer cancel()
		if err := before.close(ctx); err != nil {
			gs.log.Warn("an older configuration ended before its work was done", "error", err)
		}
		gs.mu.Lock()
		defer gs.mu.Unlock()
		gs.old = slices.DeleteFunc(gs.old, func(g *generation) bool { return g == before })
	})
}

// remember lets one that serves nobody any more work on for a while.
func (gs *generations) remember(g *generation) {
	timer := time.NewTimer(oldMemory)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.tooMany:
	case <-gs.over:
	}
}

// drainStreams ends the open streams of all within ctx.
func (gs *generations) drainStreams(ctx context.Context) {
	gs.mu.Lock()
	all := append(slices.Clone(gs.old), gs.current.Load())
	gs.mu.Unlock()
	var ending sync.WaitGroup
	for _, g := range all {
		ending.Go(func() { g.proxy.EndStreams(ctx) })
	}
	ending.Wait()
}

// close ends all, within ctx. Nobody may be served any more, nor replaced.
func (gs *generations) close(ctx context.Context) error {
	current := gs.current.Load()
	current.leave()
	timer := time.NewTimer(lastLines)
	defer timer.Stop()
	select {
	case <-current.idle:
	case <-timer.C:
	}
	close(gs.over)
	defer context.AfterFunc(ctx, gs.hurry)()
	err := current.close(ctx)
	gs.closing.Wait()
	gs.hurry()
	return err
}
