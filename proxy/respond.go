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
		p.answer(x, http.StatusServiceUnavailable, say, page.Link{Text: "Try again", URL: again, Primary: true})
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
			p.problem(x, http.StatusForbidden, noticeDenied, nil)
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
	f.Span = p.tracer.Upstream(x.r.Context(), x.r.Method)
	defer func() {
		if !x.sent.IsZero() {
			x.upstream = p.now().Sub(x.sent)
		}
		f.Span.End()
	}()
	x.route.upstream.serve(x, x.r, f)
}

// words is what a page says. Title and text are fixed sentences: nothing of a request or an error reaches them.
type words struct {
	code        string // the problem's type for programs
	title, text string
	details     []string
}

var (
	noticeFramed = words{code: "sign_in_required", title: "Please sign in",
		text: "This part of the page needs you to be signed in. Sign-in opens in the whole window."}
	noticeNotSent = words{code: "sign_in_required", title: "Your session ended",
		text: "Nothing was sent. Sign in, then send your form again; your browser's Back button usually still has what you typed."}
	noticeSignIn = words{code: "sign_in_required", title: "You are not signed in", text: "This page is for people who are signed in."}
	noticeNobody = words{code: "sign_in_required", title: "You are not signed in", text: "Sign in to see your session."}
	noticeLoop   = words{code: "sign_in_loop", title: "Sign-in does not hold",
		text: "You signed in several times in a row, but your session did not arrive here. Usual causes:",
		details: []string{
			"The browser blocks or deletes cookies for this site.",
			"The clock of this computer or of the server is wrong by minutes.",
			"The page is opened with http://, while the session cookie is sent over https:// only.",
			"The site's cookies are too large altogether; delete the cookies of this site and try again.",
		}}
	noticeStray = words{code: "stray_callback", title: "This sign-in link is no longer good",
		text: "It was used before, is too old, or was started in another browser. Please sign in again."}
	noticeRefused = words{code: "access_denied", title: "You were not signed in",
		text: "The identity provider reports that the sign-in was cancelled or refused."}
	noticeProviderDown = words{code: "provider_unavailable", title: "The identity provider does not answer",
		text: "Signing in is not possible at the moment. Please try again shortly."}
	noticeNoRefresh = words{code: "provider_unavailable", title: "The identity provider does not answer",
		text: "You are not signed out, but your session cannot be prolonged at the moment. Please try again shortly."}
	noticeStoreDown = words{code: "store_unavailable", title: "Your session cannot be checked at the moment",
		text: "You are not signed out. Please try again shortly."}
	noticeNotStored = words{code: "store_unavailable", title: "You could not be signed in",
		text: "Signing in is not possible at the moment, because the session store does not answer. Please try again shortly."}
	noticeNotSignedOut = words{code: "store_unavailable", title: "You are not signed out yet",
		text: "Your session could not be ended, because the session store does not answer. Please try again."}
	noticeNotEnded = words{code: "store_unavailable", title: "Not ended yet",
		text: "The sessions could not be ended, because the session store does not answer. Please try again."}
	noticeBadAnswer = words{code: "bad_provider_answer", title: "The sign-in could not be completed",
		text: "The identity provider's answer was not right. If it happens again, tell the people who run this site and name the request."}
	noticeChoose = words{code: "choose_provider", title: "Sign in", text: "Choose where you have an account."}
	noticeStepUp = words{code: codeStepUp, title: "Please confirm your sign-in",
		text: "You are signed in, but this page needs a stronger or more recent sign-in. Nothing was sent to it."}
	noticeNotEnough = words{code: codeStepUp, title: "This sign-in is not enough here",
		text: "The identity provider signed you in, but not as strongly or as recently as this page asks for. Usual causes:",
		details: []string{
			"A second factor, such as a security key or an app with codes, is not set up for your account.",
			"The identity provider did not ask you to sign in again, although it was told to.",
		}}
	noticeDenied = words{code: "access_denied", title: "No access",
		text: "You are signed in, but this account may not open this page."}
	noticeClosed  = words{code: "access_denied", title: "No access", text: "Nobody may open this page."}
	noticeNoToken = words{code: "application_token_refused", title: "The application cannot be reached with your account",
		text: "The identity provider gives no permission for it. If that is not right, name the request to the people who run this site."}
	noticeCleared   = words{code: "cookies_cleared", title: "The cookies are deleted", text: "If the site still does not open, come back here and delete them once more."}
	noticeSignedOut = words{code: "signed_out", title: "You are signed out", text: "You can close this window."}
)

