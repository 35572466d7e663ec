package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	defaultList = 100
	maxList     = 1000
)

// Info is a session as its owner and operators see it. It holds no token, and nothing of it opens anything.
type Info struct {
	// ID names the session for [Manager.EndID].
	ID string
	// Handle is its name in logs; see [Session.Handle].
	Handle string
	// Provider is the provider's name in the configuration. Subject, User and SID are as at sign-in, empty where they are not known.
	Provider, Subject, User, SID string
	// Browser is the browser's family; see [BrowserFamily].
	Browser string
	// Created, Seen (last used) and Ends (whatever happens) are exact to the second; Seen to the minute, see [Manager.Touch].
	Created, Seen, Ends time.Time
}

// List returns the live sessions of our issuer and client that match q, at most limit of them (0 is 100, the most is 1,000), and what to
// pass as after to get the next ones. Next is empty at the end. They come in the order of their latest end, the last first: the newest
// sign-in first, unless the configured lifetime was changed in between. A session that begins or ends between two calls neither moves
// another to a page that was read nor hides one.
//
// It reads the index, and one record for each session that it looks at. Its error is [ErrUnavailable], or says that q or after is of
// no use.
func (m *Manager) List(ctx context.Context, q Match, after string, limit int) (list []Info, next string, err error) {
	if limit <= 0 {
		limit = defaultList
	}
	limit = min(limit, maxList)
	from, err := parseCursor(after)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	entries, err := m.lookUp(ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("list sessions: %w", err)
	}
	for after != "" && len(entries) > 0 && byEnd(entries[0], from) <= 0 {
		entries = entries[1:]
	}
	var dead []IndexEntry
	defer func() { m.tidy(ctx, dead) }()
	grants := map[string]bool{} // by subject: whether what its sessions share is there
	for len(entries) > 0 {
		n := min(len(entries), limit-len(list))
		for _, f := range m.read(ctx, entries[:n]) {
			switch {
			case errors.Is(f.err, ErrNone):
				continue
			case f.err != nil:
				return nil, "", fmt.Errorf("list sessions: %w", f.err)
			case f.rec.Ended != "":
				dead = append(dead, f.IndexEntry)
				continue
			}
			info, ok := m.info(&f)
			if !ok || !q.holds(&f) {
				continue
			}
			if f.Shares {
				ok, err := m.grantLives(ctx, f.Subject, grants)
				if err != nil {
					return nil, "", fmt.Errorf("list sessions: %w", err)
				}
				if !ok {
					continue
				}
			}
			list = append(list, info)
		}
		last := entries[n-1]
		if entries = entries[n:]; len(list) == limit && len(entries) > 0 {
			return list, cursor(last), nil
		}
	}
	return list, "", nil
}

// info describes what was found, if it lives.
func (m *Manager) info(f *found) (Info, bool) {
	if !f.known {
		return Info{}, false
	}
	i := Info{
		ID: f.Handle, Handle: handle(f.Handle), Provider: f.Provider, Subject: f.Subject, User: f.user(), SID: f.SID, Browser: f.Browser,
		Created: f.created(), Seen: m.lastSeen(f.Handle, f.rec), Ends: f.ends(),
	}
	if end := i.Created.Add(m.o.Lifetime); f.Provider == m.o.Provider && i.Ends.After(end) { // as in schedule
		i.Ends = end
	}
	now := m.o.Now()
	return i, now.Before(i.Ends) && (f.Provider != m.o.Provider || now.Sub(i.Seen) < m.o.IdleTimeout)
}

// lastSeen is when the session of key was last used, as far as the store or this process knows.
func (m *Manager) lastSeen(key string, rec Record) time.Time {
	if sl, ok := m.slots.GetEntryQuietly(key); ok {
		if at := sl.Value.seen.Load(); at > rec.Seen.UnixMilli() {
			return time.UnixMilli(at).UTC().Truncate(time.Second)
		}
	}
	return rec.Seen.UTC()
}

// grantLives reports whether the grant that the sessions of subject share has not gone. It remembers the answer in known.
func (m *Manager) grantLives(ctx context.Context, subject string, known map[string]bool) (bool, error) {
	lives, ok := known[subject]
	if ok {
		return lives, nil
	}
	g, _, err := m.readGrant(ctx, m.grantKeys(m.o.Issuer, subject))
	if err != nil {
		return false, err
	}
	known[subject] = g.gone == ""
	return known[subject], nil
}

// byEnd orders entries: the last to end first.
func byEnd(a, b IndexEntry) int {
	return cmp.Or(b.Expires.Compare(a.Expires), cmp.Compare(a.Handle, b.Handle))
}

// cursor names the place behind e in the order of [Manager.List].
func cursor(e IndexEntry) string {
	return strconv.FormatInt(e.Expires.UnixMilli(), 10) + "." + e.Handle
}

// parseCursor is the reverse of cursor. What it reads is only compared.
func parseCursor(after string) (IndexEntry, error) {
	if after == "" {
		return IndexEntry{}, nil
	}
	at, key, ok := strings.Cut(after, ".")
	ms, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return IndexEntry{}, errors.New("the place to go on from is not one that a list ended with")
	}
	return IndexEntry{Handle: key, Expires: time.UnixMilli(ms)}, nil
}
