package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"postern/config"
	"postern/proxy/access"
	"postern/proxy/metrics"
	"postern/proxy/page"
	"postern/proxy/tracing"
	"postern/session"
	"postern/session/seal"
)

// Proxy is the front door. Make one with [New]; it is an http.Handler for the public listener.
type Proxy struct {
	*lasting
	log        *slog.Logger
	logShare   float64 // of the requests that ended well, as server.log.requests says
	logNames   *logNames
	now        func() time.Time
	pages      *page.Pages
	routes     *table
	ownHeaders []string // that some route sets, but for Authorization
	providers  []*provider
	forwarding forwarding
	streams    *streams
	tunnels    sync.WaitGroup // WebSockets, which outlive their handlers
	attempts   *attempts
	appTokens  map[config.ClientCredentials]*appToken
	traded     *traded
	asserter   *asserter // nil: no route has an assertion
	tokens     *presentedTokens
	store      session.Store
	admin      http.Handler
	audit      *auditor // nil: off
	keeper     keeper
	tracer     *tracing.Tracer
	metrics    *metrics.Metrics
	unrouted   *metrics.Route // counts what reaches no route

	prefix      string   // of our own endpoints, such as /oauth2
	dialect     string   // in which another proxy asks; "" when none does
	origin      *url.URL // what browsers see where no route names its host; nil when every route does
	public      bool     // origin was written as public_url and holds for every host
	returnHosts []string
	hsts        string
	keys        *seal.Ring // of this configuration, which are those of the process from Run on
	crossOrigin *http.CrossOriginProtection
	compiler    *access.Compiler // of the routes' expressions, for the configuration that follows
}

// ServeHTTP answers one request of the public listener.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, r: r, now: p.now, start: p.now()}
	defer p.finish(x)
	x.client = p.forwarding.client(r)
	x.r, x.span = p.tracer.Request(r, x.client.Trusted)
	x.watchBody()
	defer x.endBody()
	if r.ProtoMajor == 1 && (len(r.TransferEncoding) > 0 || r.ProtoMinor == 0) {
		// RFC 9112 section 6.1: what came with a length beside the chunks may be an attempt at smuggling, and net/http hides such a length. So no
		// connection is used again after chunks, nor after HTTP/1.0, which knows none.
		w.Header().Set("Connection", "close")
	}
	p.serve(x)
}

// serve checks what every request must satisfy, then hands it to an endpoint of ours or to a route.
func (p *Proxy) serve(x *exchange) {
	if p.tooLarge(x) || !p.readTarget(x) {
		return
	}
	if p.isAuthRequest(x.path) {
		p.forwardAuth(x)
		return
	}
	name, ours := p.endpointName(x.path)
	if ours && (name == "logout/backchannel" || name == "jwks") { // providers and applications may call us by a name that no browser uses
		p.endpoint(x, name)
		return
	}
	if !p.findHost(x) {
		return
	}
	if ours {
		p.endpoint(x, name)
		return
	}
	if marker, ok := sendsKept(x.r); ok {
		p.replay(x, marker)
		return
	}
	p.serveRoute(x)
}

// serveRoute decides about a request to a route, and answers it.
func (p *Proxy) serveRoute(x *exchange) {
	if !p.findRoute(x) {
		return
	}
	if x.route.via.passed(x.r.Header) {
		p.refuse(x, http.StatusLoopDetected, "loop", nil)
		return
	}
	x.verdict = p.decide(x.r.Context(), x)
	p.audit.denied(x, x.verdict)
	p.render(x)
}

// readTarget refuses methods and paths that are never let through. It is false when it has answered.
func (p *Proxy) readTarget(x *exchange) bool {
	if refusedMethod(x.r) {
		x.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS") // RFC 9110 section 15.5.6 wants some
		p.refuse(x, http.StatusMethodNotAllowed, "method_refused", nil)
		return false
	}
	path, query, err := requestTarget(x.r)
	if err != nil {
		p.refuse(x, http.StatusBadRequest, "bad_target", err)
		return false
	}
	if host := x.r.URL.Host; host != "" && !p.ownHost(host) { // an absolute-form target: it stands in place of the Host header, whatever that says
		p.refuse(x, http.StatusMisdirectedRequest, "foreign_target", nil)
		return false
	}
	if why := ambiguousPath(path, false); why != "" {
		if ambiguousPath(path, true) != "" {
			p.refuse(x, http.StatusBadRequest, "ambiguous_path", errors.New(why))
			return false
		}
		x.encodedSlash = errors.New(why + ", which allow_encoded_slash of the route would let through")
	}
	x.target, x.rawPath = wholeTarget(x.r, path, query), path
	x.path = canonicalPath(path)
	return true
}

