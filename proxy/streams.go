package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"postern/proxy/metrics"
)

// streams knows the open WebSockets and the long responses, so that shutting down can end them in good order. What ties each of them to its
// session is tether.go.
type streams struct {
	metrics *metrics.Metrics

	mu       sync.Mutex
	open     map[stream]struct{}
	draining bool
	empty    chan struct{} // closed once nothing is open; made by drain
}

// stream is an open WebSocket or a response under way. Its methods may be called at any time, by anyone, more than once.
type stream interface {
	end(why farewell) // the polite way; returns soon
	endless() bool    // it would not end by itself
	io.Closer         // the sure way
}

// farewell is why a stream is ended, as a WebSocket's close frame says it (RFC 6455 section 7.4).
type farewell struct {
	code uint16
	text string // for people, at most 123 bytes; never a secret
}

// goingAway ends a stream at shutdown. Never written to.
var goingAway = farewell{code: 1001}

// frame is the close frame, unmasked as servers send it.
func (w farewell) frame() []byte {
	b := []byte{0x88, byte(2 + len(w.text)), byte(w.code >> 8), byte(w.code)}
	return append(b, w.text...)
}

func newStreams(m *metrics.Metrics) *streams {
	return &streams{metrics: m, open: map[stream]struct{}{}}
}

// add registers a stream. One that comes while draining is ended at once: the client goes elsewhere.
func (s *streams) add(st stream) {
	s.mu.Lock()
	s.open[st] = struct{}{}
	late := s.draining && st.endless()
	s.mu.Unlock()
	s.metrics.StreamOpened()
	if late {
		go st.end(goingAway)
	}
}

func (s *streams) remove(st stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.open[st]; ok {
		delete(s.open, st)
		s.metrics.StreamClosed()
	}
	if s.draining && len(s.open) == 0 {
		s.tellEmpty()
	}
}

// tellEmpty wakes drain. The caller holds mu.
func (s *streams) tellEmpty() {
	if !closed(s.empty) {
		close(s.empty)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *streams) has(st stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.open[st]
	return ok
}

// drain ends every stream within ctx's time and returns when none is open.
//
// WebSockets and event streams, which would never end by themselves, are ended evenly over the time, so that clients do not all
// reconnect elsewhere in the same moment. Other responses may finish; what has not by the last moment is cut, and when ctx ends
// whatever is left is closed.
func (s *streams) drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	if s.empty == nil || len(s.open) > 0 && closed(s.empty) { // it was empty before
		s.empty = make(chan struct{})
	}
	empty := s.empty
	if len(s.open) == 0 {
		s.tellEmpty()
	}
	var endless []stream
	for st := range s.open {
		if st.endless() {
			endless = append(endless, st)
		}
	}
	s.mu.Unlock()

	start := time.Now()
	var span time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		span = deadline.Sub(start)
		span -= min(2*closeGrace, span/4) // for the last ones to close
	}
	for i, st := range endless {
		if !s.has(st) {
			continue
		}
		if !wait(ctx, empty, start.Add(span*time.Duration(i)/time.Duration(len(endless)))) {
			break
		}
		go st.end(goingAway)
	}
	if wait(ctx, empty, start.Add(span)) {
		s.each(func(st stream) { st.end(goingAway) })
		wait(ctx, empty, start.Add(span+time.Hour)) // in truth until ctx ends
	}
	s.each(func(st stream) { _ = st.Close() })
}

// each calls f for every open stream, concurrently: ending one must not wait for another's slow client.
func (s *streams) each(f func(stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		go f(st)
	}
}

// wait sleeps until t. It returns false at once when ctx ends or no stream is open any more.
func wait(ctx context.Context, empty <-chan struct{}, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-empty:
	case <-ctx.Done():
	}
	return false
}

// errCut is why a response ended early: at shutdown, or with its session. The client sees a broken connection, so that it cannot take the
// part for the whole.
var errCut = errors.New("response cut")

// longBody is the body of a response of unknown length.
type longBody struct {
	io.ReadCloser
	streams *streams
	events  bool // text/event-stream: it may end anywhere, clients reconnect
	ended   atomic.Bool
}

// Read reads on until the body is over or ended.
func (b *longBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ended.Load() {
		if b.events {
			return n, io.EOF
		}
		return n, errCut
	}
	return n, err
}

// Close is called by the reverse proxy in every case.
func (b *longBody) Close() error {
	b.streams.remove(b)
	return b.ReadCloser.Close()
}

func (b *longBody) endless() bool { return b.events }

func (b *longBody) end(farewell) {
	b.ended.Store(true)
	_ = b.ReadCloser.Close() // wakes Read
}

