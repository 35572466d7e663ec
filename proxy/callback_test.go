package proxy

import (
	"errors"
	"testing"
	"testing/synctest"
)

// Who sent the same callback as one that panicked must not wait for ever.
func TestPanicInACallbackFreesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used usedAttempts
		f, first := used.claim("id")
		if !first {
			t.Fatal("not first")
		}
		second, _ := used.claim("id")
		waited := make(chan error)
		go func() {
			if !second.wait(t.Context()) {
				waited <- errors.New("no outcome")
			}
			waited <- second.outcome.err
		}()
		func() {
			defer func() { _ = recover() }()
			used.use("id", f, func() outcome { panic("broken") })
		}()
		if err := <-waited; err == nil {
			t.Error("the other one was signed in")
		}
		if late, first := used.claim("id"); first || late.wait(t.Context()) {
			t.Error("the attempt can be used again")
		}
	})
}
