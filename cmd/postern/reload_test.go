package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// program is Postern as a process of its own, whose configuration a test changes.
type program struct {
	t             *testing.T
	file          string
	public, admin string // addresses
	url           string
	process       *proctest.Process
	log           proxytest.Log
	provider      *idptest.Server
	app           *httptest.Server
}

// startProgram serves a configuration in which LISTEN, ADMIN, ISSUER, APP and DIR are filled in. The application answers with its name and path,
// and echoes in WebSockets.
func startProgram(t *testing.T, text string) *program {
	t.Helper()
	p := &program{t: t, public: freePort(t), admin: freePort(t), file: filepath.Join(t.TempDir(), "postern.yaml")}
	p.url = "http://" + p.public
	p.provider = idptest.NewServer(t)
	p.provider.AddClient(idptest.Client{ID: "wiki", Secret: "first-secret", RedirectURIs: []string{p.url + "/oauth2/callback"}})
	p.provider.AddUser(idptest.User{Sub: "alice"})
	p.provider.SignInAs("alice")
	p.app = namedApp(t, "first")
	p.write(text)
	postern, err := exec.LookPath("postern") // testscript puts this test's own there
	if err != nil {
		t.Fatal(err)
	}
	p.process = proctest.Start(t, proctest.Options{Err: func(line string) { fmt.Fprintln(&p.log, line) }}, postern, "--config", p.file)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	proctest.Eventually(t, "it is ready", func() error {
		if code, body := get("http://" + p.admin + "/readyz"); code != http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
	return p
}

// namedApp is an application that says its name.
func namedApp(t *testing.T, name string) *httptest.Server {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, name, " ", r.URL.Path)
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))
	t.Cleanup(app.Close)
	return app
}

// fill puts the addresses in.
func (p *program) fill(text string) []byte {
	return []byte(strings.NewReplacer("LISTEN", p.public, "ADMIN", p.admin, "ISSUER", p.provider.URL, "APP", p.app.URL, "DIR", filepath.Dir(p.file)).Replace(text))
}

func (p *program) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.file, p.fill(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// reload changes the configuration and waits until it was read, for the n-th time with this outcome.
func (p *program) reload(text, outcome string, n int) {
	p.t.Helper()
	p.write(text)
	p.process.Signal(p.t, syscall.SIGHUP)
	p.reloaded(outcome, n)
}

func (p *program) reloaded(outcome string, n int) {
	p.t.Helper()
	p.measures(fmt.Sprintf(`postern_config_reloads_total{outcome=%q} %d`, outcome, n))
}

// logs waits for a piece of a line: lines are written a little later.
func (p *program) logs(want string) {
	p.t.Helper()
	proctest.Eventually(p.t, "the log says "+want, func() error {
		if !strings.Contains(p.log.String(), want) {
			return errors.New("it does not")
		}
		return nil
	})
}

func (p *program) measures(line string) {
	p.t.Helper()
	proctest.Eventually(p.t, "metrics say "+line, func() error {
		if _, body := get("http://" + p.admin + "/metrics"); !strings.Contains(body, "\n"+line+"\n") {
			return errors.New("no such line")
		}
		return nil
	})
}

// person is a browser that follows redirects.
func (p *program) person() *http.Client {
	p.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	tr := &http.Transport{MaxIdleConnsPerHost: 8}
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Jar: jar, Transport: tr}
}

// ask is what an application answers a page navigation, or the status of another answer.
func (p *program) ask(c *http.Client, path string) string {
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.url+path, nil)
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	res, err := c.Do(r)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err.Error()
	case res.StatusCode != http.StatusOK:
		return res.Status
	}
	return string(body)
}

const signedInOnly = `
server: {listen: "LISTEN", admin_listen: "ADMIN", log: {level: info}}
providers:
  corp: {issuer: "ISSUER", client_id: wiki, client_secret: first-secret}
routes:
  - {access: signed_in, upstream: "APP"}
`

