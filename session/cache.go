package session

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"postern/session/seal"
)

// slotWeight is about what a slot costs beside the strings of its session.
const slotWeight = 1000

// sharedWeight is about what it costs to keep a session together with its grant, whose strings it does not copy.
const sharedWeight = 700

// slot is what this process knows of one session.
type slot struct {
	view    atomic.Pointer[view] // nil until it was read
	gen     atomic.Uint64        // counts notices
	seen    atomic.Int64         // last use that this process knows of, in Unix milliseconds
	touched atomic.Int64         // last touch that was tried, in Unix milliseconds
	barred  atomic.Bool          // it is to end and the store has not taken that yet
	told    atomic.Bool          // that it is a grant which does not open was logged
	weight  atomic.Uint32
	shared  atomic.Pointer[Session] // the session of view with its grant, if that is shared

	mu   sync.Mutex
	read *read // guarded by mu; the read under way that later requests may share
}

// view is what a read of the store showed. It does not change once it is in a slot.
type view struct {
	s     *Session
	ended Reason // then the session is over for good, and s is nil
	// sealed says that it ended here without its cookie: when that comes, the record is read once more for the tokens in it.
	sealed bool

	// It is confirmed for MaxStale after read, as long as there was neither a notice nor a gap since.
	read       time.Time // when that read began
	gen, epoch uint64
}

// read is one read of the store that several requests wait for.
type read struct {
	view // only read, gen and epoch
	done chan struct{}
	res  *view
	err  error
}

// Lookup is what the local cache knew of a session that was looked for.
type Lookup string

// A lookup is one of these.
const (
	LookupHit         Lookup = "hit"         // enough: the store was not asked
	LookupMiss        Lookup = "miss"        // nothing
	LookupUnconfirmed Lookup = "unconfirmed" // a copy, but the store had to be asked whether it holds
	LookupKept        Lookup = "kept"        // a copy that was used because the store did not answer; see [Options.KeepFor]
)

// looked tells of a lookup.
func (m *Manager) looked(l Lookup) {
	if m.o.Looked != nil {
		m.o.Looked(l)
	}
}

// slot returns the slot of key, a new one if there is none.
func (m *Manager) slot(key string) *slot {
	if sl, ok := m.slots.GetIfPresent(key); ok {
		return sl
	}
	sl := &slot{}
	sl.weight.Store(slotWeight)
	sl, _ = m.slots.SetIfAbsent(key, sl)
	return sl
}

// beginView is the view of a read that begins now.
func (m *Manager) beginView(sl *slot) view {
	return view{read: m.o.Now(), gen: sl.gen.Load(), epoch: m.epoch.Load()}
}

// current reports whether what was read then may be used now without asking the store again. With MaxStale 0 nothing may.
func (m *Manager) current(sl *slot, v *view, now time.Time) bool {
	return v.younger(m.o.Cache.MaxStale, now) && v.gen == sl.gen.Load() && v.epoch == m.epoch.Load()
}

// younger reports whether v was read less than limit ago, by each of our clocks: the one that is never set does not count the time that a
// machine is suspended.
func (v *view) younger(limit time.Duration, now time.Time) bool {
	age := now.Sub(v.read)
	return age >= 0 && age < limit && now.Round(0).Sub(v.read.Round(0)) < limit
}

// keep returns what is in the slot if it may be used because the store did not answer when it was asked: err. Else nil.
//
// A notice since says that the session has changed, perhaps ended, and readAhead has not found out how. That is not for us to overlook.
func (m *Manager) keep(ctx context.Context, sl *slot, err error) *view {
	v := sl.view.Load()
	if m.o.KeepFor == 0 || v == nil || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
		return nil
	}
	if v.ended != "" || sl.barred.Load() || v.gen != sl.gen.Load() || !v.younger(m.o.KeepFor, m.o.Now()) {
		return nil
	}
	return v
}

// readAhead reads a session that has changed, so that its copy may be kept when the store fails right then. It is needed for nothing else.
func (m *Manager) readAhead(key string, sl *slot) {
	v := sl.view.Load()
	if m.o.KeepFor == 0 || v == nil || v.s == nil || isGrant(key) && v.s.gone != "" {
		return
	}
	select {
	case m.reads <- struct{}{}:
	default:
		return // the next request reads it
	}
	started := m.spawn(context.Background(), storeLimit, func(ctx context.Context) {
		defer func() { <-m.reads }()
		_, _ = m.confirm(ctx, sl, &ticket{key, v.s.dataKey})
	})
	if !started {
		<-m.reads
	}
}

