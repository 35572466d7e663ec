package config

import (
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func (v *validator) routes() {
	if len(v.c.Routes) == 0 {
		v.err("routes", "no route is named", "Write one, such as  - upstream: http://127.0.0.1:3000")
	}
	for i, r := range v.c.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		v.host(at+".host", r.Host)
		v.publicHost(at+".host", r)
		v.path(at+".path", r.Path)
		v.methods(at+".methods", r.Methods)
		v.upstreams(at, r)
		v.routeProviders(at, r)
		v.access(at, r)
		v.bearer(at+".bearer.client_credentials", r.Bearer.ClientCredentials)
		v.exchange(at+".bearer.exchange", r)
		v.bearerTokens(at+".access.bearer_tokens", r)
		v.routeResource(at+".resource", r)
		v.assertion(at+".assertion", r)
		v.headers(at+".headers", r.Headers, unsettable)
		v.headers(at+".headers_response", r.HeadersResponse, unsettableResponse)
		v.authorization(at, r)
		v.webOrigins(at+".cors", r.CORS)
		v.webOrigins(at+".allowed_origins", r.AllowedOrigins)
		if r.Preflight != "" && len(r.Methods) > 0 && !slices.Contains(r.Methods, "OPTIONS") {
			v.err(at+".preflight", "does nothing on a route whose methods leave OPTIONS out", "Add OPTIONS to methods, or write it on the route that takes it")
		}
	}
}

func (v *validator) host(at, host string) {
	if host == "" {
		return
	}
	name := strings.TrimPrefix(host, "*.")
	switch {
	case strings.Contains(name, "*"):
		v.shown(at, "has a * that does not stand for whole labels in front", "Write *.example.com")
	case strings.Contains(host, "/"):
		v.shown(at, "is not a host", "Write the host alone; the path has its own key")
	case strings.Contains(host, ":"):
		v.shown(at, "has a port", "Write the host alone: a route answers on every port")
	case strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }):
		v.shown(at, "is not in ASCII", "Write the form that browsers send, which begins with xn--")
	case !isHost(name) || name != host && isAddr(name):
		v.shown(at, "is not a host", "Write a host name such as wiki.example.com or *.example.com")
	}
}

// publicHost warns of hosts on which nobody can sign in: with public_url, redirect URIs and the session cookie are that host's alone.
func (v *validator) publicHost(at string, r Route) {
	public := v.c.Server.PublicURL
	if public == nil || r.Host == "" || r.Host == public.Hostname() || !r.needsSignIn() {
		return
	}
	if suffix, wild := strings.CutPrefix(r.Host, "*"); wild && strings.HasSuffix(public.Hostname(), suffix) {
		return
	}
	v.warn(at, "is another host than server.public_url's: people are sent there to sign in, and nobody has a session here",
		"Leave server.public_url out, so that each host has its own, or drop the host")
}

// path wants the one form in which requests' paths are compared: decoded and clean.
func (v *validator) path(at, p string) {
	if v.c.src.broken(at) {
		return
	}
	switch {
	case !strings.HasPrefix(p, "/"):
		v.shown(at, "does not begin with /", "Write a path such as /app; it covers everything beneath it")
	case strings.HasSuffix(p, "*"):
		v.shown(at, "ends with *", "Leave the * off: a path covers everything beneath it")
	case strings.ContainsAny(p, "?#"):
		v.shown(at, "has a query or fragment", "Write the path alone")
	case strings.ContainsAny(p, `\;`):
		v.shown(at, `has \ or ;, which stand for different paths in different servers`, "Leave it off")
	case path.Clean(p) != p && path.Clean(p)+"/" != p:
		v.shown(at, "is not a clean path", "Write it without //, . and ..")
	case strings.Contains(p, "%"): // requests are compared decoded: an escape would never match
		v.shown(at, "has a %", "Write the character itself, such as /café or /my files")
	}
	own := v.c.Server.Prefix
	if trimmed := strings.TrimSuffix(p, "/"); trimmed == own || strings.HasPrefix(trimmed, own+"/") {
		v.warn(at, "lies under server.prefix, where Postern's own endpoints are: this route is never used", "Change the path, or server.prefix")
	}
}

func (v *validator) methods(at string, methods []string) {
	if v.given(at) && len(methods) == 0 {
		v.err(at, "is an empty list: the route would match nothing", "Name methods, or leave the key out for all")
	}
	for i, m := range methods {
		e := element(v.c.src, at, i)
		switch {
		case m == "TRACE" || m == "CONNECT":
			v.shown(e, "is never let through", "Leave it out")
		case !isToken(m):
			v.shown(e, "is not a method", "Write methods such as GET and POST")
		case strings.ToUpper(m) != m:
			v.shown(e, "is not in upper case", "Write "+quote(strings.ToUpper(m))+": methods are compared letter by letter")
		case slices.Contains(methods[:i], m):
			v.shown(e, "is named twice", "Keep one")
		}
	}
}