// A196: ten changes while people work, sign in and have their tokens refreshed. Not one request fails.
func TestTenChangesUnderLoadFailNoRequest(t *testing.T) {
	p := startProgram(t, signedInOnly)
	stop := make(chan struct{})
	var load sync.WaitGroup
	var answered, signedIn atomic.Int64
	check := func(c *http.Client, path string) {
		if got := p.ask(c, path); got != "first "+path {
			t.Errorf("%s: %s", path, got)
		}
		answered.Add(1)
	}
	for i := range 8 {
		worker := p.person()
		check(worker, "/first")
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				check(worker, fmt.Sprint("/", i, "/", n))
				if n%50 == 49 {
					res, err := worker.Post(p.url+"/oauth2/session/refresh", "", nil)
					if err != nil || res.StatusCode >= 300 {
						t.Errorf("refresh: %v %v", res, err)
						continue
					}
					res.Body.Close()
				}
			}
		})
	}
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				check(p.person(), "/new")
				signedIn.Add(1)
			}
		}
	})
	for n := range 10 {
		before := answered.Load()
		p.reload(signedInOnly+fmt.Sprintf("  - {path: /extra/%d, access: public, upstream: \"APP\"}\n", n), "ok", n+1)
		proctest.Eventually(t, "requests go on", func() error {
			if answered.Load() < before+100 {
				return errors.New("they do not")
			}
			return nil
		})
	}
	close(stop)
	load.Wait()
	t.Logf("%d requests, %d sign-ins, %d refresh tokens sent twice", answered.Load(), signedIn.Load(), p.provider.RefreshReuses())
	if p.provider.RefreshReuses() > 0 {
		t.Error("a refresh token was sent twice")
	}
	p.process.Terminate(t)
	if code := p.process.ExitCode(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A196: Kubernetes puts a changed ConfigMap into a new folder and swaps a symlink to it. Nobody sends a signal.
func TestConfigMapSwapIsNoticed(t *testing.T) {
	p := startProgram(t, strings.Replace(signedInOnly, "signed_in", "public", 1))
	dir := filepath.Dir(p.file)
	mount := func(version, text string) {
		t.Helper()
		if err := errors.Join(
			os.Mkdir(filepath.Join(dir, version), 0o700),
			os.WriteFile(filepath.Join(dir, version, "postern.yaml"), p.fill(text), 0o600),
			os.Symlink(version, filepath.Join(dir, "..data_tmp")),
			os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")),
		); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", signedInOnly)
	if err := errors.Join(os.Remove(p.file), os.Symlink("..data/postern.yaml", p.file)); err != nil {
		t.Fatal(err)
	}
	p.reloaded("ok", 1)
	if got := p.ask(http.DefaultClient, "/"); strings.HasPrefix(got, "first") {
		t.Errorf("the route is open still: %s", got)
	}
	mount("..2", strings.Replace(signedInOnly, "signed_in", "deny", 1))
	p.reloaded("ok", 2)
	if got := p.ask(p.person(), "/"); got != "403 Forbidden" {
		t.Errorf("a route that denies: %s", got)
	}
}

// Own texts are a folder's: a file that is added to it counts like one that is changed.
func TestAddedPageTextIsNoticed(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "pages", "texts"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, fmt.Sprintf("pages: {templates: %q}\n", filepath.Join(dir, "pages"))+signedInOnly)
	add := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "pages", "texts", "en.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	page := func() string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/oauth2", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/html")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	add("link.sign_in: Come in\n")
	p.reloaded("ok", 1)
	if !strings.Contains(page(), "Come in") {
		t.Errorf("the page says %s", page())
	}
	add("link.sign_inn: Come in\n")
	p.reloaded("failed", 1)
	if !strings.Contains(page(), "Come in") {
		t.Error("a bad text takes the good one away")
	}
}

// A196: a bad file changes nothing, and is told of with all that is wrong until there is a good one.
func TestBadFileKeepsTheOldConfiguration(t *testing.T) {
	p := startProgram(t, signedInOnly)
	alice := p.person()
	p.ask(alice, "/")
	p.reload(strings.NewReplacer("signed_in", "public", "client_id: wiki", "client_idd: wiki", "info", "loud").Replace(signedInOnly), "failed", 1)
	p.measures("postern_config_last_reload_successful 0")
	if got := p.ask(alice, "/x"); got != "first /x" {
		t.Errorf("who is signed in: %s", got)
	}
	if code, _ := get(p.url + "/x"); code != http.StatusUnauthorized {
		t.Errorf("a route that the bad file opens: %d", code)
	}
	code, body := get("http://" + p.admin + "/readyz")
	if code != http.StatusOK || !strings.Contains(body, `"config":"changed, but not taken: 2 problems, see the log"`) {
		t.Errorf("readyz: %d %s", code, body)
	}
	if code, _ := get("http://" + p.admin + "/readyz?strict=1"); code != http.StatusServiceUnavailable {
		t.Errorf("readyz strictly: %d", code)
	}
	for _, want := range []string{"client_idd", "server.log.level", "not taken"} {
		p.logs(want)
	}
	for _, broken := range []string{"routes: [", "", "\x00"} {
		p.write(broken)
	}
	p.reload(signedInOnly+"  - {path: /open, access: public, upstream: \"APP\"}\n", "ok", 1)
	p.measures("postern_config_last_reload_successful 1")
	if got := p.ask(http.DefaultClient, "/open"); got != "first /open" {
		t.Errorf("a new route: %s", got)
	}
	if _, body := get("http://" + p.admin + "/readyz"); !strings.Contains(body, `"config":"ok"`) {
		t.Errorf("readyz: %s", body)
	}
}

// Rules that do not compile are found by another part than keys that do not exist.
func TestBadRuleKeepsTheOldConfiguration(t *testing.T) {
	p := startProgram(t, signedInOnly)
	p.reload(strings.Replace(signedInOnly, "signed_in", `{rule: "user in"}`, 1), "failed", 1)
	p.logs("routes[0].access.rule")
}

// What cannot change while Postern runs is named, and the rest is taken all the same.
func TestWhatNeedsARestartIsNamed(t *testing.T) {
	p := startProgram(t, signedInOnly)
	text := strings.NewReplacer(`"LISTEN"`, `"127.0.0.1:1"`, "level: info", "level: debug, format: text", "server: {", "server: {audit: {stdout: true}, ").Replace(signedInOnly)
	text = strings.Replace(text, "  - {access", "  - {path: /open, access: public, upstream: \"APP\"}\n  - {access", 1)
	p.reload(text, "ok", 1)
	p.logs(`"msg":"needs a restart: server.audit, server.listen, server.log.format"`)
	p.logs(`"changed":["server.log.level","routes (1 added, 0 changed, 0 removed)"]`)
	if got := p.ask(p.person(), "/x"); got != "first /x" {
		t.Errorf("where it listened before: %s", got)
	}
	if got := p.ask(http.DefaultClient, "/open"); got != "first /open" {
		t.Errorf("a new route: %s", got)
	}
}

func TestLogLevelChangesAtOnce(t *testing.T) {
	p := startProgram(t, strings.Replace(signedInOnly, "level: info", "level: error", 1))
	p.reload(signedInOnly, "ok", 1)
	p.logs(`"changed":["server.log.level"]`)
}

func TestSignalWithoutAChangeChangesNothing(t *testing.T) {
	p := startProgram(t, signedInOnly)
	alice := p.person()
	p.ask(alice, "/")
	p.reload(signedInOnly, "ok", 1)
	p.reload(signedInOnly+"# a remark\n", "ok", 2)
	proctest.Eventually(t, "the log says twice that nothing has changed", func() error {
		if n := strings.Count(p.log.String(), "configuration read again: nothing has changed"); n != 2 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if strings.Contains(p.log.String(), "configuration taken") {
		t.Error("something was taken")
	}
	if got := p.ask(alice, "/x"); got != "first /x" {
		t.Errorf("afterwards: %s", got)
	}
}

// A path that is denied before and after is never served by what only the other configuration allows: a file is taken whole.
func TestConfigurationIsNeverHalfTaken(t *testing.T) {
	p := startProgram(t, signedInOnly)
	second := namedApp(t, "second")
	closed := `
server: {listen: "LISTEN", admin_listen: "ADMIN"}
providers:
  corp: {issuer: "ISSUER", client_id: wiki, client_secret: first-secret}
routes:
  - {access: public, upstream: "APP"}
  - {path: /secret, access: deny}
`
	opened := strings.Replace(strings.Replace(closed, "APP", second.URL, 1), "  - {path: /secret, access: deny}\n", "", 1)
	p.reload(closed, "ok", 1)
	stop := make(chan struct{})
	var asking sync.WaitGroup
	counts := map[string]int{}
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				counts[p.ask(http.DefaultClient, "/secret")]++
			}
		}
	})
	for n := range 6 {
		text := opened
		if n%2 == 1 {
			text = closed
		}
		p.reload(text, "ok", n+2)
	}
	if got := p.ask(http.DefaultClient, "/secret"); got != "403 Forbidden" {
		t.Errorf("at the end: %s", got)
	}
	close(stop)
	asking.Wait()
	t.Log(counts)
	delete(counts, "403 Forbidden")
	delete(counts, "second /secret")
	if len(counts) > 0 {
		t.Errorf("answers of neither configuration: %v", counts)
	}
}

