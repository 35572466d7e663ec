package session_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
	"postern/session/memstore"
)

// Issue 4, item 5: whichever replica a session is used on, all of them end it when it was not used for the idle timeout, within what touches leave
// unsaid: a minute, or a tenth of the timeout.
func TestIdleTimeoutAcrossReplicas(t *testing.T) {
	for idle, every := range map[time.Duration]time.Duration{time.Hour: time.Minute, 5 * time.Minute: 30 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			store := memstore.New(memstore.Options{})
			opt := func(o *session.Options) { o.IdleTimeout, o.Lifetime = idle, 100*time.Hour }
			a, b := replica(t, store, opt), replica(t, store, opt)
			defer a.watch()()
			defer b.watch()()
			_, h := a.signIn(a.grant(0), session.CreateOptions{})
			b.mustLoad(h)
			for used := time.Duration(0); used < 3*idle; used += 7 * time.Second { // on a alone
				time.Sleep(7 * time.Second)
				a.Touch(a.mustLoad(h))
			}
			last := time.Now()
			if n, most := a.store.count("touch"), int(3*idle/every)+1; n > most || n < most*8/10 {
				t.Errorf("idle %v: %d touches, want at most %d", idle, n, most)
			}
			time.Sleep(idle - every - 2*time.Second)
			b.mustLoad(h)
			time.Sleep(time.Until(last.Add(idle)))
			for name, r := range map[string]*fixture{"where it was used": a, "elsewhere": b} {
				_, err := r.load(h)
				if e := (*session.EndedError)(nil); !errors.As(err, &e) || e.Reason != session.ReasonIdle {
					t.Errorf("idle %v, %s: %v", idle, name, err)
				}
			}
		})
	}
}

// A touch that the store did not take is made again soon after the outage, so that the session does not idle out elsewhere.
func TestLostTouchIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, nil)
		s, h := f.signIn(f.grant(0), session.CreateOptions{})
		time.Sleep(2 * time.Minute)
		f.store.fail("touch")
		for range 100 { // 20 s
			f.Touch(f.mustLoad(h))
			time.Sleep(200 * time.Millisecond)
		}
		if n := f.store.count("touch"); n < 2 || n > 5 {
			t.Errorf("%d touches in 20 s of an outage", n)
		}
		f.store.fail()
		time.Sleep(5 * time.Second)
		f.Touch(f.mustLoad(h))
		time.Sleep(time.Second)
		if rec, _ := f.store.Get(t.Context(), s.Key()); time.Since(rec.Seen) > 2*time.Second {
			t.Errorf("the store saw it %v ago", time.Since(rec.Seen))
		}
	})
}

// Touches that the store does not take gather up to a bound; those beyond it are made later.
func TestTouchesGatherToABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := replica(t, nil, func(o *session.Options) { o.MaxPerUser = 0 })
		var sessions []*session.Session
		for range session.MaxTouches + 50 {
			s, _ := f.signIn(f.grant(0), session.CreateOptions{})
			sessions = append(sessions, s)
		}
		time.Sleep(2 * time.Minute)
		stuck := make(chan struct{})
		f.store.set(func(op string) error {
			if op == "touch" {
				<-stuck
			}
			return nil
		}, nil)
		touched := func() (n int) {
			for _, s := range sessions {
				if rec, err := f.store.Get(t.Context(), s.Key()); err == nil && time.Since(rec.Seen) < 10*time.Second {
					n++
				}
			}
			return n
		}
		f.Touch(sessions[0])
		time.Sleep(time.Second) // the store has it, and does not answer
		for _, s := range sessions {
			f.Touch(s)
		}
		close(stuck)
		time.Sleep(time.Second)
		if n := touched(); n != session.MaxTouches+1 {
			t.Errorf("%d sessions touched, want %d", n, session.MaxTouches+1)
		}
		time.Sleep(5 * time.Second)
		for _, s := range sessions {
			f.Touch(s)
		}
		time.Sleep(time.Second)
		if n := touched(); n != len(sessions) {
			t.Errorf("%d sessions touched later, want %d", n, len(sessions))
		}
	})
}

// A173: a clock that is set back a little ends nothing, and what it wrote while it was ahead lives no longer than its lifetime.
func TestA173_ClockSteps(t *testing.T) {
	f := replica(t, nil, nil)
	f.watch()
	_, h := f.signIn(f.grant(time.Hour), session.CreateOptions{})
	f.Touch(f.mustLoad(h))
	for _, step := range []time.Duration{-time.Second, -20 * time.Second, 20 * time.Second, -30 * time.Second} {
		f.clock.advance(step)
		s := f.mustLoad(h)
		if got, err := f.Fresh(t.Context(), s, nil); err != nil || got != s {
			t.Errorf("step of %v: %v", step, err)
		}
		f.Touch(s)
	}
	f.clock.advance(6 * time.Hour) // ahead, and back again
	_, ahead := f.signIn(f.grant(0), session.CreateOptions{})
	f.Touch(f.mustLoad(ahead))
	f.clock.advance(-6 * time.Hour)
	f.clock.advance(18*time.Hour + time.Minute)
	_, err := f.load(ahead)
	if e := (*session.EndedError)(nil); !errors.As(err, &e) {
		t.Errorf("alive after its lifetime: %v", err)
	}
}
