package idptest

import (
	"crypto/sha256"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// introspection is RFC 7662. What a token says about its person are all of their claims.
func (s *Server) introspection(w http.ResponseWriter, r *http.Request) {
	if _, ok := s.authenticate(w, r); !ok {
		return
	}
	s.mu.Lock()
	a := s.grants.access[sha256.Sum256([]byte(r.PostForm.Get("token")))]
	answer := map[string]any{"active": false}
	if a != nil && !a.revoked && s.o.Now().Before(a.expires) {
		answer = maps.Clone(s.users[a.sub].Claims)
		if answer == nil {
			answer = map[string]any{}
		}
		maps.Copy(answer, map[string]any{
			"active": true, "iss": s.URL, "sub": a.sub, "aud": a.audienceOr(s.URL), "client_id": a.client, "scope": strings.Join(a.scope, " "),
			"exp": a.expires.Unix(), "token_type": "Bearer",
		})
	}
	mutate := s.script.introspect
	s.mu.Unlock()
	if mutate != nil {
		mutate(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// audienceOr is whom the token is for; by default the provider's own API.
func (a *access) audienceOr(issuer string) []string {
	if a.audience == nil {
		return []string{issuer + "/api"}
	}
	return a.audience
}

// exchange is the grant of RFC 8693, and Entra's on-behalf-of: a person's access token is traded for one with another audience. That is
// always a JWT.
func (s *Server) exchange(w http.ResponseWriter, form url.Values, client Client) {
	subject, scope := form.Get("subject_token"), strings.Fields(form.Get("scope"))
	audience := slices.Concat(form["audience"], form["resource"])
	onBehalf := form.Get("grant_type") == jwtBearerGrant
	switch {
	case onBehalf && form.Get("requested_token_use") != "on_behalf_of":
		oauthError(w, http.StatusBadRequest, "invalid_request", "requested_token_use is not on_behalf_of")
		return
	case onBehalf:
		subject, audience = form.Get("assertion"), scope
	case form.Get("subject_token_type") != accessTokenType:
		oauthError(w, http.StatusBadRequest, "invalid_request", "subject_token_type is not that of an access token")
		return
	}
	s.mu.Lock()
	a := s.grants.access[sha256.Sum256([]byte(subject))]
	valid := a != nil && !a.revoked && s.o.Now().Before(a.expires)
	s.mu.Unlock()
	if !valid {
		oauthError(w, http.StatusBadRequest, "invalid_grant", "the subject token is not active")
		return
	}
	set, now := s.settings(), s.o.Now()
	token := s.signAccess(issue{family: a.family, client: client, scope: scope, audience: audience}, set, now)
	s.mu.Lock()
	s.grants.putAccess(token, &access{family: a.family, scope: scope, audience: audience, expires: now.Add(set.ttl)}, now)
	mutate := s.script.answer
	s.mu.Unlock()
	answer := map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(set.ttl / time.Second), "scope": strings.Join(scope, " ")}
	if !onBehalf {
		answer["issued_token_type"] = accessTokenType
	}
	s.tellTokens(answer)
	if mutate != nil {
		mutate(answer)
		s.tellTokens(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// The names of RFC 8693 and RFC 7523.
const (
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
	jwtBearerGrant  = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	accessTokenType = "urn:ietf:params:oauth:token-type:access_token"
)

// Issued tells whom an access token is for and whether it still is good, for tests that see it arrive somewhere.
func (s *Server) Issued(token string) (sub string, audience []string, active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.grants.access[sha256.Sum256([]byte(token))]
	if a == nil {
		return "", nil, false
	}
	return a.sub, a.audienceOr(s.URL), !a.revoked && s.o.Now().Before(a.expires)
}

// MutateIntrospection changes every introspection answer; nil leaves them alone.
func (s *Server) MutateIntrospection(f func(map[string]any)) {
	s.edit("", func(x *script) { x.introspect = f })
}
