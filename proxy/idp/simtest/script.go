package simtest

import (
	"net/http"
	"slices"
	"sync"
)

// script is what a test wants of one endpoint.
type script struct {
	left int // failures; negative: all
	with answer
	held *Held
}

// raw is an answer as it stands, with its headers.
type raw struct {
	header http.Header
	text   string
}

// Fail makes the next n requests to an endpoint (all, if negative) end in status, unprocessed; 0 ends that. The headers are pairs, such
// as "Retry-After", "2".
func (s *Server) Fail(endpoint string, status, n int, header ...string) {
	a := raw{header: http.Header{}, text: http.StatusText(status) + "\n"}
	for pair := range slices.Chunk(header, 2) {
		a.header.Set(pair[0], pair[1])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.scriptOf(endpoint)
	x.left, x.with = n, answer{status: status, body: a}
}

// Hold keeps the answers of an endpoint back, once its requests have been processed, until [Held.Release].
func (s *Server) Hold(endpoint string) *Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.scriptOf(endpoint)
	h := &Held{processed: make(chan struct{}, 1<<10), released: make(chan struct{})}
	h.let = sync.OnceFunc(func() { close(h.released) })
	h.forget = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if x.held == h {
			x.held = nil
		}
	}
	x.held = h
	return h
}

func (s *Server) scriptOf(endpoint string) *script {
	s.known(endpoint)
	if s.script[endpoint] == nil {
		s.script[endpoint] = &script{}
	}
	return s.script[endpoint]
}

// fail takes one scripted failure.
func (x *script) fail() (answer, bool) {
	if x == nil || x.left == 0 {
		return answer{}, false
	}
	x.left = max(x.left-1, -1)
	return x.with, true
}

func (x *script) release() {
	if x.held != nil {
		x.held.let()
	}
}

// Held is an endpoint whose answers wait. See [Server.Hold].
type Held struct {
	processed   chan struct{}
	released    chan struct{}
	let, forget func()
}

// Processed receives once for each request whose answer waits.
func (h *Held) Processed() <-chan struct{} { return h.processed }

// Release lets the answers go, and later ones pass. It may be called again.
func (h *Held) Release() {
	h.forget()
	h.let()
}

func (h *Held) wait() {
	select {
	case h.processed <- struct{}{}:
	default: // nobody counts that many
	}
	<-h.released
}
