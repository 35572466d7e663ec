package session

import (
	"context"
	"time"
)

// Touch notes that s was used now. It never waits: the store is told in the background, at most once per minute and session (or per
// tenth of the idle timeout), and not at all while it is slower than that. A lost touch is harmless, since the next one says more.
func (m *Manager) Touch(s *Session) {
	now, sl := m.o.Now(), m.slot(s.key)
	sl.use(now)
	was := sl.touched.Load()
	if now.UnixMilli()-max(was, s.Seen.UnixMilli()) < m.touchEvery().Milliseconds() {
		return
	}
	if !sl.touched.CompareAndSwap(was, now.UnixMilli()) {
		return // another request is doing it
	}
	select {
	case m.touches <- struct{}{}:
	default:
		return
	}
	started := m.spawn(context.Background(), storeLimit, func(ctx context.Context) {
		defer func() { <-m.touches }()
		if err := m.o.Store.Touch(ctx, s.key, now); err != nil {
			m.log.DebugContext(ctx, "touch lost", "session", s.Handle(), "err", err)
		}
	})
	if !started {
		<-m.touches
	}
}

func (m *Manager) touchEvery() time.Duration {
	return min(time.Minute, m.o.IdleTimeout/10)
}
