package oauth2proxy

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// upstream is one application as oauth2-proxy has it.
type upstream struct {
	name    string // as the input calls it
	path    string
	uri     string
	static  bool
	code    int
	rewrite string
	ownHost bool
}

// openPath is what needs no sign-in.
type openPath struct {
	path    string
	methods []string
}

// upstreams reads both forms: a list of URLs, and one of mappings.
func upstreams(d *draft, _ *provider, o option) {
	if entries, ok := o.value.([]any); ok && slices.ContainsFunc(entries, isMapping) {
		for i, e := range entries {
			m, _ := e.(map[string]any)
			d.upstream = append(d.upstream, d.structured(fmt.Sprintf("%s[%d]", o.name, i), m))
		}
		return
	}
	for _, uri := range o.list() {
		u, err := url.Parse(uri)
		if err != nil {
			d.ask(o.name, "An upstream is no URL. Which application is it? Write a route with upstream.")
			continue
		}
		up := upstream{name: o.name, path: u.Path, uri: uri, code: 200, ownHost: !d.in.is("pass_host_header", true)}
		switch u.Scheme {
		case "file":
			if u.Fragment != "" {
				up.path, up.uri = u.Fragment, strings.TrimSuffix(uri, "#"+u.Fragment)
			}
		case "static":
			up.path, up.static = "/", true
			if code, err := strconv.Atoi(u.Host); err == nil {
				up.code = code
			}
		case "unix":
			up.path = "/"
		}
		d.upstream = append(d.upstream, up)
	}
}

