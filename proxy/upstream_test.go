package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/session"
)

// front is Postern's listener before one application, without the gate.
type front struct {
	*httptest.Server
	u       *upstream
	streams *streams
	failed  chan failure
}

// newFront forwards every request to the application at address. decide says as whom; nil is a public route.
func newFront(t testing.TB, address string, decide func(r *http.Request) forward, change ...func(*upstreamOptions)) *front {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	f := &front{streams: newStreams(nil), failed: make(chan failure, 100)}
	o := upstreamOptions{URLs: []*url.URL{at}, Ours: oursForTest, Streams: f.streams, Fail: func(w http.ResponseWriter, _ *http.Request, fail failure) {
		f.failed <- fail
		if fail.Status != statusClientClosed {
			w.WriteHeader(fail.Status)
		}
	}}
	for _, c := range change {
		c(&o)
	}
	if f.u, err = newUpstream(o); err != nil {
		t.Fatal(err)
	}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var fwd forward
		if decide != nil {
			fwd = decide(r)
		}
		fwd.Client = o.Forwarding.client(r)
		if ws := f.u.serve(w, r, fwd); ws != nil {
			ws.run(func() {})
		}
	}))
	f.Server.Start()
	t.Cleanup(func() {
		f.Server.CloseClientConnections()
		f.Server.Close()
		f.u.close()
	})
	return f
}

// trustingServer trusts the certificate of a test server.
func trustingServer(server *httptest.Server) func(*upstreamOptions) {
	return func(o *upstreamOptions) {
		o.TLS = func() (*tls.Config, error) {
			return &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}, nil
		}
	}
}

func asAlice(*http.Request) forward {
	return forward{Session: signedInAs(session.Identity{User: "alice", Email: "alice@example.com", Groups: []string{"staff"}}, "tok"), Bearer: "tok"}
}

