package proxy

import (
	"errors"
	"net/http"

	"postern/proxy/idp"
	"postern/proxy/page"
	"postern/session"
)

// logout signs out here and at the provider.
//
// Flow:
//  0. rd, the address that is wanted afterwards, is checked by the list that holds for sign-in, too (returnto.go);
//  1. a GET that no click on a page of ours explains asks first; a POST from another site is refused;
//  2. the session ends in the store (that of each provider, where a browser has several), and with it every session of the same
//     sign-in on other hosts, and its tokens are revoked at the provider, in the background (RFC 7009);
//  3. the cookie is expired with the attributes that it was set with, and the provider that was chosen among several is forgotten;
//  4. the browser goes to the provider's end_session_endpoint, when it has one (RP-Initiated Logout 1.0), and comes back to
//     logout/callback, which goes on to the wanted address.
//
// A store that does not answer leaves everything as it is: saying "signed out" would be untrue.
func (p *Proxy) logout(x *exchange) {
	if err := p.crossOrigin.Check(x.r); x.r.Method == http.MethodPost && err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_logout", err)
		return
	}
	rd, err := p.wantedAfterLogout(x)
	if err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_form", err)
		return
	}
	if x.r.Method != http.MethodPost && !clickedHere(x.r) {
		var fields map[string]string
		if rd != "" {
			fields = map[string]string{"rd": rd}
		}
		p.own(x.Header())
		p.pages.Confirm(x, x.r, page.Confirm{
			Say: "sign_out", Action: p.prefix + "/logout", Cancel: "/", Fields: fields, RequestID: x.client.RequestID,
		})
		return
	}
	live, err := p.allSessions(x)
	if err != nil {
		p.notSignedOut(x, err)
		return
	}
	for _, o := range live {
		if err := p.end(x, o.provider, o.session); err != nil {
			p.notSignedOut(x, err)
			return
		}
	}
	for _, o := range live {
		p.auditSession(x, o.session, auditSignOut)
	}
	if len(live) == 0 {
		x.reason("no_session", nil)
	}
	for _, pr := range p.providers {
		if hasCookie(x.r, pr.sessions.CookieName()) {
			http.SetCookie(x, pr.sessions.ExpireCookie())
		}
	}
	p.attempts.forgetSignIns(x)
	p.forgetChoice(x)
	there, ok := p.endSession(x, live, rd)
	switch {
	case !ok && rd == "":
		p.redirect(x, p.prefix+"/logout/callback")
	case !ok:
		p.leaveFor(x, rd)
	case there.Form != nil:
		p.own(x.Header())
		p.pages.Post(x, x.r, page.SigningOut, there.URL, there.Form)
	default:
		p.leaveFor(x, there.URL)
	}
}

// wantedAfterLogout is the checked address that a link or form to here wants after the sign-out (rd); empty is none, or one that is refused.
// Postern's own first page has to be named as such: "/" is also what becomes of an address that is not allowed, and would sign in again at once.
func (p *Proxy) wantedAfterLogout(x *exchange) (string, error) {
	x.r.Body = http.MaxBytesReader(x, x.r.Body, maxFormBytes)
	if err := x.r.ParseForm(); err != nil {
		return "", errors.New("query or form is not readable")
	}
	raw := x.r.Form.Get("rd")
	rd := returnTo(raw, x.origin, p.returnHosts, p.prefix)
	if rd == "/" && raw != "/" && raw != x.origin.String() && raw != x.origin.String()+"/" {
		return "", nil
	}
	return rd, nil
}

// endSession is how the browser signs out at the first provider that has a place for that; it can be sent to one. A program gets no form.
func (p *Proxy) endSession(x *exchange, ended []ownedSession, rd string) (there idp.EndSession, ok bool) {
	state, err := p.attempts.ring.Seal(logoutPurpose(x), []byte(rd))
	if err != nil {
		return idp.EndSession{}, false
	}
	back := x.origin.String() + p.prefix + "/logout/callback"
	for _, o := range ended {
		if there, ok = o.provider.idp.EndSession(o.session.Tokens.ID, back, state); !ok {
			continue
		}
		if there.Form != nil && !wantsHTML(x.r) {
			there, ok = o.provider.idp.EndSession("", back, state) // client_id says who asks
		}
		return there, ok
	}
	return idp.EndSession{}, false
}

