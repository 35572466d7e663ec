package proxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"postern/proxy/access"
	"postern/proxy/idp"
	"postern/session"
)

// askToSignIn answers a request that needs a session and has none.
//
// Flow: a page navigation on the public origin begins a sign-in → on another host it is sent to the public origin first → a
// navigation that sends something, a frame, a prefetch or a program gets 401 and no cookie, but for one whose request is kept (keep.go). A route's `unauthenticated` changes who counts as what.
func (p *Proxy) askToSignIn(x *exchange) {
	visitor := visitorOf(x.r)
	if x.goesToSignIn() {
		switch {
		case p.moveToOrigin(x):
		case x.route.keepFragment && visitor == person && !x.asked: // a proxy that asks does not hand the page on
			p.keepFragment(x, returnTo(x.target, x.origin, nil, p.prefix))
		default:
			p.goToSignIn(x)
		}
		return
	}
	if x.kept != nil { // it is still kept
		say := noticeKept
		if x.verdict.Demand != nil {
			say = noticeStepUp
		}
		p.notice(x, http.StatusUnauthorized, say, p.startLink(x, p.prefix+keptEndpoint, false))
		return
	}
	say, rd := noticeSignIn, x.target
	switch kept := p.keep(x); {
	case visitor == program && kept:
		p.challengeFor(x, p.prefix+keptEndpoint, map[string]any{"kept": true})
		return
	case visitor == program:
		p.challenge(x)
		return
	case kept:
		p.notice(x, http.StatusUnauthorized, noticeKept, p.startLink(x, p.prefix+keptEndpoint, false))
		return
	case visitor == formPost:
		say, rd = noticeNotSent, p.referringPage(x)
	case visitor == framed:
		say = noticeFramed
	}
	if x.route.unauthenticated == "deny" {
		say = noticeSignIn
	}
	if x.verdict.Demand != nil {
		say = noticeStepUp
	}
	p.notice(x, http.StatusUnauthorized, say, p.startLink(x, rd, visitor == framed))
}

// goToSignIn sends a page navigation on: to the provider of the session that is not good enough, to the only provider of the route or the one
// that this browser has chosen before, else to the page to choose.
func (p *Proxy) goToSignIn(x *exchange) {
	rd := returnTo(x.target, x.origin, nil, p.prefix)
	pr := x.verdict.Provider
	if pr == nil {
		pr = p.chosen(x, x.route.providers, nil)
	}
	if pr == nil {
		p.redirect(x, p.startURL(x, rd))
		return
	}
	p.begin(x, pr, signIn{rd: rd, count: p.attempts.signIns(x), demand: cmp.Or(x.verdict.Demand, x.route.rule.Demand())})
}

// goesToSignIn tells whether a request that needs a session and has none leads to the provider by itself: a page navigation, where the
// route's `unauthenticated` does not say otherwise.
func (x *exchange) goesToSignIn() bool {
	if x.verdict.Token != nil {
		return false
	}
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
	q := x.r.URL.Query()
	rd := returnTo(q.Get("rd"), x.origin, p.returnHosts, p.prefix)
	p.openStepUp(x, q.Get("step_up"))
	switch visitorOf(x.r) {
	case person:
		if !p.moveToOrigin(x) {
			p.start(x, rd, q)
		}
	case framed:
		p.notice(x, http.StatusUnauthorized, noticeFramed, p.startLink(x, rd, true))
	default:
		p.challenge(x)
	}
}

// start begins a sign-in for the page rd, as a link with the parameters q wants it.
func (p *Proxy) start(x *exchange, rd string, q url.Values) {
	providers := p.providersFor(x, rd)
	pr := x.verdict.Provider
	if pr == nil {
		pr = p.chosen(x, providers, q)
	}
	switch {
	case pr == nil:
		p.choose(x, providers, rd, q)
	case pr.password != nil:
		p.showForm(x, pr, rd, p.attempts.signIns(x))
	default:
		p.begin(x, pr, signIn{rd: rd, count: p.attempts.signIns(x), demand: p.demandFor(x, rd), params: q})
	}
}

