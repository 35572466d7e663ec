package redisstore

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxFlights is how many pipelines of one gatherer are under way at most: enough that one on a dead connection does not hold up the
	// others, and few enough that those who ask at the same time share one.
	maxFlights = 2

	// maxGathered bounds the commands of one pipeline, whose replies share the time that one reply has.
	maxGathered = 64
)

// gatherer sends what several callers ask of one server at the same time in one write, which costs a fraction of a write for each. Nobody waits for
// company: a command leaves at once unless maxFlights pipelines are under way, and those that come meanwhile leave together.
type gatherer struct {
	client  *redis.Client
	timeout time.Duration // of a pipeline

	mu      sync.Mutex
	waiting []*asked // guarded by mu
	flights int      // guarded by mu
}

// asked is one command of a caller who waits.
type asked struct {
	ctx  context.Context // the caller's
	cmd  *redis.StringCmd
	done chan struct{} // closed when cmd has its reply
}

// get is GET key. It obeys ctx, also when others' commands share its pipeline.
func (g *gatherer) get(ctx context.Context, key string) ([]byte, error) {
	g.mu.Lock()
	if g.flights < maxFlights {
		g.flights++
		g.mu.Unlock()
		defer g.landed()
		return g.client.Get(ctx, key).Bytes()
	}
	a := &asked{ctx, redis.NewStringCmd(ctx, "get", key), make(chan struct{})}
	g.waiting = append(g.waiting, a)
	g.mu.Unlock()
	select {
	case <-a.done:
		return a.cmd.Bytes()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// landed gives the place of one who has a reply to those who wait.
func (g *gatherer) landed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 {
		go g.fly() // ends when nobody waits
	} else {
		g.flights--
	}
}

// fly sends what waits until nothing does.
func (g *gatherer) fly() {
	for batch := g.take(); len(batch) > 0; batch = g.take() {
		g.send(batch)
		for _, a := range batch {
			close(a.done)
		}
	}
}

// take is what to send next; nothing ends the flight.
func (g *gatherer) take() []*asked {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), maxGathered)
	batch := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	if n == 0 {
		g.waiting = nil
		g.flights--
	}
	return batch
}

// send has its own time limit: whoever of the batch leaves, the others still wait.
func (g *gatherer) send(batch []*asked) {
	ctx, cancel := context.WithTimeout(context.Background(), g.timeout)
	defer cancel()
	pipe := g.client.Pipeline()
	for _, a := range batch {
		if err := a.ctx.Err(); err != nil {
			a.cmd.SetErr(err) // who asked has left
			continue
		}
		_ = pipe.Process(ctx, a.cmd)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
}
