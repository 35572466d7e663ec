package page

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed page.html page.css
var files embed.FS

// Options say what all pages have in common.
type Options struct {
	// Title is the name of the product or site that every page shows. Default: Postern.
	Title string
	// Now is the clock that "in 5 minutes" is counted from. Default: [time.Now].
	Now func() time.Time
}

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	site      string
	now       func() time.Time
	templates *template.Template
	style     template.CSS
	styleHash string
}

// New returns the pages of one site.
func New(o Options) *Pages {
	css, err := files.ReadFile("page.css")
	if err != nil {
		panic(err) // embedded: cannot be missing
	}
	p := &Pages{
		site:      line(cmp.Or(o.Title, "Postern")),
		now:       o.Now,
		templates: template.Must(template.ParseFS(files, "page.html")),
		style:     template.CSS(css), // #nosec G203 -- our own file
		styleHash: "'sha256-" + hash(string(css)) + "'",
	}
	if p.now == nil {
		p.now = time.Now
	}
	return p
}

// Link is one way on from a page.
type Link struct {
	// Text says where it leads.
	Text string
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
	// Title is the heading. Default: the text of the status.
	Title string
	// Text is a sentence or two for the person.
	Text string
	// Details are listed below, such as likely causes.
	Details []string
	// RequestID lets an operator find the request in the log.
	RequestID string
	// Links are the ways on.
	Links []Link
}

// Confirm is a question with one button that posts a form.
type Confirm struct {
	// Status is the response's status. Default: 200.
	Status int
	// Title is the heading.
	Title string
	// Text says what will happen.
	Text string
	// Action is where the form is posted; relative or http(s).
	Action string
	// Button is the text of the button. Default: Continue.
	Button string
	// Fields are posted along.
	Fields map[string]string
	// Cancel is where the person goes who does not want it.
	Cancel string
	// RequestID lets an operator find the request in the log.
	RequestID string
}

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
	// Said tells what a button on this page did.
	Said string
	// Sessions are the person's sessions, this one among them.
	Sessions []SessionLine
	// ListProblem says why others are missing, if so.
	ListProblem string
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

// view is what every template sees.
type view struct {
	Site, Heading, Text, RequestID string
	Status                         int
	Style                          template.CSS
	Refresh                        string
	Links                          []Link
	Details                        []string
	Role                           string
	Action, Button, Cancel, URL    string
	Person, Problem                string
	Fields                         map[string]string
	Script                         template.JS
	ScriptURL                      string
	sessionFacts
	keptFacts
}

// Notice writes a page that says something.
func (p *Pages) Notice(w http.ResponseWriter, r *http.Request, n Notice) {
	status := n.Status
	if status < 200 || status > 599 {
		status = http.StatusInternalServerError
	}
	v := view{
		Heading:   line(cmp.Or(n.Title, http.StatusText(status), "Error")),
		Text:      text(n.Text),
		Details:   texts(n.Details),
		RequestID: line(n.RequestID),
		Links:     links(n.Links),
		Role:      "status",
	}
	if status >= 400 {
		v.Role, v.Status = "alert", status
	}
	h := policy{formAction: "'none'", framed: slices.ContainsFunc(v.Links, func(l Link) bool { return l.Top })}
	p.write(w, r, status, "notice", v, h)
}

// Confirm writes a question.
func (p *Pages) Confirm(w http.ResponseWriter, r *http.Request, c Confirm) {
	p.write(w, r, cmp.Or(c.Status, http.StatusOK), "confirm", view{
		Heading:   line(cmp.Or(c.Title, "Are you sure?")),
		Text:      text(c.Text),
		Action:    safeURL(c.Action),
		Button:    line(cmp.Or(c.Button, "Continue")),
		Fields:    fields(c.Fields),
		Cancel:    safeURL(c.Cancel),
		RequestID: line(c.RequestID),
	}, policy{formAction: "'self'"})
}

// Session writes the page about a person's session.
func (p *Pages) Session(w http.ResponseWriter, r *http.Request, s SessionView) {
	p.write(w, r, http.StatusOK, "session", view{
		Heading:      "You are signed in",
		RequestID:    line(s.RequestID),
		sessionFacts: p.facts(s),
	}, policy{formAction: "'self'"})
}