func TestRemovedRouteIsGoneAtOnce(t *testing.T) {
	extra := signedInOnly + "  - {path: /old, access: public, upstream: \"APP\"}\n"
	p := startProgram(t, extra)
	if got := p.ask(http.DefaultClient, "/old"); got != "first /old" {
		t.Fatal(got)
	}
	p.reload(signedInOnly, "ok", 1)
	if code, _ := get(p.url + "/old"); code != http.StatusUnauthorized {
		t.Errorf("a route that is no more: %d", code)
	}
}

// A client secret in a file is rotated at provider and Postern.
func TestRotatedSecretIsUsed(t *testing.T) {
	text := strings.Replace(signedInOnly, "first-secret", "{file: DIR/secret}", 1)
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	text = strings.Replace(text, "DIR", dir, 1)
	if err := os.WriteFile(secret, []byte("first-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, text)
	if got := p.ask(p.person(), "/x"); got != "first /x" {
		t.Fatal(got)
	}
	p.provider.AddClient(idptest.Client{ID: "wiki", Secret: "second-secret", RedirectURIs: []string{p.url + "/oauth2/callback"}})
	if err := errors.Join(os.WriteFile(secret+".new", []byte("second-secret\n"), 0o600), os.Rename(secret+".new", secret)); err != nil {
		t.Fatal(err)
	}
	p.reloaded("ok", 1)
	if got := p.ask(p.person(), "/x"); got != "first /x" {
		t.Errorf("with the new secret: %s", got)
	}
	p.logs(`"changed":["files that it names"]`)
	if strings.Contains(p.log.String(), "second-secret") {
		t.Error("the log shows the secret")
	}
	// A file that is gone is no configuration.
	if err := os.Remove(secret); err != nil {
		t.Fatal(err)
	}
	p.reloaded("failed", 1)
	if err := os.WriteFile(secret, []byte("second-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.reloaded("ok", 2)
}

// A certificate is taken when its files change, also where somebody has left a mistake in the configuration.
func TestRotatedCertificateIsServed(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, 1)
	p := startProgram(t, strings.Replace(signedInOnly, "listen: \"LISTEN\"", fmt.Sprintf("listen: \"LISTEN\", public_url: \"https://LISTEN\", tls: {cert_file: %s/cert, key_file: %s/key}", dir, dir), 1))
	served := func(want int64) {
		t.Helper()
		proctest.Eventually(t, "the certificate is served", func() error {
			conn, err := tls.Dial("tcp", p.public, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
			if err != nil {
				return err
			}
			defer conn.Close()
			if got := conn.ConnectionState(); got.PeerCertificates[0].SerialNumber.Int64() != want || got.NegotiatedProtocol != "h2" {
				return fmt.Errorf("number %v by %q", got.PeerCertificates[0].SerialNumber, got.NegotiatedProtocol)
			}
			return nil
		})
	}
	served(1)
	writePair(t, dir, 2)
	served(2)
	p.reloaded("ok", 1)
	p.reload("routes: [", "failed", 1)
	writePair(t, dir, 3)
	served(3)
	p.measures("postern_config_last_reload_successful 0")
	if err := os.WriteFile(filepath.Join(dir, "cert"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.reloaded("failed", 3)
	served(3)
}

// writePair writes a certificate and its key.
func writePair(t *testing.T, dir string, number int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(number), Subject: pkix.Name{CommonName: "postern"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	cert, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert}, "key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A WebSocket goes on where it began, and ends with its session afterwards.
func TestWebSocketOutlivesTheConfigurationAndEndsWithItsSession(t *testing.T) {
	p := startProgram(t, signedInOnly)
	alice := p.person()
	p.ask(alice, "/")
	c, _, err := websocket.Dial(t.Context(), p.url+"/ws", &websocket.DialOptions{HTTPClient: alice})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	echo := func(text string) {
		t.Helper()
		if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != text {
			t.Fatalf("echo: %q %v", b, err)
		}
	}
	echo("before")
	p.reload(strings.Replace(signedInOnly, "  - {access", "  - {path: /ws, access: deny}\n  - {access", 1), "ok", 1)
	echo("after")
	if _, _, err := websocket.Dial(t.Context(), p.url+"/ws", &websocket.DialOptions{HTTPClient: alice}); err == nil {
		t.Error("a new one to a route that denies")
	}
	p.measures("postern_open_streams 1")
	if res, err := alice.Get(p.url + "/oauth2/logout"); err == nil { // asks, or does it
		res.Body.Close()
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/oauth2/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if res, err := alice.Do(r); err == nil {
		res.Body.Close()
	}
	_, _, err = c.Read(t.Context())
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != websocket.StatusPolicyViolation {
		t.Errorf("the WebSocket ended with %v, want close 1008", err)
	}
	p.measures("postern_open_streams 0")
}
