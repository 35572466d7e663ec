package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"postern/proxy/tracing"
	"postern/session"
)

// upstreamOptions say where an application is and what must never pass.
type upstreamOptions struct {
	// URLs are the addresses: http, https or h2c with an optional base path, or unix:/path.sock, or unix:/path.sock:/base. Or one file:///folder.
	URLs []*url.URL
	// OwnHost sends the address's host as Host, in place of the client's.
	OwnHost bool
	// TLS says more about https than the defaults; it is asked for each connection.
	TLS func() (*tls.Config, error)
	// Shared has the transports of all routes, so that those to the same application use the same connections. A route with TLS has its own, and so has
	// every route where this is nil.
	Shared map[destination]transports
	// StripPrefix is taken off each path; without a slash at its end.
	StripPrefix string
	// RewriteResponse turns the application's own address in its answers into what browsers see.
	RewriteResponse bool
	// Timeout bounds the exchange with the application, when it is not zero.
	Timeout time.Duration
	// MaxBody bounds the bodies of requests, when it is not zero.
	MaxBody int64
	// Ours tells our cookies by name. They are neither sent to the application nor taken from it.
	Ours func(name string) bool
	// Forwarding writes the X-Forwarded-* headers.
	Forwarding forwarding
	// Streams registers WebSockets and long responses.
	Streams *streams
	// Strip are further headers that clients may not send, in no spelling.
	Strip []string
	// Via names the route to whoever comes after.
	Via via
	// EncodedSlash lets paths with %2F pass.
	EncodedSlash bool
	// HSTS is the Strict-Transport-Security value where the application sets none; "" sets none.
	HSTS string
	// HeaderTimeout replaces headerTimeout when it is not zero. With a Timeout there is none.
	HeaderTimeout time.Duration
	// Fail answers when the application did not.
	Fail func(w http.ResponseWriter, r *http.Request, f failure)
	// Log gets what cannot be answered any more.
	Log *slog.Logger
}

// upstream forwards requests to one application.
type upstream struct {
	o      upstreamOptions
	to     balancer
	files  folder // serves in place of an application, when it is not empty
	prefix string // StripPrefix as it stands in URLs
	proxy  httputil.ReverseProxy
}

// newUpstream makes the way to an application. It does not connect yet.
func newUpstream(o upstreamOptions) (*upstream, error) {
	u := &upstream{o: o}
	if u.o.Streams == nil {
		u.o.Streams = newStreams(nil)
	}
	if u.o.Log == nil {
		u.o.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Timeout > 0:
		u.o.HeaderTimeout = 0
	case o.HeaderTimeout == 0:
		u.o.HeaderTimeout = headerTimeout
	}
	u.prefix = (&url.URL{Path: o.StripPrefix}).EscapedPath()
	if at := o.URLs[0]; at.Scheme == "file" {
		u.files = folder(at.Path)
		return u, nil
	}
	u.to.log = u.o.Log
	for _, at := range o.URLs {
		a, err := newAddress(&u.o, at)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", at.Redacted(), err)
		}
		u.to.addresses = append(u.to.addresses, a)
	}
	u.proxy = httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: modifyResponse,
		ErrorHandler:   answerFailure,
		Transport:      u,
		BufferPool:     &buffers{},
		// A body that broke off: the request's own log line says so too, with its id.
		ErrorLog: slog.NewLogLogger(u.o.Log.Handler(), slog.LevelDebug),
	}
	return u, nil
}

// close gives idle connections back.
func (u *upstream) close() {
	for _, a := range u.to.addresses {
		a.transport.close()
	}
}

// forward is what was decided about a request.
type forward struct {
	// Session is who asks; nil sends no identity and no token.
	Session *session.Session
	// Client is from where.
	Client clientInfo
	// KeepAuthorization lets the client's own Authorization pass where there is no session: on public routes.
	KeepAuthorization bool
	// Bearer is the token that is sent, when it is not empty.
	Bearer string
	// Renew gets another token when the application calls this one invalid; nil where there is none to get.
	Renew renewFunc
	// OwnHeaders says that Headers stand in place of the default identity headers.
	OwnHeaders bool
	// Headers go to the application, Response to the client.
	Headers, Response []computedHeader
	// Span is the application's part in the trace; nil without tracing.
	Span *tracing.Span
}

