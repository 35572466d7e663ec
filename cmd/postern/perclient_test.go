package main

import (
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// dialed is a new connection to a listener.
func dialed(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestOneClientHasSoManyConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := limitPerClient(inner, func() connectionLimits { return connectionLimits{perClient: 2} }, nil)
	in := make(chan net.Conn)
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				close(in)
				return
			}
			in <- conn
		}
	}()
	dialed(t, l)
	first := <-in
	dialed(t, l)
	second := <-in
	if _, err := second.(syscall.Conn).SyscallConn(); err != nil {
		t.Errorf("a counted connection is no plain socket to those who wait on it: %v", err)
	}
	third := dialed(t, l)
	if _, err := third.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the third connection: %v, want it closed", err)
	}
	first.Close()
	first.Close() // counts once
	dialed(t, l)
	again := <-in
	fourth := dialed(t, l)
	if _, err := fourth.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("one more: %v, want it closed", err)
	}
	second.Close()
	again.Close()
	if n := len(l.(*perClient).open); n != 0 {
		t.Errorf("%d clients are remembered without a connection", n)
	}
}

func TestTrustedProxiesHaveAnyNumberOfConnections(t *testing.T) {
	l := connectionLimits{exempt: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for from, want := range map[string]string{
		"10.1.2.3:4": "", "192.0.2.1:5": "192.0.2.1", "[2001:db8::1:2]:3": "2001:db8::", "[::ffff:192.0.2.1]:3": "192.0.2.1", "[::ffff:10.0.0.1]:3": "",
	} {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		client, counted := l.client(fromAddr{addr: addr})
		if counted != (want != "") || counted && client.String() != want {
			t.Errorf("%s counts as %v (%v), want %q", from, client, counted, want)
		}
	}
}

type fromAddr struct {
	net.Conn
	addr net.Addr
}

func (c fromAddr) RemoteAddr() net.Addr { return c.addr }
