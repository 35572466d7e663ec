package wire

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"syscall"
	"time"
)

// bufferSize is how much is read ahead. It is also how long the trailers of an answer may be, in net/http as here.
const bufferSize = 4 << 10

// conn is a connection to the server. One exchange at a time uses it, or the pool holds it.
type conn struct {
	net.Conn
	in   *bufio.Reader // of the conn itself, which counts
	left int64         // how much may be read yet
	late bool          // the time limit for the header ran out

	raw       syscall.RawConn // nil where the connection is no socket
	idleSince time.Time

	// Kept, so that they are not made anew for each exchange.
	close func()
	peek  func(fd uintptr) bool
	quiet bool // what peek found
}

func newConn(nc net.Conn) *conn {
	c := &conn{Conn: nc}
	c.in = bufio.NewReaderSize(c, bufferSize)
	c.close = func() { _ = nc.Close() }
	c.peek = func(fd uintptr) bool {
		c.quiet = nothingToRead(fd)
		return true
	}
	if s, ok := nc.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn() // an error: nil, which is never used again
	}
	return c
}

// usable tells whether the server has neither closed an idle connection nor sent anything on it. What comes without having been asked
// for is no answer to whoever asks next (response splitting ends here).
func (c *conn) usable() bool {
	c.quiet = false
	return c.raw != nil && c.in.Buffered() == 0 && c.raw.Read(c.peek) == nil && c.quiet
}

// Read implements io.Reader for in.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errHeaderTooLong
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	c.late = errors.Is(err, os.ErrDeadlineExceeded)
	return n, err
}

var errHeaderTooLong = errors.New("the response header is too long")

// unanswered is why a connection ended before the first byte of an answer.
type unanswered struct {
	error
	sent bool // the server may have seen something of the request
}

// Unwrap gives the cause.
func (e unanswered) Unwrap() error { return e.error }

// ask sends a request and reads answers up to the final one's header. keep tells whether the connection can carry another request after it.
func (t *Transport) ask(c *conn, r *http.Request, request []byte, trace *httptrace.ClientTrace) (res *http.Response, keep bool, err error) {
	if t.HeaderTimeout > 0 {
		if err := c.SetDeadline(time.Now().Add(t.HeaderTimeout)); err != nil {
			return nil, false, unanswered{err, false}
		}
	}
	n, sendErr := c.Write(request)
	if sendErr != nil && n == 0 {
		return nil, false, noAnswer(sendErr, false)
	}
	c.left = t.MaxHeader
	if _, err := c.in.Peek(1); err != nil {
		return nil, false, noAnswer(err, true)
	}
	if trace != nil && trace.GotFirstResponseByte != nil {
		trace.GotFirstResponseByte()
	}
	for {
		res, err = http.ReadResponse(c.in, r)
		if err != nil {
			switch { // whatever the cut header looked like
			case c.left <= 0:
				err = errHeaderTooLong
			case c.late:
				err = os.ErrDeadlineExceeded
			}
			return nil, false, fmt.Errorf("read the answer: %w", err)
		}
		if res.StatusCode < 100 || res.StatusCode > 199 || res.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if trace != nil && trace.Got1xxResponse != nil {
			if err := trace.Got1xxResponse(res.StatusCode, textproto.MIMEHeader(res.Header)); err != nil {
				return nil, false, err
			}
			c.left = t.MaxHeader // who looks at them bounds them, as with net/http; nobody else does better than bound all together
		}
	}
	c.left = math.MaxInt64
	if t.HeaderTimeout > 0 {
		if err := c.SetDeadline(time.Time{}); err != nil {
			return nil, false, err
		}
	}
	return res, sendErr == nil, nil
}

// noAnswer is the error of a connection that ended before any answer. Time that has run out is no reason to try again.
func noAnswer(err error, sent bool) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("await the answer: %w", err)
	}
	return unanswered{fmt.Errorf("connection ended without an answer: %w", err), sent}
}
