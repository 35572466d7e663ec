package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http/httputil"
	"syscall"
	"time"
)

// ownBuffer is the size of the buffer of a side that cannot be waited for without one.
const ownBuffer = 4 << 10

// source is one side of a tunnel as it is read. A plain socket gets a buffer when something has come, and not before. Any other connection, one with TLS
// above all, has a small one of its own.
type source struct {
	from    io.Reader
	early   []byte          // came with the handshake
	socket  syscall.RawConn // under from; nil: it is no plain socket
	buffers httputil.BufferPool

	// What has come last.
	buffer []byte
	n      int
	err    error

	try func(fd uintptr) (done bool) // tryRead, made once
}

// newSource reads from, where conn follows what net/http has read of it already. That lies in ahead, or in from where ahead is nil. A nil conn is one
// that nobody knows.
func newSource(from io.Reader, conn net.Conn, ahead *bufio.Reader, buffers httputil.BufferPool) *source {
	s := &source{from: from, socket: plainSocket(conn), buffers: buffers}
	s.try = s.tryRead
	switch {
	case ahead != nil:
		s.early = make([]byte, ahead.Buffered())
		_, _ = io.ReadFull(ahead, s.early) // it has them
	case s.socket != nil:
		s.takeAhead(conn)
	}
	if s.socket == nil {
		s.buffer = make([]byte, ownBuffer)
	}
	return s
}

// takeAhead reads what is left in from before conn follows. That comes at once, while conn itself lets nothing through.
func (s *source) takeAhead(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	p := s.buffers.Get()
	for {
		n, err := s.from.Read(p)
		s.early = append(s.early, p[:n]...)
		if err != nil {
			break
		}
	}
	s.buffers.Put(p)
	_ = conn.SetReadDeadline(time.Time{})
}

// each calls f with all that comes, piece by piece, until the end. A piece is f's only during the call. The error is f's, or why there was no good end.
func (s *source) each(f func(p []byte) error) error {
	for {
		p, err := s.next()
		if len(p) > 0 {
			if err := f(p); err != nil {
				s.release()
				return err
			}
		}
		s.release()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// next waits for something to come. It is good until release.
func (s *source) next() ([]byte, error) {
	if p := s.early; len(p) > 0 {
		s.early = nil
		return p, nil
	}
	if s.socket == nil {
		n, err := s.from.Read(s.buffer)
		return s.buffer[:n], err
	}
	if err := s.socket.Read(s.try); err != nil {
		return nil, err
	}
	return s.buffer[:s.n], s.err
}

// tryRead reads what has come, or reports false if there is nothing.
func (s *source) tryRead(fd uintptr) (done bool) {
	s.buffer = s.buffers.Get()
	s.n, s.err = readNow(fd, s.buffer)
	if s.err == syscall.EAGAIN {
		s.release()
		return false
	}
	return true
}

// release gives the buffer back.
func (s *source) release() {
	if s.socket != nil && s.buffer != nil {
		s.buffers.Put(s.buffer)
		s.buffer = nil
	}
}
