package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/cmd/postern/doctor"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session/redistest"
	"postern/session/seal"
)

// ward is a Postern and all that it works with, everything well. A test plants a mistake.
type ward struct {
	t        *testing.T
	dir      string
	redis    *redistest.Server
	provider *idptest.Server
	settings map[string]string // ${NAME} of the configuration
	routes   string
	env      []string
	key      string // of session.keys
	file     string // the configuration, without routes
}

const wardFile = `
server: {listen: "${LISTEN}", admin_listen: "${ADMIN}", public_url: "${PUBLIC}", trusted_proxies: ["${TRUSTED}"]}
session:
  keys: [{file: "${KEYFILE}"}]
  store: {redis: {url: "redis://postern@${REDIS}/0", password: "${REDISPASSWORD}"}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: "${SECRET}"}
routes:
  - {upstream: "${UPSTREAM}"}
`

func newWard(t *testing.T) *ward {
	t.Helper()
	w := &ward{t: t, dir: t.TempDir(), redis: redistest.Start(t, redistest.Options{}), provider: idptest.NewServer(t), key: seal.NewKey(), file: wardFile}
	listen := freePort(t)
	w.provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{"http://" + listen + "/oauth2/callback"}})
	w.provider.AddUser(idptest.User{Sub: "alice"})
	w.redisDo("ACL", "SETUSER", "postern", "on", ">canary-redis-password", "~postern:*", "&postern:*", "+@all", "-@admin", "-@dangerous", "+info")
	app := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(app.Close)
	w.settings = map[string]string{
		"LISTEN": listen, "ADMIN": freePort(t), "PUBLIC": "http://" + listen, "KEYFILE": w.write("key", w.key, 0o600), "REDIS": w.redis.Address(),
		"REDISPASSWORD": "canary-redis-password", "ISSUER": w.provider.URL, "SECRET": "canary-client-secret", "UPSTREAM": app.URL, "TRUSTED": "192.0.2.1",
	}
	return w
}

func (w *ward) redisDo(args ...any) {
	w.t.Helper()
	if err := w.redis.Client().Do(w.t.Context(), args...).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) write(name, text string, mode os.FileMode) string {
	w.t.Helper()
	file := filepath.Join(w.dir, name)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil {
		w.t.Fatal(err)
	}
	return file
}

// run runs the program and returns what it printed, and its exit code. Nothing of that may hold a secret.
func (w *ward) run(args ...string) (out string, code int) {
	w.t.Helper()
	program, err := exec.LookPath("postern") // testscript puts this test's own there
	if err != nil {
		w.t.Fatal(err)
	}
	file := w.write("postern.yaml", w.file+w.routes, 0o600)
	cmd := exec.CommandContext(w.t.Context(), program, append(args, "--config", file)...)
	cmd.Env = append(os.Environ(), w.env...)
	for name, value := range w.settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var notes bytes.Buffer
	cmd.Stderr = &notes
	printed, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	for _, secret := range []string{"canary", w.key} {
		if strings.Contains(string(printed)+notes.String(), secret) {
			w.t.Errorf("tells a secret:\n%s%s", printed, &notes)
		}
	}
	return string(printed), cmd.ProcessState.ExitCode()
}

// examine is what doctor finds.
func (w *ward) examine() (d diagnosis, code int) {
	w.t.Helper()
	w.run("doctor") // tells no secret either
	out, code := w.run("doctor", "--format", "json")
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	if (d.Result == doctor.Fail) != (code == 1) {
		w.t.Errorf("result %s, exit code %d", d.Result, code)
	}
	return d, code
}

// finding is the worst one of a check.
func (d diagnosis) finding(check string) (worst doctor.Finding) {
	rank := map[doctor.Result]int{doctor.Pass: 1, doctor.Warn: 2, doctor.Fail: 3}
	for _, f := range d.Findings {
		if f.Check == check && rank[f.Result] > rank[worst.Result] {
			worst = f
		}
	}
	return worst
}

func (d diagnosis) String() string {
	var b strings.Builder
	for _, f := range d.Findings {
		paper{out: &b}.print(f)
	}
	return b.String()
}

