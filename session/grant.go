package session

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"
)

// A shared grant is what the newest sign-in or refresh of a person yielded, for providers where that makes the older refresh tokens of
// the person void (Options.SharedGrant). It is a record of its own in the store, and in this package a Session that has a Grant and
// no cookie: caches, flights, leases and failures work on it as on any other, under its own key. Three things are its own:
//
//   - It is sealed under the ring, because the data keys of sessions are in different cookies, and it is named by a keyed hash of the
//     person. With several keys in the ring it may lie under each of the names; the newest counts.
//   - Its order is the stamp, not the version: a clock that never goes back, neither when the grant moves to another name nor when the
//     store loses writes. The version is what a write must find, nothing more.
//   - It never ends in a tombstone, because the next sign-in uses it again. Without tokens it has a reason why it is gone.

const (
	grantPrefix  = "g:" // of its store keys; session keys hold no colon
	purposeGrant = "grant"

	// A sign-in elsewhere makes our refresh token void before its own grant is in the store. After a refusal that is looked for.
	lookFor  = 10 * time.Second
	lookPoll = time.Second

	// grantTries bounds how often a write is tried against the writes of others. Each of them is a sign-in or a refresh of one person.
	grantTries = 20
	// grantMargin is how much longer than its last session a grant stays.
	grantMargin = time.Minute
)

var (
	errRefused = errors.New("the provider has refused the refresh token that all sessions share")
	errRaces   = errors.New("the shared grant changes all the time")
)

func isGrant(key string) bool { return strings.HasPrefix(key, grantPrefix) }

// grantKeys are where the grant of a person may lie, the place under the sealing key first.
func (m *Manager) grantKeys(issuer, subject string) []string {
	macs := m.ring.MAC(purposeGrant, m.o.Deployment, m.o.Provider, m.o.ClientID, issuer, subject)
	keys := make([]string, len(macs))
	for i, mac := range macs {
		keys[i] = grantPrefix + base64.RawURLEncoding.EncodeToString(mac[:nameSize])
	}
	return keys
}

// placeGrants notes in s, which nobody else has yet, where its grant may lie.
func (m *Manager) placeGrants(s *Session) {
	s.generation = m.ring.Generation() // before the keys: what is newer than it says is of no harm
	s.grants = m.grantKeys(s.Issuer, s.Subject)
}

// places are where the grant of s may lie now.
func (m *Manager) places(s *Session) []string {
	if s.generation == m.ring.Generation() {
		return s.grants
	}
	return m.grantKeys(s.Issuer, s.Subject)
}

// placed is own with the places that its grant may have now that the ring has other keys.
func (m *Manager) placed(sl *slot, own *Session) *Session {
	n := *own
	m.placeGrants(&n)
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if v := sl.view.Load(); v != nil && v.s == own {
		c := *v
		c.s = &n
		sl.view.Store(&c)
	}
	return &n
}

// noGrant stands for a grant that is absent or cannot be read. Any other is newer.
func noGrant(key string, why Reason) *Session { return &Session{key: key, gone: why} }

// order tells which of two snapshots of the same thing is newer.
func (s *Session) order() int64 {
	if s.stamp != 0 {
		return s.stamp
	}
	return s.Version
}

// stamp is the stamp of what is written over prev.
func (m *Manager) stamp(prev *Session) int64 {
	now := m.o.Now().UnixMilli()
	if prev != nil {
		now = max(now, prev.stamp+1)
	}
	return now
}

// newerGrant picks the newer one. Between equals it is the stored one, except that a copy of it need not replace what we have.
func newerGrant(known, stored *Session) *Session {
	if known == nil || known.order() < stored.order() {
		return stored
	}
	if known.order() == stored.order() && (known.Version != stored.Version || known.Tokens != stored.Tokens || known.unknown != stored.unknown) {
		return stored
	}
	return known
}

// share makes of own, the session as it is stored, and its grant the session as it is used. It is made once for each such pair.
func (sl *slot) share(own, grant *Session) *Session {
	if s := sl.shared.Load(); s != nil && s.own == own && s.grant == grant {
		return s
	}
	s := *own
	// When and how the person signed in stays with the session: a step-up in one browser is none in another.
	s.Identity, s.Extra, s.Claims, s.Tokens = grant.Identity, grant.Extra, grant.Claims, grant.Tokens
	s.due, s.must, s.Version = grant.due, grant.must, own.Version+grant.Version
	s.own, s.grant = own, grant
	sl.shared.Store(&s)
	return &s
}

