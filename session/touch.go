package session

import (
	"context"
	"time"
)

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
	// Lost: the store is to be told again soon, else the session idles out elsewhere after an outage.
	again := func() {
		sl.touched.CompareAndSwap(now.UnixMilli(), now.Add(min(touchRetry-m.touchEvery(), 0)).UnixMilli())
	}
	select {
	case m.touches <- struct{}{}:
	default:
		again()
		return
	}
	started := m.spawn(context.Background(), storeLimit, func(ctx context.Context) {
		defer func() { <-m.touches }()
		if err := m.o.Store.Touch(ctx, key, now); err != nil {
			again()
			m.log.DebugContext(ctx, "touch lost", "session", handle(key), "err", err)
		}
	})
	if !started {
		<-m.touches
	}
}

// touchRetry is the least time between two touches of a session when the first was lost.
const touchRetry = 5 * time.Second

func (m *Manager) touchEvery() time.Duration { return TouchEvery(m.o.IdleTimeout) }

// TouchEvery is how often the store is told at most that a session is used.
func TouchEvery(idleTimeout time.Duration) time.Duration { return min(time.Minute, idleTimeout/10) }
