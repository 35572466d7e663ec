package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"time"
)

// Load finds the session of the request whose header is h. Its errors are [ErrNone], [*EndedError], and [ErrUnavailable] with its
// cause. If several cookies have our name each is tried, because an attacker on a sibling host or path may have added one.
//
// Flow:
//
//  1. the cookie's value, by its hash, names the ticket: no cryptography when it was seen before
//  2. the ticket names the slot: no store call when that is confirmed
//  3. else the store is read, once for all requests that wait for it
//  4. lifetime and idle limit are decided on what is known then
//  5. a session that shares its grant is completed with that, which is cached and read in the same way
func (m *Manager) Load(ctx context.Context, h http.Header) (*Session, error) {
	var values [maxCookies]string
	n := cookieValues(h, m.o.Cookie.Name, &values)
	err := error(ErrNone)
	for _, value := range values[:n] {
		s, e := m.load(ctx, value)
		if e == nil {
			return s, nil
		}
		if weight(e) > weight(err) {
			err = e
		}
	}
	return nil, err
}

// weight orders the answers of several cookies: one that may be a live session comes before one that surely is none.
func weight(err error) int {
	switch {
	case errors.Is(err, ErrUnavailable):
		return 3
	case errors.Is(err, ErrNone):
		return 0
	}
	switch reasonOf(err) {
	case ReasonKeyUnknown, ReasonStoreMiss:
		return 1
	}
	return 2
}

func (m *Manager) load(ctx context.Context, value string) (*Session, error) {
	var buf [maxCookie]byte
	hash := sha256.Sum256(buf[:copy(buf[:], value)])
	t, ok := m.tickets.GetIfPresent(hash)
	if !ok {
		var err error
		if t, err = m.openTicket(value); err != nil {
			return nil, err
		}
		m.tickets.Set(hash, t)
	}

	sl, now := m.slot(t.key), m.o.Now()
	v := sl.view.Load()
	switch {
	case v == nil:
	case v.ended != "":
		return nil, &EndedError{v.ended}
	case m.watched.Load() && m.current(sl, v, now) && m.over(sl, v.s, now) == "":
		return m.whole(ctx, sl, v.s)
	case !now.Before(v.s.Ends):
		m.tell(t.key, sl, ReasonLifetime)
		return nil, &EndedError{ReasonLifetime}
	}
	// Also when our copy looks idle: another replica may have been used since.
	v, err := m.confirm(ctx, sl, t)
	if err != nil {
		return nil, err
	}
	if v.ended != "" {
		return nil, &EndedError{v.ended}
	}
	if why := m.over(sl, v.s, now); why != "" {
		m.tell(t.key, sl, why)
		return nil, &EndedError{why}
	}
	return m.whole(ctx, sl, v.s)
}

// whole is s with its grant, if it shares one.
func (m *Manager) whole(ctx context.Context, sl *slot, s *Session) (*Session, error) {
	if !s.shares {
		return s, nil
	}
	return m.withGrant(ctx, sl, s)
}

// over says whether the session's time is up. These two ends need no write: every replica sees them.
func (m *Manager) over(sl *slot, s *Session, now time.Time) Reason {
	if !now.Before(s.Ends) {
		return ReasonLifetime
	}
	if seen := max(s.Seen.UnixMilli(), sl.seen.Load()); now.UnixMilli()-seen >= m.o.IdleTimeout.Milliseconds() {
		return ReasonIdle
	}
	return ""
}

// tell logs an end that nobody wrote, once.
func (m *Manager) tell(key string, sl *slot, why Reason) {
	if !sl.told.CompareAndSwap(false, true) {
		return
	}
	if why == ReasonTampered {
		m.log.Warn("session does not open: its stored value is not the one that was written", "session", handle(key))
		return
	}
	m.log.Info("session ended", "session", handle(key), "reason", string(why))
}

// reasonOf is the reason of an [*EndedError], else none.
func reasonOf(err error) Reason {
	var ended *EndedError
	if errors.As(err, &ended) {
		return ended.Reason
	}
	return ""
}
