package simtest

import (
	"net/http"
	"testing"
	"time"
)

// Metafy simulates metafy.gg.
type Metafy struct{ *Server }

const metafyLife = time.Hour

// NewMetafy starts a Metafy that ends with the test.
//
//   - GET /auth/authorize with client_id, redirect_uri, scope (its spaces are %20, not +) and state.
//   - POST /irk/oauth/token with a form: grant_type=authorization_code, code, redirect_uri, client_id, client_secret. The answer: an opaque token, token_type
//     Bearer, expires_in in seconds, refresh_token, scope.
//   - Refresh with a form: grant_type=refresh_token, refresh_token, client_id, client_secret. The answer holds a new refresh token, and the old one
//     is spent.
//   - grant_type=client_credentials with client_id, client_secret and perhaps a scope: a token of [Client].Owner, without a refresh token.
//   - POST /irk/oauth/revoke with a form: token, perhaps token_type_hint (access_token or refresh_token), client_id, client_secret. A refresh token takes the
//     access tokens of the same sign-in with it.
func NewMetafy(t testing.TB, o Options) *Metafy {
	t.Helper()
	m := &Metafy{start(t, "Metafy", o)}
	m.serves(
		endpoint{Authorize, http.MethodGet, "/auth/authorize", m.authorize},
		endpoint{Token, http.MethodPost, "/irk/oauth/token", m.token},
		endpoint{Revoke, http.MethodPost, "/irk/oauth/revoke", m.revoke},
	)
	return m
}

func (m *Metafy) authorize(q *request) answer {
	p := q.query()
	// State is but recommended there; nobody who is tested here leaves it out.
	p.need("client_id", "redirect_uri", "scope", "state")
	p.percentSpaces()
	return m.codeFlow(p, m.scopes(p, m.clients[p.Get("client_id")]))
}

func (m *Metafy) token(q *request) answer {
	p := q.form()
	client, ok := p.paramClient()
	switch p.Get("grant_type") {
	case "authorization_code":
		p.need("code", "redirect_uri")
		if q.faults > 0 {
			return p.invalid(ok)
		}
		g, ok := m.redeem(p, client)
		if !ok {
			return p.invalidGrant()
		}
		return m.granted(p, m.withRefresh(g))
	case "refresh_token":
		p.need("refresh_token")
		if q.faults > 0 {
			return p.invalid(ok)
		}
		r, ok := m.renew(p, client)
		if !ok {
			return p.invalidGrant()
		}
		r.spend()
		return m.granted(p, m.withRefresh(r.grant))
	case "client_credentials":
		scope := m.scopes(p, client)
		if q.faults > 0 {
			return p.invalid(ok)
		}
		return m.granted(p, m.tokens(newGrant(client.ID, client.Owner, scope)))
	default:
		return p.unknownGrant()
	}
}

func (m *Metafy) tokens(g grant) map[string]any {
	return map[string]any{"access_token": m.newAccess(digits(), g, metafyLife), "token_type": "Bearer", "expires_in": int(metafyLife.Seconds())}
}

func (m *Metafy) withRefresh(g grant) map[string]any {
	body := m.tokens(g)
	body["refresh_token"] = m.newRefresh(g)
	return body
}

// revoke is RFC 7009. A token that is unknown or no longer works is not an error there.
func (m *Metafy) revoke(q *request) answer {
	p := q.form()
	client, ok := p.paramClient()
	p.need("token")
	value, hint := p.Get("token"), p.Get("token_type_hint")
	a, r := m.issued.access[value], m.issued.refresh[value]
	switch {
	case p.Has("token_type_hint") && hint != "access_token" && hint != "refresh_token":
		q.wrong("token_type_hint must be access_token or refresh_token")
	case hint == "access_token" && r != nil, hint == "refresh_token" && a != nil:
		q.wrong("token_type_hint is that of the other kind of token")
	case a != nil && a.client != client.ID, r != nil && r.client != client.ID:
		q.wrong("the token was not issued to this client")
	}
	if q.faults > 0 {
		return p.invalid(ok)
	}
	if a != nil {
		a.revoked = true
	}
	if r != nil {
		if r.dead == "" {
			r.dead = revokedByClient
		}
		for _, a := range m.issued.access {
			if a.id == r.id {
				a.revoked = true
			}
		}
	}
	return answer{status: http.StatusOK}
}

const revokedByClient = "the client revoked it"
