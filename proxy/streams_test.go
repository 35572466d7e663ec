package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"postern/session"
)

// echoApplication echoes WebSocket messages and notes how each connection ends.
func echoApplication(t *testing.T) (address string, ends chan error) {
	t.Helper()
	ends = make(chan error, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-User") != "alice" || r.Header.Get("X_forwarded_user") != "" || r.Header.Get("Authorization") != "Bearer tok" || r.Header.Get("Cookie") != "a=1" {
			w.WriteHeader(http.StatusTeapot) // A132: a handshake goes through the same pipeline
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		c.SetReadLimit(-1)
		for {
			kind, message, err := c.Read(context.Background())
			if err == nil {
				err = c.Write(context.Background(), kind, message)
			}
			if err != nil {
				ends <- err
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, ends
}

func dialWebSocket(t *testing.T, f *front) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), f.URL+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{
		"X_Forwarded_User": {"root"}, "X-Forwarded-User": {"root"}, "Cookie": {"__Host-postern=secret; a=1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(-1)
	return c
}

func echo(t *testing.T, c *websocket.Conn, message []byte) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageBinary, message); err != nil {
		t.Fatal(err)
	}
	_, got, err := c.Read(t.Context())
	if err != nil || !bytes.Equal(got, message) {
		t.Fatalf("echo of %d bytes: %d bytes, %v", len(message), len(got), err)
	}
}

// openNow is how many streams are open.
func openNow(s *streams) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// waitForCount waits until n streams are open.
func waitForCount(t *testing.T, s *streams, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); openNow(s) != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are open, want %d", openNow(s), n)
		}
	}
}

func TestWebSocketEcho(t *testing.T) {
	address, ends := echoApplication(t)
	for _, scheme := range []string{"http", "h2c"} { // WebSockets to an h2c application go by HTTP/1.1
		f := newFront(t, strings.Replace(address, "http", scheme, 1), asAlice)
		c := dialWebSocket(t, f)
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
			echo(t, c, bytes.Repeat([]byte("x"), size))
		}
		waitForCount(t, f.streams, 1)
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
		if got := websocket.CloseStatus(<-ends); got != websocket.StatusNormalClosure {
			t.Errorf("the application sees %v", got)
		}
		waitForCount(t, f.streams, 0)
	}
}

func TestDrainEndsWebSocketsWith1001(t *testing.T) {
	address, ends := echoApplication(t)
	f := newFront(t, address, asAlice)
	const n = 4
	var conns []*websocket.Conn
	for range n {
		c := dialWebSocket(t, f)
		echo(t, c, []byte("hi"))
		conns = append(conns, c)
	}
	ended := make(chan time.Time, n)
	for _, c := range conns {
		go func() {
			_, _, err := c.Read(context.Background())
			if got := websocket.CloseStatus(err); got != websocket.StatusGoingAway {
				t.Errorf("the client sees %v", err)
			}
			ended <- time.Now()
		}()
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
	defer cancel()
	f.streams.drain(ctx)
	if openNow(f.streams) != 0 {
		t.Errorf("%d are left", openNow(f.streams))
	}
	var first, last time.Time
	for i := range n {
		at := <-ended
		if i == 0 {
			first = at
		}
		last = at
		// The client's answer reaches the application: it ends in good order, too.
		if got := websocket.CloseStatus(<-ends); got != websocket.StatusGoingAway {
			t.Errorf("the application sees %v", got)
		}
	}
	if first.Sub(start) > 600*time.Millisecond || last.Sub(first) < 300*time.Millisecond {
		t.Errorf("not spread: first after %v, last after %v", first.Sub(start), last.Sub(start))
	}
}

func TestLateWebSocketIsEndedAtOnce(t *testing.T) {
	address, _ := echoApplication(t)
	f := newFront(t, address, asAlice)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	f.streams.drain(ctx) // nothing is open: it returns at once
	c := dialWebSocket(t, f)
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Error(err)
	}
	waitForCount(t, f.streams, 0)
}

// A96, A98: only a WebSocket handshake is an upgrade.
func TestOtherUpgradesAreRemoved(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	const key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, raw := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n" + key + "\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + key + "\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n" + key + "\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n" + key + "\r\nhi",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n" + key + "\r\nhi",
		"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key + "\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
	} {
		say(t, f.URL, raw)
		got := app.request().Header
		if got["Upgrade"] != nil || got["Http2-Settings"] != nil || got["Connection"] != nil {
			t.Errorf("%q arrives with %v", raw, got)
		}
	}
}

