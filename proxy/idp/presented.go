package idp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"postern/session"
)

const (
	maxPresented = 16 << 10 // bytes of a token that a client presents
	// introspected is how long an introspection without exp is believed.
	introspected = time.Minute
)

// Presented verifies an access token that a client presents as its own, and says whom it is for: a JWT of the provider (RFC 9068, or one
// without a type) that is meant for one of audience. Identity and claims are those of the token, by the rules of `claims`; the grant's
// only token is the presented one, with its scope, and Issued and Expiry are the token's own.
//
// Its errors are [ProtocolError] for a token that is not good, and [UnavailableError] when that cannot be known.
func (p *Provider) Presented(ctx context.Context, token string, audience []string) (session.Grant, error) {
	if len(token) > maxPresented {
		return session.Grant{}, badAnswer("access token is larger than %d bytes", maxPresented)
	}
	if p.o.OAuth2 != nil {
		return session.Grant{}, &UnavailableError{What: "the provider has no keys to verify tokens with: see bearer_tokens.introspect"}
	}
	// A token of someone else's must not make us ask for keys.
	if iss := unverified(token).text("iss"); iss != p.issuer {
		return session.Grant{}, badAnswer("access token: iss is missing or another issuer: %q", printable(brief(iss)))
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, err
	}
	header, payload, err := m.keys.verify(ctx, accessToken, token, signingAlgs()...)
	if err != nil {
		return session.Grant{}, err
	}
	c, err := parseObject(payload)
	if err != nil {
		return session.Grant{}, badAnswer("access token holds no JSON object")
	}
	if err := p.checkPresented(header, c, audience); err != nil {
		return session.Grant{}, err
	}
	// The library's own view of issuer and times must agree: it reads the payload in another way.
	_, err = oidc.NewVerifier(p.issuer, verified(payload), &oidc.Config{
		SkipClientIDCheck: true, SupportedSigningAlgs: signingAlgs(), Now: p.now,
	}).Verify(ctx, token)
	if err != nil {
		return session.Grant{}, badAnswer("access token: %s", printable(brief(err.Error())))
	}
	return p.grantOf(ctx, token, c)
}

// Introspected is [Provider.Presented] by the word of the provider's introspection endpoint (RFC 7662), for tokens that are no JWTs too. Without
// exp it is good for a minute.
func (p *Provider) Introspected(ctx context.Context, token string, audience []string) (session.Grant, error) {
	if len(token) > maxPresented {
		return session.Grant{}, badAnswer("access token is larger than %d bytes", maxPresented)
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return session.Grant{}, err
	}
	if m.introspect == "" {
		return session.Grant{}, &UnavailableError{What: "the provider has no introspection endpoint: see bearer_tokens.introspect"}
	}
	c, err := p.askAbout(ctx, m, token)
	if bad, ok := errors.AsType[*ProtocolError](err); ok { // nothing about the token
		return session.Grant{}, &UnavailableError{What: bad.What, sent: true}
	}
	if err != nil {
		return session.Grant{}, err
	}
	if err := p.checkActive(c); err != nil {
		return session.Grant{}, err
	}
	if c.has("iss") && p.o.OAuth2 == nil && c["iss"] != p.issuer {
		return session.Grant{}, badAnswer("access token: iss is another issuer: %q", printable(brief(c.text("iss"))))
	}
	if err := checkPurpose(c); err != nil {
		return session.Grant{}, err
	}
	if err := checkMeantFor(c, audience); err != nil {
		return session.Grant{}, err
	}
	return p.grantOf(ctx, token, c)
}

