//go:build !race

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"postern/proxy/proxytest"
)

// moreAllocations is how many allocations a signed-in request, its line in the log included, needs beyond a bare httputil.ReverseProxy with the standard
// transport: below zero, it needs fewer. The count is exact: whoever needs more has to say so here, and whoever needs fewer lowers it.
const moreAllocations = -15

func TestASignedInRequestAllocatesNoMore(t *testing.T) {
	own, bare := hotPath(t)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties pools, which are then filled again
	more := testing.AllocsPerRun(500, own) - testing.AllocsPerRun(500, bare)
	if more > moreAllocations {
		t.Errorf("a signed-in request needs %.0f allocations more than a bare proxy; it was %d", more, moreAllocations)
	}
}

func BenchmarkSignedIn(b *testing.B) {
	own, _ := hotPath(b)
	b.ReportAllocs()
	for b.Loop() {
		own()
	}
}

func BenchmarkBareProxy(b *testing.B) {
	_, bare := hotPath(b)
	b.ReportAllocs()
	for b.Loop() {
		bare()
	}
}

// BenchmarkServed is a request with all of net/http's server around it, over many connections. `make pgo` takes its profile.
func BenchmarkServed(b *testing.B) {
	const config = `
server: {listen: "${LISTEN}", log: {requests: %s}}
session: {cache: {max_stale: %s}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}"}
  - {path: /public/, upstream: "${UPSTREAM}", access: public}
`
	for _, bb := range []struct{ name, path, logged, stale string }{
		{"signed in", "/page?with=query", "0", "1m"},
		{"public", "/public/page", "0", "1m"},
		{"cache off", "/page?with=query", "0", "0s"},
		{"logged", "/page?with=query", "1", "1m"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := proxytest.New(b, proxytest.Options{Config: fmt.Sprintf(config, bb.logged, bb.stale), Env: map[string]string{"UPSTREAM": "http://" + application(b)}})
			browser := s.Browser()
			if a := browser.Go(s.URL + "/"); a.StatusCode != 200 {
				b.Fatalf("sign-in ended with %s", a.Status)
			}
			at := strings.TrimPrefix(s.URL, "http://")
			request := []byte("GET " + bb.path + " HTTP/1.1\r\nHost: " + at + "\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\nAccept-Language: en\r\n" +
				"Accept-Encoding: gzip\r\nConnection: keep-alive\r\nSec-Fetch-Mode: navigate\r\nCookie: " + cookieLine(browser) + "\r\n\r\n")
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", at)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				for pb.Next() {
					if _, err := conn.Write(request); err != nil {
						b.Error(err)
						return
					}
					if err := readHello(in); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// readHello reads an answer of [application].
func readHello(in *bufio.Reader) error {
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("got %q", line)
		case len(line) == 2:
			_, err = in.Discard(len("hello"))
			return err
		}
	}
}

// cookieLine is what a browser would send of its cookies.
func cookieLine(b *proxytest.Browser) string {
	var cookies []string
	for _, c := range b.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	return strings.Join(cookies, "; ")
}

// hotPath returns a request of alice to an application through Postern, and the same through a bare proxy.
func hotPath(t testing.TB) (own, bare func()) {
	t.Helper()
	app := application(t)
	s := proxytest.New(t, proxytest.Options{Env: map[string]string{"UPSTREAM": "http://" + app}})
	b := s.Browser()
	if a := b.Go(s.URL + "/"); a.StatusCode != 200 {
		t.Fatalf("sign-in ended with %s", a.Status)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	to := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: app})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:  transport,
		BufferPool: &oneBuffer{},
	}
	// A server's context can be canceled, which costs.
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), http.ServerContextKey, &http.Server{}))
	t.Cleanup(cancel)
	request := func() *http.Request {
		r := httptest.NewRequestWithContext(ctx, "GET", s.URL+"/page?with=query", nil)
		r.RequestURI = "/page?with=query"
		r.RemoteAddr = "192.0.2.7:4711"
		for name, value := range map[string]string{
			"Accept": "text/html,application/xhtml+xml", "Accept-Language": "en", "Accept-Encoding": "gzip", "User-Agent": "Mozilla/5.0",
			"Sec-Fetch-Mode": "navigate", "Cookie": cookieLine(b),
		} {
			r.Header.Set(name, value)
		}
		return r
	}
	send := func(h http.Handler) func() {
		w, r := &answer{header: http.Header{}}, request()
		return func() {
			clear(w.header)
			h.ServeHTTP(w, r)
			if w.status != 200 {
				t.Fatalf("got %d", w.status)
			}
		}
	}
	return send(s.Proxy), send(to)
}

// application answers every request with the same page and allocates nothing.
func application(t testing.TB) string {
	t.Helper()
	const page = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						_, _ = io.WriteString(c, page)
					}
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// answer is a response that nobody reads.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }

// oneBuffer is enough for one request at a time.
type oneBuffer [32 << 10]byte

func (b *oneBuffer) Get() []byte { return b[:] }
func (b *oneBuffer) Put([]byte)  {}
