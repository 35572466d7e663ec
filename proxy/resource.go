package proxy

import (
	"context"
	"errors"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

// resourceTries is how many refreshes of one session by others a token for a resource waits for.
const resourceTries = 20

// forResource gets an access token for one resource (RFC 8707) by the refresh token of s. That is a refresh like any other: one flight for each session,
// one lease across replicas, and the new refresh token is written first. So none is sent twice or lost. The session keeps the access token that it has.
func (pr *provider) forResource(ctx context.Context, s *session.Session, resource string) (session.Tokens, error) {
	for range resourceTries {
		var got session.Tokens
		var refused error
		next, err := pr.sessions.Refresh(ctx, s, func(ctx context.Context, s *session.Session) (session.Grant, error) {
			if pr.mustRefresh(s) { // others wait for that, and they get what this flight brings
				return pr.refresh(ctx, s)
			}
			g, tokens, err := pr.idp.RefreshFor(ctx, s.Grant, resource)
			var bad *idp.ProtocolError
			if errors.As(err, &bad) { // the session is as good as before
				refused = err
				return g, nil
			}
			pr.refreshed(ctx, s, err)
			got = tokens
			return g, err
		})
		switch {
		case err != nil:
			return session.Tokens{}, err
		case refused != nil:
			return session.Tokens{}, refused
		case got.Access != "":
			return got, nil
		case next.Tokens.Refresh == "":
			return session.Tokens{}, &idp.ProtocolError{What: "there is no refresh token to get one for a resource with"}
		}
		s = next // what ran was somebody else's
	}
	return session.Tokens{}, &idp.UnavailableError{What: "the session is being refreshed by others", RetryAfter: time.Second}
}

// mustRefresh tells whether the session's own access token would be too old by the end of a flight.
func (pr *provider) mustRefresh(s *session.Session) bool {
	now, expiry := pr.now(), s.Tokens.Expiry
	due := s.RefreshDue()
	return !due.IsZero() && !now.Before(due) || !expiry.IsZero() && expiry.Sub(now) < min(finishTimeout, expiry.Sub(s.Tokens.Obtained)/3)
}
