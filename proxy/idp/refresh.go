package idp

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"postern/session"
)

// maxChecks bounds what Refresh does after it has got tokens: until it returns, a rotated refresh token is in its hands alone.
const maxChecks = 5 * time.Second

// Refresh spends the refresh token of prev for new tokens and decides anew who the person is. Its errors are [session.RefreshError]s.
//
// Once the provider has given tokens, they are returned whatever else does not answer: when the new ID token cannot be verified because
// the keys cannot be had, or userinfo does not answer, the identity and ID token of prev stay. Only a new ID token that is bad, or
// someone else's, is an error then: [session.Invalid].
func (p *Provider) Refresh(ctx context.Context, prev session.Grant) (session.Grant, error) {
	if prev.Issuer != p.issuer { // its refresh token is not for this provider to see
		return session.Grant{}, &session.RefreshError{Kind: session.Invalid, Err: errors.New("session is of another issuer")}
	}
	if prev.Tokens.Refresh == "" {
		return session.Grant{}, &session.RefreshError{Kind: session.Rejected, Err: errors.New("session has no refresh token")}
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, &session.RefreshError{Kind: session.Again, RetryAfter: healEvery, Err: err}
	}
	t, err := p.requestToken(ctx, m, url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {prev.Tokens.Refresh},
	})
	if err != nil {
		return session.Grant{}, p.refreshError(ctx, err)
	}

	ctx, cancel := context.WithTimeout(ctx, maxChecks)
	defer cancel()
	next, err := p.renew(ctx, m, prev, t)
	if bad, ok := errors.AsType[*ProtocolError](err); ok {
		return session.Grant{}, &session.RefreshError{Kind: session.Invalid, Err: bad}
	}
	if err != nil {
		p.log.WarnContext(ctx, "refreshed, but claims could not be renewed", "err", err)
		t.id = ""
		next = prev
		next.Tokens = session.Tokens{}
	}
	return t.complete(next, prev.Tokens), nil
}

// renew evaluates the claims again.
func (p *Provider) renew(ctx context.Context, m *metadata, prev session.Grant, t tokenAnswer) (session.Grant, error) {
	var c claims
	if t.id != "" {
		var err error
		if c, err = p.verifyIDToken(ctx, m, t.id, t.access, expect{}); err != nil {
			return session.Grant{}, err
		}
		if c.text("sub") != prev.Subject { // OpenID Connect Core section 12.2
			return session.Grant{}, badAnswer("refreshed ID token: sub is another person's")
		}
	}
	next, err := p.identify(ctx, m, t, c, &prev, "")
	if err != nil {
		return session.Grant{}, err
	}
	if prev.Subject != "" && next.Subject != prev.Subject { // a session never becomes someone else's
		return session.Grant{}, badAnswer("refreshed tokens are another person's")
	}
	// Section 12.2: these are of the original authentication. The session is also known under its first sid.
	next.Issued = prev.Issued
	if !prev.AuthTime.IsZero() {
		next.AuthTime = prev.AuthTime
	}
	if prev.SID != "" {
		next.SID = prev.SID
	}
	if prev.ACR != "" {
		next.ACR = prev.ACR
	}
	return next, nil
}

// unverified returns the claims of a token that was verified before.
func unverified(token string) claims {
	_, rest, _ := strings.Cut(token, ".")
	part, _, _ := strings.Cut(rest, ".")
	if payload, err := base64.RawURLEncoding.DecodeString(part); err == nil {
		if c, err := parseObject(payload); err == nil {
			return c
		}
	}
	return claims{}
}

// refreshError says what a failed request means for the refresh token: whether the provider can have spent it.
func (p *Provider) refreshError(ctx context.Context, err error) *session.RefreshError {
	e := &session.RefreshError{Kind: session.Unknown, Err: err}
	if down, ok := errors.AsType[*UnavailableError](err); ok {
		e.RetryAfter = down.RetryAfter
		if !down.sent {
			e.Kind = session.Again
		}
		return e
	}
	refused, ok := err.(*tokenError)
	if !ok {
		return e // an answer that nobody understands
	}
	e.RetryAfter = refused.retryAfter
	switch {
	case refused.code == "server_error", refused.status == http.StatusRequestTimeout:
	case refused.spent():
		e.Kind = session.Rejected
	case refused.status == http.StatusServiceUnavailable && refused.retryAfter > 0:
		e.Kind = session.Again
	case refused.status < 500:
		// Refused before the token was looked at. That heals when someone mends the client's registration or secret, or the way there.
		e.Kind = session.Again
		if refused.status != http.StatusTooManyRequests && !refused.busy() {
			p.log.ErrorContext(ctx, "provider refuses to refresh tokens", "err", refused)
		}
	}
	return e
}
