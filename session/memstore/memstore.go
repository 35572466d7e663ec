// Package memstore keeps sessions in the memory of the process: for one replica that may forget them when it ends, and for tests.
// It behaves as redisstore does, notices included.
//
// Whatever has lived its time is forgotten at the next write, so that memory is bounded by what is alive.
package memstore

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"postern/session"
)

// maxQueue is how many notices wait for one watcher before they are replaced by a gap.
const maxQueue = 4096

// Options says what a store is like. The zero value is good.
type Options struct {
	// Now is the clock; nil is [time.Now].
	Now func() time.Time
}

// Store is a [session.Store] in memory. Make one with [New].
type Store struct {
	now func() time.Time

	mu       sync.Mutex
	closed   bool
	records  map[string]*record
	leases   map[string]*lease
	indexes  map[string]map[string]*entry // by name, then by handle
	kept     map[string]*kept
	expiries expiries
	watchers map[*watcher]struct{}
}

var _ session.Store = (*Store)(nil)

type record struct {
	session.Record
	expires time.Time
}

type lease struct {
	owner   string
	expires time.Time
}

type kept struct {
	value   []byte
	taken   bool
	expires time.Time
}

type entry struct {
	session.IndexEntry
}

// New makes an empty store.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{
		now:      o.Now,
		records:  map[string]*record{},
		leases:   map[string]*lease{},
		indexes:  map[string]map[string]*entry{},
		kept:     map[string]*kept{},
		watchers: map[*watcher]struct{}{},
	}
}

// Get implements [session.Store].
func (s *Store) Get(ctx context.Context, key string) (session.Record, error) {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return session.Record{}, err
	}
	defer unlock()
	r := s.record(key, now)
	if r == nil {
		return session.Record{}, session.ErrNone
	}
	rec := r.Record
	rec.Sealed = bytes.Clone(rec.Sealed)
	return rec, nil
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	if ttl <= 0 {
		return nil, errors.New("create session: no time to live")
	}
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s.expire(now)

	if r := s.record(key, now); r != nil {
		return nil, session.ErrConflict
	}
	var over []session.IndexEntry
	for _, e := range index {
		over = append(over, s.addEntry(e, now)...)
	}
	rec.Seen, rec.Ended, rec.Sealed, rec.TTL = seconds(rec.Seen), "", bytes.Clone(rec.Sealed), 0
	r := &record{Record: rec, expires: now.Add(ttl)}
	s.records[key] = r
	heap.Push(&s.expiries, expiry{at: r.expires, record: r, key: key})
	return over, nil
}

// Swap implements [session.Store].
func (s *Store) Swap(ctx context.Context, key string, rec session.Record, from int64) error {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r := s.record(key, now)
	switch {
	case r == nil:
		return session.ErrNone
	case r.Ended != "" || r.Version != from:
		return session.ErrConflict
	}
	r.Version, r.Sealed = max(rec.Version, from+1), bytes.Clone(rec.Sealed)
	if expires := now.Add(rec.TTL); expires.After(r.expires) {
		r.expires = expires // the reminder that is set finds it so
	}
	s.notify(key)
	return nil
}

// Touch implements [session.Store].
func (s *Store) Touch(ctx context.Context, seen time.Time, keys ...string) error {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	seen = seconds(seen)
	for _, key := range keys {
		if r := s.record(key, now); r != nil && r.Ended == "" && seen.After(r.Seen) {
			r.Seen = seen
		}
	}
	return nil
}

// End implements [session.Store].
func (s *Store) End(ctx context.Context, key string, why session.Reason, keepSealed bool, index []session.IndexEntry) (bool, error) {
	if why == "" {
		return false, errors.New("end session: no reason")
	}
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	s.expire(now)

	r := s.record(key, now)
	ended := r != nil && r.Ended == ""
	if ended {
		r.Ended = why
		if !keepSealed {
			r.Sealed = nil
		}
	}
	for _, e := range index {
		s.removeEntry(e.Name, e.Handle)
	}
	s.notify(key)
	return ended, nil
}

// Strip implements [session.Store].
func (s *Store) Strip(ctx context.Context, key string, rest []byte) (bool, error) {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	r := s.record(key, now)
	if r == nil || r.Ended == "" || len(r.Sealed) <= len(rest) {
		return false, nil
	}
	r.Sealed = slices.Concat(rest) // nil for no rest
	return true, nil
}

