//go:build e2e

package e2e_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
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

	"postern/session/redistest"
)

// The names of sidecar.yaml.
const (
	wiki          = "wiki.example.com"
	wikiOrigin    = "https://" + wiki
	redisPassword = "correct-horse-battery-staple"
	adminToken    = "an-admin-token-of-some-length-0123456789"
)

// A sidecar is everything that sidecar.yaml names: an ingress with TLS before Postern, Redis with TLS and a password behind it.
type sidecar struct {
	*postern
	idp     *provider
	app     *upstream
	redis   *redistest.Server
	browser *browser
	keys    string            // the folder of key files
	front   http.RoundTripper // the way through the ingress for programs
}

// startSidecar starts it with further replacements in the file.
func startSidecar(t *testing.T, s providerSettings, oldNew ...string) *sidecar {
	t.Helper()
	c := &sidecar{app: startUpstream(t), keys: t.TempDir()}
	ca := newAuthority(t)
	dir := t.TempDir()
	c.redis = startRedis(t, redistest.Options{
		TLS:      true,
		Password: "of the user default",
		// All that Postern does stays under its prefix.
		Args: []string{"--user", "postern", "on", ">" + redisPassword, "~postern:wiki:*", "&postern:wiki:*", "+@all", "-@admin", "-@dangerous"},
	})
	writeFile(t, c.keys, "current", []byte(keygen(t)+"\n"))
	writeFile(t, c.keys, "previous", []byte(keygen(t)+"\n"))
	s.Port, s.Origin, s.ClientSecret = freePort(t), wikiOrigin, "a secret from a file"
	port := freePort(t)
	config := adapt(t, "../../../config/testdata/target/sidecar.yaml", append([]string{
		"10.0.0.0/8", "127.0.0.0/8",
		"/run/secrets/admin-token", writeFile(t, dir, "admin-token", []byte(adminToken+"\n")),
		"/etc/postern/keys", c.keys,
		"redis.internal:6379", c.redis.Address(),
		"/etc/postern/redis-ca.pem", c.redis.CAFile,
		"https://id.example.com/realms/corp", providerURL(s.Port),
		"/run/secrets/corp-client-secret", writeFile(t, dir, "client-secret", []byte(s.ClientSecret+"\n")),
		"http://127.0.0.1:3000", c.app.URL,
	}, oldNew...)...)
	c.postern = newPostern(t, config, port, wikiOrigin, "REDIS_PASSWORD="+redisPassword)
	c.idp = startProvider(t, s)
	c.start(t)
	c.ready(t)

	ingress, certificate := ca.ingress(t, wiki, "http://"+address(port))
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	front := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, ingress)
		},
	}
	t.Cleanup(front.CloseIdleConnections)
	c.front = front
	key := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	c.browser = startBrowser(t, map[string]string{wiki: ingress}, base64.StdEncoding.EncodeToString(key[:]))
	return c
}

// TestSidecar is a whole visit of two people with sidecar.yaml.
func TestSidecar(t *testing.T) {
	c := startSidecar(t, providerSettings{AccessTokenTTL: 5 * time.Minute})

	resp := getBy(t, c.front, wikiOrigin+"/healthz", nil, "X-Forwarded-User", "root")
	if resp.status != http.StatusOK || resp.body != "fine\n" {
		t.Errorf("the public route answers %d %q", resp.status, resp.body)
	}
	if resp := getBy(t, c.front, wikiOrigin+"/healthz/more", nil); resp.status != http.StatusOK {
		t.Errorf("a path below the public route answers %d", resp.status)
	}
	if resp := getBy(t, c.front, wikiOrigin+"/healthzz", nil); resp.status != http.StatusUnauthorized {
		t.Errorf("a path beside the public route answers %d", resp.status)
	}

	alice := c.browser
	alice.open(wikiOrigin + "/wiki/")
	alice.signIn("alice")
	saw, token := alice.seen(), c.idp.last(t).AccessToken
	hasIdentity(t, saw, "alice", token)
	for name, want := range map[string]string{"X-Forwarded-Proto": "https", "X-Forwarded-Host": wiki, "X-Forwarded-For": "127.0.0.1, 127.0.0.1"} {
		if got := saw.Headers.Get(name); got != want {
			t.Errorf("the application sees %s: %q, want %q", name, got, want)
		}
	}
	session := alice.cookie(wikiOrigin, "__Host-postern")
	if !session.Secure || !session.HttpOnly || session.SameSite != http.SameSiteLaxMode || session.Path != "/" || session.Domain != wiki {
		t.Errorf("the session cookie is %v", session)
	}

	bob := alice.another()
	bob.open(wikiOrigin + "/wiki/")
	bob.signIn("bob")
	bob.sees("main h1")
	bob.screenshot("no-access")
	if status := bob.open(wikiOrigin + "/wiki/"); status != http.StatusForbidden {
		t.Errorf("bob, who is in no group of the rule, gets %d", status)
	}
	if got := getBy(t, c.front, wikiOrigin+"/wiki/", bob.cookie(wikiOrigin, "__Host-postern")).status; got != http.StatusForbidden {
		t.Errorf("his programs get %d", got)
	}

	t.Run("admin", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/readyz"} {
			if status, body, err := fetch(c.admin + path); err != nil || status != http.StatusOK {
				t.Errorf("%s answers %d %s %v", path, status, body, err)
			}
		}
		if resp := getBy(t, c.front, wikiOrigin+"/readyz", nil); resp.status != http.StatusUnauthorized {
			t.Errorf("/readyz on the public listener answers %d", resp.status)
		}
		health := exec.CommandContext(t.Context(), filepath.Join(programs, "postern"), "health", "--config", c.config, "--admin-listen", strings.TrimPrefix(c.admin, "http://"))
		health.Env = c.env
		if out, err := health.CombinedOutput(); err != nil {
			t.Errorf("postern health: %v\n%s", err, out)
		}
	})

	// A new key: the one that sealed alice's cookie becomes the previous one.
	old, err := os.ReadFile(filepath.Join(c.keys, "current"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.keys, "previous", old)
	writeFile(t, c.keys, "current", []byte(keygen(t)+"\n"))
	c.Kill()
	c.start(t)
	c.ready(t)
	alice.open(wikiOrigin + "/wiki/")
	hasIdentity(t, alice.seen(), "alice", token)

	c.drains(t, alice.cookie(wikiOrigin, "__Host-postern"))

	dump := dataOf(t, c.redis)
	secrets.Search(t, "Redis's dump", dump)
	if !strings.Contains(dump, "postern:wiki:") {
		t.Error("Redis's dump holds nothing of ours")
	}
}

