package session_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/session"
	"postern/session/memstore"
)

// endings collects what managers tell of ends.
type endings struct {
	mu  sync.Mutex
	all []session.Ending
}

func (e *endings) hear(o *session.Options) {
	o.Ended = func(end session.Ending) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.all = append(e.all, end)
	}
}

// take returns what was told since it was called last.
func (e *endings) take() []session.Ending {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.all
	e.all = nil
	return all
}

// A replica that never saw a session tells whose it was all the same when it ends it by the index: the audit log must name people.
func TestAnEndByTheIndexTellsWhose(t *testing.T) {
	for name, end := range map[string]func(f *fixture, s *session.Session) error{
		"by its id": func(f *fixture, s *session.Session) error {
			_, err := f.EndID(t.Context(), s.ID(), session.Match{}, session.ReasonAdmin)
			return err
		},
		"by user": func(f *fixture, s *session.Session) error {
			_, err := f.EndMatching(t.Context(), session.Match{User: s.Identity.User}, session.ReasonAdmin)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			told := &endings{}
			f := replica(t, nil, told.hear)
			s, _ := f.signIn(f.grant(30*time.Minute), session.CreateOptions{})
			if err := end(replica(t, f.store, told.hear), s); err != nil {
				t.Fatal(err)
			}
			want := []session.Ending{{Handle: s.Handle(), Provider: "main", Subject: alice, Reason: session.ReasonAdmin}}
			if diff := cmp.Diff(told.take(), want); diff != "" {
				t.Errorf("told (-got +want):\n%s", diff)
			}
		})
	}
}

// Issue 4, item 8: whatever ends a session is told, with its reason, exactly once, however often the cookie comes again.
func TestEveryEndIsToldOnce(t *testing.T) {
	told := &endings{}
	opaque := func(o *session.Options) { told.hear(o); o.MaxPerUser = 2 }
	for why, end := range map[session.Reason]func(f *fixture, s *session.Session){
		session.ReasonIdle:      func(f *fixture, _ *session.Session) { f.clock.advance(61 * time.Minute) },
		session.ReasonLifetime:  func(f *fixture, _ *session.Session) { f.clock.advance(12*time.Hour + time.Second) },
		session.ReasonSignedOut: func(f *fixture, s *session.Session) { f.End(t.Context(), s, session.ReasonSignedOut) },
		session.ReasonBackChannel: func(f *fixture, _ *session.Session) {
			f.EndMatching(t.Context(), session.Match{Subject: alice}, session.ReasonBackChannel)
		},
		session.ReasonRefreshRejected: func(f *fixture, s *session.Session) {
			p := f.provider(time.Minute)
			p.next = 7 // so that refresh-0 is spent
			f.Refresh(t.Context(), s, p.refresh)
		},
		session.ReasonTokenExpired: func(f *fixture, s *session.Session) {
			f.clock.advance(31 * time.Minute)
			s.Tokens.Refresh = ""
			f.Fresh(t.Context(), s, nil)
		},
		session.ReasonReplaced: func(f *fixture, s *session.Session) {
			f.signIn(f.grant(0), session.CreateOptions{Replaces: s})
		},
		session.ReasonLimit: func(f *fixture, s *session.Session) {
			for range 2 {
				f.clock.advance(time.Second)
				f.signIn(f.grant(0), session.CreateOptions{})
			}
		},
		session.ReasonStoreMiss: func(f *fixture, _ *session.Session) { f.store.Store = memstore.New(memstore.Options{}) },
		session.ReasonTampered: func(f *fixture, s *session.Session) {
			rec, _ := f.store.Get(t.Context(), s.Key())
			rec.Sealed[20] ^= 1
			f.store.Store.Swap(t.Context(), s.Key(), rec, 1)
		},
	} {
		t.Run(string(why), func(t *testing.T) {
			f := replica(t, nil, opaque)
			other := replica(t, f.store, opaque)
			g := f.grant(30 * time.Minute)
			if why == session.ReasonTokenExpired {
				g.Tokens.Refresh = ""
			}
			s, h := f.signIn(g, session.CreateOptions{})
			f.mustLoad(h)
			end(f, s)
			for range 3 {
				_, err := f.load(h)
				ended(t, err, why)
			}
			got := told.take()
			want := []session.Ending{{Handle: s.Handle(), Provider: "main", Subject: alice, Reason: why}}
			if why == session.ReasonTampered {
				want[0].Subject = got[0].Subject // it was in memory, or not
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("told (-got +want):\n%s", diff)
			}
			logged := "msg=\"session ended\" provider=main session=" + s.Handle() + " reason=" + string(why)
			if n := strings.Count(f.logged(), logged); n != 1 {
				t.Errorf("logged %d times:\n%s", n, f.logged())
			}
			// What left a tombstone was told by whoever wrote it.
			rec, err := f.store.Get(t.Context(), s.Key())
			other.clock.offset.Store(f.clock.offset.Load())
			other.load(h)
			if n := len(told.take()); err == nil && rec.Ended != "" && n != 0 {
				t.Errorf("another process told it again")
			}
		})
	}
}