func TestEventsAreFlushedAndEndCleanly(t *testing.T) {
	for _, tt := range []struct {
		kind  string
		clean bool
		time  time.Duration
	}{{"text/event-stream; charset=utf-8", true, time.Minute}, {"application/x-ndjson", false, time.Second}} {
		next := make(chan string)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", r.URL.Query().Get("type"))
			for {
				select {
				case s := <-next:
					_, _ = io.WriteString(w, s)
					http.NewResponseController(w).Flush()
				case <-r.Context().Done():
					return
				}
			}
		}))
		t.Cleanup(server.Close)
		f := newFront(t, server.URL, asAlice)
		go func() { next <- "data: 0\n\n" }()
		res, err := http.Get(f.URL + "/?type=" + url.QueryEscape(tt.kind))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		buf := make([]byte, 100)
		for i := range 3 { // each arrives before the next is sent
			if i > 0 {
				next <- "data: 0\n\n"
			}
			if n, err := res.Body.Read(buf); string(buf[:n]) != "data: 0\n\n" || err != nil {
				t.Fatalf("%s: got %q, %v", tt.kind, buf[:n], err)
			}
		}
		waitForCount(t, f.streams, 1)
		ctx, cancel := context.WithTimeout(t.Context(), tt.time)
		defer cancel()
		f.streams.drain(ctx)
		if ctx.Err() != nil {
			t.Errorf("%s is not ended before the time is over", tt.kind)
		}
		if _, err := io.ReadAll(res.Body); (err == nil) != tt.clean {
			t.Errorf("%s ends with %v", tt.kind, err)
		}
		waitForCount(t, f.streams, 0)
	}
}

// A response that ends by itself in time is not cut.
func TestDrainLetsResponsesFinish(t *testing.T) {
	finish := make(chan bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "begin ")
		http.NewResponseController(w).Flush()
		<-finish
		_, _ = io.WriteString(w, "end")
	}))
	t.Cleanup(server.Close)
	f := newFront(t, server.URL, asAlice)
	res, err := http.Get(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	waitForCount(t, f.streams, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	drained := make(chan bool)
	go func() { f.streams.drain(ctx); close(drained) }()
	close(finish)
	if body, err := io.ReadAll(res.Body); string(body) != "begin end" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	<-drained
}

// fakeStream notes when it is ended.
type fakeStream struct {
	streams      *streams
	forever      bool
	stubborn     bool // end does nothing
	start        time.Time
	ended, close chan time.Duration
}

func (f *fakeStream) endless() bool { return f.forever }

func (f *fakeStream) end(farewell) {
	f.ended <- time.Since(f.start)
	if !f.stubborn {
		f.streams.remove(f)
	}
}

func (f *fakeStream) Close() error {
	f.close <- time.Since(f.start)
	f.streams.remove(f)
	return nil
}

func TestDrainTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(nil)
		newFake := func(forever, stubborn bool) *fakeStream {
			f := &fakeStream{streams: s, forever: forever, stubborn: stubborn, start: time.Now(), ended: make(chan time.Duration, 3), close: make(chan time.Duration, 3)}
			s.add(f)
			return f
		}
		var spread []*fakeStream
		for range 9 {
			spread = append(spread, newFake(true, false))
		}
		response, stubborn := newFake(false, false), newFake(false, true)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s.drain(ctx)
		seen := map[time.Duration]bool{}
		for _, f := range spread {
			seen[<-f.ended] = true
		}
		for i := range 9 { // over 18 of 20 seconds
			if at := time.Duration(i) * 2 * time.Second; !seen[at] {
				t.Errorf("none ends after %v: %v", at, seen)
			}
		}
		if at := <-response.ended; at != 18*time.Second {
			t.Errorf("a response is cut after %v", at)
		}
		if at := <-stubborn.close; at != 20*time.Second {
			t.Errorf("what does not end is closed after %v", at)
		}
	})
}

func TestDrainWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreams(nil)
		f := &fakeStream{streams: s, forever: true, stubborn: true, start: time.Now(), ended: make(chan time.Duration, 3), close: make(chan time.Duration, 3)}
		s.add(f)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.drain(ctx)
		<-f.close
	})
}

// frame is an unmasked frame with n bytes of payload.
func frame(opcode byte, n int) []byte {
	b := []byte{0x80 | opcode}
	switch {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, bytes.Repeat([]byte{0x88}, n)...)
}

