package proxy

import (
	"encoding/json"
	"net/http"
	"slices"

	"postern/proxy/page"
	"postern/session"
)

// render answers a request with its verdict.
func (p *Proxy) render(x *exchange) {
	v := x.verdict
	if v.Token != nil {
		p.refuseToken(x)
		return
	}
	if v.Session != nil { // it arrived
		p.attempts.forgetSignIns(x)
	}
	switch v.Kind {
	case verdictAllow:
		p.forward(x)
	case verdictSignIn:
		p.askToSignIn(x)
	case verdictUnavailable:
		p.setRetryAfter(x, v.RetryAfter)
		say := noticeStoreDown
		if v.Reason == "provider_unavailable" {
			say = noticeNoRefresh
		}
		again := returnTo(x.target, x.origin, nil, p.prefix)
		if x.kept != nil {
			again = p.prefix + keptEndpoint
		}
		p.answer(x, http.StatusServiceUnavailable, say, page.Link{Say: "try_again", URL: again, Primary: true})
	default:
		if v.Reason == reasonCrossSite {
			p.answer(x, http.StatusForbidden, problems[http.StatusForbidden])
			return
		}
		if v.Session == nil {
			p.answer(x, http.StatusForbidden, noticeClosed)
			return
		}
		if ofToken(v.Session) {
			p.problem(x, http.StatusForbidden, noticeDenied.inEnglish(), nil)
			return
		}
		p.answer(x, http.StatusForbidden, noticeDenied, p.otherAccount(x)...)
	}
}

// forward hands an allowed request to the application.
func (p *Proxy) forward(x *exchange) {
	rt, s := x.route, x.verdict.Session
	f := forward{Session: s, Client: x.client, KeepAuthorization: s == nil && rt.keepAuthorization && !x.verdict.Bare}
	if !x.verdict.Bare && (rt.headers != nil || rt.response != nil) {
		q := x.request()
		f.OwnHeaders = rt.headers != nil
		f.Headers = compute(x.r.Context(), p.log, rt.headers, s, q)
		f.Response = compute(x.r.Context(), p.log, rt.response, s, q)
	}
	var err error
	if rt.assertion != nil && s != nil {
		signed, err := p.asserter.sign(x, rt.assertion.audience)
		if err != nil {
			p.refuse(x, http.StatusInternalServerError, "assertion_not_signed", err)
			return
		}
		f.Headers = append(f.Headers, computedHeader{rt.assertion.header, signed})
	}
	if f.Bearer, err = p.bearer(x); err != nil {
		p.noBearer(x, err)
		return
	}
	if x.asked {
		p.grant(x, f)
		return
	}
	if s != nil {
		f.Renew = rt.renew
	}
	if x.kept != nil && !p.takeKept(x) {
		return
	}
	x.letRest()
	x.asking = p.tracer.Upstream(x.r.Context(), x.r.Method)
	f.Span = x.asking
	defer func() {
		if x.tunnel == nil {
			x.leaveApplication()
		}
	}()
	x.tunnel = x.route.upstream.serve(x, x.r, f)
}

// words is what an answer says: code to programs, and to people the page's texts of that name, whose English is the problem's title and detail.
// They are fixed sentences: nothing of a request or an error reaches them.
type words struct{ code, say string }

var (
	noticeFramed       = words{"sign_in_required", "framed"}
	noticeNotSent      = words{"sign_in_required", "not_sent"}
	noticeSignIn       = words{"sign_in_required", "sign_in"}
	noticeNobody       = words{"sign_in_required", "nobody"}
	noticeLoop         = words{"sign_in_loop", "loop"}
	noticeStray        = words{"stray_callback", "stray"}
	noticeRefused      = words{"access_denied", "refused"}
	noticeProviderDown = words{"provider_unavailable", "provider_down"}
	noticeNoRefresh    = words{"provider_unavailable", "no_refresh"}
	noticeStoreDown    = words{"store_unavailable", "store_down"}
	noticeNotStored    = words{"store_unavailable", "not_stored"}
	noticeNotSignedOut = words{"store_unavailable", "not_signed_out"}
	noticeNotEnded     = words{"store_unavailable", "not_ended"}
	noticeBadAnswer    = words{"bad_provider_answer", "bad_answer"}
	noticeChoose       = words{"choose_provider", "choose"}
	noticeStepUp       = words{codeStepUp, "step_up"}
	noticeNotEnough    = words{codeStepUp, "not_enough"}
	noticeDenied       = words{"access_denied", "denied"}
	noticeClosed       = words{"access_denied", "closed"}
	noticeNoToken      = words{"application_token_refused", "no_token"}
	noticeCleared      = words{"cookies_cleared", "cleared"}
	noticeSignedOut    = words{"signed_out", "signed_out"}
	noticeKept         = words{"sign_in_required", "kept"}
	noticeKeptGone     = words{"not_kept", "kept_gone"}
	noticeKeptSent     = words{"already_sent", "kept_sent"}
	noticeKeptOther    = words{"other_user", "kept_other"}
)

