package idptest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// token is the token endpoint (RFC 6749 sections 4.1.3 and 6).
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		oauthError(w, http.StatusBadRequest, "invalid_request", "send application/x-www-form-urlencoded")
		return
	}
	client, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		s.redeem(w, r.PostForm, client)
	case "refresh_token":
		s.refresh(w, r.PostForm, client)
	case exchangeGrant, jwtBearerGrant:
		s.exchange(w, r.PostForm, client)
	default:
		oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "")
	}
}

// authenticate finds the client of a request, which must use the way it is registered with and no other (RFC 6749 section 2.3).
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (Client, bool) {
	if len(r.URL.Query()) > 0 {
		oauthError(w, http.StatusBadRequest, "invalid_request", "parameters belong in the body")
		return Client{}, false
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" && name != "audience" {
			oauthError(w, http.StatusBadRequest, "invalid_request", name+" is there more than once")
			return Client{}, false
		}
	}
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	method := "none"
	if r.PostForm.Has("client_secret") {
		method = "client_secret_post"
	}
	if len(r.Header.Values("Authorization")) > 0 {
		if r.PostForm.Has("client_secret") || len(r.Header.Values("Authorization")) > 1 {
			oauthError(w, http.StatusBadRequest, "invalid_request", "the client authenticates in two ways at once")
			return Client{}, false
		}
		method = "client_secret_basic"
		user, pass, ok := r.BasicAuth()
		// RFC 6749 section 2.3.1: both are form-encoded before they are joined.
		user, err1 := url.QueryUnescape(user)
		pass, err2 := url.QueryUnescape(pass)
		if !ok || err1 != nil || err2 != nil || (id != "" && id != user) {
			return Client{}, invalidClient(w, "the Authorization header is malformed or names another client")
		}
		id, secret = user, pass
	}
	s.mu.Lock()
	client, known := s.clients[id]
	s.mu.Unlock()
	switch {
	case !known:
		return Client{}, invalidClient(w, "no such client")
	case method != client.AuthMethod:
		return Client{}, invalidClient(w, "the client is registered for "+client.AuthMethod+", not "+method)
	case method != "none" && subtle.ConstantTimeCompare([]byte(secret), []byte(client.Secret)) != 1:
		return Client{}, invalidClient(w, "wrong secret")
	}
	return client, true
}

func invalidClient(w http.ResponseWriter, description string) bool {
	w.Header().Set("WWW-Authenticate", `Basic realm="token"`)
	oauthError(w, http.StatusUnauthorized, "invalid_client", description)
	return false
}

// redeem exchanges a code.
func (s *Server) redeem(w http.ResponseWriter, form url.Values, client Client) {
	invalid := func(description string) {
		oauthError(w, http.StatusBadRequest, "invalid_grant", description)
	}
	verifier := form.Get("code_verifier")
	s.mu.Lock()
	c := s.grants.codes[form.Get("code")]
	var reused bool
	if c != nil && c.client == client.ID {
		if reused = c.spent; reused {
			// RFC 6749 section 4.1.2: a code used twice was stolen; what it gave is revoked.
			s.grants.revoke(func(f *family) bool { return f == c.family })
		}
		c.spent = true
	}
	s.mu.Unlock()
	switch {
	case c == nil || c.client != client.ID:
		invalid("no such code for this client")
	case reused:
		invalid("the code was used before")
	case s.o.Now().After(c.expires):
		invalid("the code has expired")
	case form.Get("redirect_uri") != c.redirectURI:
		invalid("redirect_uri is not the one of the authorization request")
	case c.challenge == "" && form.Has("code_verifier"):
		// RFC 9700 section 2.1.1: else an attacker could leave the challenge out.
		invalid("code_verifier without code_challenge")
	case c.challenge != "" && !verifies(verifier, c.challenge):
		invalid("code_verifier does not match")
	case s.revoked(c.family):
		invalid("the grant was revoked")
	default:
		s.issue(w, issue{family: c.family, client: client, scope: c.scope, nonce: c.nonce, idToken: true, refresh: true})
	}
}

// verifies is RFC 7636 section 4.6.
func verifies(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && len(verifier) <= 128 && base64.RawURLEncoding.EncodeToString(sum[:]) == challenge
}

