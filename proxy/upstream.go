package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"postern/session"
)

// The time limits towards applications. None bounds a body: uploads, downloads and streams take as long as they move.
const (
	dialTimeout         = 5 * time.Second
	tlsHandshakeTimeout = 10 * time.Second
	// headerTimeout is how long an application may think between the end of the request and the beginning of its answer: longer than
	// long polls (usually 30 to 60 s), shorter than anyone waits for a page. Event streams answer at once and then take their time.
	headerTimeout = 2 * time.Minute
	// idleTimeout is how long an unused connection is kept. Applications that close earlier are noticed at once.
	idleTimeout = 90 * time.Second
	// continueTimeout is how long an application may take to refuse an upload before it is sent (Expect: 100-continue).
	continueTimeout = time.Second
	// pingTimeout finds dead HTTP/2 connections, which carry many requests each.
	pingTimeout = 15 * time.Second
)

const (
	// idlePerHost is more than the requests that one process carries at once. With fewer, connections are closed and dialled again under load,
	// which costs more than all the rest of the proxy.
	idlePerHost = 1024
	// maxAnswerHeader bounds an application's response header.
	maxAnswerHeader = 256 << 10
	// copyBuffer is the size of the buffers that bodies pass through.
	copyBuffer = 32 << 10
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

// failure is why a request got no answer from its application.
type failure struct {
	// Status is 502 or 504 for the application, 499 (nobody reads the answer), 408, 413 or 400 for the client, and 401 when the verdict
	// was revised before the application answered.
	Status int
	// Reason is a stable word for the log.
	Reason string
	// Err is for the log alone: it names the application's address.
	Err error
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

// locate reads the address and makes the transports for it.
func (u *upstream) locate(at *url.URL) error {
	if at.User != nil || at.RawQuery != "" || at.ForceQuery || at.Fragment != "" || at.Opaque != "" {
		return errors.New("has more than an address and a path")
	}
	base := at.EscapedPath()
	var dial func(ctx context.Context, network, addr string) (net.Conn, error)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	dial = dialer.DialContext
	u.scheme, u.host = at.Scheme, at.Host
	protocols := new(http.Protocols)
	switch at.Scheme {
	case "http":
		protocols.SetHTTP1(true)
	case "https":
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	case "h2c":
		u.scheme = "http"
		protocols.SetUnencryptedHTTP2(true)
	case "unix":
		if at.Host != "" {
			return errors.New("has a host; write unix:/path")
		}
		socketPath, rest, _ := strings.Cut(at.Path, ":/")
		if socketPath == "" || socketPath == "/" {
			return errors.New("names no socket")
		}
		u.scheme, u.host, base = "http", "localhost", rest
		if base != "" {
			base = "/" + base
		}
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socketPath)
		}
		protocols.SetHTTP1(true)
	default:
		return fmt.Errorf("scheme %q is not http, https, h2c or unix", at.Scheme)
	}
	if u.host == "" {
		return errors.New("names no host")
	}
	if base != "" && base != "/" {
		if why := ambiguousPath(base, false); why != "" {
			return errors.New(why)
		}
	}
	u.base = strings.TrimSuffix(base, "/")
	u.transport.main = u.newTransport(dial, protocols)
	u.transport.upgrade = u.transport.main
	if at.Scheme == "h2c" { // servers of h2c speak HTTP/1.1 too, and WebSockets need it
		http1 := new(http.Protocols)
		http1.SetHTTP1(true)
		u.transport.upgrade = u.newTransport(dial, http1)
	}
	return nil
}

// newTransport makes a transport without the surprises of the default one: no proxy from the environment, no gzip of its own, no dialling under load,
// no header without bound. Certificates are verified against the name in the configuration, which is the SNI too, whatever Host a client sends. It follows no redirect.
func (u *upstream) newTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error), protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		DialContext:            dial,
		Protocols:              protocols,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsHandshakeTimeout,
		ResponseHeaderTimeout:  u.o.HeaderTimeout,
		ExpectContinueTimeout:  continueTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
}

// close gives idle connections back.
func (u *upstream) close() {
	u.transport.main.CloseIdleConnections()
	u.transport.upgrade.CloseIdleConnections()
}

// transports carry requests, and WebSocket handshakes by HTTP/1.1.
type transports struct {
	main, upgrade *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if len(r.Header["Upgrade"]) > 0 {
		return t.upgrade.RoundTrip(r)
	}
	return t.main.RoundTrip(r)
}

// buffers is a pool for copying bodies.
type buffers struct {
	pool sync.Pool
}

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return p[:]
	}
	return make([]byte, copyBuffer)
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(p []byte) {
	if len(p) == copyBuffer {
		b.pool.Put((*[copyBuffer]byte)(p))
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

// errUnaskedSwitch is an application that answers 101 to what was no WebSocket handshake.
var errUnaskedSwitch = errors.New("application switched to a protocol that was not asked for")

// answerFailure answers for an application that did not.
func answerFailure(_ http.ResponseWriter, out *http.Request, err error) {
	l := legOf(out)
	if l.hijacked { // a client that left between handshake and answer
		l.u.o.Log.DebugContext(l, "websocket not opened", "error", err)
		return
	}
	l.u.o.Fail(l.w, l.in, l.classify(err))
}

// classify tells whose fault it was.
func (l *leg) classify(err error) failure {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	if errors.Is(err, errSessionOver) || context.Cause(l) == errSessionOver {
		return failure{http.StatusUnauthorized, "session_over", nil}
	}
	if cause := l.upload.failure(); cause != nil {
		switch {
		case errors.As(cause, &tooLarge):
			return failure{http.StatusRequestEntityTooLarge, "body_too_large", cause}
		case errors.As(cause, &timeout) && timeout.Timeout():
			return failure{http.StatusRequestTimeout, "client_too_slow", cause}
		}
		return failure{statusClientClosed, "client_left", cause}
	}
	var notFound *net.DNSError
	switch {
	case errors.Is(l.Err(), context.Canceled):
		return failure{statusClientClosed, "client_left", err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure{http.StatusGatewayTimeout, "upstream_timeout", err}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return failure{http.StatusBadGateway, "upstream_refused", err}
	case errors.As(err, &notFound):
		return failure{http.StatusBadGateway, "upstream_unknown_host", err}
	case isTLSError(err):
		return failure{http.StatusBadGateway, "upstream_tls", err}
	case errors.Is(err, errUnaskedSwitch):
		return failure{http.StatusBadGateway, "upstream_switched_protocol", err}
	}
	return failure{http.StatusBadGateway, "upstream_broken", err}
}

func isTLSError(err error) bool {
	var (
		unverified *tls.CertificateVerificationError
		notTLS     tls.RecordHeaderError
		alert      tls.AlertError
		authority  x509.UnknownAuthorityError
	)
	return errors.As(err, &unverified) || errors.As(err, &notTLS) || errors.As(err, &alert) || errors.As(err, &authority)
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

// upload is a request's body. It remembers whether reading it failed: that is the client's fault, not the application's.
type upload struct {
	body io.ReadCloser
	tied *tether // whoever uploads for hours is not idle

	mu     sync.Mutex // the transport reads in its own goroutine
	closed bool
	err    error
}

// Read implements io.Reader.
func (b *upload) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if n > 0 {
		b.tied.used()
	}
	if err != nil && err != io.EOF {
		b.mu.Lock()
		if !b.closed && b.err == nil {
			b.err = err
		}
		b.mu.Unlock()
	}
	return n, err
}

// Close implements io.Closer. The transport closes the body of a request that failed; reading errors after that mean nothing.
func (b *upload) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.body.Close()
}

func (b *upload) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
