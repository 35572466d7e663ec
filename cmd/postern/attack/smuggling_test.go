//go:build attack

package attack_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

const everyone = "  - {upstream: {app}, access: public}\n"

// smuggled is a request that stands where another's body should end.
const smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n"

// notSmuggled checks that the application got whole requests alone, with one meaning each, and never the smuggled one.
func (w *world) notSmuggled(what string) {
	w.t.Helper()
	for _, got := range w.app.received() {
		got.canonical(w.t)
		if strings.HasPrefix(got.RequestURI, "/smuggled") {
			w.t.Errorf("%s: a smuggled request reaches the application: %q", what, got.raw)
		}
	}
	w.app.forget()
}

func TestA90_NoTwoReadingsOfABodysLength(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	for _, coding := range []string{
		"Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Transfer-Encoding : chunked", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding:\r\n chunked, x",
		"Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked;q=1", "Transfer-Encoding: ,chunked", "Transfer-Encoding\x00: chunked",
	} {
		a := w.ask(w.request("POST /x", "Content-Length: 5", coding) + "0\r\n\r\n" + smuggled)
		if a == nil || a.status != http.StatusBadRequest && a.status != http.StatusNotImplemented {
			t.Errorf("%q: %+v", coding, a)
		}
		w.app.none(t)
		w.app.forget()
	}
	// A length beside chunks: the chunks count, nothing follows on the connection, and the application sees one of both.
	for _, lines := range [][]string{
		{"Content-Length: 6", "Transfer-Encoding: chunked"}, {"Transfer-Encoding: chunked", "Content-Length: 6"}, {"Transfer-Encoding: Chunked", "Content-Length: 999"},
		{"Transfer_Encoding: x", "Content-Length: 6", "Transfer-Encoding: chunked", "Content_Length: 3"}, {"Transfer-Encoding: chunked"},
	} {
		c := w.dial().send(w.request("POST /x", lines...) + "0\r\n\r\n" + smuggled)
		if a := c.answer("POST"); a == nil || a.status != http.StatusOK || !a.closes {
			t.Errorf("%q: %+v, want 200 and the end of the connection", lines, a)
		}
		c.closed()
		w.notSmuggled(strings.Join(lines, ", "))
	}
	// HTTP/1.0 knows no chunks.
	c := w.dial().send("POST /x HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
	if a := c.answer("POST"); a != nil && a.status == http.StatusOK && !a.closes {
		t.Errorf("HTTP/1.0: %+v", a)
	}
	c.closed()
	w.notSmuggled("HTTP/1.0")
}

func TestA91_OneLengthThatIsANumber(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	for _, length := range []string{
		"Content-Length: 3\r\nContent-Length: 5", "Content-Length: +3", "Content-Length: 3, 3", "Content-Length: 3, 5", "Content-Length: -1", "Content-Length: 0x3", "Content-Length: 3 3",
		"Content-Length: three", "Content-Length: ", "Content-Length: 99999999999999999999", "Content-Length: 3\x00", "Content-Length: 3.0", "Content-Length : 3",
	} {
		a := w.ask(w.request("POST /x", length) + "abc" + smuggled)
		if a == nil || a.status != http.StatusBadRequest {
			t.Errorf("%q: %+v", length, a)
		}
		w.app.none(t)
		w.app.forget()
	}
	c := w.dial().send(w.request("POST /x", "Content-Length: 3", "Content-Length: 3", "Content_Length: 50") + "abc")
	if a := c.answer("POST"); a == nil || a.status != http.StatusOK && a.status != http.StatusBadRequest {
		t.Errorf("the same length twice: %+v", a)
	}
	w.notSmuggled("the same length twice")
}

func TestA92_LinesEndInOneWay(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	for _, request := range []string{
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A: a\rX-B: b\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A: a\x00b\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A\x00: a\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX A: a\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\n: a\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A\r\n\r\n",
		"GET /x\rHTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /x HTTP/1.1 HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /x HTTP/1.2x\r\nHost: app.example.com\r\n\r\n",
		"GET /x\r\n\r\n",
	} {
		if a := w.ask(request); a != nil && a.status != http.StatusBadRequest && a.status != http.StatusHTTPVersionNotSupported {
			t.Errorf("%q: %+v", request, a)
		}
		w.app.none(t)
		w.app.forget()
	}
	// What is read leniently is written strictly.
	for _, request := range []string{
		"GET /x HTTP/1.1\nHost: app.example.com\nX-A: a\n\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\nX-A: a\r\n\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A: a\r\n folded\r\n\tX-Forwarded-User: root\r\n\r\n",
		"\r\nGET /x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET  /x  HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET\t/x\tHTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-A:   a   \r\nx-a:b\r\n\r\n",
	} {
		if a := w.ask(request); a != nil && a.status != http.StatusOK && a.status != http.StatusBadRequest {
			t.Errorf("%q: %+v", request, a)
		}
		for _, got := range w.app.received() {
			if len(got.folded("X-Forwarded-User")) > 0 {
				t.Errorf("%q: %q", request, got.raw)
			}
		}
		w.notSmuggled(request)
	}
}

func TestA93_ChunksMeanOneThing(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	for _, chunks := range []string{
		"3\nabc\r\n0\r\n\r\n", "3\r\nabc\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n", "+3\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n", "3\r\nabcX\r\n0\r\n\r\n",
		"\r\nabc\r\n0\r\n\r\n", "3 \x00\r\nabc\r\n0\r\n\r\n", "g\r\nabc\r\n0\r\n\r\n", "3;x\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\n" + strings.Repeat("X-Trailer: "+strings.Repeat("x", 1000)+"\r\n", 400) + "\r\n",
		"3;" + strings.Repeat("x", 70<<10) + "\r\nabc\r\n0\r\n\r\n",
	} {
		c := w.dial().send(w.request("POST /x", "Transfer-Encoding: chunked") + chunks + smuggled)
		if a := c.answer("POST"); a != nil && a.status < 400 {
			t.Errorf("%.60q: %+v", chunks, a)
		}
		_, _ = io.Copy(io.Discard, c.in) // whatever it says: it ends
		w.notSmuggled(chunks[:min(len(chunks), 60)])
	}
	for _, chunks := range []string{"3;ext=1\r\nabc\r\n0\r\n\r\n", "3;\"quoted\"\r\nabc\r\n0;x\r\n\r\n", "0003\r\nabc\r\n00\r\n\r\n"} {
		if a := w.ask(w.request("POST /x", "Transfer-Encoding: chunked") + chunks); a == nil || a.status != http.StatusOK {
			t.Errorf("%q: %+v", chunks, a)
		}
		w.notSmuggled(chunks)
	}
}

func TestA94_NoTunnels(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone, tls: true})
	for what, fields := range map[string][]string{
		"CONNECT":                      {":method", "CONNECT", ":authority", w.host},
		"CONNECT with path":            w.fields("CONNECT", "/x"),
		"extended CONNECT":             w.fields("CONNECT", "/x", ":protocol", "websocket"),
		"GET with protocol":            w.fields("GET", "/x", ":protocol", "websocket"),
		"CONNECT to the application":   {":method", "CONNECT", ":authority", strings.TrimPrefix(w.app.URL, "http://")},
		"CONNECT with length and body": {":method", "CONNECT", ":authority", w.host, "content-length", "51"},
	} {
		c := w.h2()
		c.ask(1, smuggled, fields...)
		if got := c.outcome(1); got != "405" && got != "400" && got != "reset" && got != "closed" && got != "421" {
			t.Errorf("%s: %s", what, got)
		}
		w.app.none(t)
		w.app.forget()
	}
	for _, request := range []string{"CONNECT app.example.com:443 HTTP/1.1\r\nHost: app.example.com\r\n\r\n" + smuggled, "CONNECT /x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 51\r\n\r\n" + smuggled} {
		if a := w.ask(request); a == nil || a.status != http.StatusMethodNotAllowed && a.status != http.StatusBadRequest {
			t.Errorf("%q: %+v", request, a)
		}
		w.notSmuggled(request)
	}
}

