package idp

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"postern/session"
)

// RefreshFor spends the refresh token of prev for an access token for one resource (RFC 8707 section 2.2). The grant is prev with the refresh token
// that is good from now on; everything else of it stays.
//
// Its errors are [session.RefreshError]s, as those of [Provider.Refresh]. A refusal that is about the resource and leaves the refresh token good is a
// [ProtocolError], beside the grant to go on with.
func (p *Provider) RefreshFor(ctx context.Context, prev session.Grant, resource string) (session.Grant, session.Tokens, error) {
	if prev.Issuer != p.issuer { // its refresh token is not for this provider to see
		return session.Grant{}, session.Tokens{}, &session.RefreshError{Kind: session.Invalid, Err: errors.New("session is of another issuer")}
	}
	if prev.Tokens.Refresh == "" {
		return prev, session.Tokens{}, badAnswer("there is no refresh token to get one for a resource with")
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, session.Tokens{}, &session.RefreshError{Kind: session.Again, RetryAfter: healEvery, Err: err}
	}
	t, err := p.requestToken(ctx, m, url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {prev.Tokens.Refresh},
		"resource":      {resource},
	})
	next := prev
	// A refresh token that was sent has another time, also where the provider does not replace it: that tells one sending from the next.
	next.Tokens.Obtained = prev.Tokens.Obtained.Add(time.Millisecond)
	if refused, ok := err.(*tokenError); ok && refused.status < http.StatusInternalServerError && !refused.spent() && !refused.busy() {
		return next, session.Tokens{}, refusal(err)
	}
	if err != nil {
		return session.Grant{}, session.Tokens{}, p.refreshError(ctx, err)
	}
	next.Tokens.Refresh = cmp.Or(t.refresh, prev.Tokens.Refresh)
	t.refresh, t.id = "", ""
	t.bound()
	return next, t.tokens(session.Tokens{}), nil
}
