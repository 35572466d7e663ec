package proxy

import (
	"net/http"
	"slices"
	"strings"

	"postern/session"
)

// endpoint answers the paths under our prefix. On a host whose origin is not known nobody can sign in: it has none but those that providers and applications call.
func (p *Proxy) endpoint(x *exchange, name string) {
	x.verdict = verdict{Kind: verdictOwn, Reason: name}
	if x.origin == nil && name != "logout/backchannel" && name != "jwks" {
		p.refuse(x, http.StatusNotFound, "no_endpoint", nil)
		return
	}
	x.endpoint = true
	switch name {
	case "start", "sign_in", "login":
		p.only(x, p.startSignIn, http.MethodGet, http.MethodHead, http.MethodPost)
	case "fragment.js":
		p.only(x, p.fragmentScript, http.MethodGet, http.MethodHead)
	case "callback":
		p.only(x, p.callback, http.MethodGet, http.MethodPost)
	case "logout", "sign_out":
		p.only(x, p.logout, http.MethodGet, http.MethodHead, http.MethodPost)
	case "logout/callback":
		p.only(x, p.signedOut, http.MethodGet, http.MethodHead)
	case "logout/backchannel":
		p.only(x, p.backChannelLogout, http.MethodPost)
	case "logout/frontchannel":
		p.only(x, p.frontChannelLogout, http.MethodGet)
	case "kept":
		p.only(x, p.keptPage, http.MethodGet, http.MethodHead, http.MethodPost)
	case "session", "userinfo":
		p.only(x, p.sessionJSON, http.MethodGet, http.MethodHead)
	case "session/refresh":
		p.only(x, p.refreshNow, http.MethodPost)
	case "jwks":
		p.only(x, p.jwks, http.MethodGet, http.MethodHead)
	case clearCookiesName:
		p.only(x, p.clearCookies, http.MethodGet, http.MethodHead, http.MethodPost)
	case "":
		p.only(x, p.account, http.MethodGet, http.MethodHead, http.MethodPost)
	default:
		if !slices.ContainsFunc(p.providers, func(pr *provider) bool { return pr.callback == name }) {
			x.endpoint = false
			p.refuse(x, http.StatusNotFound, "no_endpoint", nil)
			return
		}
		p.only(x, p.callback, http.MethodGet, http.MethodPost)
	}
}

// only lets a handler see the methods that it is written for.
func (p *Proxy) only(x *exchange, handler func(*exchange), methods ...string) {
	if !slices.Contains(methods, x.r.Method) {
		x.Header().Set("Allow", strings.Join(methods, ", "))
		p.refuse(x, http.StatusMethodNotAllowed, "method_not_allowed", nil)
		return
	}
	handler(x)
}

// anySession finds a live session of any provider, for our own endpoints. Of several errors it returns the one that leaves most open: that the
// store did not answer, then that a session ended, then [session.ErrNone].
func (p *Proxy) anySession(x *exchange) (*session.Session, *provider, error) {
	var worst error = session.ErrNone
	for _, pr := range p.providers {
		s, err := pr.sessions.Load(x.r.Context(), x.r.Header)
		if err == nil {
			x.verdict.Session = s
			p.reseal(x, pr)
			return s, pr, nil
		}
		if worst == session.ErrNone || withoutSession(err).Kind == verdictUnavailable {
			worst = err
		}
	}
	return nil, nil, worst
}
