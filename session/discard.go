package session

import (
	"context"
	"errors"
)

// Discarded is what [Options.Discarded] is called with. Tokens has what came to light: sometimes the refresh token alone.
type Discarded struct {
	// Handle is the session's name in logs, Reason why it ended.
	Handle string
	Reason Reason
	Tokens Tokens
}

// discard hands on tokens that nobody uses any more.
func (m *Manager) discard(ctx context.Context, key string, why Reason, t Tokens) {
	if m.o.Discarded != nil && (t.Refresh != "" || t.Access != "") {
		m.o.Discarded(context.WithoutCancel(ctx), Discarded{Handle: handle(key), Reason: why, Tokens: t})
	}
}

// discardFound discards the refresh token of a session that has just ended without its cookie, where the deployment's keys open it. It is read
// from behind the tombstone: a refresh may have changed it since the session was found.
func (m *Manager) discardFound(ctx context.Context, key string) {
	if m.o.Discarded == nil {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeLimit)
	defer cancel()
	if m.discardKnown(limited, key) == nil {
		return
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		for wait := rewritePause; sleep(ctx, wait); wait = min(2*wait, rewritePauseMax) {
			if m.discardKnown(ctx, key) == nil {
				return
			}
		}
	})
}

// discardKnown is one try of discardFound.
func (m *Manager) discardKnown(ctx context.Context, key string) error {
	rec, err := m.o.Store.Get(ctx, key)
	if errors.Is(err, ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	a, _, ok := m.openAbout(key, rec.Sealed)
	if rec.Ended == "" || !ok {
		return nil
	}
	was, err := m.strip(ctx, key, a, ok)
	if err == nil && was {
		m.discard(ctx, key, rec.Ended, Tokens{Refresh: a.Refresh.token(), Scope: a.Scope})
	}
	return err
}

// discardGrant discards the tokens that the sessions of subject share, if none of them lives.
func (m *Manager) discardGrant(ctx context.Context, subject string, why Reason) {
	keys := m.grantKeys(m.o.Issuer, subject)
	tokens, _ := m.emptyUnused(ctx, "", subject)
	m.discard(ctx, keys[0], why, tokens)
}

// unseal discards the tokens behind the tombstone rec, now that somebody is here who can open them. It is the business of one replica.
func (m *Manager) unseal(ctx context.Context, t *ticket, rec Record) {
	if m.o.Discarded != nil && holdsTokens(rec.Sealed) && !isGrant(t.key) {
		m.spawn(ctx, rewriteLimit, func(ctx context.Context) { m.take(ctx, t, rec) })
	}
}

// unsealKnown is unseal for s, which has just ended here without its cookie and was in the cache; nil was not.
func (m *Manager) unsealKnown(ctx context.Context, s *Session) {
	if s == nil || s.shares || m.o.Discarded == nil {
		return
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		_ = m.unsealStored(ctx, &ticket{key: s.key, dataKey: s.dataKey}) // else when its cookie arrives
	})
}

// unsealStored is unseal for a tombstone that is still to be read.
func (m *Manager) unsealStored(ctx context.Context, t *ticket) error {
	switch rec, err := m.o.Store.Get(ctx, t.key); {
	case errors.Is(err, ErrNone):
	case err != nil:
		return err
	case rec.Ended != "" && holdsTokens(rec.Sealed):
		m.take(ctx, t, rec)
	}
	return nil
}

// take discards the tokens behind rec if it is the one that takes them out of the store.
func (m *Manager) take(ctx context.Context, t *ticket, rec Record) {
	s, err := m.open(t, rec)
	if err != nil {
		return
	}
	a, _, ok := m.openAbout(t.key, rec.Sealed)
	for wait := rewritePause; ; wait = min(2*wait, rewritePauseMax) {
		was, err := m.strip(ctx, t.key, a, ok)
		if err == nil {
			if was {
				m.discard(ctx, t.key, rec.Ended, s.Tokens)
			}
			return
		}
		if !sleep(ctx, wait) {
			m.log.WarnContext(ctx, "tokens of an ended session left: the store does not answer", "session", handle(t.key))
			return
		}
	}
}

// lookBehind is unseal for a session that this process knows to be over without having read its record.
func (m *Manager) lookBehind(ctx context.Context, sl *slot, v *view, t *ticket) {
	if !v.sealed || m.o.Discarded == nil {
		return
	}
	looked := *v
	looked.sealed = false
	if !sl.view.CompareAndSwap(v, &looked) {
		return
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		if m.unsealStored(ctx, t) != nil {
			sl.view.CompareAndSwap(&looked, v) // at the next request, then
		}
	})
}

// strip takes the tokens away that lie behind the tombstone of key, and leaves what is known about the session, if it is.
func (m *Manager) strip(ctx context.Context, key string, a about, known bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	return m.o.Store.Strip(ctx, key, m.rest(key, a, known))
}