// refresh exchanges a refresh token.
func (s *Server) refresh(w http.ResponseWriter, form url.Values, client Client) {
	invalid := func(description string) {
		oauthError(w, http.StatusBadRequest, "invalid_grant", description)
	}
	set := s.settings()
	s.mu.Lock()
	t := s.grants.refresh[form.Get("refresh_token")]
	if t == nil || t.client != client.ID {
		s.mu.Unlock()
		invalid("no such refresh token for this client")
		return
	}
	scope := strings.Fields(form.Get("scope"))
	if len(scope) == 0 {
		scope = t.scope
	}
	wider := slices.ContainsFunc(scope, func(one string) bool { return !slices.Contains(t.scope, one) })
	resources := form["resource"]
	foreign := slices.ContainsFunc(resources, func(one string) bool { return !slices.Contains(t.resources, one) })
	reused, revoked := t.spent, t.revoked
	if reused {
		// RFC 9700 section 4.14.2: one of the two senders is an attacker, and nobody knows which.
		s.script.reuses++
		s.grants.revoke(func(f *family) bool { return f == t.family })
	}
	if !reused && !revoked && !wider && !foreign && set.rotation {
		t.spent = true
	}
	s.mu.Unlock()
	switch {
	case reused:
		invalid("the refresh token was used before")
	case revoked:
		invalid("the grant was revoked")
	case wider:
		oauthError(w, http.StatusBadRequest, "invalid_scope", "more than was granted")
	case foreign: // RFC 8707 section 2.2
		oauthError(w, http.StatusBadRequest, "invalid_target", "not one of the authorization request's resources")
	default:
		s.issue(w, issue{family: t.family, client: client, scope: scope, audience: resources, idToken: set.idTokenOnRefresh, refresh: set.rotation, again: true})
	}
}

func (s *Server) revoked(f *family) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.revoked
}

// issue is what one answer of the token endpoint holds.
type issue struct {
	*family
	client                  Client
	scope, audience         []string // without an audience it is for the provider's own API
	nonce                   string
	idToken, refresh, again bool
}

// issue answers with new tokens.
func (s *Server) issue(w http.ResponseWriter, i issue) {
	set, now := s.settings(), s.o.Now()
	token := s.accessToken(i, set, now)
	answer := map[string]any{
		"access_token": token,
		"token_type":   "Bearer",
		"expires_in":   int(set.ttl / time.Second),
		"scope":        strings.Join(i.scope, " "),
	}
	wantsRefresh := i.again || set.refresh == RefreshAlways || set.refresh == RefreshByScope && slices.Contains(i.scope, "offline_access")
	s.mu.Lock()
	s.grants.putAccess(token, &access{family: i.family, scope: i.scope, audience: i.audience, expires: now.Add(set.ttl)}, now)
	if i.refresh && wantsRefresh {
		next := random(0)
		s.grants.refresh[next] = &refresh{family: i.family}
		answer["refresh_token"] = next
	}
	user := s.users[i.sub]
	idToken, mutate := s.script.idToken, s.script.answer
	s.mu.Unlock()

	if i.idToken && slices.Contains(i.scope, "openid") {
		claims := scoped(user.Claims, i.scope)
		maps.Copy(claims, map[string]any{
			"iss": s.URL, "sub": i.sub, "aud": i.client.ID, "sid": i.sid,
			"iat": now.Unix(), "exp": now.Add(idTokenLife).Unix(), "auth_time": i.authTime.Unix(),
			"at_hash": atHash(s.algOf(), token),
		})
		if i.nonce != "" {
			claims["nonce"] = i.nonce
		}
		answer["id_token"] = s.sign(claims, idToken, i.client.Secret)
	}
	s.tellTokens(answer)
	if mutate != nil {
		mutate(answer)
		s.tellTokens(answer)
	}
	writeJSON(w, http.StatusOK, answer)
}

// accessToken makes an access token: opaque, or a JWT of RFC 9068. It is never a thing that a client may look into.
func (s *Server) accessToken(i issue, set settings, now time.Time) string {
	if !set.jwtAccess && i.audience == nil {
		return random(set.accessSize)
	}
	return s.signAccess(i, set, now)
}

// signAccess makes an access token of RFC 9068.
func (s *Server) signAccess(i issue, set settings, now time.Time) string {
	audience := (&access{audience: i.audience}).audienceOr(s.URL)
	claims := map[string]any{
		"iss": s.URL, "sub": i.sub, "aud": audience, "client_id": i.client.ID, "jti": random(0),
		"iat": now.Unix(), "exp": now.Add(set.ttl).Unix(), "scope": strings.Join(i.scope, " "),
	}
	typ := func(header, _ map[string]any) { header["typ"] = "at+jwt" }
	token := s.sign(claims, typ, i.client.Secret)
	if missing := set.accessSize - len(token); missing > 0 {
		claims["pad"] = random(missing * 3 / 4) // base64
		token = s.sign(claims, typ, i.client.Secret)
	}
	return token
}

// atHash is OpenID Connect Core 3.1.3.6.
func atHash(alg, token string) string {
	h := hashOf(alg).New()
	h.Write([]byte(token))
	sum := h.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// scoped keeps the claims that a scope covers (OpenID Connect Core 5.4); claims outside the standard always are covered.
func scoped(claims map[string]any, scope []string) map[string]any {
	kept := map[string]any{}
	for name, value := range claims {
		if needs := scopeOf(name); needs == "" || slices.Contains(scope, needs) {
			kept[name] = value
		}
	}
	return kept
}

func scopeOf(claim string) string {
	switch claim {
	case "name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website",
		"gender", "birthdate", "zoneinfo", "locale", "updated_at":
		return "profile"
	case "email", "email_verified":
		return "email"
	case "address":
		return "address"
	case "phone_number", "phone_number_verified":
		return "phone"
	}
	return ""
}
