package wire_test

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/wire"
)

// BenchmarkReverseProxy is what a request through httputil.ReverseProxy costs with either transport, the server's side included, which costs little.
func BenchmarkReverseProxy(b *testing.B) {
	addr := canned(b, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nDate: Sun, 22 Nov 2026 04:00:00 GMT\r\nContent-Length: 1024\r\n\r\n"+
		strings.Repeat("x", 1024))
	std, own := transports(addr)
	for name, rt := range map[string]http.RoundTripper{"net/http": std, "wire": own} {
		b.Run(name, func(b *testing.B) {
			p := &httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(&url.URL{Scheme: "http", Host: addr})
					r.Out.Host = r.In.Host
					r.SetXForwarded()
					r.Out.Header["Authorization"] = bearer
				},
				Transport:  rt,
				BufferPool: &bufferPool{},
				ErrorLog:   log.New(io.Discard, "", 0),
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				r := httptest.NewRequestWithContext(ctx, "GET", "http://app.example/some/path?and=query", nil)
				r.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
				r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
				r.Header.Set("Accept-Language", "en-US,en;q=0.5")
				w := &discard{header: http.Header{}}
				for pb.Next() {
					clear(w.header)
					p.ServeHTTP(w, r)
					if w.status != 200 {
						b.Fatal(w.status)
					}
				}
			})
		})
	}
}

var bearer = []string{"Bearer " + strings.Repeat("t", 1193)}

// transports makes both for a server.
func transports(addr string) (*http.Transport, *wire.Transport) {
	dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
	standard := func() *http.Transport {
		return &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			MaxIdleConnsPerHost: 1024, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
			ResponseHeaderTimeout: 10 * time.Second, MaxResponseHeaderBytes: 256 << 10,
		}
	}
	return standard(), &wire.Transport{Dial: dial, Other: standard(), HeaderTimeout: 10 * time.Second, IdleTimeout: 90 * time.Second, MaxIdle: 1024, MaxHeader: 256 << 10}
}

// canned is a server that gives every request the same answer.
func canned(t testing.TB, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := io.WriteString(c, answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[32 << 10]byte); ok {
		return p[:]
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put((*[32 << 10]byte)(p)) }
