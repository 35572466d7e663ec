package config

import (
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// upstreams checks where a route's requests go, and how.
func (v *validator) upstreams(at string, r Route) {
	key := at + ".upstream"
	if len(r.Upstream) == 0 {
		v.withoutUpstream(at, r)
		return
	}
	for i, u := range r.Upstream {
		if u == nil {
			continue
		}
		e := element(v.c.src, key, i)
		v.upstream(e, u)
		switch {
		case u.Scheme == "file" && len(r.Upstream) > 1:
			v.err(e, "is a folder of files, which stands alone", "Give it a route of its own")
		case u.Scheme != "https" && v.given(at+".upstream_tls"):
			v.err(at+".upstream_tls", "is for https alone, and the route has another upstream", "Write https upstreams, or leave it out")
		case slices.ContainsFunc(r.Upstream[:i], func(o *url.URL) bool { return o != nil && o.String() == u.String() }):
			v.err(e, "is named twice", "Keep one")
		}
	}
	if r.Folder() != "" {
		for _, name := range []string{"upstream_host", "rewrite_response", "headers", "bearer"} {
			if v.given(at + "." + name) {
				v.err(at+"."+name, "does nothing for a folder of files", "Leave it out")
			}
		}
	}
	v.upstreamTLS(at+".upstream_tls", r.UpstreamTLS)
	v.stripPrefix(at+".strip_prefix", r)
	if v.given(at + ".timeout") {
		v.positive(at+".timeout", r.Timeout)
	}
	v.bodyLimit(at+".max_request_body", r.MaxRequestBody)
}

// withoutUpstream checks a route that forwards nothing: because nobody may enter, or because another proxy carries its requests.
func (v *validator) withoutUpstream(at string, r Route) {
	if r.Access.Level != Deny && v.c.ForwardAuth == nil && !v.c.src.broken(at+".upstream") {
		v.err(at, "has no upstream", "Write upstream: http://HOST:PORT, or access: deny")
		return
	}
	if v.c.ForwardAuth != nil && len(r.HeadersResponse) > 0 {
		v.err(at+".headers_response", "cannot be set where another proxy carries the answers", "Set them in that proxy, or write an upstream")
	}
	if r.KeepFragment {
		v.err(at+".keep_fragment", "cannot be set where another proxy carries the answers: it does not hand on the page that keeps the fragment", "Leave it out, or write an upstream")
	}
	for _, name := range []string{"upstream_host", "upstream_tls", "strip_prefix", "rewrite_response", "timeout", "max_request_body"} {
		if v.given(at + "." + name) {
			v.err(at+"."+name, "does nothing on a route without upstream", "Set the like in the proxy that carries the requests, or write an upstream")
		}
	}
}

// upstream checks one address.
func (v *validator) upstream(at string, u *url.URL) {
	if u.User != nil {
		v.err(at, "holds a user or password", "Leave it out: Postern sends the person's token")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		v.err(at, "has a query or fragment", "Write scheme, host and, if need be, a path")
	}
	switch u.Scheme {
	case "http", "https", "h2c":
		if !isHostPort(u.Host) {
			v.err(at, "has no host", "Write it such as http://127.0.0.1:3000")
			return
		}
		if p := u.EscapedPath(); p != "" && path.Clean(p) != p && path.Clean(p)+"/" != p {
			v.err(at, "has a path that is not clean", "Write it without //, . and ..")
		} else if strings.ContainsAny(u.Path, `\%;`) || strings.Contains(strings.ToUpper(p), "%2F") || !utf8.ValidString(u.Path) {
			v.err(at, "has a path that servers read in different ways", "Write it without %2F, %5C, %25 and ;")
		}
		if u.Host == v.c.Server.Listen {
			v.err(at, "is Postern's own address", "Name the application's")
		}
	case "unix":
		if u.Host != "" || !isCleanFile(u.Path) {
			v.err(at, "is not the path of a socket", "Write it such as unix:/run/app.sock")
		}
	case "file":
		if u.Host != "" || !isCleanFile(u.Path) {
			v.err(at, "is not the path of a folder", "Write it with three slashes, such as file:///srv/www")
		}
	default:
		v.err(at, "has a scheme that is none of http, https, h2c, unix and file", "Write it such as http://127.0.0.1:3000")
	}
}

// isCleanFile tells whether p names something below the root of the file system, in one way only.
func isCleanFile(p string) bool { return strings.HasPrefix(p, "/") && path.Clean(p) == p && p != "/" }

func (v *validator) upstreamTLS(at string, t *UpstreamTLS) {
	switch {
	case t == nil:
		return
	case *t == UpstreamTLS{}:
		v.err(at, "is empty", "Write ca_file, cert_file and key_file, or server_name; or leave it out")
	case t.CertFile == "" && t.KeyFile != "":
		v.err(at+".cert_file", "is missing", "Name the PEM file of the certificate chain")
	case t.KeyFile == "" && t.CertFile != "":
		v.err(at+".key_file", "is missing", "Name the PEM file of the private key")
	}
	if t.ServerName != "" && !isHost(t.ServerName) {
		v.shown(at+".server_name", "is not a host name", "Write the name in the upstream's certificate, in lower case, such as erp.internal")
	}
}

// stripPrefix wants a prefix of whole segments that every request of the route has.
func (v *validator) stripPrefix(at string, r Route) {
	if !v.given(at) {
		return
	}
	switch prefix := strings.TrimSuffix(r.StripPrefix, "/"); {
	case prefix == "":
		v.err(at, "takes nothing off", "Write a path such as /app, or leave it out")
	case prefix[0] != '/':
		v.shown(at, "does not begin with /", "Write a path such as /app")
	case !strings.HasPrefix(strings.TrimSuffix(r.Path, "/")+"/", prefix+"/"):
		v.shown(at, "is not what the route's path begins with: requests would come that do not have it", "Write path: "+prefix+" too, or one beneath it")
	}
}

// bodyLimit refuses a limit that no request with a body could meet.
func (v *validator) bodyLimit(at string, limit Size) {
	if v.given(at) && limit == 0 {
		v.shown(at, "would refuse every body", "Write a size such as 64MiB; without one there is no limit")
	}
}
