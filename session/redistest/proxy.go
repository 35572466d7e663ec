package redistest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is the network before a server: it passes bytes on, and breaks as it is told. It ends with the test. All methods may be called
// by any number of goroutines.
type Proxy struct {
	listener net.Listener
	accepted atomic.Int64
	swallow  atomic.Int64

	mu      sync.Mutex
	target  string
	refuses bool
	closed  bool
	changed chan struct{} // closed and replaced when what follows changes
	in, out path
	open    map[net.Conn]bool
}

// path is one direction.
type path struct {
	stalled bool
	delay   time.Duration
}

// NewProxy listens on a free loopback port and connects each connection with target, a host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &Proxy{listener: l, target: target, changed: make(chan struct{}), open: map[net.Conn]bool{}}
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Address is the proxy's host:port.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Accepted is how many connections came so far, those that were refused included.
func (p *Proxy) Accepted() int { return int(p.accepted.Load()) }

// Open is how many connections are open now.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, fromClient := range p.open {
		if fromClient {
			n++
		}
	}
	return n
}

// Cut closes all connections. New ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		c.Close()
	}
}

// Refuse closes each new connection at once, or ends that. It leaves those that there are.
func (p *Proxy) Refuse(on bool) {
	p.change(func() { p.refuses = on })
}

// Stall holds bytes back without closing anything: in, those to the server; out, those from it. It holds for all connections, new ones
// included. Stall(false, false) lets everything go on, and what was held back arrives.
func (p *Proxy) Stall(in, out bool) {
	p.change(func() { p.in.stalled, p.out.stalled = in, out })
}

// Delay makes bytes in each direction wait that long.
func (p *Proxy) Delay(in, out time.Duration) {
	p.change(func() { p.in.delay, p.out.delay = in, out })
}

// Swallow loses the next n answers of the server, each with its connection: the server has done what it was asked.
func (p *Proxy) Swallow(n int) { p.swallow.Store(int64(n)) }

// Swallowing is how many answers are still to be lost.
func (p *Proxy) Swallowing() int { return int(max(p.swallow.Load(), 0)) }

// Heal ends Refuse, Stall, Delay and Swallow.
func (p *Proxy) Heal() {
	p.Swallow(0)
	p.change(func() { p.refuses, p.in, p.out = false, path{}, path{} })
}

// Redirect sends new connections to another target, a host:port, as a name does whose address changed. It leaves those that there are.
func (p *Proxy) Redirect(target string) {
	p.change(func() { p.target = target })
}

func (p *Proxy) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) close() {
	p.listener.Close()
	p.change(func() { p.closed = true })
	p.Cut()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		go p.serve(c)
	}
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target, refuses := p.target, p.refuses
	p.mu.Unlock()
	if refuses {
		return
	}
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, true) || !p.keep(server, false) {
		return
	}
	defer p.forget(client, server)
	go func() {
		p.copy(server, client, &p.in, false)
		client.Close()
		server.Close()
	}()
	p.copy(client, server, &p.out, true)
}

// keep remembers a connection, unless the proxy is closed.
func (p *Proxy) keep(c net.Conn, fromClient bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.open[c] = fromClient
	}
	return !p.closed
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.open, c)
	}
}

func (p *Proxy) copy(to io.Writer, from io.Reader, way *path, answers bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if answers && p.swallow.Load() > 0 && p.swallow.Add(-1) >= 0 {
				return
			}
			if !p.wait(way) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait holds bytes back as way says; false: the proxy is closed.
func (p *Proxy) wait(way *path) bool {
	p.mu.Lock()
	delay := way.delay
	p.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	for {
		p.mu.Lock()
		stalled, closed, changed := way.stalled, p.closed, p.changed
		p.mu.Unlock()
		if closed {
			return false
		}
		if !stalled {
			return true
		}
		<-changed
	}
}
