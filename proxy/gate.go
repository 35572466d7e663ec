package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"postern/proxy/access"
	"postern/session"
)

// verdictKind is what becomes of a request. The zero value denies.
type verdictKind int

const (
	verdictDeny        verdictKind = iota // known, and not allowed
	verdictAllow                          // forwarded
	verdictSignIn                         // nobody known: sign in, or 401
	verdictUnavailable                    // it cannot be known now: 503, the cookie stays
	verdictOwn                            // an endpoint of ours, or a request that reached no route
)

func (k verdictKind) String() string {
	return [...]string{"deny", "allow", "sign_in", "unavailable", "own"}[k]
}

// verdict is the one decision about a request; every way in renders the same one.
type verdict struct {
	Kind       verdictKind
	Reason     string           // a stable word for logs
	Detail     string           // after the reason in logs: why a rule could not be evaluated
	Session    *session.Session // who, when known
	Provider   *provider        // whose session that is; nil where there is none
	Demand     *access.Demand   // with verdictSignIn: the session lives, but the sign-in must be stronger or more recent (stepup.go)
	Ended      session.Reason   // why an earlier session no longer counts
	RetryAfter time.Duration    // with verdictUnavailable
	Bare       bool             // with verdictAllow: nothing about anybody and no token goes along
	Token      *tokenProblem    // why the access token that came along does not count
}

// reasonCrossSite is a request that a page of another site began, on a route with csrf: fetch_metadata.
const reasonCrossSite = "cross_site_request"

// isPreflight tells a CORS preflight (Fetch, section 3.2.2), which browsers send without any credentials.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// weight orders what the sessions of several providers come to, where none is let in: what cannot be known, then what a person can do about it.
func (v verdict) weight() int {
	switch {
	case v.Kind == verdictUnavailable:
		return 4
	case v.Demand != nil:
		return 3
	case v.Kind == verdictDeny:
		return 2
	case v.Ended != "":
		return 1
	}
	return 0
}

// logged is the reason with its detail.
func (v verdict) logged() string {
	if v.Detail == "" {
		return v.Reason
	}
	return v.Reason + ": " + v.Detail
}

// decide turns a request into its verdict. It alone lets requests pass.
//
// Flow: public routes need nobody → the access token that came along, where the route takes some → else for each of the route's providers: session from
// cookie → tokens fresh → the route's rule. The first session that is let in decides. If none is, one that cannot be looked up now comes before all
// others: it might have been let in. On an optional route nobody is let in without being known who could be known: there too a store that does not
// answer is 503.
func (p *Proxy) decide(ctx context.Context, x *exchange) verdict {
	rt := x.route
	if rt.csrf != nil {
		if err := rt.csrf.Check(x.r); err != nil {
			x.err = err
			return verdict{Kind: verdictDeny, Reason: reasonCrossSite}
		}
	}
	if rt.rule.Public() {
		return verdict{Kind: verdictAllow, Reason: "public"}
	}
	if d := rt.rule.Decide(ctx, nil, nil); !d.Allow && d.Need != access.SignIn {
		return verdict{Kind: verdictDeny, Reason: d.Reason} // signing in could not help
	}
	if rt.preflight && isPreflight(x.r) {
		return verdict{Kind: verdictAllow, Reason: "preflight", Bare: true} // no session is looked up either (A103)
	}
	providers := rt.providers
	if x.kept != nil { // it is for the person who had sent it alone
		providers = slices.DeleteFunc(slices.Clone(providers), func(pr *provider) bool { return pr.name != x.kept.Provider })
	} else if v, ok := p.presented(ctx, x); ok {
		return v
	}
	v := verdict{Kind: verdictDeny, Reason: "no_provider"} // where the route no longer takes that of a kept request
	var cause error
	for i, pr := range providers {
		next, err := p.decideBy(ctx, x, pr)
		if next.Kind == verdictAllow {
			return next
		}
		if i == 0 || next.weight() > v.weight() {
			v, cause = next, err
		}
	}
	x.err = causeOf(cause)
	if rt.rule.Optional() && v.Kind == verdictSignIn {
		return verdict{Kind: verdictAllow, Reason: access.ReasonOptional}
	}
	return v
}

// decideBy is the verdict by the browser's session with one provider. The error is why there is none.
func (p *Proxy) decideBy(ctx context.Context, x *exchange, pr *provider) (verdict, error) {
	rt := x.route
	s, err := p.signedIn(ctx, x.r, pr)
	if err != nil {
		return withoutSession(err), err
	}
	p.reseal(x, pr)
	v := x.judged(ctx, s, pr)
	switch {
	case v.Kind != verdictAllow:
	case crossOriginUpgrade(x.r, x.client) && !slices.Contains(rt.allowedOrigins, strings.ToLower(x.r.Header.Get("Origin"))):
		v.Kind, v.Reason = verdictDeny, "cross_origin_upgrade" // a WebSocket handshake carries the cookie from any page
	case rt.activity:
		pr.sessions.Touch(s)
	}
	return v, nil
}

// reconsider is the verdict about a request under way whose session with provider pr has become s, or is over (err). The time is still that when the request
// came, so that a stream is not cut because max_age has passed since. The request's context ends before a WebSocket does.
func (x *exchange) reconsider(pr *provider, s *session.Session, err error) verdict {
	if err != nil {
		return withoutSession(err)
	}
	return x.judged(context.WithoutCancel(x.r.Context()), s, pr)
}