// withGrant completes own, a session without tokens of its own. If its grant is gone the session ends.
func (m *Manager) withGrant(ctx context.Context, sl *slot, own *Session) (*Session, error) {
	if own.generation != m.ring.Generation() {
		own = m.placed(sl, own)
	}
	var newest *Session
	for _, key := range own.grants {
		g, err := m.grant(ctx, key)
		if err != nil {
			return nil, err
		}
		if newest == nil || g.order() > newest.order() {
			newest = g
		}
	}
	if newest.gone != "" {
		// It may have moved to a name that was absent when it was cached.
		var err error
		if newest, _, err = m.readGrant(ctx, own.grants); err != nil {
			return nil, err
		}
	}
	if newest.gone != "" {
		return nil, m.endWith(ctx, own, newest.gone)
	}
	return sl.share(own, newest), nil
}

// grant is what lies under key, as far as the cache may know it: like the session in Load.
func (m *Manager) grant(ctx context.Context, key string) (*Session, error) {
	sl := m.slot(key)
	v := m.cached(sl)
	if v == nil {
		var err error
		if v, err = m.confirm(ctx, sl, &ticket{key: key}); err != nil {
			if v = m.keep(ctx, sl, err); v == nil {
				return nil, err
			}
		}
	}
	return v.s, nil
}

// cached is the view in the slot if it may be used without asking the store, else nil.
func (m *Manager) cached(sl *slot) *view {
	if v := sl.view.Load(); v != nil && m.watched.Load() && m.current(sl, v, m.o.Now()) {
		return v
	}
	return nil
}

// fetchGrant is fetch for a grant. What is absent is a view, too: with several keys in the ring most names are.
func (m *Manager) fetchGrant(ctx context.Context, sl *slot, key string) (*view, error) {
	v := m.beginView(sl)
	g, _, err := m.getGrant(ctx, key)
	if err != nil {
		return nil, err
	}
	if g.order() != 0 {
		v.s = newerGrant(m.known(key, sl), g)
		return m.learn(key, sl, &v), nil
	}
	v.s = g
	if cur := sl.view.Load(); cur == nil || cur.s.order() == 0 {
		return m.learn(key, sl, &v), nil
	}
	return &v, nil // it was there, and the store does not know it any more
}

// getGrant reads one name of a grant. What is no grant is one that is gone; its version is what a write over it must find, 0 for
// nothing.
func (m *Manager) getGrant(ctx context.Context, key string) (g *Session, version int64, err error) {
	rec, err := m.o.Store.Get(ctx, key)
	switch {
	case errors.Is(err, ErrNone):
		return noGrant(key, ReasonStoreMiss), 0, nil
	case err != nil:
		return nil, 0, unavailable("read shared grant", err)
	case rec.Ended != "": // none of our doing
		return noGrant(key, rec.Ended), rec.Version, nil
	}
	g, err = m.open(&ticket{key: key}, rec)
	if err != nil {
		why := reasonOf(err)
		if m.slot(key).told.CompareAndSwap(false, true) {
			m.log.WarnContext(ctx, "shared grant does not open", "grant", handle(key), "reason", string(why))
		}
		return noGrant(key, why), rec.Version, nil
	}
	return g, rec.Version, nil
}

// readGrant reads all names of a grant, past the cache. It returns the newest grant and the version under each name.
func (m *Manager) readGrant(ctx context.Context, keys []string) (newest *Session, versions map[string]int64, err error) {
	versions = make(map[string]int64, len(keys))
	for _, key := range keys {
		sl := m.slot(key)
		v := m.beginView(sl)
		g, version, err := m.getGrant(ctx, key)
		if err != nil {
			return nil, nil, err
		}
		versions[key] = version
		if g.order() != 0 {
			v.s = g
			m.learn(key, sl, &v)
		}
		if newest == nil || g.order() > newest.order() {
			newest = g
		}
	}
	return newest, versions, nil
}

// rereadGrant is reread for a grant.
func (m *Manager) rereadGrant(ctx context.Context, s *Session) (*Session, int64, error) {
	g, versions, err := m.readGrant(ctx, m.places(s))
	switch {
	case err != nil:
		return nil, 0, err
	case g.order() != 0:
		g = newerGrant(s, g) // s may be a refresh that the store has not taken yet
	}
	if g.gone != "" {
		return nil, 0, &EndedError{g.gone}
	}
	if versions[g.key] == 0 {
		return nil, 0, &EndedError{ReasonStoreMiss}
	}
	return g, versions[g.key], nil
}