func (v *validator) routeProviders(at string, r Route) {
	key := at + ".provider"
	for i, name := range r.Provider {
		v.providerName(element(v.c.src, key, i), name)
		if slices.Contains(r.Provider[:i], name) {
			v.shown(element(v.c.src, key, i), "is named twice", "Keep one")
		}
	}
	if v.given(key) && len(r.Provider) == 0 {
		v.err(key, "is an empty list", "Name a provider, or leave the key out")
	}
}

// providerName checks that a named provider exists.
func (v *validator) providerName(at, name string) {
	if name == "" {
		v.err(at, "is missing", "Name one of the providers")
		return
	}
	if _, ok := v.c.Providers.Lookup(name); ok {
		return
	}
	var names []string
	for _, p := range v.c.Providers {
		if isProviderName(p.Name) {
			names = append(names, p.Name)
		}
	}
	mend := "Define it under providers"
	if near := nearest(name, names); near != "" && !strings.Contains(v.c.src.show(at), "${") {
		mend = "Did you mean " + near + "?"
	}
	v.shown(at, "is not a provider that the file defines", mend)
}

func (v *validator) access(at string, r Route) {
	key := at + ".access"
	if v.given(key+".signed_in") && !r.Access.SignedIn {
		v.err(key+".signed_in", "can only be true", "Write access: public for everyone, access: deny for nobody")
	}
	for _, list := range []string{"groups", "emails", "email_domains", "users", "acr"} {
		if entries := r.Access.list(list); entries != nil && len(entries) == 0 {
			v.warn(key+"."+list, "is empty: the route lets nobody in", "Name who may enter, or write access: deny")
		}
	}
	v.conditions(key, r.Access)
	v.stepUp(key, r)
	for _, p := range v.c.Providers {
		if p.Identity != "none" || !r.Takes(p.Name) {
			continue
		}
		for _, name := range []string{"groups", "emails", "email_domains", "users", "claims"} {
			if v.given(key + "." + name) {
				v.warn(key+"."+name, "lets nobody in: provider "+quote(p.Name)+" has identity: none, so nobody's "+strings.ReplaceAll(name, "_", " ")+" are known",
					"Write access: signed_in, or give the provider an identity with "+strings.ReplaceAll(name, "_", " "))
			}
		}
	}
	if v.given(key) || !r.needsSignIn() {
		return
	}
	for _, p := range v.c.Providers {
		if r.Takes(p.Name) && p.anyoneMayRegister() {
			v.err(at, "does not say who may enter, and anyone can register at provider "+quote(p.Name),
				"Write access: {groups: […]}, or access: signed_in if everyone with an account there may enter")
		}
	}
}

// conditions checks entries that nobody could ever meet.
func (v *validator) conditions(key string, a Access) {
	empty := func(list string, values []string) {
		for i, s := range values {
			if s == "" {
				v.err(element(v.c.src, list, i), "is empty", "Give it a value, or leave it out")
			}
		}
	}
	empty(key+".groups", a.Groups)
	empty(key+".users", a.Users)
	for i, e := range a.Emails {
		local, domain, ok := strings.Cut(e, "@")
		if !ok || local == "" || domain == "" || strings.ContainsAny(domain, "@ ") {
			v.shown(element(v.c.src, key+".emails", i), "is not an address", "Write it such as alice@example.com; whole domains go to email_domains")
		}
	}
	for i, d := range a.EmailDomains {
		at := element(v.c.src, key+".email_domains", i)
		switch {
		case strings.ContainsAny(d, "@"):
			v.shown(at, "holds an @", "Write the domain alone, such as example.com; single addresses go to emails")
		case strings.Contains(d, "*") || strings.HasPrefix(d, "."):
			v.shown(at, "is not one domain", "Write each domain out: a subdomain is another domain")
		case !isHost(strings.ToLower(d)):
			v.shown(at, "is not a domain", "Write it such as example.com")
		}
	}
	if v.given(key+".claims") && len(a.Claims) == 0 {
		v.warn(key+".claims", "is empty: the route lets nobody in", "Name claims and their values, or write access: deny")
	}
	for name, values := range a.Claims {
		at := join(key+".claims", name)
		if strings.Contains("."+name+".", "..") {
			v.err(at, "is not the name of a claim", "Write a name, or a path such as realm_access.roles")
		}
		if len(values) == 0 {
			v.warn(at, "is empty: the route lets nobody in", "Name the values that may enter, or write access: deny")
		}
		empty(at, values)
	}
}

// bearer checks a route that sends a token of Postern's own client. Its access may be any: the token says which application asks, and
// the identity headers still say which person.
func (v *validator) bearer(at string, b *ClientCredentials) {
	if b == nil {
		return
	}
	v.providerName(at+".provider", b.Provider)
	if p, ok := v.c.Providers.Lookup(b.Provider); ok && (p.ClientAuth == "none" || p.ClientAuth == "" && p.ClientSecret.IsZero()) && !v.c.src.broken(join("providers", p.Name)+".client_secret") {
		v.shown(at+".provider", "is a provider where Postern is a public client, and those get no tokens of their own", "Give it a client_secret, or a client_key or client_cert") // RFC 6749, section 4.4
	}
	v.scope(at+".scope", b.Scope)
	if b.Audience != "" && strings.ContainsFunc(b.Audience, func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		v.shown(at+".audience", "is not printable ASCII", "Write the audience as the provider knows it")
	}
}

