package idptest

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const browserCookie = "idptest"

// refusal is an error answer of RFC 6749 section 4.1.2.1.
type refusal struct{ code, description string }

// authorize is the authorization endpoint.
//
// Flow: 1 client and redirect URI, without which nothing is sent anywhere · 2 the rest of the request · 3 scripted refusal ·
// 4 who is signed in · 5 a page, an error or a code.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	req, page, bad := s.parseAuthorize(r.Form)
	if page != "" {
		s.errorPage(w, http.StatusBadRequest, page)
		return
	}
	if bad != nil {
		s.refuse(w, r, req, *bad)
		return
	}
	var scripted *refusal
	s.edit("", func(x *script) { scripted = x.refusal })
	if scripted != nil {
		s.refuse(w, r, req, *scripted)
		return
	}

	b := s.browserOf(r)
	now := s.o.Now()
	stale := b != nil && req.maxAge >= 0 && now.Sub(b.authTime) > req.maxAge
	if s.o.Interactive {
		switch {
		case b != nil && !stale && !req.promptLogin:
			s.grantCode(w, r, req, *b)
		case req.promptNone:
			s.refuse(w, r, req, refusal{"login_required", "nobody is signed in"})
		default:
			s.askWho(w, req)
		}
		return
	}
	s.mu.Lock()
	who := s.current
	s.mu.Unlock()
	switch {
	case who == "":
		s.refuse(w, r, req, refusal{"login_required", "nobody is signed in"})
	case b != nil && b.sub == who && !stale && !req.promptLogin:
		s.grantCode(w, r, req, *b)
	default:
		s.grantCode(w, r, req, s.signInBrowser(w, r, who))
	}
}

// parseAuthorize checks an authorization request. A page text means that nothing may be sent to the redirect URI.
func (s *Server) parseAuthorize(form url.Values) (req authRequest, page string, bad *refusal) {
	id, target := form["client_id"], form["redirect_uri"]
	if len(id) != 1 || len(target) != 1 {
		return req, "The request must name one client_id and one redirect_uri.", nil
	}
	s.mu.Lock()
	client, known := s.clients[id[0]]
	s.mu.Unlock()
	if !known {
		return req, "No such client is registered.", nil
	}
	if !slices.Contains(client.RedirectURIs, target[0]) {
		return req, "This redirect_uri is not registered for the client.", nil
	}
	req = authRequest{
		client:      client.ID,
		redirectURI: target[0],
		mode:        "query",
		state:       form.Get("state"),
		nonce:       form.Get("nonce"),
		challenge:   form.Get("code_challenge"),
		loginHint:   form.Get("login_hint"),
		scope:       strings.Fields(form.Get("scope")),
		resources:   form["resource"],
		maxAge:      -1,
	}
	req.hasChallenge = form.Has("code_challenge")
	invalid := func(format string, args ...any) (authRequest, string, *refusal) {
		return req, "", &refusal{"invalid_request", fmt.Sprintf(format, args...)}
	}
	// RFC 6749 section 3.1: parameters must not be included more than once.
	for name, values := range form {
		if len(values) > 1 && name != "resource" {
			return invalid("%s is there more than once", name)
		}
	}
	switch mode := form.Get("response_mode"); mode {
	case "", "query":
	case "form_post":
		req.mode = mode
	default:
		return invalid("response_mode %q is not supported", mode)
	}
	switch form.Get("response_type") {
	case "code":
	case "":
		return invalid("response_type is missing")
	default:
		return req, "", &refusal{"unsupported_response_type", "only code is supported"}
	}
	for _, name := range []string{"request", "request_uri"} {
		if form.Has(name) {
			return req, "", &refusal{name + "_not_supported", ""}
		}
	}
	// RFC 7636; plain is not offered.
	switch method := form.Get("code_challenge_method"); {
	case !req.hasChallenge && form.Has("code_challenge_method"):
		return invalid("code_challenge is missing")
	case !req.hasChallenge && client.AuthMethod == "none":
		return invalid("a public client must send a code_challenge")
	case req.hasChallenge && method != "S256":
		return invalid("code_challenge_method must be S256")
	case req.hasChallenge && len(req.challenge) != 43:
		return invalid("code_challenge is no SHA-256 hash")
	}
	if v := form.Get("max_age"); v != "" {
		seconds, err := strconv.Atoi(v)
		if err != nil || seconds < 0 {
			return invalid("max_age is no number")
		}
		req.maxAge = time.Duration(seconds) * time.Second
	}
	for _, p := range strings.Fields(form.Get("prompt")) {
		switch p {
		case "none":
			req.promptNone = true
		case "login", "select_account":
			req.promptLogin = true
		case "consent":
		default:
			return invalid("prompt %q is not supported", p)
		}
	}
	// OpenID Connect Core 3.1.2.1: none stands alone.
	if req.promptNone && len(strings.Fields(form.Get("prompt"))) > 1 {
		return invalid("prompt=none stands alone")
	}
	return req, "", nil
}

