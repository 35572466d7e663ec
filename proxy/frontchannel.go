package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"postern/session"
)

// maxFrontChannel bounds iss and sid.
const maxFrontChannel = 2 << 10

// frontChannelLogout ends the sessions that a page of the provider names, which it loads in a frame while someone signs out there (OpenID
// Connect Front-Channel Logout 1.0).
//
// Flow:
//  1. iss and sid, each once: an issuer that is configured, a session that the index finds. Browsers send no cookie into such a frame;
//  2. the sessions end here and on all replicas. Anyone who knows the sid can do that, so that no token is revoked for it, and the answer
//     is the same whether there was such a session or not: a sid cannot be found out by guessing;
//  3. where a cookie of an ended session came along nonetheless, it is expired.
//
// Only pages of the provider may frame the answer.
func (p *Proxy) frontChannelLogout(x *exchange) {
	if dest := x.r.Header.Get("Sec-Fetch-Dest"); dest != "" && dest != "iframe" && dest != "frame" && dest != "document" {
		p.frontChannelAnswer(x, http.StatusBadRequest, "front_channel_refused", errors.New("front-channel logout is no frame, but "+dest))
		return
	}
	hit, ok := p.logoutMisses.begin(x.client.Addr, p.now())
	if !ok {
		x.Header().Set("Retry-After", missRetryAfter)
		p.frontChannelAnswer(x, http.StatusTooManyRequests, "too_many_front_channel_logouts", nil)
		return
	}
	issuer, sid, err := frontChannelOrder(x.r)
	if err != nil {
		p.frontChannelAnswer(x, http.StatusBadRequest, "front_channel_refused", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), logoutTimeout)
	defer cancel()
	known, ended := false, 0
	for _, pr := range p.providers { // several clients may be registered with one issuer
		if !pr.idp.HasIssuer(issuer) {
			continue
		}
		known = true
		n, err := pr.sessions.EndMatching(ctx, session.Match{SID: sid}, session.ReasonFrontChannel)
		if ended += n; err != nil {
			x.Header().Set("Retry-After", "5")
			p.frontChannelAnswer(x, http.StatusServiceUnavailable, "store_unavailable", err)
			return
		}
		if _, gone := errors.AsType[*session.EndedError](p.cookieError(x, pr)); gone {
			http.SetCookie(x, pr.sessions.ExpireCookie())
		}
	}
	if !known {
		p.frontChannelAnswer(x, http.StatusBadRequest, "front_channel_refused", errors.New("front-channel logout names an issuer that is not configured"))
		return
	}
	if ended > 0 {
		hit()
	}
	x.more = append(x.more, slog.Int("sessions", ended))
	p.frontChannelAnswer(x, http.StatusOK, "front_channel_logout", nil)
}

// frontChannelOrder reads iss and sid. Other parameters are ignored.
func frontChannelOrder(r *http.Request) (issuer, sid string, err error) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", "", errors.New("front-channel logout has a query that is not readable")
	}
	for _, name := range []string{"iss", "sid"} {
		if v := params[name]; len(v) != 1 || v[0] == "" || len(v[0]) > maxFrontChannel {
			return "", "", errors.New("front-channel logout must name iss and sid, each once")
		}
	}
	return params.Get("iss"), params.Get("sid"), nil
}

// cookieError says what is wrong with the request's session cookie of one provider; nil where it is good.
func (p *Proxy) cookieError(x *exchange, pr *provider) error {
	if !hasCookie(x.r, pr.sessions.CookieName()) {
		return session.ErrNone
	}
	_, err := pr.sessions.Load(x.r.Context(), x.r.Header)
	return err
}

// frontChannelAnswer writes a page that nobody is meant to read.
func (p *Proxy) frontChannelAnswer(x *exchange, status int, reason string, err error) {
	x.reason(reason, err)
	var framers []string
	for _, pr := range p.providers {
		framers = append(framers, pr.idp.PageOrigins()...)
	}
	slices.Sort(framers)
	h := x.Header()
	p.own(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors "+strings.Join(slices.Compact(framers), " "))
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(status)
	_, _ = x.Write([]byte("<!DOCTYPE html><html lang=\"en\"><title>Sign-out</title></html>\n"))
}
