package idptest

import (
	"crypto/sha256"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// userinfo is OpenID Connect Core 5.3. The token is taken from the header only.
func (s *Server) userinfo(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 6750 section 3.1: no error code when there are no credentials
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	a := s.grants.access[sha256.Sum256([]byte(token))]
	valid := a != nil && !a.revoked && s.o.Now().Before(a.expires)
	var claims map[string]any
	if valid {
		user := s.users[a.sub]
		claims = scoped(user.Claims, a.scope)
		maps.Copy(claims, user.UserinfoClaims)
		claims["sub"] = a.sub
		valid = slices.Contains(a.scope, "openid")
	}
	mutate := s.script.userinfo
	s.mu.Unlock()
	if !valid {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if mutate != nil {
		mutate(claims)
	}
	writeJSON(w, http.StatusOK, claims)
}

// revocation is RFC 7009: the whole family goes; a token that is not known is fine.
func (s *Server) revocation(w http.ResponseWriter, r *http.Request) {
	client, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	token := r.PostForm.Get("token")
	if token == "" {
		oauthError(w, http.StatusBadRequest, "invalid_request", "token is missing")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.grants.refresh[token]; t != nil && t.client == client.ID {
		s.grants.revoke(func(f *family) bool { return f == t.family })
	}
	if a := s.grants.access[sha256.Sum256([]byte(token))]; a != nil && a.client == client.ID {
		delete(s.grants.access, sha256.Sum256([]byte(token)))
	}
	w.WriteHeader(http.StatusOK)
}

// endSession is OpenID Connect RP-Initiated Logout 1.0.
//
// Flow: 1 the hint says which client and which session, even when it has expired · 2 the return address must be registered for that
// client · 3 a person whose session the hint does not name is asked · 4 the session and what it
// granted without offline_access ends · 5 back to the client, or a page.
func (s *Server) endSession(w http.ResponseWriter, r *http.Request) {
	var hinted, sid string
	if hint := r.Form.Get("id_token_hint"); hint != "" {
		claims, ok := s.verify(hint)
		if !ok || claims["iss"] != s.URL {
			s.errorPage(w, http.StatusBadRequest, "The id_token_hint is not from this provider.")
			return
		}
		hinted, _ = claims["aud"].(string)
		sid, _ = claims["sid"].(string)
	}
	id := r.Form.Get("client_id")
	if hinted != "" && id != "" && id != hinted {
		s.errorPage(w, http.StatusBadRequest, "The client_id and the id_token_hint name different clients.")
		return
	}
	if id == "" {
		id = hinted
	}
	back := r.Form.Get("post_logout_redirect_uri")
	if back != "" {
		s.mu.Lock()
		registered := slices.Contains(s.clients[id].PostLogoutRedirectURIs, back)
		s.mu.Unlock()
		if !registered {
			s.errorPage(w, http.StatusBadRequest, "This post_logout_redirect_uri is not registered for the client.")
			return
		}
	}
	b := s.browserOf(r)
	sure := b == nil || sid != "" && b.sid == sid
	if s.o.Interactive && !sure && !confirmed(r) {
		s.askSignOut(w, r.Form, b)
		return
	}
	if b != nil && !sure {
		sid = b.sid
	}
	s.signOutBrowser(w, sid)
	if back == "" {
		s.signedOutPage(w)
		return
	}
	answer := url.Values{}
	if state := r.Form.Get("state"); state != "" {
		answer.Set("state", state)
	}
	http.Redirect(w, r, withQuery(back, answer), http.StatusSeeOther)
}

// signOutBrowser ends one session at the provider, and the refresh tokens that were not meant to outlive it.
func (s *Server) signOutBrowser(w http.ResponseWriter, sid string) {
	s.mu.Lock()
	for value, b := range s.grants.browsers {
		if b.sid == sid {
			delete(s.grants.browsers, value)
		}
	}
	s.grants.revoke(func(f *family) bool {
		return f.sid == sid && !slices.Contains(f.scope, "offline_access")
	})
	s.mu.Unlock()
	http.SetCookie(w, s.cookie("", -1))
}
