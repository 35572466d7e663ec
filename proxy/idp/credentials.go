package idp

import (
	"context"
	"net/url"

	"postern/session"
)

// ClientCredentials asks for a token of the client's own (RFC 6749 section 4.4): nobody signs in. scope and audience may be empty. Its
// errors are [ProtocolError] and [UnavailableError].
func (p *Provider) ClientCredentials(ctx context.Context, scope, audience string) (session.Tokens, error) {
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Tokens{}, err
	}
	if m.clientAuth == authNone { // anyone could ask for such a token
		return session.Tokens{}, badAnswer("client_credentials needs a client that authenticates: see client_secret and client_auth")
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	for name, value := range map[string]string{"scope": scope, "audience": audience} {
		if value != "" {
			form.Set(name, value)
		}
	}
	t, err := p.requestToken(ctx, m, form)
	if err != nil {
		return session.Tokens{}, codeError(err)
	}
	// RFC 6749 section 4.4.3: a refresh token should not be there, and is not needed. Nor is there a person whom an ID token could name.
	t.refresh, t.id = "", ""
	return t.tokens(session.Tokens{Scope: scope}), nil
}