// say sends raw bytes to a server and returns the answer's head and body, read until it is complete.
func say(t *testing.T, address, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	method, _, _ := strings.Cut(raw, " ")
	res, err := http.ReadResponse(r, &http.Request{Method: method})
	for err == nil && res.StatusCode == http.StatusContinue {
		res, err = http.ReadResponse(r, &http.Request{Method: method})
	}
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// rawApplication answers each request with answer and hands out the bytes of each request's head.
func rawApplication(t *testing.T, answer string) (address string, heads chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	heads = make(chan string, 100)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				var head strings.Builder
				for {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					head.WriteString(line)
					if line == "\r\n" {
						heads <- head.String()
						head.Reset()
						if _, err := io.WriteString(conn, answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return "http://" + ln.Addr().String(), heads
}

const answerOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

var oddTargets = []string{
	"/", "/?", "/a?", "/q?q=100%", "/q?a=1;b=2", "/q?q=%zz&ok=1", "/q?a=b&a=c&&=&", "/q?\"^{}|`<>", "/|\"^{}`<>", "/é?ü=\xff", "/%C3%A9", "/a%20b", "/a+b?c+d", "/C%23?x#y", "/a;b=c", "/%7Euser/%41",
	"/?a=/../b", "/q?a=//b", "/100%25",
}

func TestTargetArrivesAsSent(t *testing.T) {
	for _, base := range []string{"", "/base", "/base/", "/b%20c"} {
		address, heads := rawApplication(t, answerOK)
		f := newFront(t, address+base, asAlice)
		for _, target := range oddTargets {
			say(t, f.URL, "GET "+target+" HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")
			got, _, _ := strings.Cut(<-heads, "\r\n")
			if want := "GET " + strings.TrimSuffix(base, "/") + target + " HTTP/1.1"; got != want {
				t.Errorf("base %q: got %q, want %q", base, got, want)
			}
		}
	}
}

func TestAbsoluteFormIsForwardedAsPath(t *testing.T) {
	address, heads := rawApplication(t, answerOK)
	f := newFront(t, address+"/base", asAlice)
	say(t, f.URL, "GET http://wiki.example.com/a?b HTTP/1.1\r\nHost: other\r\n\r\n")
	head := <-heads
	if !strings.HasPrefix(head, "GET /base/a?b HTTP/1.1\r\nHost: wiki.example.com\r\n") {
		t.Errorf("got %q", head)
	}
}

// recorder is an application that notes the requests that it gets.
type recorder struct {
	mu   sync.Mutex
	last *http.Request
}

func (a *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = r
}

func (a *recorder) request() *http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func TestTargetArrivesAsSentOverHTTP2(t *testing.T) {
	for _, name := range []string{"h2c", "h2"} {
		t.Run(name, func(t *testing.T) {
			var app recorder
			server := httptest.NewUnstartedServer(&app)
			var f *front
			if name == "h2c" {
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Start()
				f = newFront(t, strings.Replace(server.URL, "http:", "h2c:", 1)+"/base", asAlice)
			} else {
				server.EnableHTTP2 = true
				server.StartTLS()
				f = newFront(t, server.URL+"/base", asAlice, trustingServer(server))
			}
			t.Cleanup(server.Close)
			for _, target := range oddTargets {
				res, _ := say(t, f.URL, "GET "+target+" HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")
				got := app.request()
				if res.StatusCode != 200 || got == nil {
					t.Fatalf("%q: %v", target, res.Status)
				}
				if got.RequestURI != "/base"+target || got.ProtoMajor != 2 || got.Host != "wiki.example.com" || got.Header.Get("Authorization") != "Bearer tok" {
					t.Errorf("%q arrives as %s %q at %q", target, got.Proto, got.RequestURI, got.Host)
				}
			}
		})
	}
}

// The seen-when-done line of the issue, and A50–A57, A63, A64, A66, A144.
func TestIdentityCannotBeForgedOrDropped(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	forged := "X-Forwarded-User: root\r\nX_Forwarded_User: root\r\nx.forwarded.user: root\r\nX-Forwarded-Email: root@x\r\nX-Forwarded-Preferred-Username: root\r\n" +
		"X-Forwarded-Groups: admins\r\nX-Forwarded-Groups: admins\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX-Original-URL: /admin\r\n" +
		"X-HTTP-Method-Override: DELETE\r\nClient-Cert: :YQ==:\r\nProxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nProxy: evil\r\nKeep-Alive: x\r\n" +
		"Authorization: Basic junk\r\nAuthorization_: Basic junk\r\nCookie: a=1; __Host-postern=secret; b=2\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nTE: trailers, gzip\r\n"
	for _, connection := range []string{
		"Connection: Authorization, X-Forwarded-User, X-Forwarded-Email, X-Forwarded-Groups, X-Forwarded-For, X-Request-Id, Host, Upgrade, HTTP2-Settings\r\n",
		"connection: authorization\r\nConnection: x-forwarded-user,x_forwarded_user,forwarded, upgrade\r\n",
		"",
	} {
		for _, method := range []string{"GET", "OPTIONS", "HEAD", "DELETE"} {
			f := newFront(t, server.URL, asAlice)
			say(t, f.URL, method+" /x HTTP/1.1\r\nHost: wiki.example.com\r\nAccept: text/html\r\n"+forged+connection+"\r\n")
			got := app.request().Header.Clone()
			if got.Get("X-Request-Id") == "" {
				t.Error("no request id")
			}
			got.Del("X-Request-Id")
			want := http.Header{
				"Accept": {"text/html"}, "Cookie": {"a=1; b=2"}, "Te": {"trailers"},
				"X-Forwarded-User": {"alice"}, "X-Forwarded-Email": {"alice@example.com"}, "X-Forwarded-Groups": {"staff"}, "Authorization": {"Bearer tok"},
				"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}, "X-Forwarded-Host": {"wiki.example.com"}, "X-Forwarded-Proto": {"http"}, "X-Forwarded-Port": {"80"},
				"Forwarded": {"for=127.0.0.1;host=wiki.example.com;proto=http"},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", method, diff)
			}
		}
	}
}

func TestPublicRoutesGetNoIdentity(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	raw := "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-User: root\r\nX_Auth_Request_Email: root\r\nAuthorization: Basic own\r\nCookie: __Host-postern=secret\r\n\r\n"
	for keep, want := range map[bool]string{true: "Basic own", false: ""} {
		f := newFront(t, server.URL, func(*http.Request) forward { return forward{KeepAuthorization: keep} })
		say(t, f.URL, raw)
		got := app.request().Header
		if got.Get("Authorization") != want || got.Get("X-Forwarded-User") != "" || got["X_auth_request_email"] != nil || got["Cookie"] != nil {
			t.Errorf("keep %v: got %v", keep, got)
		}
	}
	// With a session its token counts, even where the client's may pass.
	f := newFront(t, server.URL, func(r *http.Request) forward { fwd := asAlice(r); fwd.KeepAuthorization = true; return fwd })
	say(t, f.URL, raw)
	if got := app.request().Header["Authorization"]; len(got) != 1 || got[0] != "Bearer tok" {
		t.Errorf("got %v", got)
	}
}

// A56: request trailers are not headers to anyone, and are not announced.
func TestRequestTrailersAreDropped(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	say(t, f.URL, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-User\r\n\r\n2\r\nhi\r\n0\r\nX-Forwarded-User: root\r\n\r\n")
	if got := app.request(); len(got.Trailer) != 0 || got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("trailer %v, header %v", got.Trailer, got.Header)
	}
}

func TestServeRefusesWhatTheGateForgot(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	for _, line := range []string{"GET /a/../b", "GET //x", "GET /..;/x", "GET /%2e%2e/x", "GET *", "TRACE /", "get /"} {
		res, _ := say(t, f.URL, line+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if res.StatusCode != http.StatusBadRequest || app.request() != nil {
			t.Errorf("%q: %s", line, res.Status)
		}
	}
}

// A90–A93: whatever framing a client chose, the application gets canonical bytes.
func TestApplicationGetsCanonicalBytes(t *testing.T) {
	address, heads := rawApplication(t, answerOK)
	f := newFront(t, address, nil)
	for _, raw := range []string{
		"GET /x HTTP/1.1\nHost: a\nX-A: 1\n\n",
		"GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\t2\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		say(t, f.URL, raw)
		head := <-heads
		lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
		for _, line := range lines[1:] {
			if name, _, ok := strings.Cut(line, ": "); !ok || strings.ContainsAny(line, "\r\n") || textproto.CanonicalMIMEHeaderKey(name) != name {
				t.Errorf("%q arrives with line %q", raw, line)
			}
		}
		if strings.Contains(head, "Content-Length") && strings.Contains(head, "Transfer-Encoding") {
			t.Errorf("%q arrives with two lengths: %q", raw, head)
		}
	}
}

// A145, fact 11: the application cannot touch our cookies by any way, and what is already set for the final answer neither leaks into a 1xx nor gets lost.
func TestApplicationCannotSetOurCookies(t *testing.T) {
	for _, announce := range []string{"Trailer: Set-Cookie, X-Sum\r\n", ""} {
		address, _ := rawApplication(t, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nSet-Cookie: __Host-postern=early\r\nSet-Cookie: a=early\r\nConnection: x\r\n\r\n"+
			"HTTP/1.1 200 OK\r\nSet-Cookie: __Host-postern=evil\r\nSet-Cookie: a=1\r\nAlt-Svc: h3=\":1\"\r\nTransfer-Encoding: chunked\r\n"+announce+"\r\n2\r\nok\r\n0\r\nSet-Cookie: __Host-postern=late\r\nX-Sum: 1\r\n\r\n")
		u := newFront(t, address, asAlice).u
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Add("Set-Cookie", "__Host-postern=ours")
			w.Header().Set("X-Ours", "1")
			u.serve(w, r, forward{})
		}))
		defer server.Close()
		var early []textproto.MIMEHeader
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			early = append(early, h)
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(res.Body)
		res.Body.Close()
		if len(early) != 1 || early[0].Get("Link") != "</a.css>" || !cmp.Equal(early[0]["Set-Cookie"], []string{"a=early"}) || early[0].Get("Connection") != "" || early[0].Get("X-Ours") != "" {
			t.Errorf("103 is %v", early)
		}
		if diff := cmp.Diff([]string{"__Host-postern=ours", "a=1"}, res.Header["Set-Cookie"]); diff != "" {
			t.Error(diff)
		}
		if len(res.Trailer["Set-Cookie"]) > 0 || res.Trailer.Get("X-Sum") != "1" || res.Header.Get("Alt-Svc") != "" || res.Header.Get("X-Ours") != "1" {
			t.Errorf("trailer %v, header %v", res.Trailer, res.Header)
		}
	}
}

func TestCacheControlAndHSTS(t *testing.T) {
	const hsts = "max-age=15552000"
	withHSTS := func(o *upstreamOptions) { o.HSTS = hsts }
	for _, tt := range []struct {
		name, answer        string
		decide              func(*http.Request) forward
		cacheControl, stric string
	}{
		{"silent", "", asAlice, "private", hsts},
		{"public route", "", nil, "", hsts},
		{"explicit", "Cache-Control: public, max-age=5\r\nStrict-Transport-Security: max-age=1\r\n", asAlice, "public, max-age=5", "max-age=1"},
	} {
		address, _ := rawApplication(t, "HTTP/1.1 200 OK\r\n"+tt.answer+"Content-Length: 0\r\n\r\n")
		res, _ := say(t, newFront(t, address, tt.decide, withHSTS).URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got := strings.Join(res.Header["Cache-Control"], "|"); got != tt.cacheControl {
			t.Errorf("%s: Cache-Control %q", tt.name, got)
		}
		if got := strings.Join(res.Header["Strict-Transport-Security"], "|"); got != tt.stric {
			t.Errorf("%s: Strict-Transport-Security %q", tt.name, got)
		}
	}
}

func TestFailures(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	defer untrusted.Close()
	untrusted.Config.ErrorLog = nil
	garbage, _ := rawApplication(t, "HELLO\r\n\r\n")
	hangUp, _ := rawApplication(t, "")
	huge, _ := rawApplication(t, "HTTP/1.1 200 OK\r\nX-Huge: "+strings.Repeat("x", 1<<20)+"\r\nContent-Length: 0\r\n\r\n")
	switches, _ := rawApplication(t, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
	switchesH2C, _ := rawApplication(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	short := func(o *upstreamOptions) { o.HeaderTimeout = 50 * time.Millisecond }
	for _, tt := range []struct {
		name, address string
		status        int
		reason        string
	}{
		{"refused", "http://" + closed.Addr().String(), 502, "upstream_refused"},
		{"no socket", "unix:" + filepath.Join(t.TempDir(), "none.sock"), 502, "upstream_refused"},
		{"silent", "http://" + silent.Addr().String(), 504, "upstream_timeout"},
		{"untrusted certificate", untrusted.URL, 502, "upstream_tls"},
		{"garbage", garbage, 502, "upstream_broken"},
		{"silent after accepting", hangUp, 504, "upstream_timeout"},
		{"huge header", huge, 502, "upstream_broken"},
		{"unasked switch (A98)", switches, 502, "upstream_switched_protocol"},
		{"unasked switch to h2c", switchesH2C, 502, "upstream_switched_protocol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFront(t, tt.address, asAlice, short)
			res, body := say(t, f.URL, "GET /secret HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			got := <-f.failed
			if res.StatusCode != tt.status || got.Status != tt.status || got.Reason != tt.reason || got.Err == nil || body != "" {
				t.Errorf("got %s, %+v, %q", res.Status, got, body)
			}
		})
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		reason string
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, 502, "upstream_unknown_host"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "timeout", IsTimeout: true}}, 504, "upstream_timeout"},
		{context.DeadlineExceeded, 504, "upstream_timeout"},
		{io.ErrUnexpectedEOF, 502, "upstream_broken"},
	} {
		if got := (&leg{Context: t.Context()}).classify(tt.err); got.Status != tt.status || got.Reason != tt.reason {
			t.Errorf("%v is %+v", tt.err, got)
		}
	}
}

func TestClientThatLeftIs499(t *testing.T) {
	arrived := make(chan bool, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-r.Context().Done()
	}))
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "GET", f.URL, nil)
	go func() { <-arrived; cancel() }()
	if _, err := http.DefaultClient.Do(req); err == nil {
		t.Fatal("answered")
	}
	if got := <-f.failed; got.Status != statusClientClosed || got.Reason != "client_left" {
		t.Errorf("got %+v", got)
	}
}