// closeGrace is how long a client may take to answer a close frame, and an application to end its side.
const closeGrace = time.Second

// socket is a client's side of a WebSocket. It passes bytes through and only watches where the frames to the client end, since
// that is where a close frame of ours can stand, and whether the client sends any data.
type socket struct {
	net.Conn
	streams *streams
	used    func() // told of data from the client; nil tells nobody
	sent    frames // by the client; guarded by nothing, since there is one reader

	mu     sync.Mutex // guards writes to Conn and what follows
	frames frames
	opened bool     // the handshake is answered: frames follow
	ending bool     // the next frame boundary is the end
	why    farewell // with ending
	ended  bool     // nothing more goes to the client

	endOnce, closeOnce sync.Once
}

// open takes note that the handshake is answered: from now on there are frames. A close frame before that would be garbage to the client.
func (c *socket) open() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = true
	if c.ending {
		c.sayGoodbye()
	}
}

// received takes note of what the client has sent.
func (c *socket) received(p []byte) {
	if c.used == nil {
		return
	}
	c.sent.data = false
	c.sent.skip(p)
	if c.sent.data {
		c.used()
	}
}

// Write writes to the client. After the close frame what the application still says is dropped.
func (c *socket) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return len(p), nil
	}
	own := len(p)
	if c.ending {
		own = c.frames.next(p)
	} else {
		c.frames.skip(p)
	}
	if n, err := c.Conn.Write(p[:own]); err != nil {
		return n, err
	}
	if c.ending && c.frames.boundary() {
		c.sayGoodbye()
	}
	return len(p), nil
}

// end asks the client to go away. Its answer still reaches the application, which then ends its side; after the grace both are closed.
func (c *socket) end(why farewell) {
	c.endOnce.Do(func() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(closeGrace)) // a Write that hangs on a slow client lets go of mu
		time.AfterFunc(closeGrace, func() { _ = c.Close() })
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ending, c.why = true, why
		if c.opened && c.frames.boundary() {
			c.sayGoodbye()
		}
	})
}

// sayGoodbye writes the close frame, unless the application has sent one. The caller holds mu.
func (c *socket) sayGoodbye() {
	c.ended = true
	if !c.frames.closed {
		_, _ = c.Conn.Write(c.why.frame()) // a client that left needs no goodbye
	}
}

// Close closes the client's side; the tunnel then closes the application's.
func (c *socket) Close() error {
	err := net.ErrClosed
	c.closeOnce.Do(func() {
		c.streams.remove(c)
		err = c.Conn.Close()
	})
	return err
}

func (c *socket) endless() bool { return true }

// frames finds where WebSocket frames end in a stream of bytes (RFC 6455 section 5.2).
type frames struct {
	header [14]byte
	got    int    // bytes of the current frame's header
	left   uint64 // bytes of its payload still to come, once the header is complete
	closed bool   // a close frame has begun
	isData bool   // the current frame is text, binary or a continuation of either, not a control frame
	data   bool   // some of a data frame has come; for the caller to reset
}

// boundary tells whether the last frame is complete.
func (f *frames) boundary() bool { return f.got == 0 && f.left == 0 }

// skip takes note of p.
func (f *frames) skip(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// next takes note of p up to the end of the frame that has begun, and returns how many bytes that were. At a boundary, none has begun: next takes
// the whole of the next frame.
func (f *frames) next(p []byte) (n int) {
	for n < len(p) {
		if f.left > 0 {
			k := min(f.left, uint64(len(p)-n))
			f.left -= k
			n += int(k)
			f.data = f.data || f.isData
		} else {
			f.header[f.got] = p[n]
			f.got++
			n++
			if f.got < f.headerSize() {
				continue
			}
			f.begin()
		}
		if f.left == 0 {
			f.got = 0
			return n
		}
	}
	return n
}

// headerSize is the size of the header as far as it is known by now.
func (f *frames) headerSize() int {
	if f.got < 2 {
		return 2
	}
	size := 2
	switch f.header[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.header[1]&0x80 != 0 { // a mask; servers must not, but then it is the client's to complain
		size += 4
	}
	return size
}

// begin reads the complete header.
func (f *frames) begin() {
	opcode := f.header[0] & 0x0f
	f.closed = f.closed || opcode == 0x8
	f.isData = opcode <= 0x2
	f.data = f.data || f.isData
	length := f.header[1] & 0x7f
	extra := 0
	switch length {
	case 126:
		extra = 2
	case 127:
		extra = 8
	}
	f.left = uint64(length)
	if extra > 0 {
		f.left = 0
		for _, b := range f.header[2 : 2+extra] {
			f.left = f.left<<8 | uint64(b)
		}
	}
}
