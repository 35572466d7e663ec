package wire_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/proxy/wire"
)

// Whatever a server says: both transports make the same of it.
func FuzzSameAnswerAsNetHTTP(f *testing.F) {
	for _, s := range scenarios {
		for _, answers := range s.conns {
			if said := strings.Join(answers, ""); len(said) < 8<<10 { // the fuzzer is slow with long ones
				f.Add(said, strings.HasPrefix(s.requests, "HEAD"))
			}
		}
	}
	f.Fuzz(func(t *testing.T, said string, head bool) {
		dial := func(context.Context) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				in := bufio.NewReader(server)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						break
					}
				}
				_, _ = io.WriteString(server, said)
			}()
			return client, nil
		}
		outcome := func(rt http.RoundTripper) string {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			r := newRequest(ctx, "GET", "app.example")
			if head {
				r.Method = "HEAD"
			}
			res, err := rt.RoundTrip(r)
			if err != nil {
				return class(err)
			}
			return describeAnswer(res)
		}
		const maxHeader = 64 << 10
		std := &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
		}
		defer std.CloseIdleConnections()
		own := &wire.Transport{Dial: dial, Other: &http.Transport{}, MaxHeader: maxHeader}
		t0 := time.Now()
		got, want := outcome(own), outcome(std)
		if time.Since(t0) > 5*time.Second {
			t.Errorf("slow %q %q", got, want)
		}
		if got != want {
			t.Errorf("got %q, net/http %q", got, want)
		}
	})
}
