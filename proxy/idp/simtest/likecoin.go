package simtest

import (
	"crypto/rand"
	"maps"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// LikeCoin simulates like.co and api.like.co on one origin.
type LikeCoin struct {
	*Server
	rotates, tellsPerson bool
	refusalName          string
	refusalState         bool
}

const likeCoinLife = time.Hour

// NewLikeCoin starts a LikeCoin that ends with the test.
//
//   - GET /in/oauth/ with client_id, scope (whitelisted, separated by spaces), redirect_uri (whitelisted), state. Back come auth_code and state; from
//     somebody who refuses an error denied: [LikeCoin.RefuseBy] says how.
//   - POST /oauth/access_token with a form: client_id, client_secret, grant_type=authorization_code, code (the auth_code), redirect_uri. The answer:
//     user, displayName, avatar (all of [User].Members), refresh_token, access_token, and no more. The token is a JWT (HS256) with user, scope (an array), azp, iat,
//     exp in one hour, aud, iss, jti.
//   - Refresh as RFC 6749 section 6 has it. Without [LikeCoin.Rotate] the answer holds no refresh token, and without [LikeCoin.TellPersonAgain] no person.
//   - Refresh tokens do not expire. A new one for the same client and person kills the older ones.
func NewLikeCoin(t testing.TB, o Options) *LikeCoin {
	t.Helper()
	l := &LikeCoin{Server: start(t, "LikeCoin", o), refusalName: "error"}
	l.serves(
		endpoint{Authorize, http.MethodGet, "/in/oauth/", l.authorize},
		endpoint{Token, http.MethodPost, "/oauth/access_token", l.token},
	)
	return l
}

// Rotate says whether a refresh gives a new refresh token.
func (l *LikeCoin) Rotate(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rotates = on
}

// TellPersonAgain says whether the answer to a refresh tells the person.
func (l *LikeCoin) TellPersonAgain(on bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellsPerson = on
}

// RefuseBy names the parameter that says denied, and whether state comes back with it; neither is documented. At first it is error, without state.
func (l *LikeCoin) RefuseBy(name string, state bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusalName, l.refusalState = name, state
}

func (l *LikeCoin) authorize(q *request) answer {
	p := q.query()
	p.need("client_id", "scope", "redirect_uri", "state")
	p.percentSpaces()
	scope := l.scopes(p, l.clients[p.Get("client_id")])
	if bad := l.authorizeRequest(p); bad != nil {
		return *bad
	}
	switch {
	case !l.refuses:
		return p.back("auth_code", l.newCode(p, scope))
	case l.refusalState:
		return p.back(l.refusalName, "denied")
	}
	return answer{status: http.StatusFound, location: withQuery(p.Get("redirect_uri"), url.Values{l.refusalName: {"denied"}})}
}

func (l *LikeCoin) token(q *request) answer {
	p := q.form()
	client, ok := p.paramClient()
	switch p.Get("grant_type") {
	case "authorization_code":
		p.need("code", "redirect_uri")
		if q.faults > 0 {
			return p.invalid(ok)
		}
		g, ok := l.redeem(p, client)
		if !ok {
			return p.invalidGrant()
		}
		body := map[string]any{"access_token": l.accessToken(g), "refresh_token": l.onlyRefresh(g)}
		l.addPerson(body, g)
		return l.granted(p, body)
	case "refresh_token":
		p.need("refresh_token")
		if q.faults > 0 {
			return p.invalid(ok)
		}
		r, ok := l.renew(p, client)
		if !ok {
			return p.invalidGrant()
		}
		body := map[string]any{"access_token": l.accessToken(r.grant)}
		if l.rotates {
			r.spend()
			body["refresh_token"] = l.onlyRefresh(r.grant)
		}
		if l.tellsPerson {
			l.addPerson(body, r.grant)
		}
		return l.granted(p, body)
	default:
		return p.unknownGrant()
	}
}

// onlyRefresh is a refresh token in the place of all older ones of the same client and person.
func (l *LikeCoin) onlyRefresh(g grant) string {
	l.endRefresh("another one was issued for the same client and person", func(o grant) bool { return o.client == g.client && o.user == g.user })
	return l.newRefresh(g)
}

func (l *LikeCoin) addPerson(body map[string]any, g grant) {
	body["user"] = g.user
	maps.Copy(body, l.users[g.user].Members)
}

func (l *LikeCoin) accessToken(g grant) string {
	now := l.now()
	return l.newAccess(l.sign(map[string]any{
		"user": g.user, "scope": g.scope, "azp": g.client, "iat": now.Unix(), "exp": now.Add(likeCoinLife).Unix(),
		"aud": "like.co", "iss": "like.co", "jti": rand.Text(),
	}), g, likeCoinLife)
}
