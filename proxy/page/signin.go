package page

import (
	"cmp"
	"net/http"
)

// SignIn is the form of a provider that takes user name and password from Postern. It posts the fields username and password.
type SignIn struct {
	// Status is the status of the answer. Default: 200.
	Status int
	// Title is the heading.
	Title string
	// Provider says whose user name and password are wanted.
	Provider string
	// Action is where the form is posted; relative or http(s).
	Action string
	// Fields are posted along.
	Fields map[string]string
	// User is what the person typed before. The password is never shown again.
	User string
	// Problem is a sentence about the last try.
	Problem string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

// SignIn writes the form. Password managers recognise it; it works without JavaScript.
func (p *Pages) SignIn(w http.ResponseWriter, r *http.Request, s SignIn) {
	v := view{
		Heading:   line(cmp.Or(s.Title, "Sign in")),
		Action:    safeURL(s.Action),
		Fields:    fields(s.Fields),
		Person:    line(s.User),
		Problem:   text(s.Problem),
		RequestID: line(s.RequestID),
	}
	if s.Provider != "" {
		v.Text = "With your account at " + line(s.Provider) + "."
	}
	p.write(w, r, cmp.Or(s.Status, http.StatusOK), "signin", v, policy{formAction: "'self'"})
}