// judged is what the route's rule makes of session s with provider pr, nil for an access token that came along.
func (x *exchange) judged(ctx context.Context, s *session.Session, pr *provider) verdict {
	v := verdict{Kind: verdictDeny, Session: s, Provider: pr}
	d := x.ruling(ctx, s)
	v.Reason, v.Detail = d.Reason, d.Detail
	switch {
	case d.Allow:
		v.Kind = verdictAllow
	case d.Need == access.StepUp:
		v.Kind, v.Demand = verdictSignIn, d.Demand
	}
	return v
}

// ruling is what the route's rule says about session s in this request.
func (x *exchange) ruling(ctx context.Context, s *session.Session) access.Decision {
	var q *access.Request
	if x.route.rule.ReadsRequest() {
		q = x.request()
	}
	return x.route.rule.Decide(ctx, s, q)
}

// signedIn is the request's session with tokens that are good to use, or why there is none.
func (p *Proxy) signedIn(ctx context.Context, r *http.Request, pr *provider) (*session.Session, error) {
	s, err := pr.sessions.Load(ctx, r.Header)
	if err != nil {
		return nil, err
	}
	return pr.sessions.Fresh(ctx, s, pr.refresh)
}

// reseal gives the browser, whose session was just found, its cookie under the newest of session.keys if it is under an older one. An
// answer that carries it is not for caches (A113); see modifyResponse and own.
func (p *Proxy) reseal(x *exchange, pr *provider) {
	if c := pr.sessions.Reseal(x.r.Header); c != nil {
		http.SetCookie(x, c)
	}
}

// withoutSession tells absent from broken: only what is truly absent or over leads to signing in.
func withoutSession(err error) verdict {
	var ended *session.EndedError
	var retry *session.RetryError
	switch {
	case errors.As(err, &ended):
		v := verdict{Kind: verdictSignIn, Reason: "session_ended_" + string(ended.Reason), Ended: ended.Reason}
		if ended.Reason == session.ReasonKeyUnknown || ended.Reason == session.ReasonTampered {
			v.Ended = "" // whoever makes cookies up learns nothing from the answer
		}
		return v
	case errors.Is(err, session.ErrNone):
		return verdict{Kind: verdictSignIn, Reason: "no_session"}
	case errors.As(err, &retry):
		return verdict{Kind: verdictUnavailable, Reason: "provider_unavailable", RetryAfter: retry.After}
	default:
		return verdict{Kind: verdictUnavailable, Reason: "store_unavailable"}
	}
}

// causeOf is the part of an error that the log should have: that there simply is no session is told by the reason.
func causeOf(err error) error {
	if err == session.ErrNone {
		return nil
	}
	return err
}

// visitor is what kind of request asks, as far as it decides how a missing session is answered.
type visitor int

const (
	program  visitor = iota // fetch, XHR, curl, an image: 401 as JSON, never a redirect, never a cookie
	person                  // a page navigation that may start a sign-in
	framed                  // a page in an iframe: sign-in there would fail or be hidden from the person
	formPost                // a navigation that sends something
)

// visitorOf tells people from programs by Fetch Metadata, else (old browsers, plain http) by what they accept.
func visitorOf(r *http.Request) visitor {
	h := r.Header
	if h.Get("Sec-Purpose") != "" || h.Get("Purpose") == "prefetch" || h.Get("X-Moz") == "prefetch" ||
		h.Get("X-Requested-With") == "XMLHttpRequest" || isUpgrade(r) {
		return program
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != "" {
		if mode != "navigate" {
			return program
		}
		switch h.Get("Sec-Fetch-Dest") {
		case "document", "":
		case "iframe", "frame", "embed", "object", "fencedframe":
			return framed
		default:
			return program
		}
	} else if !wantsHTML(r) {
		return program
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return formPost
	}
	return person
}

// mayBePerson tells a request that could be for a page although it does not say so: one without Fetch Metadata that asks for anything.
func mayBePerson(r *http.Request) bool {
	h := r.Header
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && h.Get("Sec-Fetch-Mode") == "" && !isUpgrade(r) &&
		h.Get("X-Requested-With") == "" && h.Get("Sec-Purpose") == "" && h.Get("Purpose") == "" && h.Get("X-Moz") == ""
}

// wantsHTML tells whether an answer for people is understood.
func wantsHTML(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept") {
		if strings.Contains(line, "text/html") || strings.Contains(line, "application/xhtml+xml") {
			return true
		}
	}
	return false
}

func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// crossOriginUpgrade tells a WebSocket handshake that a page of another origin began. Browsers send cookies with it and no same-origin policy holds
// it back, so with a session it is refused. Programs other than browsers send no Origin: they pass.
func crossOriginUpgrade(r *http.Request, c clientInfo) bool {
	if len(r.Header["Upgrade"]) == 0 {
		return false
	}
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return false
	}
	scheme, host, ok := strings.Cut(origins[0], "://")
	if len(origins) > 1 || !ok { // "null" among them
		return true
	}
	switch {
	case strings.EqualFold(scheme, "https"):
	case strings.EqualFold(scheme, "http"):
		if c.Scheme == "https" { // a page that anyone on the network could have written
			return true
		}
	default:
		return true
	}
	name, port := splitOrigin(host, defaultPort(strings.ToLower(scheme)))
	// A proxy before us that speaks plain http to us without saying so leaves c.Scheme at http: then a page at https and its default port is taken
	// for the same.
	wantName, wantPort := splitOrigin(c.Host, defaultPort(strings.ToLower(scheme)))
	return !strings.EqualFold(name, wantName) || port != wantPort || name == ""
}

func splitOrigin(host, fallback string) (name, port string) {
	if n, p, err := net.SplitHostPort(host); err == nil {
		return n, p
	}
	return strings.Trim(host, "[]"), fallback
}
