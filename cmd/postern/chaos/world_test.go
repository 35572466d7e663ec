//go:build chaos

package chaos_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/proxytest/canary"
	"postern/proxy/tracing/tracingtest"
)

const adminToken = "chaos-admin-token-0123456789abcdef"

// settings say what a world is like. The zero value is three replicas on a standalone Redis.
type settings struct {
	replicas  int
	store     shape
	ttl       time.Duration // of access tokens; default 5 minutes
	maxStale  string        // default 2s
	timeout   time.Duration // of a Redis command; default 250ms
	session   string        // further lines of the section session, indented by two
	keys      string        // session.keys as YAML; default one new key
	steppable bool
}

// A world is everything together: replicas of Postern behind a balancer, Redis, a provider, an application, and what happened.
type world struct {
	*timeline
	t        *testing.T
	origin   *url.URL
	store    store
	provider *provider
	replicas []*replica
	maxStale time.Duration
	secrets  *canary.Secrets
	traces   *tracingtest.Collector

	clientSecret string

	app       *httptest.Server
	appOpen   counter
	next      atomic.Uint64
	transport *http.Transport // to the provider
	labels    atomic.Uint64
}

// A replica is one postern process, again and again on the same ports.
type replica struct {
	w             *world
	name          string
	listen, admin string
	file          string // the configuration
	env           []string
	clock         string // the file of its clock's step
	transport     *http.Transport

	mu      sync.Mutex
	process *proctest.Process
	log     strings.Builder // of all its processes
	down    bool            // a balancer's health check would have noticed
}

// newWorld starts everything and waits until it is ready.
func newWorld(t *testing.T, o settings) *world {
	t.Helper()
	if o.replicas == 0 {
		o.replicas = 3
	}
	if o.store == nil {
		o.store = startStandalone
	}
	if o.ttl == 0 {
		o.ttl = 5 * time.Minute
	}
	if o.maxStale == "" {
		o.maxStale = "2s"
	}
	if o.timeout == 0 {
		o.timeout = 250 * time.Millisecond
	}
	w := &world{timeline: newTimeline(), t: t, secrets: &canary.Secrets{}, traces: tracingtest.New(t)}
	w.clientSecret = w.secrets.New("client-secret")
	w.secrets.Add("operator's token", adminToken)
	var err error
	if w.maxStale, err = time.ParseDuration(o.maxStale); err != nil {
		t.Fatal(err)
	}
	if w.origin, err = url.Parse("http://" + proctest.Address(proctest.FreePort(t))); err != nil {
		t.Fatal(err)
	}
	w.app = httptest.NewUnstartedServer(http.HandlerFunc(w.application))
	w.app.Config.ConnState = w.appOpen.state
	w.app.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.app.Start()
	t.Cleanup(w.app.Close)
	w.transport = &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(w.transport.CloseIdleConnections)
	w.store = o.store(t, o.replicas)
	w.provider = startProvider(w, proctest.FreePort(t), o.ttl)
	w.provider.failedOver = w.store.failedOver
	if o.keys == "" {
		key := newKey(t)
		w.secrets.Add("session key", key)
		o.keys = fmt.Sprintf("[%q]", key)
	}
	dir := t.TempDir()
	for i := range o.replicas {
		w.replicas = append(w.replicas, w.newReplica(dir, i, o))
	}
	for _, r := range w.replicas {
		r.start()
	}
	for _, r := range w.replicas {
		r.ready()
	}
	t.Cleanup(func() { w.search(w.secrets, t) })
	return w
}

// newKey is a new key for session.keys.
func newKey(t *testing.T) string {
	t.Helper()
	key, err := exec.CommandContext(t.Context(), program, "keygen").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(key))
}

