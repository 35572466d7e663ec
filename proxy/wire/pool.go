package wire

import (
	"slices"
	"time"
)

// sweepInterval is how often idle connections are looked at: closed are those that the server has closed and those unused for too long.
const sweepInterval = 5 * time.Second

// take returns an idle connection, or nil.
func (t *Transport) take() *conn {
	for {
		t.mu.Lock()
		t.closing = false
		last := len(t.idle) - 1
		if last < 0 {
			t.mu.Unlock()
			return nil
		}
		c := t.idle[last]
		t.idle[last] = nil
		t.idle = t.idle[:last]
		t.mu.Unlock()
		if c.usable() {
			return c
		}
		c.close()
	}
}

// put keeps a connection for another request. One on which more has come than the answer is closed.
func (t *Transport) put(c *conn) {
	if c.in.Buffered() > 0 {
		c.close()
		return
	}
	c.idleSince = time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing || len(t.idle) >= t.MaxIdle {
		c.close()
		return
	}
	t.idle = append(t.idle, c)
	if !t.sweeping {
		t.sweeping = true
		time.AfterFunc(min(sweepInterval, t.IdleTimeout), t.sweep)
	}
}

// sweep closes idle connections that are of no more use. It calls itself again as long as there are others.
func (t *Transport) sweep() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = slices.DeleteFunc(t.idle, func(c *conn) bool {
		if time.Since(c.idleSince) < t.IdleTimeout && c.usable() {
			return false
		}
		c.close()
		return true
	})
	t.sweeping = len(t.idle) > 0
	if t.sweeping {
		time.AfterFunc(min(sweepInterval, t.IdleTimeout), t.sweep)
	}
}

// CloseIdleConnections closes connections that are not in use, here and in the other transport. Those in use are closed after it, unless
// new requests come.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	t.closing = true
	for _, c := range t.idle {
		c.close()
	}
	t.idle = nil
	t.mu.Unlock()
	t.Other.CloseIdleConnections()
}
