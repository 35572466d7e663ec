package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// minDial is the least that a new connection may take. A command does not wait for it longer than its own limit, but the connection
// that came too late for it serves the next one: else a slow handshake would never succeed.
const minDial = time.Second

// dialer makes the connections to one server.
type dialer struct {
	tls *tls.Config // nil: plaintext
	// breaks counts the connections that broke in use.
	breaks *atomic.Int64
}

// noDial is the key of a context under which nothing is dialed.
type noDial struct{}

// withoutDial is ctx for calls that must fail when their connection is gone, where go-redis would make another behind our back.
func withoutDial(ctx context.Context) context.Context {
	return context.WithValue(ctx, noDial{}, true)
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(noDial{}) != nil {
		return nil, errors.New("connection is gone")
	}
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, raw: raw, breaks: d.breaks}
	c.proven.Store(d.breaks.Load())
	if d.tls != nil {
		host, _, _ := net.SplitHostPort(address)
		secure := tls.Client(raw, harden(d.tls, host))
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS handshake with redis: %w", err)
		}
		c.Conn = secure
	}
	return c, nil
}

// conn is a connection that helps the pool to tell whether it is still alive. Before go-redis uses a pooled connection it peeks at
// the socket through SyscallConn. It cannot do so through TLS; here it can. And a connection that was last heard of before another
// one broke is reported dead: when Redis or something between went away without a word, no request has to find out for each pooled
// connection in turn.
type conn struct {
	net.Conn
	raw    net.Conn
	breaks *atomic.Int64 // of all connections to the server
	proven atomic.Int64  // breaks, when this one was last heard of
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.learn(n, err)
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.learn(0, err)
	return n, err
}

func (c *conn) learn(n int, err error) {
	if n > 0 {
		c.proven.Store(c.breaks.Load())
	}
	if isBroken(err) {
		c.breaks.Add(1)
	}
}

// SyscallConn implements [syscall.Conn] for the health check of the pool.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if c.proven.Load() != c.breaks.Load() {
		return nil, errors.New("another connection broke since this one was heard of")
	}
	sys, ok := c.raw.(syscall.Conn)
	if !ok {
		return nil, errors.New("connection has no socket")
	}
	return sys.SyscallConn()
}