// problems are the words for requests that reach no route or no application.
var problems = map[int]words{
	http.StatusBadRequest:                  {"bad_request", "bad_request"},
	http.StatusForbidden:                   {"forbidden", "forbidden"},
	http.StatusNotFound:                    {"not_found", "not_found"},
	http.StatusMethodNotAllowed:            {"method_not_allowed", "method_not_allowed"},
	http.StatusRequestTimeout:              {"request_timeout", "request_timeout"},
	http.StatusRequestEntityTooLarge:       {"too_large", "too_large"},
	http.StatusMisdirectedRequest:          {"misdirected", "misdirected"},
	http.StatusRequestURITooLong:           {"target_too_long", "target_too_long"},
	http.StatusRequestHeaderFieldsTooLarge: {"header_too_large", "header_too_large"},
	http.StatusLoopDetected:                {"loop", "endless"},
	http.StatusInternalServerError:         {"internal", "internal"},
	http.StatusBadGateway:                  {"bad_gateway", "bad_gateway"},
	http.StatusServiceUnavailable:          {"unavailable", "unavailable"},
	http.StatusGatewayTimeout:              {"gateway_timeout", "gateway_timeout"},
}

// refuse answers a request that goes nowhere, with the words for its status. The reason and the error are for the log.
func (p *Proxy) refuse(x *exchange, status int, reason string, err error) {
	x.verdict = verdict{Kind: verdictOwn, Reason: reason, Session: x.verdict.Session}
	if err != nil {
		x.err = err
	}
	if x.asked && p.dialect == dialectNginx && status < http.StatusInternalServerError {
		status = http.StatusForbidden // auth_request takes any other for a failure of ours
	}
	p.answer(x, status, problems[status])
}

// upstreamFailed answers for an application that did not.
func (p *Proxy) upstreamFailed(w http.ResponseWriter, r *http.Request, f failure) {
	x := exchangeOf(w)
	if v := x.revised.Load(); v != nil && f.Status == http.StatusUnauthorized {
		x.verdict = *v
		p.render(x)
		return
	}
	x.failed = true
	x.reason(f.Reason, f.Err)
	if f.Status == statusClientClosed {
		x.status = f.Status
		x.WriteHeader(http.StatusBadRequest) // if somebody is there after all, net/http would say 200 for us
		return
	}
	p.answer(x, f.Status, problems[f.Status])
}

// statusClientClosed is nginx's number for a client that left before the answer; it is only ever logged.
const statusClientClosed = 499

// answer says the same to people as a page and to programs as problem JSON, by what the request asks for.
func (p *Proxy) answer(x *exchange, status int, say words, links ...page.Link) {
	if wantsHTML(x.r) {
		p.notice(x, status, say, links...)
		return
	}
	p.problem(x, status, say.inEnglish(), nil)
}

// notice writes a page. One that turns an account away says which.
func (p *Proxy) notice(x *exchange, status int, say words, links ...page.Link) {
	n := page.Notice{Status: status, Say: say.say, Ended: string(x.verdict.Ended), RequestID: x.client.RequestID, Links: links}
	if s := x.verdict.Session; s != nil && (x.verdict.Kind == verdictDeny || say == noticeKeptOther) {
		n.Account = accountName(s)
	}
	p.own(x.Header())
	if status == http.StatusUnauthorized {
		p.setChallenge(x)
	}
	p.pages.Notice(x, x.r, n)
}

