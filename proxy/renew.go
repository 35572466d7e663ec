package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"
)

// renewAfter is how old an access token is at least before it is renewed because an application refuses it. An application that refuses every
// token so costs the provider one refresh a minute for each session.
const renewAfter = time.Minute

// errNotRenewed says that there is no other token: the application's own answer passes.
var errNotRenewed = errors.New("the token was not renewed")

// renewFunc gets another token for a request whose token the application refused, and returns what to send now. errSessionOver gives the
// request up, and the answer is that of the revised verdict; any other error lets the application's own answer pass.
type renewFunc func(ctx context.Context, x *exchange, f forward) (forward, error)

// again answers for an application that refused the token of a request: with its answer to the same request with another token. It happens
// once to a request, and only to those that may be sent twice.
func (l *leg) again(r *http.Request, refused *http.Response) (*http.Response, error) {
	f, err := l.f.Renew(l, exchangeOf(l.w), l.f)
	if err != nil && !errors.Is(err, errSessionOver) {
		return refused, nil
	}
	_ = refused.Body.Close()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL = new(url.URL)
	l.aim(r) // it may have gone to another address than at first
	f.tell(r.Header, nil)
	return l.send(r)
}

// refusesToken tells a response that calls the access token invalid: expired, revoked or malformed (RFC 6750 section 3.1).
func refusesToken(res *http.Response) bool {
	return res.StatusCode == http.StatusUnauthorized && bearerChallenge(res.Header["Www-Authenticate"], "invalid_token") != nil
}

// renew is the renewFunc of routes that send the person's access token. It refreshes the session, unless the token is young, and decides
// again. A provider or store that does not answer leaves everything as it is.
func (p *Proxy) renew(ctx context.Context, x *exchange, f forward) (forward, error) {
	s, pr := f.Session, p.provider(f.Session.Provider)
	if s.Tokens.Refresh == "" || p.now().Sub(s.Tokens.Obtained) < renewAfter {
		return f, errNotRenewed
	}
	fresh, err := pr.sessions.Refresh(ctx, s, pr.refresh)
	if err != nil && withoutSession(err).Kind != verdictSignIn {
		return f, err
	}
	if v := x.reconsider(pr, fresh, err); v.Kind != verdictAllow {
		if x.revised.CompareAndSwap(nil, &v) {
			pr.audit.denied(x, v)
		}
		return f, errSessionOver
	}
	if fresh.Tokens.Access == s.Tokens.Access {
		return f, errNotRenewed
	}
	x.more = append(x.more, slog.Bool("token_renewed", true))
	f.Session, f.Bearer = fresh, fresh.Tokens.Access
	if f.OwnHeaders {
		f.Headers = compute(ctx, p.log, x.route.headers, fresh, x.request())
	}
	return f, nil
}