// browserOf is the provider's session of the browser that sent r, or nil.
func (s *Server) browserOf(r *http.Request) *browser {
	c, err := r.Cookie(browserCookie)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.grants.browsers[c.Value]
	if b == nil {
		return nil
	}
	if _, known := s.users[b.sub]; !known {
		return nil
	}
	snapshot := *b
	return &snapshot
}

// signInBrowser begins a session at the provider and ends the one that the browser had.
func (s *Server) signInBrowser(w http.ResponseWriter, r *http.Request, sub string) browser {
	b := browser{sid: random(0), sub: sub, authTime: s.o.Now()}
	value := random(0)
	s.mu.Lock()
	if c, err := r.Cookie(browserCookie); err == nil {
		delete(s.grants.browsers, c.Value)
	}
	s.grants.browsers[value] = &b
	s.mu.Unlock()
	http.SetCookie(w, s.cookie(value, 0))
	return b
}

func (s *Server) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: browserCookie, Value: value, Path: s.path + "/connect/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(s.URL, "https:"),
	}
}

func (s *Server) grantCode(w http.ResponseWriter, r *http.Request, req authRequest, b browser) {
	f := &family{client: req.client, sub: b.sub, sid: b.sid, scope: req.scope, resources: req.resources, authTime: b.authTime}
	value := random(0)
	s.mu.Lock()
	s.grants.families[f] = struct{}{}
	s.grants.codes[value] = &code{
		family: f, nonce: req.nonce, redirectURI: req.redirectURI, challenge: req.challenge,
		expires: s.o.Now().Add(codeLife),
	}
	s.mu.Unlock()
	s.goBack(w, r, req, url.Values{"code": {value}})
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, req authRequest, why refusal) {
	answer := url.Values{"error": {why.code}}
	if why.description != "" {
		answer.Set("error_description", why.description)
	}
	s.goBack(w, r, req, answer)
}

// goBack sends the browser to the client's redirect URI.
func (s *Server) goBack(w http.ResponseWriter, r *http.Request, req authRequest, answer url.Values) {
	if req.state != "" {
		answer.Set("state", req.state)
	}
	if s.settings().issParameter {
		answer.Set("iss", s.URL) // RFC 9207
	}
	var mutate func(url.Values)
	s.edit("", func(x *script) { mutate = x.authorize })
	if mutate != nil {
		mutate(answer)
	}
	s.tellForm(answer)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	if req.mode == "form_post" {
		s.postPage(w, req.redirectURI, answer)
		return
	}
	w.Header().Set("Location", withQuery(req.redirectURI, answer))
	status := http.StatusFound
	if r.Method == http.MethodPost {
		status = http.StatusSeeOther // after the sign-in form a browser must not post to the client (RFC 9700 section 4.12)
	}
	w.WriteHeader(status)
}

// withQuery adds parameters to a URL that may have some.
func withQuery(target string, add url.Values) string {
	if len(add) == 0 {
		return target
	}
	if strings.Contains(target, "?") {
		return target + "&" + add.Encode()
	}
	return target + "?" + add.Encode()
}
