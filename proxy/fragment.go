package proxy

import (
	"io"
	"net/http"

	"postern/proxy/page"
)

// fragmentScript goes on to the link of [page.Pages.Fragment], whose last parameter is the address to come back to, with the fragment added to
// that. A fragment may hold a secret: it is written nowhere else, and replacing the page leaves it out of the history.
const fragmentScript = `"use strict";
location.replace(document.getElementById("on").href + encodeURIComponent(location.hash));
`

// keepFragment begins a sign-in on a route with keep_fragment. Browsers send no fragment, and one that a redirect to the provider carries along
// ends there; so a page of ours reads it and takes it to start, which keeps it sealed in this attempt. Without scripts its link goes on
// without the fragment.
func (p *Proxy) keepFragment(x *exchange, rd string) {
	p.own(x.Header())
	p.pages.Fragment(x, x.r, page.SigningIn, p.startURL(x, rd), p.prefix+"/fragment.js")
}

// fragmentScript is the endpoint fragment.js.
func (p *Proxy) fragmentScript(x *exchange) {
	h := x.Header()
	p.own(h)
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if x.r.Method != http.MethodHead {
		_, _ = io.WriteString(x, fragmentScript) // a client that left is no error of ours
	}
}