// The close frame stands between frames, wherever the end was asked for; the frame under way is completed, and nothing follows.
func TestGoodbyeStandsAtAFrameBoundary(t *testing.T) {
	for _, size := range []int{0, 5, 125, 126, 300, 70000} {
		all := bytes.Join([][]byte{frame(2, size), frame(2, size), frame(1, 3)}, nil)
		one := len(frame(2, size))
		for _, at := range []int{0, 1, 2, one - 1, one, one + 1, one + 2, 2*one - 1, 2 * one, len(all)} {
			if at < 0 || at > len(all) {
				continue
			}
			client, server := net.Pipe()
			got := make(chan []byte)
			go func() { b, _ := io.ReadAll(client); got <- b }()
			s := newStreams(nil)
			c := &socket{Conn: server, streams: s, opened: true}
			s.add(c)
			write := func(p []byte) {
				if n, err := c.Write(p); n != len(p) || err != nil {
					t.Errorf("Write: %d, %v", n, err)
				}
			}
			write(all[:at])
			c.end(goingAway)
			c.end(goingAway) // twice is once
			write(all[at:])
			c.Close()
			var whole int // the frames that had begun
			for _, end := range []int{0, one, 2 * one, len(all)} {
				if whole = end; end >= at {
					break
				}
			}
			want := append(bytes.Clone(all[:whole]), goingAway.frame()...)
			if b := <-got; !bytes.Equal(b, want) {
				t.Errorf("size %d, ended at %d: the client gets %d bytes, want %d", size, at, len(b), len(want))
			}
			if openNow(s) != 0 {
				t.Error("it stays registered")
			}
		}
	}
}

// A drain may come between the hijack and the answer to the handshake.
func TestNoGoodbyeBeforeTheHandshakeIsAnswered(t *testing.T) {
	client, server := net.Pipe()
	got := make(chan []byte)
	go func() { b, _ := io.ReadAll(client); got <- b }()
	c := &socket{Conn: server, streams: newStreams(nil)}
	c.end(goingAway)
	_, _ = io.WriteString(server, "HTTP/1.1 101 \r\n\r\n")
	c.open()
	_, _ = c.Write(frame(2, 5))
	c.Close()
	if b := <-got; string(b) != "HTTP/1.1 101 \r\n\r\n"+string(goingAway.frame()) {
		t.Errorf("the client gets %q", b)
	}
}

func TestNoGoodbyeAfterTheApplicationsOwn(t *testing.T) {
	client, server := net.Pipe()
	got := make(chan []byte)
	go func() { b, _ := io.ReadAll(client); got <- b }()
	c := &socket{Conn: server, streams: newStreams(nil), opened: true}
	own := []byte{0x88, 2, 3, 0xE8}
	_, _ = c.Write(own)
	c.end(goingAway)
	c.Close()
	if b := <-got; !bytes.Equal(b, own) {
		t.Errorf("the client gets %x", b)
	}
}

// announcedConn tells when a Write begins.
type announcedConn struct {
	net.Conn
	entered chan bool
}

func (c announcedConn) Write(p []byte) (int, error) {
	c.entered <- true
	return c.Conn.Write(p)
}

// A client that reads nothing cannot hold up the drain.
func TestSlowClientIsCutAfterTheGrace(t *testing.T) {
	client, server := net.Pipe() // unbuffered: a Write hangs until it is read
	defer client.Close()
	s := newStreams(nil)
	entered := make(chan bool, 10)
	c := &socket{Conn: announcedConn{server, entered}, streams: s, opened: true}
	s.add(c)
	wrote := make(chan error)
	go func() { _, err := c.Write(frame(2, 10)); wrote <- err }()
	<-entered
	go c.end(goingAway)
	if err := <-wrote; err == nil {
		t.Error("the write succeeds")
	}
	waitForCount(t, s, 0)
}

func FuzzFramesAreFoundInAnyPieces(f *testing.F) {
	f.Add([]byte{0, 1, 125}, []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, sizes, pieces []byte) {
		var all []byte
		ends := map[int]bool{0: true}
		for _, size := range sizes {
			all = append(all, frame(2, int(size)*3)...)
			ends[len(all)] = true
		}
		var whole frames
		for at, i := 0, 0; at < len(all); i++ {
			n := len(all) - at
			if i < len(pieces) {
				n = min(n, int(pieces[i])+1)
			}
			whole.skip(all[at : at+n])
			if at += n; whole.boundary() != ends[at] {
				t.Fatalf("at %d of %v: boundary is %v", at, sizes, whole.boundary())
			}
		}
		// Any bytes at all keep it going.
		var any frames
		any.skip(sizes)
		any.skip(pieces)
	})
}

// What a short request pays for being tied to its session, beside the forwarding (BenchmarkUpstream).
func BenchmarkTetherOfAShortRequest(b *testing.B) {
	b.ReportAllocs()
	x := &exchange{}
	parent, cancel := context.WithCancel(b.Context())
	defer cancel()
	s := &session.Session{}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l := &leg{Context: parent, w: x, f: forward{Session: s}}
			l.tether().untie()
		}
	})
}
