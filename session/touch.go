package session

import (
	"context"
	"sync"
	"time"
)

const (
	// touchRetry is the least time between two touches of a session when the first was lost.
	touchRetry = 5 * time.Second

	// touchGather is how long touches are gathered before the store is told of all of them at once.
	touchGather = 100 * time.Millisecond

	// maxTouches bounds the touches that wait; when the store is slower than that, they are dropped.
	maxTouches = 2048
)

// touches are those that the store is to be told of.
type touches struct {
	mu      sync.Mutex
	waiting []used // guarded by mu; at most maxTouches
	telling bool   // guarded by mu; a goroutine takes care of waiting
}

// used is a session that was used at that time, in Unix milliseconds.
type used struct {
	key  string
	slot *slot
	at   int64
}

// Touch notes that s was used now. It never waits: the store is told in the background, at most once per minute and session (or per
// tenth of the idle timeout), and not at all while it is slower than that. A lost touch is harmless, since the next one says more; it may come after
// touchRetry.
func (m *Manager) Touch(s *Session) { m.touch(s.key, s.Seen) }

// touch is Touch for the session under key, which the store has seen at that time at least.
func (m *Manager) touch(key string, seen time.Time) {
	now, sl := m.o.Now(), m.slot(key)
	sl.use(now)
	was := sl.touched.Load()
	if now.UnixMilli()-max(was, seen.UnixMilli()) < m.touchEvery().Milliseconds() {
		return
	}
	if !sl.touched.CompareAndSwap(was, now.UnixMilli()) {
		return // another request is doing it
	}
	if u := (used{key, sl, now.UnixMilli()}); !m.gather(u) {
		m.again(u)
	}
}

// gather has the store told of u soon. It reports false when too many wait, or the manager is closing.
func (m *Manager) gather(u used) bool {
	t := &m.touches
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) == maxTouches || !t.telling && !m.tellSoon() {
		return false
	}
	t.telling = true
	t.waiting = append(t.waiting, u)
	return true
}

// tellSoon reports false when the manager is closing.
func (m *Manager) tellSoon() bool {
	return m.spawn(context.Background(), touchGather+storeLimit, m.tell)
}

// tell tells the store of the touches of touchGather, at once when the manager closes. Those that come meanwhile are told of next.
func (m *Manager) tell(ctx context.Context) {
	sleep(m.closing, touchGather)
	t := &m.touches
	t.mu.Lock()
	batch := t.waiting
	t.waiting = nil
	t.mu.Unlock()

	keys := make([]string, len(batch))
	for i, u := range batch {
		keys[i] = u.key
	}
	if err := m.o.Store.Touch(ctx, m.o.Now(), keys...); err != nil {
		m.log.DebugContext(ctx, "touches lost", "sessions", len(batch), "err", err)
		m.again(batch...)
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	t.telling = len(t.waiting) > 0 && m.tellSoon()
	if !t.telling {
		m.again(t.waiting...)
		t.waiting = nil
	}
}

// again has the store told again soon of touches that were lost, else these sessions idle out elsewhere after an outage.
func (m *Manager) again(lost ...used) {
	for _, u := range lost {
		u.slot.touched.CompareAndSwap(u.at, u.at+min(touchRetry-m.touchEvery(), 0).Milliseconds())
	}
}

func (m *Manager) touchEvery() time.Duration { return TouchEvery(m.o.IdleTimeout) }

// TouchEvery is how often the store is told at most that a session is used.
func TouchEvery(idleTimeout time.Duration) time.Duration { return min(time.Minute, idleTimeout/10) }