// signIn is what a sign-in is for.
type signIn struct {
	rd     string         // where the person goes afterwards
	count  int            // sign-ins in a row that went before it
	demand *access.Demand // how strong and recent it must be; nil: any will do
	again  bool           // the provider signed the person in just now, by a sign-in that was too old
	params url.Values     // what a link to start wants to tell the provider, of which the provider's start_params pass
}

// begin sends the browser to the provider with a new attempt.
func (p *Proxy) begin(x *exchange, pr *provider, s signIn) {
	if p.looping(x, s.rd, s.count) {
		return
	}
	if pr.password != nil {
		p.redirect(x, p.startURL(x, s.rd)+"&provider="+pr.name)
		return
	}
	at := p.newAttempt(pr, s.rd, s.count)
	at.Again = s.again
	if s.demand != nil {
		at.Demand = *s.demand
	}
	state, err := p.attempts.state(at, x.origin.String())
	if err != nil {
		p.refuse(x, http.StatusInternalServerError, "seal_failed", err)
		return
	}
	b := idp.Begin{State: state, Secret: at.Secret, RedirectURI: p.redirectURI(x, pr), Params: s.params, ACR: at.Demand.ACR, MaxAge: at.Demand.MaxAge}
	if at.Again {
		b.Prompt = "login"
	}
	address, err := pr.idp.Begin(x.r.Context(), b)
	if err != nil {
		x.err = err
		x.Header().Set("Retry-After", "5")
		p.notice(x, http.StatusServiceUnavailable, noticeProviderDown, p.startAnew(x, s.rd))
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
	say := noticeLoop
	if x.verdict.Demand != nil {
		say = noticeNotEnough
	}
	p.notice(x, http.StatusBadRequest, say, p.startAnew(x, rd))
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
func (p *Proxy) redirectURI(x *exchange, pr *provider) string {
	return x.origin.String() + p.prefix + "/" + pr.callback
}

// startURL is the address that begins a sign-in, or the step-up that the verdict asks for, and comes back to rd.
func (p *Proxy) startURL(x *exchange, rd string) string {
	return x.origin.String() + p.prefix + "/start?" + p.stepUpParam(x) + "rd=" + url.QueryEscape(rd) // the last: see fragmentScript
}

// referringPage is the page of ours that a request came from; "/" when it does not tell.
func (p *Proxy) referringPage(x *exchange) string { return p.ownPage(x, x.r.Header.Get("Referer")) }

// ownPage is a page of ours by its absolute address; "/" for any other.
func (p *Proxy) ownPage(x *exchange, address string) string {
	from, err := url.Parse(address)
	if err != nil || from.Scheme != x.origin.Scheme || from.Host != x.origin.Host {
		return "/"
	}
	return returnTo(from.RequestURI(), x.origin, nil, p.prefix)
}

// refreshTokens is what the session manager calls when tokens are due, as pr.refresh.
func (pr *provider) refreshTokens(ctx context.Context, s *session.Session) (session.Grant, error) {
	g, err := pr.idp.Refresh(ctx, s.Grant)
	pr.refreshed(ctx, s, err)
	return g, err
}

// refreshed takes note of what came of sending the refresh token of s.
func (pr *provider) refreshed(ctx context.Context, s *session.Session, err error) {
	if err == nil {
		pr.metrics.Refresh(pr.name, "refreshed")
		return
	}
	kind := session.Unknown
	var failed *session.RefreshError
	if errors.As(err, &failed) {
		kind = failed.Kind
	}
	pr.metrics.Refresh(pr.name, kind.String())
	if kind == session.Rejected {
		pr.audit.event(ctx, auditRefreshRejected, slog.String("provider", pr.name), slog.String("user", s.Identity.User),
			slog.String("subject", s.Subject), slog.String("session", s.Handle()))
	}
}

// unavailable tells whether a provider's error means that it did not answer.
func unavailable(err error) bool {
	var u *idp.UnavailableError
	return errors.As(err, &u) || errors.Is(err, idp.ErrNotDiscovered)
}
