package wire

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Whatever a request holds: what goes out is what net/http would send, and reads as one request.
func FuzzRequestAsNetHTTPWritesIt(f *testing.F) {
	f.Add("GET", "/", "app.example", "X", "a", "Y", "b")
	f.Add("DELETE", "/a b?c=d", "app.example:80", "x-lower", " a\t", "User-Agent", "")
	f.Add("HEAD", "//twice", "[::1]:80", "Host", "evil", "Content-Length", "5")
	f.Add("OPTIONS", "*", "", "Transfer-Encoding", "chunked", "Trailer", "X")
	f.Add("GE T", "/\r\nX: y", "a\r\nb", "X\r\n", "a\r\nY: b", "", "\x00")
	f.Add("", "/%2f", "a@b", "User-Agent", "a", "user-agent", "b")
	f.Add("GET", "/é", "bücher.example", "X", "ü\x7f", "Connection", "close")
	f.Add("GET", "/", "a", "User-Agent", " \t", "X", "12345678\x0912345678\x8012345678\x1f")
	f.Fuzz(func(t *testing.T, method, target, host, name, value, name2, value2 string) {
		r := &http.Request{
			Method: method, Host: host, URL: &url.URL{Scheme: "http", Host: "upstream.example", Opaque: target},
			Header: http.Header{"User-Agent": {""}},
		}
		r.Header[name] = append(r.Header[name], value)
		r.Header[name2] = append(r.Header[name2], value2)
		var q request
		if !q.write(r) {
			return
		}
		var want bytes.Buffer
		if err := r.Write(&want); err != nil || !bytes.Equal(q.bytes, want.Bytes()) {
			t.Errorf("got %q\nnet/http %q, %v", q.bytes, want.Bytes(), err)
		}
		in := bufio.NewReader(bytes.NewReader(q.bytes))
		read, err := http.ReadRequest(in)
		if err != nil {
			if _, bad := url.ParseRequestURI(target); bad == nil && strings.HasPrefix(target, "/") { // net/http writes others too, but reads none
				t.Errorf("cannot be read: %v: %q", err, q.bytes)
			}
			return
		}
		if read.Method != r.Method || read.RequestURI != r.URL.RequestURI() || in.Buffered() > 0 || read.ContentLength > 0 || len(read.TransferEncoding) > 0 {
			t.Errorf("reads as another request: %q", q.bytes)
		}
		for name := range read.Header {
			if !slices.Contains([]string{"User-Agent", http.CanonicalHeaderKey(name), http.CanonicalHeaderKey(name2)}, name) {
				t.Errorf("%s was never set: %q", name, q.bytes)
			}
		}
	})
}

// No control character hides among eight bytes, whatever stands around it.
func TestIsFieldValue(t *testing.T) {
	for _, around := range []string{"a", " ", "\t", "~", "\x80", "\xff"} {
		for b := range 256 {
			for at := range 20 {
				value := []byte(strings.Repeat(around, 20))
				value[at] = byte(b)
				want := b == '\t' || b >= ' ' && b != 0x7f
				if isFieldValue(value) != want {
					t.Fatalf("%q: got %t", value, !want)
				}
			}
		}
	}
}