// confirm reads the session of t from the store. Requests share one read if it began recently enough for each of them.
func (m *Manager) confirm(ctx context.Context, sl *slot, t *ticket) (*view, error) {
	if m.o.Cache.MaxStale == 0 {
		return m.fetch(ctx, sl, t)
	}
	sl.mu.Lock()
	r := sl.read
	if r == nil || !m.current(sl, &r.view, m.o.Now()) {
		r = &read{view: m.beginView(sl), done: make(chan struct{})}
		// Not on the request's context: when that client leaves, the others still wait.
		started := m.spawn(ctx, storeLimit, func(ctx context.Context) {
			r.res, r.err = m.fetch(ctx, sl, t)
			sl.mu.Lock()
			defer sl.mu.Unlock()
			if sl.read == r {
				sl.read = nil
			}
			close(r.done)
		})
		if !started { // closing: requests that still run go on alone
			sl.mu.Unlock()
			return m.fetch(ctx, sl, t)
		}
		sl.read = r
	}
	sl.mu.Unlock()
	select {
	case <-r.done:
		return r.res, r.err
	case <-ctx.Done():
		return nil, unavailable("read session", context.Cause(ctx))
	}
}

// fetch reads the session of t once.
func (m *Manager) fetch(ctx context.Context, sl *slot, t *ticket) (*view, error) {
	if isGrant(t.key) {
		return m.fetchGrant(ctx, sl, t.key)
	}
	v := m.beginView(sl)
	rec, err := m.o.Store.Get(ctx, t.key)
	switch {
	case errors.Is(err, ErrNone):
		m.saw(t.key, m.subjectOf(t.key), ReasonStoreMiss)
		return nil, &EndedError{ReasonStoreMiss}
	case err != nil:
		return nil, unavailable("read session", err)
	case rec.Ended != "":
		m.heardEnd(t.key, rec)
		m.unseal(ctx, t, rec)
		v.ended = rec.Ended
		return m.learn(t.key, sl, &v), nil
	}
	if why := m.livesAgain(t.key); why != "" {
		v.ended = why
		return m.learn(t.key, sl, &v), nil
	}
	sl.use(rec.Seen)
	if known := m.known(t.key, sl); known != nil && known.Version >= rec.Version {
		v.s = known // and not decoded again
		if known.Version > rec.Version {
			m.behind(known)
		}
	} else if v.s, err = m.open(t, rec); err != nil {
		m.saw(t.key, "", reasonOf(err))
		return nil, err
	}
	return m.learn(t.key, sl, &v), nil
}

// known returns the newest version of the session that this process has: what it read, or what a refresh yielded that the store
// has not taken yet. A read that began before that must not bring back the spent refresh token.
func (m *Manager) known(key string, sl *slot) *Session {
	var s *Session
	if v := sl.view.Load(); v != nil {
		s = v.s
	}
	m.mu.Lock()
	f := m.flights[key]
	m.mu.Unlock()
	if r := f.result(); r != nil && (s == nil || r.order() > s.order()) {
		s = r
	}
	return s
}

// learn puts v into the slot, unless that knows better: what has ended stays ended, a newer version stays, and an older read does not
// make a newer one look older. It returns what is known then.
func (m *Manager) learn(key string, sl *slot, v *view) *view {
	sl.mu.Lock()
	cur := sl.view.Load()
	if cur != nil {
		if cur.ended != "" {
			sl.mu.Unlock()
			return cur
		}
		if v.s != nil && cur.s.order() > v.s.order() {
			v.s = cur.s
		}
		if cur.read.After(v.read) || cur.gen > v.gen { // two that began in the same moment differ by a notice
			v.read, v.gen, v.epoch = cur.read, cur.gen, cur.epoch
		}
	}
	sl.view.Store(v)
	sl.mu.Unlock()
	if cur == nil || cur.s != v.s {
		m.weigh(key, sl, v.s)
	}
	return v
}

// weigh tells the cache what the slot now weighs.
func (m *Manager) weigh(key string, sl *slot, s *Session) {
	w := slotWeight
	if s != nil {
		w += len(s.Issuer) + len(s.Subject) + len(s.SID) + len(s.ACR) + len(s.Provider) + len(s.SignIn)
		w += len(s.Tokens.Access) + len(s.Tokens.Refresh) + len(s.Tokens.ID) + len(s.Tokens.Scope)
		w += len(s.Identity.User) + len(s.Identity.Email) + len(s.Identity.Name) + len(s.Identity.PreferredUsername)
		for _, g := range s.Identity.Groups {
			w += 16 + len(g)
		}
		for name, value := range s.Extra {
			w += 48 + len(name) + len(value)
		}
		if s.Claims != nil {
			w += weighClaims(s.Claims)
		}
		if s.shares {
			w += sharedWeight
		}
	}
	sl.weight.Store(uint32(min(w, math.MaxUint32)))
	m.slots.ComputeIfPresent(key, func(old *slot) (*slot, otter.ComputeOp) {
		if old != sl {
			return old, otter.CancelOp
		}
		return sl, otter.WriteOp
	})
}