// Reindex implements [session.Store].
func (s *Store) Reindex(ctx context.Context, add, remove []session.IndexEntry) error {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s.expire(now)
	for _, e := range add {
		e.Max = 0
		s.addEntry(e, now)
	}
	for _, e := range remove {
		s.removeEntry(e.Name, e.Handle)
	}
	return nil
}

// Index implements [session.Store].
func (s *Store) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.live(name, now), nil
}

// Acquire implements [session.Store].
func (s *Store) Acquire(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	if ttl <= 0 {
		return false, errors.New("acquire lease: no time to live")
	}
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	s.expire(now)

	if l := s.lease(key, now); l != nil && l.owner != owner {
		return false, nil
	}
	l := &lease{owner: owner, expires: now.Add(ttl)}
	s.leases[key] = l
	heap.Push(&s.expiries, expiry{at: l.expires, lease: l, key: key})
	return true, nil
}

// Renew implements [session.Store].
func (s *Store) Renew(ctx context.Context, key, owner string, ttl time.Duration) (bool, error) {
	if ttl <= 0 {
		return false, errors.New("renew lease: no time to live")
	}
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	l := s.lease(key, now)
	if l == nil || l.owner != owner {
		return false, nil
	}
	l.expires = now.Add(ttl)
	return true, nil
}

// Release implements [session.Store].
func (s *Store) Release(ctx context.Context, key, owner string) error {
	now, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if l := s.lease(key, now); l != nil && l.owner == owner {
		delete(s.leases, key)
		s.notify(key)
	}
	return nil
}

// Ping implements [session.Store].
func (s *Store) Ping(ctx context.Context) error {
	_, unlock, err := s.begin(ctx)
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// Close implements [session.Store]: it ends all Watch calls and forgets everything.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for w := range s.watchers {
		close(w.stop)
	}
	clear(s.watchers)
	clear(s.records)
	clear(s.leases)
	clear(s.indexes)
	clear(s.kept)
	s.expiries = nil
	return nil
}

// begin locks the store for one operation, unless ctx is over or the store closed.
func (s *Store) begin(ctx context.Context) (now time.Time, unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, nil, fmt.Errorf("%w: %w", session.ErrUnavailable, err)
	}
	now = s.now()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return time.Time{}, nil, fmt.Errorf("%w: closed", session.ErrUnavailable)
	}
	return now, s.mu.Unlock, nil
}

// record returns what lives under key, tombstones included, or nil.
func (s *Store) record(key string, now time.Time) *record {
	if r, ok := s.records[key]; ok && now.Before(r.expires) {
		return r
	}
	return nil
}

// lease returns the lease of key while it lasts, or nil.
func (s *Store) lease(key string, now time.Time) *lease {
	if l, ok := s.leases[key]; ok && now.Before(l.expires) {
		return l
	}
	return nil
}

// live returns the live entries under name, the oldest first.
func (s *Store) live(name string, now time.Time) []session.IndexEntry {
	var out []session.IndexEntry
	for _, e := range s.indexes[name] {
		if now.Before(e.Expires) {
			out = append(out, session.IndexEntry{Name: name, Handle: e.Handle, Expires: e.Expires})
		}
	}
	slices.SortFunc(out, func(a, b session.IndexEntry) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Handle, b.Handle))
	})
	return out
}

// addEntry adds or replaces one entry and returns those that are too many.
func (s *Store) addEntry(e session.IndexEntry, now time.Time) []session.IndexEntry {
	if !now.Before(e.Expires) {
		return nil
	}
	bound := e.Max
	e.Expires, e.Max = time.UnixMilli(e.Expires.UnixMilli()), 0
	added := &entry{IndexEntry: e}
	if s.indexes[e.Name] == nil {
		s.indexes[e.Name] = map[string]*entry{}
	}
	s.indexes[e.Name][e.Handle] = added
	heap.Push(&s.expiries, expiry{at: e.Expires, entry: added})
	if bound <= 0 {
		return nil
	}

	others := slices.DeleteFunc(s.live(e.Name, now), func(o session.IndexEntry) bool { return o.Handle == e.Handle })
	if len(others) < bound {
		return nil
	}
	over := others[:len(others)-(bound-1)]
	for i := 0; i < len(over)-bound; i++ {
		s.removeEntry(over[i].Name, over[i].Handle)
	}
	return over
}

func (s *Store) removeEntry(name, handle string) {
	delete(s.indexes[name], handle)
	if len(s.indexes[name]) == 0 {
		delete(s.indexes, name)
	}
}

// seconds cuts a time to what a record keeps of it.
func seconds(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0)
}
