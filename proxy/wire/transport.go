// Package wire carries requests without a body to a server that speaks HTTP/1.1 in plain text: what most requests through a reverse proxy
// are. It exists because the http.Transport moves each of them through two goroutines of the connection, which costs more than the
// exchange itself: here the caller's goroutine writes the request and reads the answer.
//
// The rules are those of net/http: http.ReadResponse reads answers, requests are written byte for byte as http.Request.Write does, and every
// request that is out of the ordinary goes to the http.Transport beside this one, which also refuses what is invalid. What is of this
// package's own is the life of connections: how they are kept, found to be dead, and given up with their request. Tests hold both
// transports against each other over scripted servers.
//
// Where it differs, it is the stricter one: a connection is looked at before it is used again, and one on which anything came unasked is
// closed; a request is sent at most twice; the time limit for the header of an answer holds for sending the request, too.
//
// Start at Transport.RoundTrip.
package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

// Transport is an http.RoundTripper for the server at one address. Its fields are not changed once it is used.
//
// Of an httptrace.ClientTrace it calls GotConn, GotFirstResponseByte and Got1xxResponse, besides what Dial calls.
type Transport struct {
	// Dial connects to the server.
	Dial func(ctx context.Context) (net.Conn, error)
	// Other carries what this transport does not: see request.write.
	Other *http.Transport
	// HeaderTimeout bounds the time to the end of the header of the answer. Zero does not.
	HeaderTimeout time.Duration
	// IdleTimeout is how long an unused connection is kept.
	IdleTimeout time.Duration
	// MaxIdle is how many unused connections are kept.
	MaxIdle int
	// MaxHeader bounds the header of an answer, in bytes.
	MaxHeader int64

	mu       sync.Mutex
	idle     []*conn // the one that was used last at the end
	sweeping bool    // sweep is going to be called
	closing  bool    // CloseIdleConnections was called after the last request began
}

// RoundTrip implements http.RoundTripper.
//
// Flow: the request in one piece → a connection that was used before, or a new one → the request out, the answer's header in → the
// connection goes back when the body was read to its end, and is closed in every other case.
//
// As with net/http, a server that closes a connection just when it is used again is no failure: the request goes out on a new one if the server
// cannot have seen it, or if it changes nothing and no byte of an answer has come.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	q := requests.Get().(*request)
	defer q.free()
	if !canPeek || !q.write(r) {
		return t.Other.RoundTrip(r)
	}
	ctx := r.Context()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if c := t.take(); c != nil {
		res, err := t.exchange(c, r, q.bytes, true)
		if err == nil || !mayRepeat(r, err) {
			return res, err
		}
	}
	nc, err := t.Dial(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return t.exchange(newConn(nc), r, q.bytes, false)
}

// mayRepeat tells whether a request that failed on a connection used before may be sent on a new one, by the rules of net/http: nothing of
// an answer was read, and the server cannot have seen the request or may see it twice.
func mayRepeat(r *http.Request, err error) bool {
	var u unanswered
	if !errors.As(err, &u) {
		return false
	}
	if !u.sent {
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	_, one := r.Header["Idempotency-Key"]
	_, other := r.Header["X-Idempotency-Key"]
	return one || other
}

// exchange sends a request and returns its answer. It is the end of the connection when there is none.
func (t *Transport) exchange(c *conn, r *http.Request, request []byte, reused bool) (*http.Response, error) {
	ctx := r.Context()
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: reused, WasIdle: reused})
	}
	// Whoever gives the request up, even while its answer is read, ends the connection.
	detach := context.AfterFunc(ctx, c.close)
	res, keep, err := t.ask(c, r, request, trace)
	if err != nil {
		detach()
		c.close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	b := &body{ReadCloser: res.Body, ctx: ctx, detach: detach, conn: c}
	if keep && res.StatusCode >= 200 && !res.Close {
		b.keepIn = t
	}
	if res.Body == http.NoBody {
		b.release()
		return res, nil
	}
	res.Body = b
	return res, nil
}