func TestDoctorFindsAHealthyPosternWell(t *testing.T) {
	w := newWard(t)
	before := w.redis.Dump()
	d, code := w.examine()
	if code != 0 || d.Result != doctor.Pass {
		t.Errorf("exit code %d:\n%s", code, d)
	}
	for _, check := range []string{
		"config", "files", "keys.session", "listen.public", "listen.admin", "redis.reach", "redis.latency", "redis.commands", "redis.version", "redis.role",
		"redis.memory", "redis.eviction", "redis.persistence", "provider.discovery", "provider.clock", "provider.scopes", "provider.pkce",
		"provider.client_auth", "provider.logout", "provider.keys", "provider.redirect_uri", "provider.client", "public.reach", "public.forwarded", "upstream",
	} {
		if f := d.finding(check); f.Result != doctor.Pass {
			t.Errorf("%s: %+v", check, f)
		}
	}
	if after := w.redis.Dump(); after != before {
		t.Errorf("something was left in Redis:\n%s", after)
	}
	if n := w.provider.Calls(idptest.Token); n != 2 { // one for each run
		t.Errorf("%d token requests", n)
	}
}

// Each mistake alone is found, with the key or the command that mends it.
func TestDoctorFindsPlantedMistakes(t *testing.T) {
	for _, c := range []struct {
		name  string
		plant func(w *ward)
		check string
		want  doctor.Result
		mend  string // must be part of it; {ISSUER} and the like are settings
	}{
		{"issuer with another slash at its end", func(w *ward) { w.settings["ISSUER"] += "/" },
			"provider.issuer", doctor.Fail, "providers.corp.issuer: write http://127.0.0.1:"},
		{"a provider whose name nobody knows", func(w *ward) { w.settings["ISSUER"] = "https://nobody.invalid" },
			"provider.discovery", doctor.Fail, "providers.corp.issuer: write the right name"},
		{"a provider that is down", func(w *ward) { w.provider.Down() },
			"provider.discovery", doctor.Fail, "providers.corp.issuer: start what should answer there"},
		{"a wrong client secret", func(w *ward) { w.settings["SECRET"] = "canary-other-secret" },
			"provider.client", doctor.Fail, "providers.corp.client_secret: must be the secret that the provider has"},
		{"a client that the provider does not know", func(w *ward) {
			w.provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_post"})
		},
			"provider.client", doctor.Fail, "providers.corp.client_auth: "},
		{"a redirect URI that is not registered", func(w *ward) {
			w.provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{"https://wiki.example.com/oauth2/callback"}})
		}, "provider.redirect_uri", doctor.Fail, "Register {PUBLIC}/oauth2/callback at the provider for client wiki"},
		{"a scope that the client may not ask for", func(w *ward) { w.provider.RefuseSignIn("invalid_scope", "") },
			"provider.redirect_uri", doctor.Fail, "providers.corp.scopes: "},
		{"a clock that is minutes off", func(w *ward) {
			w.provider.On(idptest.Discovery, func(rw http.ResponseWriter, _ *http.Request) bool {
				rw.Header().Set("Date", time.Now().Add(-7*time.Minute).UTC().Format(http.TimeFormat))
				return false
			})
		}, "provider.clock", doctor.Fail, "Set this machine's clock by NTP"},
		{"no key for the algorithm", func(w *ward) { w.settings["ISSUER"] = esProvider(w).URL },
			"provider.keys", doctor.Fail, "providers.corp.id_token_signed_response_alg: write the algorithm"},
		{"a provider without PKCE", func(w *ward) {
			w.provider.MutateMetadata(func(m map[string]any) { delete(m, "code_challenge_methods_supported") })
		}, "provider.pkce", doctor.Warn, "providers.corp.pkce"},
		{"a wrong password of Redis", func(w *ward) { w.settings["REDISPASSWORD"] = "canary-wrong" },
			"redis.reach", doctor.Fail, "session.store.redis.password: write the password of user postern"},
		{"Redis is down", func(w *ward) { w.redis.Stop() },
			"redis.reach", doctor.Fail, "session.store.redis.url: start what should answer there"},
		{"a command that the ACL lacks", func(w *ward) { w.redisDo("ACL", "SETUSER", "postern", "-zadd", "-wait") },
			"redis.commands", doctor.Fail, "ACL SETUSER postern +wait +zadd"},
		{"keys that the ACL lacks", func(w *ward) { w.redisDo("ACL", "SETUSER", "postern", "resetkeys", "~other:*") },
			"redis.commands", doctor.Fail, "ACL SETUSER postern ~postern:*"},
		{"a channel that the ACL lacks", func(w *ward) { w.redisDo("ACL", "SETUSER", "postern", "resetchannels", "&other:*") },
			"redis.commands", doctor.Fail, "ACL SETUSER postern &postern:n*"},
		{"Redis evicts", func(w *ward) {
			w.redisDo("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru")
		}, "redis.eviction", doctor.Fail, "CONFIG SET maxmemory-policy noeviction"},
		{"Redis is full", func(w *ward) { w.redisDo("CONFIG", "SET", "maxmemory", "1mb") },
			"redis.memory", doctor.Fail, "Give Redis more memory"},
		{"Redis is a replica", func(w *ward) { w.redisDo("REPLICAOF", "127.0.0.1", "1") },
			"redis.role", doctor.Fail, "session.store.redis: name the master"},
		{"the port is taken", func(w *ward) { occupy(w, w.settings["LISTEN"]) },
			"listen.public", doctor.Fail, "server.listen: write another address, or stop that program"},
		{"the admin port is taken by something that answers", func(w *ward) { occupy(w, w.settings["ADMIN"]) },
			"listen.admin", doctor.Fail, "server.admin_listen: write another address"},
		{"an admin listener for everyone", func(w *ward) { w.settings["ADMIN"] = strings.Replace(w.settings["ADMIN"], "127.0.0.1", "0.0.0.0", 1) },
			"listen.reach", doctor.Warn, "server.admin_listen: write 127.0.0.1"},
		{"a secret that everybody can read", func(w *ward) { w.settings["KEYFILE"] = w.write("open", w.key, 0o644) },
			"files", doctor.Warn, "mode 0400"},
		{"a secret that is not there", func(w *ward) { w.settings["KEYFILE"] = filepath.Join(w.dir, "missing") },
			"files", doctor.Fail, "Put the secret there"},
		{"a key that is none", func(w *ward) { w.settings["KEYFILE"] = w.write("short", "canary", 0o600) },
			"files", doctor.Fail, "postern keygen"},
		{"an application that is down", func(w *ward) { w.settings["UPSTREAM"] = "http://" + freePort(w.t) },
			"upstream", doctor.Fail, "routes[0].upstream: start what should answer there"},
		{"an application whose certificate is for another host", func(w *ward) {
			secure := serveTLS(w, http.NotFoundHandler(), "app.example.com", time.Hour)
			w.routes = "  - {path: /app, upstream: \"" + secure.url + "\", upstream_tls: {ca_file: \"" + secure.ca + "\"}}\n"
		}, "upstream", doctor.Fail, "routes[1].upstream: write a name that the certificate has"},
		{"an application whose certificate has expired", func(w *ward) {
			secure := serveTLS(w, http.NotFoundHandler(), "127.0.0.1", -time.Hour)
			w.routes = "  - {path: /app, upstream: \"" + secure.url + "\", upstream_tls: {ca_file: \"" + secure.ca + "\"}}\n"
		}, "upstream", doctor.Fail, "Renew the server's certificate"},
		{"a certificate whose CA is not known", func(w *ward) {
			w.routes = "  - {path: /app, upstream: \"" + serveTLS(w, http.NotFoundHandler(), "127.0.0.1", time.Hour).url + "\"}\n"
		}, "upstream", doctor.Fail, "routes[1].upstream_tls.ca_file: name the PEM file of the CA"},
		{"a folder that is not there", func(w *ward) { w.routes = "  - {path: /docs, upstream: \"file://" + w.dir + "/none\"}\n" },
			"upstream", doctor.Fail, "routes[1].upstream: name a folder"},
		{"something else answers at public_url", func(w *ward) {
			other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "It works!") }))
			w.t.Cleanup(other.Close)
			w.settings["PUBLIC"] = other.URL
		}, "public.reach", doctor.Fail, "server.public_url: write the origin that browsers use"},
		{"a stranger's answer that looks like Postern's", func(w *ward) {
			other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(rw, `{"code":"sign_in_required","login_url":"http://[::1"}`)
			}))
			w.t.Cleanup(other.Close)
			w.settings["PUBLIC"] = other.URL
		}, "public.reach", doctor.Fail, "server.public_url: write the origin that browsers use"},
		{"public_url is redirected", func(w *ward) {
			other := httptest.NewServer(http.RedirectHandler("https://wiki.example.com/", http.StatusMovedPermanently))
			w.t.Cleanup(other.Close)
			w.settings["PUBLIC"] = other.URL
		}, "public.reach", doctor.Fail, "server.public_url: write https://wiki.example.com"},
		{"the certificate of public_url has expired", func(w *ward) { front(w, "127.0.0.1", -time.Hour, nil) },
			"public.reach", doctor.Fail, "Renew the server's certificate"},
		{"the proxy before Postern is not trusted", func(w *ward) { front(w, "127.0.0.1", time.Hour, forwardedBy("https")) },
			"public.forwarded", doctor.Warn, "server.trusted_proxies: [127.0.0.1]"},
		{"the proxy before Postern says that browsers use http", func(w *ward) {
			w.settings["TRUSTED"] = "127.0.0.1"
			front(w, "127.0.0.1", time.Hour, forwardedBy("http"))
		}, "public.forwarded", doctor.Fail, "X-Forwarded-Proto: https"},
		{"the proxy before Postern does not say https", func(w *ward) {
			w.settings["TRUSTED"] = "127.0.0.1"
			front(w, "127.0.0.1", time.Hour, func(h http.Header, _ string) { h.Set("X-Forwarded-For", "203.0.113.7") })
		}, "public.forwarded", doctor.Fail, "Let it send X-Forwarded-Proto: https"},
		{"an application of which nothing comes after the header", func(w *ward) {
			app := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				rw.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(rw).Flush()
				<-r.Context().Done()
			}))
			w.t.Cleanup(app.Close)
			w.settings["UPSTREAM"] = app.URL
		}, "upstream", doctor.Pass, ""},
		{"the proxy before Postern says nothing of browsers", func(w *ward) { front(w, "127.0.0.1", time.Hour, nil) },
			"public.forwarded", doctor.Warn, "X-Forwarded-Proto"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			c.plant(w)
			d, _ := w.examine()
			f := d.finding(c.check)
			mend := c.mend
			for name, value := range w.settings {
				mend = strings.ReplaceAll(mend, "{"+name+"}", value)
			}
			if f.Result != c.want || !strings.Contains(f.Mend, mend) {
				t.Errorf("want %s %s with the mend %q:\n%s", c.check, c.want, mend, d)
			}
		})
	}
}

