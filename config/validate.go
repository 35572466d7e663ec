package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxLifetime is how long browsers keep a cookie at most (RFC 6265bis).
const maxLifetime = 400 * 24 * time.Hour

// validator checks the rules that one value alone cannot tell. It has no side effects.
type validator struct {
	c        *Config
	secure   bool // browsers see https, as far as is known
	problems Problems
	files    []string // that were read
}

// validate checks everything that needs no I/O.
func (c *Config) validate() Problems {
	v := &validator{c: c, secure: c.Secure() || c.src.broken("server.public_url") || c.src.broken("server.listen")}
	v.server()
	v.listeners()
	v.session()
	v.cookie()
	v.redis()
	v.providers()
	v.pages()
	v.routes()
	v.ties()
	v.origins()
	v.callbacks()
	return v.problems
}

// normalise writes names in the one form that the rest of the program compares, and fills what defaults cannot say.
func (c *Config) normalise() {
	if u := c.Server.PublicURL; u != nil && u.Path == "/" {
		u.Path = ""
	}
	if u := c.Server.PublicURL; u != nil {
		u.Host = strings.ToLower(u.Host)
	}
	for i, h := range c.Server.ReturnHosts {
		c.Server.ReturnHosts[i] = strings.ToLower(h)
	}
	for i := range c.Providers {
		// What a preset says about an identity that the file replaces by none means nothing any more.
		if p, at := &c.Providers[i], join("providers", c.Providers[i].Name); p.Identity == "none" {
			if !c.src.given(at + ".claims") {
				p.Claims = nil
			}
			if !c.src.given(at + ".userinfo") {
				p.Userinfo = nil
			}
		}
	}
	for i := range c.Routes {
		r := &c.Routes[i]
		r.Host = strings.ToLower(r.Host)
		if r.Access.Level == "" && !c.src.broken(fmt.Sprintf("routes[%d].access", i)) {
			r.Access.Level = SignedIn
		}
	}
}

// err notes a problem at path, unless the value there could not even be decoded.
func (v *validator) err(path, what, mend string) { v.note(path, what, mend, false) }

// warn notes a problem that does not stop Load.
func (v *validator) warn(path, what, mend string) { v.note(path, what, mend, true) }

func (v *validator) note(path, what, mend string, warning bool) {
	if v.c.src.broken(path) {
		return
	}
	m := v.c.src.at(path)
	p := Problem{Line: m.line, Column: m.col, Path: path, What: what, Mend: mend, Warning: warning}
	if v.c.src != nil {
		p.File, p.Excerpt = v.c.src.file, v.c.src.excerpts.of(m.line, m.col)
	}
	v.problems = append(v.problems, p)
}

// shown notes a problem that begins with what the file says at path.
func (v *validator) shown(path, what, mend string) { v.err(path, v.c.src.show(path)+" "+what, mend) }

func (v *validator) given(path string) bool { return v.c.src.given(path) }

