package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// CreateOptions are what is known at sign-in beside the grant.
type CreateOptions struct {
	// Browser is the browser's family; see [BrowserFamily].
	Browser string
	// SignIn joins the session to an earlier sign-in; empty starts another. It is of no account where the grant has a SID.
	SignIn string
	// Replaces is the session of the same browser that the new one takes the place of. It ends.
	Replaces *Session
}

// Create makes a session with a new id and a new key and returns it with the cookie to set. It is in the store, and can be found by
// its index entries, when Create returns.
func (m *Manager) Create(ctx context.Context, g Grant, o CreateOptions) (*Session, *http.Cookie, error) {
	if g.Issuer == "" || g.Tokens.Access == "" {
		return nil, nil, errors.New("create session: grant without issuer or access token")
	}
	if m.o.Issuer != "" && g.Issuer != m.o.Issuer {
		return nil, nil, errors.New("create session: grant of another issuer")
	}
	value, t, err := m.newTicket()
	if err != nil {
		return nil, nil, fmt.Errorf("create session: %w", err)
	}
	switch {
	case g.SID != "":
		o.SignIn = "" // the SID says the same
	case o.SignIn == "":
		o.SignIn = rand.Text()
	}
	now := m.o.Now().UTC().Truncate(time.Millisecond) // what comes back from the store
	if g.Tokens.Obtained.IsZero() {
		g.Tokens.Obtained = now
	}
	s := &Session{
		Grant: trim(g), Provider: m.o.Provider, Created: now, Ends: now.Add(m.o.Lifetime), Seen: now.Truncate(time.Second),
		SignIn: o.SignIn, Browser: o.Browser, Version: 1, key: t.key, dataKey: t.dataKey,
	}
	m.schedule(s)
	rec, err := m.record(s)
	if err != nil {
		return nil, nil, fmt.Errorf("create session: %w", err)
	}
	index := m.indexEntries(s)
	if m.o.SharedGrant {
		if s, rec, err = m.withoutGrant(s); err != nil {
			return nil, nil, fmt.Errorf("create session: %w", err)
		}
	}
	sl := m.slot(t.key)
	v := m.beginView(sl)
	evicted, err := m.o.Store.Create(ctx, t.key, rec, m.o.Lifetime, index)
	if err != nil {
		m.putLater(ctx, trim(g), s)
		return nil, nil, unavailable("create session", err)
	}
	sl.use(now)
	v.s = s
	m.learn(t.key, sl, &v)
	if s.shares {
		// After the session, see Revocable. Nobody has its cookie yet.
		grant, err := m.putGrant(ctx, trim(g), m.places(s))
		if err != nil {
			m.putLater(ctx, trim(g), s)
			_, _ = m.end(ctx, t.key, ReasonStoreMiss, false, m.indexNames(s))
			return nil, nil, unavailable("create session", err)
		}
		s = sl.share(s, grant)
	}
	m.log.InfoContext(ctx, "session created", "session", s.Handle())

	// The new session stands whatever becomes of these; what fails is tried again in the background.
	for _, e := range evicted {
		f := m.readEntry(ctx, e)
		_, _ = m.endFound(ctx, &f, ReasonLimit)
	}
	if r := o.Replaces; r != nil && r.key != "" {
		_, _ = m.end(ctx, r.key, ReasonReplaced, false, m.indexNames(r))
	}
	return s, m.cookie(value), nil
}

const (
	// maxExtra and maxExtraSize bound Grant.Extra and one member of it, its name included.
	maxExtra     = 16
	maxExtraSize = 1 << 10
)

// trim gives the times of g the precision that they have in the store, and keeps of Extra what is stored: a copy, of no more than
// fits. A claim that is too long must not cost a person the session.
func trim(g Grant) Grant {
	if g.Extra != nil {
		extra := make(map[string]string, min(len(g.Extra), maxExtra))
		for _, name := range slices.Sorted(maps.Keys(g.Extra)) {
			if len(extra) < maxExtra && len(name)+len(g.Extra[name]) <= maxExtraSize {
				extra[name] = g.Extra[name]
			}
		}
		g.Extra = extra
	}
	if g.Claims != nil && packClaims(g.Claims) == nil {
		g.Claims = nil
	}
	g.AuthTime = fromMillis(millis(g.AuthTime))
	g.Issued = fromMillis(millis(g.Issued))
	g.Tokens.Obtained = fromMillis(millis(g.Tokens.Obtained))
	g.Tokens.Expiry = fromMillis(millis(g.Tokens.Expiry))
	return g
}
