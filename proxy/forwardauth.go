package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The dialects in which other proxies ask. None can be recognised from a request: a client's own X-Forwarded-Uri would then decide.
const (
	dialectNginx   = "nginx"
	dialectTraefik = "traefik"
	dialectCaddy   = "caddy"
	dialectEnvoy   = "envoy"
)

// headerVerdict tells a proxy's configuration, and whoever reads its log, what was decided: allow, sign_in, deny or unavailable.
const headerVerdict = "X-Postern-Verdict"

// headerRemove names the headers that Envoy takes off the client's request.
const headerRemove = "X-Envoy-Auth-Headers-To-Remove"

// headerRedirect is where nginx sends a page navigation that needs a sign-in.
const headerRedirect = "X-Postern-Redirect"

// isAuthRequest tells the endpoint auth, which exists only where the configuration names a dialect. Envoy puts the original path behind it.
func (p *Proxy) isAuthRequest(path string) bool {
	if p.dialect == "" {
		return false
	}
	name, ok := p.endpointName(path)
	return ok && (name == "auth" || p.dialect == dialectEnvoy && strings.HasPrefix(name, "auth/"))
}

// forwardAuth answers another proxy that asks whether a request may pass.
//
// Flow: the peer is one of trusted_proxies → the request that it asks about, from the headers that its dialect always overwrites → the same
// steps as for a request that came here itself, on that → the same verdict, rendered in the dialect.
//
// Whatever is missing or not well-formed denies (CVE-2021-32637, CVE-2026-25748).
func (p *Proxy) forwardAuth(x *exchange) {
	x.asked = true
	x.verdict = verdict{Kind: verdictOwn, Reason: "auth"}
	if !x.client.Trusted {
		p.refuse(x, http.StatusForbidden, "auth_peer_not_trusted", nil)
		return
	}
	if err := p.takeAsked(x); err != nil {
		p.refuse(x, http.StatusForbidden, "bad_auth_request", err)
		return
	}
	if name := disguised(x.r.Header, p.ownHeaders); name != "" { // the proxy that asks overwrites and removes names by their usual spelling alone
		p.refuse(x, http.StatusForbidden, "bad_auth_request", fmt.Errorf("applications may read the client's header %q as one that tells who asks", name))
		return
	}
	if !p.readTarget(x) || !p.findHost(x) {
		return
	}
	if _, own := p.endpointName(x.path); own {
		// These paths are to be sent here, not asked about. Passing them would open the application's own.
		p.refuse(x, http.StatusForbidden, "auth_about_own_endpoint", nil)
		return
	}
	if !p.findRoute(x) {
		return
	}
	x.verdict = p.decide(x.r.Context(), x)
	p.audit.denied(x, x.verdict)
	if p.dialect == dialectNginx {
		p.renderNginx(x)
		return
	}
	if x.verdict.Kind != verdictAllow {
		x.Header().Set(headerVerdict, x.verdict.Kind.String())
	}
	p.render(x)
}

// takeAsked makes x the exchange of the request that is asked about. Everything that decides comes from headers that the dialect's proxy overwrites in
// the recipe under deploy; what else a client may have sent is not looked at.
func (p *Proxy) takeAsked(x *exchange) error {
	h := x.r.Header
	var method, scheme, host, target string
	var err error
	switch p.dialect {
	case dialectNginx:
		var address string
		if address, err = single(h, "X-Original-Url"); err != nil {
			return err
		}
		if scheme, host, target, err = splitAddress(address); err != nil {
			return err
		}
		method, err = single(h, "X-Original-Method")
	case dialectTraefik, dialectCaddy:
		for name, value := range map[string]*string{"X-Forwarded-Method": &method, "X-Forwarded-Proto": &scheme, "X-Forwarded-Host": &host, "X-Forwarded-Uri": &target} {
			if *value, err = single(h, name); err != nil {
				return err
			}
		}
	default: // envoy sends the request itself, without its body, under another path
		method, host, target = x.r.Method, x.r.Host, strings.TrimPrefix(x.target, p.prefix+"/auth")
		scheme, err = single(h, "X-Forwarded-Proto")
	}
	if err != nil {
		return err
	}
	return p.takeRequest(x, method, scheme, host, target)
}