// tell sets what the application is told about who asks. authorization is the client's own.
func (f forward) tell(h http.Header, authorization []string) {
	identity := f.Session
	if f.OwnHeaders {
		identity = nil
	}
	setIdentity(h, identity, f.Bearer)
	if f.Session == nil && f.Bearer == "" && f.KeepAuthorization && len(authorization) > 0 {
		h["Authorization"] = authorization
	}
	setComputed(h, f.Headers)
}

// serve forwards one request that the gate has let pass, and answers it. If that opens a WebSocket, it returns a tunnel, which the caller runs.
//
// Flow: hop-by-hop headers off (RFC 9110 section 7.6.1) → claims and our cookies off → identity, Bearer and forwarding headers on →
// the path and query as they came, behind the base path → the answer, without our cookies.
//
// It panics with http.ErrAbortHandler when the answer breaks off, as httputil.ReverseProxy does: the client must not take a part for the whole.
func (u *upstream) serve(w http.ResponseWriter, r *http.Request, f forward) *tunnel {
	l := &leg{Context: r.Context(), u: u, w: w, in: r, f: f}
	if err := l.readTarget(); err != nil {
		l.fail(failure{http.StatusBadRequest, "bad_target", err})
		return nil
	}
	if limit := u.o.MaxBody; limit > 0 && r.ContentLength > limit {
		l.fail(failure{http.StatusRequestEntityTooLarge, "body_too_large", nil})
		return nil
	}
	l.websocket = isWebSocketHandshake(r)
	if u.o.Timeout > 0 {
		defer l.bound(u.o.Timeout)()
	}
	l.tied = l.tether()
	defer l.over()
	if u.files != "" {
		u.files.serve(l)
		return nil
	}
	r = r.WithContext(l)
	if l.plain = saysNothingOfHops(r.Header); l.plain {
		r.Header = nil // rewrite takes it from l.in: the reverse proxy would copy it only to take nothing away
	}
	u.proxy.ServeHTTP(l, r)
	if !l.hijacked {
		// RFC 9110 section 6.5.1: a trailer is no place for cookies. This one would bypass modifyResponse.
		delete(w.Header(), http.TrailerPrefix+"Set-Cookie")
		delete(w.Header(), http.TrailerPrefix+"Clear-Site-Data")
	}
	return l.tunnel
}

// readTarget finds what is asked for at the application. The gate has refused what is refused here; nothing may depend on its memory.
func (l *leg) readTarget() error {
	path, query, err := requestTarget(l.in)
	if err != nil {
		return err
	}
	if why := ambiguousPath(path, l.u.o.EncodedSlash); why != "" {
		return errors.New(why)
	}
	if refusedMethod(l.in) {
		return errors.New("method refused")
	}
	if prefix := l.u.o.StripPrefix; prefix != "" {
		rest, ok := cutPrefix(path, prefix)
		if !ok {
			return errors.New("path does not begin with strip_prefix")
		}
		l.target = rest + query
		return nil
	}
	l.target = wholeTarget(l.in, path, query)
	return nil
}

// leg is one request between Postern and an application. It is the request's context, so that the reverse proxy's hooks find it, and
// the http.ResponseWriter that the reverse proxy writes to.
type leg struct {
	context.Context
	u         *upstream
	w         http.ResponseWriter
	in        *http.Request
	f         forward
	at        *address    // where it is sent; nil before it is
	target    string      // path and query as they are sent, behind the address's base path
	websocket bool        // the client began a WebSocket handshake
	conn      net.Conn    // to the application, for a WebSocket
	plain     bool        // its header is one of which the reverse proxy takes nothing away that rewrite does not
	tied      *tether     // to the session; nil without one
	clock     *time.Timer // ends the exchange; nil without a timeout
	upload    upload
	interim   http.Header // of a 1xx response under way
	answered  bool        // the final response has come: what is written now is that
	hijacked  bool
	tunnel    *tunnel // nil: the request has not become a WebSocket
}

type legKey struct{}

// Value finds the leg itself.
func (l *leg) Value(key any) any {
	if key == (legKey{}) {
		return l
	}
	return l.Context.Value(key)
}

func legOf(r *http.Request) *leg { return r.Context().Value(legKey{}).(*leg) }