// withoutGrant is s as it is stored when its grant is shared.
func (m *Manager) withoutGrant(s *Session) (*Session, Record, error) {
	if s.Subject == "" {
		return nil, Record{}, errors.New("nobody to share the grant with")
	}
	own := *s
	own.Identity, own.Extra, own.Claims, own.Tokens = Identity{User: s.Identity.User}, nil, nil, Tokens{} // by the user it is found
	own.shares = true
	m.placeGrants(&own)
	m.schedule(&own)
	rec, err := m.record(&own)
	return &own, rec, err
}

// putGrant stores what a sign-in yielded, as the person's newest grant, and returns that. It waits for nobody's lease: who holds it may
// be looking for this very grant. A refresh that is under way finds it when it writes.
func (m *Manager) putGrant(ctx context.Context, g Grant, keys []string) (*Session, error) {
	key := keys[0]
	for range grantTries {
		cur, versions, err := m.readGrant(ctx, keys)
		if err != nil {
			return nil, err
		}
		n := &Session{Grant: g, Provider: m.o.Provider, key: key, stamp: m.stamp(cur), Version: versions[key] + 1}
		m.placeGrants(n)
		if cur.gone == "" && cur.Tokens == g.Tokens {
			n.unknown = cur.unknown // it only moves
		}
		// Of two sign-ins at once, the later one at the provider counts, not the later one here. But its time is another replica's:
		// one that is still to come tells nothing.
		if at := cur.Tokens.Obtained; cur.gone == "" && at.After(g.Tokens.Obtained) && !at.After(m.o.Now()) {
			n.Grant, n.unknown = cur.Grant, cur.unknown
		}
		m.schedule(n)
		ok, err := m.writeOver(ctx, n, versions[key])
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if cur.key != key && cur.gone == "" {
			_, _ = m.empty(ctx, cur, ReasonReplaced) // older than n, so of no use to anyone: only tidy
		}
		m.rotations.put(key, n, m.o.Now(), false)
		return n, nil
	}
	return nil, unavailable("write shared grant", errRaces)
}

// putLater keeps trying to store what a sign-in yielded that failed, for the person's other sessions: at the provider it has made
// their grant void all the same.
func (m *Manager) putLater(ctx context.Context, g Grant, s *Session) {
	if !s.shares {
		return
	}
	m.spawn(ctx, rewriteLimit, func(ctx context.Context) {
		for wait := rewritePause; sleep(ctx, wait); wait = min(2*wait, rewritePauseMax) {
			cur, _, err := m.readGrant(ctx, m.places(s))
			if err == nil && cur.gone == "" {
				_, err = m.putGrant(ctx, g, m.places(s))
			}
			if err == nil {
				return
			}
		}
	})
}

// empty takes the tokens out of g, if nobody has written it since. It reports whether it did.
func (m *Manager) empty(ctx context.Context, g *Session, why Reason) (bool, error) {
	n := &Session{
		Grant: Grant{Issuer: g.Issuer, Subject: g.Subject}, Provider: g.Provider,
		key: g.key, grants: g.grants, generation: g.generation, gone: why, stamp: m.stamp(g), Version: g.Version + 1,
	}
	if why == ReasonReplaced { // by a grant under another name, which stays the newer one
		n.stamp = g.stamp
	}
	return m.writeOver(ctx, n, g.Version)
}

// writeOver writes n over that version of its record, 0 for none. It is false when there is another version meanwhile.
func (m *Manager) writeOver(ctx context.Context, n *Session, version int64) (bool, error) {
	rec, err := m.record(n)
	if err != nil {
		return false, err
	}
	sl := m.slot(n.key)
	v := m.beginView(sl)
	v.s = n
	if version == 0 {
		_, err = m.o.Store.Create(ctx, n.key, rec, m.grantTTL(), nil)
	} else {
		if n.gone == "" {
			rec.TTL = m.grantTTL()
		}
		err = m.o.Store.Swap(ctx, n.key, rec, version)
	}
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrNone):
		return false, nil
	case err != nil:
		// Reading settles what happened.
		got, gerr := m.o.Store.Get(ctx, n.key)
		if gerr != nil || got.Version != n.Version || !bytes.Equal(got.Sealed, rec.Sealed) {
			return false, unavailable("write shared grant", err)
		}
	}
	m.learn(n.key, sl, &v)
	return true, nil
}