func (w *world) newReplica(dir string, i int, o settings) *replica {
	t := w.t
	name := fmt.Sprintf("r%d", i+1)
	r := &replica{w: w, name: name, listen: proctest.Address(proctest.FreePort(t)), admin: proctest.Address(proctest.FreePort(t))}
	config := fmt.Sprintf(`
server: {public_url: %q, admin: {token: %q}, log: {format: text, level: debug}, tracing: {endpoint: %q, sample: 0.1}, shutdown_timeout: 10s}
session:
  keys: %s
  cache: {max_stale: %s}
  store: {redis: {%s, timeout: %v}}
%sproviders:
  corp: {issuer: %q, client_id: wiki, client_secret: %q, timeout: %v, id_token_signed_response_alg: ES256, token_params: {replica: %s}}
routes:
  - upstream: %q
`, w.origin, adminToken, w.traces.URL, o.keys, o.maxStale, w.store.config(i), o.timeout, o.session, w.provider.URL, w.clientSecret, exchangeLimit, name, w.app.URL)
	r.file = proctest.WriteFile(t, dir, name+".yaml", []byte(config))
	if o.steppable {
		r.clock = proctest.WriteFile(t, dir, name+".clock", make([]byte, 8))
		r.env = []string{clockVariable + "=" + r.clock}
	}
	r.transport = &http.Transport{MaxIdleConnsPerHost: 512, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, r.listen)
	}}
	t.Cleanup(r.transport.CloseIdleConnections)
	return r
}

// start starts the process, or the next one.
func (r *replica) start() {
	name := r.name
	binary := program
	if r.clock != "" {
		binary = steppable
	}
	p := proctest.Start(r.w.t, proctest.Options{Env: r.env, Err: func(line string) {
		r.mu.Lock()
		r.log.WriteString(line + "\n")
		r.mu.Unlock()
		if interesting.MatchString(line) {
			r.w.about([]string{name}, "%s", shorten(line))
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic") {
				r.w.count("error lines")
				r.w.note("%s: %s", name, shorten(line))
			}
		}
	}}, binary, "--config", r.file, "--listen", r.listen, "--admin-listen", r.admin)
	r.w.t.Cleanup(func() { r.search(p, r.w.secrets, r.w.t) })
	p.Accepting(r.w.t, r.admin)
	r.mu.Lock()
	r.process, r.down = p, false
	r.mu.Unlock()
}

// interesting are the log lines that a timeline keeps: not those of the single requests.
var interesting = regexp.MustCompile(`level=(WARN|ERROR)|status=(4|5)|panic|goroutine|msg="session`)

func shorten(line string) string {
	if _, rest, ok := strings.Cut(line, " level="); ok {
		line = rest
	}
	return line[:min(len(line), 240)]
}

// ready waits until the replica says that it is.
func (r *replica) ready() {
	r.w.t.Helper()
	proctest.Eventually(r.w.t, r.name+" is ready", func() error {
		if r.process.Ended() {
			r.w.t.Fatalf("%s ended", r.name)
		}
		resp, err := http.Get("http://" + r.admin + "/readyz?strict=1")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d %s", resp.StatusCode, body)
		}
		return err
	})
}

// kill is kill -9. The balancer knows soon.
func (r *replica) kill() {
	r.mu.Lock()
	r.down = true
	p := r.process
	r.mu.Unlock()
	p.Kill()
	r.w.provider.killed(r.name)
	r.transport.CloseIdleConnections()
}

// replace ends the process in good order, as a rolling update does.
func (r *replica) replace() {
	r.mu.Lock()
	r.down = true
	p := r.process
	r.mu.Unlock()
	r.search(p, r.w.secrets, r.w.t)
	p.Terminate(r.w.t)
	if code := p.ExitCode(r.w.t); code != 0 {
		r.w.violated([]string{r.name}, "%s ends with code %d", r.name, code)
	}
	r.transport.CloseIdleConnections()
}

func (r *replica) freeze() { r.process.Signal(r.w.t, syscall.SIGSTOP) }
func (r *replica) thaw()   { r.process.Signal(r.w.t, syscall.SIGCONT) }

// stepClock sets how far the wall clock of a steppable replica is ahead of the others'.
func (r *replica) stepClock(by time.Duration) {
	f, err := os.OpenFile(r.clock, os.O_WRONLY, 0)
	if err != nil {
		r.w.t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0); err != nil {
		r.w.t.Error(err)
	}
}

func (r *replica) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

