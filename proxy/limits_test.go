package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func within(d time.Duration) func(*upstreamOptions) {
	return func(o *upstreamOptions) { o.Timeout = d }
}

// slowApp answers each path in its own slow way, until the request is given up.
func slowApp(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
		}
		if r.URL.Path != "/silent" {
			_, _ = io.WriteString(w, "begun\n")
			_ = http.NewResponseController(w).Flush()
		}
		if r.URL.Path == "/events" {
			time.Sleep(300 * time.Millisecond) // longer than the timeout
			_, _ = io.WriteString(w, "done\n")
			return
		}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestTimeoutBoundsTheExchange(t *testing.T) {
	f := newFront(t, slowApp(t), asAlice, within(100*time.Millisecond))
	res, _ := say(t, f.URL, "GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := <-f.failed; res.StatusCode != 504 || got.Reason != "upstream_timeout" || !errors.Is(got.Err, errTimeout) {
		t.Errorf("got %s, %+v", res.Status, got)
	}
	answer, err := http.Get(f.URL + "/begun")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err == nil || string(body) != "begun\n" {
		t.Errorf("the answer is not cut: %q, %v", body, err)
	}
}

// A client that uploads slowly is within the timeout too.
func TestTimeoutBoundsUploads(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	f := newFront(t, server.URL, asAlice, within(100*time.Millisecond))
	if res, _ := say(t, f.URL, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"); res.StatusCode != 504 {
		t.Errorf("got %s", res.Status)
	}
}

func TestTimeoutLeavesStreamsAlone(t *testing.T) {
	f := newFront(t, slowApp(t), asAlice, within(100*time.Millisecond))
	res, err := http.Get(f.URL + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "begun\ndone\n" {
		t.Errorf("got %q, %v", body, err)
	}

	said := make(chan bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, _ := http.NewResponseController(w).Hijack()
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		<-said
		b, _ := rw.ReadByte()
		_, _ = conn.Write([]byte{b})
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", newFront(t, server.URL, asAlice, within(100*time.Millisecond)).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
	r := bufio.NewReader(conn)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v", res, err)
	}
	time.Sleep(300 * time.Millisecond)
	close(said)
	_, _ = conn.Write([]byte{'x'})
	if b, err := r.ReadByte(); b != 'x' {
		t.Errorf("the WebSocket was cut: %v", err)
	}
}

func TestBodyLimit(t *testing.T) {
	address, n := countingEcho(t)
	f := newFront(t, address, asAlice, func(o *upstreamOptions) { o.MaxBody = 5 })
	for _, tt := range []struct {
		name, raw string
		status    int
	}{
		{"as much as may be", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 200},
		{"as much, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200},
		{"announced", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nhello!", 413},
		{"announced, and much", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n", 413}, // answered before it comes
		{"announced, with Expect", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", 413},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n3\r\nlo!\r\n0\r\n\r\n", 413},
	} {
		before := n.Load()
		res, _ := say(t, f.URL, tt.raw)
		if res.StatusCode != tt.status {
			t.Errorf("%s: got %s", tt.name, res.Status)
		}
		if strings.HasPrefix(tt.name, "announced") && n.Load() != before {
			t.Errorf("%s: the application was asked", tt.name)
		}
		if tt.status == 413 {
			if got := <-f.failed; got.Reason != "body_too_large" {
				t.Errorf("%s: got %+v", tt.name, got)
			}
		}
	}
}
