package proxy

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"postern/config"
	"postern/proxy/access"
	"postern/proxy/metrics"
)

// route is one line of the table.
type route struct {
	name      string // host and path, for the log
	methods   []string
	rule      access.Rule
	providers []*provider // whose sessions count, and where people sign in; none on an open route that names none
	upstream  *upstream   // nil only where the rule denies everyone
	bearer    *appToken   // sent in place of the person's token, when set
	trades    *target     // what the person's token is exchanged for, when set
	accepts   *acceptance // access tokens of clients that are taken; nil: none
	activity  bool        // requests and data in streams count as use of the session
	counted   *metrics.Route
	via       via // how the route names itself to applications

	headers, response []headerValue // as in [routePrograms]
	assertion         *assertion    // the signed statement that is added; nil: none
	token             string        // the person's token that is sent: access_token, id_token or none
	renew             renewFunc     // gets another token when the application calls one invalid; nil where there is none to get
	keepAuthorization bool          // the client's own Authorization passes where there is no session
	anyCase           bool          // the application takes paths in any case for one
	encodedSlash      bool          // paths with %2F pass
	preflight         bool          // CORS preflights pass without anything else
	cors              []string      // origins that may read our own 401
	allowedOrigins    []string      // further origins of WebSockets
	csrf              *http.CrossOriginProtection
	unauthenticated   string // auto or "", login, deny
	keepFragment      bool   // navigations that sign in keep what stands after # in their address
}

// table finds the most specific route: exact host, then the longest *.wildcard, then no host; on the host the longest
// path by whole segments; then a route that names the method. A path none of whose routes takes the method leaves it to the next shorter one.
type table struct {
	exact    map[string]*paths // by host
	wildcard map[string]*paths // by the suffix after "*", such as .example.com
	any      *paths
	everyone bool // some route matches any host
}

// paths are the routes of one host by path without its trailing slash ("" is the root).
type paths struct {
	exact   map[string][]*route
	anyCase map[string][]*route // those with case_insensitive_paths, by the folded path
}

func newTable() *table {
	return &table{exact: map[string]*paths{}, wildcard: map[string]*paths{}, any: newPaths()}
}

func newPaths() *paths {
	return &paths{exact: map[string][]*route{}, anyCase: map[string][]*route{}}
}

// add puts a route under host and path. The configuration has refused routes that tie.
func (t *table) add(host, path string, rt *route) {
	hostPaths := t.any
	switch suffix, wild := strings.CutPrefix(host, "*"); {
	case host == "":
		t.everyone = true
	case wild:
		hostPaths = inner(t.wildcard, suffix)
	default:
		hostPaths = inner(t.exact, host)
	}
	byPath, key := hostPaths.exact, strings.TrimSuffix(path, "/")
	if rt.anyCase {
		byPath, key = hostPaths.anyCase, config.FoldPath(key)
	}
	byPath[key] = append(byPath[key], rt)
}

func inner(m map[string]*paths, key string) *paths {
	if m[key] == nil {
		m[key] = newPaths()
	}
	return m[key]
}

// knowsHost is false only where every route names a host and none names this one (421).
func (t *table) knowsHost(host string) bool { return t.everyone || t.namesHost(host) }

// namesHost tells whether some route names this host, exactly or by wildcard.
func (t *table) namesHost(host string) bool {
	host = hostname(host)
	if t.exact[host] != nil {
		return true
	}
	for suffix := range suffixes(host) {
		if t.wildcard[suffix] != nil {
			return true
		}
	}
	return false
}

// match finds the route of a canonical path, or nil.
func (t *table) match(host, path, method string) *route {
	host = hostname(host)
	if rt := t.exact[host].match(path, method); rt != nil {
		return rt
	}
	if len(t.wildcard) > 0 {
		for suffix := range suffixes(host) {
			if rt := t.wildcard[suffix].match(path, method); rt != nil {
				return rt
			}
		}
	}
	return t.any.match(path, method)
}

// match walks up the path, whole segments at a time.
func (ps *paths) match(path, method string) *route {
	if ps == nil {
		return nil
	}
	path = strings.TrimSuffix(path, "/")
	var folded string
	if len(ps.anyCase) > 0 {
		folded = config.FoldPath(path)
	}
	for {
		var anyCase []*route
		if len(ps.anyCase) > 0 {
			anyCase = ps.anyCase[folded]
		}
		if rt := forMethod(ps.exact[path], anyCase, method); rt != nil {
			return rt
		}
		if path == "" {
			return nil
		}
		path = path[:strings.LastIndexByte(path, '/')]
		folded = folded[:max(0, strings.LastIndexByte(folded, '/'))]
	}
}

// forMethod chooses among the routes of one path: one that names the method, else one that names none. HEAD is GET without its body (RFC 9110
// section 9.3.2): a rule about GET holds for it, unless a route names HEAD.
func forMethod(exact, anyCase []*route, method string) *route {
	var unlimited, get *route
	for _, routes := range [...][]*route{exact, anyCase} {
		for _, rt := range routes { // those that name methods do not overlap
			switch {
			case len(rt.methods) == 0:
				unlimited = rt
			case slices.Contains(rt.methods, method):
				return rt
			case method == http.MethodHead && slices.Contains(rt.methods, http.MethodGet):
				get = rt
			}
		}
	}
	return cmp.Or(get, unlimited)
}

// suffixes yields .b.example.com, .example.com, .com of a.b.example.com: longest first, on dot boundaries.
func suffixes(host string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := strings.IndexByte(host, '.'); i >= 0; {
			if !yield(host[i:]) {
				return
			}
			next := strings.IndexByte(host[i+1:], '.')
			if next < 0 {
				return
			}
			i += 1 + next
		}
	}
}

// hostname is the host without its port, in the form that routes are written in.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	host = strings.TrimSuffix(host, ".")
	return strings.ToLower(host)
}

// each calls f for every route.
func (t *table) each(f func(*route)) {
	t.any.each(f)
	for _, ps := range t.exact {
		ps.each(f)
	}
	for _, ps := range t.wildcard {
		ps.each(f)
	}
}

// eachOf calls f for every route that may answer on a host.
func (t *table) eachOf(host string, f func(*route)) {
	host = hostname(host)
	t.any.each(f)
	t.exact[host].each(f)
	for suffix := range suffixes(host) {
		t.wildcard[suffix].each(f)
	}
}

func (ps *paths) each(f func(*route)) {
	if ps == nil {
		return
	}
	for _, byPath := range [...]map[string][]*route{ps.exact, ps.anyCase} {
		for _, routes := range byPath {
			for _, rt := range routes {
				f(rt)
			}
		}
	}
}
