package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/wire"
)

// A peer is a server in the hands of the test: it gets each connection as it comes.
type peer struct {
	t     *testing.T
	addr  string
	conns chan net.Conn
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t, l.Addr().String(), make(chan net.Conn, 100)}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.conns <- c
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		accepting.Wait()
		close(p.conns)
		for c := range p.conns {
			_ = c.Close()
		}
	})
	return p
}

// line is a connection as the server sees it.
type line struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

// accept waits for the next connection.
func (p *peer) accept() *line {
	p.t.Helper()
	select {
	case c := <-p.conns:
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		p.t.Cleanup(func() { _ = c.Close() })
		return &line{p.t, c, bufio.NewReader(c)}
	case <-time.After(20 * time.Second):
		p.t.Fatal("no connection came")
		return nil
	}
}

// request reads a request.
func (l *line) request() *http.Request {
	l.t.Helper()
	r, err := http.ReadRequest(l.in)
	if err != nil {
		l.t.Fatalf("no request came: %v", err)
	}
	return r
}

func (l *line) say(text string) {
	l.t.Helper()
	if _, err := io.WriteString(l, text); err != nil {
		l.t.Fatal(err)
	}
}

// closed waits for the client's end of the connection.
func (l *line) closed() {
	l.t.Helper()
	if b, err := l.in.ReadByte(); err == nil {
		l.t.Errorf("got %q in place of the end", b)
	} else if class(err) == "timeout" {
		l.t.Error("the connection was not closed")
	}
}

type result struct {
	res *http.Response
	err error
}

// start sends a request; its answer comes later.
func start(ctx context.Context, rt http.RoundTripper, method, addr string) chan result {
	results := make(chan result, 1)
	go func() {
		res, err := rt.RoundTrip(newRequest(ctx, method, addr))
		results <- result{res, err}
	}()
	return results
}

func newRequest(ctx context.Context, method, addr string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+addr+"/", nil)
	if err != nil {
		panic(err)
	}
	r.Header["User-Agent"] = []string{""}
	return r
}

// fetch is a whole exchange.
func fetch(t *testing.T, rt http.RoundTripper, l *line, addr, method string) {
	t.Helper()
	results := start(t.Context(), rt, method, addr)
	l.request()
	l.say(ok)
	finish(t, results)
}

// finish expects hello.
func finish(t *testing.T, results chan result) {
	t.Helper()
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	if got := describeAnswer(r.res); got != "200 hello" {
		t.Errorf("got %s", got)
	}
}

// both runs a test against both transports.
func both(t *testing.T, test func(t *testing.T, p *peer, rt http.RoundTripper)) {
	t.Helper()
	for _, name := range []string{"net/http", "wire"} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t)
			std, own := transports(p.addr)
			t.Cleanup(std.CloseIdleConnections)
			t.Cleanup(own.CloseIdleConnections)
			if name == "wire" {
				test(t, p, own)
			} else {
				test(t, p, std)
			}
		})
	}
}

var errGaveUp = errors.New("gave up")

func TestCancelBeforeAnAnswer(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		ctx, cancel := context.WithCancelCause(t.Context())
		results := start(ctx, rt, "GET", p.addr)
		l := p.accept()
		l.request()
		cancel(errGaveUp)
		if r := <-results; !errors.Is(r.err, errGaveUp) {
			t.Errorf("got %v", r.err)
		}
		l.closed()
		if r := <-start(ctx, rt, "GET", p.addr); !errors.Is(r.err, errGaveUp) {
			t.Errorf("given up before: got %v", r.err)
		}
	})
}

func TestCancelWhileConnecting(t *testing.T) {
	dialing := make(chan bool)
	own := &wire.Transport{Other: &http.Transport{}, MaxHeader: 1000, Dial: func(ctx context.Context) (net.Conn, error) {
		close(dialing)
		<-ctx.Done()
		return nil, errors.New("dial: interrupted")
	}}
	ctx, cancel := context.WithCancelCause(t.Context())
	results := start(ctx, own, "GET", "127.0.0.1:1")
	<-dialing
	cancel(errGaveUp)
	if r := <-results; !errors.Is(r.err, errGaveUp) {
		t.Errorf("got %v", r.err)
	}
}