func TestA95_HTTP2DoesNotBecomeAnotherHTTP1Request(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone, tls: true})
	for what, fields := range map[string][]string{
		"upper case":        w.fields("GET", "/x", "X-Upper", "1"),
		"line end":          w.fields("GET", "/x", "x-a", "1\r\nX-Forwarded-User: root"),
		"bare line feed":    w.fields("GET", "/x", "x-a", "1\nX-Forwarded-User: root"),
		"NUL":               w.fields("GET", "/x", "x-a", "1\x00"),
		"colon":             w.fields("GET", "/x", "x-forwarded-user: root\r\nx", "1"),
		"space":             w.fields("GET", "/x", "x a", "1"),
		"connection":        w.fields("GET", "/x", "connection", "close"),
		"transfer-encoding": w.fields("POST", "/x", "transfer-encoding", "chunked"),
		"path with request": w.fields("GET", "/x HTTP/1.1\r\nHost: evil\r\n\r\nGET /smuggled"),
		"path with space":   w.fields("GET", "/x y"),
		"relative path":     w.fields("GET", "x"),
		"absolute path":     w.fields("GET", "http://evil.example.net/x"),
		"empty path":        w.fields("GET", ""),
		"method with space": w.fields("GET /smuggled HTTP/1.1\r\nX:", "/x"),
		"scheme":            {":method", "GET", ":scheme", "https\r\nX-A: 1", ":authority", w.host, ":path", "/x y"},
		"two paths":         w.fields("GET", "/x", ":path", "/smuggled"),
		"late pseudo":       {":method", "GET", ":scheme", "https", "x-a", "1", ":authority", w.host, ":path", "/x"},
		"authority":         {":method", "GET", ":scheme", "https", ":authority", w.host + "\r\nX-A: 1", ":path", "/x"},
		"userinfo":          {":method", "GET", ":scheme", "https", ":authority", "root@" + w.host, ":path", "/x"},
	} {
		c := w.h2()
		c.ask(1, "", fields...)
		if got := c.outcome(1); got != "400" && got != "reset" && got != "closed" && got != "421" && got != "405" {
			t.Errorf("%s: %s", what, got)
		}
		w.app.none(t)
		w.app.forget()
	}
	for _, length := range []string{"3", "999"} {
		c := w.h2()
		c.ask(1, smuggled, w.fields("POST", "/x", "content-length", length)...)
		if got := c.outcome(1); got == "200" {
			t.Errorf("length %s of a longer or shorter body: %s: %s", length, got, w.app.text())
		}
		w.notSmuggled("length " + length)
	}
	// Two hosts: the application sees one, that of the authority.
	c := w.h2()
	c.ask(1, "", w.fields("GET", "/x", "host", "evil.example.net", "te", "trailers", "cookie", "a=1", "cookie", "b=2")...)
	switch got := c.outcome(1); got {
	case "200":
		r := w.app.one(t)
		r.canonical(t)
		if hosts := r.folded("Host"); !slices.Equal(hosts, []string{w.host}) || strings.Contains(r.raw, "evil") {
			t.Errorf("the application gets the hosts %q: %q", hosts, r.raw)
		}
	case "400", "reset":
	default:
		t.Errorf("two hosts: %s", got)
	}
}

