package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"postern/proxy/page"
	"postern/session"
)

// sessionInfo is the JSON of the endpoint session. It never holds a token.
type sessionInfo struct {
	User              string     `json:"user"`
	Email             string     `json:"email,omitempty"`
	Name              string     `json:"name,omitempty"`
	PreferredUsername string     `json:"preferred_username,omitempty"`
	Groups            []string   `json:"groups"`
	Provider          string     `json:"provider"`
	Created           time.Time  `json:"created"`
	Ends              time.Time  `json:"ends"`
	IdleTimeout       int        `json:"idle_timeout_seconds"`
	IdleUntil         time.Time  `json:"idle_until"`
	TokenExpires      *time.Time `json:"token_expires,omitempty"`
	RefreshAt         *time.Time `json:"refresh_at,omitempty"`
}

// sessionJSON answers with what is known of the session. Asking does not count as activity.
func (p *Proxy) sessionJSON(x *exchange) {
	s, pr, err := p.anySession(x)
	if err != nil {
		p.sessionMissing(x, err)
		return
	}
	p.writeSession(x, pr, s)
}

// refreshNow exchanges the refresh token at once, for single-page applications that know that claims have changed.
func (p *Proxy) refreshNow(x *exchange) {
	if err := p.crossOrigin.Check(x.r); err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_refresh", err)
		return
	}
	s, pr, err := p.anySession(x)
	if err == nil {
		s, err = pr.sessions.Refresh(x.r.Context(), s, pr.refresh)
	}
	if err != nil {
		p.sessionMissing(x, err)
		return
	}
	p.writeSession(x, pr, s)
}

func (p *Proxy) writeSession(x *exchange, pr *provider, s *session.Session) {
	info := sessionInfo{
		User: s.Identity.User, Email: s.Identity.Email, Name: s.Identity.Name, PreferredUsername: s.Identity.PreferredUsername,
		Groups: append([]string{}, s.Identity.Groups...), Provider: pr.name,
		Created: s.Created.UTC().Truncate(time.Second), Ends: s.Ends.UTC().Truncate(time.Second),
		IdleTimeout: int(pr.idleTimeout.Seconds()), IdleUntil: p.idleUntil(pr, s),
	}
	info.TokenExpires = timeOrNil(s.Tokens.Expiry)
	info.RefreshAt = timeOrNil(s.RefreshDue())
	p.own(x.Header())
	x.Header().Set("Content-Type", "application/json")
	x.Header().Set("X-Content-Type-Options", "nosniff")
	if x.r.Method != http.MethodHead {
		_ = json.NewEncoder(x).Encode(info) // a client that left is no error of ours
	}
}

// idleUntil is when the session ends if it is not used again.
func (p *Proxy) idleUntil(pr *provider, s *session.Session) time.Time {
	t := s.Seen.Add(pr.idleTimeout)
	if t.After(s.Ends) {
		t = s.Ends
	}
	return t.UTC().Truncate(time.Second)
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// sessionMissing answers a question about a session that cannot be had.
func (p *Proxy) sessionMissing(x *exchange, err error) {
	x.err = causeOf(err)
	x.verdict = withoutSession(err)
	if x.verdict.Kind == verdictSignIn {
		p.challenge(x)
		return
	}
	p.render(x)
}

// accountPage is the bare prefix: a page for people about their session.
func (p *Proxy) accountPage(x *exchange) {
	s, pr, err := p.anySession(x)
	var ended *session.EndedError
	switch {
	case err == nil:
	case errors.Is(err, session.ErrNone), errors.As(err, &ended):
		x.verdict.Ended = withoutSession(err).Ended
		p.notice(x, http.StatusUnauthorized, noticeNobody, p.startLink(x, "/", false))
		return
	default:
		p.sessionMissing(x, err)
		return
	}
	view := page.SessionView{
		User: s.Identity.User, Email: s.Identity.Email, Name: s.Identity.Name, Groups: s.Identity.Groups, Provider: pr.title,
		SignedIn: s.Created, Ends: s.Ends, IdleUntil: p.idleUntil(pr, s), RefreshAt: s.RefreshDue(),
		SignOut: p.prefix + "/logout", Home: "/", RequestID: x.client.RequestID,
	}
	p.own(x.Header())
	p.pages.Session(x, x.r, view)
}
