package proxy

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

// bearer is the token that goes to the application with an allowed request; empty where none does. An error means that the request must not go
// there: an application never gets another token than the one that its route names.
func (p *Proxy) bearer(x *exchange) (string, error) {
	rt, s, ctx := x.route, x.verdict.Session, x.r.Context()
	switch {
	case x.verdict.Bare:
		return "", nil
	case rt.bearer != nil:
		return rt.bearer.token(ctx)
	case s == nil:
		return "", nil
	case rt.trades != nil && (rt.trades.Kind != kindResource || !ofToken(s)): // a presented token is for whom it is
		return p.traded.token(ctx, s, *rt.trades)
	case rt.token == "access_token":
		return s.Tokens.Access, nil
	case rt.token == "id_token":
		return s.Tokens.ID, nil
	}
	return "", nil
}

// noBearer answers a request for whose application no token could be had: 503 when the provider did not answer, 502 when it refused, which
// trying again will not change soon.
func (p *Proxy) noBearer(x *exchange, err error) {
	var refused *idp.ProtocolError
	var ended *session.EndedError
	if errors.As(err, &ended) { // it was refreshed for this
		x.verdict = withoutSession(ended)
		if x.asked && p.dialect == dialectNginx {
			p.renderNginx(x)
		} else {
			p.render(x)
		}
		return
	}
	if errors.As(err, &refused) && x.route.trades != nil {
		x.reason("application_token_refused", err)
		p.answer(x, http.StatusBadGateway, noticeNoToken)
		return
	}
	x.reason("application_token_unavailable", err)
	p.setRetryAfter(x, retryAfter(err))
	p.answer(x, http.StatusServiceUnavailable, problems[http.StatusServiceUnavailable])
}

// setRetryAfter says in whole seconds when to try again.
func (p *Proxy) setRetryAfter(x *exchange, after time.Duration) {
	after = max(after, time.Second)
	x.Header().Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
}
