package session

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// rewriteLimit bounds how long a write that the store did not take is tried again.
	rewriteLimit = 2 * time.Minute
	// The pause between two tries grows from the first to the second.
	rewritePause    = 50 * time.Millisecond
	rewritePauseMax = time.Second
)

// errNoReason says that a caller forgot why.
var errNoReason = errors.New("end session: no reason")

// End ends s for why: a tombstone stays in the store, the index entries and the copies go, and every process is told. Ending twice is
// no error. When the store does not answer, the error is [ErrUnavailable], the session may live on, and it is tried again in the
// background for a while.
func (m *Manager) End(ctx context.Context, s *Session, why Reason) error {
	_, err := m.end(ctx, s.key, why, false, m.indexNames(s))
	if err == nil && s.grant != nil {
		m.Revocable(ctx, s) // the last one leaves no tokens behind
	}
	return err
}

// Match names sessions of our issuer and client: those that have every member that is set. At least one of SID, Subject, User and
// SignIn must be.
type Match struct {
	// SID is the provider's name for its own session, SignIn what stands in for it: it finds only sessions without a SID.
	SID, SignIn string
	// Subject is the person at the provider, User the same as the configuration names people.
	Subject, User string
	// IssuedBy leaves newer sign-ins alone: only those match that the provider issued at that time or earlier, by its own clock where it
	// told, to the second (Back-Channel Logout 1.0: a token that comes late must not end a later sign-in).
	IssuedBy time.Time
	// Except is the [Session.ID] of a session that is left alone.
	Except string
}

// holds reports whether q matches the session that was found. One about which nothing can be read was tampered with, or is another
// binary's: then rather one session too many ends.
func (q *Match) holds(f *found) bool {
	if q.Except != "" && f.Handle == q.Except {
		return false
	}
	if !f.known {
		return true
	}
	return (q.SID == "" || f.SID == q.SID) && (q.SignIn == "" || f.SignIn == q.SignIn) &&
		(q.Subject == "" || f.Subject == q.Subject) && (q.User == "" || f.user() == q.User) &&
		(q.IssuedBy.IsZero() || !f.issued().After(q.IssuedBy))
}