func TestDoctorDoesNotCallKeysWellOfWhichOneCannotBeUsed(t *testing.T) {
	t.Parallel()
	w := newWard(t)
	w.settings["KEYFILE"] = w.write("short", "canary", 0o600)
	d, _ := w.examine()
	if f := d.finding("keys.session"); f.Check != "" {
		t.Errorf("one key is none, and it says %+v", f)
	}
}

// esProvider is one that signs with another algorithm than the configured one.
func esProvider(w *ward) *idptest.Server {
	p := idptest.NewServerWith(w.t, idptest.Options{Alg: "ES256"})
	p.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret"})
	return p
}

// occupy has something else answer at an address.
func occupy(w *ward, address string) {
	w.t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	other := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.NotFoundHandler()}}
	other.Start()
	w.t.Cleanup(other.Close)
}

// secured is a server with a certificate of its own making.
type secured struct{ url, ca string }

// serveTLS serves https with a certificate for host that is good until left from now on.
func serveTLS(w *ward, h http.Handler, host string, left time.Duration) secured {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(left), DNSNames: []string{host},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		c.DNSNames, c.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.Config.ErrorLog = quietLog()
	s.StartTLS()
	w.t.Cleanup(s.Close)
	ca := w.write("ca-"+rand.Text(), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o600)
	return secured{s.URL, ca}
}

