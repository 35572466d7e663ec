package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

// Limits of the application's own tokens.
const (
	appTokenAhead = time.Minute      // renewed so long before the expiry, at most a third of the life
	appTokenRetry = 10 * time.Second // after a failure
)

// appToken is a token for an application that is kept in the process: one of Postern's own client (RFC 6749 section 4.4) for each provider,
// scope and audience, or one that a person's token was traded for (exchanged.go). It is renewed ahead by one request at a time; while the old one
// is good nobody waits.
type appToken struct {
	fetch func(ctx context.Context) (session.Tokens, error)
	limit time.Duration // of one fetch
	now   func() time.Time

	mu      sync.Mutex
	tokens  session.Tokens
	flight  chan struct{} // closed when the fetch under way has ended; nil without one
	err     error         // of the last fetch
	blocked time.Time     // no fetch before that
}

// errNoAppToken says that there is no token that is good, and that none can be had now.
var errNoAppToken = errors.New("no application token")

// token is an access token that is good now.
func (a *appToken) token(ctx context.Context) (string, error) { return a.tokenBy(ctx, a.fetch) }

// tokenBy is token that has it fetched in the way that the caller says, if need be.
func (a *appToken) tokenBy(ctx context.Context, fetch func(ctx context.Context) (session.Tokens, error)) (string, error) {
	for {
		a.mu.Lock()
		now := a.now()
		good := a.tokens.Access != "" && (a.tokens.Expiry.IsZero() || now.Before(a.tokens.Expiry))
		if a.due(now) && a.flight == nil && !now.Before(a.blocked) {
			a.start(ctx, fetch)
		}
		token, flight, err := a.tokens.Access, a.flight, a.err
		a.mu.Unlock()
		switch {
		case good:
			return token, nil
		case flight == nil:
			return "", fmt.Errorf("%w: %w", errNoAppToken, err)
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// due tells whether a new token is wanted.
func (a *appToken) due(now time.Time) bool {
	switch {
	case a.tokens.Access == "":
		return true
	case a.tokens.Expiry.IsZero():
		return false
	}
	ahead := min(appTokenAhead, a.tokens.Expiry.Sub(a.tokens.Obtained)/3)
	return !now.Before(a.tokens.Expiry.Add(-ahead))
}

// start fetches a token on its own context: a client that leaves does not stop what others wait for. It ends within the limit.
func (a *appToken) start(ctx context.Context, fetch func(ctx context.Context) (session.Tokens, error)) {
	flight := make(chan struct{})
	a.flight = flight
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.limit)
	go func() {
		defer cancel()
		t, err := caught(ctx, fetch)
		a.mu.Lock()
		defer a.mu.Unlock()
		if err == nil && !t.Expiry.IsZero() && !a.now().Before(t.Expiry) {
			err = errors.New("the provider gave a token that has expired already")
		}
		a.err = err
		if err == nil {
			a.tokens = t
		} else {
			a.blocked = a.now().Add(retryAfter(err))
		}
		a.flight = nil
		close(flight)
	}()
}

// caught is what fetch gives. There is no server above start's goroutine to catch a panic, and one answer must not end the process.
func caught(ctx context.Context, fetch func(ctx context.Context) (session.Tokens, error)) (t session.Tokens, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return fetch(ctx)
}

// retryAfter is how long to leave a provider alone.
func retryAfter(err error) time.Duration {
	var u *idp.UnavailableError
	if errors.As(err, &u) && u.RetryAfter > 0 {
		return min(u.RetryAfter, time.Minute)
	}
	var later *session.RetryError
	if errors.As(err, &later) {
		return min(later.After, time.Minute)
	}
	return appTokenRetry
}

// idle reports whether there is nothing to keep: no token that is good, no fetch under way, no failure to remember.
func (a *appToken) idle(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.flight == nil && !now.Before(a.blocked) && !now.Before(a.tokens.Expiry)
}
