package session

import (
	"container/list"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A store that fails over to a copy loses the writes that the copy had not got. Nobody can put back a new session, whose sign-in is then
// to be done again. But what this process has ended, or knows to have ended, must not live again, and a refresh token that was exchanged must not
// come back in place of its successor: whoever reads it would spend it twice. So each process remembers both for a while, and after each gap in
// the notices, which a failover always brings, looks whether the store still has them and writes what it has not.

const (
	// MendFor is how long ends and rotations are remembered, maxEnds and maxRotations how many of each: some 10 and 20 MB at most, the
	// latter mostly shared with the cache.
	MendFor      = 5 * time.Minute
	maxEnds      = 1 << 14
	maxRotations = 1 << 12

	// After a gap everything is looked at within MendSpread, or, if that would be more than one look in mendStep, so slowly.
	MendSpread = 2 * time.Second
	mendStep   = time.Millisecond
	// mendWorkers bounds the looks under way, mendGiveUp those in a row that the store did not answer before the rest waits for mendPause.
	mendWorkers = 8
	mendGiveUp  = 32
	mendPause   = time.Second
)

// end is an end that this process knows of.
type end struct {
	why        Reason
	keepSealed bool
	index      []IndexEntry
}

// recent remembers the newest values, one for each key, up to a number and an age.
type recent[T any] struct {
	max int

	mu    sync.RWMutex
	byKey map[string]*list.Element // guarded by mu
	all   list.List                // of remembered[T], the oldest first; guarded by mu
}

type remembered[T any] struct {
	key   string
	at    time.Time
	value T
}

func newRecent[T any](most int) *recent[T] {
	return &recent[T]{max: most, byKey: map[string]*list.Element{}}
}

// put remembers value for key. What was remembered before stays when keep is true.
func (r *recent[T]) put(key string, value T, now time.Time, keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.byKey[key]; ok {
		if keep {
			return
		}
		r.remove(e)
	}
	r.byKey[key] = r.all.PushBack(remembered[T]{key, now, value})
	for e := r.all.Front(); r.all.Len() > r.max || e.Value.(remembered[T]).over(now); e = r.all.Front() {
		r.remove(e)
	}
}

// remove forgets e. The caller holds mu.
func (r *recent[T]) remove(e *list.Element) {
	delete(r.byKey, e.Value.(remembered[T]).key)
	r.all.Remove(e)
}

// get returns what is remembered for key.
func (r *recent[T]) get(key string, now time.Time) (value T, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byKey[key]
	if !ok || e.Value.(remembered[T]).over(now) {
		return value, false
	}
	return e.Value.(remembered[T]).value, true
}

// drop forgets what is remembered for key.
func (r *recent[T]) drop(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.byKey[key]; ok {
		r.remove(e)
	}
}

// list returns what is remembered.
func (r *recent[T]) list(now time.Time) []remembered[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []remembered[T]
	for e := r.all.Front(); e != nil; {
		next := e.Next()
		if v := e.Value.(remembered[T]); v.over(now) {
			r.remove(e)
		} else {
			all = append(all, v)
		}
		e = next
	}
	return all
}

func (v remembered[T]) over(now time.Time) bool { return now.Sub(v.at) >= MendFor }

// heardEnd remembers the tombstone of key that was read.
func (m *Manager) heardEnd(key string, rec Record) {
	m.ends.put(key, end{why: rec.Ended, keepSealed: len(rec.Sealed) > 0}, m.o.Now(), true)
	m.rotations.drop(key)
}

// livesAgain reports why the session under key, which the store says is alive, has ended all the same.
func (m *Manager) livesAgain(key string) Reason {
	e, ok := m.ends.get(key, m.o.Now())
	if ok {
		m.mendSoon()
	}
	return e.why
}

// behind notes that the store has an older version than s.
func (m *Manager) behind(s *Session) {
	if _, ok := m.rotations.get(s.key, m.o.Now()); !ok {
		m.rotations.put(s.key, s, m.o.Now(), false)
	}
	m.mendSoon()
}

// mendSoon makes Run look whether the store has lost something.
func (m *Manager) mendSoon() {
	select {
	case m.lost <- struct{}{}:
	default: // it will
	}
}

// chore is one look, and the write that may follow. It reports false when the store did not answer.
type chore struct {
	at  time.Time
	run func(ctx context.Context) bool
}

// mending looks after gaps whether the store has lost something, until ctx ends.
func (m *Manager) mending(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.lost:
		}
		chores := m.chores()
		for len(chores) > 0 {
			chores = m.do(ctx, chores)
			if len(chores) > 0 && !sleep(ctx, jitter(mendPause, 2*mendPause)) {
				return
			}
			now := m.o.Now()
			chores = slices.DeleteFunc(chores, func(c chore) bool { return now.Sub(c.at) >= MendFor })
		}
	}
}

