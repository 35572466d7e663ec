package idp

import (
	"context"
	"net/http"
	"net/url"
)

// introspect asks the provider what an access token means that it gave us (RFC 7662).
func (p *Provider) introspect(ctx context.Context, m *metadata, access string) (claims, error) {
	c, err := p.askAbout(ctx, m, access)
	if err != nil {
		return nil, err
	}
	if err := p.checkActive(c); err != nil {
		return nil, err
	}
	return c, nil
}

// askAbout makes an introspection request and reads its answer.
func (p *Provider) askAbout(ctx context.Context, m *metadata, access string) (claims, error) {
	const what = "introspection endpoint"
	req, err := p.clientRequest(m, what, m.introspect, url.Values{"token": {access}, "token_type_hint": {"access_token"}})
	if err != nil {
		return nil, err
	}
	a, err := p.callAsClient(ctx, what, req)
	if err != nil {
		return nil, err
	}
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		return nil, badAnswer("%s refused this client: status %d: see client_id, client_secret and client_auth", what, a.status)
	case a.status != http.StatusOK:
		return nil, p.refused(what, a)
	}
	c, err := parseObject(a.body)
	if err != nil {
		return nil, badAnswer("%s answered no JSON object (media type %s)", what, a.mediaType())
	}
	return c, nil
}

// checkActive checks what introspection says about whether a token is good now.
func (p *Provider) checkActive(c claims) error {
	const what = "introspection endpoint"
	// Section 2.2: a boolean. The text "false" must not be true because it is something.
	if c["active"] != true {
		return badAnswer("%s says that the access token is not active", what)
	}
	if c.has("exp") {
		if exp, ok := c.time("exp"); !ok || !p.now().Before(exp.Add(p.leeway)) {
			return badAnswer("%s says that the access token has expired, or its exp is not a date", what)
		}
	}
	if c.has("nbf") {
		if nbf, ok := c.time("nbf"); !ok || nbf.After(p.now().Add(p.leeway)) {
			return badAnswer("%s says that the access token is not valid yet, or its nbf is not a date", what)
		}
	}
	return nil
}
