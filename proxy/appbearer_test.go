package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postern/session"
)

func TestAppTokenIsFetchedOnceAndRenewedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetched := 0
		a := &appToken{limit: time.Minute, now: time.Now, fetch: func(context.Context) (session.Tokens, error) {
			time.Sleep(time.Second)
			fetched++
			return session.Tokens{Access: fmt.Sprint("token-", fetched), Obtained: time.Now(), Expiry: time.Now().Add(10 * time.Minute)}, nil
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if token, err := a.token(t.Context()); token != "token-1" || err != nil {
					t.Errorf("%s %v", token, err)
				}
			})
		}
		wg.Wait()
		time.Sleep(9*time.Minute + 10*time.Second)
		began := time.Now()
		if token, _ := a.token(t.Context()); token != "token-1" || time.Since(began) != 0 { // due, and nobody waits
			t.Errorf("%s after %s", token, time.Since(began))
		}
		time.Sleep(2 * time.Second)
		if token, _ := a.token(t.Context()); token != "token-2" || fetched != 2 {
			t.Errorf("%s, fetched %d times", token, fetched)
		}
	})
}

func TestAppTokenWhoseFetchPanicsIsAFailureLikeAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		a := &appToken{limit: time.Minute, now: time.Now, fetch: func(context.Context) (session.Tokens, error) {
			if broken {
				panic("an answer that nobody thought of")
			}
			return session.Tokens{Access: "token"}, nil
		}}
		if _, err := a.token(t.Context()); !errors.Is(err, errNoAppToken) || !strings.Contains(err.Error(), "nobody thought of") {
			t.Error(err)
		}
		broken = false
		time.Sleep(appTokenRetry)
		if token, err := a.token(t.Context()); token != "token" {
			t.Errorf("%q, %v", token, err)
		}
	})
}

func TestAppTokenServesWhileValidThenFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, fetched := false, 0
		a := &appToken{limit: time.Minute, now: time.Now, fetch: func(context.Context) (session.Tokens, error) {
			fetched++
			if down {
				return session.Tokens{}, errors.New("down")
			}
			return session.Tokens{Access: fmt.Sprint("token-", fetched), Obtained: time.Now(), Expiry: time.Now().Add(10 * time.Minute)}, nil
		}}
		if _, err := a.token(t.Context()); err != nil {
			t.Fatal(err)
		}
		down = true
		time.Sleep(9*time.Minute + 30*time.Second)
		for range 100 {
			if token, err := a.token(t.Context()); token != "token-1" || err != nil {
				t.Fatalf("%s %v", token, err)
			}
			synctest.Wait()
		}
		if fetched != 2 {
			t.Errorf("%d fetches: the failure was not remembered", fetched)
		}
		time.Sleep(time.Minute)
		if _, err := a.token(t.Context()); !errors.Is(err, errNoAppToken) {
			t.Errorf("after the expiry: %v", err)
		}
		down = false
		time.Sleep(appTokenRetry)
		if token, err := a.token(t.Context()); err != nil || token == "token-1" {
			t.Errorf("healed: %s %v", token, err)
		}
	})
}

func TestAppTokenThatIsBornExpiredIsAnErrorNotALoop(t *testing.T) {
	fetched := 0
	a := &appToken{limit: time.Minute, now: time.Now, fetch: func(context.Context) (session.Tokens, error) {
		fetched++
		return session.Tokens{Access: "x", Obtained: time.Now(), Expiry: time.Now().Add(-time.Second)}, nil
	}}
	if _, err := a.token(t.Context()); !errors.Is(err, errNoAppToken) || fetched != 1 {
		t.Errorf("%v after %d fetches", err, fetched)
	}
}
