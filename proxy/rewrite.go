package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// relocate turns what the application says of its own address into what the browser sees, where the route has rewrite_response: in Location,
// Content-Location and Set-Cookie. What names another host is nobody's to change, and what cannot be read stays as it is.
func (l *leg) relocate(h http.Header) {
	for _, name := range [...]string{"Location", "Content-Location"} {
		for i, reference := range h[name] {
			h[name][i] = l.outward(reference)
		}
	}
	for i, line := range h["Set-Cookie"] {
		h["Set-Cookie"][i] = l.outwardCookie(line)
	}
}

// outward is what a reference of the application is to the browser: a path on the same origin, so that no host need be written. A reference
// relative to the page needs no change.
func (l *leg) outward(reference string) string {
	u, err := url.Parse(reference)
	if err != nil || u.Opaque != "" || u.User != nil {
		return reference
	}
	here := u.Scheme == "" && u.Host == "" && strings.HasPrefix(u.Path, "/")
	if !here && !l.isApplication(u) {
		return reference
	}
	path, ok := l.outwardPath(u.EscapedPath())
	if !ok || strings.HasPrefix(path, "//") { // that would name a host
		return reference
	}
	if u.RawQuery != "" || u.ForceQuery {
		path += "?" + u.RawQuery
	}
	if u.Fragment != "" {
		path += "#" + u.EscapedFragment()
	}
	return path
}

// isApplication tells whether a URL names one of the application's addresses, or the host that the application was asked for.
func (l *leg) isApplication(u *url.URL) bool {
	for _, a := range l.u.to.addresses {
		if (u.Scheme == "" || u.Scheme == a.scheme) && sameHost(a.scheme, u.Host, a.host) {
			return true
		}
	}
	return (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "") && sameHost(u.Scheme, u.Host, l.f.Client.Host)
}

// sameHost compares two hosts with their ports; the usual one of the scheme may be left out.
func sameHost(scheme, a, b string) bool {
	aName, aPort := splitOrigin(a, defaultPort(scheme))
	bName, bPort := splitOrigin(b, defaultPort(scheme))
	return aName != "" && strings.EqualFold(aName, bName) && aPort == bPort
}

// outwardPath is what a path of the application is to the browser. It is false where the browser cannot reach it: outside the base path.
func (l *leg) outwardPath(path string) (string, bool) {
	if path == "" {
		path = "/"
	}
	rest, ok := strings.CutPrefix(path, l.at.base)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	path = l.u.prefix + rest
	if path == "" {
		path = "/"
	}
	return path, true
}

// outwardCookie makes a cookie that the application sets for its own host or path one of the host and path that the browser sees. Cookies
// with __Host- have no other path than / (RFC 6265bis section 4.1.3.2).
func (l *leg) outwardCookie(line string) string {
	attributes := strings.Split(line, ";")
	if name := strings.TrimSpace(attributes[0]); len(name) >= 7 && strings.EqualFold(name[:7], "__Host-") {
		return line
	}
	kept := attributes[:1]
	for _, attribute := range attributes[1:] {
		name, value, _ := strings.Cut(attribute, "=")
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "domain":
			if l.isApplicationName(strings.TrimPrefix(value, ".")) {
				continue // for the browser's host alone
			}
		case "path":
			if path, ok := l.outwardPath(value); ok && strings.HasPrefix(value, "/") {
				attribute = " Path=/" + strings.Trim(path, "/")
			}
		}
		kept = append(kept, attribute)
	}
	return strings.Join(kept, ";")
}

// isApplicationName tells whether a name is that of one of the application's addresses.
func (l *leg) isApplicationName(name string) bool {
	for _, a := range l.u.to.addresses {
		if strings.EqualFold(name, hostname(a.host)) {
			return true
		}
	}
	return false
}