// setChallenge says how one may be known, as each 401 must (RFC 9110 section 15.5.2). Browsers do not ask for anything by it.
func (p *Proxy) setChallenge(x *exchange) {
	h := x.Header()
	challenge := `Bearer realm="` + hostname(x.origin.Host) + `"`
	switch v := x.verdict; {
	case v.Demand != nil:
		challenge += stepUpChallenge(v.Demand)
	case v.Token != nil:
		challenge += v.Token.challenge()
	}
	h.Set("WWW-Authenticate", challenge)
	if x.route == nil || len(x.route.cors) == 0 {
		return
	}
	h.Add("Vary", "Origin")
	if origin := x.r.Header.Get("Origin"); slices.Contains(x.route.cors, origin) {
		// It holds nothing about anybody, and a script that sent cookies along may read it only with both.
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", "WWW-Authenticate")
	}
}

// accountName is how a person knows an account.
func accountName(s *session.Session) string {
	for _, name := range []string{s.Identity.Email, s.Identity.PreferredUsername, s.Identity.Name} {
		if name != "" {
			return name
		}
	}
	return s.Identity.User
}

// challenge answers 401 for programs: RFC 6750 section 3 (no error code, since nothing was presented) and a problem that says where to sign in.
// It sets no cookie.
func (p *Proxy) challenge(x *exchange) { p.challengeFor(x, p.referringPage(x), map[string]any{}) }

// challengeFor is challenge where signing in leads to rd, with more members in the problem.
func (p *Proxy) challengeFor(x *exchange, rd string, more map[string]any) {
	p.setChallenge(x)
	more["login_url"] = p.startURL(x, rd)
	if x.verdict.Ended != "" {
		more["ended"] = x.verdict.Ended
	}
	say := told{"sign_in_required", "Sign-in required", "There is no session. Open login_url in a browser window."}
	if d := x.verdict.Demand; d != nil {
		say = told{codeStepUp, "Stronger sign-in required", "The session is of a sign-in that is too weak or too old. Open login_url in a browser window."}
		if len(d.ACR) > 0 {
			more["acr_values"] = d.ACR
		}
		if d.MaxAge > 0 {
			more["max_age"] = int(d.MaxAge.Seconds())
		}
	}
	p.problem(x, http.StatusUnauthorized, say, more)
}

// told is what an answer says to programs, in English.
type told struct{ code, title, text string }

func (w words) inEnglish() told {
	title, text := page.English(w.say)
	return told{w.code, title, text}
}

// problem writes problem JSON (RFC 9457).
func (p *Proxy) problem(x *exchange, status int, say told, more map[string]any) {
	body := map[string]any{"type": "about:blank", "title": say.title, "status": status, "detail": say.text, "code": say.code, "request_id": x.client.RequestID}
	for k, v := range more {
		body[k] = v
	}
	h := x.Header()
	p.own(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		_ = json.NewEncoder(x).Encode(body) // a client that left is no error of ours
	}
}

// redirect sends a browser on with GET. The address was built by us or checked by returnTo.
func (p *Proxy) redirect(x *exchange, address string) {
	h := x.Header()
	p.own(h)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", address)
	x.WriteHeader(http.StatusSeeOther)
}

// own sets what every answer of ours has: no cache keeps it, and browsers keep to https.
func (p *Proxy) own(h http.Header) {
	noStore(h)
	if p.hsts != "" {
		h.Set("Strict-Transport-Security", p.hsts)
	}
}

// noStore keeps an answer of ours out of every cache.
func noStore(h http.Header) { h.Set("Cache-Control", "no-store") }

// otherAccount leads somebody whose account may not open a page to another one.
func (p *Proxy) otherAccount(x *exchange) []page.Link {
	const say = "another_account"
	signOut := p.prefix + "/logout"
	if x.route == nil || len(x.route.providers) == 1 {
		return []page.Link{{Say: say, URL: signOut, Primary: true}}
	}
	anew := p.startAnew(x, x.target)
	anew.Say = say
	return []page.Link{anew, {Say: "sign_out", URL: signOut}}
}

// startAnew is a sign-in button on a page about one that came to nothing, or is over: of several providers it lets the person choose, whatever was
// chosen before.
func (p *Proxy) startAnew(x *exchange, rd string) page.Link {
	link := p.startLink(x, rd, false)
	if x.verdict.Demand == nil && len(p.providersFor(x, rd)) > 1 {
		link.URL += "&provider="
	}
	return link
}

// startLink is a sign-in button.
func (p *Proxy) startLink(x *exchange, rd string, top bool) page.Link {
	return page.Link{Say: "sign_in", URL: p.startURL(x, returnTo(rd, x.origin, p.returnHosts, p.prefix)), Primary: true, Top: top}
}
