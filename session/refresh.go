package session

import (
	"context"
	"errors"
	"time"
)

const (
	// waitMargin is how long before its expiry a token is no longer handed out without waiting for the refresh, at most a tenth of
	// its life: it must still be valid when the upstream looks at it.
	waitMargin = 5 * time.Second

	// A failure after which the refresh token may be sent again is remembered for this long, doubled each time, unless the
	// provider names another time.
	againPause    = time.Second
	againPauseMax = 30 * time.Second
	// retryAfterMax bounds what the provider may name.
	retryAfterMax = 5 * time.Minute

	// unknownPause is the least time between the two sends of a refresh token after an unknown outcome, so that one short
	// outage does not take both.
	unknownPause = 5 * time.Second

	// storePause is how long a refresh is not tried again when the store did not answer.
	storePause = time.Second
)

// RefreshFunc exchanges the refresh token of s and returns the whole new grant. What the provider did not send again is as in s. It
// must return when ctx ends. Errors are [*RefreshError]; what is none counts as [Unknown].
type RefreshFunc func(ctx context.Context, s *Session) (Grant, error)

// Fresh returns s, or what replaced it, with an access token to use now. If a refresh is due it starts one, unless it runs already.
// While the token is usable (for waitMargin at least) nobody waits for that, neither who started it. Afterwards everybody waits, bounded by ctx.
//
// The refresh runs on its own, however soon ctx ends. Errors are [*EndedError], [*RetryError] when the token has run out and cannot
// be refreshed just now, and [ErrUnavailable].
func (m *Manager) Fresh(ctx context.Context, s *Session, refresh RefreshFunc) (*Session, error) {
	if s.grant != nil {
		return m.freshShared(ctx, s, refresh, (*Manager).Fresh)
	}
	now := m.o.Now()
	if !s.due.IsZero() && !now.Before(s.due) {
		return m.renew(ctx, s, refresh, false)
	}
	// Without a refresh token, a token that runs out ends the session.
	if e := s.Tokens.Expiry; s.due.IsZero() && !e.IsZero() && !now.Before(e) {
		if isGrant(s.key) {
			return nil, &EndedError{ReasonTokenExpired} // see freshShared
		}
		m.endNamed(ctx, s, ReasonTokenExpired) // times tell it even if this fails
		return nil, &EndedError{ReasonTokenExpired}
	}
	return s, nil
}

// Refresh is Fresh for a person who asks for it now: it refreshes though it is not due, and waits for the result. It returns s when
// there is no refresh token. What the rules for refresh tokens forbid at the moment is [*RetryError].
func (m *Manager) Refresh(ctx context.Context, s *Session, refresh RefreshFunc) (*Session, error) {
	if s.grant != nil {
		return m.freshShared(ctx, s, refresh, (*Manager).Refresh)
	}
	if s.Tokens.Refresh == "" {
		return m.Fresh(ctx, s, refresh)
	}
	return m.renew(ctx, s, refresh, true)
}

// renew refreshes s, which is due or forced.
func (m *Manager) renew(ctx context.Context, s *Session, refresh RefreshFunc, force bool) (*Session, error) {
	for {
		got, f, err := m.renewOnce(ctx, s, refresh, force)
		if f == nil {
			return got, err
		}
		// Its result is settled and does for nobody who comes now. It is about to go.
		select {
		case <-f.gone:
		case <-ctx.Done():
			return s.orError(m.o.Now(), force, &RetryError{After: againPause, Err: context.Cause(ctx)})
		}
	}
}

// renewOnce is renew unless a flight has to end first, which it then returns.
func (m *Manager) renewOnce(ctx context.Context, s *Session, refresh RefreshFunc, force bool) (*Session, *flight, error) {
	// Another request may have refreshed it since s was loaded.
	had := s
	sl := m.slot(s.key)
	if v := sl.view.Load(); v != nil && v.ended != "" {
		return nil, nil, &EndedError{v.ended}
	}
	if known := m.known(s.key, sl); known != nil && known.order() > s.order() {
		s = known
	}
	if s.gone != "" {
		return nil, nil, &EndedError{s.gone}
	}
	or := func(s *Session, err error) (*Session, *flight, error) { return s, nil, err }
	now := m.o.Now()
	if !s.dueAt(now, had, force) {
		return s, nil, nil
	}
	if err := m.blocked(s, now); err != nil {
		return or(s.orError(now, force, err))
	}
	f, started := m.fly(ctx, s, refresh, force)
	if f == nil {
		return or(s.orError(now, force, unavailable("refresh session", errors.New("closing"))))
	}
	if !force && now.Before(s.must) {
		return s, nil, nil
	}
	if !started && f.settled() {
		if !f.owing.Load() {
			return nil, f, nil
		}
		// It is over but for its write, because the store is down, and what it yielded is s.
		return or(s.orError(now, force, unavailable("refresh session", errors.New("the last refresh is not stored yet"))))
	}
	if m.o.Waited != nil {
		began := m.o.Now()
		defer func() { m.o.Waited(m.o.Now().Sub(began)) }()
	}
	select {
	case <-f.done:
		if f.err != nil {
			return or(s.orError(m.o.Now(), force, f.err))
		}
		return f.s, nil, nil
	case <-ctx.Done():
		return or(s.orError(m.o.Now(), force, &RetryError{After: againPause, Err: context.Cause(ctx)}))
	}
}

// dueAt reports whether s needs a refresh now. A person who forces it has had it when the token is another than that of had.
func (s *Session) dueAt(now time.Time, had *Session, force bool) bool {
	if force {
		return s.Tokens.Access == had.Tokens.Access
	}
	return !s.due.IsZero() && !now.Before(s.due)
}

// orError returns s while its token is valid, else the error. Ends are final, and whoever forces a refresh wants to know.
func (s *Session) orError(now time.Time, force bool, err error) (*Session, error) {
	var ended *EndedError
	if force || errors.As(err, &ended) || !now.Before(s.Tokens.Expiry) && !s.Tokens.Expiry.IsZero() {
		return nil, err
	}
	return s, nil
}

// memo remembers that the last refresh with the tokens of a session failed.
type memo struct {
	until    time.Time
	err      error
	tries    int  // in a row that may be sent again
	unknown  int  // like Session.unknown, when the store did not take that
	rejected bool // the refresh token must not be sent again: the session is to end
	looked   bool // a newer grant was looked for since, see refused
}

// memo returns what is remembered about the refresh token of s.
func (m *Manager) memo(s *Session) memo {
	mm, _ := m.memos.GetIfPresent(m.fingerprint(s))
	return mm
}

// blocked says why the refresh token of s must not be sent at the moment.
func (m *Manager) blocked(s *Session, now time.Time) error {
	mm := m.memo(s)
	if mm.err != nil && now.Before(mm.until) {
		if errors.Is(mm.err, ErrUnavailable) {
			return mm.err
		}
		return &RetryError{After: max(mm.until.Sub(now), time.Second), Err: mm.err}
	}
	// After an unknown outcome it may be sent once more, and only when the token has expired.
	if e := s.Tokens.Expiry; max(s.unknown, mm.unknown) > 0 && now.Before(e) {
		return &RetryError{After: max(e.Sub(now), time.Second), Err: errUnknown}
	}
	return nil
}

// RetryPause is how long a refresh token is not sent after so many failures in a row, and one more, after which it may be sent again.
func RetryPause(tries int) time.Duration { return min(againPause<<min(tries, 10), againPauseMax) }

// errUnknown is what is left to say of an unknown outcome that another process had.
var errUnknown = errors.New("the outcome of the last refresh is unknown")
