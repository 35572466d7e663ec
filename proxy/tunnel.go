package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
)

// tunnel is a WebSocket after its handshake. Thousands are open at a time, and silent most of it. So a tunnel outlives the handler of its request, which
// leaves nothing of the server's buffers and of a deep stack behind: it is two goroutines, and has a buffer only while something is in it.
type tunnel struct {
	client              *socket
	app                 io.ReadWriteCloser
	fromClient, fromApp *source
	free                func()       // gives back what the request held
	over                func()       // called at the end
	open                atomic.Int32 // directions
}

// errSwitched tells the reverse proxy that there is no answer left to write.
var errSwitched = errors.New("switched to a WebSocket")

// switchProtocols passes on what the application answered to a WebSocket handshake, and takes the connections of both sides over from net/http. Its
// error is errSwitched when l.tunnel is what the request has become.
func (l *leg) switchProtocols(res *http.Response) error {
	app, ok := res.Body.(io.ReadWriteCloser) // so net/http gives a connection away, if the answer says in both headers what it is to be
	if !ok {
		return errUnaskedSwitch
	}
	conn, in, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		return fmt.Errorf("take over the connection of a WebSocket: %w", err)
	}
	l.hijacked = true
	if x := exchangeOf(l.w); x != nil {
		x.status, x.answered = http.StatusSwitchingProtocols, x.now()
	}
	c := &socket{Conn: conn, streams: l.u.o.Streams}
	c.streams.add(c)
	if err := l.admit(c, res, in.Writer); err != nil {
		_ = c.Close()
		_ = app.Close()
		return err
	}
	buffers := l.u.proxy.BufferPool
	tied, to, at := l.tied, &l.u.to, l.at
	l.tunnel = &tunnel{
		client: c, fromClient: newSource(conn, conn, in.Reader, buffers),
		app: app, fromApp: newSource(app, l.conn, nil, buffers),
		free: func() { tied.untie(); to.release(at) },
	}
	res.Body = http.NoBody // the reverse proxy closes it
	return errSwitched
}

// admit ties a WebSocket to its session and answers its handshake.
func (l *leg) admit(c *socket, res *http.Response, out *bufio.Writer) error {
	if l.tied != nil {
		l.tied.tie()
		c.used = l.tied.used
		if err := l.tied.becomes(c); err != nil {
			return err
		}
	}
	if l.Err() != nil {
		return context.Cause(l)
	}
	h := l.w.Header()
	for name, values := range res.Header {
		h[name] = append(h[name], values...)
	}
	answer := *res
	answer.Header, answer.Body = h, nil
	if err := answer.Write(out); err != nil {
		return fmt.Errorf("answer the handshake of a WebSocket: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("answer the handshake of a WebSocket: %w", err)
	}
	c.open()
	return nil
}

// run carries until both directions have ended, and calls over then. It returns at once; a side that is closed, by whomever, ends it.
func (t *tunnel) run(over func()) {
	t.over = over
	t.open.Store(2)
	go t.toApp()
	go t.toClient()
}

// toApp carries what the client sends. A client that has said all may still be told something.
func (t *tunnel) toApp() {
	err := t.fromClient.each(func(p []byte) error {
		t.client.received(p)
		_, err := t.app.Write(p)
		return err
	})
	half, ok := t.app.(interface{ CloseWrite() error })
	t.ended(err == nil && ok && half.CloseWrite() == nil)
}

// toClient carries what the application sends. Its end is the end.
func (t *tunnel) toClient() {
	_ = t.fromApp.each(func(p []byte) error { // whichever side broke off: there is nobody to tell
		_, err := t.client.Write(p)
		return err
	})
	t.ended(false)
}

// ended takes note that one direction has ended; half tells that the other one goes on.
func (t *tunnel) ended(half bool) {
	last := t.open.Add(-1) == 0
	if !half || last {
		_ = t.client.Close()
		_ = t.app.Close()
	}
	if last {
		t.free()
		t.over()
	}
}
