//go:build attack

package attack_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest/canary"
	"postern/proxy/tracing/tracingtest"
	"postern/session/redistest"
)

// publicHost is what browsers see, unless a test says otherwise.
const publicHost = "app.example.com"

// settings say what a world is like. The zero value is one application for whoever is signed in, at https://app.example.com; a proxy
// before Postern speaks TLS, so that wires carry plain bytes. In all of them {app} and {idp} stand for the addresses of these.
type settings struct {
	server    string // further members of the server section in flow style, such as "trusted_proxies: [127.0.0.0/8]"
	session   string // of the session section
	provider  string // of the provider
	providers string // further providers, indented by two
	routes    string // of the route list; default: one route to the application
	more      string // further sections
	publicURL string // default https://app.example.com; "-": none
	tls       bool   // Postern speaks TLS itself
	unready   bool   // do not wait until Postern is ready: some part will not answer
	redis     redistest.Options
	idp       idptest.Options
	client    idptest.Client // what the provider knows of Postern; ID, secret and redirect URI are filled in
}

// world is everything together. A test may change the provider and the application at any time.
type world struct {
	t        *testing.T
	origin   string // that browsers see
	host     string // of origin
	cookie   string // the name of the session's cookie
	listen   string
	admin    string
	file     string // the configuration
	provider *idptest.Server
	redis    *redistest.Server
	app      *app
	log      *logLines
	secrets  *canary.Secrets
	traces   *tracingtest.Collector

	clientSecret string

	process   *proctest.Process
	transport http.RoundTripper
	roots     *tls.Config // nil without TLS
}

// newWorld starts everything and waits until Postern is ready.
func newWorld(t *testing.T, o settings) *world {
	t.Helper()
	w := &world{t: t, app: startApp(t), log: &logLines{}, secrets: &canary.Secrets{}, traces: tracingtest.New(t), origin: "https://" + publicHost, cookie: "__Host-postern",
		listen: proctest.Address(proctest.FreePort(t)), admin: proctest.Address(proctest.FreePort(t))}
	if o.publicURL != "" && o.publicURL != "-" {
		w.origin = o.publicURL
	}
	_, w.host, _ = strings.Cut(w.origin, "://")
	w.redis = redistest.Start(t, o.redis)
	w.startProvider(o)
	w.configure(o)
	w.transport = w.roundTripper()
	if o.unready {
		w.run()
	} else {
		w.start()
	}
	t.Cleanup(w.search)
	return w
}

// in is the same world in a sub-test.
func (w *world) in(t *testing.T) *world {
	other := *w
	other.t = t
	return &other
}

func (w *world) startProvider(o settings) {
	w.t.Helper()
	w.provider = idptest.NewServerWith(w.t, o.idp)
	w.provider.TellSecrets(w.secrets.AddParameter)
	c := o.client
	c.ID = "wiki"
	w.clientSecret = w.secrets.New("client-secret")
	c.Secret = w.clientSecret
	c.RedirectURIs = append(c.RedirectURIs, w.origin+"/oauth2/callback")
	c.PostLogoutRedirectURIs = append(c.PostLogoutRedirectURIs, w.origin+"/oauth2/logout/callback")
	w.provider.AddClient(c)
	w.provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{
		"email": "alice@example.com", "email_verified": true, "name": "Alice", "preferred_username": "alice", "groups": []string{"staff", "wiki"},
	}})
	w.provider.AddUser(idptest.User{Sub: "mallory", Claims: map[string]any{"email": "mallory@example.net", "email_verified": true, "name": "Mallory"}})
}

