package simtest

import (
	"crypto/rand"
	"maps"
	"net/http"
	"testing"
	"time"
)

// GearCode simulates an installation of GC.AUTH.
type GearCode struct {
	*Server
	nameless bool
}

const gearCodeLife = 899 * time.Second

// NewGearCode starts a GearCode that ends with the test.
//
//   - GET /oauth/authorize with redirect_uri, client_id, response_type=code.
//   - POST /oauth/token with a form: code, grant_type=authorization_code, client_id, client_secret, and resource_id, which is the client id.
//     The answer: a JWT (its claims: sub, unless [GearCode.LeaveOutSub] says otherwise, iat, exp, and [User].Members), token_type bearer, expires_in 899,
//     refresh_token.
//   - Refresh with a form: grant_type=refresh_token, refresh_token, client_id, resource_id, client_secret. The answer holds a new refresh token,
//     and the old one is spent.
func NewGearCode(t testing.TB, o Options) *GearCode {
	t.Helper()
	g := &GearCode{Server: start(t, "GearCode", o)}
	g.serves(
		endpoint{Authorize, http.MethodGet, "/oauth/authorize", g.authorize},
		endpoint{Token, http.MethodPost, "/oauth/token", g.token},
	)
	return g
}

// LeaveOutSub says whether tokens name nobody.
func (g *GearCode) LeaveOutSub(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nameless = on
}

func (g *GearCode) authorize(q *request) answer {
	p := q.query()
	p.need("redirect_uri", "client_id")
	p.needValue("response_type", "code")
	return g.codeFlow(p, nil)
}

func (g *GearCode) token(q *request) answer {
	p := q.form()
	client, ok := p.paramClient()
	switch p.Get("grant_type") {
	case "authorization_code":
		p.need("code")
		p.needResource()
		if q.faults > 0 {
			return p.invalid(ok)
		}
		allowed, ok := g.redeem(p, client)
		if !ok {
			return p.invalidGrant()
		}
		return g.granted(p, g.tokens(allowed))
	case "refresh_token":
		p.need("refresh_token")
		p.needResource()
		if q.faults > 0 {
			return p.invalid(ok)
		}
		r, ok := g.renew(p, client)
		if !ok {
			return p.invalidGrant()
		}
		r.spend()
		return g.granted(p, g.tokens(r.grant))
	default:
		return p.unknownGrant()
	}
}

// needResource notes a resource_id that is not the client's id.
func (p params) needResource() {
	p.need("resource_id")
	if id := p.Get("resource_id"); id != "" && id != p.Get("client_id") {
		p.q.wrong("resource_id must be the client id")
	}
}

func (g *GearCode) tokens(allowed grant) map[string]any {
	now := g.now()
	claims := map[string]any{}
	maps.Copy(claims, g.users[allowed.user].Members)
	maps.Copy(claims, map[string]any{"iat": now.Unix(), "exp": now.Add(gearCodeLife).Unix(), "jti": rand.Text()})
	if !g.nameless {
		claims["sub"] = allowed.user
	}
	return map[string]any{
		"access_token": g.newAccess(g.sign(claims), allowed, gearCodeLife), "token_type": "bearer", "expires_in": int(gearCodeLife.Seconds()),
		"refresh_token": g.newRefresh(allowed),
	}
}
