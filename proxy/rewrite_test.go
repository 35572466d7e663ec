package proxy

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// relocating is a leg to the first of some addresses, as wiki.example.com.
func relocating(t *testing.T, prefix string, addresses ...string) *leg {
	t.Helper()
	o := upstreamOptions{StripPrefix: prefix, RewriteResponse: true}
	for _, address := range addresses {
		at, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		o.URLs = append(o.URLs, at)
	}
	u, err := newUpstream(o)
	if err != nil {
		t.Fatal(err)
	}
	return &leg{u: u, at: u.to.addresses[0], f: forward{Client: clientInfo{Host: "wiki.example.com", Scheme: "https"}}}
}

func TestReferencesBecomeWhatTheBrowserSees(t *testing.T) {
	for _, tt := range []struct{ prefix, address, reference, want string }{
		{"", "http://app:8080", "http://app:8080/x?q#f", "/x?q#f"},
		{"", "http://app:8080", "http://APP:8080", "/"},
		{"", "http://app:8080", "//app:8080/x", "/x"},
		{"", "http://app", "http://app:80/x", "/x"},
		{"", "https://app", "https://app:443/x", "/x"},
		{"", "h2c://app:8080", "http://app:8080/x", "/x"},
		{"", "http://app:8080", "http://replica:8080/x", "/x"}, // the route's other address
		{"", "http://app:8080/base", "http://app:8080/base/x", "/x"},
		{"", "http://app:8080/base", "/base/x", "/x"},
		{"", "http://app:8080/base", "/base", "/"},
		{"/app", "http://app:8080", "http://app:8080/x", "/app/x"},
		{"/app", "http://app:8080", "/x?q", "/app/x?q"},
		{"/app", "http://app:8080", "/", "/app/"},
		{"/app", "http://app:8080/base", "/base/%2Fx", "/app/%2Fx"},
		{"/app", "http://app:8080", "http://wiki.example.com/x", "/app/x"}, // it was asked for that host
		{"/app", "http://app:8080", "https://wiki.example.com:443/x", "/app/x"},
		{"/my files", "http://app:8080", "/x", "/my%20files/x"},
		// Other hosts and what else is not the application's own.
		{"/app", "http://app:8080", "http://app:9090/x", "="},
		{"/app", "http://app:8080", "https://app:8080/x", "="},
		{"/app", "http://app:8080", "http://app.evil:8080/x", "="},
		{"/app", "http://app:8080", "http://app:8080@evil/x", "="},
		{"/app", "http://app:8080", "http://user@app:8080/x", "="},
		{"/app", "http://app:8080", "//evil/x", "="},
		{"/app", "http://app:8080", "mailto:a@app", "="},
		{"/app", "http://app:8080/base", "http://app:8080/basement", "="},
		{"/app", "http://app:8080/base", "/elsewhere", "="},
		{"/app", "http://app:8080", "x/y", "="},
		{"/app", "http://app:8080", "../x", "="},
		{"/app", "http://app:8080", "?q", "="},
		{"/app", "http://app:8080", "", "="},
		{"/app", "http://app:8080", "http://app:8080/%zz", "="},
		// A path that would name another host without its own in front.
		{"", "http://app:8080", "http://app:8080//evil/x", "="},
		{"", "http://app:8080", "http://app:8080/\\evil/x", "/%5Cevil/x"},
		{"", "http://app:8080/base", "/base//evil/x", "="},
		{"/app", "http://app:8080", "http://app:8080//evil/x", "/app//evil/x"},
	} {
		if tt.want == "=" {
			tt.want = tt.reference
		}
		if got := relocating(t, tt.prefix, tt.address, "http://replica:8080").outward(tt.reference); got != tt.want {
			t.Errorf("%q from %s behind %q: got %q, want %q", tt.reference, tt.address, tt.prefix, got, tt.want)
		}
	}
}

func TestCookiesBecomeWhatTheBrowserSees(t *testing.T) {
	for _, tt := range []struct{ prefix, address, line, want string }{
		{"/app", "http://app:8080", "a=1; Path=/; HttpOnly", "a=1; Path=/app; HttpOnly"},
		{"/app", "http://app:8080", "a=1;path=/x/;Secure", "a=1; Path=/app/x;Secure"},
		{"/app", "http://app:8080", "a=1; Domain=app; Secure", "a=1; Secure"},
		{"/app", "http://app:8080", "a=1; domain=.APP", "a=1"},
		{"", "http://app:8080/base", "a=1; Path=/base", "a=1; Path=/"},
		{"", "http://app:8080/base", "a=1; Path=/base/x", "a=1; Path=/x"},
		{"/app", "http://app:8080/base", "a=1; Path=/", "="},
		{"/app", "http://app:8080", "a=1; Domain=example.com", "="},
		{"/app", "http://app:8080", "a=1; Domain=myapp", "="},
		{"/app", "http://app:8080", "a=1; Path", "="},
		{"/app", "http://app:8080", "a=1; Path=x", "="},
		{"/app", "http://app:8080", "__Host-a=1; Path=/; Secure", "="},
		{"/app", "http://app:8080", "a=Path=/; Max-Age=5", "="},
		{"/app", "http://app:8080", "", "="},
	} {
		if tt.want == "=" {
			tt.want = tt.line
		}
		if got := relocating(t, tt.prefix, tt.address).outwardCookie(tt.line); got != tt.want {
			t.Errorf("%q from %s behind %q: got %q, want %q", tt.line, tt.address, tt.prefix, got, tt.want)
		}
	}
}

// Our own cookies stay out of an application's hands, whatever it is allowed to have rewritten; without the option nothing is.
func TestAnswersAreRewrittenWhereAsked(t *testing.T) {
	address, _ := rawApplication(t, "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Location: /y\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: __Host-postern=evil; Path=/\r\nContent-Length: 0\r\n\r\n")
	for rewrites, want := range map[bool][]string{true: {"/app/x", "/app/y", "a=1; Path=/app"}, false: {"/x", "/y", "a=1; Path=/"}} {
		f := newFront(t, address, asAlice, func(o *upstreamOptions) { o.StripPrefix, o.RewriteResponse = "/app", rewrites })
		res, _ := say(t, f.URL, "GET /app HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")
		got := []string{res.Header.Get("Location"), res.Header.Get("Content-Location"), strings.Join(res.Header["Set-Cookie"], "|")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("rewrite_response %v: %s", rewrites, diff)
		}
	}
}

// Whatever an application says, a rewritten reference never leads a browser to another origin than the application's own did.
func FuzzRewrittenReferenceStaysHere(f *testing.F) {
	for _, reference := range []string{"http://app:8080/x", "//app:8080//evil", "/\\evil", "http://app:8080/\t/evil", "http:/app:8080", "http://app:8080//evil?x"} {
		f.Add(reference)
	}
	u, err := newUpstream(upstreamOptions{URLs: []*url.URL{{Scheme: "http", Host: "app:8080"}}, RewriteResponse: true})
	if err != nil {
		f.Fatal(err)
	}
	l := &leg{u: u, at: u.to.addresses[0], f: forward{Client: clientInfo{Host: "wiki.example.com", Scheme: "https"}}}
	f.Fuzz(func(t *testing.T, reference string) {
		got := l.outward(reference)
		if got == reference {
			return
		}
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\t\r\n") {
			t.Fatalf("%q becomes %q", reference, got)
		}
		if u, err := url.Parse(got); err != nil || u.Host != "" || u.Scheme != "" {
			t.Fatalf("%q becomes %q, which names %v", reference, got, u)
		}
	})
}
