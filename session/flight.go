package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// errMoved says that the lease that is held is not that of the grant to refresh.
var errMoved = errors.New("the shared grant has moved")

// flight is one refresh in this process. Its goroutine ends by itself, see run.
type flight struct {
	done  chan struct{} // closed when s and err are set; the write may still be under way
	gone  chan struct{} // closed when nothing is under way any more
	wake  chan struct{} // has something when the session changed
	s     *Session
	err   error
	owing atomic.Bool // the store has not taken s yet
	void  atomic.Bool // s could not be written, because another was
}

func (f *flight) notify() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *flight) finish(s *Session, err error) {
	f.s, f.err = s, err
	close(f.done)
}

// settled reports whether the flight has its result.
func (f *flight) settled() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// result is the session that the flight yielded, nil when there is none (yet).
func (f *flight) result() *Session {
	if f == nil || f.void.Load() || !f.settled() {
		return nil
	}
	return f.s
}

// fly returns the flight of s and whether it has just started. It is nil when the manager is closing.
func (m *Manager) fly(ctx context.Context, s *Session, refresh RefreshFunc, force bool) (f *flight, started bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.flights[s.key]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{}), gone: make(chan struct{}), wake: make(chan struct{}, 1)}
	limit := 2*m.leaseTTL() + m.o.ExchangeTimeout + rewriteLimit + time.Minute // above the limits of its parts
	if !m.spawnLocked(ctx, limit, func(ctx context.Context) { m.run(ctx, f, s, refresh, force) }) {
		return nil, false
	}
	m.flights[s.key] = f
	return f, true
}

// run is a flight.
//
// Flow:
//
//  1. take the session's lease, or wait until whoever holds it has changed the session
//  2. wait for a place among the exchanges of this process, see MaxExchanges
//  3. read the session again under the lease: it may have ended, or been refreshed by another process
//  4. note in the store that the refresh token is about to be sent, see claim
//  5. exchange it, renewing the lease
//  6. write the new tokens on the version that was read, before anything else
//
// Waiters get the result as soon as it is certain; if the store does not take the write, that goes on.
func (m *Manager) run(ctx context.Context, f *flight, s *Session, refresh RefreshFunc, force bool) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.flights, s.key)
		close(f.gone)
	}()
	owner := rand.Text()
	other, err := m.lease(ctx, f, s, owner)
	if other == nil && err == nil {
		stop := m.keepLease(ctx, s.key, owner)
		defer m.release(ctx, s.key, owner)
		defer stop()
		if err := m.enter(ctx); err != nil {
			f.finish(nil, err)
			return
		}
		defer m.leave()
		m.exchange(ctx, f, s, refresh, force)
		return
	}
	if errors.Is(err, ErrUnavailable) {
		m.remember(s, memo{until: m.o.Now().Add(storePause), err: err})
		defer m.release(ctx, s.key, owner) // it may have been taken
	}
	f.finish(other, err)
}

// errCrowded says that the provider was busy with other refreshes for as long as one may take.
var errCrowded = errors.New("too many refreshes are under way")

// enter takes a place among the exchanges under way, and leave gives it back. Nothing was sent for whoever got none.
func (m *Manager) enter(ctx context.Context) error {
	t := time.NewTimer(m.o.ExchangeTimeout)
	defer t.Stop()
	select {
	case m.calls <- struct{}{}:
		return nil
	case <-t.C:
		return &RetryError{After: againPause, Err: errCrowded}
	case <-ctx.Done():
		return &RetryError{After: againPause, Err: context.Cause(ctx)}
	}
}

func (m *Manager) leave() { <-m.calls }

// reread reads s from the store, past the cache. It returns the newest version and the version that is stored.
func (m *Manager) reread(ctx context.Context, s *Session) (*Session, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	if isGrant(s.key) {
		return m.rereadGrant(ctx, s)
	}
	sl := m.slot(s.key)
	v := m.beginView(sl)
	rec, err := m.o.Store.Get(ctx, s.key)
	switch {
	case errors.Is(err, ErrNone):
		m.saw(s.key, s.Subject, ReasonStoreMiss)
		return nil, 0, &EndedError{ReasonStoreMiss}
	case err != nil:
		return nil, 0, unavailable("read session", err)
	case rec.Ended != "":
		m.heardEnd(s.key, rec)
		m.unseal(ctx, &ticket{key: s.key, dataKey: s.dataKey}, rec)
		m.markEnded(s.key, rec.Ended, len(rec.Sealed) > 0)
		return nil, 0, &EndedError{rec.Ended}
	}
	if why := m.livesAgain(s.key); why != "" {
		m.markEnded(s.key, why, true)
		return nil, 0, &EndedError{why}
	}
	v.s = s
	if rec.Version > s.Version {
		if v.s, err = m.open(&ticket{key: s.key, dataKey: s.dataKey}, rec); err != nil {
			m.saw(s.key, s.Subject, reasonOf(err))
			return nil, 0, err
		}
	}
	if got := m.learn(s.key, sl, &v); got.ended != "" {
		return nil, 0, &EndedError{got.ended}
	}
	return v.s, rec.Version, nil
}

