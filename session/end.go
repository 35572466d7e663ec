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

// Match names the sessions to end: those that have every member that is set.
type Match struct {
	SID, Subject, SignIn string
}

// EndMatching ends all sessions of our issuer and client that q names, found by the index, without their cookies. It returns how
// many lived. After an error some may live on; calling again is harmless.
//
// The sealed values stay behind the tombstones, so that their tokens can be revoked when a cookie arrives.
func (m *Manager) EndMatching(ctx context.Context, q Match, why Reason) (n int, err error) {
	keys := [][2]string{}
	for _, k := range [][2]string{{bySID, q.SID}, {bySignIn, q.SignIn}, {bySubject, q.Subject}} { // the narrowest first
		if k[1] != "" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return 0, errors.New("end sessions: nothing to match")
	}
	var also [][][]byte
	for _, k := range keys[1:] {
		also = append(also, m.hashes(m.o.Issuer, k[0], k[1]))
	}
	var errs []error
	for _, h := range m.hashes(m.o.Issuer, keys[0][0], keys[0][1]) {
		entries, err := m.o.Store.Index(ctx, indexName(h))
		if err != nil && !errors.Is(err, ErrNone) {
			errs = append(errs, unavailable("find sessions", err))
			continue
		}
		for _, e := range entries {
			e.Name = indexName(h)
			if !m.matches(e, also) {
				continue
			}
			ended, err := m.end(ctx, e.Handle, why, true, m.siblings(e))
			if err != nil {
				errs = append(errs, err)
			}
			if ended {
				n++
			}
		}
	}
	return n, errors.Join(errs...)
}

// matches reports whether the session of e has all the other names. An entry that does not open was tampered with: then rather one
// session too many ends.
func (m *Manager) matches(e IndexEntry, also [][][]byte) bool {
	rec, ok := m.openEntry(e)
	if !ok {
		return true
	}
	for _, hashes := range also {
		if !rec.has(hashes) {
			return false
		}
	}
	return true
}

// end writes a tombstone and reports whether the session lived. If the store does not answer it goes on trying in the background.
func (m *Manager) end(ctx context.Context, key string, why Reason, keepSealed bool, index []IndexEntry) (bool, error) {
	if why == "" {
		return false, errNoReason
	}
	if key == "" {
		return false, errors.New("end session: it is not from a manager")
	}
	ended, err := m.endOnce(ctx, key, why, keepSealed, index)
	if err == nil {
		return ended, nil
	}
	if e, ok := m.slots.GetEntryQuietly(key); ok {
		e.Value.gen.Add(1) // it may have happened
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		for wait := rewritePause; sleep(ctx, wait); wait = min(2*wait, rewritePauseMax) {
			if _, err := m.endOnce(ctx, key, why, keepSealed, index); err == nil {
				return
			}
		}
		m.log.WarnContext(ctx, "session not ended: the store does not answer", "session", handle(key), "reason", string(why))
	})
	return false, err
}

func (m *Manager) endOnce(ctx context.Context, key string, why Reason, keepSealed bool, index []IndexEntry) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	ended, err := m.o.Store.End(ctx, key, why, keepSealed, index)
	if err != nil && !errors.Is(err, ErrNone) {
		return false, unavailable(fmt.Sprintf("end session %s", handle(key)), err)
	}
	m.markEnded(key, why)
	if ended {
		m.log.InfoContext(ctx, "session ended", "session", handle(key), "reason", string(why))
	}
	return ended, nil
}
