// Package proxytest is a whole stack for tests: a scriptable identity provider, an application that tells what it received, Postern
// between them, and browsers with cookie jars. Everything talks over real sockets on loopback.
//
// Start at [New]; a [Stack]'s Browser goes to pages as a person would.
package proxytest

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/proxy/metrics"
	"postern/proxy/proxytest/canary"
	"postern/proxy/tracing"
	"postern/session"
	"postern/session/memstore"
)

// Minimal is a configuration with one provider and one route, as an operator would write it. ISSUER, UPSTREAM, LISTEN and ORIGIN are the
// stack's addresses.
const Minimal = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - upstream: ${UPSTREAM}
`

// Options change what [New] builds. The zero value serves [Minimal] with sessions in memory.
type Options struct {
	// Config is the YAML. Default [Minimal].
	Config string
	// Env are further variables of the configuration.
	Env map[string]string
	// Store is the session store; nil is a new memstore on the stack's clock.
	Store session.Store
	// Clock is the time of all parts; nil is a new one.
	Clock *Clock
	// Provider is used instead of a new one.
	Provider *idptest.Server
	// TLS serves https, with HTTP/2.
	TLS bool
	// App replaces the application.
	App http.Handler
	// Transport carries the calls to the provider.
	Transport http.RoundTripper
	// Tracer records spans; nil records nothing.
	Tracer *tracing.Tracer
	// Metrics counts; nil is new ones.
	Metrics *metrics.Metrics
}

// Stack is everything together.
type Stack struct {
	// URL is Postern's origin.
	URL      string
	Provider *idptest.Server
	App      *App
	Proxy    *proxy.Proxy // the newest
	Store    session.Store
	Clock    *Clock
	Log      *Log
	Audit    *Log // the audit log
	// Secrets are the tokens, codes, states and cookies that the stack has seen. When the test ends none of them may stand in a log, in the metrics, or
	// on a page of Postern's.
	Secrets *canary.Secrets

	t       testing.TB
	server  *httptest.Server
	handler atomic.Pointer[proxy.Proxy]
	running []running // the oldest first
	env     map[string]string
	o       Options
	next    proxy.Env // of the one after the newest
	stop    func()
}

// running is a Proxy with what ends its work.
type running struct {
	proxy *proxy.Proxy
	stop  func()
}

// New starts a stack that ends with the test. The provider knows the client wiki and signs in alice, who is in wiki-users.
func New(t testing.TB, o Options) *Stack {
	t.Helper()
	s := &Stack{t: t, Clock: o.Clock, Provider: o.Provider, Store: o.Store, Log: &Log{}, Audit: &Log{}, Secrets: &canary.Secrets{}}
	if s.Clock == nil {
		s.Clock = &Clock{}
	}
	if s.Provider == nil {
		s.Provider = idptest.NewServerWith(t, idptest.Options{Now: s.Clock.Now})
		s.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{
			"name": "Alice Example", "email": "alice@example.com", "email_verified": true, "preferred_username": "alice", "groups": []string{"wiki-users"},
		}})
		s.Provider.AddUser(idptest.User{Sub: "bob", Claims: map[string]any{"name": "Bob Example", "groups": []string{"others"}}})
		s.Provider.SignInAs("alice")
	}
	s.Secrets.Add("client secret", "canary-client-secret")
	s.Provider.TellSecrets(s.Secrets.AddParameter)
	t.Cleanup(func() { s.search(t) })
	if s.Store == nil {
		s.Store = memstore.New(memstore.Options{Now: s.Clock.Now})
	}
	s.App = newApp(t, o.App)
	s.start(o)
	return s
}

func (s *Stack) start(o Options) {
	s.t.Helper()
	s.o, s.running = o, nil
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handler.Load().ServeHTTP(w, r) }))
	address := s.server.Listener.Addr().String()
	s.URL = "http://" + address
	if o.TLS {
		s.URL = "https://" + address
	}
	text := o.Config
	if text == "" {
		text = Minimal
	}
	s.env = map[string]string{"LISTEN": address, "ORIGIN": s.URL, "ISSUER": s.Provider.URL, "UPSTREAM": s.App.URL}
	maps.Copy(s.env, o.Env)
	cfg := s.parse(text)
	s.Provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic",
		RedirectURIs: []string{s.URL + cfg.Server.Prefix + "/callback"}, PostLogoutRedirectURIs: []string{s.URL + cfg.Server.Prefix + "/logout/callback"}})
	counted := o.Metrics
	if counted == nil {
		counted = metrics.New("test")
	}
	log := slog.New(slog.NewJSONHandler(io.MultiWriter(s.Log, s.t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s.use(cfg, proxy.Env{Store: s.Store, Log: log, Audit: slog.New(slog.NewJSONHandler(s.Audit, nil)), Now: s.Clock.Now, Transport: o.Transport, Metrics: counted, Tracer: o.Tracer})
	if o.TLS {
		s.server.EnableHTTP2 = true
		s.server.StartTLS()
	} else {
		s.server.Start()
	}
	s.Proxy.Listening()
	if o.Provider == nil && o.Transport == nil {
		s.awaitDiscovery()
	}
	s.stop = sync.OnceFunc(func() {
		s.server.CloseClientConnections()
		s.server.Close()
		closing, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		for _, r := range s.running {
			if err := r.proxy.Close(closing); err != nil {
				s.t.Errorf("close: %v", err)
			}
			r.stop()
		}
		s.searchMetrics(s.t)
	})
	s.t.Cleanup(s.stop)
}

// parse reads a configuration with the stack's variables.
func (s *Stack) parse(text string) *config.Config {
	s.t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), config.LoadOptions{LookupEnv: func(name string) (string, bool) { v, ok := s.env[name]; return v, ok }})
	if err != nil {
		s.t.Fatalf("configuration:\n%v", err)
	}
	return cfg
}

// use makes a Proxy of cfg the one that serves.
func (s *Stack) use(cfg *config.Config, env proxy.Env) {
	s.t.Helper()
	p, err := proxy.New(cfg, env)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p.TakeOver()
	go func() { defer close(done); _ = p.Run(ctx) }()
	s.running = append(s.running, running{p, func() { cancel(); <-done }})
	env.Before = p
	s.Proxy, s.next = p, env
	s.handler.Store(p)
}

// Reload puts a Proxy of another configuration in the place of the one that serves; "" is the same again, with its files as they are now. What was
// begun goes on with the older ones, which run until the stack ends.
func (s *Stack) Reload(text string) {
	s.t.Helper()
	if text == "" {
		text = cmp.Or(s.o.Config, Minimal)
	}
	s.use(s.parse(text), s.next)
}

// search looks for secrets in what the stack leaves behind.
func (s *Stack) search(r canary.Reporter) {
	s.Secrets.Search(r, "the log", s.Log.String())
	s.Secrets.Search(r, "the audit log", s.Audit.String())
	s.Secrets.SearchPages(r)
}

func (s *Stack) searchMetrics(r canary.Reporter) {
	w := httptest.NewRecorder()
	s.Proxy.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	s.Secrets.Search(r, "the metrics", w.Body.String())
}

// awaitDiscovery waits until the provider corp, if there is one, is discovered: on a busy machine that may take longer than a request waits
// for it. A test about a provider that does not answer brings its own.
func (s *Stack) awaitDiscovery() {
	late := time.Now().Add(20 * time.Second)
	for {
		w := httptest.NewRecorder()
		s.Proxy.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		var body struct{ Providers map[string]string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			s.t.Fatalf("readyz: %v", err)
		}
		if problem, ok := body.Providers["corp"]; !ok || problem == "ok" || time.Now().After(late) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Stop ends Postern; the rest of the stack goes on.
func (s *Stack) Stop() { s.stop() }

// Restart ends Postern and starts it again on another address with the same provider, application, store and clock.
func (s *Stack) Restart(o Options) {
	s.t.Helper()
	s.stop()
	s.start(o)
}

// Transport reaches the stack, under each host of example.com too; it trusts the stack's certificate, which names those.
func (s *Stack) Transport() *http.Transport {
	address := s.server.Listener.Addr().String()
	tr := &http.Transport{MaxIdleConnsPerHost: 256, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(to); host == "example.com" || strings.HasSuffix(host, ".example.com") {
			to = address
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}}
	if s.server.Certificate() != nil {
		tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Clock is a time that tests move: real time plus what was added.
type Clock struct {
	mu      sync.Mutex
	added   time.Duration
	stopped time.Time // zero: it runs
}

// Now is the stack's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped.IsZero() {
		return c.stopped.Add(c.added)
	}
	return time.Now().Add(c.added)
}

// Stop lets the time stand still but for what is added, for what must not depend on how fast the machine is.
func (c *Clock) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = time.Now()
}

// Add moves the time.
func (c *Clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added += d
}

// Log keeps what was logged, for tests that look for secrets in it.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write takes log lines.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String is everything that was logged.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// ofApp marks the application's answers: they tell what it received, tokens included.
const ofApp = "X-Proxytest-App"

// App is the application behind Postern. It answers with JSON of the request that it received.
type App struct {
	URL string

	mu       sync.Mutex
	requests []Received
}

// Received is one request as it reached the application.
type Received struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
}

func newApp(t testing.TB, other http.Handler) *App {
	a := &App{}
	h := other
	if h == nil {
		h = http.HandlerFunc(a.serve)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(ofApp, "yes")
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.URL = server.URL
	return a
}

func (a *App) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	got := Received{Method: r.Method, Target: r.RequestURI, Host: r.Host, Header: r.Header.Clone(), Body: string(body)}
	a.mu.Lock()
	a.requests = append(a.requests, got)
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(got)
}

// Requests are those that reached the application so far.
func (a *App) Requests() []Received {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]Received(nil), a.requests...)
}

// Eventually waits until done is true, for what happens in the background; it fails the test after 20 seconds.
func Eventually(t testing.TB, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("did not happen within 20 s")
		}
	}
}
