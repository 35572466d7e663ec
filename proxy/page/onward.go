package page

import (
	"cmp"
	"net/http"
	"strings"
)

// Titles of pages that go on by themselves.
const (
	SigningIn  = "onward.signing_in"
	SignedIn   = "onward.signed_in"
	SigningOut = "onward.signing_out"
)

// Continue writes a page that goes on to url by itself, where a redirect would not do: after a sign-in whose session cookie is
// SameSite=Strict, which a redirect that comes from the provider's site would not carry; and after a form, whose redirects browsers hold to
// the form-action of its page, wherever a provider may send them. An address that is not relative or http(s) becomes /.
func (p *Pages) Continue(w http.ResponseWriter, r *http.Request, title, url string) {
	p.write(w, r, p.goOn(p.speak.to(r), title, url))
}

func (p *Pages) goOn(in *wording, title, url string) sheet {
	url = cmp.Or(safeURL(url), "/")
	return sheet{http.StatusOK, "continue", view{
		wording: in,
		Heading: in.say(title),
		// Not "url={{.}}" in the template: that would rewrite characters of the address which an application may count on.
		Refresh: "0; url=" + url,
		URL:     url,
	}, policy{formAction: "'none'"}}
}

// Fragment writes a page whose script, which is served at script on this origin, goes on to url with what stands after # in the page's own address.
// Where scripts are off its link goes on without that.
func (p *Pages) Fragment(w http.ResponseWriter, r *http.Request, title, url, script string) {
	p.write(w, r, p.fragment(p.speak.to(r), title, url, script))
}

func (p *Pages) fragment(in *wording, title, url, script string) sheet {
	return sheet{http.StatusOK, "fragment", view{
		wording: in, Heading: in.say(title), URL: safeURL(url), ScriptURL: safeURL(script),
	}, policy{formAction: "'none'", script: "'self'"}}
}

// postScript sends the form of the page [Pages.Post].
const postScript = "document.forms[0].submit()"

// Post writes a page that posts fields to url, an http(s) address, where an address that holds them would be too long. It goes by
// itself, and by its button where scripts are off. The fields reach url as they are.
func (p *Pages) Post(w http.ResponseWriter, r *http.Request, title, url string, fields map[string]string) {
	p.write(w, r, p.post(p.speak.to(r), title, url, fields))
}

func (p *Pages) post(in *wording, title, url string, fields map[string]string) sheet {
	target := safeURL(url)
	// The form's target may redirect to hosts that nobody here knows, and browsers hold each hop to form-action.
	formAction := "'self' https:"
	if scheme, rest, ok := strings.Cut(target, "://"); ok && scheme == "http" {
		host, _, _ := strings.Cut(rest, "/")
		host, _, _ = strings.Cut(host, "?")
		formAction += " http://" + host
	}
	return sheet{http.StatusOK, "post", view{
		wording: in, Heading: in.say(title), Action: target, Fields: fields, Script: postScript,
	}, policy{formAction: formAction, script: "'sha256-" + hash(postScript) + "'"}}
}