// front puts a proxy that ends TLS before Postern. header says what it tells of browsers.
func front(w *ward, host string, left time.Duration, header func(http.Header, string)) {
	w.t.Helper()
	to := &url.URL{Scheme: "http", Host: w.settings["LISTEN"]}
	secure := serveTLS(w, &httputil.ReverseProxy{
		ErrorLog: quietLog(),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			if header != nil {
				header(r.Out.Header, r.In.Host)
			}
		},
	}, host, left)
	w.settings["PUBLIC"] = secure.url
	w.env = append(w.env, "SSL_CERT_FILE="+secure.ca)
	w.provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{secure.url + "/oauth2/callback"}})
}

// forwardedBy is what a good proxy tells.
func forwardedBy(scheme string) func(http.Header, string) {
	return func(h http.Header, host string) {
		h.Set("X-Forwarded-For", "203.0.113.7")
		h.Set("X-Forwarded-Proto", scheme)
		h.Set("X-Forwarded-Host", host)
	}
}

func quietLog() *log.Logger { return log.New(io.Discard, "", 0) }

// While Postern runs, its own ports are no mistake, and the doctor asks that one what browsers get.
func TestDoctorExaminesAPosternThatRuns(t *testing.T) {
	w := newWard(t)
	w.settings["TRUSTED"] = "127.0.0.1"
	front(w, "127.0.0.1", 90*24*time.Hour, forwardedBy("https"))
	w.serve()
	d, code := w.examine()
	if code != 0 || d.Result != doctor.Pass {
		t.Errorf("exit code %d:\n%s", code, d)
	}
	for check, want := range map[string]string{
		"listen.public": "by the Postern that runs here", "running": "is ready", "public.reach": "Postern answers", "public.cookie": "__Host-",
		"public.forwarded": "is believed",
	} {
		if f := d.finding(check); f.Result != doctor.Pass || !strings.Contains(f.Found, want) {
			t.Errorf("%s: %+v", check, f)
		}
	}

	// Another configuration than the one that runs there.
	w.file = strings.Replace(wardFile, "client_id: wiki", "client_id: other", 1)
	d, _ = w.examine()
	if f := d.finding("public.sign_in"); f.Result != doctor.Fail || !strings.Contains(f.Mend, "start it with this one") {
		t.Errorf("%+v", f)
	}
}

