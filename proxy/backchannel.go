package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"time"

	"postern/proxy/idp"
	"postern/session"
)

const (
	// maxLogoutForm bounds the body of a back-channel logout; the token itself has a limit of its own (proxy/idp).
	maxLogoutForm = 32 << 10
	// logoutTimeout bounds the work for one logout token; a provider that hangs up does not stop it.
	logoutTimeout = 30 * time.Second
)

// errReplayed says that a logout token was carried out before.
var errReplayed = errors.New("logout token was carried out before (jti)")

// backChannelLogout ends sessions by order of the provider (OpenID Connect Back-Channel Logout 1.0), which calls us itself: there is
// neither a browser nor a cookie, and the host may be one that only the provider knows us by.
//
// Flow:
//  1. a network that sent too many bad tokens waits (429), before anything of it is looked at;
//  2. a form with exactly one logout_token (section 2.5), bounded;
//  3. the provider whose token it claims to be verifies it, and it was not carried out before (section 2.6);
//  4. the sessions end that it names and that are not newer than it: a token that arrives late ends no newer sign-in;
//  5. only then the token is remembered, where all replicas see it, until it is refused anyway. Whatever fails before leaves nothing
//     behind: the provider may send it again.
//
// The answer is 200 or 400 (section 2.8); the reason of a 400 is in the log alone.
func (p *Proxy) backChannelLogout(x *exchange) {
	hit, ok := p.logoutMisses.begin(x.client.Addr, p.now())
	if !ok {
		x.reason("too_many_logout_tokens", nil)
		x.Header().Set("Retry-After", missRetryAfter)
		p.logoutRefused(x, http.StatusTooManyRequests)
		return
	}
	token, status, err := logoutTokenOf(x)
	if err != nil {
		x.reason("bad_logout_request", err)
		p.logoutRefused(x, status)
		return
	}
	pr := p.addressee(token)
	if pr == nil {
		x.reason("logout_token_refused", errors.New("logout token is of no provider that is configured, or for another client (iss, aud)"))
		p.logoutRefused(x, http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), logoutTimeout)
	defer cancel()
	order, err := pr.idp.VerifyLogout(ctx, token)
	if err != nil {
		why := "logout_token_refused"
		if unavailable(err) {
			why = "provider_unavailable"
		}
		x.reason(why, err)
		p.logoutRefused(x, http.StatusBadRequest)
		return
	}
	hit()
	n, err := p.carryOut(ctx, pr, order)
	x.more = append(x.more, slog.String("provider", pr.name), slog.Int("sessions", n))
	switch {
	case errors.Is(err, errReplayed):
		x.reason("logout_token_replayed", err)
		p.logoutRefused(x, http.StatusBadRequest)
	case err != nil:
		x.reason("store_unavailable", err)
		p.logoutRefused(x, http.StatusBadRequest)
	default:
		x.reason("back_channel_logout", nil)
		p.own(x.Header())
		x.WriteHeader(http.StatusOK)
	}
}

// logoutTokenOf reads the form. Parameters that it does not know are ignored; with an error comes the status to answer.
func logoutTokenOf(x *exchange) (token string, status int, err error) {
	if kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return "", http.StatusBadRequest, errors.New("logout request is no application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(x, x.r.Body, maxLogoutForm))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "", http.StatusRequestEntityTooLarge, tooLarge
	}
	if err != nil {
		return "", http.StatusBadRequest, fmt.Errorf("read logout request: %w", err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", http.StatusBadRequest, errors.New("logout request's form is not readable") // its error could quote the token
	}
	if len(form["logout_token"]) != 1 { // RFC 6749 section 3.1: who wins would depend on who reads
		return "", http.StatusBadRequest, fmt.Errorf("logout request has %d logout_token parameters instead of one", len(form["logout_token"]))
	}
	return form.Get("logout_token"), 0, nil
}

// addressee is the provider whose logout token this claims to be, and whose client it names. It is told by the token alone: all use one
// address, since a provider's registration knows none of our names.
func (p *Proxy) addressee(token string) *provider {
	for _, pr := range p.providers {
		if pr.idp.Addressed(token) {
			return pr
		}
	}
	return nil
}

// carryOut ends the sessions of a verified token and remembers it. n counts those that lived. Its errors are errReplayed, and that the store did
// not answer: then nothing is remembered.
func (p *Proxy) carryOut(ctx context.Context, pr *provider, order idp.Logout) (n int, err error) {
	keys := p.logoutKeys(pr, order)
	for _, key := range keys {
		switch _, err := p.store.Get(ctx, key); {
		case err == nil:
			return 0, errReplayed
		case !errors.Is(err, session.ErrNone):
			return 0, fmt.Errorf("look for logout token: %w", err)
		}
	}
	match := session.Match{SID: order.SID, Subject: order.Subject, IssuedBy: order.Issued}
	if n, err = pr.sessions.EndMatching(ctx, match, session.ReasonBackChannel); err != nil {
		return n, err
	}
	// Of two deliveries at once, one has the record; it says nothing but that.
	mark := session.Record{Version: 1, Sealed: []byte(rand.Text())}
	life := max(order.Expires.Sub(p.now()), time.Second)
	switch _, err := p.store.Create(ctx, keys[0], mark, life, nil); {
	case errors.Is(err, session.ErrConflict):
		return n, errReplayed
	case err != nil:
		return n, fmt.Errorf("remember logout token: %w", err)
	}
	return n, nil
}

// logoutKeys are the names under which a token is remembered in the store, the first of them from now on: one for each of session.keys.
func (p *Proxy) logoutKeys(pr *provider, order idp.Logout) []string {
	var keys []string
	for _, mac := range p.attempts.ring.MAC("logout token", pr.idp.Issuer(), pr.clientID, order.ID) {
		keys = append(keys, "logout-"+base64.RawURLEncoding.EncodeToString(mac))
	}
	return keys
}

// logoutRefused answers a provider (section 2.8). Whoever sends forged tokens learns nothing from it.
func (p *Proxy) logoutRefused(x *exchange, status int) {
	h := x.Header()
	p.own(h)
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(status)
	_ = json.NewEncoder(x).Encode(map[string]string{ // a provider that left is no error of ours
		"error": "invalid_request", "error_description": "Not carried out. The log has the reason, under request " + x.client.RequestID + ".",
	})
}
