package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	lastSlot = 16383

	// minLook is the least time between two questions who serves what, half of it after a failure being jitter. All who ask meanwhile get
	// the last answer: a failing server must not become a storm of questions.
	minLook = 100 * time.Millisecond
)

// span are the slots up to last, from the end of the span before it on.
type span struct {
	last    int
	address string // of the master; empty: nobody serves these
}

// layout says which server is the master of which slots. A layout of one span needs no slot.
type layout struct {
	spans []span // ordered
}

func (l layout) equal(o layout) bool { return slices.Equal(l.spans, o.spans) }

// view is what is known of the servers at a time. It never changes; another takes its place.
type view struct {
	layout  layout
	nodes   map[string]*node // the masters, by address
	changed chan struct{}    // closed when another view, with another layout, has taken its place
}

// of is the master of a key.
func (v *view) of(key string) (*node, error) {
	slot := 0
	if len(v.layout.spans) > 1 {
		slot = slotOf(key)
	}
	i, _ := slices.BinarySearchFunc(v.layout.spans, slot, func(s span, slot int) int { return cmp.Compare(s.last, slot) })
	if i < len(v.layout.spans) && v.layout.spans[i].address != "" {
		return v.nodes[v.layout.spans[i].address], nil
	}
	return nil, fmt.Errorf("no server has slot %d", slot)
}

// masters are all masters, in no order.
func (v *view) masters() []*node {
	list := make([]*node, 0, len(v.nodes))
	for _, n := range v.nodes {
		list = append(list, n)
	}
	return list
}

// servers knows which servers there are and who of them keeps what.
type servers struct {
	// find asks. Nil: there is one server, always.
	find func(ctx context.Context) (layout, error)
	// keep is how long a server that has no slots is kept after its last use.
	keep    time.Duration
	connect func(address string) *node
	// finally closes what find uses; may be nil.
	finally func() error
	limit   time.Duration // of one question
	log     *slog.Logger

	now atomic.Pointer[view] // nil until somebody was found

	mu     sync.Mutex
	closed bool
	nodes  map[string]*node // all there are
	flight *flight
	stop   func() // ends the flight
}

// flight is one question.
type flight struct {
	done  chan struct{}
	ended time.Time // plus jitter; zero while it flies
	err   error
}

func newServers(timeout time.Duration, log *slog.Logger, connect func(string) *node) *servers {
	return &servers{connect: connect, limit: max(timeout, minDial), log: log, nodes: map[string]*node{}}
}

// current is what is known, asking when nothing is.
func (s *servers) current(ctx context.Context) (*view, error) {
	if v := s.now.Load(); v != nil {
		return v, nil
	}
	if err := s.look(ctx, nil); err != nil {
		return nil, err
	}
	return s.now.Load(), nil
}

// look asks who serves what, because old turned out or may be wrong, and waits for the answer or for ctx. It does nothing when old is
// history.
func (s *servers) look(ctx context.Context, old *view) error {
	f := s.begin(old)
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return fmt.Errorf("find redis: %w", ctx.Err())
	}
}

// begin is look without the waiting. It returns the question, or nil when there is nothing to ask.
func (s *servers) begin(old *view) *flight {
	if s.find == nil || s.now.Load() != old {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return &flight{done: closedChan(), err: errClosed}
	}
	if f := s.flight; f != nil && (f.ended.IsZero() || time.Since(f.ended) < minLook) {
		return f
	}
	f := &flight{done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), s.limit) // whoever asks may be gone before the answer comes
	s.flight, s.stop = f, cancel
	go s.fly(ctx, f)
	return f
}

func closedChan() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// fly ends with ctx.
func (s *servers) fly(ctx context.Context, f *flight) {
	found, err := s.find(ctx)
	if err == nil {
		s.set(found)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop()
	f.err, f.ended = err, time.Now()
	if err != nil {
		f.ended = f.ended.Add(rand.N(minLook))
	}
	close(f.done)
}

// set makes found what is known.
func (s *servers) set(found layout) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	old := s.now.Load()
	if old == nil || !old.layout.equal(found) {
		v := &view{layout: found, nodes: map[string]*node{}, changed: make(chan struct{})}
		for _, sp := range found.spans {
			if sp.address != "" && v.nodes[sp.address] == nil {
				v.nodes[sp.address] = s.node(sp.address)
			}
		}
		s.now.Store(v)
		if old != nil {
			close(old.changed)
			s.log.Info("redis servers changed", "masters", v.addresses())
		}
	}
	v := s.now.Load()
	for address, n := range s.nodes {
		if v.nodes[address] == nil && time.Since(time.UnixMilli(n.used.Load())) >= s.keep {
			delete(s.nodes, address)
			n.client.Close()
		}
	}
}

func (v *view) addresses() string {
	var list []string
	for address := range v.nodes {
		list = append(list, address)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// at is the server of an address, whoever it is: another one sent us there.
func (s *servers) at(address string) (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	n := s.node(address)
	n.used.Store(time.Now().UnixMilli())
	return n, nil
}

func (s *servers) node(address string) *node {
	n := s.nodes[address]
	if n == nil {
		n = s.connect(address)
		s.nodes[address] = n
	}
	return n
}

// state is the worst state of the masters' breakers.
func (s *servers) state() string {
	v := s.now.Load()
	if v == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flight != nil && s.flight.err != nil {
			return "open"
		}
		return "closed"
	}
	worst := "closed"
	for _, n := range v.nodes {
		switch n.state() {
		case "open":
			return "open"
		case "half-open":
			worst = "half-open"
		}
	}
	return worst
}

func (s *servers) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.stop != nil {
		s.stop()
	}
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.client.Close())
	}
	clear(s.nodes)
	if s.finally != nil {
		errs = append(errs, s.finally())
	}
	return errors.Join(errs...)
}

var errClosed = errors.New("store is closed")
