package wire_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// hangup closes the connection after what was written; cut does without letting the client read in peace (RST).
	hangup = "\x00hangup"
	cut    = "\x00cut"

	ok = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)

// A scenario is what a server does: for each connection, what it answers to each request on it.
type scenario struct {
	name     string
	requests string // methods, by space; GET when empty
	conns    [][]string
	want     string // the answers, by " | "
}

// long is a header with a value of n bytes.
func long(n int) string { return "X: " + strings.Repeat("x", n) + "\r\n" }

var scenarios = []scenario{
	// Bodies.
	{"length", "GET GET", [][]string{{ok, ok}}, "200 hello | 200 hello"},
	{"length 0", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ok}}, "200 | 200 hello"},
	{"chunked", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ok}}, "200 hello | 200 hello"},
	{"chunked, extension", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n", ok}}, "200 hello | 200 hello"},
	{"chunked, empty", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok}}, "200 | 200 hello"},
	{"chunked, announced trailer", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n", ok}}, "200 hello {X-Sum:7} | 200 hello"},
	{"chunked, unannounced trailer", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n", ok}}, "200 hello {X-Sum:7} | 200 hello"},
	{"chunked, malformed trailer", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nno colon\r\n\r\n"}}, "200 hello…other"},
	{"chunked, trailer too long", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + long(5000) + "\r\n"}}, "200 hello…other"},
	{"chunked, forbidden trailer", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n"}}, "other"},
	{"chunked, no size", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"}}, "200…other"},
	{"chunked, bad size", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5g\r\nhello\r\n0\r\n\r\n"}}, "200…other"},
	{"chunked, size with sign", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"}}, "200…other"},
	{"chunked, huge size", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nhello\r\n0\r\n\r\n"}}, "200…other"},
	{"chunked, chunk longer than its size", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"}}, "200 hel…other"},
	{"chunked, bare LF after the size", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"}}, "200…other"},
	{"chunked, ends early", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel" + hangup}}, "200 hel…unexpected EOF"},
	{"chunked, no last chunk", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n" + hangup}}, "200 hello…unexpected EOF"},
	{"chunked, ends in the trailer", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + hangup}}, "200 hello…other"},
	{"length, ends early", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello" + hangup}}, "200 hello…unexpected EOF"},
	{"until the end", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\n\r\nhello" + hangup}, {ok}}, "200 hello | 200 hello"},
	{"until the end, Connection: keep-alive", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\nhello" + hangup}, {ok}}, "200 hello | 200 hello"},
	{"larger than buffers", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("x", 300000), ok}}, "200 " + strings.Repeat("x", 300000) + " | 200 hello"},

	// Answers without a body.
	{"HEAD", "HEAD GET", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok}}, "200 | 200 hello"},
	{"HEAD, chunked", "HEAD GET", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ok}}, "200 | 200 hello"},
	{"HEAD, no length", "HEAD GET", [][]string{{"HTTP/1.1 200 OK\r\n\r\n", ok}}, "200 | 200 hello"},
	{"HEAD, HTTP/1.0", "HEAD GET", [][]string{{"HTTP/1.0 200 OK\r\n\r\n" + hangup}, {ok}}, "200 | 200 hello"},
	{"204", "GET GET", [][]string{{"HTTP/1.1 204 No Content\r\n\r\n", ok}}, "204 | 200 hello"},
	{"204 with a length", "GET GET", [][]string{{"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ok}}, "204 | 200 hello"},
	{"304 with a length", "GET GET", [][]string{{"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nEtag: \"a\"\r\n\r\n", ok}}, "304 | 200 hello"},
	{"304, chunked", "GET GET", [][]string{{"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", ok}}, "304 | 200 hello"},
	{"DELETE", "DELETE GET", [][]string{{"HTTP/1.1 204 No Content\r\n\r\n", ok}}, "204 | 200 hello"},
	{"OPTIONS", "OPTIONS", [][]string{{"HTTP/1.1 200 OK\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n"}}, "200"},
	{"PROPFIND", "PROPFIND", [][]string{{"HTTP/1.1 207 Multi-Status\r\nContent-Length: 5\r\n\r\n<xml>"}}, "207 <xml>"},

	// Interim answers.
	{"100", "", [][]string{{"HTTP/1.1 100 Continue\r\n\r\n" + ok}}, "(100) 200 hello"},
	{"103, twice", "GET GET", [][]string{{"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n" + ok, ok}}, "(103 Link:</a>) (103 Link:</b>) 200 hello | 200 hello"},
	{"103 and the end", "", [][]string{{"HTTP/1.1 103 Early Hints\r\n\r\n" + hangup}}, "(103) unexpected EOF"},
	{"103, malformed", "", [][]string{{"HTTP/1.1 103 Early Hints\r\nno colon\r\n\r\n" + ok}}, "other"},
	{"103 with a length", "", [][]string{{"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + ok}}, "(103 Content-Length:5) 200 hello"},
	{"100 interim answers", "", [][]string{{strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 100) + ok}}, strings.Repeat("(102) ", 100) + "200 hello"},
	{"interim answers longer than a header together", "", [][]string{{strings.Repeat("HTTP/1.1 103 E\r\n"+long(100<<10)+"\r\n", 4) + ok}}, strings.Repeat("(103 X:"+strings.Repeat("x", 100<<10)+") ", 4) + "200 hello"},
	{"101 unasked", "GET GET", [][]string{{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + hangup}, {ok}}, "101 | 200 hello"},
	{"099", "GET GET", [][]string{{"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n"}, {ok}}, "99 | 200 hello"},

	// The life of connections.
	{"Connection: close", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"}, {ok}}, "200 hello | 200 hello"},
	{"Connection: close among others", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello"}, {ok}}, "200 hello | 200 hello"},
	{"HTTP/1.0", "GET GET", [][]string{{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, {ok}}, "200 hello | 200 hello"},
	{"HTTP/1.0, keep-alive", "GET GET", [][]string{{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", ok}}, "200 hello | 200 hello"},
	{"HTTP/1.0 until the end", "GET GET", [][]string{{"HTTP/1.0 200 OK\r\n\r\nhello" + hangup}, {ok}}, "200 hello | 200 hello"},
	{"HTTP/1.0, chunked", "", [][]string{{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + hangup}}, "200 5\r\nhello\r\n0\r\n\r\n"},
	{"HTTP/2.0 by name", "", [][]string{{"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"}}, "200 hello"},
	{"closed while idle", "GET GET", [][]string{{ok + hangup}, {ok}}, "200 hello | 200 hello"},
	{"reset while idle", "GET GET", [][]string{{ok + cut}, {ok}}, "200 hello | 200 hello"},
	{"closed under the second request", "GET GET", [][]string{{ok, hangup}, {ok}}, "200 hello | 200 hello"},
	{"closed under the second request, HEAD", "GET HEAD", [][]string{{ok, hangup}, {"HTTP/1.1 200 OK\r\n\r\n"}}, "200 hello | 200"},
	{"reset under the second request", "GET GET", [][]string{{ok, cut}, {ok}}, "200 hello | 200 hello"},
	{"closed under a second request that changes something", "GET DELETE", [][]string{{ok, hangup}, {ok}}, "200 hello | EOF"},
	{"closed under a second request with a key", "GET DELETE+key", [][]string{{ok, hangup}, {ok}}, "200 hello | 200 hello"},
	{"closed under the second request and the first on another connection", "GET GET", [][]string{{ok, hangup}, {hangup}, {ok}}, "200 hello | EOF"},
	{"broken in the second answer", "GET GET", [][]string{{ok, "HTTP/1.1 200" + hangup}, {ok}}, "200 hello | unexpected EOF"},
	{"closed under the first request", "", [][]string{{hangup}, {ok}}, "EOF"},
	{"reset under the first request", "", [][]string{{cut}, {ok}}, "reset"},

	// Answers that are none, or dangerous.
	{"empty line", "", [][]string{{"\r\n" + ok}}, "other"},
	{"no HTTP", "", [][]string{{"SSH-2.0-OpenSSH_9.2\r\n" + hangup}}, "other"},
	{"no status", "", [][]string{{"HTTP/1.1\r\n\r\n"}}, "other"},
	{"status of two digits", "", [][]string{{"HTTP/1.1 20 OK\r\n\r\n"}}, "other"},
	{"status with a sign", "", [][]string{{"HTTP/1.1 +20 OK\r\n\r\n" + hangup}}, "20"},
	{"no version", "", [][]string{{"HTTP/x 200 OK\r\n\r\n"}}, "other"},
	{"ends in the status line", "", [][]string{{"HTTP/1.1 2" + hangup}}, "other"},
	{"ends in the header", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Le" + hangup}}, "other"},
	{"ends before the empty line", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + hangup}}, "unexpected EOF"},
	{"length and chunked", "GET GET", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", ok}}, "200 hello | 200 hello"},
	{"two lengths", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"one length twice", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"}}, "200 hello"},
	{"lengths in a list", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"}}, "other"},
	{"negative length", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"}}, "other"},
	{"length with a sign", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"}}, "other"},
	{"huge length", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello"}}, "other"},
	{"two transfer encodings", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}}, "other"},
	{"chunked twice", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}}, "other"},
	{"unknown transfer encoding", "", [][]string{{"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nhello"}}, "other"},
	{"space before the colon", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nhello" + hangup}}, "200 hello Content-Length :3"},
	{"folded line", "", [][]string{{"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello"}}, "200 hello X:a b"},
	{"folded first line", "", [][]string{{"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"bare LF", "", [][]string{{"HTTP/1.1 200 OK\nX: a\nContent-Length: 5\n\nhello"}}, "200 hello X:a"},
	{"bare CR", "", [][]string{{"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"NUL", "", [][]string{{"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"name that is none", "", [][]string{{"HTTP/1.1 200 OK\r\nX(: a\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"empty name", "", [][]string{{"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 5\r\n\r\nhello"}}, "other"},
	{"names in any case", "", [][]string{{"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\nx: a\r\nX: b\r\n\r\nhello"}}, "200 hello X:a X:b"},
	{"header at its limit", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + long(200<<10) + "\r\n"}}, "200 X:" + strings.Repeat("x", 200<<10)},
	{"header beyond its limit", "", [][]string{{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + long(300<<10) + "\r\n"}}, "other"},
	{"header without end", "", [][]string{{"HTTP/1.1 200 OK\r\n" + strings.Repeat(long(1000), 300)}}, "other"},
	{"Pragma", "", [][]string{{"HTTP/1.1 200 OK\r\nPragma: no-cache\r\nContent-Length: 0\r\n\r\n"}}, "200 Cache-Control:no-cache Pragma:no-cache"},
}

// Both transports make the same of every server: answers, errors, and what they send on which connection.
func TestSameAsNetHTTP(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			outcome := func(own bool) (answers, traffic string) {
				server := newScript(t, s.conns)
				std, wire := transports(server.addr)
				rt := http.RoundTripper(std)
				if own {
					rt = wire
				}
				for _, method := range strings.Fields(orGet(s.requests)) {
					answers += " | " + ask(t, rt, server, method)
				}
				std.CloseIdleConnections()
				wire.CloseIdleConnections()
				return strings.TrimPrefix(answers, " | "), server.end()
			}
			want, wantTraffic := outcome(false)
			got, traffic := outcome(true)
			if got != want {
				t.Errorf("got  %.500s\nhttp %.500s", got, want)
			}
			if got != s.want {
				t.Errorf("got  %.500s\nwant %.500s", got, s.want)
			}
			if traffic != wantTraffic {
				t.Errorf("sent\n%s\nhttp sent\n%s", traffic, wantTraffic)
			}
		})
	}
}

func orGet(methods string) string {
	if methods == "" {
		return "GET"
	}
	return methods
}

// ask sends a request and describes the answer.
func ask(t *testing.T, rt http.RoundTripper, server *script, method string) string {
	t.Helper()
	method, key := strings.CutSuffix(method, "+key")
	var seen strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a script that leaves an answer open would hang
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		fmt.Fprintf(&seen, "(%s) ", strings.TrimSpace(fmt.Sprint(code, describe(http.Header(h)))))
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, method, "http://"+server.addr+"/path?q=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "app.example"
	r.Header = http.Header{"User-Agent": {""}, "Accept": {"*/*"}, "X-Twice": {"a", " b\t"}, "Authorization": {"Bearer t"}}
	if key {
		r.Header["Idempotency-Key"] = []string{}
	}
	res, err := rt.RoundTrip(r)
	if err != nil {
		return seen.String() + class(err)
	}
	if res.Request != r {
		t.Error("not the request")
	}
	return seen.String() + describeAnswer(res)
}

// describeAnswer reads an answer and says what it is.
func describeAnswer(res *http.Response) string {
	var body []byte
	var err error
	if res.StatusCode != http.StatusSwitchingProtocols { // whose body is the connection
		body, err = io.ReadAll(res.Body)
	}
	_ = res.Body.Close()
	text := fmt.Sprint(res.StatusCode)
	if len(body) > 0 {
		text += " " + string(body)
	}
	if err != nil {
		text += "…" + class(err)
	}
	for name, values := range res.Trailer {
		text += fmt.Sprintf(" {%s:%s}", name, strings.Join(values, ","))
	}
	h := res.Header.Clone()
	for _, name := range []string{"Content-Length", "Connection", "Upgrade", "Link", "Allow", "Etag"} {
		delete(h, name)
	}
	return text + describe(h)
}

// describe lists a header.
func describe(h http.Header) string {
	var lines []string
	for name, values := range h {
		for _, value := range values {
			lines = append(lines, " "+name+":"+value)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// class is what callers tell of an error.
func class(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "unexpected EOF"
	case errors.Is(err, io.EOF):
		return "EOF"
	}
	return "other"
}

// script is a server that follows a scenario.
type script struct {
	addr     string
	listener net.Listener
	serving  sync.WaitGroup

	mu      sync.Mutex
	traffic []string // what came on each connection
}

func newScript(t *testing.T, conns [][]string) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{addr: l.Addr().String(), listener: l}
	s.serving.Go(func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var answers []string
			if i < len(conns) {
				answers = conns[i]
			}
			s.mu.Lock()
			s.traffic = append(s.traffic, "")
			s.mu.Unlock()
			s.serving.Go(func() { s.serve(i, c, answers) })
		}
	})
	return s
}

// serve answers on a connection until it ends.
func (s *script) serve(n int, c net.Conn, answers []string) {
	defer c.Close()
	in := bufio.NewReader(c)
	for i := 0; ; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		s.mu.Lock()
		s.traffic[n] += line
		s.mu.Unlock()
		if line != "\r\n" {
			continue
		}
		if i == len(answers) {
			return
		}
		answer, close := strings.CutSuffix(answers[i], hangup)
		answer, reset := strings.CutSuffix(answer, cut)
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
		if reset {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		if close || reset {
			return
		}
		i++
	}
}

// end waits for the connections to end, and returns what came on them.
func (s *script) end() string {
	_ = s.listener.Close()
	s.serving.Wait()
	return strings.ReplaceAll(strings.Join(s.traffic, "----\n"), s.addr, "ADDR")
}

var _ http.RoundTripper = (*wire.Transport)(nil)
