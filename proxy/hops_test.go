package proxy

import (
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What httputil.ReverseProxy would take from a header is taken where it never sees the header, too; and one that has more to say of neighbours goes by it.
func TestPlainHeadersLoseWhatTheReverseProxyWouldTake(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		plain bool
	}{
		{nil, true},
		{[]string{"Connection: keep-alive", "Keep-Alive: timeout=5"}, true},
		{[]string{"Connection: Close", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "Proxy-Authenticate: Basic"}, true},
		{[]string{"Trailer: X-Sum", "Transfer-Encoding: chunked"}, true},
		{[]string{"Connection: X-Secret", "X-Secret: 1"}, false},
		{[]string{"Connection: keep-alive, X-Secret", "X-Secret: 1"}, false},
		{[]string{"Connection: keep-alive", "Connection: X-Secret", "X-Secret: 1"}, false},
		{[]string{"Connection: Upgrade", "Upgrade: websocket"}, false},
		{[]string{"Upgrade: h2c"}, false},
		{[]string{"Te: trailers"}, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header = from(append(tt.lines, "Accept: text/html", "Cookie: a=1", "Cookie: b=2", "X-Own: 1")...)
		if got := saysNothingOfHops(r.Header); got != tt.plain {
			t.Errorf("%q: %v", tt.lines, got)
		}
		if !tt.plain {
			continue
		}
		var want http.Header
		(&httputil.ReverseProxy{
			Rewrite:      func(pr *httputil.ProxyRequest) { want = pr.Out.Header.Clone() },
			Transport:    nowhere{},
			ErrorHandler: func(http.ResponseWriter, *http.Request, error) {},
		}).ServeHTTP(httptest.NewRecorder(), r)
		got := maps.Clone(r.Header)
		maps.DeleteFunc(got, func(name string, _ []string) bool { return isHopByHop(name) })
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%q: got, want:\n%s", tt.lines, diff)
		}
	}
}

// nowhere carries no request.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("nowhere") }

// from reads the lines of a header.
func from(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}