func TestCancelUnderABody(t *testing.T) {
	for _, framing := range []string{"Content-Length: 9\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n", "Connection: close\r\n\r\n"} {
		both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
			ctx, cancel := context.WithCancelCause(t.Context())
			results := start(ctx, rt, "GET", p.addr)
			l := p.accept()
			l.request()
			l.say("HTTP/1.1 200 OK\r\n" + framing + "hel")
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			defer r.res.Body.Close()
			if _, err := io.ReadFull(r.res.Body, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			cancel(errGaveUp)
			if n, err := r.res.Body.Read(make([]byte, 9)); n != 0 || !errors.Is(err, errGaveUp) {
				t.Errorf("got %d, %v", n, err)
			}
			l.closed()
		})
	}
}

// A request that is over has no power over its connection any more.
func TestCancelAfterTheEnd(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		var l *line
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			results := start(ctx, rt, "GET", p.addr)
			if l == nil {
				l = p.accept()
			}
			l.request()
			l.say(ok)
			finish(t, results)
			cancel()
		}
	})
}

func TestDeadline(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		results := start(ctx, rt, "GET", p.addr)
		if r := <-results; !errors.Is(r.err, context.DeadlineExceeded) {
			t.Errorf("got %v", r.err)
		}
	})
}

// The time for the header runs out: without an answer, in its header, and under interim answers. It does not touch the body.
func TestHeaderTimeout(t *testing.T) {
	for _, said := range []string{"", "HTTP/1.1 200 OK\r\nX", "HTTP/1.1 103 Early Hints\r\n\r\n"} {
		both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
			switch rt := rt.(type) {
			case *wire.Transport:
				rt.HeaderTimeout = 50 * time.Millisecond
			case *http.Transport:
				rt.ResponseHeaderTimeout = 50 * time.Millisecond
			}
			results := start(t.Context(), rt, "GET", p.addr)
			l := p.accept()
			l.request()
			l.say(said)
			if r := <-results; class(r.err) != "timeout" {
				t.Errorf("got %v", r.err)
			}
			l.closed()

			results = start(t.Context(), rt, "GET", p.addr)
			l = p.accept()
			l.request()
			l.say("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			time.AfterFunc(200*time.Millisecond, func() { l.say("lo") })
			if got := describeAnswer(r.res); got != "200 hello" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// A time limit that ran out on a connection used before is not tried again, and none is left on a connection.
func TestHeaderTimeoutOfASecondRequest(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		switch rt := rt.(type) {
		case *wire.Transport:
			rt.HeaderTimeout = 200 * time.Millisecond
		case *http.Transport:
			rt.ResponseHeaderTimeout = 200 * time.Millisecond
		}
		results := start(t.Context(), rt, "GET", p.addr)
		l := p.accept()
		l.request()
		l.say(ok)
		finish(t, results)
		results = start(t.Context(), rt, "GET", p.addr)
		l.request()
		if r := <-results; class(r.err) != "timeout" {
			t.Errorf("got %v", r.err)
		}
		l.closed()
		select {
		case <-p.conns:
			t.Error("it was sent again")
		default:
		}
	})
}

func TestCloseBeforeTheEnd(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		results := start(t.Context(), rt, "GET", p.addr)
		l := p.accept()
		l.request()
		l.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhel")
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		for range 2 {
			if err := r.res.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		if n, err := r.res.Body.Read(make([]byte, 9)); n != 0 || err == nil || err == io.EOF {
			t.Errorf("read after close: %d, %v", n, err)
		}
		l.closed()
	})
}