// logoutPurpose binds the state of a sign-out to the origin that it comes back to.
func logoutPurpose(x *exchange) string { return "logout\x00" + x.origin.String() }

// ownedSession is a session with the provider that began it.
type ownedSession struct {
	session  *session.Session
	provider *provider
}

// allSessions are this browser's live sessions, at most one of each provider. Its error says that the store did not answer.
func (p *Proxy) allSessions(x *exchange) (live []ownedSession, err error) {
	for _, pr := range p.providers {
		s, err := pr.sessions.Load(x.r.Context(), x.r.Header)
		switch {
		case err == nil:
			live = append(live, ownedSession{s, pr})
		case withoutSession(err).Kind == verdictUnavailable:
			return nil, err
		}
	}
	if len(live) > 0 {
		x.verdict.Session = live[0].session
	}
	return live, nil
}

// clickedHere is true where the browser itself says that a person followed a link on a page of this origin.
func clickedHere(r *http.Request) bool {
	h := r.Header
	return r.Method == http.MethodGet && h.Get("Sec-Fetch-Site") == "same-origin" && h.Get("Sec-Fetch-Mode") == "navigate" && h.Get("Sec-Fetch-Dest") == "document"
}

// end ends one session and those of the same sign-in.
func (p *Proxy) end(x *exchange, pr *provider, s *session.Session) error {
	if err := pr.sessions.End(x.r.Context(), s, session.ReasonSignedOut); err != nil {
		return err
	}
	match := session.Match{SignIn: s.SignIn}
	if s.SID != "" {
		match = session.Match{SID: s.SID}
	}
	_, err := pr.sessions.EndMatching(x.r.Context(), match, session.ReasonSignedOut)
	if pr.idp.CanRevoke() && pr.sessions.Revocable(x.r.Context(), s) { // this one has ended, whatever became of the others
		p.revoking.revoke(x.r.Context(), pr, s)
	}
	return err
}

func (p *Proxy) notSignedOut(x *exchange, err error) {
	x.reason("store_unavailable", err)
	x.Header().Set("Retry-After", "5")
	p.notice(x, http.StatusServiceUnavailable, noticeNotSignedOut, page.Link{Say: "try_again", URL: p.prefix + "/logout", Primary: true})
}

// leaveFor sends the browser to the provider. After a form of ours it goes by a page: browsers hold a form's redirects to the form-action of its
// page, and a provider may send them on to origins that nobody here knows.
func (p *Proxy) leaveFor(x *exchange, address string) {
	if x.r.Method == http.MethodPost && wantsHTML(x.r) {
		p.own(x.Header())
		p.pages.Continue(x, x.r, page.SigningOut, address)
		return
	}
	p.redirect(x, address)
}

// signedOut is where the provider sends the browser after its own sign-out. The state leads on to the wanted address, which is checked
// again; by then nothing is left that it could protect, and a missing or foreign one lands on the page. Whoever is signed in (anyone can
// link here) is not told otherwise.
func (p *Proxy) signedOut(x *exchange) {
	if _, _, err := p.anySession(x); err == nil {
		p.redirect(x, p.prefix)
		return
	}
	if state := x.r.URL.Query()["state"]; len(state) > 0 {
		rd, _, err := p.attempts.ring.Open(logoutPurpose(x), state[0], attemptLifetime)
		switch {
		case err != nil || len(state) > 1:
			x.reason("logout_state_unknown", nil)
		case len(rd) > 0:
			p.redirect(x, returnTo(string(rd), x.origin, p.returnHosts, p.prefix))
			return
		}
	}
	p.notice(x, http.StatusOK, noticeSignedOut, p.startAnew(x, "/"))
}

func hasCookie(r *http.Request, name string) bool { return len(r.CookiesNamed(name)) > 0 }