// EndMatching ends all sessions of our issuer and client that q names, found by the index, without their cookies. It returns how
// many lived. After an error ([ErrUnavailable]) some may live on, all others have ended; calling again is harmless.
//
// Their tokens go to Options.Discarded: at once where they are known, else when the cookie comes next.
func (m *Manager) EndMatching(ctx context.Context, q Match, why Reason) (n int, err error) {
	entries, err := m.lookUp(ctx, q)
	errs := []error{err}
	if err != nil && len(entries) == 0 {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	read := m.read(ctx, entries)
	ended := make([]bool, len(read))
	failed := make([]error, len(read))
	each(len(read), func(i int) {
		if f := &read[i]; f.err == nil && f.rec.Ended == "" && q.holds(f) {
			ended[i], failed[i] = m.endFound(ctx, f, why)
		}
	})
	var dead []IndexEntry
	shared := map[string]bool{}
	for i, f := range read {
		switch {
		case f.err != nil && !errors.Is(f.err, ErrNone):
			errs = append(errs, f.err)
		case f.err == nil && f.rec.Ended != "":
			dead = append(dead, f.IndexEntry)
		case ended[i]:
			n++
			if f.Shares {
				shared[f.Subject] = true
			}
		}
		errs = append(errs, failed[i])
	}
	m.tidy(ctx, dead)
	for subject := range shared {
		m.discardGrant(ctx, subject, why)
	}
	return n, errors.Join(errs...)
}

// EndID ends the session whose [Session.ID] is id, if owner matches it; the zero Match matches every session of our issuer and client. It
// reports whether that lived. There is no error for an id that names nothing.
func (m *Manager) EndID(ctx context.Context, id string, owner Match, why Reason) (ended bool, err error) {
	if id == "" || isGrant(id) {
		return false, nil
	}
	f := m.readEntry(ctx, IndexEntry{Handle: id})
	switch {
	case errors.Is(f.err, ErrNone):
		return false, nil
	case f.err != nil:
		return false, fmt.Errorf("end session: %w", f.err)
	case !f.known || f.rec.Ended != "" || !owner.holds(&f):
		return false, nil
	}
	ended, err = m.endFound(ctx, &f, why)
	if ended && f.Shares {
		m.discardGrant(ctx, f.Subject, why)
	}
	return ended, err
}

// endFound ends a session that was found without its cookie. Its refresh token, where the record tells it, is discarded; else the sealed
// value stays behind the tombstone.
func (m *Manager) endFound(ctx context.Context, f *found, why Reason) (bool, error) {
	index := []IndexEntry{{Name: f.Name, Handle: f.Handle}}
	if f.known {
		index = m.entriesOf(f.Handle, m.o.Issuer, &f.about)
	}
	if len(f.Refresh) == 0 {
		var s *Session
		if sl, ok := m.slots.GetEntryQuietly(f.Handle); ok {
			if v := sl.Value.view.Load(); v != nil {
				s = v.s // the end takes it out of the cache
			}
		}
		return m.endThen(ctx, ordered{f.Handle, f.Subject, why, true, index}, func() { m.unsealKnown(ctx, s) })
	}
	return m.endThen(ctx, ordered{f.Handle, f.Subject, why, m.o.Discarded != nil, index}, func() { m.discardFound(ctx, f.Handle) })
}

// ordered is an end that is to be written.
type ordered struct {
	key        string
	subject    string // the person, where the caller knows; else the cache is asked
	why        Reason
	keepSealed bool
	index      []IndexEntry
}

// end writes a tombstone and reports whether the session lived. If the store does not answer it goes on trying in the background.
func (m *Manager) end(ctx context.Context, key string, why Reason, keepSealed bool, index []IndexEntry) (bool, error) {
	return m.endThen(ctx, ordered{key, "", why, keepSealed, index}, func() {})
}

// endNamed ends s, whose tokens are of no use to anyone any more, and leaves behind the tombstone whose session it was (see [Manager.WhoseEnded]). What
// the store does not take is tried again in the background.
func (m *Manager) endNamed(ctx context.Context, s *Session, why Reason) {
	_, _ = m.endThen(ctx, ordered{s.key, s.Subject, why, true, m.indexNames(s)}, func() {
		_, _ = m.strip(context.WithoutCancel(ctx), s.key, m.aboutOf(s), true) // else when its cookie comes, which also revokes them
	})
}

// endThen is end that calls then when the session has ended, which may be later, and by someone else at the same time.
func (m *Manager) endThen(ctx context.Context, o ordered, then func()) (bool, error) {
	if o.why == "" {
		return false, errNoReason
	}
	if o.key == "" {
		return false, errors.New("end session: it is not from a manager")
	}
	if o.subject == "" {
		o.subject = m.subjectOf(o.key) // the end takes it out of the cache
	}
	ended, err := m.endOnce(ctx, o)
	if err == nil {
		if ended {
			then()
		}
		return ended, nil
	}
	if e, ok := m.slots.GetEntryQuietly(o.key); ok {
		e.Value.barred.Store(true)
		e.Value.gen.Add(1) // it may have happened
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		for wait := rewritePause; sleep(ctx, wait); wait = min(2*wait, rewritePauseMax) {
			ended, err := m.endOnce(ctx, o)
			if err == nil && !ended {
				// It may be the first write, whose answer was lost, that ended it. If so nobody has told.
				if rec, err := m.o.Store.Get(ctx, o.key); err == nil && rec.Ended == o.why {
					m.ended(o.key, o.subject, o.why)
				}
			}
			if err == nil {
				then()
				return
			}
		}
		m.log.WarnContext(ctx, "session not ended: the store does not answer", "session", handle(o.key), "reason", string(o.why))
	})
	return false, err
}

func (m *Manager) endOnce(ctx context.Context, o ordered) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	ended, err := m.o.Store.End(ctx, o.key, o.why, o.keepSealed, o.index)
	if err != nil && !errors.Is(err, ErrNone) {
		return false, unavailable(fmt.Sprintf("end session %s", handle(o.key)), err)
	}
	if !isGrant(o.key) {
		m.ends.put(o.key, end{o.why, o.keepSealed, o.index}, m.o.Now(), true)
		m.rotations.drop(o.key)
	}
	m.markEnded(o.key, o.why, o.keepSealed)
	if ended {
		m.ended(o.key, o.subject, o.why)
	}
	return ended, nil
}
