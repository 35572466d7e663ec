package idp

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	maxLogoutToken = 16 << 10 // bytes; real ones have one
	maxTokenID     = 1 << 10  // bytes of jti

	// maxLogoutAge bounds how late a logout token may come, whatever its exp says: for so long its jti has to be remembered.
	maxLogoutAge = 24 * time.Hour
)

// Logout is what a verified logout token orders: the end of all sessions of this client that have each of SID and Subject that is
// set, and that the provider began at Issued at the latest. A later sign-in is not meant.
type Logout struct {
	// SID and Subject are the provider's names of its session and of the person. One of them may be empty.
	SID, Subject string
	// ID is the token's own name (jti). A token is carried out once.
	ID string
	// Issued is when the provider made the token, by its clock.
	Issued time.Time
	// Expires is when the token is refused in any case, so that its ID need not be remembered any longer.
	Expires time.Time
}

// Addressed reports whether a logout token claims to be of this provider and for this client. Nothing is verified: it only tells which
// provider is to verify it.
func (p *Provider) Addressed(token string) bool {
	if p.o.OAuth2 != nil || len(token) > maxLogoutToken {
		return false
	}
	c := unverified(token)
	return c["iss"] == p.issuer && slices.Contains(c.audience(), any(p.clientID))
}

// VerifyLogout checks everything about a logout token (OpenID Connect Back-Channel Logout section 2.6) but whether it came before. Its
// errors are [ProtocolError] for a bad token and [UnavailableError] when the provider's keys could not be had.
func (p *Provider) VerifyLogout(ctx context.Context, token string) (Logout, error) {
	if p.o.OAuth2 != nil {
		return Logout{}, badAnswer("logout token for a provider that is not OpenID Connect")
	}
	if len(token) > maxLogoutToken {
		return Logout{}, badAnswer("logout token is larger than %d bytes", maxLogoutToken)
	}
	m, err := p.metadata(ctx)
	if err != nil {
		return Logout{}, err
	}
	header, payload, err := m.keys.verify(ctx, logoutToken, token, p.alg)
	if err != nil {
		return Logout{}, err
	}
	c, err := parseObject(payload)
	if err != nil {
		return Logout{}, badAnswer("logout token holds no JSON object")
	}
	if err := isLogoutToken(header, c); err != nil {
		return Logout{}, err
	}
	if c["iss"] != p.issuer {
		return Logout{}, badAnswer("logout token: iss is missing or another issuer: %q", printable(brief(c.text("iss"))))
	}
	if err := p.checkAudience(logoutToken, c); err != nil {
		return Logout{}, err
	}
	if err := p.checkTimes(logoutToken, c, maxLogoutAge); err != nil {
		return Logout{}, err
	}
	l, err := p.readLogout(c)
	if err != nil {
		return Logout{}, err
	}
	// The library's own view must agree: it reads the payload in another way.
	now := p.now()
	t, err := oidc.NewVerifier(p.issuer, verified(payload), &oidc.Config{
		ClientID:             p.clientID,
		SupportedSigningAlgs: []string{p.alg},
		Now:                  func() time.Time { return now.Add(-p.leeway) },
	}).VerifyLogout(ctx, token)
	if err != nil {
		return Logout{}, badAnswer("logout token: %s", printable(brief(err.Error())))
	}
	if t.SessionID != l.SID || t.Subject != l.Subject || t.TokenID != l.ID {
		return Logout{}, badAnswer("logout token names sid, sub or jti twice")
	}
	return l, nil
}

// isLogoutToken tells a logout token from what else the provider signs with the same keys (section 2.4; RFC 8725 section 3.11): an ID
// token has a nonce or no event. A type of its own is recommended, not required; JWT says nothing.
func isLogoutToken(header jose.Header, c claims) error {
	if typ, ok := header.ExtraHeaders[jose.HeaderType]; ok {
		s, _ := typ.(string)
		if s = strings.TrimPrefix(strings.ToLower(s), "application/"); s != "logout+jwt" && s != "jwt" {
			return badAnswer("logout token is a token of another type (typ): %q", printable(brief(s)))
		}
	}
	events, _ := c["events"].(map[string]any)
	if _, ok := events[logoutEvent].(map[string]any); !ok {
		return badAnswer("logout token: events is no object that holds %s as an object", logoutEvent)
	}
	if _, ok := c["nonce"]; ok { // null is one, too
		return badAnswer("logout token has a nonce, as ID tokens do")
	}
	return nil
}

// readLogout reads whom a logout token is about. The claims were checked otherwise.
func (p *Provider) readLogout(c claims) (Logout, error) {
	l := Logout{SID: c.text("sid"), Subject: c.text("sub"), ID: c.text("jti")}
	for _, n := range []struct {
		claim, value string
		most         int
	}{{"sid", l.SID, maxClaim}, {"sub", l.Subject, maxSubject}, {"jti", l.ID, maxTokenID}} {
		// One that cannot be read is not the same as none: more sessions would end than were meant.
		if c.has(n.claim) && (!clean(n.value) || len(n.value) > n.most) {
			return Logout{}, badAnswer("logout token: %s is no text, empty, longer than %d bytes or holds control characters", n.claim, n.most)
		}
	}
	if l.SID == "" && l.Subject == "" {
		return Logout{}, badAnswer("logout token has neither sid nor sub")
	}
	if l.ID == "" {
		return Logout{}, badAnswer("logout token: jti is missing")
	}
	expires, _ := c.time("exp")
	l.Issued, _ = c.time("iat")
	if last := l.Issued.Add(maxLogoutAge); expires.After(last) {
		expires = last
	}
	l.Expires = expires.Add(p.leeway)
	return l, nil
}
