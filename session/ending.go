package session

import (
	"sync"
	"time"
)

// Ending is the end of a session as it is counted, logged and told, once.
type Ending struct {
	// Handle is [Session.Handle]. It is empty for a cookie that opens no session.
	Handle string
	// Provider is the manager's, Subject the person at that provider, empty where this process does not know it.
	Provider, Subject string
	Reason            Reason
}

const (
	// maxTold bounds the ends without a tombstone that are remembered as told.
	maxTold = 1 << 16
	// maxStrange bounds the same for cookies that anyone can make up.
	maxStrange = 1 << 13
	// strangeLines is how many of those are logged in each strangeSpan; the rest are counted.
	strangeLines = 10
	strangeSpan  = time.Minute
)

// saw tells of an end that nobody wrote: by time, or because the store has nothing that opens. It tells each once in this process.
func (m *Manager) saw(key, subject string, why Reason) {
	if !m.tellOnce(key) {
		return
	}
	if why == ReasonTampered {
		m.log.Warn("session does not open: its stored value is not the one that was written", "session", handle(key))
	}
	m.ended(key, subject, why)
}

// tellOnce reports whether it is asked for the first time about what, a store key or the hash of a cookie.
func (m *Manager) tellOnce(what string) bool {
	_, first := m.told.SetIfAbsent(what, struct{}{})
	return first
}

// sawStrange tells of a cookie of our name that opens under none of our keys.
func (m *Manager) sawStrange(cookie *[32]byte) {
	if _, first := m.strange.SetIfAbsent(*cookie, struct{}{}); !first {
		return
	}
	if log, more := m.strangeLog.allow(m.o.Now()); log {
		m.log.Info("session ended", "reason", string(ReasonKeyUnknown), "not_logged_before", more)
	}
	m.announce(Ending{Reason: ReasonKeyUnknown})
}

// ended logs an end and tells it.
func (m *Manager) ended(key, subject string, why Reason) {
	m.log.Info("session ended", "session", handle(key), "reason", string(why))
	m.announce(Ending{Handle: handle(key), Subject: subject, Reason: why})
}

func (m *Manager) announce(e Ending) {
	e.Provider = m.o.Provider
	if m.o.Ended != nil {
		m.o.Ended(e)
	}
}

// subjectOf is the person of the session under key, as far as the cache knows it.
func (m *Manager) subjectOf(key string) string {
	if sl, ok := m.slots.GetEntryQuietly(key); ok {
		if v := sl.Value.view.Load(); v != nil && v.s != nil {
			return v.s.Subject
		}
	}
	return ""
}

// quota allows so many log lines in each span of time.
type quota struct {
	mu    sync.Mutex
	since time.Time // guarded by mu, as are the others
	n     int
	over  int
}

// allow reports whether one more may be logged, and how many were not since the last that was.
func (q *quota) allow(now time.Time) (ok bool, missed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if age := now.Sub(q.since); age < 0 || age >= strangeSpan {
		q.since, q.n = now, 0
	}
	if q.n++; q.n > strangeLines {
		q.over++
		return false, 0
	}
	missed, q.over = q.over, 0
	return true, missed
}