// checkPresented checks header and claims of a JWT (RFC 9068 section 4, RFC 8725).
func (p *Provider) checkPresented(header jose.Header, c claims, audience []string) error {
	if _, ok := header.ExtraHeaders["crit"]; ok { // RFC 7515 section 4.1.11: there is none that we understand
		return badAnswer("access token: crit is not accepted")
	}
	own, err := isTyped(header)
	if err != nil {
		return err
	}
	if err := checkPurpose(c); err != nil {
		return err
	}
	if c["iss"] != p.issuer {
		return badAnswer("access token: iss is missing or another issuer: %q", printable(brief(c.text("iss"))))
	}
	if sub := c.text("sub"); !clean(sub) || len(sub) > maxSubject {
		return badAnswer("access token: sub is missing, longer than %d bytes or holds control characters", maxSubject)
	}
	if err := checkMeantFor(c, audience); err != nil {
		return err
	}
	// The audience of an ID token is its client. One that a configuration accepts must look like an access token in another way.
	if !own && slices.Contains(c.audience(), any(p.clientID)) && !c.has("scope") && !c.has("scp") {
		return badAnswer("access token has neither a type nor a scope: it may be an ID token")
	}
	return p.checkWindow(accessToken, c)
}

// isTyped reports whether a token says that it is an access token (RFC 9068 section 2.1). One that says nothing, or JWT, may be one; any other is not.
func isTyped(header jose.Header) (bool, error) {
	typ, ok := header.ExtraHeaders[jose.HeaderType]
	if !ok {
		return false, nil
	}
	s, _ := typ.(string)
	switch strings.TrimPrefix(strings.ToLower(s), "application/") {
	case "at+jwt":
		return true, nil
	case "jwt":
		return false, nil
	}
	return false, badAnswer("access token is a token of another type (typ): %q", printable(brief(s)))
}

// checkPurpose refuses what a provider signs, or calls active, that is no access token to be presented by whoever has it.
func checkPurpose(c claims) error {
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} { // OpenID Connect Core sections 2 and 3.3.2.11
		if _, ok := c[name]; ok {
			return badAnswer("access token has %s, as ID tokens do", name)
		}
	}
	if _, ok := c["events"]; ok { // RFC 8417: logout tokens and their like
		return badAnswer("access token has events, as logout tokens do")
	}
	for _, name := range []string{"typ", "token_type"} { // Keycloak's word inside the token; RFC 7662 section 2.2
		switch typ := strings.ToLower(c.text(name)); typ {
		case "id", "refresh", "offline", "logout", "refresh_token", "id_token":
			return badAnswer("access token is a token of another type (%s): %q", name, typ)
		}
	}
	if c.has("cnf") { // RFC 7800: bound to a key that the sender has not shown here (RFC 8705, RFC 9449 section 7.1)
		return badAnswer("access token is bound to a key of its sender, which is not supported")
	}
	return nil
}

// checkMeantFor wants one of audience in aud: a token for another application must not open this one.
func checkMeantFor(c claims, audience []string) error {
	for _, a := range c.audience() {
		if s, ok := a.(string); ok && s != "" && slices.Contains(audience, s) {
			return nil
		}
	}
	return badAnswer("access token: aud is missing or names none of the route's audiences")
}

// grantOf makes a grant of the claims of a presented token that were checked.
func (p *Provider) grantOf(ctx context.Context, token string, c claims) (session.Grant, error) {
	now := p.now()
	g := session.Grant{Issuer: p.issuer, Subject: c.text("sub"), ACR: p.protocol(ctx, c, "acr")}
	g.AuthTime, _ = c.time("auth_time")
	g.Issued, _ = c.time("iat")
	g.Tokens = session.Tokens{Access: token, Obtained: now, Scope: scopeOf(c["scope"])}
	if g.Tokens.Scope == "" {
		g.Tokens.Scope = scopeOf(c["scp"]) // Entra and Okta
	}
	var ok bool
	if g.Tokens.Expiry, ok = c.time("exp"); !ok {
		g.Tokens.Expiry = now.Add(introspected)
	}
	if !now.Before(g.Tokens.Expiry) { // no leeway: clocks that differ cost the client a token, longer use could cost more
		return session.Grant{}, badAnswer("access token has expired")
	}
	if p.o.Identity == fromNothing {
		return g, nil
	}
	w, absent, err := p.describe(ctx, c, "")
	switch {
	case err != nil:
		return session.Grant{}, err
	case w.User == "":
		return session.Grant{}, badAnswer("access token: no user name: claims.user: %s", absent)
	}
	g.Identity, g.Extra, g.Claims = w.Identity, w.extra, p.keep(ctx, c)
	if p.o.OAuth2 != nil {
		g.Subject = w.User
	}
	return g, nil
}
