package idp

import (
	"context"
	"maps"
	"net/http"
)

// addUserinfo asks the userinfo endpoint (OpenID Connect Core section 5.3) and puts what it says over the claims of the ID token,
// except for those that say what the token is.
func (p *Provider) addUserinfo(ctx context.Context, m *metadata, access string, c claims) error {
	u, err := p.fetchUserinfo(ctx, m, access)
	if err != nil {
		return err
	}
	// Section 5.3.2: or someone else's claims would be taken for this person's.
	if sub := u.text("sub"); sub == "" || sub != c.text("sub") {
		return badAnswer("userinfo: sub is missing or another person's")
	}
	for _, name := range []string{"iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "auth_time", "acr", "amr", "sid"} {
		delete(u, name)
	}
	maps.DeleteFunc(u, func(_ string, v any) bool { return v == nil })
	// email_verified speaks of the address beside it, not of one from elsewhere.
	switch {
	case !u.has("email"):
		delete(u, "email_verified")
	case u.text("email") != c.text("email"):
		delete(c, "email_verified")
	}
	maps.Copy(c, u)
	return nil
}

// fetchUserinfo tells a provider that cannot answer ([UnavailableError]) from one that refuses or answers nonsense ([ProtocolError]).
func (p *Provider) fetchUserinfo(ctx context.Context, m *metadata, access string) (claims, error) {
	req, err := http.NewRequest(http.MethodGet, m.userinfo, nil)
	if err != nil {
		return nil, badAnswer("userinfo endpoint has a malformed address")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+access)
	a, err := p.call(ctx, "userinfo endpoint", req)
	if err != nil {
		return nil, err
	}
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return nil, badAnswer("userinfo endpoint refused the access token: status %d", a.status)
	case a.status != http.StatusOK:
		return nil, p.refused("userinfo endpoint", a)
	case a.mediaType() == "application/jwt":
		return nil, badAnswer("userinfo endpoint answered a signed token, which is not supported: register the client without userinfo_signed_response_alg")
	}
	u, err := parseObject(a.body)
	if err != nil {
		return nil, badAnswer("userinfo endpoint answered no JSON object (media type %s)", a.mediaType())
	}
	return u, nil
}