// exchange is steps 3 to 6 of a flight.
func (m *Manager) exchange(ctx context.Context, f *flight, had *Session, refresh RefreshFunc, force bool) {
	s, stored, err := m.reread(ctx, had)
	if errors.Is(err, ErrUnavailable) {
		m.remember(had, memo{until: m.o.Now().Add(storePause), err: err})
	}
	if err != nil {
		f.finish(nil, err)
		return
	}
	now := m.o.Now()
	if !s.dueAt(now, had, force) {
		f.finish(s, nil)
		return
	}
	if s.key != had.key { // a sign-in has moved the grant to another name, and what it brought is due already
		f.finish(nil, &RetryError{After: againPause, Err: errMoved})
		return
	}
	if mm := m.memo(s); mm.rejected {
		if isGrant(s.key) {
			f.finish(m.refused(ctx, f, s, errRefused))
			return
		}
		f.finish(m.reject(ctx, s))
		return
	}
	if err := m.blocked(s, now); err != nil {
		f.finish(nil, err)
		return
	}
	note, err := m.claim(ctx, s)
	if err != nil {
		f.finish(nil, err)
		return
	}
	if note == "" { // two processes have sent it, and nobody knows what became of it
		f.finish(m.reject(ctx, s))
		return
	}
	g, err := m.call(ctx, s, refresh)
	if err != nil {
		f.finish(m.failed(ctx, f, s, stored, err))
		if kindOf(err) == Again {
			m.release(ctx, note, m.id) // for whoever tries next
		}
		return
	}
	n := *s
	n.Grant, n.unknown = merge(s.Grant, g, m.o.Now()), 0
	n.Version = s.next(stored)
	if isGrant(s.key) {
		n.stamp = m.stamp(s)
	}
	m.schedule(&n)
	m.save(ctx, f, s, &n, stored)
}

// kindOf is what a failed refresh means.
func kindOf(err error) RefreshKind {
	var re *RefreshError
	errors.As(err, &re)
	return re.Kind
}

// next is the version of what is written over the stored one. The store may have lost later ones (a failover), which are cached here and
// elsewhere and must not count as newer. Grants have their stamps for that.
func (s *Session) next(stored int64) int64 {
	if isGrant(s.key) {
		return stored + 1
	}
	return max(stored, s.Version) + 1
}

// call calls refresh within its time limit and makes a [*RefreshError] of whatever goes wrong.
func (m *Manager) call(ctx context.Context, s *Session, refresh RefreshFunc) (g Grant, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.ExchangeTimeout)
	defer cancel()
	defer func() {
		// There is no server above this goroutine to catch it, and one session must not end the process.
		if r := recover(); r != nil {
			err = &RefreshError{Kind: Unknown, Err: fmt.Errorf("panic: %v", r)}
		}
	}()
	g, err = refresh(ctx, s)
	var re *RefreshError
	switch {
	case errors.As(err, &re):
		return Grant{}, re
	case err != nil:
		return Grant{}, &RefreshError{Kind: Unknown, Err: err}
	case g.Subject != s.Subject || g.Issuer != s.Issuer:
		// OIDC Core 12.2. The provider checks it too; a session must never become another person's.
		return Grant{}, &RefreshError{Kind: Invalid, Err: errors.New("the answer names another issuer or subject")}
	case g.Tokens.Access == "":
		return Grant{}, &RefreshError{Kind: Unknown, Err: errors.New("the answer has no access token")}
	}
	return g, nil
}

// merge completes the grant of a refresh with what did not come again. The session keeps the SID under which it is indexed.
func merge(old, g Grant, now time.Time) Grant {
	if g.Tokens.Refresh == "" {
		g.Tokens.Refresh = old.Tokens.Refresh
	}
	if g.Tokens.ID == "" {
		g.Tokens.ID = old.Tokens.ID
	}
	if g.Tokens.Obtained.IsZero() {
		g.Tokens.Obtained = now
	}
	if g.AuthTime.IsZero() {
		g.AuthTime = old.AuthTime
	}
	g.SID, g.Issued = old.SID, old.Issued
	return trim(g)
}