func TestCloseAfterTheEnd(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		results := start(t.Context(), rt, "GET", p.addr)
		l := p.accept()
		l.request()
		l.say(ok)
		r := <-results
		if r.err != nil {
			t.Fatal(r.err)
		}
		if _, err := io.ReadAll(r.res.Body); err != nil {
			t.Fatal(err)
		}
		fetch(t, rt, l, p.addr, "GET") // the connection is somebody else's now
		for range 2 {
			if err := r.res.Body.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.res.Body.Read(make([]byte, 9)); err == nil || err == io.EOF {
			t.Errorf("read after close: %v", err)
		}
		fetch(t, rt, l, p.addr, "GET")
	})
}

// A stream is passed on as it comes, and Close ends a Read that waits.
func TestCloseUnderRead(t *testing.T) {
	for _, framing := range []string{"Transfer-Encoding: chunked\r\n\r\n8\r\ndata: 1\n\r\n", "Content-Type: text/event-stream\r\n\r\ndata: 1\n"} {
		both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
			results := start(t.Context(), rt, "GET", p.addr)
			l := p.accept()
			l.request()
			l.say("HTTP/1.1 200 OK\r\n" + framing)
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			b := make([]byte, 100)
			if n, err := r.res.Body.Read(b); err != nil || string(b[:n]) != "data: 1\n" {
				t.Errorf("got %q, %v", b[:n], err)
			}
			ended := make(chan error, 1)
			go func() {
				_, err := r.res.Body.Read(make([]byte, 100))
				ended <- err
			}()
			if err := r.res.Body.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err == nil || err == io.EOF {
				t.Errorf("got %v", err)
			}
			l.closed()
		})
	}
}

// What a server says unasked is no answer to the next request (response queue poisoning), whether it comes with an answer or later.
func TestUnsolicitedBytes(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for _, together := range []bool{true, false} {
		for _, answer := range []string{ok, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"} {
			p := newPeer(t)
			_, own := transports(p.addr)
			results := start(t.Context(), own, "GET", p.addr)
			l := p.accept()
			l.request()
			if together {
				l.say(answer + poison)
			} else {
				l.say(answer)
			}
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			_, _ = io.Copy(io.Discard, r.res.Body)
			_ = r.res.Body.Close()
			if !together {
				l.say(poison)
			}
			results = start(t.Context(), own, "GET", p.addr)
			second := p.accept()
			second.request()
			second.say(ok)
			finish(t, results)
			l.closed()
			own.CloseIdleConnections()
		}
	}
}

// A connection that the server has closed is noticed before it is used: a request that changes something is not lost on it.
func TestClosedWhileIdle(t *testing.T) {
	p := newPeer(t)
	_, own := transports(p.addr)
	defer own.CloseIdleConnections()
	results := start(t.Context(), own, "GET", p.addr)
	l := p.accept()
	l.request()
	l.say(ok)
	finish(t, results)
	_ = l.Close()
	results = start(t.Context(), own, "DELETE", p.addr)
	l = p.accept()
	l.request()
	l.say(ok)
	finish(t, results)
}

// Idle connections end when the server closes them, when their time is over, and when there are too many; not before.
func TestIdle(t *testing.T) {
	p := newPeer(t)
	_, own := transports(p.addr)
	own.IdleTimeout, own.MaxIdle = 300*time.Millisecond, 2
	var lines []*line
	var pending []chan result
	for range 3 {
		pending = append(pending, start(t.Context(), own, "GET", p.addr))
		l := p.accept()
		l.request()
		lines = append(lines, l)
	}
	for i, l := range lines {
		l.say(ok)
		finish(t, pending[i])
	}
	lines[2].closed() // one too many
	fetch(t, own, lines[1], p.addr, "GET")
	lines[0].closed()
	lines[1].closed()
}

func TestCloseIdleConnections(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		under := start(t.Context(), rt, "GET", p.addr)
		used := p.accept()
		used.request()
		results := start(t.Context(), rt, "GET", p.addr)
		idle := p.accept()
		idle.request()
		idle.say(ok)
		finish(t, results)
		rt.(interface{ CloseIdleConnections() }).CloseIdleConnections()
		idle.closed()
		used.say(ok)
		finish(t, under)
		used.closed()
	})
}

