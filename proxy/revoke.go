package proxy

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

// Limits of revoking in the background.
const (
	revokeTries   = 4
	revokeWait    = 2 * time.Second // before the second try; doubles
	maxRevokeWait = time.Minute
	maxRevoking   = 256 // at once; what comes on top is left to expire
)

// revoker revokes the tokens of ended sessions (RFC 7009) without making anybody wait. A provider that answers 503 still holds the token
// valid and is asked again, a few times.
type revoker struct {
	log *slog.Logger

	mu      sync.Mutex
	running int
	closed  bool
	wg      sync.WaitGroup
	stop    chan struct{} // closed by close: no further tries
}

func newRevoker(log *slog.Logger) *revoker { return &revoker{log: log, stop: make(chan struct{})} }

// revoke starts revoking a session's tokens. It ends by itself, or soon after close.
func (rv *revoker) revoke(ctx context.Context, pr *provider, s *session.Session) {
	rv.revokeTokens(ctx, pr, s.Handle(), s.Tokens)
}

// revokeTokens is revoke for the tokens of the session that logs call handle.
func (rv *revoker) revokeTokens(ctx context.Context, pr *provider, handle string, tokens session.Tokens) {
	rv.mu.Lock()
	defer rv.mu.Unlock()
	if rv.closed || rv.running >= maxRevoking {
		rv.log.WarnContext(ctx, "token not revoked", "provider", pr.name, "session", handle, "reason", "too many at once")
		return
	}
	rv.running++
	ctx = context.WithoutCancel(ctx)
	rv.wg.Go(func() {
		rv.try(ctx, pr, handle, tokens)
		rv.mu.Lock()
		rv.running--
		rv.mu.Unlock()
	})
}

func (rv *revoker) try(ctx context.Context, pr *provider, handle string, tokens session.Tokens) {
	wait := revokeWait
	var err error
	for try := range revokeTries {
		if err = pr.idp.Revoke(ctx, tokens); err == nil {
			return
		}
		var busy *idp.UnavailableError
		if !errors.As(err, &busy) || try == revokeTries-1 {
			break
		}
		if busy.RetryAfter > 0 {
			wait = busy.RetryAfter
		}
		timer := time.NewTimer(min(wait, maxRevokeWait))
		select {
		case <-timer.C:
		case <-rv.stop:
			timer.Stop()
			rv.log.WarnContext(ctx, "token not revoked", "provider", pr.name, "session", handle, "error", err)
			return
		}
		wait *= 2
	}
	rv.log.WarnContext(ctx, "token not revoked", "provider", pr.name, "session", handle, "error", err)
}

// close lets running calls finish and starts no further try.
func (rv *revoker) close(ctx context.Context) error {
	rv.mu.Lock()
	if !rv.closed {
		rv.closed = true
		close(rv.stop)
	}
	rv.mu.Unlock()
	done := make(chan struct{})
	go func() { rv.wg.Wait(); close(done) }() // ends with the last call, which is bounded
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discarded revokes tokens of a session that ended without its cookie. Those that are to outlive the person's sign-out do so when it
// was the provider that told of it (Back-Channel Logout 1.0 section 2.7). What a frame ordered, anyone could have: nothing is revoked for it.
func (p *Proxy) discarded(ctx context.Context, pr *provider, d session.Discarded) {
	offline := slices.Contains(strings.Fields(d.Tokens.Scope), "offline_access")
	if !pr.idp.CanRevoke() || offline && d.Reason == session.ReasonBackChannel || d.Reason == session.ReasonFrontChannel {
		return
	}
	p.revoking.revokeTokens(ctx, pr, d.Handle, d.Tokens)
}