// markEnded remembers in this process that the session is over, if it is known here, and whether its tokens may still lie in the store.
func (m *Manager) markEnded(key string, why Reason, sealed bool) {
	if e, ok := m.slots.GetEntryQuietly(key); ok {
		m.learn(key, e.Value, &view{ended: why, sealed: sealed, read: m.o.Now()})
	}
	m.notice(key) // its streams here need not wait for the store's
}

// use notes that the session was used at that time.
func (sl *slot) use(at time.Time) {
	ms := at.UnixMilli()
	for {
		old := sl.seen.Load()
		if ms <= old || sl.seen.CompareAndSwap(old, ms) {
			return
		}
	}
}

// open opens a record.
func (m *Manager) open(t *ticket, rec Record) (*Session, error) {
	var payload []byte
	var err error
	if place := m.place(t.key, rec.Version); isGrant(t.key) {
		payload, _, err = m.ring.OpenBytes(purposeGrant, rec.Sealed, place)
	} else {
		var sealed []byte
		if _, sealed, err = unframe(rec.Sealed); err == nil {
			payload, err = seal.Decrypt(&t.dataKey, sealed, place)
		}
	}
	if errors.Is(err, errFormat) {
		return nil, &EndedError{ReasonStoreMiss} // written by a newer binary: to this one it is no session
	}
	if err != nil {
		return nil, &EndedError{ReasonTampered}
	}
	s, err := m.codec.decode(payload)
	if errors.Is(err, errFormat) {
		return nil, &EndedError{ReasonStoreMiss} // written by a newer binary: to this one it is no session
	}
	if err != nil {
		return nil, &EndedError{ReasonTampered}
	}
	s.key, s.dataKey, s.Version, s.Seen = t.key, t.dataKey, rec.Version, rec.Seen
	if s.shares || isGrant(s.key) {
		m.placeGrants(s)
	}
	m.schedule(s)
	return s, nil
}

// record is the sealed record of s.
func (m *Manager) record(s *Session) (Record, error) {
	payload, err := m.codec.encode(s)
	if err != nil {
		return Record{}, err
	}
	if isGrant(s.key) {
		return Record{Version: s.Version, Sealed: m.ring.SealBytes(purposeGrant, payload, m.place(s.key, s.Version))}, nil
	}
	sealed, err := seal.Encrypt(&s.dataKey, payload, m.place(s.key, s.Version))
	if err != nil {
		return Record{}, err
	}
	if sealed, err = m.frame(s, sealed); err != nil {
		return Record{}, err
	}
	return Record{Version: s.Version, Seen: s.Seen, Sealed: sealed}, nil
}

// place names where a stored value belongs. It opens nowhere else: not under another key, version, client or deployment.
func (m *Manager) place(key string, version int64) []byte {
	b := join("postern session", m.o.Deployment, m.o.Issuer, m.o.ClientID, key)
	for range 8 {
		b = append(b, byte(version))
		version >>= 8
	}
	return b
}

// schedule works out when s ends and when its token is refreshed.
func (m *Manager) schedule(s *Session) {
	// A shorter lifetime in the configuration holds for sessions that exist already.
	if end := s.Created.Add(m.o.Lifetime); s.Ends.After(end) {
		s.Ends = end
	}
	s.due, s.must = time.Time{}, time.Time{}
	if s.Tokens.Refresh != "" {
		s.due, s.must = RefreshTimes(s.Tokens, m.o.RefreshBefore, m.early(s))
	}
}

// early is which part of the spread of [RefreshTimes] s is refreshed sooner. All processes reckon with the same, and each refresh brings another.
func (m *Manager) early(s *Session) float64 {
	if !m.o.SpreadRefresh {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.key))
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(millis(s.Tokens.Obtained))))
	return float64(h.Sum32()) / (1 << 32)
}

// spreadMost bounds the spread of [RefreshTimes].
const spreadMost = 10 * time.Minute

// RefreshTimes says when the access token of t is due to be refreshed, and from when on requests wait for that; the zero times are never.
// It is due before that long in front of its expiry, at most a third of its life, and sooner by early, from 0 to 1, of a tenth of its life.
func RefreshTimes(t Tokens, before time.Duration, early float64) (due, must time.Time) {
	if t.Expiry.IsZero() {
		return due, must
	}
	margin, sooner := waitMargin, time.Duration(0)
	if !t.Obtained.IsZero() {
		life := t.Expiry.Sub(t.Obtained)
		if life <= 0 { // a provider that hands out expired tokens is asked once a second, not for each request
			due = t.Obtained.Add(time.Second)
			return due, due
		}
		before, margin = min(before, life/3), min(margin, life/10)
		sooner = time.Duration(early * float64(min(life/10, spreadMost)))
	}
	return t.Expiry.Add(-max(before, margin) - sooner), t.Expiry.Add(-margin)
}
