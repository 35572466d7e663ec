package page

import (
	"fmt"
	"strings"
	"time"
)

const (
	// maxGroups is how many groups the session page lists.
	maxGroups = 50
	// shownGroups is how many of them it shows without being asked, so that what one can do is not far below. One more is no reason to ask.
	shownGroups = 8
)

// sessionFacts is what the session page shows.
type sessionFacts struct {
	User, Email, Name    string
	Groups, MoreGroups   []string
	UnlistedGroups       int
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
	ID, Browser    string
	SignedIn, Seen *moment
	This           bool
}

func (p *Pages) facts(s SessionView) sessionFacts {
	f := sessionFacts{
		User:      line(s.User),
		Email:     line(s.Email),
		Name:      line(s.Name),
		Provider:  line(s.Provider),
		SignedIn:  p.moment(s.SignedIn),
		Ends:      p.moment(s.Ends),
		IdleUntil: p.moment(s.IdleUntil),
		RefreshAt: p.moment(s.RefreshAt),
		SignOut:   safeURL(s.SignOut),
		Home:      safeURL(s.Home),
		Said:      text(s.Said), ListProblem: text(s.ListProblem),
		End: safeURL(s.End), More: safeURL(s.More), OtherSessions: s.OtherSessions,
	}
	for _, one := range s.Sessions {
		l := sessionLine{ID: one.ID, Browser: line(one.Browser), SignedIn: p.past(one.SignedIn), Seen: p.past(one.Seen), This: one.This}
		if l.Browser == "" || l.Browser == "Other" {
			l.Browser = "Another browser"
		}
		f.Sessions = append(f.Sessions, l)
	}
	for i, g := range s.Groups {
		if i == maxGroups {
			f.UnlistedGroups = len(s.Groups) - maxGroups
			break
		}
		if g = line(g); g != "" {
			f.Groups = append(f.Groups, g)
		}
	}
	if len(f.Groups) > shownGroups+1 {
		f.Groups, f.MoreGroups = f.Groups[:shownGroups], f.Groups[shownGroups:]
	}
	return f
}

// moment is a time as people read it and as machines do.
type moment struct {
	Machine, Relative, Absolute string
}

// moment returns nil for the zero time, which is unknown.
func (p *Pages) moment(t time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &moment{
		Machine:  t.Format(time.RFC3339),
		Relative: relative(t.Sub(p.now())),
		// The zone is named: a page without script cannot know the reader's.
		Absolute: t.Format("2 January 2006, 15:04 MST"),
	}
}

// past is the moment of what has happened, even if another machine's clock is a little ahead.
func (p *Pages) past(t time.Time) *moment {
	if now := p.now(); t.After(now) {
		t = now
	}
	return p.moment(t)
}

// relative says how far away a moment is.
func relative(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return "in " + span(d)
	case d > 0:
		return "in less than a minute"
	case d > -time.Minute:
		return "just now"
	}
	return span(-d) + " ago"
}

// span says how long d is, in its two largest units.
func span(d time.Duration) string {
	minutes := int(d / time.Minute)
	hours, days := minutes/60, minutes/(24*60)
	switch {
	case days >= 2:
		return units(days, "day", hours%24, "hour")
	case hours >= 1:
		return units(hours, "hour", minutes%60, "minute")
	}
	return units(minutes, "minute", 0, "")
}

func units(a int, unitA string, b int, unitB string) string {
	parts := []string{count(a, unitA)}
	if b > 0 {
		parts = append(parts, count(b, unitB))
	}
	return strings.Join(parts, " ")
}

func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
