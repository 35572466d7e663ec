package page

import (
	"net/http"
	"time"
)

const (
	// maxGroups is how many groups the session page lists.
	maxGroups = 50
	// shownGroups is how many of them it shows without being asked, so that what one can do is not far below. One more is no reason to ask.
	shownGroups = 8
)

// SessionView is what a person may see of the own session. Empty members are left out.
type SessionView struct {
	// User, Email, Name and Groups are who is signed in.
	User, Email, Name string
	Groups            []string
	// Provider says where the person signed in.
	Provider string
	// SignedIn is when; Ends when the session will be over at the latest; IdleUntil when it will if it is not used; RefreshAt when
	// the access token is renewed next.
	SignedIn, Ends, IdleUntil, RefreshAt time.Time
	// SignOut is where the sign-out form is posted, Home the application.
	SignOut, Home string
	// Ended is how many sessions a button on this page has ended; nil: none was pressed.
	Ended *int
	// Sessions are the person's sessions, this one among them; Unknown says that nobody can tell at the moment whether there are others.
	Sessions []SessionLine
	Unknown  bool
	// End is where the buttons that end sessions are posted: as the form value "end", which is a SessionLine's ID or [EndOthers]. OtherSessions
	// says that there are any.
	End           string
	OtherSessions bool
	// More is the address of the rest of a long list.
	More string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

// SessionLine is one of a person's sessions in a list.
type SessionLine struct {
	// ID names it in the form that ends it.
	ID string
	// Browser is the browser's family; Other stands for every other one.
	Browser string
	// SignedIn and Seen are when it began and when it was last used.
	SignedIn, Seen time.Time
	// This marks the session that looks at the page.
	This bool
}

// EndOthers is the form value that asks for the end of all sessions but this one.
const EndOthers = "others"

// Session writes the page about a person's session.
func (p *Pages) Session(w http.ResponseWriter, r *http.Request, s SessionView) {
	p.write(w, r, p.session(p.speak.to(r), s))
}

func (p *Pages) session(in *wording, s SessionView) sheet {
	return sheet{http.StatusOK, "session", view{
		wording:      in,
		Heading:      in.say("session.title"),
		RequestID:    line(s.RequestID),
		sessionFacts: p.facts(in, s),
	}, policy{formAction: "'self'"}}
}

// sessionFacts is what the session page shows.
type sessionFacts struct {
	User, Email, Name    string
	Groups, MoreGroups   []string
	MoreSummary          string
	Provider             string
	SignedIn, Ends       *moment
	IdleUntil, RefreshAt *moment
	SignOut, Home        string
	Said, ListProblem    string
	Sessions             []sessionLine
	End, More            string
	OtherSessions        bool
}

// sessionLine is what the list shows of one session.
type sessionLine struct {
	ID, Browser, EndLabel string
	SignedIn, Seen        *moment
	This                  bool
}

func (p *Pages) facts(in *wording, s SessionView) sessionFacts {
	f := sessionFacts{
		User:      line(s.User),
		Email:     line(s.Email),
		Name:      line(s.Name),
		Provider:  line(s.Provider),
		SignedIn:  p.moment(in, s.SignedIn),
		Ends:      p.moment(in, s.Ends),
		IdleUntil: p.moment(in, s.IdleUntil),
		RefreshAt: p.moment(in, s.RefreshAt),
		SignOut:   safeURL(s.SignOut),
		Home:      safeURL(s.Home),
		Said:      endedCount(in, s.Ended),
		End:       safeURL(s.End), More: safeURL(s.More), OtherSessions: s.OtherSessions,
	}
	if s.Unknown {
		f.ListProblem = in.say("sessions.unknown")
	}
	for _, one := range s.Sessions {
		f.Sessions = append(f.Sessions, p.sessionLine(in, one))
	}
	unlisted := 0
	for i, g := range s.Groups {
		if i == maxGroups {
			unlisted = len(s.Groups) - maxGroups
			break
		}
		if g = line(g); g != "" {
			f.Groups = append(f.Groups, g)
		}
	}
	if len(f.Groups) > shownGroups+1 {
		f.Groups, f.MoreGroups = f.Groups[:shownGroups], f.Groups[shownGroups:]
		f.MoreSummary = in.say("session.more", "n", len(f.MoreGroups))
		if unlisted > 0 {
			f.MoreSummary = in.say("session.more_unlisted", "n", len(f.MoreGroups), "unlisted", unlisted)
		}
	}
	return f
}

func (p *Pages) sessionLine(in *wording, s SessionLine) sessionLine {
	l := sessionLine{ID: s.ID, Browser: line(s.Browser), SignedIn: p.past(in, s.SignedIn), Seen: p.past(in, s.Seen), This: s.This}
	if l.Browser == "" || l.Browser == "Other" {
		l.Browser = in.say("sessions.other_browser")
	}
	switch {
	case l.This:
		l.EndLabel = in.say("sessions.end_this")
	case l.SignedIn == nil:
		l.EndLabel = in.say("sessions.end_that", "browser", l.Browser)
	default:
		l.EndLabel = in.say("sessions.end_since", "browser", l.Browser, "when", l.SignedIn.Relative)
	}
	return l
}

// endedCount tells what a button did.
func endedCount(in *wording, n *int) string {
	switch {
	case n == nil:
		return ""
	case *n == 0:
		return in.say("sessions.ended_none")
	case *n == 1:
		return in.say("sessions.ended_one")
	}
	return in.say("sessions.ended_many", "n", *n)
}
