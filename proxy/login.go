package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

// askToSignIn answers a request that needs a session and has none.
//
// Flow: a page navigation on the public origin begins a sign-in → on another host it is sent to the public origin first → a
// navigation that sends something, a frame, a prefetch or a program gets 401 and no cookie. A route's `unauthenticated` changes who counts as what.
func (p *Proxy) askToSignIn(x *exchange) {
	if x.goesToSignIn() {
		if !p.moveToOrigin(x) {
			p.begin(x, x.route.provider, returnTo(x.target, x.origin, nil, p.prefix), p.attempts.signIns(x), nil)
		}
		return
	}
	visitor := visitorOf(x.r)
	say, rd := noticeSignIn, x.target
	switch {
	case visitor == program:
		p.challenge(x)
		return
	case visitor == formPost:
		say, rd = noticeNotSent, p.referringPage(x)
	case visitor == framed:
		say = noticeFramed
	}
	if x.route.unauthenticated == "deny" {
		say = noticeSignIn
	}
	p.notice(x, http.StatusUnauthorized, say, p.startLink(x, rd, visitor == framed))
}

// goesToSignIn tells whether a request that needs a session and has none leads to the provider by itself: a page navigation, where the
// route's `unauthenticated` does not say otherwise.
func (x *exchange) goesToSignIn() bool {
	visitor := visitorOf(x.r)
	switch x.route.unauthenticated {
	case "deny":
		return false
	case "login":
		return visitor == person || visitor == program && mayBePerson(x.r)
	}
	return visitor == person
}

// startSignIn is the endpoint start: it begins a sign-in whether or not there is a session.
func (p *Proxy) startSignIn(x *exchange) {
	if x.r.Method == http.MethodPost {
		p.passwordSignIn(x)
		return
	}
	rd := returnTo(x.r.URL.Query().Get("rd"), x.origin, p.returnHosts, p.prefix)
	switch visitorOf(x.r) {
	case person:
		if p.moveToOrigin(x) {
			return
		}
		if pr := p.providerFor(x, rd); pr.password != nil {
			p.showForm(x, pr, rd, p.attempts.signIns(x))
		} else {
			p.begin(x, pr, rd, p.attempts.signIns(x), x.r.URL.Query())
		}
	case framed:
		p.notice(x, http.StatusUnauthorized, noticeFramed, p.startLink(x, rd, true))
	default:
		p.challenge(x)
	}
}

// begin sends the browser to the provider with a new attempt. count is how many sign-ins in a row went before it; params are what a link to
// start wants to tell the provider, of which the provider's start_params pass.
func (p *Proxy) begin(x *exchange, pr *provider, rd string, count int, params url.Values) {
	if p.looping(x, rd, count) {
		return
	}
	if pr.password != nil {
		p.redirect(x, p.startURL(x, rd))
		return
	}
	at := p.newAttempt(pr, rd, count)
	state, err := p.attempts.state(at, x.origin.String())
	if err != nil {
		p.refuse(x, http.StatusInternalServerError, "seal_failed", err)
		return
	}
	address, err := pr.idp.Begin(x.r.Context(), idp.Begin{State: state, Secret: at.Secret, RedirectURI: p.redirectURI(x), Params: params})
	if err != nil {
		x.err = err
		x.Header().Set("Retry-After", "5")
		p.notice(x, http.StatusServiceUnavailable, noticeProviderDown, p.startLink(x, rd, false))
		return
	}
	if err := p.attempts.set(x, pr, at); err != nil {
		p.refuse(x, http.StatusInternalServerError, "seal_failed", err)
		return
	}
	p.redirect(x, address)
}

// looping ends a row of sign-ins without a session in a page that says why. It is true when it has answered.
func (p *Proxy) looping(x *exchange, rd string, count int) bool {
	if count < maxSignInsInARow {
		return false
	}
	p.attempts.forgetSignIns(x)
	p.notice(x, http.StatusBadRequest, noticeLoop, p.startLink(x, rd, false))
	return true
}

// newAttempt is a sign-in about to begin.
func (p *Proxy) newAttempt(pr *provider, rd string, count int) attempt {
	at := attempt{ID: newAttemptID(p.now()), Provider: pr.name, Count: count, ReturnTo: rd}
	_, _ = rand.Read(at.Secret[:]) // never fails since Go 1.24
	return at
}

// moveToOrigin sends a navigation on another host than the public one to the same path there, once: where a proxy before us
// rewrites Host the browser comes back on this host with the marker, and sign-in goes on here.
func (p *Proxy) moveToOrigin(x *exchange) bool {
	if x.origin.Host == x.client.Host || x.origin.Port() == "" && x.origin.Hostname() == hostname(x.client.Host) {
		return false
	}
	c := p.attempts.cookie
	c.Name, c.Value, c.MaxAge = c.Name+"moved", "1", int((10 * time.Second).Seconds())
	if len(x.r.CookiesNamed(c.Name)) > 0 {
		return false
	}
	http.SetCookie(x, &c)
	p.redirect(x, x.origin.String()+returnPath(x.target, ""))
	return true
}

// redirectURI is what is registered at the provider: public origin, prefix, callback.
func (p *Proxy) redirectURI(x *exchange) string { return x.origin.String() + p.prefix + "/callback" }

// startURL is the address that begins a sign-in and comes back to rd.
func (p *Proxy) startURL(x *exchange, rd string) string {
	return x.origin.String() + p.prefix + "/start?rd=" + url.QueryEscape(rd)
}

// referringPage is the page of ours that a request came from; "/" when it does not tell.
func (p *Proxy) referringPage(x *exchange) string {
	from, err := url.Parse(x.r.Header.Get("Referer"))
	if err != nil || from.Scheme != x.origin.Scheme || from.Host != x.origin.Host {
		return "/"
	}
	return returnTo(from.RequestURI(), x.origin, nil, p.prefix)
}

// refresh is what the session manager calls when tokens are due.
func (pr *provider) refresh(ctx context.Context, s *session.Session) (session.Grant, error) {
	g, err := pr.idp.Refresh(ctx, s.Grant)
	var failed *session.RefreshError
	if errors.As(err, &failed) && failed.Kind == session.Rejected {
		pr.audit.event(ctx, auditRefreshRejected, slog.String("provider", pr.name), slog.String("user", s.Identity.User),
			slog.String("subject", s.Subject), slog.String("session", s.Handle()))
	}
	return g, err
}

// unavailable tells whether a provider's error means that it did not answer.
func unavailable(err error) bool {
	var u *idp.UnavailableError
	return errors.As(err, &u) || errors.Is(err, idp.ErrNotDiscovered)
}
