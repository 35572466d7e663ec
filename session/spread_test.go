package session_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
)

// Whoever signed in at nine is refreshed at ten, but not all in the same moment.
func TestRefreshesOfOneMomentAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 600
		store := memstore.New(memstore.Options{})
		spread := func(o *session.Options) { o.SpreadRefresh, o.MaxPerUser, o.Cache.MaxSize = true, 0, 64<<20 }
		a, b := replica(t, store, spread), replica(t, store, spread)
		var minutes [6]int
		for range sessions {
			s, h := a.signIn(a.grant(time.Hour), session.CreateOptions{})
			early := s.Tokens.Expiry.Add(-time.Minute).Sub(s.RefreshDue())
			if early < 0 || early >= 6*time.Minute {
				t.Fatalf("refreshed %v sooner than a minute before its expiry, want less than a tenth of an hour", early)
			}
			minutes[early/time.Minute]++
			if other := b.mustLoad(h).RefreshDue(); !other.Equal(s.RefreshDue()) {
				t.Fatalf("due at %v here and at %v there", s.RefreshDue(), other)
			}
		}
		for i, n := range minutes {
			if n < sessions/12 || n > sessions/4 {
				t.Errorf("%d of %d are due in minute %d of 6", n, sessions, i)
			}
		}
	})
}

// A provider that has been away is not overrun by all whose tokens ran out meanwhile: what times out there may be spent.
func TestExchangesUnderWayAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions, bound = 200, 64
		f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 0 })
		var headers []http.Header
		for range sessions {
			_, h := f.signIn(f.grant(10*time.Minute), session.CreateOptions{})
			headers = append(headers, h)
		}
		time.Sleep(11 * time.Minute)
		var underWay, most, sent atomic.Int64
		refresh := func(ctx context.Context, s *session.Session) (session.Grant, error) {
			n := underWay.Add(1)
			defer underWay.Add(-1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(2 * time.Second)
			g := s.Grant
			g.Tokens.Access, g.Tokens.Refresh = fmt.Sprint("access ", sent.Add(1)), g.Tokens.Refresh+"'"
			g.Tokens.Obtained, g.Tokens.Expiry = time.Now(), time.Now().Add(10*time.Minute)
			return g, nil
		}
		began := time.Now()
		var requests sync.WaitGroup
		for _, h := range headers {
			requests.Go(func() {
				if _, err := f.Fresh(t.Context(), f.mustLoad(h), refresh); err != nil {
					t.Error(err)
				}
			})
		}
		requests.Wait()
		if most.Load() != bound || sent.Load() != sessions {
			t.Errorf("%d exchanges, %d at once; want %d, %d at once", sent.Load(), most.Load(), sessions, bound)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("all took %v", took)
		}

		// Who gets no place in time is told to come back, and has sent nothing.
		time.Sleep(11 * time.Minute)
		hold := make(chan struct{})
		held := func(context.Context, *session.Session) (session.Grant, error) {
			<-hold
			return session.Grant{}, &session.RefreshError{Kind: session.Again}
		}
		for _, h := range headers {
			requests.Go(func() {
				if _, err := f.Fresh(t.Context(), f.mustLoad(h), held); err == nil {
					t.Error("a session was refreshed by a provider that does not answer")
				}
			})
		}
		time.Sleep(time.Minute)
		close(hold)
		requests.Wait()
	})
}
