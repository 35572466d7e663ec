package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"postern/session"
)

// Limits of the sessions API.
const (
	adminTimeout = 30 * time.Second // for one request, whatever the store does
	defaultLimit = 100
	maxLimit     = 1000
)

// adminIDPrefix begins the ids of this API: without it one in 64 would begin with -, and be a flag to a command line.
const adminIDPrefix = "s"

// adminSessions lists and ends sessions for operators. It finds them by the index alone, and it never sees a token.
//
//	GET    /sessions?user=…|sub=…|sid=…   exactly one of them; &provider= &limit= &after=
//	DELETE /sessions?user=…|sub=…|sid=…   ends all of them; &provider=
//	DELETE /sessions/{id}                 ends one; the id is the list's
type adminSessions struct {
	providers []*provider
	audit     *auditor
}

// adminSession is a session as operators see it.
type adminSession struct {
	ID       string    `json:"id"`
	Session  string    `json:"session"` // its name in the logs
	Provider string    `json:"provider"`
	User     string    `json:"user"`
	Subject  string    `json:"sub"`
	SID      string    `json:"sid,omitempty"`
	Browser  string    `json:"browser"`
	Created  time.Time `json:"created"`
	Seen     time.Time `json:"seen"`
	Ends     time.Time `json:"ends"`
}

// adminList is one page of sessions; Next is the value of after for the next one.
type adminList struct {
	Sessions []adminSession `json:"sessions"`
	Next     string         `json:"next,omitempty"`
}

// adminEnded tells how many sessions lived and are over now.
type adminEnded struct {
	Ended int `json:"ended"`
}

// parameterError is a query that cannot be answered as it is.
type parameterError struct{ name, what string }

func (e *parameterError) Error() string { return e.name + " " + e.what }

// many answers /sessions.
func (a *adminSessions) many(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	switch r.Method {
	case http.MethodGet:
		a.list(w, r)
	case http.MethodDelete:
		a.endAll(w, r)
	default:
		adminMethod(w, http.MethodGet, http.MethodDelete)
	}
}

// one answers /sessions/{id}. An id of another client or deployment, and one that names nothing, is not found.
func (a *adminSessions) one(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodDelete {
		adminMethod(w, http.MethodDelete)
		return
	}
	if _, err := adminQuery(r); err != nil {
		adminFailed(w, err, 0)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
	defer cancel()
	id, ok := strings.CutPrefix(r.PathValue("id"), adminIDPrefix)
	for _, pr := range a.providers {
		if !ok {
			break
		}
		ended, err := pr.sessions.EndID(ctx, id, session.Match{}, session.ReasonAdmin)
		if err != nil {
			adminFailed(w, err, 0)
			return
		}
		if ended {
			a.audit.auditOperator(r, auditAdminEnd, slog.String("provider", pr.name), slog.String("id", r.PathValue("id")), slog.Int("count", 1))
			adminAnswer(w, adminEnded{1})
			return
		}
	}
	adminProblem(w, http.StatusNotFound, "no_session", "No live session has this id.", nil)
}

// list answers with one page, provider by provider.
func (a *adminSessions) list(w http.ResponseWriter, r *http.Request) {
	q, err := adminQuery(r, "user", "sub", "sid", "provider", "limit", "after")
	var match session.Match
	var providers []*provider
	if err == nil {
		match, providers, err = a.selected(q)
	}
	limit := defaultLimit
	if text := q.Get("limit"); err == nil && text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			err = &parameterError{"limit", fmt.Sprintf("must be a number from 1 to %d", maxLimit)}
		}
	}
	from, after, resumed := strings.Cut(q.Get("after"), ":")
	if err == nil && q.Get("after") != "" {
		i := slices.IndexFunc(providers, func(pr *provider) bool { return pr.name == from })
		if !resumed || i < 0 {
			err = &parameterError{"after", "must be what an earlier answer gave as next"}
		} else {
			providers = providers[i:]
		}
	}
	if err != nil {
		adminFailed(w, err, 0)
		return
	}
	page := adminList{Sessions: []adminSession{}}
	for i, pr := range providers {
		list, next, err := pr.sessions.List(r.Context(), match, after, limit-len(page.Sessions))
		if err != nil && !errors.Is(err, session.ErrUnavailable) && after != "" {
			err = &parameterError{"after", "must be what an earlier answer gave as next"}
		}
		if err != nil {
			adminFailed(w, err, 0)
			return
		}
		after = ""
		for _, s := range list {
			if s.Provider != pr.name && slices.ContainsFunc(a.providers, func(o *provider) bool { return o.name == s.Provider }) {
				continue // two providers are the same client of the same issuer: it is the other's
			}
			page.Sessions = append(page.Sessions, adminSession{
				ID: adminIDPrefix + s.ID, Session: s.Handle, Provider: s.Provider, User: s.User, Subject: s.Subject, SID: s.SID, Browser: s.Browser,
				Created: s.Created, Seen: s.Seen, Ends: s.Ends,
			})
		}
		if next != "" {
			page.Next = pr.name + ":" + next
			break
		}
		if len(page.Sessions) >= limit && i+1 < len(providers) {
			page.Next = providers[i+1].name + ":"
			break
		}
	}
	a.audit.auditOperator(r, auditAdminList, append(auditSelection(q), slog.Int("count", len(page.Sessions)))...)
	adminAnswer(w, page)
}