func (v *validator) server() {
	s := v.c.Server
	for i, p := range s.TrustedProxies {
		at := fmt.Sprintf("server.trusted_proxies[%d]", i)
		if !v.given(at) {
			at = "server.trusted_proxies"
		}
		if p.IsValid() && (p.Bits() == 0 || p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 7) {
			v.shown(at, "trusts addresses of the whole internet: anyone could then name any client address, host and scheme",
				"Write the addresses of the proxies that stand before Postern")
		}
	}
	if a := s.Admin; a != nil {
		if a.Token.IsZero() && a.ClientCA == "" {
			v.err("server.admin", "names neither token nor client_ca", "Write {token: {file: PATH}}, or leave the section out")
		}
		if a.ClientCA != "" && s.AdminTLS() == nil {
			v.err("server.admin.client_ca", "needs https on the admin listener, and there is no certificate for it",
				"Write server.admin.tls: {cert_file: PATH, key_file: PATH}; server.tls would do as well")
		}
		v.bothFiles("server.admin.tls", a.TLS)
	}
	if a := s.Audit; a != nil && (a.File == "") == !a.Stdout {
		what := "says not where to"
		if a.Stdout {
			what = "names a file and standard output"
		}
		v.err("server.audit", what, "Write {file: PATH} or {stdout: true}")
	}
	v.positive("server.shutdown_timeout", s.ShutdownTimeout)
	if s.DrainDelay > time.Hour {
		v.shown("server.drain_delay", "is longer than an hour", "Write the seconds that load balancers need to notice, such as 5s")
	}
	if s.MaxConnectionsPerClient < 0 {
		v.shown("server.max_connections_per_client", "is negative", "Write how many connections one address may have open, such as 200, or 0 for no limit")
	}
	v.bothFiles("server.tls", s.TLS)
	if !isPlainPath(s.Prefix) || s.Prefix == "/" {
		v.shown("server.prefix", "is not a plain path", "Write a path such as /oauth2: letters, digits, - . _ ~ and /, no slash at the end")
	}
	for i, h := range s.ReturnHosts {
		at := fmt.Sprintf("server.return_hosts[%d]", i)
		if !v.given(at) {
			at = "server.return_hosts"
		}
		host, port := h, ""
		if strings.Contains(h, ":") {
			var err error
			if host, port, err = net.SplitHostPort(h); err != nil || !isPort(port) {
				host = "" // said below
			}
		}
		if !isHost(host) {
			v.shown(at, "is not a host", "Write a whole host name, such as app.example.com or app.example.com:8443, without scheme, path or *")
		}
	}
	v.bodyLimit("server.max_request_body", s.MaxRequestBody)
	v.word("server.log.level", s.Log.Level, "debug", "info", "warn", "error")
	v.share("server.log.requests", s.Log.Requests)
	if t := s.Tracing; t != nil {
		if t.Endpoint == nil {
			v.err("server.tracing.endpoint", "is missing", "Name the OTLP/HTTP address, such as http://127.0.0.1:4318")
		} else {
			v.collector("server.tracing.endpoint", t.Endpoint)
		}
		v.share("server.tracing.sample", t.Sample)
	}
	if v.given("server.max_request_body") && !slices.ContainsFunc(v.c.Routes, func(r Route) bool { return len(r.Upstream) > 0 }) {
		v.err("server.max_request_body", "does nothing where no route has an upstream", "Set the like in the proxy that carries the requests")
	}
	if f := v.c.ForwardAuth; f != nil && f.Dialect == "" {
		v.err("forward_auth.dialect", "is missing", "Write nginx, traefik, caddy or envoy: each reads only its own headers")
	}
	if v.c.ForwardAuth != nil && len(s.TrustedProxies) == 0 {
		v.err("forward_auth", "needs server.trusted_proxies: nobody else is answered", "Name the addresses of the proxy that asks, such as trusted_proxies: [127.0.0.1/32]")
	}
}

// collector checks where spans are sent.
func (v *validator) collector(path string, u *url.URL) {
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || !isHostPort(u.Host):
		v.err(path, "is not an http or https URL", "Write the OTLP/HTTP address with its scheme, such as http://127.0.0.1:4318")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		v.err(path, "has a user, query or fragment", "Write scheme, host, port and at most a path; a collector of your own can add what a service asks for")
	case u.Port() == "4317":
		v.warn(path, "has the port of OTLP over gRPC", "Name the port of OTLP/HTTP, usually 4318")
	}
}

// bothFiles wants certificate and key, where there is a section for them.
func (v *validator) bothFiles(path string, t *TLS) {
	if t == nil {
		return
	}
	if t.CertFile == "" {
		v.err(path+".cert_file", "is missing", "Name the PEM file of the certificate chain")
	}
	if t.KeyFile == "" {
		v.err(path+".key_file", "is missing", "Name the PEM file of the private key")
	}
}

// word checks a word that a flag may have replaced.
func (v *validator) word(path, word string, known ...string) {
	if !slices.Contains(known, word) {
		v.shown(path, "is not one of the words that it can be", "Write one of: "+strings.Join(known, ", "))
	}
}

func (v *validator) share(path string, n float64) {
	if !(n >= 0 && n <= 1) { // nor is .nan
		v.shown(path, "is not a share", "Write a number from 0 to 1, such as 0.05")
	}
}

