package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// An address that failed is set aside for firstPause, doubled with each failure in a row up to lastPause, and up to a quarter less, so that
	// not every replica comes back to it in the same moment.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// maxAddresses is how many addresses one request tries.
	maxAddresses = 3
)

// balancer chooses among the addresses of an application: the one with the fewest requests under way, in turn among equals.
//
// Health is passive. An address is set aside when no connection to it comes about, or when it closes one before any byte of an answer; a
// status such as 500 or an answer that takes long sets nothing aside. After the pause one request tries it, and brings it back with any
// answer. Where all are set aside, the one that has been so for longest is tried anyway: nobody is refused on a memory alone.
type balancer struct {
	log       *slog.Logger
	addresses []*address

	mu   sync.Mutex
	next int // where looking begins
}

// health is what the balancer knows of an address.
type health struct {
	underWay     int
	failures     int // in a row; 0: in use
	since, until time.Time
	trying       bool // a request under way will tell whether it is back
}

// pick chooses an address that is not among tried, or nil. The caller releases it.
func (b *balancer) pick(tried []*address) *address {
	if len(b.addresses) == 1 && len(tried) == 0 {
		return b.addresses[0]
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	var best, longest *address
	for i := range b.addresses {
		a := b.addresses[(b.next+i)%len(b.addresses)]
		switch h := &a.health; {
		case slices.Contains(tried, a):
		case h.failures == 0:
			if best == nil || best.health.failures == 0 && h.underWay < best.health.underWay {
				best = a
			}
		case !h.trying && !now.Before(h.until):
			if best == nil || best.health.failures == 0 { // one that may be back goes before all others
				best = a
			}
		case longest == nil || h.since.Before(longest.health.since):
			longest = a
		}
	}
	a := cmp.Or(best, longest)
	if a != nil {
		a.health.underWay++
		a.health.trying = a.health.failures > 0
		b.next = slices.Index(b.addresses, a) + 1
	}
	return a
}

// release gives an address back when the request there is over, whatever became of it. Nil was never picked.
func (b *balancer) release(a *address) {
	if a == nil || len(b.addresses) == 1 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.health.underWay--
	a.health.trying = false
}

// answered notes that an address gave an answer.
func (b *balancer) answered(a *address) {
	b.mu.Lock()
	back := a.health.trying // an answer to a request from before it was set aside says nothing
	if back {
		a.health.failures, a.health.trying = 0, false
	}
	b.mu.Unlock()
	if back {
		b.log.Info("upstream is back", "upstream", a.name)
	}
}

// failed sets an address aside. Requests that were under way when it failed count once.
func (b *balancer) failed(a *address, err error) {
	b.mu.Lock()
	h, now := &a.health, time.Now()
	h.trying = false
	if now.Before(h.until) {
		b.mu.Unlock()
		return
	}
	pause := min(firstPause<<min(h.failures, 10), lastPause)
	pause -= rand.N(pause / 4)
	h.failures++
	h.since, h.until = now, now.Add(pause)
	first := h.failures == 1
	b.mu.Unlock()
	if first {
		b.log.Warn("upstream set aside", "upstream", a.name, "error", err)
	}
}

// send sends a request to the address that was picked for it, and to others as long as that can do nothing twice: when nothing of it was
// sent, or when it changes nothing and the connection broke before any byte of an answer. Each address gets it at most once.
func (b *balancer) send(l *leg, r *http.Request) (*http.Response, error) {
	if len(b.addresses) == 1 {
		return l.at.transport.roundTrip(r)
	}
	for tried := []*address{l.at}; ; tried = append(tried, l.at) {
		var p progress
		res, err := l.at.transport.roundTrip(r.WithContext(p.watch(r.Context())))
		if err == nil {
			b.answered(l.at)
			return res, nil
		}
		unsent := errors.As(err, new(unconnected)) || context.Cause(l) == errTimeout && !p.connected.Load()
		broken := isBroken(err) && !p.answering.Load() && l.upload.failure() == nil
		if !unsent && !broken || l.Err() != nil && context.Cause(l) != errTimeout {
			return nil, err
		}
		if unsent || l.upload.body == nil || l.upload.over.Load() { // a body that an application does not want may break its connection
			b.failed(l.at, err)
		}
		if l.Err() != nil || !unsent && !l.replayable() || len(tried) == maxAddresses {
			return nil, err
		}
		next := b.pick(tried)
		if next == nil {
			return nil, err
		}
		b.release(l.at)
		l.at = next
		r = r.WithContext(r.Context()) // what failed may still look at its own
		r.URL = new(url.URL)
		l.aim(r)
	}
}

// progress is how far an exchange with an address came.
type progress struct {
	connected, answering atomic.Bool
}

// watch follows the exchange whose context it returns.
func (p *progress) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { p.connected.Store(true) },
		GotFirstResponseByte: func() { p.answering.Store(true) },
	})
}

// isBroken tells a connection that ended under a request. What a request itself can bring about, such as a header that is too long for the
// application, is not among it: nobody may set an address aside by asking.
func isBroken(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
