package idp

import (
	"cmp"
	"context"
	"net/url"
	"time"

	"postern/session"
)

// The names of RFC 8693 section 3 and RFC 7523.
const (
	grantExchange  = "urn:ietf:params:oauth:grant-type:token-exchange"
	grantJWTBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	typeAccess     = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT        = "urn:ietf:params:oauth:token-type:jwt"
)

const (
	maxExchanged     = time.Hour       // that an exchanged token is used, whatever it says
	defaultExchanged = 5 * time.Minute // where nothing says how long it lives
)

// Target is what a person's token is exchanged for. Empty members are not sent.
type Target struct {
	// OnBehalfOf asks as Entra wants it (RFC 7523's grant with requested_token_use=on_behalf_of), in place of RFC 8693.
	OnBehalfOf                bool
	Audience, Scope, Resource string
}

// Exchange trades a person's access token for one that another application accepts. The result is an access token alone, with an expiry.
// Its errors are [ProtocolError], with the provider's error code, and [UnavailableError].
func (p *Provider) Exchange(ctx context.Context, access string, to Target) (session.Tokens, error) {
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Tokens{}, err
	}
	t, err := p.requestToken(ctx, m, to.form(access))
	if err != nil {
		return session.Tokens{}, refusal(err)
	}
	if err := to.check(t.members); err != nil {
		return session.Tokens{}, err
	}
	t.bound()
	t.refresh, t.id = "", "" // the person's session is what is prolonged
	return t.tokens(session.Tokens{Scope: to.Scope}), nil
}

// bound gives a token that is kept beside a session a lifetime, and not too long a one.
func (t *tokenAnswer) bound() {
	t.lifetime = min(cmp.Or(t.lifetime, defaultExchanged), maxExchanged)
}

func (to Target) form(access string) url.Values {
	form := url.Values{}
	if to.OnBehalfOf {
		form.Set("grant_type", grantJWTBearer)
		form.Set("assertion", access)
		form.Set("requested_token_use", "on_behalf_of")
	} else {
		form.Set("grant_type", grantExchange)
		form.Set("subject_token", access)
		form.Set("subject_token_type", typeAccess)
		form.Set("requested_token_type", typeAccess)
	}
	for name, value := range map[string]string{"audience": to.Audience, "scope": to.Scope, "resource": to.Resource} {
		if value != "" {
			form.Set(name, value)
		}
	}
	return form
}

// check wants an access token (RFC 8693 section 2.2.1): something of another type, as an ID token or a refresh token, must not be sent as one.
// token_type N_A, which is for those, has been refused like every one but Bearer.
func (to Target) check(answer claims) error {
	if to.OnBehalfOf {
		return nil
	}
	switch answer["issued_token_type"] {
	case typeAccess, typeJWT:
	default:
		return badAnswer("token exchange: issued_token_type is missing or no access token: %q", printable(brief(answer.text("issued_token_type"))))
	}
	if !answer.has("token_type") {
		return badAnswer("token exchange: token_type is missing")
	}
	return nil
}
