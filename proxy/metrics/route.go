package metrics

import (
	"maps"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Route counts the requests of one route. It is on the way of every request, so it finds what it counts with at no cost to speak of. A nil Route counts
// nothing.
type Route struct {
	m    *Metrics
	name string
	// seen holds the answers that there were so far. The map is never changed but replaced by a larger one; it stays small, since both parts of its key are out
	// of few.
	seen atomic.Pointer[map[answer]*counts]
}

// answer is what requests of a route are told apart by.
type answer struct {
	verdict string
	code    int
}

// counts are what a request with one answer counts in.
type counts struct {
	requests prometheus.Counter
	added    prometheus.Observer
}

// Route counts requests of the route of that name; "" is for those that reach none. Several of one name count together.
func (m *Metrics) Route(name string) *Route {
	if m == nil {
		return nil
	}
	r := &Route{m: m, name: name}
	r.seen.Store(&map[answer]*counts{})
	return r
}

// Answered counts a request: how it was decided, what was answered, and the time that Postern added.
func (r *Route) Answered(verdict string, status int, added time.Duration) {
	if r == nil {
		return
	}
	a := answer{verdict, codeOf(status)}
	c := (*r.seen.Load())[a]
	if c == nil {
		c = r.first(a)
	}
	c.requests.Inc()
	c.added.Observe(max(0, added).Seconds())
}

// first remembers what answers like a count in.
func (r *Route) first(a answer) *counts {
	code := strconv.Itoa(a.code)
	if 0 < a.code && a.code < 10 {
		code += "xx"
	}
	c := &counts{r.m.requests.WithLabelValues(r.name, a.verdict, code), r.m.added.WithLabelValues(a.verdict)}
	for {
		seen := r.seen.Load()
		more := maps.Clone(*seen)
		more[a] = c
		if r.seen.CompareAndSwap(seen, &more) {
			return c
		}
	}
}

// codeOf is status, or only its first digit where HTTP does not define it: an application may make up hundreds.
func codeOf(status int) int {
	if status == 0 || status == 499 || http.StatusText(status) != "" {
		return status
	}
	return min(status/100, 9)
}