func (r *replica) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// goroutines are those of the process by the function that began them, without those that belong to connections.
func (r *replica) goroutines() (map[string]int, error) {
	req, err := http.NewRequestWithContext(r.w.t.Context(), http.MethodGet, "http://"+r.admin+"/debug/pprof/goroutine?debug=2", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %w", resp.Status, err)
	}
	by := map[string]int{}
	for one := range strings.SplitSeq(string(body), "\n\n") {
		creator := "main"
		if _, rest, ok := strings.Cut(one, "created by "); ok {
			creator, _, _ = strings.Cut(rest, " in goroutine")
		}
		by[creator]++
	}
	return by, nil
}

// application says who it believes the request is from, and holds that against the access token.
func (w *world) application(rw http.ResponseWriter, r *http.Request) {
	user := r.Header.Get("X-Forwarded-User")
	bearer := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	owner, label, valid := w.provider.whose(bearer)
	switch {
	case owner != user:
		w.violated([]string{label}, "the application gets %q as user with an access token of %q", user, owner)
	case !valid:
		w.count("expired tokens upstream")
	}
	w.count("upstream")
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(echo{User: user, Label: label, Path: r.URL.Path, Valid: valid})
}

// An echo is the application's answer.
type echo struct {
	User, Label, Path string
	Valid             bool
}

// forceKey is the context key of the replica that a request must go to.
type forceKey struct{}

// RoundTrip goes to the provider directly and to Postern through the balancer.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != w.origin.Host {
		return w.transport.RoundTrip(r)
	}
	resp, err := w.balance(r)
	if err != nil {
		return nil, err
	}
	w.secrets.AddCookies(resp.Header)
	if to, err := resp.Location(); err == nil {
		w.secrets.AddQuery(to)
	}
	return resp, nil
}

// balance is the balancer: to the replicas by turns.
func (w *world) balance(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Del(browserHeader)
	if forced, ok := r.Context().Value(forceKey{}).(*replica); ok {
		return forced.transport.RoundTrip(r)
	}
	for range w.replicas {
		if one := w.replicas[w.next.Add(1)%uint64(len(w.replicas))]; !one.isDown() {
			return one.transport.RoundTrip(r)
		}
	}
	return nil, errors.New("no replica is up")
}

// via makes a request go to one replica.
func via(ctx context.Context, r *replica) context.Context {
	if r == nil {
		return ctx
	}
	return context.WithValue(ctx, forceKey{}, r)
}

// finish ends the world in good order and looks for what was left over: goroutines, connections to Redis, the provider and the
// application. before are the goroutines of each replica when nothing had happened yet, under one configuration; one that was replaced in the last
// minutes still has its own.
func (w *world) finish(before []map[string]int, replaced int) {
	t := w.t
	t.Helper()
	for _, r := range w.replicas {
		r.transport.CloseIdleConnections()
	}
	for i, r := range w.replicas {
		proctest.Eventually(t, "goroutines of "+r.name+" end", func() error {
			after, err := r.goroutines()
			if err != nil {
				return err
			}
			for creator, n := range after {
				// Idle connections of the pools stay, as they should.
				if may := before[i][creator] * (1 + replaced); strings.HasPrefix(creator, "postern/") && n > may {
					return fmt.Errorf("%d more of %s", n-may, creator)
				}
			}
			return nil
		})
	}
	for _, r := range w.replicas {
		r.search(r.process, w.secrets, t)
		r.process.Terminate(t)
	}
	for _, r := range w.replicas {
		if code := r.process.ExitCode(t); code != 0 {
			t.Errorf("%s ended with code %d", r.name, code)
		}
	}
	w.transport.CloseIdleConnections()
	proctest.Eventually(t, "connections end", func() error {
		if n := connections(t, w.store); n > 0 {
			return fmt.Errorf("%d to Redis", n)
		}
		if n := w.provider.connections.now(); n > 0 {
			return fmt.Errorf("%d to the provider", n)
		}
		if n := w.appOpen.now(); n > 0 {
			return fmt.Errorf("%d to the application", n)
		}
		return nil
	})
}

// baseline is what finish needs.
func (w *world) baseline() []map[string]int {
	w.t.Helper()
	var all []map[string]int
	for _, r := range w.replicas {
		g, err := r.goroutines()
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}