// drains ends Postern by SIGTERM while a request is running.
func (c *sidecar) drains(t *testing.T, session *http.Cookie) {
	t.Helper()
	answer := make(chan response, 1)
	go func() { answer <- getBy(t, c.front, wikiOrigin+"/slow", session) }()
	select {
	case <-c.app.slow:
	case <-time.After(patience):
		t.Fatal("the slow request does not arrive")
	}
	c.Terminate(t)
	eventually(t, "not ready", func() error {
		status, _, err := fetch(c.admin + "/readyz")
		if err != nil {
			return err
		}
		if status != http.StatusServiceUnavailable {
			return fmt.Errorf("/readyz answers %d", status)
		}
		return nil
	})
	// During drain_delay it still serves whoever has not heard yet.
	if resp := getBy(t, c.front, wikiOrigin+"/healthz", nil); resp.status != http.StatusOK {
		t.Errorf("while draining a new request is answered with %d", resp.status)
	}
	eventually(t, "it stops accepting", func() error {
		conn, err := net.Dial("tcp", c.listen)
		if err != nil {
			return nil
		}
		return errors.Join(errNotYet, conn.Close())
	})
	if c.Ended() {
		t.Error("Postern ended with a request still running")
	}
	close(c.app.free)
	if resp := <-answer; resp.status != http.StatusOK || resp.body != "done" {
		t.Errorf("the running request is answered with %d %q", resp.status, resp.body)
	}
	if code := c.ExitCode(t); code != 0 {
		t.Errorf("Postern exited with %d", code)
	}
}

// TestFormPost signs in with the answer posted from the provider's page, which is another site.
func TestFormPost(t *testing.T) {
	c := startSidecar(t, providerSettings{AccessTokenTTL: 5 * time.Minute}, "    client_id: wiki\n", "    client_id: wiki\n    response_mode: form_post\n")
	b := c.browser
	b.open(wikiOrigin + "/wiki/page")
	b.signIn("alice")
	hasIdentity(t, b.seen(), "alice", c.idp.last(t).AccessToken)
	if at := b.location(); at != wikiOrigin+"/wiki/page" {
		t.Errorf("after signing in the browser is at %s", at)
	}
	if s := b.cookie(wikiOrigin, "__Host-postern"); s.SameSite != http.SameSiteLaxMode {
		t.Errorf("the session cookie is %v", s)
	}
	b.click("#out")
	b.signOutAtProvider()
	b.arrives(wikiOrigin + "/oauth2/logout/callback")
}

// keygen is what `postern keygen` prints.
func keygen(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "postern"), "keygen").Output()
	if err != nil {
		t.Fatalf("postern keygen: %v", err)
	}
	key := strings.TrimSpace(string(out))
	secrets.Add("session key", key)
	return key
}

// An authority signs the certificates of one test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes the certificate of a server.
func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// ingress is the proxy with TLS that stands before a sidecar. It returns its address and certificate.
func (a *authority) ingress(t *testing.T, name, to string) (string, *x509.Certificate) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	certificate := a.issue(t, name)
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		// Postern is killed and started behind it, and each request is to find the new one.
		Transport: &http.Transport{DisableKeepAlives: true},
		ErrorLog:  log.New(t.Output(), "ingress: ", 0),
	})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // Chromium drops connections as it likes
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), certificate.Leaf
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
