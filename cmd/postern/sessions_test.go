package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/proxy/proxytest"
)

// postern runs postern with its input from nowhere.
func postern(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(""))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err = root.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// adminStack is a stack with its admin listener; args name that and the token.
func adminStack(t *testing.T) (s *proxytest.Stack, args []string) {
	t.Helper()
	s = proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `listen: "${LISTEN}"`, `listen: "${LISTEN}", admin: {token: admin-canary-token}`, 1)})
	admin := httptest.NewServer(s.Proxy.Admin())
	t.Cleanup(admin.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("admin-canary-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return s, []string{"--admin", admin.URL, "--token-file", token}
}

func TestSessionsAreListedAndEndedFromTheCommandLine(t *testing.T) {
	s, at := adminStack(t)
	var all []*proxytest.Browser
	for range 3 {
		b := s.Browser()
		b.Go("/").Received(t)
		all = append(all, b)
	}
	out, _, err := postern(t, append([]string{"sessions", "list", "--user", "alice"}, at...)...)
	if err != nil || strings.Count(out, "\n") != 4 || strings.Count(out, "Firefox") != 3 || !strings.HasPrefix(out, "ID ") {
		t.Errorf("%v\n%s", err, out)
	}
	out, _, err = postern(t, append([]string{"sessions", "list", "--sub", "alice", "--format", "json"}, at...)...)
	var list []listedSession
	if json.Unmarshal([]byte(out), &list) != nil || err != nil || len(list) != 3 || list[0].User != "alice" || list[0].Seen.IsZero() {
		t.Fatalf("%v\n%s", err, out)
	}
	out, notes, err := postern(t, append([]string{"sessions", "end", list[0].ID, "s-unknown", "--", "-x"}, at...)...)
	if err == nil { // -- ends the flags: the address is not read
		t.Errorf("%s %s", out, notes)
	}
	out, notes, err = postern(t, append(append([]string{"sessions", "end"}, at...), list[0].ID, "s-unknown", "--", "-x")...)
	if err == nil || out != "ended "+list[0].ID+"\n" || strings.Count(notes, "no live session has this id") != 2 {
		t.Errorf("%v\n%s%s", err, out, notes)
	}
	if _, _, err = postern(t, append([]string{"sessions", "end", "--user", "alice"}, at...)...); err == nil || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without --yes: %v", err)
	}
	out, _, err = postern(t, append([]string{"sessions", "end", "--user", "alice", "--yes"}, at...)...)
	if err != nil || out != "ended 2 sessions\n" {
		t.Errorf("%v %s", err, out)
	}
	for i, b := range all {
		if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("session %d: %s", i, a.Status)
		}
	}
	if out, _, err = postern(t, append([]string{"sessions", "list", "--user", "alice"}, at...)...); err != nil || out != "no sessions\n" {
		t.Errorf("%v %s", err, out)
	}
}

