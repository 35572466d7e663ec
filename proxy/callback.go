package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"postern/proxy/idp"
	"postern/proxy/page"
	"postern/session"
)

// maxCallbackBytes bounds a posted callback; net/http bounds the query.
const maxCallbackBytes = 64 << 10

// finishTimeout bounds the calls of one callback to provider and store together; each call has its own limit too.
const finishTimeout = 45 * time.Second

// callback ends a sign-in attempt.
//
// Flow:
//  1. the state opens under our keys and names a provider whose answers arrive here, else it is not an answer to anything that we began;
//  2. this browser has the attempt's cookie and the attempt was not used before, else a live session goes on to the
//     application, and without one the sign-in begins again (never after error=…);
//  3. the provider module checks everything about the answer and exchanges the code; a sign-in that is older than asked for is tried once more;
//  4. a new session under a new id takes the place of this browser's old one;
//  5. the browser goes on, by 303, to the page that it wanted.
func (p *Proxy) callback(x *exchange) {
	params, posted, err := callbackParams(x)
	if err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_callback", err)
		return
	}
	pr, begun, failed, err := p.answered(x, params)
	if err != nil {
		p.strayCallback(x, failed, err)
		return
	}
	at, err := p.attempts.find(x, pr, begun.ID)
	if err != nil {
		p.lateCallback(x, pr, begun, failed, err)
		return
	}
	done, first := p.used.claim(at.ID)
	if first {
		p.used.use(at.ID, done, func() outcome {
			return p.storeSession(x, pr, func(ctx context.Context) (session.Grant, error) {
				return pr.idp.Finish(ctx, idp.Finish{
					Params: params, Posted: posted, Secret: at.Secret, RedirectURI: p.redirectURI(x, pr), ACR: at.Demand.ACR, MaxAge: at.Demand.MaxAge,
				})
			})
		})
	} else if !done.wait(x.r.Context()) {
		p.lateCallback(x, pr, begun, failed, errors.New("the attempt was used before"))
		return
	}
	p.attempts.expire(x, p.attempts.name(at.ID))
	if weak := insufficient(done.outcome.err); weak != nil {
		p.signInTooWeak(x, pr, at, weak)
		return
	}
	if done.outcome.err != nil {
		p.signInFailed(x, at, done.outcome.err)
		return
	}
	x.reason("signed_in", nil)
	p.welcome(x, at, done.outcome)
}

// outcome is what came of one attempt.
type outcome struct {
	session *session.Session
	cookie  *http.Cookie
	err     error
}

// errNotStored says that the provider signed the person in and the store did not take the session.
var errNotStored = errors.New("store session")

// storeSession ends a sign-in that was begun, whatever comes of it.
func (p *Proxy) storeSession(x *exchange, pr *provider, obtain func(context.Context) (session.Grant, error)) outcome {
	o := p.newSession(x, pr, obtain)
	p.auditSignedIn(x, pr, o)
	if o.err == nil {
		p.metrics.SignIn(pr.name, "signed_in")
	} else {
		p.metrics.SignIn(pr.name, refusalOf(pr, o.err))
	}
	return o
}

// newSession obtains a grant and stores its session. A code works once, so a browser that goes away meanwhile (a double click) does
// not stop it.
func (p *Proxy) newSession(x *exchange, pr *provider, obtain func(context.Context) (session.Grant, error)) outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), finishTimeout)
	defer cancel()
	grant, err := obtain(ctx)
	if err != nil {
		return outcome{err: err}
	}
	old, _ := pr.sessions.Load(ctx, x.r.Header) // best effort: what it was is over either way
	s, cookie, err := pr.sessions.Create(ctx, grant, session.CreateOptions{
		Browser:  session.BrowserFamily(x.r.UserAgent()),
		Replaces: old,
	})
	if err != nil {
		return outcome{err: errors.Join(errNotStored, err)}
	}
	return outcome{session: s, cookie: cookie}
}

// callbackParams reads the provider's answer from the query or, posted, from the form.
func callbackParams(x *exchange) (params url.Values, posted bool, err error) {
	if x.r.Method != http.MethodPost {
		params, err = url.ParseQuery(x.r.URL.RawQuery)
		return params, false, err
	}
	x.r.Body = http.MaxBytesReader(x, x.r.Body, maxCallbackBytes)
	if err := x.r.ParseForm(); err != nil {
		return nil, true, err
	}
	return x.r.PostForm, true, nil
}

// answered finds out which provider answers which attempt: the state opens under our keys and names both. Providers have their own names
// for the parameters, and some their own endpoint, so that no other's answer is taken for theirs (RFC 9700 section 4.4.2). failed says that the
// answer is an error.
func (p *Proxy) answered(x *exchange, params url.Values) (pr *provider, begun attempt, failed bool, err error) {
	endpoint, _ := p.endpointName(x.path)
	for _, pr := range p.providers {
		if pr.callback != endpoint {
			continue
		}
		state, bad := pr.idp.Callback(params)
		failed = failed || bad
		if state == "" {
			continue
		}
		if begun, err = p.attempts.openState(state, x.origin.String()); err == nil && begun.Provider == pr.name {
			return pr, begun, bad, nil
		}
	}
	return nil, attempt{}, failed, errors.Join(errors.New("state is not ours"), err)
}

// strayCallback is a callback that answers nothing we began: a bookmark, a stale tab, someone else's, or a provider's refusal without state.
func (p *Proxy) strayCallback(x *exchange, failed bool, err error) {
	if _, _, none := p.anySession(x); none == nil {
		x.reason("callback_with_live_session", nil)
		p.redirect(x, "/")
		return
	}
	x.reason("stray_callback", err)
	say := noticeStray
	if failed {
		say = noticeRefused
	}
	p.notice(x, http.StatusBadRequest, say, p.startAnew(x, "/"))
}

