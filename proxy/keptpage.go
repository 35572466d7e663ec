package proxy

import (
	"errors"
	"log/slog"
	"mime"
	"net/http"

	"postern/proxy/page"
	"postern/session"
	"postern/session/seal"
)

// keptPage asks the person who has signed in again whether to send what is kept. A form posted to the same address drops it.
func (p *Proxy) keptPage(x *exchange) {
	if x.r.Method == http.MethodPost {
		p.dropKept(x)
		return
	}
	leave, ok := p.keeper.enter()
	if !ok {
		p.keptBusy(x)
		return
	}
	defer leave()
	k, t, ok := p.openKept(x)
	if !ok {
		return
	}
	path := pathOnly(k.Target)
	media, _, _ := mime.ParseMediaType(k.Header.Get("Content-Type"))
	fields, more := formFields(k.Header.Get("Content-Type"), k.Body)
	p.own(x.Header())
	p.pages.Kept(x, x.r, page.Kept{
		Method: k.Method, Path: path, Type: media, Size: int64(len(k.Body)), At: k.at(), Fields: fields, MoreFields: more,
		Send: k.Target, Marker: map[string]string{keptField: t.marker()},
		Drop: p.prefix + keptEndpoint, DropMarker: map[string]string{keptField: t.marker(), "rd": p.ownPage(x, k.Header.Get("Referer"))},
		RequestID: x.client.RequestID,
	})
}

// openKept finds what is kept for this browser, if its person is signed in. It is false when it has answered. The caller has a place.
func (p *Proxy) openKept(x *exchange) (*keptRequest, keptTicket, bool) {
	t, ok := p.keptTicket(x)
	pr := p.provider(t.Provider)
	if !ok || pr == nil {
		p.keptGone(x)
		return nil, t, false
	}
	s, err := p.signedIn(x.r.Context(), x.r, pr)
	if err != nil {
		x.err = causeOf(err)
		if x.verdict = withoutSession(err); x.verdict.Kind != verdictSignIn {
			p.render(x)
			return nil, t, false
		}
		p.notice(x, http.StatusUnauthorized, noticeKept, p.startLink(x, p.prefix+keptEndpoint, false))
		return nil, t, false
	}
	x.verdict.Session = s
	p.attempts.forgetSignIns(x) // it arrived
	sealed, err := p.store.Kept(x.r.Context(), t.Session)
	if err != nil {
		p.keptMissing(x, err)
		return nil, t, false
	}
	plain, err := seal.Decrypt(&t.Key, sealed, t.place(x.origin.String()))
	if err != nil { // a newer one of the same session has taken its place
		p.keptGone(x)
		return nil, t, false
	}
	k, err := parseKept(plain)
	if err != nil {
		x.err = err
		p.keptGone(x)
		return nil, t, false
	}
	if k.Issuer != s.Issuer || k.Subject != s.Subject {
		p.dropOthers(x, t)
		return nil, t, false
	}
	return k, t, true
}

// dropOthers drops what is kept for someone else than who has signed in.
func (p *Proxy) dropOthers(x *exchange, t keptTicket) {
	if err := p.store.TakeKept(x.r.Context(), t.Session); err != nil {
		x.err = err // without its cookie nobody can open it
	}
	p.attempts.expire(x, p.keptCookie())
	x.reason(auditKeptOtherUser, nil)
	p.auditEvent(x, auditKeptOtherUser)
	p.notice(x, http.StatusForbidden, noticeKeptOther, page.Link{Say: "go_on", URL: "/", Primary: true})
}

// dropKept drops what is kept because its person does not want to send it, and goes back to the page that it was sent from. Whoever has the
// cookie may do that.
func (p *Proxy) dropKept(x *exchange) {
	if err := p.crossOrigin.Check(x.r); err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_drop", err)
		return
	}
	x.r.Body = http.MaxBytesReader(x, x.r.Body, maxFormBytes)
	if err := x.r.ParseForm(); err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_form", err)
		return
	}
	if t, ok := p.keptTicket(x); ok && x.r.PostForm.Get(keptField) == t.marker() {
		if err := p.store.TakeKept(x.r.Context(), t.Session); err != nil {
			x.err = err // without its cookie nobody can open it
		}
		p.attempts.expire(x, p.keptCookie())
	}
	x.reason("kept_dropped", nil)
	p.redirect(x, returnTo(x.r.PostForm.Get("rd"), x.origin, nil, p.prefix))
}

// takeKept takes the kept request that is about to be sent out of the store. It is false when it has answered: somebody was first.
func (p *Proxy) takeKept(x *exchange) bool {
	if err := p.store.TakeKept(x.r.Context(), x.kept.Session); err != nil {
		p.keptMissing(x, err)
		return false
	}
	x.more = append(x.more, slog.String("kept", auditKeptReplayed))
	p.auditEvent(x, auditKeptReplayed, slog.String("method", x.r.Method), slog.String("path", x.path))
	return true
}

// keptMissing answers when the store does not hand out what is kept.
func (p *Proxy) keptMissing(x *exchange, err error) {
	switch {
	case errors.Is(err, session.ErrNone):
		p.keptGone(x)
	case errors.Is(err, session.ErrConflict):
		x.reason("kept_sent_before", nil)
		p.answer(x, http.StatusConflict, noticeKeptSent, page.Link{Say: "go_on", URL: "/", Primary: true})
	default:
		x.reason("store_unavailable", err)
		p.keptBusy(x)
	}
}

func (p *Proxy) keptGone(x *exchange) {
	x.reason("kept_gone", nil)
	p.answer(x, http.StatusGone, noticeKeptGone, page.Link{Say: "go_on", URL: "/", Primary: true})
}

// keptBusy asks to come again.
func (p *Proxy) keptBusy(x *exchange) {
	x.Header().Set("Retry-After", "5")
	p.answer(x, http.StatusServiceUnavailable, problems[http.StatusServiceUnavailable], page.Link{Say: "try_again", URL: p.prefix + keptEndpoint, Primary: true})
}
