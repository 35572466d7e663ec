package memstore

import (
	"context"
	"fmt"
	"sync"

	"postern/session"
)

// watcher is the queue between the writers and one Watch call, so that no writer ever waits for a callback.
type watcher struct {
	wake chan struct{} // holds one token while there is something to do
	stop chan struct{} // closed by Close

	mu   sync.Mutex
	keys []string
	gap  bool
}

// Watch implements [session.Store].
func (s *Store) Watch(ctx context.Context, changed func(key string), gap func(listening bool)) error {
	w := &watcher{wake: make(chan struct{}, 1), stop: make(chan struct{})}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("watch: %w: closed", session.ErrUnavailable)
	}
	s.watchers[w] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, w)
		s.mu.Unlock()
	}()

	gap(true)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.stop:
			return fmt.Errorf("watch: %w: closed", session.ErrUnavailable)
		case <-w.wake:
		}
		w.mu.Lock()
		keys, missed := w.keys, w.gap
		w.keys, w.gap = nil, false
		w.mu.Unlock()
		if missed {
			gap(true)
		}
		for _, key := range keys {
			changed(key)
		}
	}
}

// notify tells every watcher that key changed. It is called with s.mu held.
func (s *Store) notify(key string) {
	for w := range s.watchers {
		w.add(key)
	}
}

func (w *watcher) add(key string) {
	w.mu.Lock()
	if len(w.keys) < maxQueue {
		w.keys = append(w.keys, key)
	} else {
		w.keys, w.gap = nil, true // a gap says all that the notices said
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
