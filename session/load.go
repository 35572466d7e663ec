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
	if reasonOf(err) == ReasonKeyUnknown { // all of them; beside a session or the remains of one they are nobody's
		for _, value := range values[:n] {
			hash := hashCookie(value)
			m.sawStrange(&hash)
		}
	}
	return nil, err
}

// hashCookie is what a cookie's value is remembered by.
func hashCookie(value string) [32]byte {
	var buf [maxCookie]byte // and no copy on the heap
	return sha256.Sum256(buf[:copy(buf[:], value)])
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
	hash := hashCookie(value)
	t, err := m.ticket(value, hash)
	if err != nil {
		if why := reasonOf(err); why != ReasonKeyUnknown && m.tellOnce(string(hash[:])) { // of that one see Load
			m.ended("", "", why)
		}
		return nil, err
	}
	s, err := m.find(ctx, &t.ticket)
	if err != nil && reasonOf(err) != "" {
		m.tellOnce(string(hash[:])) // told already; when its ticket is forgotten the cookie is to tell nothing else
	}
	return s, err
}

// find is the session of t.
func (m *Manager) find(ctx context.Context, t *ticket) (*Session, error) {
	sl, now := m.slot(t.key), m.o.Now()
	v, lookup := sl.view.Load(), LookupUnconfirmed
	switch {
	case v == nil:
		lookup = LookupMiss
	case v.ended != "":
		m.looked(LookupHit)
		m.lookBehind(ctx, sl, v, t)
		return nil, &EndedError{v.ended}
	case m.watched.Load() && m.current(sl, v, now) && m.over(sl, v.s, now) == "":
		m.looked(LookupHit)
		return m.whole(ctx, sl, v.s)
	case !now.Before(v.s.Ends):
		m.looked(LookupHit)
		m.saw(t.key, v.s.Subject, ReasonLifetime)
		return nil, &EndedError{ReasonLifetime}
	}
	// Also when our copy looks idle: another replica may have been used since.
	v, err := m.confirm(ctx, sl, t)
	if err != nil {
		if v = m.keep(ctx, sl, err); v != nil {
			lookup = LookupKept
		}
	}
	m.looked(lookup)
	if v == nil {
		return nil, err
	}
	if v.ended != "" {
		return nil, &EndedError{v.ended}
	}
	if why := m.over(sl, v.s, now); why != "" {
		if err != nil && why == ReasonIdle {
			return nil, err // another replica may know better, the store would have told
		}
		m.saw(t.key, v.s.Subject, why)
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

// reasonOf is the reason of an [*EndedError], else none.
func reasonOf(err error) Reason {
	var ended *EndedError
	if errors.As(err, &ended) {
		return ended.Reason
	}
	return ""
}
