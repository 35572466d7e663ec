package proxy

import (
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
