package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

const (
	openingHandshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
	handshakeAnswer  = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)

// openingApplication is an application that hands the connection of every handshake to talk.
func openingApplication(talk func(conn net.Conn, in *bufio.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		talk(conn, rw.Reader)
	}
}

// opened opens a WebSocket and sends ahead with the handshake. in is behind the answer.
func opened(t *testing.T, f *front, ahead string) (conn *net.TCPConn, in *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, openingHandshake+ahead); err != nil {
		t.Fatal(err)
	}
	in = bufio.NewReader(c)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", res, err)
	}
	return c.(*net.TCPConn), in
}

// What comes in one piece with the handshake or its answer is read by net/http, and passes all the same, before what follows.
func TestWebSocketBytesArriveThatCameWithTheHandshake(t *testing.T) {
	early, late := strings.Repeat("early ", 500), strings.Repeat("late ", 50_000)
	app := openingApplication(func(conn net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(conn, handshakeAnswer+early)
		_, _ = io.CopyN(conn, in, int64(len(early+late)))
	})
	plain, secure := httptest.NewServer(app), httptest.NewTLSServer(app)
	defer plain.Close()
	defer secure.Close()
	for _, server := range []*httptest.Server{plain, secure} {
		f := newFront(t, server.URL, asAlice)
		if server == secure {
			f = newFront(t, server.URL, asAlice, trustingServer(server))
		}
		conn, in := opened(t, f, early)
		go func() { _, _ = io.WriteString(conn, late) }()
		if got, err := io.ReadAll(in); err != nil || string(got) != early+early+late {
			t.Errorf("%s: %d bytes arrive, %v", server.URL, len(got), err)
		}
		waitForCount(t, f.streams, 0)
	}
}

// A client that has said all still hears; when the application has, it is over.
func TestAClientMayEndItsSideOfAWebSocket(t *testing.T) {
	server := httptest.NewServer(openingApplication(func(conn net.Conn, in *bufio.Reader) {
		_, _ = io.WriteString(conn, handshakeAnswer)
		said, _ := io.ReadAll(in)
		_, _ = conn.Write(bytes.ToUpper(said))
	}))
	defer server.Close()
	f := newFront(t, server.URL, asAlice)
	conn, in := opened(t, f, "hel")
	_, _ = io.WriteString(conn, "lo")
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); string(got) != "HELLO" || err != nil {
		t.Errorf("the client hears %q, %v", got, err)
	}
	waitForCount(t, f.streams, 0)
}

func TestAWebSocketOutlivesItsHandler(t *testing.T) {
	address, _ := echoApplication(t)
	f := newFront(t, address, asAlice)
	returned, over := make(chan bool), make(chan bool)
	f.Server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fwd := asAlice(r)
		fwd.Client = forwarding{}.client(r)
		f.u.serve(w, r, fwd).run(func() { close(over) })
		close(returned)
	})
	c := dialWebSocket(t, f)
	<-returned
	echo(t, c, []byte("hi"))
	select {
	case <-over:
		t.Error("it is over while it is open")
	default:
	}
	_ = c.Close(websocket.StatusNormalClosure, "")
	<-over
}
