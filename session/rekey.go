package session

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"postern/session/seal"
)

// To rotate the deployment's keys the new one goes first in the ring, and the old one out of it when nothing that matters is sealed under
// it. What a browser uses meanwhile moves under the first key: its cookie by Reseal, and behind that, in the background, what the store
// holds: the part of the record that opens without the cookie, the index entries, and the shared grant.

const (
	// offerEvery bounds how often one session's browser is given a cookie under the first key: some clients never take one.
	offerEvery = time.Minute
	// settled is how old a cookie must be before it is sealed anew. While replicas have the same keys in different order, each would seal
	// what the other has just sealed, and move the session back and forth.
	settled = 5 * time.Minute
)

// Reseal returns the cookie to set in the answer to a request with header h whose session [Manager.Load] has found: when its cookie opens
// under another key than the ring's first, and not since a moment ago. Else it is nil, and costs next to nothing.
func (m *Manager) Reseal(h http.Header) *http.Cookie {
	if m.ring.Keys() == 1 {
		return nil
	}
	var values [maxCookies]string
	n := cookieValues(h, m.o.Cookie.Name, &values)
	for _, value := range values[:n] {
		t, err := m.ticket(value, hashCookie(value))
		if err != nil {
			continue
		}
		sl, ok := m.slots.GetIfPresent(t.key)
		if !ok {
			continue
		}
		now, v := m.o.Now(), sl.view.Load()
		if v == nil || v.s == nil || m.over(sl, v.s, now) != "" {
			continue
		}
		// This is the one that Load found. The browser must not be given another that somebody may have planted behind it.
		was := t.offered.Load()
		if !t.old || now.UnixMilli()-was < offerEvery.Milliseconds() || !t.offered.CompareAndSwap(was, now.UnixMilli()) {
			return nil
		}
		return m.reseal(t, v.s, value)
	}
	return nil
}

// reseal seals the cookie's value, which opens to t, anew.
func (m *Manager) reseal(t *opened, s *Session, value string) *http.Cookie {
	if _, _, err := m.ring.Open(m.purpose, value, settled); !errors.Is(err, seal.ErrExpired) {
		return nil
	}
	plain, _, err := m.ring.Open(m.purpose, value, m.o.Lifetime)
	if err != nil {
		return nil
	}
	if value, err = m.ring.Seal(m.purpose, plain); err != nil {
		return nil
	}
	m.spawn(context.Background(), rewriteLimit, func(ctx context.Context) {
		for wait := rewritePause; ; wait = min(2*wait, rewritePauseMax) {
			err := m.rekey(ctx, &t.ticket)
			if err == nil || reasonOf(err) != "" {
				return
			}
			if !sleep(ctx, wait) {
				m.log.WarnContext(ctx, "session not moved under the first key", "session", handle(t.key), "err", err)
				return
			}
		}
	})
	c := m.cookie(value)
	if c.MaxAge > 0 {
		c.MaxAge = max(int(s.Ends.Sub(m.o.Now()).Seconds()), 1)
	}
	return c
}

// rekey moves what the store holds for the session of t under the ring's first key. Doing it twice, here or elsewhere, does no harm.
func (m *Manager) rekey(ctx context.Context, t *ticket) error {
	ctx, cancel := context.WithTimeout(ctx, 2*storeLimit)
	defer cancel()
	for {
		generation := m.ring.Generation()
		rec, err := m.o.Store.Get(ctx, t.key)
		if errors.Is(err, ErrNone) || rec.Ended != "" {
			return nil
		}
		if err != nil {
			return unavailable("move session", err)
		}
		s, err := m.open(t, rec)
		if err != nil {
			return err
		}
		// The old entries stay until the session is over: another replica may be moving it at the same time, the other way.
		if err := m.o.Store.Reindex(ctx, m.indexEntries(s), nil); err != nil {
			return unavailable("move session", err)
		}
		if _, key, ok := m.openAbout(t.key, rec.Sealed); !ok || key > 0 {
			s.Version++
			n, err := m.record(s)
			if err != nil {
				return err
			}
			err = m.o.Store.Swap(ctx, t.key, n, rec.Version)
			if errors.Is(err, ErrConflict) && ctx.Err() == nil {
				continue // refreshed or ended meanwhile
			}
			if err != nil && !errors.Is(err, ErrNone) {
				return unavailable("move session", err)
			}
		}
		if s.shares {
			if err := m.moveGrant(ctx, s); err != nil {
				return err
			}
		}
		if m.ring.Generation() == generation { // else it may have gone under a key that is no longer the first
			return nil
		}
	}
}

// moveGrant moves the grant that s shares to its name under the first key, while nobody refreshes it.
func (m *Manager) moveGrant(ctx context.Context, s *Session) error {
	keys := m.grantKeys(s.Issuer, s.Subject)
	g, _, err := m.readGrant(ctx, keys)
	if err != nil || g.gone != "" || g.key == keys[0] {
		return err
	}
	owner := rand.Text()
	ok, err := m.acquire(ctx, g.key, owner)
	if err != nil {
		return unavailable("lease shared grant", err)
	}
	if !ok {
		return errBusy
	}
	defer m.release(context.WithoutCancel(ctx), g.key, owner)
	from := g.key
	if g, _, err = m.readGrant(ctx, keys); err != nil || g.gone != "" || g.key != from {
		return err
	}
	_, err = m.putGrant(ctx, g.Grant, keys)
	return err
}
