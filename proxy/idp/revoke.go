package idp

import (
	"context"
	"errors"
	"net/url"

	"postern/session"
)

// ErrNoRevocation says that the provider has no revocation endpoint.
var ErrNoRevocation = errors.New("provider has no revocation endpoint")

// CanRevoke reports whether the provider is known to have a revocation endpoint.
func (p *Provider) CanRevoke() bool {
	m := p.meta.Load()
	return m != nil && m.revoke != ""
}

// Revoke makes the provider forget tokens (RFC 7009): the refresh token, then the access token unless it has expired. It may be called
// again for the same tokens. Its errors are [ErrNoRevocation], [UnavailableError] when a token may still be valid and another try may
// help, and [ProtocolError] when none will.
func (p *Provider) Revoke(ctx context.Context, t session.Tokens) error {
	m, err := p.metadata(ctx)
	if err != nil {
		return err
	}
	if m.revoke == "" {
		return ErrNoRevocation
	}
	var failed error
	if t.Refresh != "" {
		failed = p.revoke(ctx, m, t.Refresh, "refresh_token")
		if _, ok := errors.AsType[*UnavailableError](failed); ok {
			return failed // what does not answer need not be asked at once again
		}
	}
	if t.Access == "" || !t.Expiry.IsZero() && p.now().After(t.Expiry.Add(p.leeway)) {
		return failed
	}
	err = p.revoke(ctx, m, t.Access, "access_token")
	if _, ok := errors.AsType[*UnavailableError](err); ok || failed == nil {
		return err
	}
	return failed
}

// revoke makes one request (RFC 7009 section 2.1).
func (p *Provider) revoke(ctx context.Context, m *metadata, token, hint string) error {
	const what = "revocation endpoint"
	req, err := p.clientRequest(m, what, m.revoke, url.Values{"token": {token}, "token_type_hint": {hint}})
	if err != nil {
		return err
	}
	a, err := p.callAsClient(ctx, what, req)
	if err != nil {
		return err
	}
	c, _ := parseAnswer(a) // most have no body
	refused := &tokenError{what: what, status: a.status, code: codeOf(c), retryAfter: a.retryAfter(p.now())}
	switch {
	case a.status >= 200 && a.status < 300 && refused.code == "": // section 2.2: also for a token that it does not know
		return nil
	case refused.code == "unsupported_token_type": // section 2.2.1: it has no way to revoke such tokens; they end by themselves
		return nil
	case refused.spent(): // against section 2.2, and as good
		return nil
	case refused.busy(): // section 2.2.1: after 503 the token is still valid
		return &UnavailableError{What: refused.Error(), RetryAfter: refused.retryAfter, sent: true}
	case a.status >= 300 && a.status < 400:
		refused.hint = ", a redirect to " + a.redirectHost() + ", which is not followed"
	}
	return &ProtocolError{What: refused.Error(), Code: refused.code}
}
