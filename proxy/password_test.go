package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postern/proxy/idp"
)

func TestWrongPasswordsSlowDownTheGuesserAndLockNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g guesses
		try := func(user, network string, told guessOutcome) time.Duration {
			began := time.Now()
			done, ok := g.begin(t.Context(), user, network, time.Now())
			if !ok {
				t.Fatalf("%s from %s was refused", user, network)
			}
			done(told, time.Now())
			return time.Since(began)
		}
		var last time.Duration
		for i := range 12 {
			d := try("alice", "192.0.2.0/24", guessWrong)
			if d < last || i < 2 && d != 0 || d > maxGuessDelay {
				t.Errorf("guess %d waited %s after %s", i, d, last)
			}
			last = d
		}
		if last != maxGuessDelay {
			t.Errorf("after 12 guesses the wait is %s", last)
		}
		for range 500 {
			try("alice", fmt.Sprintf("198.51.%d.0/24", time.Now().UnixNano()%200), guessWrong)
		}
		if d := try("alice", "203.0.113.0/24", guessRight); d > maxUserDelay {
			t.Errorf("the person waits %s because others guessed", d)
		}
		if d := try("bob", "192.0.2.0/24", guessRight); d != 0 {
			t.Errorf("another user of the same network waits %s", d)
		}
		time.Sleep(guessMemory + time.Second)
		if d := try("alice", "192.0.2.0/24", guessRight); d != 0 {
			t.Errorf("after %s the wait is still %s", guessMemory, d)
		}
	})
}

func TestManyGuessesAtOnceAreNoWayAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g guesses
		began := time.Now()
		var refused atomic.Int64
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				if _, ok := g.begin(ctx, "alice", "192.0.2.0/24", began); !ok {
					refused.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := refused.Load(); n != 10-maxWaitingHere {
			t.Errorf("%d of 10 at once were refused, want %d", n, 10-maxWaitingHere)
		}
		if done, ok := g.begin(t.Context(), "alice", "203.0.113.0/24", began); !ok {
			t.Error("the person elsewhere was refused")
		} else {
			done(guessRight, began)
		}
		time.Sleep(time.Minute)
	})
}

func TestGuessCountersAreBounded(t *testing.T) {
	var g guesses
	now := time.Now()
	for i := range 3 * maxGuesses {
		done, _ := g.begin(t.Context(), fmt.Sprint("user", i), "n", now)
		done(guessWrong, now)
	}
	if n := len(g.now) + len(g.old); n > maxGuesses+2 {
		t.Errorf("%d counters", n)
	}
}

// Directories fold case and spaces: "Alice" and " alice" are no way to guess alice's password without delay.
func TestSpellingsOfOneUserShareTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g guesses
		began := time.Now()
		for _, user := range []string{"alice", "ALICE", "Alice", " alice", "alice ", "aLICE"} {
			done, ok := g.begin(t.Context(), user, "192.0.2.0/24", time.Now())
			if !ok {
				t.Fatal("refused")
			}
			done(guessWrong, time.Now())
		}
		if time.Since(began) == 0 {
			t.Error("six spellings of a name were tried without any delay")
		}
	})
}

// A provider that says "too many", or is down, has judged no guess.
func TestUnansweredGuessForgivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g guesses
		for _, told := range []guessOutcome{guessWrong, guessWrong, guessWrong, guessUnanswered} {
			done, _ := g.begin(t.Context(), "alice", "192.0.2.0/24", time.Now())
			done(told, time.Now())
		}
		began := time.Now()
		done, _ := g.begin(t.Context(), "alice", "192.0.2.0/24", began)
		if time.Since(began) != hereDelay(3) {
			t.Errorf("after an unanswered guess the wait is %s, want %s", time.Since(began), hereDelay(3))
		}
		done(guessRight, time.Now())
	})
	for _, c := range []struct {
		err  error
		want guessOutcome
	}{
		{nil, guessRight},
		{errors.Join(errNotStored, errors.New("store down")), guessRight},
		{&idp.AuthorizationError{Code: "invalid_grant"}, guessWrong},
		{&idp.AuthorizationError{Code: "invalid_scope"}, guessUnanswered},
		{&idp.UnavailableError{What: "token endpoint answered status 429"}, guessUnanswered},
		{context.DeadlineExceeded, guessUnanswered},
	} {
		if got := guessOutcomeOf(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
	if network(netip.Addr{}) == "" {
		t.Error("an unknown network shares the counter of everywhere")
	}
}