func TestUploadThatBreaksOffIs499(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := <-f.failed; got.Status != statusClientClosed {
		t.Errorf("got %+v", got)
	}
}

func TestUploadTooLargeIs413(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	f := newFront(t, server.URL, nil)
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, 10)
		f.u.serve(w, r, forward{})
	}))
	defer limited.Close()
	res, err := http.Post(limited.URL, "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 100))))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := <-f.failed; res.StatusCode != 413 || got.Reason != "body_too_large" {
		t.Errorf("got %s, %+v", res.Status, got)
	}
}

// An answer that breaks off must not look complete to the client.
func TestBrokenAnswerIsBrokenForTheClient(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "part")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	res, err := http.Get(newFront(t, server.URL, asAlice).URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the client takes a part for the whole")
	}
}

// No retry surprises: a POST is sent once, whatever happens to it; redirects are the client's.
func TestNothingIsSentTwice(t *testing.T) {
	address, heads := rawApplication(t, "HELLO\r\n\r\n")
	f := newFront(t, address, asAlice)
	say(t, f.URL, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
	say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if n := len(heads); n != 2 {
		t.Errorf("two requests arrive %d times", n)
	}
	canary, canaryHeads := rawApplication(t, answerOK)
	address, _ = rawApplication(t, "HTTP/1.1 302 Found\r\nLocation: "+canary+"\r\nContent-Length: 0\r\n\r\n")
	res, _ := say(t, newFront(t, address, asAlice).URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if res.StatusCode != 302 || res.Header.Get("Location") != canary || len(canaryHeads) != 0 {
		t.Errorf("got %s to %q; the canary got %d requests", res.Status, res.Header.Get("Location"), len(canaryHeads))
	}
}

func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "up") // t.TempDir can be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "app.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var app recorder
	server := &http.Server{Handler: &app}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close() })
	for address, base := range map[string]string{"unix:" + path: "", "unix://" + path: "", "unix:" + path + ":/base": "/base"} {
		say(t, newFront(t, address, asAlice).URL, "GET /x?a;b HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")
		if got := app.request(); got.RequestURI != base+"/x?a;b" || got.Host != "wiki.example.com" || got.Header.Get("X-Forwarded-User") != "alice" {
			t.Errorf("%s: got %q at %q", address, got.RequestURI, got.Host)
		}
	}
}

