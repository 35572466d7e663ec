package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"postern/session"
)

// upstreamOptions say where an application is and what must never pass.
type upstreamOptions struct {
	// URL is http, https or h2c with an optional base path, or unix:/path.sock, or unix:/path.sock:/base.
	URL *url.URL
	// Ours tells our cookies by name. They are neither sent to the application nor taken from it.
	Ours func(name string) bool
	// Forwarding writes the X-Forwarded-* headers.
	Forwarding forwarding
	// Streams registers WebSockets and long responses.
	Streams *streams
	// Strip are further headers that clients may not send, in no spelling.
	Strip []string
	// EncodedSlash lets paths with %2F pass.
	EncodedSlash bool
	// HSTS is the Strict-Transport-Security value where the application sets none; "" sets none.
	HSTS string
	// HeaderTimeout replaces headerTimeout when it is not zero.
	HeaderTimeout time.Duration
	// Fail answers when the application did not.
	Fail func(w http.ResponseWriter, r *http.Request, f failure)
	// Log gets what cannot be answered any more.
	Log *slog.Logger
}

// upstream forwards requests to one application.
type upstream struct {
	o            upstreamOptions
	scheme, host string // for the transport
	base         string // put before each path; without a slash at its end
	proxy        httputil.ReverseProxy
	transport    transports
}

// newUpstream makes the way to an application. It does not connect yet.
func newUpstream(o upstreamOptions) (*upstream, error) {
	u := &upstream{o: o}
	if u.o.Streams == nil {
		u.o.Streams = newStreams()
	}
	if u.o.Log == nil {
		u.o.Log = slog.New(slog.DiscardHandler)
	}
	if u.o.HeaderTimeout == 0 {
		u.o.HeaderTimeout = headerTimeout
	}
	if err := u.locate(o.URL); err != nil {
		return nil, fmt.Errorf("upstream %s: %w", o.URL.Redacted(), err)
	}
	u.proxy = httputil.ReverseProxy{
		Rewrite:        rewrite,
		ModifyResponse: modifyResponse,
		ErrorHandler:   answerFailure,
		Transport:      &u.transport,
		BufferPool:     &buffers{},
		// A body that broke off: the request's own log line says so too, with its id.
		ErrorLog: slog.NewLogLogger(u.o.Log.Handler(), slog.LevelDebug),
	}
	return u, nil
}

// close gives idle connections back.
func (u *upstream) close() {
	u.transport.main.CloseIdleConnections()
	u.transport.upgrade.CloseIdleConnections()
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
	// OwnHeaders says that Headers stand in place of the default identity headers.
	OwnHeaders bool
	// Headers go to the application, Response to the client.
	Headers, Response []computedHeader
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

// serve forwards one request that the gate has let pass, and answers it.
//
// Flow: hop-by-hop headers off (RFC 9110 section 7.6.1) → claims and our cookies off → identity, Bearer and forwarding headers on →
// the path and query as they came, behind the base path → the answer, without our cookies.
//
// It panics with http.ErrAbortHandler when the answer breaks off, as httputil.ReverseProxy does: the client must not take a part for the whole.
func (u *upstream) serve(w http.ResponseWriter, r *http.Request, f forward) {
	l := &leg{Context: r.Context(), u: u, w: w, in: r, f: f}
	path, query, err := requestTarget(r)
	if err == nil {
		if why := ambiguousPath(path, u.o.EncodedSlash); why != "" {
			err = errors.New(why)
		}
	}
	if err == nil && refusedMethod(r) {
		err = errors.New("method refused")
	}
	if err != nil { // the gate has refused these; nothing may depend on its memory
		u.o.Fail(w, r, failure{Status: http.StatusBadRequest, Reason: "bad_target", Err: err})
		return
	}
	l.target = r.RequestURI
	if u.base != "" || len(l.target) != len(path)+len(query) {
		l.target = u.base + path + query
	}
	l.websocket = isWebSocketHandshake(r)
	l.tied = l.tether()
	defer l.tied.untie()
	u.proxy.ServeHTTP(l, r.WithContext(l))
	if !l.hijacked {
		// RFC 9110 section 6.5.1: a trailer is no place for cookies. This one would bypass modifyResponse.
		delete(w.Header(), http.TrailerPrefix+"Set-Cookie")
	}
}

// leg is one request between Postern and an application. It is the request's context, so that the reverse proxy's hooks find it, and
// the http.ResponseWriter that the reverse proxy writes to.
type leg struct {
	context.Context
	u         *upstream
	w         http.ResponseWriter
	in        *http.Request
	f         forward
	target    string  // path and query as they are sent
	websocket bool    // the client began a WebSocket handshake
	tied      *tether // to the session; nil without one
	upload    upload
	interim   http.Header // of a 1xx response under way
	answered  bool        // the final response has come: what is written now is that
	hijacked  bool
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
// Connection; so nothing that is set here can be taken away by the client (CVE-2021-32813 and its like).
func rewrite(pr *httputil.ProxyRequest) {
	l := legOf(pr.In)
	out, h := pr.Out, pr.Out.Header
	// Opaque is written as it is. Any other way net/http encodes the path anew and drops what it cannot parse from the query.
	*out.URL = url.URL{Scheme: l.u.scheme, Host: l.u.host, Opaque: l.target}
	out.Host = l.f.Client.Host
	out.Trailer = nil // request trailers are never headers to anyone (A56)
	if !l.websocket {
		delete(h, "Connection")
		delete(h, "Upgrade")
	}
	if out.Body != nil {
		l.upload.body, l.upload.tied = out.Body, l.tied
		out.Body = &l.upload
	}
	stripIdentity(h, l.u.o.Strip)
	cutCookies(h, l.u.o.Ours)
	authorization := h["Authorization"]
	l.f.tell(h, authorization)
	l.u.o.Forwarding.set(h, l.f.Client)
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
	delete(h, "Alt-Svc")              // the application's other ports are not ours
	delete(res.Trailer, "Set-Cookie") // it is not announced; serve drops it when it comes
	if o.HSTS != "" && len(h["Strict-Transport-Security"]) == 0 {
		h["Strict-Transport-Security"] = []string{o.HSTS}
	}
	setComputed(h, l.f.Response)
	switch {
	case len(l.w.Header()["Set-Cookie"]) > 0:
		noStore(h) // a cookie of ours goes along, which is for this browser alone (A113)
	case l.f.Session != nil && len(h["Cache-Control"]) == 0:
		h["Cache-Control"] = []string{"private"} // RFC 9111: what is made for one person is not for a shared cache
	}
	if res.ContentLength < 0 && res.Body != nil && res.StatusCode != http.StatusSwitchingProtocols {
		events := strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
		body := &longBody{ReadCloser: res.Body, streams: o.Streams, events: events}
		if err := l.tied.becomes(body); err != nil {
			return err
		}
		res.Body = body
		o.Streams.add(body)
	}
	l.answered = true
	return nil
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
	for _, name := range [...]string{"Alt-Svc", "Connection", "Keep-Alive", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade"} {
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

// Hijack gives the reverse proxy the connection of a WebSocket.
func (l *leg) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	l.hijacked = true
	if x := exchangeOf(l.w); x != nil {
		x.status = http.StatusSwitchingProtocols // the reverse proxy writes it to the connection itself
	}
	c := &socket{Conn: conn, early: brw.Reader, streams: l.u.o.Streams}
	l.u.o.Streams.add(c)
	if t := l.tied; t != nil {
		t.tie()
		c.used = t.used
		if err := t.becomes(c); err != nil {
			_ = c.Close()
			return nil, nil, err
		}
	}
	return c, brw, nil
}
