package config

import (
	"net/url"
	"strings"
)

// exchange checks what a route trades the person's token for.
func (v *validator) exchange(at string, r Route) {
	e := r.Bearer.Exchange
	if e == nil {
		return
	}
	if !r.needsSignIn() && !v.c.src.broken(strings.TrimSuffix(at, ".bearer.exchange")+".access") {
		v.err(at, "has no token to exchange on a route for which nobody is signed in", "Leave it out, or change access")
	}
	switch {
	case e.Kind == "jwt_bearer" && e.Scope == "":
		v.err(at+".scope", "is missing: with jwt_bearer it names the application", `Write it such as "api://backend/.default"`)
	case e.Kind == "jwt_bearer" && e.Audience+e.Resource != "":
		v.err(at, "has audience or resource, which jwt_bearer does not send", "Name the application in scope")
	case e.Audience+e.Scope+e.Resource == "":
		v.err(at, "names nothing to exchange for", "Write an audience, a scope or a resource")
	}
	v.scope(at+".scope", e.Scope)
	if e.Audience != "" && !isPrintable(e.Audience) {
		v.shown(at+".audience", "is not printable ASCII without spaces", "Write the audience as the provider knows it")
	}
	v.resource(at+".resource", e.Resource)
}

// bearerTokens checks which tokens of clients a route takes.
func (v *validator) bearerTokens(at string, r Route) {
	b := r.Access.BearerTokens
	if b == nil {
		return
	}
	if len(b.Audience) == 0 {
		v.err(at+".audience", "is missing: a token for any application would open this one", "Name the audience that the provider puts into tokens for this application")
	}
	for i, s := range b.Scopes {
		if s == "" || strings.Contains(s, " ") || !isScope(s) {
			v.shown(element(v.c.src, at+".scopes", i), "is not one scope", "Write a list such as [orders.read, orders.write]")
		}
	}
	name := b.Provider
	if v.given(at + ".provider") {
		v.providerName(at+".provider", name)
	}
	if name == "" && len(r.Provider) > 0 {
		name = r.Provider[0]
	}
	p, ok := v.c.Providers.Lookup(name)
	if name == "" && len(v.c.Providers) > 0 {
		p, ok = v.c.Providers[0], true
	}
	switch {
	case !ok || p.OAuth2 == nil:
	case !b.Introspect:
		v.err(at, "takes JWTs of provider "+quote(p.Name)+", which has no keys to verify them with", "Write introspect: true")
	case p.OAuth2.IntrospectURL == nil:
		v.err(at+".introspect", "needs oauth2.introspect_url of provider "+quote(p.Name), "Name the provider's introspection endpoint there")
	}
}

// routeResource checks the resource of the token that a route sends.
func (v *validator) routeResource(at string, r Route) {
	if r.Resource == "" {
		return
	}
	v.resource(at, r.Resource)
	if r.Bearer.Kind != "" && r.Bearer.Kind != "access_token" {
		v.err(at, "is of the person's access token, which this route does not send", "Leave it out, or leave bearer out; an exchange has a resource of its own")
	}
	if !r.needsSignIn() {
		v.err(at, "does nothing on a route for which nobody is signed in", "Leave it out, or change access")
	}
}

// resource wants an absolute URI without fragment (RFC 8707 section 2).
func (v *validator) resource(at, resource string) {
	if resource == "" {
		return
	}
	u, err := url.Parse(resource)
	if err != nil || !u.IsAbs() || u.Host == "" && u.Opaque == "" && u.Path == "" || strings.Contains(resource, "#") || !isPrintable(resource) {
		v.shown(at, "is not an absolute URI without fragment", "Write it such as https://api.example.com")
	}
}

// assertion checks the signed statement that a route adds, and that replicas would sign it with the same key.
func (v *validator) assertion(at string, r Route) {
	a := r.Assertion
	if a == nil {
		return
	}
	if !isPrintable(a.Audience) {
		v.err(at+".audience", "is missing, or not printable ASCII without spaces", "Name the application, which checks that the statement is for it, such as https://wiki.example.com")
	}
	v.headerName(at+".header", a.Header, unsettable+"authorization ")
	for name := range r.Headers {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), strings.ReplaceAll(a.Header, "_", "-")) {
			v.err(at+".header", "is one of the route's headers too", "Choose another name")
		}
	}
	if !r.needsSignIn() && !v.c.src.broken(strings.TrimSuffix(at, ".assertion")+".access") {
		v.err(at, "is about the person, and nobody is signed in on this route", "Leave it out, or change access")
	}
	if v.c.Session.Store.Redis != nil && len(v.c.Server.AssertionKeys) == 0 {
		v.err(at, "needs server.assertion_keys with Redis: each replica would sign with a key of its own", "Write server.assertion_keys: [{file: PATH}]; `postern keygen --assertion` makes a key")
	}
}

// scope checks scopes with a space between them.
func (v *validator) scope(at, scope string) {
	if !isScope(scope) {
		v.shown(at, "is not a list of scopes", "Write scopes with a space between them")
	}
}

// isScope tells whether s holds what scopes are made of (RFC 6749 section 3.3), and spaces.
func isScope(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f || r == '"' || r == '\\' })
}