func TestA96_OnlyWebSocketsSwitchProtocols(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	w.app.answersBy(func(r *received, conn net.Conn) bool {
		if r.Header.Get("Upgrade") != "" {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		}
		return ok(r, conn)
	})
	for _, lines := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"},
		{"Connection: Upgrade", "Upgrade: H2C"}, {"Connection: Upgrade", "Upgrade: websocket, h2c"}, {"Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"},
		{"Connection: Upgrade", "Upgrade: TLS/1.0"}, {"Connection: Upgrade", "Upgrade: connect-udp"}, {"Connection: Upgrade", "Upgrade: websocket"},
		{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Content-Length: 3"},
	} {
		w.app.forget()
		c := w.dial().send(w.get("/x", lines...) + "abc")
		if a := c.answer("GET"); a == nil || a.status == http.StatusSwitchingProtocols {
			t.Errorf("%q: %+v", lines, a)
		}
		for _, got := range w.app.received() {
			if len(got.folded("Upgrade"))+len(got.folded("HTTP2-Settings"))+len(got.folded("Connection")) > 0 {
				t.Errorf("%q reaches the application as %q", lines, got.raw)
			}
		}
		c.Close()
	}
	w.app.forget()
	c := w.dial().send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	if a := c.answer("GET"); a != nil && a.status < 400 {
		t.Errorf("HTTP/2 without TLS: %+v", a)
	}
	w.app.none(t)
}

