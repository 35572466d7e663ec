package session

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// gapSpread is the time over which the followed sessions are read again after a gap in the notices, so that 100,000 of them are
	// some 3,300 reads a second. It is also the longest time between two reads of one while no notices arrive at all.
	gapSpread = 30 * time.Second

	// maxChecks bounds the reads of followed sessions under way, maxRenewals the refreshes that streams alone need.
	maxChecks   = 64
	maxRenewals = 256

	// A look that the store did not answer is tried again after the first of these, doubled up to the second.
	checkPause    = time.Second
	checkPauseMax = gapSpread

	// renewPause is the least time between two refreshes of a session that streams alone need, whatever the provider says about its
	// tokens' life.
	renewPause = 10 * time.Second

	// longestNap is when the queue is looked at again at the latest: the clock may have been set, or the machine been asleep.
	longestNap = 30 * time.Second
)

// Following is one open stream (a WebSocket, a long response) that must not outlive its session. All streams of a session in
// this process share one watch. A nil Following does nothing.
type Following struct {
	w       *watch
	told    func(s *Session, err error)
	version int64 // of the session that told knows; guarded by followed.mu
}

// watch is what is kept of a followed session: enough to read it and to know when, but not the session itself, whose tokens weigh far
// more. Times are Unix milliseconds, because they are compared with what other clocks wrote.
type watch struct {
	ticket
	m       *Manager
	refresh RefreshFunc
	grants  []string     // where its shared grant may lie; usually none
	used    atomic.Int64 // last activity in its streams

	// The rest is guarded by followed.mu.
	streams  []*Following
	at       int64 // when to look again
	place    int   // in the queue; -1 when it is not in it
	busy     bool  // a look is under way
	sooner   int64 // when to look again although one is under way; 0 is none
	renewing bool
	renewAt  int64 // not before; 0 is whenever it is due
	tries    int   // looks in a row that the store did not answer
	ends     int64
	err      error // a refresh found that the session is over
}

// followed are the sessions that streams of this process need.
type followed struct {
	mu       sync.Mutex
	byKey    map[string]*watch
	byGrant  map[string]map[*watch]struct{}
	queue    queue // by when to look again
	timer    *time.Timer
	checks   int
	renewals int
	streams  int
	closed   bool
}

// Follow watches over s for one open stream that was allowed for it, until [Following.Close]. It does no I/O and never calls told
// before it returns.
//
// told is called with the newer session after each change that the stream has not seen, so that its rule can be decided again, and once,
// as the last call, with an [*EndedError] when the session is over. It never gets [ErrUnavailable]: while the store does not answer a session is over only
// at its lifetime, and it is asked again. told must return at once. Calls do not overlap; one may still run when Close returns.
//
// When it is told:
//
//   - at a notice, which is typically within 100 ms of the change anywhere, the session is read again;
//   - after a gap in the notices each session is read again within 30 s, evenly spread, and every 30 s while there are none;
//   - at the idle limit the store is asked, since another process may have been used; lifetime needs nobody;
//   - when a refresh is due it is made with refresh, as for a request: the provider hears of a session that only a stream uses, too. That the
//     provider does not answer ends nothing, even after the access token has expired; that it refuses does.
func (m *Manager) Follow(s *Session, refresh RefreshFunc, told func(s *Session, err error)) *Following {
	f := &Following{told: told, version: s.Version}
	fs := &m.followed
	fs.mu.Lock()
	defer fs.mu.Unlock()
	w := fs.byKey[s.key]
	if w == nil {
		w = &watch{ticket: ticket{s.key, s.dataKey}, m: m, refresh: refresh, grants: s.grants, place: -1, ends: s.Ends.UnixMilli()}
		fs.add(w)
	}
	f.w = w
	w.streams = append(w.streams, f)
	fs.streams++
	// The session may have changed since the request was let in, with nobody here to hear it. The look costs no read if the cache knows.
	m.checkAt(w, m.o.Now().UnixMilli())
	return f
}

// Followed is how many sessions are followed, and for how many streams.
func (m *Manager) Followed() (sessions, streams int) {
	m.followed.mu.Lock()
	defer m.followed.mu.Unlock()
	return len(m.followed.byKey), m.followed.streams
}

// Used notes that the stream's client was active now. It is cheap enough for each message, and obeys the limit of [Manager.Touch].
func (f *Following) Used() {
	if f == nil {
		return
	}
	f.w.used.Store(f.w.m.o.Now().UnixMilli())
	f.w.m.touch(f.w.key, time.Time{})
}

// Close says that the stream is gone. It may be called more than once.
func (f *Following) Close() {
	if f == nil {
		return
	}
	fs := &f.w.m.followed
	fs.mu.Lock()
	defer fs.mu.Unlock()
	w := f.w
	for i, other := range w.streams {
		if other == f {
			last := len(w.streams) - 1
			w.streams[i], w.streams[last] = w.streams[last], nil
			w.streams = w.streams[:last]
			fs.streams--
			if last == 0 {
				fs.drop(w)
			}
			return
		}
	}
}