// Continue writes a page that goes on to url by itself, where a redirect would not do: after a sign-in whose session cookie is
// SameSite=Strict, which a redirect that comes from the provider's site would not carry; and after a form, whose redirects browsers hold to
// the form-action of its page, wherever a provider may send them. An address that is not relative or http(s) becomes /.
func (p *Pages) Continue(w http.ResponseWriter, r *http.Request, title, url string) {
	url = cmp.Or(safeURL(url), "/")
	p.write(w, r, http.StatusOK, "continue", view{
		Heading: line(title),
		// Not "url={{.}}" in the template: that would rewrite characters of the address which an application may count on.
		Refresh: "0; url=" + url,
		URL:     url,
	}, policy{formAction: "'none'"})
}

// Fragment writes a page whose script, which is served at script on this origin, goes on to url with what stands after # in the page's own address.
// Where scripts are off its link goes on without that.
func (p *Pages) Fragment(w http.ResponseWriter, r *http.Request, title, url, script string) {
	p.write(w, r, http.StatusOK, "fragment", view{
		Heading: line(title), URL: safeURL(url), ScriptURL: safeURL(script),
	}, policy{formAction: "'none'", script: "'self'"})
}

// postScript sends the form of the page [Pages.Post].
const postScript = "document.forms[0].submit()"

// Post writes a page that posts fields to url, an http(s) address, where an address that holds them would be too long. It goes by
// itself, and by its button where scripts are off. The fields reach url as they are.
func (p *Pages) Post(w http.ResponseWriter, r *http.Request, title, url string, fields map[string]string) {
	target := safeURL(url)
	// The form's target may redirect to hosts that nobody here knows, and browsers hold each hop to form-action.
	formAction := "'self' https:"
	if scheme, rest, ok := strings.Cut(target, "://"); ok && scheme == "http" {
		host, _, _ := strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, "?")
		formAction += " http://" + host
	}
	p.write(w, r, http.StatusOK, "post", view{
		Heading: line(title), Action: target, Fields: fields, Script: postScript,
	}, policy{formAction: formAction, script: "'sha256-" + hash(postScript) + "'"})
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// policy is what a page's security headers depend on.
type policy struct {
	formAction string
	framed     bool
	script     string // the page's own script: its hash, or 'self'; empty: none
}

func (p *Pages) write(w http.ResponseWriter, r *http.Request, status int, name string, v view, pol policy) {
	v.Site, v.Style = p.site, p.style
	var body bytes.Buffer
	if err := p.templates.ExecuteTemplate(&body, name, v); err != nil {
		// A fault of ours in a template. The person sees the status at least.
		body.Reset()
		body.WriteString("<!DOCTYPE html><html lang=\"en\"><title>Error</title><h1>Error</h1><p>This page could not be shown.</p></html>\n")
		status = max(status, http.StatusInternalServerError)
	}

	h := w.Header()
	// What an upstream or a caller said of another body is not true of this one.
	for _, k := range []string{"Accept-Ranges", "Content-Disposition", "Content-Encoding", "Content-Range", "Etag", "Expires", "Last-Modified"} {
		h.Del(k)
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", "en")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	if pol.formAction != "'none'" {
		// With no-referrer a form is posted with "Origin: null", which looks like another site's to whoever checks it. Other sites
		// learn nothing of this page with same-origin either.
		h.Set("Referrer-Policy", "same-origin")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	ancestors := "'none'"
	if pol.framed {
		h.Del("X-Frame-Options") // it has no value for "anyone"
		ancestors = "*"
	}
	directives := []string{
		"default-src 'none'",
		"style-src " + p.styleHash,
		"img-src data:", // the icon, which is in the page, so that browsers do not ask for /favicon.ico
		"form-action " + pol.formAction,
		"frame-ancestors " + ancestors,
		"base-uri 'none'",
	}
	if pol.script != "" {
		directives = append(directives, "script-src "+pol.script)
	}
	h.Set("Content-Security-Policy", strings.Join(directives, "; "))
	vary(h, "Accept", "Cookie", "Sec-Fetch-Dest", "Sec-Fetch-Mode")

	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	// The client may have left; there is nobody to tell.
	_, _ = w.Write(body.Bytes())
}

// vary adds to Vary what decides whether someone gets a page, and which, unless it is there already.
func vary(h http.Header, names ...string) {
	var have []string
	for _, v := range h.Values("Vary") {
		for name := range strings.SplitSeq(v, ",") {
			have = append(have, strings.ToLower(strings.TrimSpace(name)))
		}
	}
	if slices.Contains(have, "*") {
		return
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(have, strings.ToLower(name)) })
	if len(names) > 0 {
		h.Add("Vary", strings.Join(names, ", "))
	}
}
