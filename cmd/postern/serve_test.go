package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/config"
	"postern/proxy/proxytest"
)

// running is a Postern in this process whose context stands for SIGTERM.
type running struct {
	url, admin string
	terminate  context.CancelFunc
	done       chan error
}

// start serves the routes until terminate; drain_delay holds new requests off for a moment.
func start(t *testing.T, server, routes string) *running {
	t.Helper()
	public, admin := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "postern.yaml")
	text := fmt.Sprintf("server: {listen: %q, admin_listen: %q, log: {level: error}, %s}\n"+
		"providers:\n  corp: {issuer: \"http://127.0.0.1:1\", client_id: wiki, client_secret: secret}\nroutes:\n%s\n", public, admin, server, routes)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := serveFile(t, file)
	r.url, r.admin = "http://"+public, "http://"+admin
	proxytest.Eventually(t, func() bool { code, _ := get(r.admin + "/healthz"); return code == http.StatusOK })
	return r
}

// serveFile serves a configuration until the test ends.
func serveFile(t *testing.T, file string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{terminate: cancel, done: make(chan error, 1)}
	go func() { r.done <- serve(ctx, &options{config: file}) }()
	t.Cleanup(cancel)
	return r
}

func TestRedisOverTLSNeedsNoCAFile(t *testing.T) {
	cfg := &config.Config{}
	cfg.Session.Store.Redis = &config.Redis{URL: &url.URL{Scheme: "rediss", Host: "127.0.0.1:1", Path: "/0"}, Timeout: time.Second}
	store, err := openStore(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	store.Close()
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(address string) (int, string) {
	resp, err := http.Get(address)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func TestTerminationIsNotReadyThenFinishesWhatRuns(t *testing.T) {
	arrived, finish := make(chan struct{}), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-finish
		}
		fmt.Fprint(w, "done")
	}))
	defer app.Close()
	r := start(t, "drain_delay: 300ms, shutdown_timeout: 20s", "  - {access: public, upstream: \""+app.URL+"\"}")
	slow := make(chan string, 1)
	go func() { code, body := get(r.url + "/slow"); slow <- fmt.Sprint(code, " ", body) }()
	<-arrived
	r.terminate()
	proxytest.Eventually(t, func() bool { code, _ := get(r.admin + "/readyz"); return code == http.StatusServiceUnavailable })
	if code, _ := get(r.url + "/"); code != http.StatusOK {
		t.Errorf("a request within drain_delay: %d", code)
	}
	proxytest.Eventually(t, func() bool { code, _ := get(r.url + "/"); return code == 0 }) // no longer accepting
	close(finish)
	if got := <-slow; got != "200 done" {
		t.Errorf("the running request: %s", got)
	}
	if err := <-r.done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestTerminationEndsWebSocketsWith1001AndStreams(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: first\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	}))
	defer app.Close()
	r := start(t, "shutdown_timeout: 2s", "  - {access: public, upstream: \""+app.URL+"\"}")
	c, _, err := websocket.Dial(t.Context(), strings.Replace(r.url, "http", "ws", 1)+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(t.Context()); err != nil || string(b) != "hello" {
		t.Fatalf("echo: %q %v", b, err)
	}
	events, err := http.Get(r.url + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	r.terminate()
	_, _, err = c.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("the WebSocket ended with %v, want close 1001", err)
	}
	_, _ = io.ReadAll(events.Body) // ends, cut or not
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("streams held the process up")
	}
}

func TestRequestsThatOutliveShutdownTimeoutAreCut(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer app.Close()
	r := start(t, "shutdown_timeout: 200ms", "  - {access: public, upstream: \""+app.URL+"\"}")
	hung := make(chan int, 1)
	go func() { code, _ := get(r.url + "/"); hung <- code }()
	proxytest.Eventually(t, func() bool {
		select {
		case <-hung:
			t.Fatal("ended early")
		default:
		}
		return true
	})
	r.terminate()
	<-hung
	if err := <-r.done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestListenersOpenAllOrNone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "postern.yaml")
	public := freePort(t)
	text := fmt.Sprintf("server: {listen: %q, admin_listen: %q, log: {level: error}}\n"+
		"providers:\n  corp: {issuer: \"http://127.0.0.1:1\", client_id: wiki}\nroutes:\n  - {upstream: \"http://127.0.0.1:1\"}\n", public, taken.Addr())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), &options{config: file}); err == nil || !strings.Contains(err.Error(), "server.admin_listen") {
		t.Errorf("serve: %v", err)
	}
	l, err := net.Listen("tcp", public)
	if err != nil {
		t.Fatalf("the public listener stayed open: %v", err)
	}
	l.Close()
}
