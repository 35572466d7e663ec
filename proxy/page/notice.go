package page

import (
	"cmp"
	"net/http"
	"slices"
)

// Link is one way on from a page.
type Link struct {
	// Say names the text that says where it leads, such as try_again (link.try_again); Text is one that is in no language, such as a name.
	Say, Text string
	// URL is relative or http(s); a link with any other is left out.
	URL string
	// Primary marks what most people will want.
	Primary bool
	// Top opens the address in the whole window. A page with such a link is meant for an iframe, so other sites may frame it:
	// it must hold nothing but that link, which any site could open in its own window anyway.
	Top bool
}

// Notice is a page that says something: an error, or that a person is signed out.
type Notice struct {
	// Status is the response's status. Default: 500.
	Status int
	// Say names the texts: its .title is the heading, its .text a sentence or two, its .details, if any, are listed. Default: internal.
	Say string
	// Ended is why a session ended; a reason that there is no text for is not told.
	Ended string
	// Account is who is signed in, where that matters.
	Account string
	// RequestID lets an operator find the request in the log.
	RequestID string
	// Links are the ways on.
	Links []Link
}

// Notice writes a page that says something.
func (p *Pages) Notice(w http.ResponseWriter, r *http.Request, n Notice) {
	p.write(w, r, p.notice(p.speak.to(r), n))
}

func (p *Pages) notice(in *wording, n Notice) sheet {
	status := n.Status
	if status < 200 || status > 599 {
		status = http.StatusInternalServerError
	}
	say := cmp.Or(n.Say, "internal")
	v := view{
		wording:   in,
		Heading:   in.say(say + ".title"),
		Text:      in.say(say + ".text"),
		RequestID: line(n.RequestID),
		Links:     links(in, n.Links),
		Role:      "status",
	}
	if why := in.texts["ended."+n.Ended]; why != "" {
		v.Details = append(v.Details, why)
	}
	v.Details = append(v.Details, in.list(say+".details")...)
	if account := line(n.Account); account != "" {
		v.Details = append(v.Details, in.say("signed_in_as", "name", account))
	}
	if status >= 400 {
		v.Role, v.Status = "alert", status
	}
	framed := slices.ContainsFunc(v.Links, func(l Link) bool { return l.Top })
	return sheet{status, "notice", v, policy{formAction: "'none'", framed: framed}}
}

// Confirm is a question with one button that posts a form.
type Confirm struct {
	// Status is the response's status. Default: 200.
	Status int
	// Say names the texts: .title is the heading, .text says what will happen, .button is on the button.
	Say string
	// Action is where the form is posted; relative or http(s).
	Action string
	// Fields are posted along.
	Fields map[string]string
	// Cancel is where the person goes who does not want it.
	Cancel string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

// Confirm writes a question.
func (p *Pages) Confirm(w http.ResponseWriter, r *http.Request, c Confirm) {
	p.write(w, r, p.confirm(p.speak.to(r), c))
}

func (p *Pages) confirm(in *wording, c Confirm) sheet {
	return sheet{cmp.Or(c.Status, http.StatusOK), "confirm", view{
		wording:   in,
		Heading:   in.say(c.Say + ".title"),
		Text:      in.say(c.Say + ".text"),
		Button:    in.say(c.Say + ".button"),
		Action:    safeURL(c.Action),
		Fields:    fields(c.Fields),
		Cancel:    safeURL(c.Cancel),
		RequestID: line(c.RequestID),
	}, policy{formAction: "'self'"}}
}