// lateCallback is a callback that we began and whose cookie is gone or whose attempt was used: a repeated or bookmarked address, the back
// button, a browser that drops cookies. Signing in again is safe, since it binds to this browser; it is bounded by the count.
func (p *Proxy) lateCallback(x *exchange, pr *provider, begun attempt, failed bool, err error) {
	if _, loadErr := pr.sessions.Load(x.r.Context(), x.r.Header); loadErr == nil {
		x.reason("callback_with_live_session", nil)
		p.redirect(x, "/")
		return
	}
	if failed {
		x.reason("callback_error_without_attempt", err)
		p.notice(x, http.StatusBadRequest, noticeStray, p.startAnew(x, "/"))
		return
	}
	x.reason("attempt_lost", err)
	if pr.password != nil {
		p.showForm(x, pr, "/", begun.Count+1)
		return
	}
	p.begin(x, pr, signIn{rd: "/", count: begun.Count + 1, demand: p.demandFor(x, "/")})
}

// refusals are the error codes by which a person, or a provider on their behalf, says no. Others mean that Postern or the provider is set up wrongly.
// `denied` is LikeCoin's.
var refusals = []string{"access_denied", "denied", "login_required", "interaction_required", "consent_required", "account_selection_required"}

// signInFailed shows what can be said safely about a sign-in that did not work; the log has the reason.
func (p *Proxy) signInFailed(x *exchange, at attempt, err error) {
	x.reason("sign_in_failed", err)
	var refused *idp.AuthorizationError
	var bad *idp.ProtocolError
	again := p.startAnew(x, at.ReturnTo)
	switch {
	case errors.Is(err, errNotStored):
		x.Header().Set("Retry-After", "5")
		p.notice(x, http.StatusServiceUnavailable, noticeNotStored, again)
	case errors.As(err, &refused) && slices.Contains(refusals, refused.Code):
		p.notice(x, http.StatusForbidden, noticeRefused, again)
	case errors.As(err, &refused) && (refused.Code == "temporarily_unavailable" || refused.Code == "server_error"), unavailable(err):
		x.Header().Set("Retry-After", "5")
		p.notice(x, http.StatusServiceUnavailable, noticeProviderDown, again)
	case errors.As(err, &bad) && bad.Response:
		p.notice(x, http.StatusBadRequest, noticeBadAnswer, again)
	default:
		p.notice(x, http.StatusBadGateway, noticeBadAnswer, again)
	}
}

// welcome sends the person on with the new session's cookie.
func (p *Proxy) welcome(x *exchange, at attempt, o outcome) {
	if err := p.attempts.setSignIns(x, at.Count+1); err != nil {
		p.refuse(x, http.StatusInternalServerError, "seal_failed", err)
		return
	}
	http.SetCookie(x, o.cookie)
	p.rememberChoice(x, at)
	x.verdict.Session = o.session
	// A strict cookie is absent on the hop that comes from the provider's site; and what a form of ours redirects to, browsers hold to the form-action
	// of its page, wherever the application sends them.
	if o.cookie.SameSite == http.SameSiteStrictMode || x.verdict.Reason == reasonFormSignIn {
		p.own(x.Header())
		p.pages.Continue(x, x.r, page.SignedIn, at.ReturnTo)
		return
	}
	p.redirect(x, at.ReturnTo)
}

// provider finds a provider by name, or nil.
func (p *Proxy) provider(name string) *provider {
	for _, pr := range p.providers {
		if pr.name == name {
			return pr
		}
	}
	return nil
}

// maxUsed bounds the memory of used attempts; at some 100 bytes each it stays near a megabyte.
const maxUsed = 10_000

// usedAttempts remembers which attempts this process has used, so that a callback sent twice sends its code once: who comes while the
// first is at work gets its outcome, who comes later is late. Two generations bound it.
type usedAttempts struct {
	mu       sync.Mutex
	now, old map[string]*flight
}

// flight is the use of one attempt. Its outcome is shared only with those who waited for it, and they hold the attempt's cookie.
type flight struct {
	done    chan struct{}
	over    bool // nobody waits any more; guarded by usedAttempts.mu
	outcome outcome
}

// claim is first for whoever may use the attempt.
func (u *usedAttempts) claim(id string) (f *flight, first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, generation := range []map[string]*flight{u.now, u.old} {
		if f := generation[id]; f != nil {
			if f.over {
				return &flight{}, false
			}
			return f, false
		}
	}
	if u.now == nil || len(u.now) >= maxUsed/2 {
		u.old, u.now = u.now, make(map[string]*flight)
	}
	f = &flight{done: make(chan struct{})}
	u.now[id] = f
	return f, true
}

// use makes the outcome, hands it to those who wait and keeps only that the attempt was used. Those who wait behind a panic get an error.
func (u *usedAttempts) use(id string, f *flight, finish func() outcome) {
	f.outcome.err = errors.New("the attempt's first use panicked")
	defer u.release(id, f)
	f.outcome = finish()
}

// release ends the waiting.
func (u *usedAttempts) release(id string, f *flight) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, generation := range []map[string]*flight{u.now, u.old} {
		if generation[id] == f {
			generation[id] = &flight{over: true}
		}
	}
	close(f.done)
}

// wait is true when the first user's outcome is there.
func (f *flight) wait(ctx context.Context) bool {
	if f.done == nil {
		return false
	}
	select {
	case <-f.done:
		return true
	case <-ctx.Done():
		return false
	}
}
