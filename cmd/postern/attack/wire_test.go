//go:build attack

package attack_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
)

// wire is a connection to Postern that carries bytes.
type wire struct {
	net.Conn
	t  testing.TB
	w  *world
	in *bufio.Reader
}

// answer is what came back.
type answer struct {
	status int
	proto  string
	closes bool // the connection ends with it
	header http.Header
	body   string
	raw    string // head and body as they came, where a wire got them
}

// dial opens a connection to the public listener.
func (w *world) dial() *wire {
	w.t.Helper()
	conn, err := w.connect()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(proctest.Patience)); err != nil {
		w.t.Fatal(err)
	}
	rec := &recorder{Conn: conn}
	return &wire{Conn: rec, t: w.t, w: w, in: bufio.NewReader(rec)}
}

// send writes bytes. That Postern has closed the connection meanwhile is no failure: its answer tells.
func (c *wire) send(bytes string) *wire {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, bytes); err != nil {
		c.t.Logf("send: %v", err)
	}
	return c
}

// answer reads one answer to a request of a method; nil when the connection is closed without one.
func (c *wire) answer(method string) *answer {
	c.t.Helper()
	rec := c.Conn.(*recorder)
	begin := len(rec.seen) - c.in.Buffered()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Fatalf("no answer within %v", proctest.Patience)
		}
		return nil
	}
	a := &answer{status: resp.StatusCode, proto: resp.Proto, closes: resp.Close, header: resp.Header}
	if resp.StatusCode >= 200 {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			c.t.Logf("the answer breaks off: %v", err)
		}
		a.body = string(body)
		for name, values := range resp.Trailer {
			a.header[http.TrailerPrefix+name] = values
		}
		c.w.secrets.Page(a.body)
	}
	a.raw = string(rec.seen[begin : len(rec.seen)-c.in.Buffered()])
	c.w.secrets.AddCookies(a.header)
	return a
}

// closed waits for the end of the connection, and fails the test if something else comes.
func (c *wire) closed() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection stays open")
	}
	if len(rest) > 0 {
		c.t.Errorf("more comes: %q", rest)
	}
}

// ask sends the bytes of one request by a connection of its own and reads the answer, nil where there is none.
func (w *world) ask(bytes string) *answer {
	w.t.Helper()
	c := w.dial()
	defer c.Close()
	method, _, _ := strings.Cut(bytes, " ")
	return c.send(bytes).answer(method)
}

// request is a request for the public host, line by line.
func (w *world) request(line string, header ...string) string {
	all := append([]string{line + " HTTP/1.1", "Host: " + w.host}, header...)
	return strings.Join(all, "\r\n") + "\r\n\r\n"
}

// get is a request for a page as a program makes it.
func (w *world) get(target string, header ...string) string {
	return w.request("GET "+target, header...)
}