// save writes n, the refreshed s, on the stored version. It tells the waiters as soon as n is certain to be the one to use, and goes
// on writing while the store does not answer: whoever read the old version could only spend a spent token.
func (m *Manager) save(ctx context.Context, f *flight, s, n *Session, stored int64) {
	ctx, cancel := context.WithTimeout(ctx, rewriteLimit)
	defer cancel()
	m.memos.Invalidate(m.fingerprint(s))
	sl := m.slot(s.key)
	told := false
	tell := func(s *Session, err error) {
		if !told {
			f.finish(s, err)
		}
		told = true
	}
	rec, err := m.record(n)
	if err != nil { // too large
		m.log.ErrorContext(ctx, "refreshed session cannot be stored", "session", s.Handle(), "err", err)
		tell(m.reject(ctx, s))
		return
	}
	for wait := rewritePause; ; wait = min(2*wait, rewritePauseMax) {
		v := m.beginView(sl)
		v.s = n
		outcome, other, err := m.write(ctx, s, rec, stored)
		switch {
		case outcome == written:
			m.log.InfoContext(ctx, "session refreshed", "session", s.Handle())
			m.learn(s.key, sl, &v)
			m.rotations.put(s.key, n, m.o.Now(), false)
			tell(n, nil)
			return
		case outcome == over:
			m.log.InfoContext(ctx, "session ended while it was refreshed", "session", s.Handle(), "reason", string(reasonOf(err)))
			m.forget(f, s)
			if why := reasonOf(err); why != ReasonStoreMiss {
				m.discard(ctx, s.key, why, n.Tokens) // nobody else has them
			}
			tell(nil, err)
			return
		case outcome == changed && other.Tokens.Refresh == s.Tokens.Refresh:
			// Someone noted a failure with the refresh token that we have exchanged.
			stored, n.Version = other.Version, n.next(other.Version)
			if isGrant(n.key) {
				n.stamp = m.stamp(other)
			}
			if rec, err = m.record(n); err == nil {
				continue
			}
		case outcome == changed:
			// Our lease was lost and someone else refreshed it later than we did, or signed in to the grant.
			m.forget(f, s)
			tell(other, nil)
			return
		}
		if !told {
			m.log.WarnContext(ctx, "refreshed session not stored yet", "session", s.Handle(), "err", err)
			m.learn(s.key, sl, &v)
			f.owing.Store(true)
			tell(n, nil)
			c := *n // n is shared from here on
			n = &c
		}
		if !sleep(ctx, wait) {
			m.log.ErrorContext(ctx, "refreshed session not stored: the store does not answer", "session", s.Handle())
			return
		}
	}
}

// forget drops what f has yielded for the grant s and told before it was written. Its stamp may be later than that of what is stored,
// when clocks differ.
func (m *Manager) forget(f *flight, s *Session) {
	if isGrant(s.key) {
		f.void.Store(true)
		m.slots.Invalidate(s.key)
	}
}

// outcome is what became of a write.
type outcome int

const (
	unanswered outcome = iota
	written
	changed // someone else wrote a newer version
	over    // the session ended
)

// write tries to replace the stored version of s by rec. When the answer is lost, or a surprise, reading settles what happened.
func (m *Manager) write(ctx context.Context, s *Session, rec Record, stored int64) (outcome, *Session, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*storeLimit)
	defer cancel()
	swap, cancelSwap := context.WithTimeout(ctx, storeLimit)
	defer cancelSwap()
	werr := m.o.Store.Swap(swap, s.key, rec, stored)
	if werr == nil {
		return written, nil, nil
	}
	if isGrant(s.key) {
		return m.lostWrite(ctx, s, rec, stored, werr)
	}
	got, err := m.o.Store.Get(ctx, s.key)
	switch {
	case errors.Is(err, ErrNone):
		m.saw(s.key, s.Subject, ReasonStoreMiss)
		return over, nil, &EndedError{ReasonStoreMiss}
	case err != nil:
		return unanswered, nil, unavailable("write session", err)
	case got.Ended != "":
		m.heardEnd(s.key, got)
		m.unseal(ctx, &ticket{key: s.key, dataKey: s.dataKey}, got)
		m.markEnded(s.key, got.Ended, len(got.Sealed) > 0)
		return over, nil, &EndedError{got.Ended}
	case got.Version == rec.Version && bytes.Equal(got.Sealed, rec.Sealed):
		return written, nil, nil
	case got.Version == stored:
		return unanswered, nil, unavailable("write session", werr)
	}
	other, err := m.open(&ticket{key: s.key, dataKey: s.dataKey}, got)
	if err != nil {
		m.saw(s.key, s.Subject, reasonOf(err))
		return over, nil, err
	}
	sl := m.slot(s.key)
	v := m.beginView(sl)
	v.s = other
	m.learn(s.key, sl, &v)
	return changed, other, nil
}

