package idp

import (
	"cmp"
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	"postern/session"
)

// identify says who the person is: where their claims come from, and what is made of them. It is the same for a sign-in and for a
// refresh, which has the grant before it, prev. idToken are the claims of a verified ID token, nil where none came. typed is the name
// that the person typed into our own form, if there was one. The grant has no tokens, but their expiry if introspection told it.
//
// Flow:
//  1. the ID token's claims; those of the last one where a refresh brought none
//  2. over them, what `identity` names: userinfo, the token answer, the access token, introspection
//  3. beside them, the operator's own userinfo calls
//  4. the rules of `claims` → identity
//
// Its errors are [ProtocolError] and [UnavailableError].
func (p *Provider) identify(ctx context.Context, m *metadata, t tokenAnswer, idToken claims, prev *session.Grant, typed string) (session.Grant, error) {
	c, err := p.base(idToken, prev)
	if err != nil {
		return session.Grant{}, err
	}
	if c == nil {
		return kept(*prev), nil
	}
	g := session.Grant{Issuer: p.issuer}
	if p.o.OAuth2 == nil {
		// Whose session it is, is the ID token's word alone: no rule changes that.
		g.Subject, g.SID, g.ACR = c.text("sub"), p.protocol(ctx, c, "sid"), p.protocol(ctx, c, "acr")
		g.AuthTime, _ = c.time("auth_time")
	}
	if p.o.Identity == fromNothing {
		return g, nil
	}
	// Each call has its own limit; a person does not wait for the sum of them.
	bounded, cancel := context.WithTimeout(ctx, 2*p.timeout)
	defer cancel()
	if g.Tokens.Expiry, err = p.gather(bounded, m, t, c); err != nil {
		return session.Grant{}, err
	}
	if prev != nil && p.o.Grant == grantPassword {
		typed = prev.Identity.User // nobody types at a refresh
	}
	w, absent, err := p.describe(ctx, c, typed)
	switch {
	case err != nil:
		return session.Grant{}, err
	case w.User != "":
	case prev != nil && prev.Identity.User != "" && (p.o.Identity == fromTokenResponse || p.o.Identity == fromAccessToken):
		return kept(*prev), nil // the answer to a refresh need not say again whom the tokens are for
	case p.o.Identity == fromAccessToken && !p.mapping.user.written:
		// Nor need an access token at all: only an operator who wrote down where the name is counts on one.
	default:
		return session.Grant{}, badAnswer("identity: %s: no user name: claims.user: %s", p.o.Identity, absent)
	}
	g.Identity, g.Extra, g.Claims = w.Identity, w.extra, p.keep(ctx, c)
	if p.o.OAuth2 != nil {
		g.Subject = w.User
	}
	return g, nil
}

// Claimed is the grant, without tokens, of a person of whom the provider says c, as a sign-in makes it of what it has verified. Numbers in c are
// [json.Number]. It asks nobody, so c holds what all sources would say together.
func (p *Provider) Claimed(ctx context.Context, c map[string]any) (session.Grant, error) {
	all := claims(c)
	w, _, err := p.describe(ctx, all, "")
	if err != nil {
		return session.Grant{}, err
	}
	g := session.Grant{Issuer: p.issuer, Subject: cmp.Or(all.text("sub"), w.User), Identity: w.Identity, Extra: w.extra, Claims: p.keep(ctx, all), ACR: all.text("acr")}
	g.AuthTime, _ = all.time("auth_time")
	return g, nil
}

// base returns the claims of the ID token, which others are put over; none for a provider that has no ID tokens. They are nil when
// nothing new can be known, and prev stands.
func (p *Provider) base(idToken claims, prev *session.Grant) (claims, error) {
	switch {
	case p.o.OAuth2 != nil:
		return claims{}, nil
	case idToken != nil:
		return maps.Clone(idToken), nil
	case prev == nil:
		return nil, badAnswer("there is no ID token")
	case (p.o.Identity == fromIDToken || p.o.Identity == fromNothing) && len(p.o.UserinfoCalls) == 0:
		return nil, nil
	}
	c := unverified(prev.Tokens.ID) // it was verified when it came
	c["sub"] = prev.Subject
	return c, nil
}

// kept is a grant that stays as it was, but for the tokens.
func kept(g session.Grant) session.Grant {
	g.Tokens = session.Tokens{}
	return g
}

// complete adds the tokens to a grant that [Provider.identify] made. They last no longer than introspection said.
func (t tokenAnswer) complete(g session.Grant, old session.Tokens) session.Grant {
	until := g.Tokens.Expiry
	g.Tokens = t.tokens(old)
	if g.Tokens.Expiry.IsZero() || !until.IsZero() && until.Before(g.Tokens.Expiry) {
		g.Tokens.Expiry = until
	}
	return g
}

// gather adds to c what is said about the person elsewhere, and returns when the access token expires by introspection's word.
func (p *Provider) gather(ctx context.Context, m *metadata, t tokenAnswer, c claims) (expiry time.Time, err error) {
	more := claims{}
	switch p.o.Identity {
	case fromUserinfo:
		if m.userinfo != "" && !p.replacesUserinfo() {
			err = p.addUserinfo(ctx, m, t.access, c)
		}
	case fromTokenResponse:
		more = t.members
	case fromAccessToken:
		more, err = insideJWT(t.access)
	case fromIntrospection:
		more, err = p.introspect(ctx, m, t.access)
		expiry, _ = more.time("exp")
	}
	if err != nil {
		return time.Time{}, err
	}
	p.overlay(c, more)
	return expiry, p.addCalls(ctx, t.access, c)
}

// insideJWT returns the claims of an access token that is a JWT. Its signature is not checked, and often cannot be: the token came
// from the token endpoint itself, over TLS, in answer to this very request.
func insideJWT(token string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "=")); err == nil {
			if c, err := parseObject(payload); err == nil {
				return c, nil
			}
		}
	}
	return nil, badAnswer("identity: access_token: the access token is not a JWT that can be read: choose another identity, such as userinfo, introspection or none")
}

// replacesUserinfo reports whether one of the operator's own calls stands in for the userinfo endpoint.
func (p *Provider) replacesUserinfo() bool {
	return slices.ContainsFunc(p.o.UserinfoCalls, func(u UserinfoCall) bool { return u.As == "" })
}

// checkIdentity checks what says where claims come from, as far as it must agree with itself.
func (o Options) checkIdentity(ps *problems) {
	checkCalls(ps, o.UserinfoCalls)
	if o.Identity == fromNothing && len(o.Claims)+len(o.UserinfoCalls) > 0 {
		ps.add("identity: none takes no claims and no userinfo: say where the claims come from")
	}
}