// naive is an application that reads heads alone, and takes whatever follows for the next one.
type naive struct {
	mu    sync.Mutex
	lines []string // the first lines of all heads
}

func (n *naive) start(t *testing.T, answer string) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for first := true; ; {
					line, err := in.ReadString('\n')
					if err != nil {
						return
					}
					if first {
						n.mu.Lock()
						n.lines = append(n.lines, strings.TrimSpace(line))
						n.mu.Unlock()
					}
					if first = line == "\r\n"; first {
						if _, err := io.WriteString(conn, answer); err != nil {
							return
						}
					}
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

func TestA97_AnEarlyAnswerLeavesNoBodyBehind(t *testing.T) {
	attack(t)
	var app naive
	w := newWorld(t, settings{routes: "  - {upstream: " + app.start(t, reply("200 OK", "ok")) + ", access: public}\n"})
	for _, expect := range []string{"Expect: 100-continue", "Expect: 100-Continue", "Expect: 100-continue\r\nExpect: 100-continue", "Expect: x", "Expect: 100-continue, x"} {
		c := w.dial().send(w.request("POST /x", expect, "Content-Length: 51") + smuggled)
		a := c.answer("POST")
		for a != nil && a.status == http.StatusContinue {
			a = c.answer("POST")
		}
		if a == nil || a.status != http.StatusOK && a.status != http.StatusExpectationFailed && a.status != http.StatusBadGateway {
			t.Errorf("%s: %+v", expect, a)
		}
		c.Close()
		for range 3 { // whatever connection it takes
			if a := w.ask(w.get("/next")); a == nil || a.status != http.StatusOK || a.body != "ok" {
				t.Errorf("after %s: %+v", expect, a)
			}
		}
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	next := 0
	for _, line := range app.lines {
		if line == "GET /next HTTP/1.1" {
			next++
		}
	}
	if next != 15 {
		t.Errorf("%d of 15 requests reach the application whole: %q", next, app.lines)
	}
}

func TestA98_AnAnswerIsOneAnswer(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: everyone})
	evil := reply("200 OK", "evil", "Set-Cookie: evil=1")
	for what, bytes := range map[string]string{
		"two answers":        reply("200 OK", "ok\n") + evil,
		"101 unasked":        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + evil,
		"length and chunks":  "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil,
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n" + evil,
		"unknown coding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + evil,
		"no status":          "evil\r\n\r\n" + evil,
		"204 with body":      "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil" + evil,
		"304 with body":      "HTTP/1.1 304 Not Modified\r\n\r\n" + evil,
		"bare return":        "HTTP/1.1 200 OK\r\nX-A: a\rSet-Cookie: evil=1\r\nContent-Length: 3\r\n\r\nok\n",
		"nameless":           "HTTP/1.1 200 OK\r\n: evil=1\r\nContent-Length: 3\r\n\r\nok\n",
		"space before colon": "HTTP/1.1 200 OK\r\nSet-Cookie : evil=1\r\nContent-Length: 3\r\n\r\nok\n",
		"many 1xx":           strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n", 200) + evil,
		"NUL in a value":     "HTTP/1.1 200 OK\r\nX-A: \x00evil\r\nContent-Length: 3\r\n\r\nok\n",
	} {
		w.app.answers(bytes)
		a := w.ask(w.get("/x"))
		for n := 0; a != nil && a.status == 103 && n < 300; n++ {
			a = nil // the test of 1xx answers is A145
		}
		if a != nil && (a.status == http.StatusSwitchingProtocols || strings.Contains(a.raw, "evil")) && what != "many 1xx" {
			t.Errorf("%s: %q", what, a.raw)
		}
		w.app.answers(reply("200 OK", "mine\n"))
		for range 3 {
			if a := w.ask(w.get("/next")); a == nil || a.body != "mine\n" || strings.Contains(a.raw, "evil") {
				t.Errorf("after %s: %+v", what, a)
			}
		}
	}
}
