package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"postern/config"
	"postern/proxy"
	"postern/proxy/metrics"
	"postern/proxy/proxytest"
	"postern/session/memstore"
)

// inProcess is a reloader without listeners; a test server stands before it.
func inProcess(t *testing.T, text string) (r *reloader, server *httptest.Server, log *proxytest.Log) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := &options{config: file}
	cfg, err := load(o)
	if err != nil {
		t.Fatal(err)
	}
	log = &proxytest.Log{}
	level := new(slog.LevelVar)
	setLevel(level, cfg.Server.Log)
	env := proxy.Env{Store: memstore.New(memstore.Options{}), Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: level})), Metrics: metrics.New("test")}
	first, err := newGeneration(cfg, env, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := newGenerations(first, env.Log)
	files := look(append(cfg.Files(), file)...)
	r = &reloader{o: o, env: env, level: level, all: all, cfg: cfg, watcher: watcher{seen: files}, taken: files}
	server = httptest.NewServer(all.handler(func(g *generation) http.Handler { return g.proxy }))
	t.Cleanup(server.Close)
	return r, server, log
}

// rewrite changes the configuration and has it read.
func (r *reloader) rewrite(t *testing.T, text string) {
	t.Helper()
	before := r.current()
	if err := os.WriteFile(r.o.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.reload(); r.current() == before {
		t.Fatal("it was not taken")
	}
}

const openToAll = "server: {listen: \"127.0.0.1:0\"}\nproviders: {corp: {issuer: 'http://127.0.0.1:1', client_id: wiki, client_secret: secret}}\nroutes:\n  - {access: public, upstream: 'APP'}\n"

func TestOlderGenerationsLeaveNothingBehind(t *testing.T) {
	app := namedApp(t, "app")
	before := goleak.IgnoreCurrent()
	text := strings.Replace(openToAll, "APP", app.URL, 1)
	r, server, _ := inProcess(t, text)
	for n := range 20 {
		r.rewrite(t, text+fmt.Sprintf("  - {path: /%d, access: deny}\n", n))
		if code, body := get(server.URL + "/x"); code != http.StatusOK {
			t.Fatalf("%d %s", code, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	server.Close()
	if err := r.all.close(t.Context()); err != nil {
		t.Error(err)
	}
	if len(r.all.old) > 0 {
		t.Errorf("%d are left", len(r.all.old))
	}
	goleak.VerifyNone(t, before, goleak.IgnoreTopFunction("net/http.(*Server).Serve"))
}

func TestAnOlderGenerationLastsAsLongAsItsWebSockets(t *testing.T) {
	text := strings.Replace(openToAll, "APP", namedApp(t, "app").URL, 1)
	r, server, _ := inProcess(t, text)
	c, _, err := websocket.Dial(t.Context(), server.URL+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := r.current()
	r.rewrite(t, text+"  - {path: /x, access: deny}\n")
	proxytest.Eventually(t, func() bool { return before.requests.Load() == 0 })
	if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-before.idle:
		t.Error("it is idle with an open WebSocket")
	default:
	}
	_ = c.CloseNow()
	<-before.idle
	if err := r.all.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is no more than remembered has no connections to applications left.
func TestAnOlderGenerationGivesConnectionsBackWithItsLastRequest(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	closed := make(chan struct{}, 1)
	app.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	app.Start()
	defer app.Close()
	text := strings.Replace(openToAll, "APP", app.URL, 1)
	r, server, _ := inProcess(t, text)
	if code, body := get(server.URL + "/x"); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	r.rewrite(t, text+"  - {path: /x, access: deny}\n")
	select {
	case <-closed:
	case <-time.After(20 * time.Second): // an unused connection lasts for 90
		t.Error("the connection is still open")
	}
	if err := r.all.close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTooManyOlderGenerationsLoseTheStreamsOfTheOldest(t *testing.T) {
	text := strings.Replace(openToAll, "APP", namedApp(t, "app").URL, 1)
	r, server, _ := inProcess(t, text)
	var conns []*websocket.Conn
	for n := range maxOld + 1 {
		c, _, err := websocket.Dial(t.Context(), server.URL+"/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		conns = append(conns, c)
		r.rewrite(t, text+fmt.Sprintf("  - {path: /%d, access: deny}\n", n))
	}
	_, _, err := conns[0].Read(t.Context())
	if closed := (websocket.CloseError{}); !errors.As(err, &closed) || closed.Code != websocket.StatusGoingAway {
		t.Errorf("the oldest ended with %v, want close 1001", err)
	}
	for i, c := range conns[1:] {
		if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
			t.Errorf("%d: %v", i+1, err)
		}
		if _, _, err := c.Read(t.Context()); err != nil {
			t.Errorf("%d: %v", i+1, err)
		}
	}
	proxytest.Eventually(t, func() bool { r.all.mu.Lock(); defer r.all.mu.Unlock(); return len(r.all.old) == maxOld })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		for _, c := range conns[1:] {
			_, _, _ = c.Read(ctx) // and so answers the close frame
		}
	}()
	r.all.drainStreams(ctx) // reaches the streams of all
	if ctx.Err() != nil {
		t.Error("streams of older generations were not ended")
	}
	server.Close()
	if err := r.all.close(ctx); err != nil {
		t.Error(err)
	}
}

// A request that was begun is finished by the configuration that let it in, and shutting down waits for it.
func TestRequestUnderWayEndsWhereItBegan(t *testing.T) {
	arrived, finish := make(chan struct{}), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-finish
		}
		fmt.Fprint(w, "done")
	}))
	defer app.Close()
	text := strings.Replace(openToAll, "APP", app.URL, 1)
	r, server, _ := inProcess(t, text)
	got := make(chan string, 1)
	go func() { code, body := get(server.URL + "/slow"); got <- fmt.Sprint(code, " ", body) }()
	<-arrived
	r.rewrite(t, strings.Replace(text, "public", "deny", 1))
	if code, _ := get(server.URL + "/slow"); code != http.StatusForbidden {
		t.Errorf("a new request: %d", code)
	}
	close(finish)
	if s := <-got; s != "200 done" {
		t.Errorf("the one under way: %s", s)
	}
	server.Close()
	if err := r.all.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// What somebody is still writing is not read.
func TestFilesAreTakenWhenTheyAreAtRest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(filepath.Dir(file), "missing")
	write("one")
	var w watcher
	w.watch(look(file, missing))
	changed := func(want ...bool) {
		t.Helper()
		for i, want := range want {
			if got := w.changed(); got != want {
				t.Errorf("look %d: %v", i, got)
			}
		}
	}
	changed(false, false)
	write("")
	changed(false)
	write("tw")
	changed(false)
	write("two")
	changed(false, true)
	w.watch(look(file, missing))
	changed(false, false)
	write("three")
	changed(false)
	write("two") // and back
	changed(false, false)
	if err := os.WriteFile(missing, nil, 0o600); err != nil { // empty is not missing
		t.Fatal(err)
	}
	changed(false, true)
	w.watch(look(file, missing))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	changed(false, true)
	w.watch(look(filepath.Dir(file)))
	changed(false)
	write("added to the folder")
	changed(false, true)
}

// V-75: who was let in by a CA that is no more cannot resume the TLS session.
func TestV75_AdminListenerResumesNoSession(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, 1)
	files := &config.TLS{CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key")}
	admin, err := newAdminTLS(config.Server{Admin: &config.Admin{ClientCA: files.CertFile, TLS: files}})
	if err != nil {
		t.Fatal(err)
	}
	all := &generations{}
	all.current.Store(&generation{adminTLS: admin})
	l, err := tls.Listen("tcp", "127.0.0.1:0", all.listenerTLS(func(g *generation) *tls.Config { return g.adminTLS }))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x")) // with it comes the ticket, if there is one
			conn.Close()
		}
	}()
	pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)
	client := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	for range 3 {
		conn, err := tls.Dial("tcp", l.Addr().(*net.TCPAddr).String(), client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		conn.Close()
	}
}
