package session

import (
	"context"
	"errors"
	"net/http"
)

// Whose is the person of a session that is over.
type Whose struct {
	Issuer, Subject string
	// ID is [Session.ID], Handle is [Session.Handle].
	ID, Handle string
}

// WhoseEnded tells whose session the request with header h belongs to, of which [Manager.Load] or [Manager.Fresh] has just said that it is over, as
// long as its record or tombstone still says so. It reads that from the store.
//
// It is [ErrNone] for everyone else: a cookie that is none of ours, one whose session the store no longer knows, a person who signed out, a provider that does
// not tell who signed in. Any other error is [ErrUnavailable].
func (m *Manager) WhoseEnded(ctx context.Context, h http.Header) (Whose, error) {
	var values [maxCookies]string
	n := cookieValues(h, m.o.Cookie.Name, &values)
	for _, value := range values[:n] {
		t, err := m.openTicket(value)
		if err != nil {
			continue
		}
		rec, err := m.o.Store.Get(ctx, t.key)
		switch {
		case errors.Is(err, ErrNone):
			continue
		case err != nil:
			return Whose{}, unavailable("read ended session", err)
		}
		a, _, ok := m.openAbout(t.key, rec.Sealed)
		if ok && a.Subject != "" && rec.Ended != ReasonSignedOut {
			return Whose{Issuer: m.o.Issuer, Subject: a.Subject, ID: t.key, Handle: handle(t.key)}, nil
		}
	}
	return Whose{}, ErrNone
}