// A server may refuse a request that it has not read to its end.
func TestAnswerBeforeTheEndOfTheRequest(t *testing.T) {
	p := newPeer(t)
	_, own := transports(p.addr)
	r := newRequest(t.Context(), "GET", p.addr)
	r.Header.Set("X", strings.Repeat("x", 32<<20)) // more than sockets hold
	results := make(chan result, 1)
	go func() {
		res, err := own.RoundTrip(r)
		results <- result{res, err}
	}()
	l := p.accept()
	if _, err := io.ReadFull(l.in, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	l.say("HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n")
	_ = l.Conn.(*net.TCPConn).CloseWrite()
	_ = l.Conn.(*net.TCPConn).SetLinger(0)
	_ = l.Close()
	// The answer may be lost with the connection. What counts is that the request ends.
	if r := <-results; r.err == nil {
		if got := describeAnswer(r.res); got != "431" {
			t.Errorf("got %s", got)
		}
	} else if class(r.err) != "reset" {
		t.Errorf("got %v", r.err)
	}
}

func TestTrace(t *testing.T) {
	both(t, func(t *testing.T, p *peer, rt http.RoundTripper) {
		var got []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) {
				got = append(got, fmt.Sprint("conn ", info.Reused, info.Conn != nil))
			},
			GotFirstResponseByte: func() { got = append(got, "byte") },
			Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
				got = append(got, fmt.Sprint(code))
				if code == 199 {
					return errGaveUp
				}
				return nil
			},
		})
		results := start(ctx, rt, "GET", p.addr)
		l := p.accept()
		l.request()
		l.say("HTTP/1.1 103 Early Hints\r\n\r\n" + ok)
		finish(t, results)
		results = start(ctx, rt, "GET", p.addr)
		l.request()
		l.say("HTTP/1.1 199 Refused\r\n\r\n" + ok)
		if r := <-results; !errors.Is(r.err, errGaveUp) {
			t.Errorf("got %v", r.err)
		}
		l.closed()
		if got, want := strings.Join(got, ", "), "conn false true, byte, 103, conn true true, byte, 199"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Connections take no goroutine while they are idle, and none of their own while they are used.
func TestNoGoroutines(t *testing.T) {
	p := newPeer(t)
	_, own := transports(p.addr)
	defer own.CloseIdleConnections()
	var lines []*line
	var pending []chan result
	for range 20 {
		pending = append(pending, start(t.Context(), own, "GET", p.addr))
		l := p.accept()
		l.request()
		lines = append(lines, l)
	}
	for i, l := range lines {
		l.say(ok)
		finish(t, pending[i])
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "wire.(*") && !strings.Contains(stack, ".sweep") {
			t.Errorf("there is\n%s", stack)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	defer serving.Wait()
	defer s.Close()
	var dialled int
	own := &wire.Transport{Other: &http.Transport{}, MaxHeader: 1000, MaxIdle: 1, IdleTimeout: time.Minute, Dial: func(context.Context) (net.Conn, error) {
		dialled++
		return net.Dial("unix", l.Addr().String())
	}}
	defer own.CloseIdleConnections()
	for range 3 {
		res, err := own.RoundTrip(newRequest(t.Context(), "GET", "localhost"))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "hello" {
			t.Errorf("got %q, %v", body, err)
		}
	}
	if dialled != 1 {
		t.Errorf("%d connections", dialled)
	}
}

// Under load, with requests that are given up at any moment and a server that closes connections at any moment, nobody gets another's answer.
func TestNobodyGetsAnothersAnswer(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rand.N(10) == 0 {
			w.Header().Set("Connection", "close")
		}
		if rand.N(2) == 0 {
			w.(http.Flusher).Flush() // chunked
		}
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Query().Get("id"), 1+rand.N(2000)))
	}))
	server.Config.IdleTimeout = 2 * time.Millisecond
	server.Start()
	defer server.Close()
	addr := server.Listener.Addr().String()
	_, own := transports(addr)
	defer own.CloseIdleConnections()
	var good, failed atomic.Int64
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for n := range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				giveUp := rand.N(3) == 0
				if giveUp {
					time.AfterFunc(time.Duration(rand.N(2000))*time.Microsecond, cancel)
				}
				id := fmt.Sprintf("<%d.%d>", i, n)
				r := newRequest(ctx, "GET", addr)
				r.URL.RawQuery = "id=" + id
				res, err := own.RoundTrip(r)
				var body []byte
				if err == nil {
					if rand.N(10) > 0 {
						body, err = io.ReadAll(res.Body)
					}
					_ = res.Body.Close()
				}
				if err != nil {
					failed.Add(1)
					if !giveUp {
						t.Errorf("%s: %v", id, err)
					}
				} else {
					good.Add(1)
				}
				if rest := strings.ReplaceAll(string(body), id, ""); rest != "" && (err == nil || !strings.HasPrefix(id, rest)) {
					t.Errorf("%s got %.100q", id, body)
				}
				cancel()
			}
		})
	}
	clients.Wait()
	t.Logf("%d answers, %d failed", good.Load(), failed.Load())
	if good.Load() == 0 {
		t.Error("no answer at all")
	}
}

