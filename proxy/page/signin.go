package page

import (
	"cmp"
	"net/http"
)

// SignIn is the form of a provider that takes user name and password from Postern. It posts the fields username and password.
type SignIn struct {
	// Status is the status of the answer. Default: 200.
	Status int
	// Provider says whose user name and password are wanted.
	Provider string
	// Action is where the form is posted; relative or http(s).
	Action string
	// Fields are posted along.
	Fields map[string]string
	// User is what the person typed before. The password is never shown again.
	User string
	// Problem names the text about the last try, such as wrong (form.wrong).
	Problem string
	// Ended is why a session ended, for who has not tried yet; a reason that there is no text for is not told.
	Ended string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

// SignIn writes the form. Password managers recognise it; it works without JavaScript.
func (p *Pages) SignIn(w http.ResponseWriter, r *http.Request, s SignIn) {
	p.write(w, r, p.signIn(p.speak.to(r), s))
}

func (p *Pages) signIn(in *wording, s SignIn) sheet {
	v := view{
		wording:   in,
		Heading:   in.say("form.title"),
		Action:    safeURL(s.Action),
		Fields:    fields(s.Fields),
		Person:    line(s.User),
		Problem:   in.texts["ended."+s.Ended],
		RequestID: line(s.RequestID),
	}
	if s.Problem != "" {
		v.Problem = in.say("form." + s.Problem)
	}
	if s.Provider != "" {
		v.Text = in.say("form.text", "provider", line(s.Provider))
	}
	return sheet{cmp.Or(s.Status, http.StatusOK), "signin", v, policy{formAction: "'self'"}}
}
