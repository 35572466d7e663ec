package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"

	"postern/proxy/idp"
	"postern/session"
)

// The events of the audit log. Operators' tools read these words: they stay.
const (
	auditSignIn          = "sign_in"          // a person signed in
	auditSignInRefused   = "sign_in_refused"  // a sign-in that was begun came to nothing
	auditAccessRefused   = "access_refused"   // someone signed in asked for what the route's rule denies
	auditRefreshRejected = "refresh_rejected" // the provider refused a refresh token
	auditSignOut         = "sign_out"         // a person asked for the end of the own session
	auditSessionsEnded   = "sessions_ended"   // a person asked for the end of others of the own sessions
	auditSessionEnd      = "session_end"      // a session is over, for whatever reason
	auditKept            = "kept"             // what a person sent after the own session had ended is kept
	auditKeptReplayed    = "kept_replayed"    // the same person signed in again and sent it
	auditKeptOtherUser   = "kept_other_user"  // someone else signed in: it is dropped
	auditAdminList       = "admin_list"       // an operator listed sessions
	auditAdminEnd        = "admin_end"        // an operator ended sessions
	auditAdminRefused    = "admin_refused"    // someone without the right to it asked the admin listener
)

// auditor writes the audit log: unlike the request log it names people, and it says who ended what. A nil auditor writes nothing.
type auditor struct{ log *slog.Logger }

// newAuditor returns nil without a logger.
func newAuditor(log *slog.Logger) *auditor {
	if log == nil {
		return nil
	}
	return &auditor{log: log.With(slog.Bool("audit", true))}
}

// event writes one line. No attribute may hold a token, a cookie, a code or what somebody typed.
func (a *auditor) event(ctx context.Context, event string, attrs ...slog.Attr) {
	if a == nil {
		return
	}
	a.log.LogAttrs(context.WithoutCancel(ctx), slog.LevelInfo, "audit", append([]slog.Attr{slog.String("event", event)}, attrs...)...)
}

// auditEvent writes a line about a request: what happened, who the session says it was, and where the request came from.
func (p *Proxy) auditEvent(x *exchange, event string, attrs ...slog.Attr) {
	p.auditSession(x, x.verdict.Session, event, attrs...)
}

// auditSession is auditEvent for another session than the request's own; nil: for none.
func (p *Proxy) auditSession(x *exchange, s *session.Session, event string, attrs ...slog.Attr) {
	p.audit.session(x, s, event, attrs...)
}

// session writes a line about a request and the session s that it is about; nil: about none.
func (a *auditor) session(x *exchange, s *session.Session, event string, attrs ...slog.Attr) {
	if a == nil {
		return
	}
	if s != nil {
		attrs = append(attrs, slog.String("provider", s.Provider), slog.String("user", s.Identity.User), slog.String("subject", s.Subject), slog.String("session", s.Handle()))
	}
	attrs = append(attrs, slog.String("client", x.client.Addr.String()), slog.String("host", brief(x.client.Host)), slog.String("request_id", x.client.RequestID),
		slog.String("browser", session.BrowserFamily(x.r.UserAgent())))
	a.event(x.r.Context(), event, attrs...)
}

// denied notes that a rule kept a person out, if verdict v about x says so: at once, or when it was decided again under way. Requests of
// nobody in particular are the request log's.
func (a *auditor) denied(x *exchange, v verdict) {
	if a == nil || v.Kind != verdictDeny || v.Session == nil {
		return
	}
	a.session(x, v.Session, auditAccessRefused, slog.String("reason", v.Reason), slog.String("route", x.route.name), slog.String("method", brief(x.r.Method)), slog.String("path", brief(x.path)))
}

// auditSignedIn notes what came of a sign-in that was begun. What a provider wrote is said only where it is one of the words that we know.
func (p *Proxy) auditSignedIn(x *exchange, pr *provider, o outcome) {
	if p.audit == nil {
		return
	}
	method := slog.String("method", "redirect")
	if pr.password != nil {
		method = slog.String("method", "password")
	}
	if o.err == nil {
		p.auditSession(x, o.session, auditSignIn, method)
		return
	}
	p.auditSession(x, nil, auditSignInRefused, method, slog.String("provider", pr.name), slog.String("reason", refusalOf(pr, o.err)))
}

// refusalOf is the word of the audit log, and of metrics, for why a sign-in failed.
func refusalOf(pr *provider, err error) string {
	var refused *idp.AuthorizationError
	switch {
	case errors.Is(err, errNotStored):
		return "store_unavailable"
	case pr.password != nil && guessOutcomeOf(err) == guessWrong:
		return "wrong_password"
	case errors.As(err, &refused) && slices.Contains(refusals, refused.Code):
		return refused.Code
	case insufficient(err) != nil:
		return "insufficient_authentication"
	case unavailable(err):
		return "provider_unavailable"
	}
	return "bad_provider_answer"
}

// ended notes the end of a session, whoever brought it about. Cookies that open under none of our keys are anyone's, in any number.
func (a *auditor) ended(e session.Ending) {
	if a == nil || e.Reason == session.ReasonKeyUnknown {
		return
	}
	a.event(context.Background(), auditSessionEnd, slog.String("provider", e.Provider), slog.String("subject", e.Subject), slog.String("session", e.Handle),
		slog.String("reason", string(e.Reason)), slog.String("actor", actorOf(e.Reason)))
}

// actorOf says who is behind an end: the person, the provider, an admin, or the system by its limits.
func actorOf(why session.Reason) string {
	switch why {
	case session.ReasonSignedOut, session.ReasonReplaced:
		return "person"
	case session.ReasonBackChannel, session.ReasonFrontChannel, session.ReasonRefreshRejected:
		return "provider"
	case session.ReasonAdmin:
		return "admin"
	}
	return "system"
}

// auditOperator writes a line about a request on the admin listener.
func (a *auditor) auditOperator(r *http.Request, event string, attrs ...slog.Attr) {
	if a == nil {
		return
	}
	if client, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		attrs = append(attrs, slog.String("client", client.Addr().Unmap().String()))
	}
	if t := r.TLS; t != nil && len(t.VerifiedChains) > 0 {
		attrs = append(attrs, slog.String("operator", t.VerifiedChains[0][0].Subject.String()))
	}
	a.event(r.Context(), event, attrs...)
}