// add makes w known. The caller holds mu, as everywhere below where it is not said.
func (fs *followed) add(w *watch) {
	if fs.byKey == nil {
		fs.byKey, fs.byGrant = map[string]*watch{}, map[string]map[*watch]struct{}{}
	}
	fs.byKey[w.key] = w
	fs.hear(w, w.grants)
}

// hear has w looked at when the grants of these names change, and no others.
func (fs *followed) hear(w *watch, grants []string) {
	for _, key := range w.grants {
		delete(fs.byGrant[key], w)
		if len(fs.byGrant[key]) == 0 {
			delete(fs.byGrant, key)
		}
	}
	w.grants = grants
	for _, key := range grants {
		if fs.byGrant[key] == nil {
			fs.byGrant[key] = map[*watch]struct{}{}
		}
		fs.byGrant[key][w] = struct{}{}
	}
}

// drop forgets w, which has no streams any more.
func (fs *followed) drop(w *watch) {
	delete(fs.byKey, w.key)
	fs.hear(w, nil)
	if w.place >= 0 {
		heap.Remove(&fs.queue, w.place)
	}
	if len(fs.queue) == 0 && fs.timer != nil {
		fs.timer.Stop()
	}
}

// stop ends the work for streams. The manager is closing.
func (fs *followed) stop() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.closed = true
	if fs.timer != nil {
		fs.timer.Stop()
	}
}

// notice is told that the record under key has changed. It takes no part of that on itself: the caller is the only one who hears notices.
func (m *Manager) notice(key string) {
	fs := &m.followed
	fs.mu.Lock()
	defer fs.mu.Unlock()
	now := m.o.Now().UnixMilli()
	if w := fs.byKey[key]; w != nil {
		m.checkAt(w, now)
	}
	for w := range fs.byGrant[key] {
		m.checkAt(w, now)
	}
}

// missed is told that notices may have been missed: every followed session is read again, spread evenly over gapSpread.
func (m *Manager) missed() {
	fs := &m.followed
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if len(fs.byKey) == 0 {
		return
	}
	now := m.o.Now().UnixMilli()
	step := float64(gapSpread.Milliseconds()) / float64(len(fs.byKey))
	i := 0.0
	for _, w := range fs.byKey { // in no order
		m.checkAt(w, now+int64((i+rand.Float64())*step))
		i++
	}
}

// checkAt makes w be looked at then, or before.
func (m *Manager) checkAt(w *watch, at int64) {
	fs := &m.followed
	switch {
	case len(w.streams) == 0: // gone
		return
	case w.busy:
		if w.sooner == 0 || at < w.sooner {
			w.sooner = at
		}
		return
	case w.place < 0:
		w.at = at
		heap.Push(&fs.queue, w)
	case at < w.at:
		w.at = at
		heap.Fix(&fs.queue, w.place)
	}
	m.startChecks()
}

// startChecks starts what is due, and sets the timer for what comes next. When as many looks as may be are under way the end of one
// calls it again.
func (m *Manager) startChecks() {
	fs := &m.followed
	now := m.o.Now().UnixMilli()
	for !fs.closed && fs.checks < maxChecks && len(fs.queue) > 0 && fs.queue[0].at <= now {
		w := heap.Pop(&fs.queue).(*watch)
		w.busy, w.sooner = true, 0
		fs.checks++
		if !m.spawn(context.Background(), storeLimit, func(ctx context.Context) { m.check(ctx, w) }) {
			fs.closed = true
		}
	}
	if fs.closed || fs.checks == maxChecks || len(fs.queue) == 0 {
		return
	}
	nap := min(time.Duration(fs.queue[0].at-now)*time.Millisecond, longestNap)
	if fs.timer == nil {
		fs.timer = time.AfterFunc(nap, func() {
			fs.mu.Lock()
			defer fs.mu.Unlock()
			m.startChecks()
		})
		return
	}
	fs.timer.Reset(nap)
}