func TestNewUpstreamRefuses(t *testing.T) {
	for _, address := range []string{"ftp://a", "http://", "http://u:p@a", "http://a?x=1", "http://a?", "http://a#f", "mailto:x", "unix:", "unix:relative", "unix://host/x", "http://a/../b", "http://a/b//c", "/just/a/path"} {
		at, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newUpstream(upstreamOptions{URLs: []*url.URL{at}}); err == nil {
			t.Errorf("%q is accepted", address)
		} else if strings.Contains(err.Error(), ":p@") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestHTTP2Client(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	u := newFront(t, server.URL, nil).u
	edge := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.serve(w, r, forward{Session: asAlice(r).Session, Client: forwarding{}.client(r)})
	}))
	edge.EnableHTTP2 = true
	edge.StartTLS()
	defer edge.Close()
	req, _ := http.NewRequestWithContext(t.Context(), "POST", edge.URL, strings.NewReader("x"))
	req.URL.Opaque = "/a?q=100%&b;c"
	req.Header["Cookie"] = []string{"a=1", "__Host-postern=x", "b=2"}
	res, err := edge.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	got := app.request()
	if res.ProtoMajor != 2 || got.RequestURI != "/a?q=100%&b;c" || got.Header.Get("Cookie") != "a=1; b=2" || got.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("%s: got %q, %v", res.Proto, got.RequestURI, got.Header)
	}
}