// Headers that no route sets: those of the connection (RFC 9110 section 7.6.1), those that HTTP itself or Postern decides. In lower case.
const (
	ofConnection = " connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade http2-settings content-length "
	unsettable   = ofConnection + "host cookie expect forwarded x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip x-request-id " +
		"origin sec-websocket-key sec-websocket-version "
	unsettableResponse = ofConnection + "set-cookie content-type content-encoding alt-svc date location sec-websocket-accept "
)

// headers checks the names of headers that a route sets.
func (v *validator) headers(key string, headers map[string]string, never string) {
	if len(headers) == 0 {
		return
	}
	first := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at := join(key, name)
		folded := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if v.headerName(at, name, never) && first[folded] != "" {
			v.err(at, "is the same header as "+first[folded]+" to many applications", "Keep one")
		}
		first[folded] = name
	}
}

// headerName checks one name, and reports whether it is good.
func (v *validator) headerName(at, name, never string) bool {
	lower := strings.ToLower(name)
	switch {
	case name == "" || len(name) > 64 || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.Trim(name, "-_") == "":
		v.err(at, "is not a name for a header", "Write up to 64 letters, digits, - and _, such as X-Remote-User")
	case strings.Contains(never, " "+lower+" "):
		v.err(at, "is a header that no route sets: it belongs to the connection, to HTTP or to Postern", "Choose another name")
	default:
		return true
	}
	return false
}

// webOrigins checks origins as browsers write them (RFC 6454 section 6.1).
func (v *validator) webOrigins(key string, origins []string) {
	for i, o := range origins {
		u, err := url.Parse(o)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || !isHostPort(u.Host) || o != u.Scheme+"://"+strings.ToLower(u.Host) ||
			strings.HasSuffix(o, ":"+map[string]string{"https": "443", "http": "80"}[u.Scheme]) {
			v.shown(element(v.c.src, key, i), "is not an origin as browsers write it", "Write scheme and host in lower case, such as https://app.example.com, a port only where it is not the usual one, and no path; each origin by itself")
		}
	}
}

// authorization lets a route set that header only where Postern sends no token in it.
func (v *validator) authorization(at string, r Route) {
	for name := range r.Headers {
		if strings.EqualFold(name, "Authorization") && r.Bearer.Kind != "none" && !v.c.src.broken(at+".bearer") {
			v.err(join(at+".headers", name), "and the token that Postern sends would be two values of one header", "Write bearer: none beside it")
		}
	}
}

// list is one of the lists of conditions.
func (a *Access) list(key string) []string {
	switch key {
	case "groups":
		return a.Groups
	case "emails":
		return a.Emails
	case "email_domains":
		return a.EmailDomains
	case "users":
		return a.Users
	}
	return a.ACR
}

// ties refuses two routes that match the same requests equally well.
func (v *validator) ties() {
	type place struct{ host, path string }
	first := map[place][]int{}
	for i, r := range v.c.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		if v.c.src.broken(at+".host") || v.c.src.broken(at+".path") || v.c.src.broken(at+".methods") {
			continue
		}
		p := place{r.Host, FoldPath(strings.TrimSuffix(r.Path, "/"))}
		for _, j := range first[p] {
			if o := v.c.Routes[j]; samePath(o, r) && sameMethods(o.Methods, r.Methods) {
				what := fmt.Sprintf("ties with the route in line %d: both match the same host, path and methods", v.c.src.at(fmt.Sprintf("routes[%d]", j)).line)
				v.err(at, what, "Keep one, or tell them apart by host, path or methods; a slash at the end of the path means nothing")
				break
			}
		}
		first[p] = append(first[p], i)
	}
}

// samePath tells whether some path is that of both routes, whose paths differ in case at most.
func samePath(a, b Route) bool {
	return a.CaseInsensitivePaths || b.CaseInsensitivePaths || strings.TrimSuffix(a.Path, "/") == strings.TrimSuffix(b.Path, "/")
}

// FoldPath is the one form of all paths that differ only in case, for [Route.CaseInsensitivePaths]: simple folding by Unicode, so that
// what any application could take for the same letter is the same.
func FoldPath(path string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, path)
}

// sameMethods tells whether neither route is more specific: both name no method, or a common one.
func sameMethods(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

// element is the path of a list's entry; of the list itself where one value stands without brackets.
func element(s *source, list string, i int) string {
	if at := fmt.Sprintf("%s[%d]", list, i); s.given(at) || i > 0 {
		return at
	}
	return list
}

// isDB tells whether a unix URL's query is the number of a database alone.
func isDB(u *url.URL) bool {
	db, ok := strings.CutPrefix(u.RawQuery, "db=")
	n, err := strconv.ParseUint(db, 10, 16)
	return ok && err == nil && strconv.FormatUint(n, 10) == db
}