// problems are the words for requests that reach no route or no application.
var problems = map[int]words{
	http.StatusBadRequest:            {code: "bad_request", title: "Bad request", text: "This address or request is not well-formed."},
	http.StatusForbidden:             {code: "forbidden", title: "Not allowed", text: "This request came from another site and was refused."},
	http.StatusNotFound:              {code: "not_found", title: "Nothing here", text: "There is no page at this address."},
	http.StatusMethodNotAllowed:      {code: "method_not_allowed", title: "Method not allowed", text: "This address does not take requests of this kind."},
	http.StatusRequestTimeout:        {code: "request_timeout", title: "Too slow", text: "The request did not arrive in time. Please try again."},
	http.StatusRequestEntityTooLarge: {code: "too_large", title: "Too large", text: "This is more than may be sent here."},
	http.StatusMisdirectedRequest:    {code: "misdirected", title: "Unknown host", text: "This server does not serve that host name."},
	http.StatusRequestURITooLong:     {code: "target_too_long", title: "The address is too long", text: "This is more than may be sent here."},
	http.StatusRequestHeaderFieldsTooLarge: {code: "header_too_large", title: "The request's header is too large",
		text: "This is more than may be sent here. If a browser has too many cookies of this site, delete them."},
	http.StatusLoopDetected:        {code: "loop", title: "This address leads back to itself", text: "The site is not set up correctly. Tell the people who run it and name the request."},
	http.StatusInternalServerError: {code: "internal", title: "Something went wrong here", text: "Please try again. If it happens again, name the request to the people who run this site."},
	http.StatusBadGateway:          {code: "bad_gateway", title: "The application does not answer", text: "It could not be reached. Please try again shortly."},
	http.StatusServiceUnavailable:  {code: "unavailable", title: "The application cannot be reached at the moment", text: "A part that it depends on does not answer. Please try again shortly."},
	http.StatusGatewayTimeout:      {code: "gateway_timeout", title: "The application takes too long", text: "It did not answer in time. Please try again."},
}

// endedSentences tell people why they have to sign in again. key_unknown and tampered have none: see withoutSession.
var endedSentences = map[session.Reason]string{
	session.ReasonIdle:            "You were signed out because you were away for a while.",
	session.ReasonLifetime:        "Your session reached its greatest age.",
	session.ReasonRefreshRejected: "The identity provider did not prolong your session.",
	session.ReasonTokenExpired:    "The identity provider's permission ran out.",
	session.ReasonSignedOut:       "You signed out.",
	session.ReasonBackChannel:     "You were signed out at the identity provider.",
	session.ReasonFrontChannel:    "You were signed out at the identity provider.",
	session.ReasonAdmin:           "An administrator ended your session.",
	session.ReasonLimit:           "You signed in on too many devices; the oldest session ended.",
	session.ReasonReplaced:        "A newer sign-in in this browser took the place of your session.",
	session.ReasonStoreMiss:       "Your session is no longer known here.",
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
	p.problem(x, status, say, nil)
}

// notice writes a page.
func (p *Proxy) notice(x *exchange, status int, say words, links ...page.Link) {
	n := page.Notice{Status: status, Title: say.title, Text: say.text, Details: say.details, RequestID: x.client.RequestID, Links: links}
	if why := endedSentences[x.verdict.Ended]; why != "" {
		n.Details = append([]string{why}, n.Details...)
	}
	if x.verdict.Kind == verdictDeny && x.verdict.Session != nil {
		if name := accountName(x.verdict.Session); name != "" {
			n.Details = append(n.Details, "Signed in as "+name+".")
		}
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
	say := words{code: "sign_in_required", title: "Sign-in required", text: "There is no session. Open login_url in a browser window."}
	if d := x.verdict.Demand; d != nil {
		say = words{code: codeStepUp, title: "Stronger sign-in required",
			text: "The session is of a sign-in that is too weak or too old. Open login_url in a browser window."}
		if len(d.ACR) > 0 {
			more["acr_values"] = d.ACR
		}
		if d.MaxAge > 0 {
			more["max_age"] = int(d.MaxAge.Seconds())
		}
	}
	p.problem(x, http.StatusUnauthorized, say, more)
}

// problem writes problem JSON (RFC 9457).
func (p *Proxy) problem(x *exchange, status int, say words, more map[string]any) {
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
	const text = "Sign in with another account"
	signOut := p.prefix + "/logout"
	if x.route == nil || len(x.route.providers) == 1 {
		return []page.Link{{Text: text, URL: signOut, Primary: true}}
	}
	anew := p.startAnew(x, x.target)
	anew.Text = text
	return []page.Link{anew, {Text: "Sign out", URL: signOut}}
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
	return page.Link{Text: "Sign in", URL: p.startURL(x, returnTo(rd, x.origin, p.returnHosts, p.prefix)), Primary: true, Top: top}
}
