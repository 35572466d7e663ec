package simtest

import (
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authorizeRequest checks who asks, for what, and where the answer goes. Nothing is sent to an address that is not registered, and no faulty
// request is answered anywhere but on a page.
func (s *Server) authorizeRequest(p params) *answer {
	client, known := s.clients[p.Get("client_id")]
	if target := p.Get("redirect_uri"); p.Get("client_id") != "" && !known {
		p.q.wrong("no such client")
	} else if known && target != "" && !slices.Contains(client.RedirectURIs, target) {
		p.q.wrong("redirect_uri is not registered: " + target)
	}
	if p.q.faults > 0 {
		return p.q.page("This request is wrong: " + s.errors[len(s.errors)-1])
	}
	if s.current == "" {
		return p.q.page("Nobody is signed in.")
	}
	return nil
}

// scopes are those that a request asks for, of a provider that documents a scope.
func (s *Server) scopes(p params, client Client) []string {
	scope := strings.FieldsFunc(p.Get("scope"), func(r rune) bool { return r == ' ' })
	for _, one := range scope {
		if client.ID != "" && !slices.Contains(client.Scopes, one) {
			p.q.wrong("the client may not ask for the scope " + one)
		}
	}
	return scope
}

func (q *request) page(text string) *answer {
	return &answer{status: http.StatusBadRequest, body: "<!doctype html><title>Error</title><p>" + html.EscapeString(text) + "\n"}
}

// back sends the browser to the redirect URI, with the state that came.
func (p params) back(pairs ...string) answer {
	v := url.Values{}
	for pair := range slices.Chunk(pairs, 2) {
		v.Set(pair[0], pair[1])
	}
	if p.Has("state") {
		v.Set("state", p.Get("state"))
	}
	return answer{status: http.StatusFound, location: withQuery(p.Get("redirect_uri"), v)}
}

func withQuery(target string, v url.Values) string {
	if strings.Contains(target, "?") {
		return target + "&" + v.Encode()
	}
	return target + "?" + v.Encode()
}

// codeFlow is the authorization endpoint of a provider whose answers are those of RFC 6749 section 4.1.2.
func (s *Server) codeFlow(p params, scope []string) answer {
	if bad := s.authorizeRequest(p); bad != nil {
		return *bad
	}
	if s.refuses {
		return p.back("error", "access_denied")
	}
	return p.back("code", s.newCode(p, scope))
}

// granted is a successful answer of the token endpoint.
func (s *Server) granted(p params, body map[string]any) answer {
	s.grants[p.Get("grant_type")]++
	return answer{status: http.StatusOK, body: body}
}

// invalid is the answer to a token request with faults.
func (p params) invalid(authenticated bool) answer {
	if !authenticated {
		return p.q.refuse(http.StatusUnauthorized, "invalid_client")
	}
	return p.q.refuse(http.StatusBadRequest, "invalid_request")
}

func (p params) invalidGrant() answer { return p.q.refuse(http.StatusBadRequest, "invalid_grant") }

// unknownGrant is the answer to a grant_type that is not documented.
func (p params) unknownGrant() answer {
	p.need("grant_type")
	if p.Get("grant_type") != "" {
		p.q.wrong("grant_type " + p.Get("grant_type") + " is not documented")
	}
	return p.q.refuse(http.StatusBadRequest, "unsupported_grant_type")
}