// rewrite makes the outgoing request. The reverse proxy has removed the hop-by-hop headers, and with them whatever the client named in
// Connection, unless the header is plain: then they are left out here. So nothing that is set here can be taken away by the client (CVE-2021-32813 and its like).
func rewrite(pr *httputil.ProxyRequest) {
	l := legOf(pr.In)
	out, from := pr.Out, pr.Out.Header
	if l.plain {
		from = l.in.Header
	}
	h := make(http.Header, len(from)+ownHeaders) // with room for all: a map that grows costs more than all that is put into it
	for name, values := range from {
		if !l.plain || !isHopByHop(name) {
			h[name] = values
		}
	}
	out.Header = h
	l.at = l.u.to.pick(nil)
	l.aim(out)
	out.Trailer = nil // request trailers are never headers to anyone (A56)
	if !l.websocket {
		delete(h, "Connection")
		delete(h, "Upgrade")
	}
	if out.Body != nil {
		l.upload.body, l.upload.tied = out.Body, l.tied
		if limit := l.u.o.MaxBody; limit > 0 {
			l.upload.body = http.MaxBytesReader(l.w, out.Body, limit)
		}
		out.Body = &l.upload
	}
	stripIdentity(h, l.u.o.Strip)
	cutCookies(h, l.u.o.Ours)
	authorization := h["Authorization"]
	l.f.tell(h, authorization)
	l.u.o.Forwarding.set(h, l.f.Client)
	if l.u.prefix != "" {
		h["X-Forwarded-Prefix"] = []string{l.u.prefix}
	}
	l.u.o.Via.add(h, pr.In.ProtoMajor)
	l.f.Span.Send(out, l.f.Client.Trusted)
}

// aim addresses a request to l.at.
func (l *leg) aim(out *http.Request) {
	// Opaque is written as it is. Any other way net/http encodes the path anew and drops what it cannot parse from the query.
	*out.URL = url.URL{Scheme: l.at.scheme, Host: l.at.host, Opaque: l.at.base + l.target}
	out.Host = l.f.Client.Host
	if l.u.o.OwnHost {
		out.Host = l.at.host
	}
}

// over gives back what the request held, unless a tunnel goes on with it.
func (l *leg) over() {
	if l.tunnel == nil {
		l.tied.untie()
		l.u.to.release(l.at)
	}
}

// RoundTrip sends a request to the application, and once more where the application calls its token invalid and there is another one.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	l := legOf(r)
	res, err := l.send(r)
	if err != nil || l.f.Renew == nil || !refusesToken(res) || !l.replayable() {
		return res, err
	}
	return l.again(r, res)
}

// send sends a request to the application, and notes how long its answer took to begin.
func (l *leg) send(r *http.Request) (*http.Response, error) {
	if l.websocket {
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { l.conn = got.Conn }}))
	}
	x := exchangeOf(l.w)
	if x == nil {
		return l.u.to.send(l, r)
	}
	began := x.now()
	if x.sent.IsZero() {
		x.sent = began
	}
	res, err := l.u.to.send(l, r)
	x.waited += x.now().Sub(began)
	return res, err
}

// replayable tells whether sending the request twice changes nothing: it has no body and a method that only reads (RFC 9110 section 9.2.1).
func (l *leg) replayable() bool {
	switch l.in.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return l.upload.body == nil && !l.websocket
	}
	return false
}

// speaksHTTP2 tells whether the application may be one with streams in both directions.
func (u *upstream) speaksHTTP2() bool {
	return slices.ContainsFunc(u.o.URLs, func(at *url.URL) bool { return at.Scheme == "h2c" || at.Scheme == "https" })
}

// bound ends the exchange after d, unless unbound is called. The caller calls end when it is over.
func (l *leg) bound(d time.Duration) (end func()) {
	ctx, cancel := context.WithCancelCause(l.Context)
	var mu sync.Mutex
	over := false // then the client's connection is no longer ours
	l.Context, l.clock = ctx, time.AfterFunc(d, func() {
		cancel(errTimeout)
		mu.Lock()
		defer mu.Unlock()
		if !over && l.in.ContentLength != 0 && !l.upload.over.Load() {
			if x := exchangeOf(l.w); x != nil && x.body != nil {
				x.body.end() // or it would move the deadline on
			}
			_ = http.NewResponseController(l.w).SetReadDeadline(time.Now()) // a slow upload does not hold the answer up
		}
	})
	return func() {
		l.clock.Stop()
		mu.Lock()
		over = true
		mu.Unlock()
		if x := exchangeOf(l.w); x != nil && l.answered && context.Cause(ctx) == errTimeout {
			x.err = errTimeout // why the answer was cut
		}
		cancel(nil)
	}
}

// unbound lets the exchange take as long as it likes: it has become a stream.
func (l *leg) unbound() {
	if l.clock != nil {
		l.clock.Stop()
	}
}

