package session

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
)

// The kinds of things by which sessions are found without their cookie. A session is found by its subject; by its user where that is
// another word; by its SID, and by its sign-in where it has none.
const (
	bySID     = "sid"
	bySubject = "sub"
	byUser    = "user"
	bySignIn  = "sign_in"
)

const (
	// purposeIndex is the purpose of index names.
	purposeIndex = "index"
	// nameSize is the length of a name's hash: 128 bits of a keyed hash are beyond guessing and colliding.
	nameSize = 16
	// readers bounds how many records are read or ended at once for one question.
	readers = 8
)

// hashes are the names of one kind and value under each key of the ring, the sealing key's first. The store sees only these.
func (m *Manager) hashes(issuer, kind, value string) []string {
	macs := m.ring.MAC(purposeIndex, m.o.Deployment, m.o.ClientID, issuer, kind, value)
	names := make([]string, len(macs))
	for i, mac := range macs {
		names[i] = base64.RawURLEncoding.EncodeToString(mac[:nameSize])
	}
	return names
}

// keys lists the kinds and values under which the session is found.
func (a *about) keys() [][2]string {
	var keys [][2]string
	for _, k := range [][2]string{{bySubject, a.Subject}, {byUser, a.User}, {bySID, a.SID}, {bySignIn, a.SignIn}} {
		if k[1] != "" {
			keys = append(keys, k)
		}
	}
	return keys
}

// indexEntries are the entries of s, under the sealing key.
func (m *Manager) indexEntries(s *Session) []IndexEntry {
	a := m.aboutOf(s)
	var entries []IndexEntry
	for _, k := range a.keys() {
		e := IndexEntry{Name: m.hashes(s.Issuer, k[0], k[1])[0], Handle: s.key, Expires: s.Ends}
		if k[0] == bySubject {
			e.Max = m.o.MaxPerUser
		}
		entries = append(entries, e)
	}
	return entries
}

// indexNames are the entries that s may have, under each key of the ring: whichever sealed when it was created.
func (m *Manager) indexNames(s *Session) []IndexEntry {
	a := m.aboutOf(s)
	return m.entriesOf(s.key, s.Issuer, &a)
}

func (m *Manager) entriesOf(key, issuer string, a *about) []IndexEntry {
	var entries []IndexEntry
	for _, k := range a.keys() {
		for _, name := range m.hashes(issuer, k[0], k[1]) {
			entries = append(entries, IndexEntry{Name: name, Handle: key})
		}
	}
	return entries
}

// found is one line of the index and what the record says to which it leads.
type found struct {
	IndexEntry
	rec Record
	about
	known bool // about could be read
	err   error
}

// lookUp finds the entries of q by its narrowest member, each session once, the last to end first. Some may be found together with an
// error.
func (m *Manager) lookUp(ctx context.Context, q Match) ([]IndexEntry, error) {
	var keys [][2]string
	switch {
	case q.SID != "":
		keys = [][2]string{{bySID, q.SID}}
	case q.SignIn != "":
		keys = [][2]string{{bySignIn, q.SignIn}}
	case q.Subject != "":
		keys = [][2]string{{bySubject, q.Subject}}
	case q.User != "":
		keys = [][2]string{{byUser, q.User}, {bySubject, q.User}} // whose user is the subject has no entry of the first kind
	default:
		return nil, errors.New("nothing to match")
	}
	var all []IndexEntry
	var errs []error
	for _, k := range keys {
		for _, name := range m.hashes(m.o.Issuer, k[0], k[1]) {
			entries, err := m.o.Store.Index(ctx, name)
			if err != nil && !errors.Is(err, ErrNone) {
				errs = append(errs, unavailable("find sessions", err))
			}
			all = append(all, entries...)
		}
	}
	slices.SortFunc(all, byEnd)
	seen := make(map[string]bool, len(all)) // under an older key of the ring, too
	all = slices.DeleteFunc(all, func(e IndexEntry) bool {
		twice := seen[e.Handle]
		seen[e.Handle] = true
		return twice
	})
	return all, errors.Join(errs...)
}

// read reads the records of entries and what they say, in the same order.
func (m *Manager) read(ctx context.Context, entries []IndexEntry) []found {
	out := make([]found, len(entries))
	each(len(entries), func(i int) { out[i] = m.readEntry(ctx, entries[i]) })
	return out
}

// readEntry reads the record of e. Its err is [ErrNone] for one that is absent, else [ErrUnavailable].
func (m *Manager) readEntry(ctx context.Context, e IndexEntry) found {
	f := found{IndexEntry: e}
	f.rec, f.err = m.o.Store.Get(ctx, e.Handle)
	switch {
	case errors.Is(f.err, ErrNone):
	case f.err != nil:
		f.err = unavailable("read session", f.err)
	default:
		f.about, _, f.known = m.openAbout(e.Handle, f.rec.Sealed)
	}
	return f
}

// each calls f with 0 to n-1, a few at a time.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for w := range min(n, readers) {
		wg.Go(func() {
			for i := w; i < n; i += readers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// tidy takes entries out of the index whose session has ended, in the background. Whoever ended it did not know all its entries, or
// could not reach them. What is absent is left to expire: an entry is written before its session.
func (m *Manager) tidy(ctx context.Context, entries []IndexEntry) {
	if len(entries) == 0 {
		return
	}
	m.spawn(ctx, storeLimit, func(ctx context.Context) {
		if err := m.o.Store.Reindex(ctx, nil, entries); err != nil {
			m.log.DebugContext(ctx, "index not tidied", "err", err)
		}
	})
}
