package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"postern/proxy/wire"
)

// The time limits towards applications. None bounds a body: uploads, downloads and streams take as long as they move.
const (
	dialTimeout         = 5 * time.Second
	tlsHandshakeTimeout = 10 * time.Second
	// headerTimeout is how long an application may think between the end of the request and the beginning of its answer: longer than
	// long polls (usually 30 to 60 s), shorter than anyone waits for a page. Event streams answer at once and then take their time.
	headerTimeout = 2 * time.Minute
	// idleTimeout is how long an unused connection is kept. One that the application closes earlier is noticed before it is used again.
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

// dialFunc opens connections.
type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// unconnected is why no connection to an address came about. Nothing of the request was sent.
type unconnected struct{ error }

// Unwrap gives the cause.
func (e unconnected) Unwrap() error { return e.error }

// address is one place where an application listens.
type address struct {
	name         string // as the configuration writes it, for the log
	scheme, host string // for the transport
	base         string // put before each path; without a slash at its end
	transport    transports
	health       health // guarded by the balancer's mutex
}

// newAddress reads an address, and makes the transports to it or takes those of another route. It does not connect yet.
func newAddress(o *upstreamOptions, at *url.URL) (*address, error) {
	if at.User != nil || at.RawQuery != "" || at.ForceQuery || at.Fragment != "" || at.Opaque != "" {
		return nil, errors.New("has more than an address and a path")
	}
	a := &address{name: at.String(), scheme: at.Scheme, host: at.Host}
	base := at.EscapedPath()
	to := destination{scheme: at.Scheme, host: at.Host, headerTimeout: o.HeaderTimeout}
	switch at.Scheme {
	case "http", "https":
	case "h2c":
		a.scheme = "http"
	case "unix":
		if at.Host != "" {
			return nil, errors.New("has a host; write unix:/path")
		}
		socket, rest, _ := strings.Cut(at.Path, ":/")
		if socket == "" || socket == "/" {
			return nil, errors.New("names no socket")
		}
		a.scheme, a.host, base = "http", "localhost", rest
		if base != "" {
			base = "/" + base
		}
		to.socket = socket
	default:
		return nil, fmt.Errorf("scheme %q is not http, https, h2c, unix or file", at.Scheme)
	}
	if a.host == "" {
		return nil, errors.New("names no host")
	}
	if base != "" && base != "/" {
		if why := ambiguousPath(base, false); why != "" {
			return nil, errors.New(why)
		}
	}
	a.base = strings.TrimSuffix(base, "/")
	if o.Shared == nil || o.TLS != nil {
		a.transport = newTransports(to, o.TLS)
		return a, nil
	}
	if _, ok := o.Shared[to]; !ok {
		o.Shared[to] = newTransports(to, nil)
	}
	a.transport = o.Shared[to]
	return a, nil
}

// destination is what addresses of several routes have in common that share their connections.
type destination struct {
	scheme, host  string // as the configuration writes them
	socket        string // of scheme unix
	headerTimeout time.Duration
}

// newTransports makes the transports to a destination. moreTLS says more about https than the defaults; nil: nothing.
func newTransports(to destination, moreTLS func() (*tls.Config, error)) (t transports) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	dial := dialer.DialContext
	http1, protocols := new(http.Protocols), new(http.Protocols)
	http1.SetHTTP1(true)
	switch to.scheme {
	case "https":
		protocols.SetHTTP1(true)
		protocols.SetHTTP2(true)
	case "h2c":
		protocols.SetUnencryptedHTTP2(true)
	case "unix":
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", to.socket)
		}
		protocols.SetHTTP1(true)
	default:
		protocols.SetHTTP1(true)
	}
	at := url.URL{Host: to.host}
	transport := func(protocols *http.Protocols) *http.Transport {
		return newTransport(to.headerTimeout, moreTLS, dial, at.Hostname(), protocols)
	}
	standard := transport(protocols)
	t.main, t.upgrade = standard, standard
	if to.scheme != "https" && protocols.HTTP1() && isASCII(to.host) { // net/http encodes other names
		t.main = newPlainTransport(standard, net.JoinHostPort(at.Hostname(), cmp.Or(at.Port(), "80")))
	}
	if protocols.HTTP2() || protocols.UnencryptedHTTP2() { // such servers speak HTTP/1.1 too, and WebSockets need it
		t.upgrade = transport(http1)
	}
	return t
}

// newTransport makes a transport without the surprises of the default one: no proxy from the environment, no gzip of its own, no dialling under load,
// no header without bound. It follows no redirect.
func newTransport(headerTimeout time.Duration, moreTLS func() (*tls.Config, error), dial dialFunc, host string, protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, unconnected{err}
			}
			return conn, nil
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialTLS(ctx, moreTLS, dial, addr, host, protocols)
			if err != nil {
				return nil, unconnected{err}
			}
			return conn, nil
		},
		Protocols:              protocols,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  continueTimeout,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// newPlainTransport makes the one for applications without TLS, which carries requests without a body at less cost than the standard one beside it.
func newPlainTransport(standard *http.Transport, addr string) *wire.Transport {
	return &wire.Transport{
		Dial:          func(ctx context.Context) (net.Conn, error) { return standard.DialContext(ctx, "tcp", addr) },
		Other:         standard,
		HeaderTimeout: standard.ResponseHeaderTimeout,
		IdleTimeout:   standard.IdleConnTimeout,
		MaxIdle:       standard.MaxIdleConnsPerHost,
		MaxHeader:     standard.MaxResponseHeaderBytes,
	}
}

// dialTLS opens a connection whose certificate is verified against the name in the configuration, which is the SNI too, whatever Host a
// client sends. What the files of upstream_tls hold counts as it is now.
func dialTLS(ctx context.Context, moreTLS func() (*tls.Config, error), dial dialFunc, addr, host string, protocols *http.Protocols) (net.Conn, error) {
	config := &tls.Config{}
	if moreTLS != nil {
		var err error
		if config, err = moreTLS(); err != nil {
			return nil, err
		}
	}
	config.MinVersion = tls.VersionTLS12
	config.ServerName = cmp.Or(config.ServerName, host)
	config.NextProtos = []string{"http/1.1"}
	if protocols.HTTP2() {
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tlsHandshakeTimeout)
	defer cancel()
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return secured, nil
}

// transports carry requests, and WebSocket handshakes by HTTP/1.1.
type transports struct {
	main interface {
		http.RoundTripper
		CloseIdleConnections()
	}
	upgrade *http.Transport
}

func (t *transports) roundTrip(r *http.Request) (*http.Response, error) {
	if len(r.Header["Upgrade"]) > 0 {
		return t.upgrade.RoundTrip(r)
	}
	return t.main.RoundTrip(r)
}

// close gives idle connections back.
func (t *transports) close() {
	t.main.CloseIdleConnections()
	t.upgrade.CloseIdleConnections()
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