// Issue 4, item 8: the end of a session whose key was removed is told. Cookies that a stranger makes up cost a bounded number of log
// lines, and are nobody's beside a session that lives.
func TestA143_StrangeCookiesDoNotFloodTheLog(t *testing.T) {
	told := &endings{}
	f := replica(t, nil, told.hear)
	_, h := f.signIn(f.grant(0), session.CreateOptions{})
	removed := replica(t, f.store, func(o *session.Options) {
		told.hear(o)
		o.Ring = ring(t, []byte("01234567890123456789012345678901"))
	})
	for range 3 {
		_, err := removed.load(h)
		ended(t, err, session.ReasonKeyUnknown)
	}
	want := []session.Ending{{Provider: "main", Reason: session.ReasonKeyUnknown}}
	if diff := cmp.Diff(told.take(), want); diff != "" {
		t.Errorf("told of the removed key (-got +want):\n%s", diff)
	}
	f.mustLoad(http.Header{"Cookie": {"__Host-postern=planted; " + h.Get("Cookie")}})
	if got := told.take(); len(got) != 0 {
		t.Errorf("told of a cookie beside a live session: %v", got)
	}
	for range 2 {
		for i := range 1000 {
			f.load(http.Header{"Cookie": {fmt.Sprintf("__Host-postern=made-up-%d", i)}})
		}
		if n := strings.Count(f.logged(), "key_unknown"); n > 10 {
			t.Fatalf("%d log lines for 1000 cookies", n)
		}
	}
	if n := len(told.take()); n < 1000 || n > 1100 {
		t.Errorf("%d ends counted for 1000 cookies that came twice", n)
	}
	f.clock.advance(2 * time.Minute)
	f.load(http.Header{"Cookie": {"__Host-postern=another"}})
	if !strings.Contains(f.logged(), "not_logged_before=990") {
		t.Errorf("the log does not tell how many it left out:\n%s", f.logged())
	}
}

// A cookie that outlived its session is of no interest when it comes again.
func TestOldCookieIsNotToldAgain(t *testing.T) {
	told := &endings{}
	f := replica(t, nil, func(o *session.Options) { told.hear(o); o.Cache.MaxSize, o.MaxPerUser = 64<<10, 0 })
	s, h := f.signIn(f.grant(0), session.CreateOptions{})
	if err := f.End(t.Context(), s, session.ReasonAdmin); err != nil {
		t.Fatal(err)
	}
	f.load(h)
	told.take()
	for range 1000 { // its ticket and its slot are forgotten
		_, other := f.signIn(f.grant(0), session.CreateOptions{})
		f.mustLoad(other)
		f.mustLoad(other)
	}
	f.clock.advance(13 * time.Hour)
	_, err := f.load(h)
	ended(t, err, session.ReasonLifetime)
	if got := told.take(); len(got) != 0 {
		t.Errorf("told %v", got)
	}
}

// The answer to an end is lost, and the store takes it: it is told all the same, once.
func TestEndWithLostAnswerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := &endings{}
		f := replica(t, nil, told.hear)
		s, _ := f.signIn(f.grant(0), session.CreateOptions{})
		f.store.set(nil, func(op string) error {
			if op == "end" && f.store.count("end") < 3 {
				return errStore
			}
			return nil
		})
		if err := f.End(t.Context(), s, session.ReasonSignedOut); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(10 * time.Second)
		if got := told.take(); len(got) != 1 || got[0].Reason != session.ReasonSignedOut {
			t.Errorf("told %v", got)
		}
	})
}