// chores are the looks at all that is remembered, the newest first: that is what gets lost.
func (m *Manager) chores() []chore {
	var chores []chore
	now := m.o.Now()
	for _, r := range m.rotations.list(now) {
		chores = append(chores, chore{r.at, func(ctx context.Context) bool { return m.writeBack(ctx, r.value) }})
	}
	for _, e := range m.ends.list(now) {
		chores = append(chores, chore{e.at, func(ctx context.Context) bool { return m.endAgain(ctx, e.key, e.value) }})
	}
	slices.SortStableFunc(chores, func(a, b chore) int { return b.at.Compare(a.at) })
	return chores
}

// do does chores, spread over some time, and returns those that are left to do.
func (m *Manager) do(ctx context.Context, chores []chore) (left []chore) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed atomic.Int32 // in a row
	places := make(chan struct{}, mendWorkers)
	step := max(MendSpread/time.Duration(len(chores)), mendStep)
	for i, c := range chores {
		if failed.Load() >= mendGiveUp || i > 0 && !sleep(ctx, step) {
			mu.Lock()
			left = append(left, chores[i:]...)
			mu.Unlock()
			break
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if c.run(ctx) {
				failed.Store(0)
				return
			}
			failed.Add(1)
			mu.Lock()
			defer mu.Unlock()
			left = append(left, c)
		})
	}
	wg.Wait()
	return left
}

// endAgain repeats an end that the store has lost. To look first costs the same and tells nobody of what has not happened.
func (m *Manager) endAgain(ctx context.Context, key string, e end) bool {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	rec, err := m.o.Store.Get(ctx, key)
	switch {
	case errors.Is(err, ErrNone):
		return true
	case err != nil:
		return false
	case rec.Ended != "":
		return true
	}
	ended, err := m.o.Store.End(ctx, key, e.why, e.keepSealed, e.index)
	if err != nil && !errors.Is(err, ErrNone) {
		return false
	}
	m.markEnded(key, e.why, e.keepSealed)
	if ended {
		m.log.WarnContext(ctx, "the store had lost the end of a session: ended again", "session", handle(key), "reason", string(e.why))
	}
	return true
}

// writeBack writes s if the store has lost that version and has an older one.
func (m *Manager) writeBack(ctx context.Context, s *Session) bool {
	ctx, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	for range grantTries {
		var done bool
		var err error
		if isGrant(s.key) {
			done, err = m.grantBack(ctx, s)
		} else {
			done, err = m.sessionBack(ctx, s)
		}
		if err != nil {
			return false
		}
		if done {
			return true
		}
	}
	return true // so much happens to it that it cannot be what was lost
}

// sessionBack is one try of writeBack. It is not done when the session changed meanwhile.
func (m *Manager) sessionBack(ctx context.Context, s *Session) (done bool, err error) {
	rec, err := m.o.Store.Get(ctx, s.key)
	switch {
	case errors.Is(err, ErrNone):
		return true, nil // a clean sign-in
	case err != nil:
		return false, err
	case rec.Ended != "":
		m.heardEnd(s.key, rec)
		m.markEnded(s.key, rec.Ended, len(rec.Sealed) > 0)
		return true, nil
	case rec.Version > s.Version:
		return true, nil
	}
	old, err := m.open(&ticket{s.key, s.dataKey}, rec)
	switch {
	case err == nil && old.Tokens == s.Tokens:
		return true, nil
	case err == nil && old.Tokens.Obtained.After(s.Tokens.Obtained):
		// Someone has refreshed the older version since, and the provider agreed. That is now the newer one.
		m.rotations.drop(s.key)
		m.slots.Invalidate(s.key)
		return true, nil
	}
	if rec.Version == s.Version {
		// Someone has written the older version again, with a remark or under another key. It must not count as the same.
		n := *s
		n.Version++
		s = &n
	}
	ours, err := m.record(s)
	if err != nil {
		return true, nil // it could not have been written before either
	}
	err = m.o.Store.Swap(ctx, s.key, ours, rec.Version)
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrNone):
		return false, nil
	case err != nil:
		return false, err
	}
	m.log.WarnContext(ctx, "the store had lost the refresh of a session: written again", "session", s.Handle())
	return true, nil
}

// grantBack is sessionBack for a shared grant.
func (m *Manager) grantBack(ctx context.Context, g *Session) (done bool, err error) {
	cur, versions, err := m.readGrant(ctx, g.grants)
	switch {
	case err != nil:
		return false, err
	case cur.order() >= g.order() || cur.gone != "" || versions[g.key] == 0:
		return true, nil
	}
	n := *g
	n.Version = versions[g.key] + 1
	ok, err := m.writeOver(ctx, &n, versions[g.key])
	if ok {
		m.log.WarnContext(ctx, "the store had lost the refresh of a shared grant: written again", "grant", g.Handle())
	}
	return ok, err
}