func isMapping(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

// structured reads an entry of upstreamConfig.upstreams.
func (d *draft) structured(name string, m map[string]any) upstream {
	get := func(key string) option { return option{name: name + "." + key, value: m[key]} }
	up := upstream{
		name: name, path: get("path").text(), uri: get("uri").text(), static: get("static").is(false), code: 200,
		rewrite: get("rewriteTarget").text(), ownHost: !get("passHostHeader").is(true),
	}
	if code, err := strconv.Atoi(get("staticCode").text()); err == nil {
		up.code = code
	}
	if get("insecureSkipTLSVerify").is(false) {
		d.ask(name+".insecureSkipTLSVerify", "The application's certificate was not verified. Which CA signed it? Write its file to upstream_tls: {ca_file: PATH} of the route.")
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		switch key {
		case "id", "path", "uri", "static", "staticCode", "rewriteTarget", "passHostHeader", "insecureSkipTLSVerify":
		case "timeout":
			d.say(changed, name+".timeout", "an application has 2 minutes to begin its answer; routes.*.timeout bounds a whole request")
		case "flushInterval":
			d.say(changed, name+".flushInterval", "what an application sends is passed on at once where that matters")
		case "proxyWebSockets":
			d.say(changed, name+".proxyWebSockets", "WebSockets are passed on, and closed when the session ends")
		default:
			d.ask(name+"."+key, "Postern does not know this option. What is it for?")
		}
	}
	return up
}

// routes makes a route of each application, and of each path that needs no sign-in.
func (d *draft) routes() {
	access := d.access()
	if !slices.ContainsFunc(d.upstream, func(u upstream) bool { return !u.static }) {
		d.forwardAuth(access)
		return
	}
	var all []*mapping
	for _, u := range d.upstream {
		if r := d.route(u); r != nil {
			r.put("access", access)
			all = append(all, r)
		}
	}
	all = d.openRoutes(all)
	d.doc.put("routes", all)
}

// access is what every route says about who may enter: nobody, as long as that is a question.
func (d *draft) access() any {
	if d.limited {
		return "deny"
	}
	a := &mapping{}
	if len(d.groups) > 0 {
		a.put("groups", d.groups)
	}
	if len(d.roles) > 0 {
		a.sub("claims").put("realm_access.roles", d.roles)
	}
	if len(d.domains) > 0 {
		a.put("email_domains", d.domains)
	}
	if len(a.items) > 0 {
		return a
	}
	d.ask("email_domains", "Everyone with an account at the provider came in. Shall they? Then write access: signed_in to the routes; else access: {groups: […]} or {email_domains: […]}.")
	return "deny"
}

// route is the route to one application; nil where there is none.
func (d *draft) route(u upstream) *mapping {
	target, err := url.Parse(u.uri)
	if u.static {
		d.ask(u.name, fmt.Sprintf("%s was answered %d without any application. What is that for? Postern answers 404 where there is no route; write access: deny for 403.", plain(u.path), u.code))
		return nil
	}
	if err != nil || target.Scheme == "" {
		d.ask(u.name, "Its uri is no URL. Which application is it? Write a route with upstream.")
		return nil
	}
	if target.User != nil {
		d.say(changed, u.name, "user and password in its address are left out; headers: {Authorization: 'basic(\"USER\", \"${PASSWORD}\")'} of the route sends them")
	}
	strip, base := "", "" // what is taken off a path, and put before the rest
	switch {
	case u.rewrite != "" || strings.HasPrefix(u.path, "^"):
		var ok bool
		if strip, base, ok = prefixRewrite(u.path, u.rewrite); !ok || !strings.HasPrefix(target.Scheme, "http") {
			d.ask(u.name, "Its path is a regular expression, which Postern's routes are not. Which paths are meant? Write routes with path, and strip_prefix where the application does not see all of it.")
			return nil
		}
		u.path = strip
	case u.path == "":
		u.path = "/"
	case !strings.HasSuffix(u.path, "/"):
		d.say(changed, u.name, plain(u.path)+" was one path alone; the route covers everything beneath it too")
	}
	r := &mapping{}
	r.put("path", u.path)
	switch target.Scheme {
	case "file":
		r.put("upstream", "file://"+strings.TrimSuffix(target.Path, "/"))
		strip = strings.TrimSuffix(u.path, "/")
	case "unix":
		r.put("upstream", "unix:"+target.Path)
	default:
		r.put("upstream", target.Scheme+"://"+target.Host+base)
	}
	if strip != "" {
		r.put("strip_prefix", strip)
	}
	r.put("provider", d.first.name)
	if target.Scheme == "file" { // nobody reads its headers
		return r
	}
	if u.ownHost {
		r.put("upstream_host", "upstream")
	}
	d.identity(r)
	if d.in.is("skip_auth_preflight", false) {
		r.put("preflight", "pass")
	}
	return r
}

var rewritten = regexp.MustCompile(`^\^(/[A-Za-z0-9/_~-]*[A-Za-z0-9_~-])(?:/\(\.\*\)|\(\.\*\)|\(/\.\*\))\$?$`)

// prefixRewrite recognises ^/PREFIX/(.*) with /BASE/$1: a prefix that is replaced by another one.
func prefixRewrite(path, rewrite string) (prefix, base string, ok bool) {
	m := rewritten.FindStringSubmatch(path)
	base, one := strings.CutSuffix(rewrite, "$1")
	if m == nil || !one || strings.Contains(base, "$") {
		return "", "", false
	}
	return m[1], strings.TrimSuffix(base, "/"), true
}

// forwardAuth is for a configuration without an application: another proxy carries the requests and asks.
func (d *draft) forwardAuth(access any) {
	d.doc.set("forward_auth.dialect", "nginx")
	d.ask("upstreams", "There is no application: another proxy asks at /oauth2/auth. Which one? Write nginx, traefik, caddy or envoy to forward_auth.dialect, its address to server.trusted_proxies, and configure it as Postern's recipe for it says.")
	r := &mapping{}
	r.put("path", "/")
	r.put("provider", d.first.name)
	r.put("access", access)
	d.answers(r)
	d.doc.put("routes", d.openRoutes([]*mapping{r}))
}

// skipAuthRoutes reads METHOD=REGEX, METHOD!=REGEX and REGEX.
func skipAuthRoutes(d *draft, _ *provider, o option) {
	for _, entry := range o.list() {
		var open openPath
		pattern := entry
		if method, rest, ok := strings.Cut(entry, "="); ok && strings.Trim(strings.TrimSuffix(method, "!"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			if strings.HasSuffix(method, "!") {
				d.ask(o.name, plain(entry)+" opened every path but these. Which paths need no sign-in? Write a route with access: public for each.")
				continue
			}
			pattern = rest
			if method != "" {
				open.methods = []string{method}
			}
		}
		path, form := plainPrefix(pattern)
		switch form {
		case anything:
			d.ask(o.name, plain(entry)+" opened what an expression matches, anywhere in a path if it is not held by ^. Which paths need no sign-in? Write a route with access: public for each; it covers everything beneath.")
			continue
		case alone:
			d.ask(o.name, plain(path)+" alone needed no sign-in. May everything beneath it go without, too? Then write a route with path: "+plain(path)+" and access: public.")
			continue
		case letters:
			d.say(changed, o.name, plain(path)+" and what is beneath it; other paths that begin with these letters need a sign-in")
		}
		open.path = path
		d.open = append(d.open, open)
	}
}

// form is what an expression opens.
type form int

const (
	anything form = iota // not a path's beginning
	alone                // one path
	letters              // every path that begins with these letters
	beneath              // a path and what is beneath it
)

var simple = regexp.MustCompile(`^\^((?:/(?:[A-Za-z0-9._~-]|\\[.-])+)+)(/?)(/\.\*|\.\*|\(/\.\*\)\?|\(/\.\*\|\$\)|\(/\|\$\)|)(\$?)$`)

// plainPrefix is the path that an expression begins with, where it is a plain one.
func plainPrefix(pattern string) (string, form) {
	m := simple.FindStringSubmatch(pattern)
	if m == nil {
		return "", anything
	}
	path, slash, rest, end := strings.ReplaceAll(m[1], `\`, ""), m[2] != "", m[3], m[4] != ""
	switch {
	case rest == "" && end:
		return path, alone
	case slash || strings.Contains(rest, "/"):
		return path, beneath
	}
	return path, letters
}

// openRoutes adds routes with access: public, each to the applications that its path belongs to.
func (d *draft) openRoutes(all []*mapping) []*mapping {
	base := slices.Clone(all)
	seen := map[string]bool{}
	for _, o := range d.open {
		var at []*mapping // routes beneath the path, and the one above it
		var above *mapping
		for _, r := range base {
			switch path := pathOf(r); {
			case path == o.path || strings.HasPrefix(path, o.path+"/"):
				at = append(at, r)
			case path == "" || strings.HasPrefix(o.path, path+"/"):
				if above == nil || len(path) > len(pathOf(above)) {
					above = r
				}
			}
		}
		if above != nil && !slices.ContainsFunc(at, func(r *mapping) bool { return pathOf(r) == o.path }) {
			at = append(at, above)
		}
		for _, r := range at {
			path := pathOf(r)
			if r == above {
				path = o.path
			}
			if path == "" {
				path = "/"
			}
			if key := fmt.Sprint(path, o.methods); seen[key] {
				continue
			} else {
				seen[key] = true
			}
			if r != above && o.methods == nil {
				*r = *openRoute(r, path, nil)
				continue
			}
			all = append(all, openRoute(r, path, o.methods))
		}
	}
	return all
}

// pathOf is the path of a route without a slash at its end.
func pathOf(r *mapping) string {
	for _, item := range r.items {
		if path, ok := item.Value.(string); ok && item.Key == "path" {
			return strings.TrimSuffix(path, "/")
		}
	}
	return ""
}

// openRoute is a route to the same application that needs no sign-in.
func openRoute(r *mapping, path string, methods []string) *mapping {
	out := &mapping{}
	out.put("path", path)
	if methods != nil {
		out.put("methods", methods)
	}
	for _, item := range r.items {
		switch item.Key {
		case "upstream", "strip_prefix", "upstream_host":
			out.items = append(out.items, item)
		}
	}
	out.put("access", "public")
	return out
}
