//go:build attack

package attack_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postern/cmd/postern/proctest"
)

// app is the application: a server that keeps each request as it came, and answers whatever a test wants.
type app struct {
	URL string

	mu       sync.Mutex
	got      []*received
	broken   []string // what came and was no request
	conns    int
	answer   func(r *received, conn net.Conn) (keep bool)
	listener net.Listener
	open     map[net.Conn]bool
}

// received is one request as it came.
type received struct {
	*http.Request
	raw  string // head and body, byte for byte
	body string
	conn int // the number of the connection that it came by
	in   *bufio.Reader
}

func startApp(t testing.TB) *app {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &app{URL: "http://" + l.Addr().String(), listener: l, open: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			a.mu.Lock()
			a.conns++
			number := a.conns
			a.open[conn] = true
			a.mu.Unlock()
			serving.Go(func() { a.serve(conn, number) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		a.cut()
		serving.Wait()
	})
	return a
}

// cut closes all connections.
func (a *app) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for conn := range a.open {
		conn.Close()
	}
}

// recorder keeps what is read from a connection.
type recorder struct {
	net.Conn
	seen []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.seen = append(r.seen, p[:n]...)
	return n, err
}

func (a *app) serve(conn net.Conn, number int) {
	defer func() {
		conn.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.open, conn)
	}()
	rec := &recorder{Conn: conn}
	in := bufio.NewReader(rec)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			if len(rec.seen) > 0 {
				a.mu.Lock()
				a.broken = append(a.broken, string(rec.seen))
				a.mu.Unlock()
			}
			return
		}
		body, err := io.ReadAll(r.Body)
		end := len(rec.seen) - in.Buffered()
		one := &received{Request: r, raw: string(rec.seen[:end]), body: string(body), conn: number, in: in}
		rec.seen = append([]byte(nil), rec.seen[end:]...)
		a.mu.Lock()
		answer := a.answer
		if err != nil {
			a.broken = append(a.broken, one.raw)
		} else {
			a.got = append(a.got, one)
		}
		a.mu.Unlock()
		if err != nil {
			return
		}
		if answer == nil {
			answer = ok
		}
		if !answer(one, conn) || r.Close {
			return
		}
	}
}

// ok is the answer that an application gives when nothing else is wanted.
func ok(_ *received, conn net.Conn) (keep bool) {
	_, err := io.WriteString(conn, reply("200 OK", "ok\n", "Content-Type: text/plain"))
	return err == nil
}

// reply is an answer with a body of known length.
func reply(status, body string, header ...string) string {
	head := "HTTP/1.1 " + status + "\r\n"
	for _, line := range header {
		head += line + "\r\n"
	}
	return head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// answers makes every further answer of the application these bytes.
func (a *app) answers(bytes string) {
	a.answersBy(func(_ *received, conn net.Conn) bool {
		_, err := io.WriteString(conn, bytes)
		return err == nil
	})
}

// answersBy makes f answer from now on; the connection is kept where it is true.
func (a *app) answersBy(f func(r *received, conn net.Conn) (keep bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

// received are the requests so far.
func (a *app) received() []*received {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*received(nil), a.got...)
}

// one is the only request that has come since the last forget, and forgets it.
func (a *app) one(t testing.TB) *received {
	t.Helper()
	all := a.received()
	if len(all) != 1 {
		t.Fatalf("%d requests reached the application, want 1%s", len(all), a.text())
	}
	a.forget()
	return all[0]
}

// none checks that nothing has come since the last forget, not even bytes that are no request.
func (a *app) none(t testing.TB) {
	t.Helper()
	a.mu.Lock()
	n := len(a.got) + len(a.broken)
	a.mu.Unlock()
	if n > 0 {
		t.Errorf("something reached the application:%s", a.text())
	}
}

func (a *app) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got, a.broken = nil, nil
}

func (a *app) text() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for _, r := range a.got {
		fmt.Fprintf(&b, "\n%q", r.raw)
	}
	for _, raw := range a.broken {
		fmt.Fprintf(&b, "\nbroken: %q", raw)
	}
	return b.String()
}

// head are the header lines as they came.
func (r *received) head() []string {
	head, _, _ := strings.Cut(r.raw, "\r\n\r\n")
	return strings.Split(head, "\r\n")[1:]
}

// folded are the values of all lines that an application takes for the header name which tells names apart by their letters and digits
// alone, as CGI, WSGI and their like do.
func (r *received) folded(name string) (values []string) {
	for _, line := range r.head() {
		n, value, _ := strings.Cut(line, ":")
		if fold(n) == fold(name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

func fold(name string) string {
	return strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			return c
		}
		return -1
	}, strings.ToLower(name))
}

var (
	canonicalStart = regexp.MustCompile(`^[A-Z-]+ /[\x21-\x7e\x80-\xff]* HTTP/1\.1$`)
	canonicalField = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~` + "`" + `-]+: [^\x00-\x08\x0a-\x1f\x7f]*$`)
)

// canonical checks that no two parsers can read the bytes of a request differently: one form of line, and one length.
func (r *received) canonical(t testing.TB) {
	t.Helper()
	head, body, ok := strings.Cut(r.raw, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	if !ok || !canonicalStart.MatchString(lines[0]) {
		t.Errorf("request line %q", lines[0])
	}
	lengths, codings := 0, 0
	for _, line := range lines[1:] {
		if !canonicalField.MatchString(line) {
			t.Errorf("header line %q", line)
		}
		switch name, value, _ := strings.Cut(line, ": "); fold(name) {
		case "contentlength":
			lengths++
			if name != "Content-Length" || value != fmt.Sprint(len(body)) {
				t.Errorf("%q with a body of %d bytes", line, len(body))
			}
		case "transferencoding":
			codings++
			if line != "Transfer-Encoding: chunked" {
				t.Errorf("header line %q", line)
			}
		}
	}
	if lengths+codings > 1 {
		t.Errorf("%d lengths and %d codings in %q", lengths, codings, head)
	}
}

// reaches waits until n requests have come.
func (a *app) reaches(t testing.TB, n int) []*received {
	t.Helper()
	proctest.Eventually(t, "requests reach the application", func() error {
		if got := len(a.received()); got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
	return a.received()
}