func (v *validator) listeners() {
	s := v.c.Server
	type listener struct{ path, address string }
	all := []listener{{"server.listen", s.Listen}, {"server.admin_listen", s.AdminListen}}
	if v.given("server.redirect_listen") {
		all = append(all, listener{"server.redirect_listen", s.RedirectListen})
	}
	for i, l := range all {
		host, port, err := net.SplitHostPort(l.address)
		if err != nil || !isPort(port) && port != "0" || host != "" && !isHost(host) && !isAddr(host) {
			v.shown(l.path, "is not an address to listen on", "Write host:port, such as 127.0.0.1:4180, or :4180 for every interface")
			continue
		}
		if _, port, _ := net.SplitHostPort(l.address); port == "0" {
			continue
		}
		for _, o := range all[:i] {
			if sameListener(o.address, l.address) {
				at, other := l.path, o.path
				if !v.given(at) && v.given(other) {
					at, other = other, at
				}
				v.err(at, "is the address of "+other+" too", "Give each listener its own port")
			}
		}
	}
	if s.RedirectListen != "" && s.PublicURL != nil && s.PublicURL.Scheme != "https" {
		v.err("server.redirect_listen", "redirects to https, but server.public_url is plain http", "Make public_url https, or leave redirect_listen out")
	}
	if s.RedirectListen != "" && s.PublicURL == nil && !v.secure {
		v.err("server.redirect_listen", "redirects to https, but browsers see plain http", "Set server.public_url to an https origin, or leave redirect_listen out")
	}
}

// sameListener tells whether one address would be taken by the other.
func sameListener(a, b string) bool {
	ah, ap, errA := net.SplitHostPort(a)
	bh, bp, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || ap != bp {
		return false
	}
	every := func(h string) bool { return h == "" || h == "0.0.0.0" || h == "::" }
	return ah == bh || every(ah) || every(bh)
}

// origins checks what browsers see, once listeners and routes are known.
func (v *validator) origins() {
	s, cookie := v.c.Server, v.c.Session.Cookie
	if u := s.PublicURL; u != nil {
		switch {
		case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !isHostPort(u.Host):
			v.err("server.public_url", "is not an origin", "Write scheme and host only, such as https://wiki.example.com")
		case u.Scheme == "http" && !isLoopback(u.Hostname()) && !cookie.Insecure:
			v.err("server.public_url", "is plain http on a host that is not loopback: anyone on the network could take sessions",
				"Make it https, or set session.cookie.insecure: true knowingly")
		}
		return
	}
	if _, _, err := net.SplitHostPort(s.Listen); err != nil || v.c.src.broken("server.public_url") || v.c.src.broken("server.listen") {
		return // said already, and what follows depends on it
	}
	hosts := slices.ContainsFunc(v.c.Routes, func(r Route) bool { return r.Host != "" })
	for i, r := range v.c.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		if !r.needsSignIn() || r.Host != "" || v.c.src.broken(at+".host") || v.c.src.broken(at+".access") {
			continue
		}
		o := s.Origin("")
		if o == nil {
			v.err(at, "has no host, so what browsers see of it is not known", "Set server.public_url, or give the route a host")
			return
		}
		if hosts {
			v.err(at, "has no host, while other routes have: it would be seen as "+o.Scheme+", the others as https",
				"Set server.public_url, or give every route a host")
			return
		}
	}
}

// positive wants a duration above 0.
func (v *validator) positive(path string, t time.Duration) {
	if t <= 0 {
		v.err(path, "must be longer than 0", "Write a duration such as 10s")
	}
}

// isPlainPath tells whether a path begins with /, does not end with it, and needs no escaping or cleaning.
func isPlainPath(p string) bool {
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p {
		return false
	}
	for _, r := range p {
		if !isUnreserved(r) && r != '/' {
			return false
		}
	}
	return true
}

// isUnreserved is RFC 3986, section 2.3.
func isUnreserved(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~", r)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isHostPort tells whether a URL's host is a name or address with or without a port.
func isHostPort(hostport string) bool {
	u := url.URL{Host: hostport}
	if strings.HasSuffix(hostport, ":") || u.Port() != "" && !isPort(u.Port()) {
		return false
	}
	h := u.Hostname()
	return isHost(strings.ToLower(h)) || isAddr(h)
}

// isHost tells whether s is a lower-case host name in ASCII (A-labels for others), or an IPv4 address.
func isHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, r := range l {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" { // would be read as an IPv4 address
		a, err := netip.ParseAddr(s)
		return err == nil && a.Is4()
	}
	return true
}