func (m *Manager) grantTTL() time.Duration { return m.o.Lifetime + grantMargin }

// getFunc is (*Manager).Fresh or (*Manager).Refresh.
type getFunc func(*Manager, context.Context, *Session, RefreshFunc) (*Session, error)

// freshShared is Fresh and Refresh (get) for a session that shares its grant.
func (m *Manager) freshShared(ctx context.Context, s *Session, refresh RefreshFunc, get getFunc) (*Session, error) {
	g, err := get(m, ctx, s.grant, refresh)
	if err == nil && g == s.grant {
		return s, nil
	}
	if reasonOf(err) != "" || errors.Is(err, errMoved) {
		// It may be over under its old name alone, or a sign-in was quicker.
		cur, _, rerr := m.reread(ctx, s.grant)
		switch {
		case errors.Is(rerr, ErrUnavailable):
			return nil, rerr
		case rerr == nil && cur.order() > s.grant.order():
			g, err = get(m, ctx, cur, refresh)
		}
	}
	if why := reasonOf(err); why != "" {
		return nil, m.endWith(ctx, s, why)
	}
	if err != nil {
		return nil, err
	}
	// The refresh was not this session's, so nobody has looked whether that still lives. If the store does not answer, what Load found
	// stands.
	sl := m.slot(s.key)
	v := m.cached(sl)
	if v == nil {
		if v, err = m.confirm(ctx, sl, &ticket{key: s.key, dataKey: s.dataKey}); reasonOf(err) != "" {
			return nil, err
		}
	}
	if v != nil && v.ended != "" {
		return nil, &EndedError{v.ended}
	}
	return sl.share(s.own, g), nil
}

// endWith ends s because of what became of its grant, and returns that as an error.
func (m *Manager) endWith(ctx context.Context, s *Session, why Reason) error {
	v := m.slot(s.key).view.Load()
	switch {
	case v != nil && v.ended != "": // another request was quicker
		why = v.ended
	case why == ReasonStoreMiss || why == ReasonTampered: // a later sign-in may mend it
		m.saw(s.key, s.Subject, why)
	default:
		_, _ = m.end(ctx, s.key, why, false, m.indexNames(s)) // tried again in the background
	}
	return &EndedError{why}
}

// refused decides what it means that the provider refused the refresh token of the grant s: nothing while the access token is valid,
// and nothing before a newer grant was looked for long enough.
func (m *Manager) refused(ctx context.Context, f *flight, s *Session, err error) (*Session, error) {
	if !m.memo(s).looked {
		cur, lerr := m.look(ctx, f, s)
		switch {
		case errors.Is(lerr, ErrUnavailable):
			m.remember(s, memo{until: m.o.Now().Add(storePause), err: lerr, rejected: true})
			return nil, lerr
		case lerr != nil:
			return nil, lerr
		case cur != nil:
			return cur, nil
		}
	}
	now, e := m.o.Now(), s.Tokens.Expiry
	if now.Before(e) {
		m.remember(s, memo{until: e, err: err, rejected: true, looked: true})
		return nil, &RetryError{After: max(e.Sub(now), time.Second), Err: err}
	}
	m.remember(s, memo{rejected: true, looked: true})
	return m.reject(ctx, s)
}

// look waits for a newer grant than s to be stored, and returns nil if none comes in time.
func (m *Manager) look(ctx context.Context, f *flight, s *Session) (*Session, error) {
	m.log.InfoContext(ctx, "shared grant refused: looking for a newer one", "grant", s.Handle())
	end := time.NewTimer(lookFor)
	defer end.Stop()
	poll := time.NewTicker(lookPoll)
	defer poll.Stop()
	for last := false; ; {
		cur, _, err := m.reread(ctx, s)
		switch {
		case err == nil && cur.Tokens.Access != s.Tokens.Access: // a sign-in may bring the same refresh token
			return cur, nil
		case err != nil && !errors.Is(err, ErrUnavailable):
			return nil, err
		case last:
			return nil, err
		}
		select {
		case <-f.wake:
		case <-poll.C: // notices may be missing
		case <-end.C:
			last = true
		case <-ctx.Done():
			return nil, unavailable("look for a newer grant", context.Cause(ctx))
		}
	}
}

