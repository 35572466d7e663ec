package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"postern/session"
	"postern/session/redisstore"
	"postern/session/redistest"
)

// Reads of the same moment share a few writes. Each caller gets the record that it asked for, and one who leaves takes nobody's answer along.
func TestReadsOfOneMomentTravelTogether(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	direct := newStore(t, server, redisstore.Options{})
	for i := range 100 {
		if _, err := direct.Create(t.Context(), fmt.Sprint(i), record(fmt.Sprint("of ", i)), time.Hour, nil); err != nil {
			t.Fatal(err)
		}
	}
	proxy := redistest.NewProxy(t, server.Address())
	s := newStore(t, server, redisstore.Options{URL: "redis://" + proxy.Address()})
	proxy.Stall(true, true)

	var stay, leave sync.WaitGroup
	read := func(i int) {
		rec, err := s.Get(t.Context(), fmt.Sprint(i))
		if err != nil || string(rec.Sealed) != fmt.Sprint("of ", i) {
			t.Errorf("record %d: %q, %v", i, rec.Sealed, err)
		}
	}
	for i := range redisstore.MaxFlights {
		stay.Go(func() { read(i) })
	}
	eventually(t, "the first are under way", func() bool { return proxy.Open() == redisstore.MaxFlights })
	impatient, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := redisstore.MaxFlights; i < 100; i++ {
		if i%10 != 0 {
			stay.Go(func() { read(i) })
			continue
		}
		leave.Go(func() {
			if _, err := s.Get(impatient, fmt.Sprint(i)); !errors.Is(err, session.ErrUnavailable) || !errors.Is(err, context.Canceled) {
				t.Errorf("one who left: %v", err)
			}
		})
	}
	cancel()
	leave.Wait() // while nothing arrives
	proxy.Heal()
	stay.Wait()
	if n := proxy.Accepted(); n != redisstore.MaxFlights {
		t.Errorf("%d connections for reads of one moment", n)
	}
	if _, err := s.Get(t.Context(), "none"); !errors.Is(err, session.ErrNone) {
		t.Errorf("afterwards: %v", err)
	}
}