// check finds out how the session of w is, tells its streams what is new to them, and decides when to look again. It is called without
// the lock.
func (m *Manager) check(ctx context.Context, w *watch) {
	fs := &m.followed
	fs.mu.Lock()
	err, ends := w.err, w.ends
	fs.mu.Unlock()
	var s *Session
	switch {
	case err != nil:
	case m.o.Now().UnixMilli() >= ends: // whatever the store says
		m.saw(w.key, m.subjectOf(w.key), ReasonLifetime)
		err = &EndedError{ReasonLifetime}
	default:
		s, err = m.confirmed(ctx, w)
	}
	now := m.o.Now()

	fs.mu.Lock()
	var news []*Following
	var at int64
	switch {
	case reasonOf(err) != "":
		s = nil
		if news = w.streams; len(news) > 0 {
			w.streams = nil
			fs.streams -= len(news)
			fs.drop(w)
		}
	case err != nil: // the store did not answer
		at = min(now.UnixMilli()+pause(w.tries).Milliseconds(), w.ends)
		w.tries++
	default:
		w.tries, w.ends = 0, s.Ends.UnixMilli()
		if len(w.streams) > 0 && !slices.Equal(w.grants, s.grants) { // the deployment has other keys
			fs.hear(w, s.grants)
		}
		for _, f := range w.streams {
			if f.version != s.Version {
				f.version = s.Version
				news = append(news, f)
			}
		}
		at = m.plan(w, s, now)
	}
	fs.mu.Unlock()

	for _, f := range news {
		f.told(s, err)
	}

	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.checks--
	w.busy = false
	if w.sooner != 0 {
		at = min(at, w.sooner)
	}
	m.checkAt(w, at)
	m.startChecks() // others may have waited for this one to end
}

// confirmed reads the session of w as Load does. What is unconfirmed never counts, nor does being idle before the store was asked.
func (m *Manager) confirmed(ctx context.Context, w *watch) (*Session, error) {
	sl, now := m.slot(w.key), m.o.Now()
	if used := w.used.Load(); used > 0 {
		sl.use(time.UnixMilli(used))
	}
	v := sl.view.Load()
	if v == nil || v.ended == "" && (m.cached(sl) == nil || m.over(sl, v.s, now) == ReasonIdle) {
		var err error
		if v, err = m.confirm(ctx, sl, &w.ticket); err != nil {
			return nil, err
		}
	}
	if v.ended != "" {
		return nil, &EndedError{v.ended}
	}
	if why := m.over(sl, v.s, now); why != "" {
		m.saw(w.key, v.s.Subject, why)
		return nil, &EndedError{why}
	}
	return m.whole(ctx, sl, v.s)
}

// plan starts the refresh of s if it is due, and returns when to look again.
func (m *Manager) plan(w *watch, s *Session, now time.Time) int64 {
	ms := now.UnixMilli()
	seen := max(s.Seen.UnixMilli(), m.slot(w.key).seen.Load(), w.used.Load())
	at := min(s.Ends.UnixMilli(), seen+m.o.IdleTimeout.Milliseconds())
	if !m.watched.Load() {
		at = min(at, ms+jitter(gapSpread/2, gapSpread).Milliseconds())
	}
	due := s.due
	if due.IsZero() {
		due = s.Tokens.Expiry // without a refresh token that is the end
	}
	if due.IsZero() || w.renewing {
		return at
	}
	if !now.Before(due) && ms >= w.renewAt && m.startRenewal(w, s) {
		return at
	}
	// Every process that holds a stream of the session wakes for this. Where they do not all wake at once, one is enough.
	due = due.Add(jitter(0, max(s.must.Sub(s.due)/4, 0)) + time.Millisecond)
	return min(at, max(due.UnixMilli(), w.renewAt))
}

// startRenewal refreshes s in the background and has w looked at afterwards. It reports false if that cannot be now; then w.renewAt says when.
func (m *Manager) startRenewal(w *watch, s *Session) bool {
	fs := &m.followed
	if fs.renewals >= maxRenewals {
		w.renewAt = m.o.Now().Add(jitter(time.Second, 2*time.Second)).UnixMilli()
		return false
	}
	w.renewing = true
	fs.renewals++
	return m.spawn(context.Background(), m.leaseTTL()+m.o.ExchangeTimeout+storeLimit, func(ctx context.Context) {
		_, err := m.Refresh(ctx, s, w.refresh)
		wait := renewPause
		if err != nil {
			wait = checkPause
		}
		var retry *RetryError
		if errors.As(err, &retry) {
			wait = retry.After
		}
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.renewals--
		w.renewing = false
		if reasonOf(err) != "" {
			w.err = err
		}
		now := m.o.Now()
		w.renewAt = now.Add(jitter(wait, wait+min(wait/4, renewPause/2))).UnixMilli()
		m.checkAt(w, now.UnixMilli())
	})
}

// pause is how long to wait after so many failed tries before.
func pause(tries int) time.Duration {
	p := min(checkPause<<min(tries, 10), checkPauseMax)
	return jitter(p/2, p)
}

// jitter is a random time from min to max.
func jitter(least, most time.Duration) time.Duration {
	return least + time.Duration(rand.Float64()*float64(most-least))
}

// queue is a heap of watches by when to look at them.
type queue []*watch

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	w := x.(*watch)
	w.place = len(*q)
	*q = append(*q, w)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	w := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	w.place = -1
	return w
}
