package config

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Origin is what browsers see of a route: public_url; else https and the route's host; else, only when listening on
// loopback without TLS, http and the listen address. It is nil when none of these holds, and for a host that is a
// wildcard (hand in the request's host, once a route matched it). Load refuses a file in which a route that needs
// sign-in has no origin.
func (s Server) Origin(routeHost string) *url.URL {
	switch {
	case s.PublicURL != nil:
		return &url.URL{Scheme: s.PublicURL.Scheme, Host: s.PublicURL.Host}
	case strings.HasPrefix(routeHost, "*"):
		return nil
	case routeHost != "":
		return &url.URL{Scheme: "https", Host: routeHost}
	}
	host, port, err := net.SplitHostPort(s.Listen)
	if err != nil || s.TLS != nil || !isLoopback(host) {
		return nil
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
}

// Secure tells whether browsers see https. Load refuses a file in which this differs between routes.
func (c *Config) Secure() bool {
	if c.Server.PublicURL != nil {
		return c.Server.PublicURL.Scheme == "https"
	}
	for _, r := range c.Routes {
		if r.Host == "" && r.needsSignIn() {
			o := c.Server.Origin("")
			return o == nil || o.Scheme == "https"
		}
	}
	for _, r := range c.Routes {
		if r.Host != "" {
			return true
		}
	}
	return c.Server.TLS != nil || c.Server.Origin("") == nil
}

// CookieName is the session cookie of a provider: the first named one has the plain name, the others get -<name>. The
// plain name is session.cookie.name; by default __Host-postern, which browsers accept over https alone, or postern
// where they see plain http.
func (c *Config) CookieName(provider string) string {
	name := c.Session.Cookie.Name
	if name == "" {
		name = "postern"
		if c.Secure() {
			name = "__Host-postern"
		}
	}
	if len(c.Providers) == 0 || provider == c.Providers[0].Name {
		return name
	}
	return name + "-" + provider
}

// needsSignIn tells whether somebody may have to sign in to use the route.
func (r Route) needsSignIn() bool { return r.Access.Level != Public && r.Access.Level != Deny }

// isLoopback tells whether a host name or address is this machine's own.
func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
