package main

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"postern/proxy/metrics"
)

// perClient is a listener that bounds how many connections one client has open at a time (server.max_connections_per_client). One too many is
// closed at once.
type perClient struct {
	net.Listener
	limits  func() connectionLimits // as they are now
	metrics *metrics.Metrics

	mu   sync.Mutex
	open map[netip.Addr]int
}

// connectionLimits are those of one configuration.
type connectionLimits struct {
	perClient int            // 0: none
	exempt    []netip.Prefix // trusted proxies: each stands for many clients
}

func limitPerClient(l net.Listener, limits func() connectionLimits, m *metrics.Metrics) net.Listener {
	return &perClient{Listener: l, limits: limits, metrics: m, open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *perClient) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		limits := l.limits()
		if limits.perClient == 0 {
			return conn, nil
		}
		client, counted := limits.client(conn)
		if !counted {
			return conn, nil
		}
		if l.take(client, limits.perClient) {
			return &clientConn{Conn: conn, left: sync.OnceFunc(func() { l.giveBack(client) })}, nil
		}
		l.metrics.Rejected("connections")
		_ = conn.Close() // whoever has too many is told nothing
	}
}

// client is whose connection it is: an IPv4 address, or the /64 of an IPv6 one, since a customer usually has a whole one.
func (l connectionLimits) client(conn net.Conn) (client netip.Addr, counted bool) {
	from, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}, false
	}
	addr := from.Addr().Unmap().WithZone("")
	if slices.ContainsFunc(l.exempt, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return netip.Addr{}, false
	}
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return addr, true
}

func (l *perClient) take(client netip.Addr, limit int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] >= limit {
		return false
	}
	l.open[client]++
	return true
}

func (l *perClient) giveBack(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

// clientConn is a connection that counts until it is closed.
type clientConn struct {
	net.Conn
	left func()
}

// Close implements io.Closer.
func (c *clientConn) Close() error {
	c.left()
	return c.Conn.Close()
}

// CloseWrite lets net/http end its side first, as it does on a *net.TCPConn, so that a last answer arrives.
func (c *clientConn) CloseWrite() error {
	if conn, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return nil
}

// SyscallConn gives what is under it: it passes bytes through as they are.
func (c *clientConn) SyscallConn() (syscall.RawConn, error) {
	conn, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return conn.SyscallConn()
}