// failed decides what a failed exchange means for the session.
func (m *Manager) failed(ctx context.Context, f *flight, s *Session, stored int64, err error) (*Session, error) {
	var re *RefreshError
	errors.As(err, &re)
	m.log.WarnContext(ctx, "refresh failed", "session", s.Handle(), "kind", re.Kind.String(), "err", re.Err)
	now, mm := m.o.Now(), m.memo(s)
	switch re.Kind {
	case Again:
		pause := RetryPause(mm.tries)
		if re.RetryAfter > 0 {
			pause = min(max(re.RetryAfter, againPause), retryAfterMax)
		}
		m.remember(s, memo{until: now.Add(pause), err: err, tries: mm.tries + 1, unknown: mm.unknown})
		return nil, &RetryError{After: pause, Err: err}
	case Rejected:
		// Another process may have refreshed it although we hold the lease: then ours is what was sent too late.
		cur, _, rerr := m.reread(ctx, s)
		switch {
		case errors.Is(rerr, ErrUnavailable):
			m.remember(s, memo{until: now.Add(storePause), err: rerr, rejected: true})
			return nil, rerr
		case rerr != nil:
			return nil, rerr
		case cur.Tokens.Refresh != s.Tokens.Refresh:
			return cur, nil
		}
		if isGrant(s.key) {
			return m.refused(ctx, f, s, err)
		}
		return m.reject(ctx, s)
	case Invalid:
		return m.reject(ctx, s)
	}
	return m.doubtful(ctx, s, stored, err)
}

// doubtful notes that nobody knows whether the refresh token is spent. After the second time it must never be sent again (the
// provider would take it for stolen and revoke the family), so the session can only end. The note is stored, for other processes
// and for the next one here; if the store does not take it, this process remembers it.
func (m *Manager) doubtful(ctx context.Context, s *Session, stored int64, err error) (*Session, error) {
	unknown := max(s.unknown, m.memo(s).unknown) + 1
	if unknown > 1 {
		return m.reject(ctx, s)
	}
	n := *s
	n.unknown, n.Version = unknown, s.next(stored)
	if isGrant(s.key) {
		n.stamp = m.stamp(s)
	}
	of := s
	if rec, rerr := m.record(&n); rerr == nil {
		sl := m.slot(s.key)
		v := m.beginView(sl)
		v.s = &n
		outcome, other, werr := m.write(ctx, s, rec, stored)
		switch outcome {
		case written:
			m.learn(s.key, sl, &v)
		case changed:
			if other.Tokens.Refresh != s.Tokens.Refresh {
				return other, nil
			}
			of = other
		case over:
			return nil, werr
		}
	}
	until := m.o.Now().Add(unknownPause)
	if e := s.Tokens.Expiry; e.After(until) {
		until = e
	}
	m.memos.Set(m.fingerprint(of), memo{until: until, err: err, unknown: unknown})
	return nil, &RetryError{After: until.Sub(m.o.Now()), Err: err}
}

// reject ends s because its refresh token is of no use, and returns that as an error. Whether or not the store takes it now, this
// process will not send that token again.
func (m *Manager) reject(ctx context.Context, s *Session) (*Session, error) {
	if isGrant(s.key) {
		return m.rejectGrant(ctx, s)
	}
	m.remember(s, memo{rejected: true})
	m.endNamed(ctx, s, ReasonRefreshRejected)
	m.markEnded(s.key, ReasonRefreshRejected, false)
	return nil, &EndedError{ReasonRefreshRejected}
}

// remember notes a failure with the tokens of s.
func (m *Manager) remember(s *Session, mm memo) {
	old := m.memo(s)
	mm.rejected = mm.rejected || old.rejected
	mm.looked = mm.looked || old.looked
	mm.unknown = max(mm.unknown, old.unknown)
	mm.tries = max(mm.tries, old.tries)
	m.memos.Set(m.fingerprint(s), mm)
}