// isWebSocketHandshake tells the one protocol switch that is passed on (RFC 6455 section 4.1). Any other, h2c above all, would open a tunnel
// through which requests go to the application unseen.
func isWebSocketHandshake(r *http.Request) bool {
	upgrade := r.Header["Upgrade"]
	return len(upgrade) == 1 && strings.EqualFold(upgrade[0], "websocket") &&
		r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.ContentLength == 0 &&
		len(r.Header["Sec-Websocket-Key"]) == 1
}

// modifyResponse checks and completes the final response of an application.
func modifyResponse(res *http.Response) error {
	l := legOf(res.Request)
	o := &l.u.o
	l.f.Span.Answered(res)
	if res.StatusCode == http.StatusUnauthorized && exchangeOf(l.w).demanded(res.Header) {
		return errSessionOver
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		if !l.websocket || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
			return errUnaskedSwitch
		}
	}
	h := res.Header
	filterSetCookie(h, o.Ours)
	filterClearSiteData(h)
	delete(h, "Alt-Svc")              // the application's other ports are not ours
	delete(res.Trailer, "Set-Cookie") // it is not announced; serve drops it when it comes
	delete(res.Trailer, "Clear-Site-Data")
	if o.RewriteResponse {
		l.relocate(h)
	}
	l.complete(h)
	events := strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
	if events || res.StatusCode == http.StatusSwitchingProtocols {
		l.unbound()
	}
	if res.ContentLength < 0 && res.Body != nil && res.StatusCode != http.StatusSwitchingProtocols {
		body := &longBody{ReadCloser: res.Body, streams: o.Streams, events: events}
		if err := l.tied.becomes(body); err != nil {
			return err
		}
		res.Body = body
		o.Streams.add(body)
	}
	l.answered = true
	if res.StatusCode == http.StatusSwitchingProtocols {
		return l.switchProtocols(res)
	}
	if !events { // the reverse proxy knows them by their Content-Type
		l.pass(h)
	}
	return nil
}

// pass puts the header of an answer where the reverse proxy would copy it to, value by value.
func (l *leg) pass(h http.Header) {
	to := l.w.Header()
	for name, values := range h {
		if before := to[name]; len(before) > 0 { // a cookie of ours
			values = append(slices.Clip(before), values...)
		}
		to[name] = values
	}
	clear(h)
}

// complete adds to the header of an answer what Postern has to say about it.
func (l *leg) complete(h http.Header) {
	if hsts := l.u.o.HSTS; hsts != "" && len(h["Strict-Transport-Security"]) == 0 {
		h["Strict-Transport-Security"] = []string{hsts}
	}
	setComputed(h, l.f.Response)
	switch {
	case len(l.w.Header()["Set-Cookie"]) > 0:
		noStore(h) // a cookie of ours goes along, which is for this browser alone (A113)
	case l.f.Session != nil && len(h["Cache-Control"]) == 0:
		h["Cache-Control"] = []string{"private"} // RFC 9111: what is made for one person is not for a shared cache
	}
}

// Header is the header that the reverse proxy fills. Until the final response has come that can only be a 1xx response's, which must neither
// carry nor lose what is already set for the final one, such as a cookie of ours.
func (l *leg) Header() http.Header {
	if l.answered {
		return l.w.Header()
	}
	if l.interim == nil {
		l.interim = http.Header{}
	}
	return l.interim
}

// WriteHeader passes the status on. The reverse proxy calls it for 1xx responses, too, which never meet modifyResponse.
func (l *leg) WriteHeader(status int) {
	if status >= 200 || l.answered {
		l.w.WriteHeader(status)
		return
	}
	if !l.in.ProtoAtLeast(1, 1) { // RFC 9110 section 15.2: HTTP/1.0 knows no 1xx
		return
	}
	filterSetCookie(l.interim, l.u.o.Ours)
	for _, name := range [...]string{"Alt-Svc", "Clear-Site-Data", "Connection", "Keep-Alive", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
		delete(l.interim, name)
	}
	h := l.w.Header()
	final := maps.Clone(h)
	clear(h)
	maps.Copy(h, l.interim)
	l.w.WriteHeader(status)
	clear(h)
	maps.Copy(h, final)
}

// Write implements http.ResponseWriter.
func (l *leg) Write(p []byte) (int, error) { return l.w.Write(p) }

// FlushError lets http.ResponseController flush.
func (l *leg) FlushError() error { return http.NewResponseController(l.w).Flush() }
