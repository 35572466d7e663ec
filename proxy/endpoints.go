package proxy

import (
	"net/http"
	"slices"
	"strings"

	"postern/session"
)

// endpoint answers the paths under our prefix.
func (p *Proxy) endpoint(x *exchange, name string) {
	x.verdict = verdict{Kind: verdictOwn, Reason: name}
	switch name {
	case "start", "sign_in", "login":
		p.only(x, p.startSignIn, http.MethodGet, http.MethodHead, http.MethodPost)
	case "callback":
		p.only(x, p.callback, http.MethodGet, http.MethodPost)
	case "logout", "sign_out":
		p.only(x, p.logout, http.MethodGet, http.MethodHead, http.MethodPost)
	case "logout/callback":
		p.only(x, p.signedOut, http.MethodGet, http.MethodHead)
	case "session", "userinfo":
		p.only(x, p.sessionJSON, http.MethodGet, http.MethodHead)
	case "session/refresh":
		p.only(x, p.refreshNow, http.MethodPost)
	case "":
		p.only(x, p.accountPage, http.MethodGet, http.MethodHead)
	default:
		p.refuse(x, http.StatusNotFound, "no_endpoint", nil)
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

// providerFor is whose sign-in a page of this host needs.
func (p *Proxy) providerFor(x *exchange, address string) *provider {
	path, _, _ := strings.Cut(address, "?")
	if rt := p.routes.match(x.client.Host, canonicalPath(path), http.MethodGet); rt != nil && rt.provider != nil {
		return rt.provider
	}
	return p.providers[0]
}

// anySession finds a live session of any provider, for our own endpoints. The provider is returned with every error but
// [session.ErrNone], so that what was found can be named.
func (p *Proxy) anySession(x *exchange) (*session.Session, *provider, error) {
	var worst error = session.ErrNone
	var whose *provider
	for _, pr := range p.providers {
		s, err := pr.sessions.Load(x.r.Context(), x.r.Header)
		if err == nil {
			x.verdict.Session = s
			return s, pr, nil
		}
		if err != session.ErrNone && whose == nil {
			worst, whose = err, pr
		}
	}
	return nil, whose, worst
}
