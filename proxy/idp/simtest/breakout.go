package simtest

import (
	"crypto/subtle"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// BreakOut simulates an installation of BreakOut.
type BreakOut struct {
	*Server
	keeps bool // the refresh token goes back with a refresh
}

const breakOutLife = 42961 * time.Second

// NewBreakOut starts a BreakOut that ends with the test.
//
//   - POST /oauth/token, the client by HTTP Basic, Accept: application/json, and a form: username, password, grant_type=password,
//     scope=read+write. The answer: access_token, token_type bearer, refresh_token, expires_in 42961, scope "read write".
//   - GET /me/ with the token describes the person by [User].Members; without any by nothing but a number.
//   - Refresh: HTTP Basic, and a form: refresh_token, grant_type=refresh_token. The refresh token goes on working; the answer does not
//     hold it, unless [BreakOut.SendRefreshTokenAgain] says so.
//
// A wrong password is invalid_grant, and no protocol error.
func NewBreakOut(t testing.TB, o Options) *BreakOut {
	t.Helper()
	b := &BreakOut{Server: start(t, "BreakOut", o)}
	b.serves(
		endpoint{Token, http.MethodPost, "/oauth/token", b.token},
		endpoint{Me, http.MethodGet, "/me/", b.me},
	)
	return b
}

// SendRefreshTokenAgain says whether the answer to a refresh holds the same refresh token, or none.
func (b *BreakOut) SendRefreshTokenAgain(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keeps = on
}

func (b *BreakOut) token(q *request) answer {
	p := q.form()
	client, ok := p.basicClient()
	switch p.Get("grant_type") {
	case "password":
		p.need("username", "password", "scope")
		p.plusSpaces()
		scope := b.scopes(p, client)
		if !acceptsJSON(q) {
			q.wrong("Accept must be application/json")
		}
		if q.faults > 0 {
			return p.invalid(ok)
		}
		u, known := b.users[p.Get("username")]
		if !known || subtle.ConstantTimeCompare([]byte(u.Password), []byte(p.Get("password"))) != 1 {
			return p.invalidGrant()
		}
		g := newGrant(client.ID, u.Name, scope)
		body := b.tokens(g)
		body["refresh_token"] = b.newRefresh(g)
		return b.granted(p, body)
	case "refresh_token":
		p.need("refresh_token")
		if q.faults > 0 {
			return p.invalid(ok)
		}
		r, ok := b.renew(p, client)
		if !ok {
			return p.invalidGrant()
		}
		body := b.tokens(r.grant)
		if b.keeps {
			body["refresh_token"] = p.Get("refresh_token")
		}
		return b.granted(p, body)
	default:
		return p.unknownGrant()
	}
}

func acceptsJSON(q *request) bool {
	for one := range strings.SplitSeq(strings.Join(q.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(one, ";")
		if strings.TrimSpace(kind) == "application/json" {
			return true
		}
	}
	return false
}

func (b *BreakOut) tokens(g grant) map[string]any {
	return map[string]any{
		"access_token": b.newAccess(digits(), g, breakOutLife), "token_type": "bearer", "expires_in": int(breakOutLife.Seconds()),
		"scope": strings.Join(g.scope, " "),
	}
}

func (b *BreakOut) me(q *request) answer {
	h, bad := q.bearer()
	if bad != nil {
		return *bad
	}
	body := map[string]any{"id": 7}
	maps.Copy(body, b.users[h.User].Members)
	return answer{status: http.StatusOK, body: body}
}
