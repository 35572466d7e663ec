package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// Limits of what strangers may send to the logout endpoints: those that end nothing count, so that a provider may end many sessions at once.
const (
	maxMisses      = 200    // in a row, from one network
	missesPerSec   = 20     // are forgotten again
	maxMissMemory  = 20_000 // networks that are remembered, in two generations
	missRetryAfter = "1"    // seconds
)

// misses bounds what one network can have checked in vain. Its memory is bounded; the zero value is ready.
type misses struct {
	mu       sync.Mutex
	now, old map[string]*missed
}

type missed struct {
	count float64
	last  time.Time
}

// begin counts a request before anything about it is checked; it is false where a network has sent too many. hit takes it back.
func (m *misses) begin(from netip.Addr, now time.Time) (hit func(), ok bool) {
	key := network(from)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.now[key]
	if c == nil {
		if m.now == nil || len(m.now) >= maxMissMemory/2 {
			m.old, m.now = m.now, map[string]*missed{}
		}
		if c = m.old[key]; c == nil {
			c = &missed{last: now}
		}
		m.now[key] = c
	}
	if d := now.Sub(c.last); d > 0 {
		c.count, c.last = max(0, c.count-d.Seconds()*missesPerSec), now
	}
	if c.count >= maxMisses {
		return nil, false
	}
	c.count++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		c.count = max(0, c.count-1)
	}, true
}