// findHost finds out what the browser sees of us. It is false when it has answered.
func (p *Proxy) findHost(x *exchange) bool {
	if host := x.client.Host; host != "" && !isHost(host) {
		p.refuse(x, http.StatusBadRequest, "bad_host", nil)
		return false
	}
	if !p.routes.knowsHost(x.client.Host) {
		p.refuse(x, http.StatusMisdirectedRequest, "unknown_host", nil)
		return false
	}
	x.origin = p.originOf(x.client.Host)
	return true
}

// ownHost tells whether a host is one that routes or public_url name.
func (p *Proxy) ownHost(host string) bool {
	return p.routes.namesHost(host) || p.origin != nil && hostname(p.origin.Host) == hostname(host)
}

// findRoute finds the one route whose rule decides. It is false when it has answered.
func (p *Proxy) findRoute(x *exchange) bool {
	x.route = p.routes.match(x.client.Host, x.path, x.r.Method)
	if x.encodedSlash != nil && (x.route == nil || !x.route.encodedSlash) {
		p.refuse(x, http.StatusBadRequest, "ambiguous_path", x.encodedSlash)
		return false
	}
	if other := otherReading(x.rawPath); other != x.path && !p.sameRoute(x, other) {
		p.refuse(x, http.StatusBadRequest, "ambiguous_path", errors.New("path parameters or an encoded slash change the route"))
		return false
	}
	if x.route == nil || x.route.upstream == nil && p.dialect != "" && !x.asked { // another proxy carries its requests
		p.refuse(x, http.StatusNotFound, "no_route", nil)
		return false
	}
	return true
}

// sameRoute tells whether another reading of the path leads where x.path does.
func (p *Proxy) sameRoute(x *exchange, other string) bool {
	_, ours := p.endpointName(other)
	return !ours && p.routes.match(x.client.Host, other, x.r.Method) == x.route
}

// originOf is what browsers see of a host that the route table knows: public_url, else https and the host of the route,
// else the loopback address that we listen on.
func (p *Proxy) originOf(host string) *url.URL {
	if !p.public && p.routes.namesHost(host) {
		return &url.URL{Scheme: "https", Host: hostname(host)}
	}
	return p.origin
}

// endpointName tells whether a canonical path is one of ours and what follows the prefix.
func (p *Proxy) endpointName(path string) (name string, ok bool) {
	rest, ok := strings.CutPrefix(path, p.prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.Trim(rest, "/"), true
}

// finish writes the one log line of a request, counts it and ends its span. A panic in the flow becomes a 500 without detail. A request that has become a
// WebSocket is finished when that ends.
func (p *Proxy) finish(x *exchange) {
	if x.tunnel != nil {
		p.letRun(x)
		return
	}
	defer x.endSpan()
	defer p.count(x)
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler { // the upstream's or client's side of a stream broke: nothing more can be said
			x.failed = true
			x.reason("aborted", nil)
			if x.r.Context().Err() != nil {
				x.status = statusClientClosed
				x.reason("client_left", nil)
			}
			p.logRequest(x)
			panic(v)
		}
		x.failed = true
		p.log.ErrorContext(x.r.Context(), "panic", "request_id", x.client.RequestID, "panic", v, "stack", string(debug.Stack()))
		if x.status == 0 {
			p.refuse(x, http.StatusInternalServerError, "panic", nil)
		} else {
			defer panic(http.ErrAbortHandler)
		}
	}
	p.logRequest(x)
}

// letRun lets the WebSocket that a request has become go on without the handler, whose writer is then no longer anyone's.
func (p *Proxy) letRun(x *exchange) {
	x.ResponseWriter = nil
	p.tunnels.Add(1)
	x.tunnel.run(func() {
		defer p.tunnels.Done()
		x.leaveApplication()
		p.logRequest(x)
		p.count(x)
		x.endSpan()
	})
}

// WaitForTunnels waits until the WebSockets are over whose requests were served. None may come any more.
func (p *Proxy) WaitForTunnels() { p.tunnels.Wait() }
