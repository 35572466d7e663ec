package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Who may send a refresh token: the holder of the session's lease, who has noted it in front of all.

// leaseMargin is how much longer than one exchange the lease lasts without being renewed, so that a process that stops in the middle
// of one keeps others from sending the same refresh token within its time limit.
const leaseMargin = 5 * time.Second

// leasePoll is the first pause between two looks at a session that someone else refreshes, while no notices arrive. It doubles.
const leasePoll = time.Second

// errBusy says that another process refreshes the session and has not finished in time.
var errBusy = errors.New("another refresh of this session takes long")

func (m *Manager) leaseTTL() time.Duration { return m.o.ExchangeTimeout + leaseMargin }

// lease takes the lease of s. If another process holds it, lease waits for a notice, reads the session again, and returns what that
// process made of it. With a notice in time these are two operations of the store, three when the other failed.
func (m *Manager) lease(ctx context.Context, f *flight, s *Session, owner string) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, m.leaseTTL()+storeLimit)
	defer cancel()
	for poll := leasePoll; ; poll *= 2 {
		select {
		case <-f.wake: // older than the look that follows
		default:
		}
		ok, err := m.acquire(ctx, s.key, owner)
		if err != nil {
			return nil, unavailable("lease session", err)
		}
		if ok {
			return nil, nil
		}
		wait := m.leaseTTL() // a holder that died gives no notice
		if !m.watched.Load() {
			wait = min(poll, wait)
		}
		t := time.NewTimer(wait)
		select {
		case <-f.wake:
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, &RetryError{After: againPause, Err: errBusy}
		}
		t.Stop()
		cur, _, err := m.reread(ctx, s)
		if err != nil {
			return nil, err
		}
		if cur.Tokens.Access != s.Tokens.Access {
			return cur, nil
		}
		if cur.key != s.key {
			return nil, &RetryError{After: againPause, Err: errMoved}
		}
		s = cur // it failed there, and may have left a note
	}
}

func (m *Manager) acquire(ctx context.Context, key, owner string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	return m.o.Store.Acquire(ctx, key, owner, m.leaseTTL())
}

// keepLease renews the lease until stop is called. A lease that is lost is no reason to stop the exchange: the write is fenced.
func (m *Manager) keepLease(ctx context.Context, key, owner string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ended by stop, which waits for it
		defer close(done)
		for sleep(ctx, m.leaseTTL()/3) {
			ok, err := m.o.Store.Renew(ctx, key, owner, m.leaseTTL())
			if err == nil && !ok {
				m.log.WarnContext(ctx, "lease of a refresh lost", "session", handle(key))
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// release gives the lease back, which wakes those who wait for it elsewhere. If that fails the lease runs out by itself.
func (m *Manager) release(ctx context.Context, key, owner string) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	if err := m.o.Store.Release(ctx, key, owner); err != nil {
		m.log.DebugContext(ctx, "lease not released", "session", handle(key), "err", err)
	}
}

// maxSends is how often one refresh token is sent at most, when nobody knows what became of it.
const maxSends = 2

// claim notes in the store, in front of all processes, that the refresh token of s is about to be sent, and returns the note's name. The lease is not
// enough for that: a process that was killed has told nobody whether it had sent the token, and one that was stopped for longer than its lease
// goes on as if nothing had happened. So a token is sent only by who makes its note, one for each time that it may be sent. A note that is there
// already means the same as an unknown outcome: the token is sent once more, and only when the access token has expired.
//
// It costs one operation for each refresh. The name is empty when the token must not be sent any more.
func (m *Manager) claim(ctx context.Context, s *Session) (note string, err error) {
	now, e := m.o.Now(), s.Tokens.Expiry
	ttl := max(e.Sub(now), 0) + 2*m.leaseTTL() + noteMargin
	for n := max(s.unknown, m.memo(s).unknown) + 1; n <= maxSends; n++ {
		note = fmt.Sprintf("!%x.%d", m.fingerprint(s), n)
		limited, cancel := context.WithTimeout(ctx, storeLimit)
		ok, err := m.o.Store.Acquire(limited, note, m.id, ttl)
		cancel()
		if err != nil {
			err = unavailable("note a refresh", err)
			m.remember(s, memo{until: now.Add(storePause), err: err})
			return "", err
		}
		if ok {
			return note, nil
		}
		m.log.WarnContext(ctx, "another process has sent the refresh token, and its outcome is unknown", "session", s.Handle())
		wait := max(e.Sub(now), 0)
		if n == maxSends {
			wait = m.leaseTTL() // its answer may still come
		}
		m.remember(s, memo{until: now.Add(wait), err: errUnknown, unknown: n})
		if wait > 0 {
			return "", &RetryError{After: max(wait, time.Second), Err: errUnknown}
		}
	}
	return "", nil
}

// fingerprint names the tokens of s, for what is known of its refresh token: that it was sent, or why not to send it now. A version does not
// name them: the same tokens are written again with a remark, under another key of the deployment, or, if shared, under another name.
// Neither does the refresh token alone, with which some providers go on.
func (m *Manager) fingerprint(s *Session) (f [nameSize]byte) {
	obtained := strconv.FormatInt(millis(s.Tokens.Obtained), 10)
	sum := sha256.Sum256(join(m.o.Deployment, m.o.ClientID, s.Issuer, s.Subject, string(s.dataKey[:]), s.Tokens.Access, s.Tokens.Refresh, obtained))
	copy(f[:], sum[:])
	return f
}

// noteMargin is how much longer than the access token and the leases of those who may still want to send it a note lasts.
const noteMargin = 5 * time.Minute