// endAll ends what the query selects. After an error some may have ended; asking again is harmless.
func (a *adminSessions) endAll(w http.ResponseWriter, r *http.Request) {
	q, err := adminQuery(r, "user", "sub", "sid", "provider")
	if err != nil {
		adminFailed(w, err, 0)
		return
	}
	match, providers, err := a.selected(q)
	if err != nil {
		adminFailed(w, err, 0)
		return
	}
	ended := 0
	var errs []error
	for _, pr := range providers {
		n, err := pr.sessions.EndMatching(r.Context(), match, session.ReasonAdmin)
		ended += n
		errs = append(errs, err)
	}
	err = errors.Join(errs...)
	a.audit.auditOperator(r, auditAdminEnd, append(auditSelection(q), slog.Int("count", ended), slog.Bool("complete", err == nil))...)
	if err != nil {
		adminFailed(w, err, ended)
		return
	}
	adminAnswer(w, adminEnded{ended})
}

// adminQuery reads the query. A parameter that is not known, or is there twice, is refused: half a selection could end the wrong sessions.
func adminQuery(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &parameterError{"query", "is not well-formed"}
	}
	for name, values := range q {
		switch {
		case !slices.Contains(known, name):
			return nil, &parameterError{name, "is not a parameter here"}
		case len(values) > 1:
			return nil, &parameterError{name, "is there more than once"}
		case values[0] == "":
			return nil, &parameterError{name, "is empty"}
		}
	}
	return q, nil
}

// selected is what the query names, and where to look.
func (a *adminSessions) selected(q url.Values) (match session.Match, providers []*provider, err error) {
	match = session.Match{User: q.Get("user"), Subject: q.Get("sub"), SID: q.Get("sid")}
	given := 0
	for _, value := range []string{match.User, match.Subject, match.SID} {
		if value != "" {
			given++
		}
	}
	if given != 1 {
		return match, nil, &parameterError{"user, sub or sid", "must be given, exactly one of them"}
	}
	if !q.Has("provider") {
		return match, a.providers, nil
	}
	for _, pr := range a.providers {
		if pr.name == q.Get("provider") {
			return match, []*provider{pr}, nil
		}
	}
	return match, nil, &parameterError{"provider", "is none of the configuration's"}
}

// auditSelection is what an operator asked about, under the names that the other lines of the audit log have for it.
func auditSelection(q url.Values) (attrs []slog.Attr) {
	for _, name := range [][2]string{{"user", "user"}, {"sub", "subject"}, {"sid", "sid"}, {"provider", "provider"}} {
		if q.Has(name[0]) {
			attrs = append(attrs, slog.String(name[1], q.Get(name[0])))
		}
	}
	return attrs
}

func adminAnswer(w http.ResponseWriter, body any) {
	noStore(w.Header())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that left is no error of ours
}

// adminFailed is the one ladder from errors to answers.
func adminFailed(w http.ResponseWriter, err error, ended int) {
	var parameter *parameterError
	switch {
	case errors.As(err, &parameter):
		adminProblem(w, http.StatusBadRequest, "bad_parameter", parameter.Error()+".", map[string]any{"parameter": parameter.name})
	case errors.Is(err, session.ErrUnavailable):
		w.Header().Set("Retry-After", "5")
		adminProblem(w, http.StatusServiceUnavailable, "store_unavailable", "The session store does not answer. What did not end is tried again for a while; ask again.",
			map[string]any{"ended": ended})
	default:
		adminProblem(w, http.StatusInternalServerError, "internal", "This could not be done.", map[string]any{"ended": ended})
	}
}

func adminMethod(w http.ResponseWriter, methods ...string) {
	w.Header().Set("Allow", strings.Join(methods, ", "))
	adminProblem(w, http.StatusMethodNotAllowed, "method_not_allowed", "This address takes "+strings.Join(methods, " and ")+".", nil)
}

// adminProblem writes problem JSON (RFC 9457).
func adminProblem(w http.ResponseWriter, status int, code, detail string, more map[string]any) {
	body := map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail}
	for name, value := range more {
		body[name] = value
	}
	noStore(w.Header())
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that left is no error of ours
}
