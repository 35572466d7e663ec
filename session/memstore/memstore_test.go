package memstore_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/storetest"
)

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Harness {
		c := &clock{now: time.Now()}
		return storetest.Harness{Store: memstore.New(memstore.Options{Now: c.Now}), Pass: c.Pass, Short: time.Minute, Now: c.Now}
	})
}

// What has lived its time must not fill the memory, whether or not anybody asks for it again.
func TestForgetsWhatIsOver(t *testing.T) {
	c := &clock{now: time.Now()}
	s := memstore.New(memstore.Options{Now: c.Now})
	for i := range 1000 {
		key := fmt.Sprint(i)
		entry := session.IndexEntry{Name: key, Handle: key, Expires: c.Now().Add(time.Minute)}
		if _, err := s.Create(t.Context(), key, session.Record{Version: 1}, time.Minute, []session.IndexEntry{entry}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Acquire(t.Context(), key, "owner", time.Second); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Renew(t.Context(), key, "owner", time.Minute); err != nil {
			t.Fatal(err)
		}
		c.Pass(time.Second)
	}
	if got := s.Size(); got > 3*62 {
		t.Errorf("%d things are remembered, of which at most 180 live", got)
	}
}

// A watcher that does not keep up is told that it missed something, and costs no memory without end.
func TestSlowWatcherGetsGap(t *testing.T) {
	s := memstore.New(memstore.Options{})
	gaps, hold := make(chan struct{}, 10), make(chan struct{})
	changed := make(chan string, 10_000)
	go s.Watch(t.Context(), func(key string) {
		<-hold
		changed <- key
	}, func(bool) { gaps <- struct{}{} })
	<-gaps
	for i := range 10_000 {
		if _, err := s.End(t.Context(), fmt.Sprint(i), session.ReasonAdmin, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	<-gaps
	for key := range changed {
		if key == "9999" {
			return
		}
	}
}

func BenchmarkGet(b *testing.B) {
	s := memstore.New(memstore.Options{})
	if _, err := s.Create(b.Context(), "k", session.Record{Version: 1, Sealed: make([]byte, 3000)}, time.Hour, nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Get(b.Context(), "k"); err != nil {
				b.Error(err)
			}
		}
	})
}
