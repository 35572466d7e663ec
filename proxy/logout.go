package proxy

import (
	"net/http"

	"postern/proxy/page"
	"postern/session"
)

// logout signs out here and at the provider.
//
// Flow:
//  1. a GET that no click on a page of ours explains asks first; a POST from another site is refused;
//  2. the session ends in the store (that of each provider, where a browser has several), and with it every session of the same
//     sign-in on other hosts, and its tokens are revoked at the provider, in the background (RFC 7009);
//  3. the cookie is expired with the attributes that it was set with;
//  4. the browser goes to the provider's end_session_endpoint, when it has one (RP-Initiated Logout 1.0), and comes back to
//     logout/callback.
//
// A store that does not answer leaves everything as it is: saying "signed out" would be untrue.
func (p *Proxy) logout(x *exchange) {
	if x.r.Method != http.MethodPost && !clickedHere(x.r) {
		p.own(x.Header())
		p.pages.Confirm(x, x.r, page.Confirm{
			Title: "Sign out?", Text: "You will be signed out of this application and at the identity provider.",
			Action: p.prefix + "/logout", Button: "Sign out", Cancel: "/",
			RequestID: x.client.RequestID,
		})
		return
	}
	if err := p.crossOrigin.Check(x.r); x.r.Method == http.MethodPost && err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_logout", err)
		return
	}
	live, err := p.allSessions(x)
	if err != nil {
		p.notSignedOut(x, err)
		return
	}
	for _, o := range live {
		if err := p.endSession(x, o.provider, o.session); err != nil {
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
	if address := p.endSessionURL(x, live); address != "" {
		p.leaveFor(x, address)
		return
	}
	p.redirect(x, p.prefix+"/logout/callback")
}

// endSessionURL is the first provider's that has such a place; a browser can be sent to one.
func (p *Proxy) endSessionURL(x *exchange, ended []ownedSession) string {
	state, err := p.attempts.ring.Seal("logout", []byte(x.origin.String()))
	if err != nil {
		return ""
	}
	for _, o := range ended {
		if address, ok := o.provider.idp.EndSessionURL(o.session.Tokens.ID, x.origin.String()+p.prefix+"/logout/callback", state); ok {
			return address
		}
	}
	return ""
}

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

// endSession ends one session and those of the same sign-in.
func (p *Proxy) endSession(x *exchange, pr *provider, s *session.Session) error {
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
	p.notice(x, http.StatusServiceUnavailable, noticeNotSignedOut, page.Link{Text: "Try again", URL: p.prefix + "/logout", Primary: true})
}

// leaveFor sends the browser to the provider. After a form of ours it goes by a page: browsers hold a form's redirects to the form-action of its
// page, and a provider may send them on to origins that nobody here knows.
func (p *Proxy) leaveFor(x *exchange, address string) {
	if x.r.Method == http.MethodPost && wantsHTML(x.r) {
		p.own(x.Header())
		p.pages.Continue(x, x.r, "Signing out", address)
		return
	}
	p.redirect(x, address)
}

// signedOut is where the provider sends the browser after its own sign-out. The state is only looked at for the log: by then nothing is left that it
// could protect, and a missing or foreign one must land safely. Whoever is signed in (anyone can link here) is not told otherwise.
func (p *Proxy) signedOut(x *exchange) {
	if _, _, err := p.anySession(x); err == nil {
		p.redirect(x, p.prefix)
		return
	}
	if state := x.r.URL.Query().Get("state"); state != "" {
		if _, _, err := p.attempts.ring.Open("logout", state, attemptLifetime); err != nil {
			x.reason("logout_state_unknown", nil)
		}
	}
	p.notice(x, http.StatusOK, noticeSignedOut, p.startLink(x, "/", false))
}

func hasCookie(r *http.Request, name string) bool { return len(r.CookiesNamed(name)) > 0 }