// configure writes the configuration.
func (w *world) configure(o settings) {
	t := w.t
	t.Helper()
	key, err := exec.CommandContext(t.Context(), program, "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.secrets.Add("session key", strings.TrimSpace(string(key)))
	dir := t.TempDir()
	server := fmt.Sprintf("log: {format: json, level: debug}, shutdown_timeout: 5s, tracing: {endpoint: %q, sample: 1}", w.traces.URL)
	if o.publicURL != "-" {
		server += ", public_url: " + w.origin
	}
	if o.tls {
		cert := newCertificate(t, w.host)
		server += fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert.certFile, cert.keyFile)
		w.roots = &tls.Config{RootCAs: cert.roots, ServerName: w.host}
	}
	if o.routes == "" {
		o.routes = "  - upstream: {app}\n    access: signed_in\n"
	}
	config := fmt.Sprintf("server: {%s}\nsession: {%s}\nproviders:\n  corp: {%s}\n%sroutes:\n%s\n%s\n",
		join(server, o.server),
		join(fmt.Sprintf("keys: [{file: %q}], store: {redis: {url: %q}}", proctest.WriteFile(t, dir, "key", key), w.redis.URL()), o.session),
		join(fmt.Sprintf("issuer: {idp}, client_id: wiki, client_secret: {file: %q}", proctest.WriteFile(t, dir, "client-secret", []byte(w.clientSecret))), o.provider),
		o.providers, strings.TrimRight(o.routes, "\n"), o.more)
	config = strings.NewReplacer("{app}", w.app.URL, "{idp}", w.provider.URL).Replace(config)
	w.file = proctest.WriteFile(t, dir, "postern.yaml", []byte(config))
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ", " + b
}

// run starts the program and waits until it accepts connections.
func (w *world) run() {
	w.t.Helper()
	w.process = proctest.Start(w.t, proctest.Options{Err: w.log.add}, program, "--config", w.file, "--listen", w.listen, "--admin-listen", w.admin)
	w.process.Accepting(w.t, w.listen)
}

// start starts the program, or the next one, and waits until it is ready.
func (w *world) start() {
	w.t.Helper()
	w.run()
	proctest.Eventually(w.t, "Postern is ready", func() error {
		if w.process.Ended() {
			w.t.Fatalf("Postern ended at once:\n%s", w.log)
		}
		status, body, err := w.askAdmin("/readyz?strict=1")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

// askAdmin asks the admin listener.
func (w *world) askAdmin(path string) (status int, body string, err error) {
	resp, err := http.Get("http://" + w.admin + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// connect opens a connection to the public listener.
func (w *world) connect() (net.Conn, error) {
	conn, err := net.Dial("tcp", w.listen)
	if err != nil || w.roots == nil {
		return conn, err
	}
	return tls.Client(conn, w.roots), nil
}

// roundTripper brings requests for Postern's hosts to its listener and others to where they are. The proxy that speaks TLS before
// Postern is left out.
func (w *world) roundTripper() http.RoundTripper {
	own := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, w.listen)
	}, TLSClientConfig: w.roots, DisableCompression: true}
	w.t.Cleanup(own.CloseIdleConnections)
	others := &http.Transport{DisableCompression: true}
	w.t.Cleanup(others.CloseIdleConnections)
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(r.URL.Hostname(), ".example.com") {
			return others.RoundTrip(r)
		}
		if r.URL.Scheme == "https" && w.roots == nil {
			at := *r.URL
			at.Scheme = "http"
			r.URL = &at
		}
		return own.RoundTrip(r)
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// search looks for secrets wherever they could have been left, at the end of a test.
func (w *world) search() {
	w.searchFor(w.t)
	if strings.Contains(w.log.String(), `"msg":"panic"`) {
		w.t.Errorf("a panic:\n%s", w.log)
	}
}

func (w *world) searchFor(t canary.Reporter) {
	w.secrets.Search(t, "the log", w.log.String())
	w.secrets.SearchPages(t)
	if w.redis.Running() {
		w.secrets.Search(t, "Redis", w.redis.Dump())
	}
	w.secrets.Search(t, "a trace", w.traces.Dump())
	printed, _ := exec.CommandContext(context.Background(), program, "check", "--print", "--config", w.file).CombinedOutput() // some files are wrong on purpose
	w.secrets.Search(t, "postern check --print", string(printed))
	if w.process.Ended() {
		return
	}
	w.secrets.SearchProcess(t, w.process.PID())
	if _, metrics, err := w.askAdmin("/metrics"); err == nil {
		w.secrets.Search(t, "the metrics", metrics)
	}
}

// keys are the keys in Redis.
func (w *world) keys() []string {
	w.t.Helper()
	keys, err := w.redis.Client().Keys(w.t.Context(), "*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}
