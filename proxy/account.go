package proxy

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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

// account is the bare prefix: a page for people about their session and their others, whose buttons are posted to the same address.
func (p *Proxy) account(x *exchange) {
	if x.r.Method == http.MethodPost {
		p.endListed(x)
		return
	}
	p.accountPage(x)
}

// accountPage shows the session of this browser and the same person's others at the same provider.
func (p *Proxy) accountPage(x *exchange) {
	s, pr, err := p.anySession(x)
	if err != nil {
		p.noAccount(x, err)
		return
	}
	view := page.SessionView{
		User: s.Identity.User, Email: s.Identity.Email, Name: s.Identity.Name, Groups: s.Identity.Groups, Provider: pr.title,
		SignedIn: s.Created, Ends: s.Ends, IdleUntil: p.idleUntil(pr, s), RefreshAt: s.RefreshDue(),
		SignOut: p.prefix + "/logout", Home: "/", End: p.prefix, RequestID: x.client.RequestID,
		Ended: p.openSaid(x, s),
	}
	p.listSessions(x, pr, s, &view)
	p.own(x.Header())
	p.pages.Session(x, x.r, view)
}

// noAccount tells a person that there is no session to show.
func (p *Proxy) noAccount(x *exchange, err error) {
	v := withoutSession(err)
	if v.Kind != verdictSignIn {
		p.sessionMissing(x, err)
		return
	}
	x.verdict.Ended = v.Ended
	p.notice(x, http.StatusUnauthorized, noticeNobody, p.startLink(x, "/", false))
}

// sessionsPerPage is how many sessions the page lists at a time.
const sessionsPerPage = 20

// listSessions puts the person's sessions into the page. Where the provider does not tell who signed in, and where the store does not answer, that is
// this session alone.
func (p *Proxy) listSessions(x *exchange, pr *provider, s *session.Session, view *page.SessionView) {
	after := x.r.URL.Query().Get("after")
	this := page.SessionLine{ID: s.ID(), Browser: s.Browser, SignedIn: s.Created, Seen: p.now(), This: true}
	if s.Subject == "" {
		view.Sessions = []page.SessionLine{this}
		return
	}
	list, next, err := pr.sessions.List(x.r.Context(), session.Match{Subject: s.Subject}, after, sessionsPerPage)
	if err != nil && !errors.Is(err, session.ErrUnavailable) { // the address names a place that is none
		after = ""
		list, next, err = pr.sessions.List(x.r.Context(), session.Match{Subject: s.Subject}, after, sessionsPerPage)
	}
	if err != nil {
		x.err = err
		view.Sessions = []page.SessionLine{this}
		view.Unknown = true
		return
	}
	found := false
	for _, one := range list {
		if one.ID == this.ID {
			found = true
			view.Sessions = append(view.Sessions, this)
			continue
		}
		view.Sessions = append(view.Sessions, page.SessionLine{ID: one.ID, Browser: one.Browser, SignedIn: one.Created, Seen: one.Seen})
		view.OtherSessions = true
	}
	if !found && after == "" {
		view.Sessions = append([]page.SessionLine{this}, view.Sessions...)
	}
	if next != "" {
		view.OtherSessions = true
		view.More = p.prefix + "?" + url.Values{"after": {next}}.Encode() + "#sessions"
	}
}

// endListed ends what a button of the page names.
//
// Flow: this origin's form → this browser's session → its own id is a sign-out; another id ends only a session of the same person at the same
// provider, whatever the form says → back to the page, which tells what happened.
func (p *Proxy) endListed(x *exchange) {
	if err := p.crossOrigin.Check(x.r); err != nil {
		p.refuse(x, http.StatusForbidden, "cross_origin_end", err)
		return
	}
	x.r.Body = http.MaxBytesReader(x, x.r.Body, maxFormBytes)
	if err := x.r.ParseForm(); err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_form", err)
		return
	}
	s, pr, err := p.anySession(x)
	if err != nil {
		p.noAccount(x, err)
		return
	}
	var n int
	switch id := x.r.PostForm.Get("end"); id {
	case "":
		p.refuse(x, http.StatusBadRequest, "bad_form", errors.New("form names no session"))
		return
	case s.ID():
		p.logout(x)
		return
	default:
		n, err = p.endOthers(x, pr, s, id)
	}
	if err != nil {
		x.reason("store_unavailable", err)
		x.Header().Set("Retry-After", "5")
		p.notice(x, http.StatusServiceUnavailable, noticeNotEnded, page.Link{Say: "back_to_sessions", URL: p.prefix, Primary: true})
		return
	}
	x.reason("sessions_ended", nil)
	p.auditEvent(x, auditSessionsEnded, slog.Int("count", n))
	p.redirect(x, p.prefix+p.said(s, n))
}

// endOthers ends the session with that id if it is the same person's, or all others of that person.
func (p *Proxy) endOthers(x *exchange, pr *provider, s *session.Session, id string) (n int, err error) {
	if s.Subject == "" { // nobody knows whose the others are
		return 0, nil
	}
	if id == page.EndOthers {
		return pr.sessions.EndMatching(x.r.Context(), session.Match{Subject: s.Subject, Except: s.ID()}, session.ReasonSignedOut)
	}
	ended, err := pr.sessions.EndID(x.r.Context(), id, session.Match{Subject: s.Subject}, session.ReasonSignedOut)
	if ended {
		n = 1
	}
	return n, err
}

// saidLifetime is how long the page tells what a button did.
const saidLifetime = time.Minute

// said is the query by which the page tells how many sessions ended. It is sealed, so that no link can make the page say it.
func (p *Proxy) said(s *session.Session, n int) string {
	sealed, err := p.attempts.ring.Seal("said", []byte(s.Handle()+" "+strconv.Itoa(n)))
	if err != nil {
		return ""
	}
	return "?" + url.Values{"said": {sealed}}.Encode() + "#sessions"
}

// openSaid is how many sessions a button has ended, if the query tells that to this session.
func (p *Proxy) openSaid(x *exchange, s *session.Session) *int {
	plain, _, err := p.attempts.ring.Open("said", x.r.URL.Query().Get("said"), saidLifetime)
	whose, count, _ := strings.Cut(string(plain), " ")
	if err != nil || whose != s.Handle() {
		return nil
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil
	}
	return &n
}