func TestSessionsCommandSaysWhyItIsRefused(t *testing.T) {
	s, at := adminStack(t)
	other := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(other, []byte("wrong-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := httptest.NewServer(proxytest.New(t, proxytest.Options{}).Proxy.Admin())
	defer closed.Close()
	strange := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer strange.Close()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"wrong token":    {[]string{"--admin", at[1], "--token-file", other}, "refuses this token"},
		"no token":       {[]string{"--admin", at[1]}, "--token-file"},
		"people's side":  {append([]string{"--admin", s.URL}, at[2:]...), "is not the admin listener"},
		"no API":         {[]string{"--admin", closed.URL}, "there is no sessions API"},
		"provider":       {append([]string{"--provider", "x"}, at...), "none of the configuration's"},
		"not Postern":    {[]string{"--admin", strange.URL, "--token-file", at[3]}, "answers 302"},
		"plain to https": {[]string{"--admin", strings.Replace(at[1], "http:", "https:", 1)}, "ask https://"},
	} {
		_, _, err := postern(t, append([]string{"sessions", "list", "--user", "alice"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// authority is a CA of this test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{t, cert, key}
}

// issue writes a certificate with its key, and the CA's, into files.
func (a authority) issue(name string, usage x509.ExtKeyUsage) (certFile, keyFile, caFile string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	dir := a.t.TempDir()
	certFile, keyFile, caFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}, caFile: {Type: "CERTIFICATE", Bytes: a.cert.Raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return certFile, keyFile, caFile
}

// A121: with client_ca the sessions API is for holders of a certificate of that CA; probes and `postern health` need none.
func TestA121_ClientCertificatesOpenTheAdminListener(t *testing.T) {
	servers, operators := newAuthority(t), newAuthority(t)
	cert, key, ca := servers.issue("postern.internal", x509.ExtKeyUsageServerAuth)
	opCert, opKey, opCA := operators.issue("olga", x509.ExtKeyUsageClientAuth)
	alienCert, alienKey, _ := newAuthority(t).issue("eve", x509.ExtKeyUsageClientAuth)
	serverCert, serverKey, _ := operators.issue("other.internal", x509.ExtKeyUsageServerAuth)
	audit := filepath.Join(t.TempDir(), "audit.jsonl")

	public, admin := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "postern.yaml")
	text := "server: {listen: '" + public + "', admin_listen: '" + admin + "', log: {level: error}, audit: {file: '" + audit + "'}, " +
		"admin: {client_ca: '" + opCA + "', tls: {cert_file: '" + cert + "', key_file: '" + key + "'}}}\n" +
		"providers:\n  corp: {issuer: 'http://127.0.0.1:1', client_id: wiki, client_secret: secret}\nroutes: [{access: public, upstream: 'http://127.0.0.1:2'}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serveFile(t, file)
	proxytest.Eventually(t, func() bool { _, _, err := postern(t, "health", "--config", file); return err == nil })

	list := []string{"sessions", "list", "--user", "alice", "--config", file}
	if out, _, err := postern(t, append(list, "--cert", opCert, "--key", opKey)...); err != nil || out != "no sessions\n" {
		t.Errorf("with a certificate: %v %s", err, out)
	}
	_, port, _ := net.SplitHostPort(admin)
	if _, _, err := postern(t, "sessions", "list", "--user", "alice", "--admin", "https://localhost:"+port, "--ca", ca, "--cert", opCert, "--key", opKey); err == nil {
		t.Error("a name that the certificate does not have was accepted")
	}
	if _, _, err := postern(t, "sessions", "list", "--user", "alice", "--admin", "https://"+admin, "--cert", opCert, "--key", opKey); err == nil {
		t.Error("an unknown CA was trusted")
	}
	if _, _, err := postern(t, list...); err == nil || !strings.Contains(err.Error(), "client_ca") {
		t.Errorf("without a certificate: %v", err)
	}
	for name, pair := range map[string][2]string{"another CA's": {alienCert, alienKey}, "a server's": {serverCert, serverKey}} {
		if _, _, err := postern(t, append(list, "--cert", pair[0], "--key", pair[1])...); err == nil {
			t.Errorf("with %s certificate the API opens", name)
		}
	}
	if resp, err := http.Get("http://" + admin + "/healthz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("the admin listener answers plain http")
		}
	}
	proxytest.Eventually(t, func() bool {
		lines, err := os.ReadFile(audit)
		return err == nil && strings.Contains(string(lines), `"operator":"CN=olga"`) && strings.Contains(string(lines), "admin_refused")
	})
}

// With both, both are asked for: adding a second lock never opens the first.
func TestA121_TokenAndClientCertificateAreBothAskedFor(t *testing.T) {
	operators := newAuthority(t)
	cert, key, ca := operators.issue("postern.internal", x509.ExtKeyUsageServerAuth)
	opCert, opKey, _ := operators.issue("olga", x509.ExtKeyUsageClientAuth)
	public, admin := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "postern.yaml")
	text := "server: {listen: '" + public + "', admin_listen: '" + admin + "', log: {level: error}, tls: {cert_file: '" + cert + "', key_file: '" + key + "'}, " +
		"admin: {token: admin-canary-token, client_ca: '" + ca + "'}}\n" +
		"providers:\n  corp: {issuer: 'http://127.0.0.1:1', client_id: wiki, client_secret: secret}\nroutes: [{access: public, host: a.example.com, upstream: 'http://127.0.0.1:2'}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serveFile(t, file)
	proxytest.Eventually(t, func() bool { _, _, err := postern(t, "health", "--config", file); return err == nil })
	pool, _, err := certificates(ca)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(opCert, opKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		token string
		certs []tls.Certificate
		want  int
	}{
		{"", nil, 403}, {"admin-canary-token", nil, 403}, {"", []tls.Certificate{pair}, 401}, {"admin-canary-token", []tls.Certificate{pair}, 200},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+admin+"/sessions?user=alice", nil)
		r.Header.Set("Authorization", "Bearer "+c.token)
		resp, err := newAdminHTTP(&tls.Config{RootCAs: pool, ServerName: "postern.internal", Certificates: c.certs}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("token %t, certificate %t: %s", c.token != "", len(c.certs) > 0, resp.Status)
		}
	}
}