// rejectGrant takes the tokens out of the grant s, which ends all sessions that share it. If someone was quicker with a newer grant,
// that is the result. Nothing ends while the store does not answer.
func (m *Manager) rejectGrant(ctx context.Context, s *Session) (*Session, error) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	m.remember(s, memo{rejected: true})
	for range grantTries {
		cur, stored, err := m.reread(ctx, s)
		if err != nil {
			return nil, err
		}
		if cur.Tokens.Access != s.Tokens.Access {
			return cur, nil
		}
		g := *cur
		g.Version = stored // cur may be newer than what the store has
		ok, err := m.empty(ctx, &g, ReasonRefreshRejected)
		if err != nil {
			return nil, err
		}
		if ok {
			m.log.InfoContext(ctx, "shared grant over", "grant", s.Handle(), "reason", string(ReasonRefreshRejected))
			return nil, &EndedError{ReasonRefreshRejected}
		}
	}
	return nil, unavailable("write shared grant", errRaces)
}

// lostWrite settles a write of the grant s that did not simply succeed.
func (m *Manager) lostWrite(ctx context.Context, s *Session, rec Record, stored int64, werr error) (outcome, *Session, error) {
	got, err := m.o.Store.Get(ctx, s.key)
	switch {
	case errors.Is(err, ErrNone):
		return over, nil, &EndedError{ReasonStoreMiss}
	case err != nil:
		return unanswered, nil, unavailable("write shared grant", err)
	case got.Version == rec.Version && bytes.Equal(got.Sealed, rec.Sealed):
		return written, nil, nil
	case got.Version == stored:
		return unanswered, nil, unavailable("write shared grant", werr)
	}
	cur, _, err := m.readGrant(ctx, m.places(s))
	switch {
	case err != nil:
		return unanswered, nil, err
	case cur.gone != "":
		return over, nil, &EndedError{cur.gone}
	}
	return changed, cur, nil
}

// Revocable reports whether the tokens of s may be revoked now that s has ended. They may not while another session of the person
// lives on them (Options.SharedGrant). When nobody can say, because the store does not answer, they may not either.
//
// When it is true the store holds these tokens no more.
func (m *Manager) Revocable(ctx context.Context, s *Session) bool {
	if s.grant == nil {
		return true
	}
	_, free := m.emptyUnused(ctx, s.key, s.Subject)
	return free
}

// emptyUnused takes the tokens out of the grant of subject if no session but that of key lives on it. It returns them when it did so
// now, and whether the store holds them no more.
func (m *Manager) emptyUnused(ctx context.Context, key, subject string) (tokens Tokens, free bool) {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	for range grantTries {
		// First the grant, then who uses it: a sign-in adds its session before it writes the grant, so that either it is counted or
		// the write below fails.
		g, _, err := m.readGrant(ctx, m.grantKeys(m.o.Issuer, subject))
		if err == nil {
			var used bool
			if used, err = m.inUse(ctx, key, subject); used {
				return Tokens{}, false
			}
		}
		if err == nil && g.gone != "" {
			return Tokens{}, true
		}
		var ok bool
		if err == nil {
			ok, err = m.empty(ctx, g, ReasonSignedOut)
		}
		if err != nil {
			m.log.WarnContext(ctx, "shared grant kept", "session", handle(key), "err", err)
			return Tokens{}, false
		}
		if ok {
			return g.Tokens, true
		}
	}
	return Tokens{}, false
}

// inUse reports whether another session than that of key lives on the grant of subject.
func (m *Manager) inUse(ctx context.Context, key, subject string) (bool, error) {
	entries, err := m.lookUp(ctx, Match{Subject: subject})
	if err != nil {
		return false, err
	}
	now := m.o.Now()
	for _, e := range entries { // the newest lives most likely
		if e.Handle == key {
			continue
		}
		f := m.readEntry(ctx, e)
		switch {
		case errors.Is(f.err, ErrNone), f.rec.Ended != "", f.known && f.Provider != m.o.Provider:
			continue
		case f.err != nil:
			return false, f.err
		}
		if now.Sub(m.lastSeen(e.Handle, f.rec)) < m.o.IdleTimeout {
			return true, nil
		}
	}
	return false, nil
}