// A file that cannot be used ends in what is wrong with it, and in nothing else.
func TestDoctorOfABrokenFile(t *testing.T) {
	w := newWard(t)
	w.routes = "  - {path: /docs, upstreem: canary}\n"
	d, code := w.examine()
	if code != 1 || len(d.Findings) != 1 || d.Findings[0].Check != "config" || !strings.Contains(d.Findings[0].Mend, "Did you mean upstream?") {
		t.Errorf("exit code %d:\n%s", code, d)
	}
}

// A provider that hangs holds nothing else up, and not for longer than it may.
func TestDoctorIsBounded(t *testing.T) {
	w := newWard(t)
	w.provider.Hang(idptest.Discovery)
	out, code := w.run("doctor", "--timeout", "200ms")
	if code != 1 || !strings.Contains(out, "fail  provider.discovery corp: no answer in time") || !strings.Contains(out, "pass  upstream ") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours, though nobody looks on")
	}
}

func TestDoctorFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--timeout 0s":                   "--timeout",
		"--timeout 2m":                   "--timeout",
		"--format yaml":                  "write text or json",
		"--config /nowhere/postern.yaml": "",
	} {
		_, _, err := postern(t, append([]string{"doctor"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// serve runs Postern with the ward's configuration until the test ends.
func (w *ward) serve() {
	w.t.Helper()
	program, err := exec.LookPath("postern")
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), program, "--config", w.write("running.yaml", wardFile, 0o600))
	cmd.Env = os.Environ()
	for name, value := range w.settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stderr = w.t.Output()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	proxytest.Eventually(w.t, func() bool { code, _ := get("http://" + w.settings["ADMIN"] + "/readyz"); return code == http.StatusOK })
}