func (p *Proxy) takeRequest(x *exchange, method, scheme, host, target string) error {
	for i := range len(method) {
		if !isTokenByte(method[i]) {
			return errors.New("method is not a token")
		}
	}
	c := clientInfo{Peer: x.client.Peer, Trusted: true, RequestID: x.client.RequestID, Addr: p.forwarding.clientOf(x.r.Header["X-Forwarded-For"], x.client.Peer)}
	c.takeScheme(scheme)
	if c.Scheme == "" {
		return errors.New("scheme is neither http nor https")
	}
	c.takeHost(host)
	if c.Host == "" {
		return errors.New("host is not a host")
	}
	if c.Port = portOf(c.Host); c.Port == "" {
		c.Port = defaultPort(c.Scheme)
	}
	if !strings.HasPrefix(target, "/") {
		return errors.New("target is not a path")
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return errors.New("target does not parse")
	}
	r := x.r.WithContext(x.r.Context())
	r.Method, r.Host, r.RequestURI, r.URL, r.Body, r.ContentLength = method, c.Host, target, u, http.NoBody, 0
	if len(r.Header["Sec-Websocket-Key"]) > 0 && len(r.Header["Upgrade"]) == 0 {
		r.Header = r.Header.Clone() // proxies drop the hop-by-hop Upgrade when they ask
		r.Header["Upgrade"] = []string{"websocket"}
	}
	x.r, x.client, x.path = r, c, ""
	return nil
}

// single is the value of a header that came exactly once.
func single(h http.Header, name string) (string, error) {
	values := h[name]
	if len(values) != 1 || values[0] == "" {
		return "", errors.New("header " + name + " did not come exactly once")
	}
	return values[0], nil
}

// splitAddress takes nginx's $scheme://$http_host$request_uri apart. What $request_uri is in absolute form comes out as no path.
func splitAddress(address string) (scheme, host, target string, err error) {
	scheme, rest, ok := strings.Cut(address, "://")
	i := strings.IndexByte(rest, '/')
	if !ok || i < 0 {
		return "", "", "", errors.New("header X-Original-Url is not a URL")
	}
	return scheme, rest[:i], rest[i:], nil
}

// clientOf is the client's address by X-Forwarded-For, as for any request of a trusted proxy.
func (f forwarding) clientOf(xff []string, peer netip.Addr) netip.Addr {
	c := clientInfo{Addr: peer, Peer: peer}
	f.believe(&c, http.Header{"X-Forwarded-For": xff})
	return c.Addr
}

// grant tells the proxy that asked to go on, with the headers that it copies to the application's request. A header whose claim is absent does not come, or empty: the
// recipes remove the client's own in every case, or are told to. They copy one list of headers for all routes, so that includes those of other routes.
func (p *Proxy) grant(x *exchange, f forward) {
	h := x.Header()
	p.own(h)
	identity, absent := http.Header{}, []string(nil)
	f.tell(identity, x.r.Header["Authorization"]) // the application's own, on a public route, is to be copied back onto the request
	for _, name := range slices.Concat([]string{headerUser, headerEmail, headerPreferred, headerGroups, "Authorization"}, p.ownHeaders) {
		if values := identity[name]; values != nil {
			h[name] = values
		} else if p.dialect == dialectCaddy {
			h[name] = []string{""} // Caddy's copy_headers copies an absent header as its placeholder's name
		} else {
			absent = append(absent, strings.ToLower(name))
		}
	}
	if p.dialect == dialectEnvoy && len(absent) > 0 { // where the others' recipes remove the client's own first
		h[headerRemove] = []string{strings.Join(absent, ",")}
	}
	h.Set(headerVerdict, verdictAllow.String())
	x.WriteHeader(http.StatusOK)
}

// renderNginx answers with what auth_request understands: 200, 401, 403, and anything else as "cannot tell", of which the recipe makes 503. Where to sign in
// comes as a header, for page navigations alone.
func (p *Proxy) renderNginx(x *exchange) {
	v := x.verdict
	if v.Kind == verdictAllow {
		p.forward(x)
		return
	}
	h := x.Header()
	p.own(h)
	h.Set(headerVerdict, v.Kind.String())
	status := http.StatusForbidden
	switch v.Kind {
	case verdictSignIn:
		status = http.StatusUnauthorized
		p.setChallenge(x)
		if x.goesToSignIn() {
			h.Set(headerRedirect, p.startURL(x, returnTo(x.target, x.origin, nil, p.prefix)))
		}
	case verdictUnavailable:
		status = http.StatusServiceUnavailable
	}
	x.WriteHeader(status)
}