// A97: an upload that the application refuses early is not sent, and the connection does not get out of step.
func TestExpectContinue(t *testing.T) {
	address, heads := rawApplication(t, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	res, body := say(t, newFront(t, address, asAlice).URL, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
	if res.StatusCode != 403 || body != "no" || !strings.Contains(<-heads, "Expect: 100-continue") {
		t.Errorf("got %s %q", res.Status, body)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer server.Close()
	res, body = say(t, newFront(t, server.URL, asAlice).URL, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
	if res.StatusCode != 200 || body != "hello" {
		t.Errorf("got %s %q", res.Status, body)
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Bodies of any size stream through flat memory, both ways at once.
func TestLargeBodiesStream(t *testing.T) {
	const size = 128 << 20
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Got", fmt.Sprint(n))
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(w, zeros{}, size)
	}))
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, peak := heap(), uint64(0)
	watch := func() { peak = max(peak, heap()) }
	req, _ := http.NewRequestWithContext(t.Context(), "POST", f.URL, &watched{r: io.LimitReader(zeros{}, size), watch: watch})
	req.ContentLength = size
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	n, err := io.Copy(io.Discard, &watched{r: res.Body, watch: watch})
	if err != nil || n != size || res.Header.Get("X-Got") != fmt.Sprint(size) {
		t.Errorf("up %s, down %d, %v", res.Header.Get("X-Got"), n, err)
	}
	if peak > before+24<<20 {
		t.Errorf("the heap grows by %d MiB", (peak-before)>>20)
	}
}

// watched calls watch now and then while it is read.
type watched struct {
	r     io.Reader
	watch func()
	n     int
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.n += n; w.n >= 8<<20 {
		w.n = 0
		w.watch()
	}
	return n, err
}

func (w *watched) WriteTo(dst io.Writer) (int64, error) {
	return io.Copy(dst, struct{ io.Reader }{w})
}

func TestTLSNameIsTheConfiguredOne(t *testing.T) { // A150
	var mu sync.Mutex
	var names []string
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, h.ServerName)
		return nil, nil
	}}
	server.StartTLS()
	defer server.Close()
	f := newFront(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1), asAlice)
	say(t, f.URL, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	mu.Lock()
	defer mu.Unlock()
	if !cmp.Equal(names, []string{"localhost"}) {
		t.Errorf("SNI is %q", names)
	}
}

func BenchmarkUpstream(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1024))
	}))
	defer server.Close()
	at, _ := url.Parse(server.URL)
	ours := newFront(b, server.URL, nil).u
	bare := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.SetURL(at)
			pr.Out.Host = pr.In.Host
			pr.SetXForwarded()
		},
		Transport: ours.to.addresses[0].transport.main, BufferPool: &buffers{},
	}
	s := signedInAs(session.Identity{User: "alice", Email: "alice@example.com", Groups: []string{"staff", "admins"}}, strings.Repeat("t", 1193))
	for name, handler := range map[string]http.HandlerFunc{
		"bare": bare.ServeHTTP,
		"ours": func(w http.ResponseWriter, r *http.Request) {
			ours.serve(w, r, forward{Session: s, Client: forwarding{}.client(r)})
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := requestFrom("192.0.2.9:1", "Accept", "text/html", "User-Agent", "Mozilla/5.0", "Cookie", "__Host-postern="+strings.Repeat("c", 200)+"; a=1")
				r.URL = &url.URL{Path: "/a/b", RawQuery: "c=d"}
				r.RequestURI = "/a/b?c=d"
				w := httptest.NewRecorder()
				handler(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
