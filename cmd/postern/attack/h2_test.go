//go:build attack

package attack_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"postern/cmd/postern/proctest"
)

// h2 is an HTTP/2 connection to Postern that carries whatever frames a test wants.
type h2 struct {
	*http2.Framer
	t    testing.TB
	conn net.Conn
	text bytes.Buffer
	enc  *hpack.Encoder
}

// h2 opens a connection. The world speaks TLS.
func (w *world) h2() *h2 {
	w.t.Helper()
	config := w.roots.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", w.listen, config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(proctest.Patience)); err != nil {
		w.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		w.t.Fatal(err)
	}
	c := &h2{Framer: http2.NewFramer(conn, conn), t: w.t, conn: conn}
	c.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.text)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := errors.Join(c.WriteSettings(), c.WriteSettingsAck()); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// block encodes fields, in pairs of name and value.
func (c *h2) block(fields ...string) []byte {
	c.text.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		if err := c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			c.t.Fatal(err)
		}
	}
	return bytes.Clone(c.text.Bytes())
}

// ask sends a request on a stream, with a body where it is not empty. That the connection is cut meanwhile is no failure.
func (c *h2) ask(stream uint32, body string, fields ...string) {
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block(fields...), EndHeaders: true, EndStream: body == ""})
	if err == nil && body != "" {
		err = c.WriteData(stream, true, []byte(body))
	}
	if err != nil {
		c.t.Logf("stream %d: %v", stream, err)
	}
}

// outcome is the status of the answer on a stream, "reset", or "closed" where the connection ends before.
func (c *h2) outcome(stream uint32) string {
	c.t.Helper()
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				c.t.Fatalf("stream %d: no answer within %v", stream, proctest.Patience)
			}
			var reset http2.StreamError
			if errors.As(err, &reset) {
				return "reset"
			}
			return "closed"
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "reset"
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "closed"
			}
		}
	}
}

// fields are those of a request for a path.
func (w *world) fields(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "https", ":authority", w.host, ":path", path}, more...)
}
