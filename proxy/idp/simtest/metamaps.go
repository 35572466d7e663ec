package simtest

import (
	"html"
	"net/http"
	"testing"
	"time"
)

// OutOfBand is the redirect URI with which Metamaps displays the code.
const OutOfBand = "urn:ietf:wg:oauth:2.0:oob"

// Metamaps simulates metamaps.cc.
type Metamaps struct{ *Server }

const metamapsLife = 7200 * time.Second

// NewMetamaps starts a Metamaps that ends with the test.
//
//   - GET /oauth/authorize with client_id, redirect_uri, response_type=code. No scope. With the redirect URI [OutOfBand], which needs no
//     registration, the code is displayed instead of delivered.
//   - POST /oauth/token with every parameter in the query and no body: client_id, client_secret, code, grant_type=authorization_code, redirect_uri.
//     The answer: an opaque token and refresh token of 64 hexadecimal digits, token_type bearer, expires_in 7200.
//   - Refresh in the query too; the answer holds a new refresh token, and the old one is spent.
func NewMetamaps(t testing.TB, o Options) *Metamaps {
	t.Helper()
	m := &Metamaps{start(t, "Metamaps", o)}
	m.serves(
		endpoint{Authorize, http.MethodGet, "/oauth/authorize", m.authorize},
		endpoint{Token, http.MethodPost, "/oauth/token", m.token},
	)
	return m
}

func (m *Metamaps) authorize(q *request) answer {
	p := q.query()
	p.need("client_id", "redirect_uri")
	p.needValue("response_type", "code")
	if p.Get("redirect_uri") != OutOfBand {
		return m.codeFlow(p, nil)
	}
	if _, known := m.clients[p.Get("client_id")]; !known {
		q.wrong("no such client")
	}
	if q.faults > 0 {
		return *q.page("This request is wrong.")
	}
	if m.refuses {
		return *q.page("You did not authorize the application.")
	}
	return answer{status: http.StatusOK, body: "<!doctype html><title>Authorization code</title><code id=\"authorization_code\">" + html.EscapeString(m.newCode(p, nil)) + "</code>\n"}
}

func (m *Metamaps) token(q *request) answer {
	p := q.query()
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
		return m.granted(p, m.tokens(g))
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
		return m.granted(p, m.tokens(r.grant))
	default:
		return p.unknownGrant()
	}
}

func (m *Metamaps) tokens(g grant) map[string]any {
	return map[string]any{
		"access_token": m.newAccess(digits(), g, metamapsLife), "token_type": "bearer", "expires_in": int(metamapsLife.Seconds()),
		"refresh_token": m.newRefresh(g),
	}
}
