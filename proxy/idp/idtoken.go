package idp

import (
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// logoutEvent is the event that makes a token a logout token (OpenID Connect Back-Channel Logout section 2.4).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// The tokens that are verified here, as errors name them.
const (
	idToken     = "ID token"
	logoutToken = "logout token"
	accessToken = "access token"
)

// expect is what an ID token must hold beyond what every one must.
type expect struct {
	nonce  string        // empty: not looked at
	maxAge time.Duration // since it was issued; 0: any

	acr     []string      // of which one; none: any
	authAge time.Duration // since the person signed in; 0: any
}

// stepUp tells whether it matters how or when the person signed in.
func (e expect) stepUp() bool { return len(e.acr) > 0 || e.authAge > 0 }

// verifyIDToken checks everything about an ID token (OpenID Connect Core section 3.1.3.7) and returns its claims. Its errors are
// [ProtocolError] for a bad token and [UnavailableError] when the provider's keys could not be had.
func (p *Provider) verifyIDToken(ctx context.Context, m *metadata, token, access string, want expect) (claims, error) {
	// Signature first: nothing else in the token means anything before.
	header, payload, err := m.keys.verify(ctx, idToken, token, p.alg)
	if err != nil {
		return nil, err
	}
	c, err := parseObject(payload)
	if err != nil {
		return nil, badAnswer("ID token holds no JSON object")
	}
	if err := notAnotherToken(header, c); err != nil {
		return nil, err
	}
	if err := p.checkClaims(c, want); err != nil {
		return nil, err
	}
	// The library's own view of issuer, audience and times must agree: it reads the payload in another way.
	now := p.now()
	t, err := oidc.NewVerifier(p.issuer, verified(payload), &oidc.Config{
		ClientID:             p.clientID,
		SupportedSigningAlgs: []string{p.alg},
		Now:                  func() time.Time { return now.Add(-p.leeway) },
	}).Verify(ctx, token)
	if err != nil {
		return nil, badAnswer("ID token: %s", printable(brief(err.Error())))
	}
	// OpenID Connect Core section 3.1.3.8: optional in this flow, binding when it is there.
	if c.has("at_hash") && (t.AccessTokenHash != c["at_hash"] || t.VerifyAccessToken(access) != nil) {
		return nil, badAnswer("ID token: at_hash does not belong to the access token")
	}
	return c, nil
}

// verified is a key set for a token whose signature was verified already.
type verified []byte

// VerifySignature returns the payload.
func (v verified) VerifySignature(context.Context, string) ([]byte, error) { return v, nil }

// notAnotherToken refuses tokens that the provider signs with the same keys for other purposes (RFC 8725 section 3.11). ID tokens have
// no type of their own, so every explicit one is another's: logout+jwt, at+jwt, secevent+jwt.
func notAnotherToken(header jose.Header, c claims) error {
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok {
		s, _ := typ.(string)
		if s = strings.TrimPrefix(strings.ToLower(s), "application/"); s == "" || strings.HasSuffix(s, "+jwt") {
			return badAnswer("ID token is a token of another type (typ)")
		}
	}
	if events, ok := c["events"].(map[string]any); ok {
		if _, ok := events[logoutEvent]; ok {
			return badAnswer("ID token is a logout token")
		}
	}
	return nil
}

// checkClaims checks the claims that the protocol knows.
func (p *Provider) checkClaims(c claims, want expect) error {
	if c["iss"] != p.issuer {
		return badAnswer("ID token: iss is missing or another issuer: %q", printable(brief(c.text("iss"))))
	}
	if sub := c.text("sub"); !clean(sub) || len(sub) > maxSubject {
		return badAnswer("ID token: sub is missing, longer than %d bytes or holds control characters", maxSubject)
	}
	if err := p.checkAudience(idToken, c); err != nil {
		return err
	}
	if err := p.checkTimes(idToken, c, want.maxAge); err != nil {
		return err
	}
	// Binds the token to this browser's attempt: a code stolen from another one brings another nonce.
	if want.nonce != "" && subtle.ConstantTimeCompare([]byte(c.text("nonce")), []byte(want.nonce)) != 1 {
		return badAnswer("ID token: nonce is missing or of another attempt")
	}
	return nil
}

// checkStrength checks how and when the person signed in, where that was asked for (OpenID Connect Core section 3.1.3.7, points 12 and 13). A
// provider may pass over both parameters, so that only what it says afterwards counts.
func (p *Provider) checkStrength(c claims, want expect) error {
	if len(want.acr) > 0 && !slices.Contains(want.acr, c.text("acr")) {
		return &InsufficientError{What: fmt.Sprintf("ID token: acr is missing or none of those asked for: %q", printable(brief(c.text("acr"))))}
	}
	if want.authAge == 0 {
		return nil
	}
	signedIn, ok := c.time("auth_time")
	if !ok {
		return &InsufficientError{What: "ID token: auth_time is missing, which max_age asks for"}
	}
	switch age := p.now().Sub(signedIn); {
	case age < -p.leeway:
		return badAnswer("ID token: auth_time is %v ahead of this clock", -age.Round(time.Second))
	case age > want.authAge+p.leeway:
		return &InsufficientError{Stale: true, What: fmt.Sprintf("ID token: auth_time is %v ago by this clock, and max_age is %v", age.Round(time.Second), want.authAge)}
	}
	return nil
}

// checkAudience accepts tokens for this client alone, and for those beside it that the operator trusts: another audience could use the
// token to pass for this client (OpenID Connect Core section 3.1.3.7, points 3 to 5).
func (p *Provider) checkAudience(what string, c claims) error {
	audience := c.audience()
	if len(audience) == 0 {
		return badAnswer("%s: aud is empty", what)
	}
	ours := false
	for _, a := range audience {
		s, _ := a.(string) // empty is neither of ours
		switch {
		case s == p.clientID:
			ours = true
		case !slices.Contains(p.o.ExtraAudiences, s):
			return badAnswer("%s: aud is missing or names another client: %q (see extra_audiences)", what, printable(brief(s)))
		}
	}
	if !ours {
		return badAnswer("%s: aud does not name this client", what)
	}
	if c.has("azp") && c["azp"] != p.clientID {
		return badAnswer("%s: azp is another client: %q", what, printable(brief(c.text("azp"))))
	}
	return nil
}

// checkTimes checks exp, iat and nbf.
func (p *Provider) checkTimes(what string, c claims, maxAge time.Duration) error {
	if err := p.checkWindow(what, c); err != nil {
		return err
	}
	iat, ok := c.time("iat")
	if !ok {
		return badAnswer("%s: iat is missing or not a date", what)
	}
	if age := p.now().Sub(iat); maxAge > 0 && age > maxAge+p.leeway {
		return badAnswer("%s: iat is %v ago by this clock", what, age.Round(time.Second))
	}
	return nil
}

// checkWindow checks exp, which must be there, and the other times where they are.
func (p *Provider) checkWindow(what string, c claims) error {
	now := p.now()
	exp, ok := c.time("exp")
	if !ok {
		return badAnswer("%s: exp is missing or not a date", what)
	}
	if !now.Before(exp.Add(p.leeway)) {
		return badAnswer("%s has expired: %v ago by this clock", what, now.Sub(exp).Round(time.Second))
	}
	if c.has("iat") {
		iat, ok := c.time("iat")
		if !ok {
			return badAnswer("%s: iat is missing or not a date", what)
		}
		if iat.After(now.Add(p.leeway)) {
			return badAnswer("%s: iat is %v ahead of this clock", what, iat.Sub(now).Round(time.Second))
		}
	}
	if c.has("nbf") {
		if nbf, ok := c.time("nbf"); !ok || nbf.After(now.Add(p.leeway)) {
			return badAnswer("%s: nbf is ahead of this clock, or not a date", what)
		}
	}
	if c.has("auth_time") {
		if _, ok := c.time("auth_time"); !ok {
			return badAnswer("%s: auth_time is not a date", what)
		}
	}
	return nil
}