// What is out of the ordinary is carried, or refused, by the other transport.
func TestOtherTransport(t *testing.T) {
	const addr = "app.example"
	errOther := errors.New("the other transport dials")
	own := &wire.Transport{
		Other: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, errOther }},
		Dial:  func(context.Context) (net.Conn, error) { return nil, errors.New("dialled") },
	}
	for name, change := range map[string]func(*http.Request){
		"":                  func(*http.Request) {},
		"delete":            func(r *http.Request) { r.Method = "DELETE" },
		"IPv4":              func(r *http.Request) { r.Host = "127.0.0.1:80" },
		"empty body":        func(r *http.Request) { r.Body = http.NoBody },
		"other: body":       func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) },
		"other: POST":       func(r *http.Request) { r.Method = "POST" },
		"other: length":     func(r *http.Request) { r.ContentLength = 1; r.Body = io.NopCloser(strings.NewReader("x")) },
		"other: upgrade":    func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"other: connection": func(r *http.Request) { r.Header.Set("Connection", "close") },
		"other: expect":     func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"other: close":      func(r *http.Request) { r.Close = true },
		"other: agent":      func(r *http.Request) { delete(r.Header, "User-Agent") },
		"other: host":       func(r *http.Request) { r.Host = "a b" },
		"other: IPv6":       func(r *http.Request) { r.Host = "[::1%25eth0]" },
		"other: IDN":        func(r *http.Request) { r.Host = "bücher.example" },
		"other: connect":    func(r *http.Request) { r.Method = "CONNECT" },
		"refused: method":   func(r *http.Request) { r.Method = "GE T" },
		"refused: name":     func(r *http.Request) { r.Header["X Y"] = []string{""} },
		"refused: value":    func(r *http.Request) { r.Header["X"] = []string{"a\r\nY: b"} },
		"refused: agent":    func(r *http.Request) { r.Header["User-Agent"] = []string{"a\x00"} },
		"refused: scheme":   func(r *http.Request) { r.URL.Scheme = "ftp" },
		"refused: no host":  func(r *http.Request) { r.URL.Host = "" },
		"refused: no URL":   func(r *http.Request) { r.URL = nil },
		"refused: header":   func(r *http.Request) { r.Header = nil },
	} {
		r := newRequest(t.Context(), "GET", addr)
		change(r)
		_, err := own.RoundTrip(r)
		who, _, _ := strings.Cut(name, ":")
		other := errors.Is(err, errOther)
		refused := !other && err != nil && err.Error() != "dialled"
		if err == nil || other != (who == "other") || refused != (who == "refused") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
