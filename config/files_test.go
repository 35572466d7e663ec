package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/config"
)

// newKey is what `postern keygen` prints.
func newKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.RawURLEncoding.EncodeToString(key)
}

// pair writes a certificate and its key and returns both as PEM.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}))
}

const filesFile = `server:
  listen: ":443"
  public_url: https://wiki.example.com
  admin: {token: {file: "${DIR}/admin"}, client_ca: "${DIR}/ops.pem", tls: {cert_file: "${DIR}/admin.crt", key_file: "${DIR}/admin.key"}}
  audit: {file: "${DIR}/audit/log"}
  tls: {cert_file: "${DIR}/tls.crt", key_file: "${DIR}/tls.key"}
session:
  keys: [{file: "${DIR}/key1"}, {file: "${DIR}/key2"}]
  store: {redis: {url: "rediss://redis.example.com", password: {file: "${DIR}/redis"}, ca_file: "${DIR}/ca.pem"}}
providers:
  corp: {issuer: "https://id.example.com", client_id: a, client_secret: {file: "${DIR}/client"}}
routes:
  - upstream: http://127.0.0.1:3000
`

func TestCheckFiles(t *testing.T) {
	cert, key := pair(t)
	_, otherKey := pair(t)
	k1 := newKey()
	good := map[string]string{"admin": "0123456789abcdef", "ops.pem": cert, "admin.crt": cert, "admin.key": key, "audit/there": "", "tls.crt": cert, "tls.key": key, "key1": k1 + "\n", "key2": newKey(), "redis": "p", "ca.pem": cert, "client": "s"}
	for _, tt := range []struct {
		name, file, text string // text "-" removes the file
		mode             os.FileMode
		want             string // "PATH|part of what"; "" for no problem
	}{
		{"all well", "", "", 0, ""},
		{"admin token missing", "admin", "-", 0, "server.admin.token|cannot be read: no such file"},
		{"admin token short", "admin", "hunter2", 0, "server.admin.token|shorter than 16"},
		{"CA of operators is no PEM", "ops.pem", "hunter2", 0, "server.admin.client_ca|holds no certificate"},
		{"admin key of another certificate", "admin.key", otherKey, 0, "server.admin.tls|cannot be used"},
		{"audit log is a folder", "audit/log/there", "", 0, "server.audit.file|not a regular file"},
		{"folder of the audit log missing", "audit", "-", 0, "server.audit.file|does not exist"},
		{"key of another certificate", "tls.key", otherKey, 0, "server.tls|cannot be used"},
		{"certificate missing", "tls.crt", "-", 0, "server.tls.cert_file|cannot be read"},
		{"session key short", "key1", "hunter2", 0, "session.keys[0]|"},
		{"session key empty", "key2", "\n", 0, "session.keys[1]|is empty"},
		{"session key twice", "key2", k1, 0, "session.keys[1]|same as a key before"},
		{"password empty", "redis", "", 0, "session.store.redis.password|is empty"},
		{"CA is no PEM", "ca.pem", "hunter2", 0, "session.store.redis.ca_file|holds no certificate"},
		{"client secret missing", "client", "-", 0, "providers.corp.client_secret|cannot be read"},
		{"client secret for all", "client", "s", 0o644, "providers.corp.client_secret|read or changed by every user"},
		{"TLS key for all", "tls.key", key, 0o604, "server.tls.key_file|read or changed by every user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "audit"), 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range good {
				write(t, filepath.Join(dir, name), text)
			}
			switch path := filepath.Join(dir, tt.file); {
			case tt.file == "":
			case tt.text == "-":
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			default:
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, path, tt.text)
				if tt.mode != 0 {
					if err := os.Chmod(path, tt.mode); err != nil {
						t.Fatal(err)
					}
				}
			}
			c, err := config.Parse("x.yaml", []byte(filesFile), env("DIR", dir))
			if err != nil {
				t.Fatal(err) // Parse never looks at the files
			}
			problems := c.CheckFiles()
			if tt.want == "" {
				if len(problems) > 0 {
					t.Errorf("problems:\n%v", problems)
				}
				return
			}
			path, what, _ := strings.Cut(tt.want, "|")
			if len(problems) != 1 || problems[0].Path != path || !strings.Contains(problems[0].What, what) || problems[0].Line == 0 {
				t.Fatalf("problems:\n%v\nwant one at %s: …%s…", problems, path, what)
			}
			if problems[0].Warning != (tt.mode != 0) {
				t.Errorf("warning = %v", problems[0].Warning)
			}
			if strings.Contains(fmt.Sprint(problems), "hunter2") || strings.Contains(fmt.Sprint(problems), dir) {
				t.Errorf("tells a secret: %v", problems)
			}
		})
	}
}

const providerFiles = `
providers:
  key: {issuer: "https://id.example.com", client_id: a, client_auth: private_key_jwt, client_key: {file: "${DIR}/client.pem"}, ca_file: "${DIR}/ca.pem"}
  tls: {issuer: "https://id.example.com", client_id: a, client_auth: tls_client_auth, client_cert: {cert_file: "${DIR}/tls.crt", key_file: "${DIR}/tls.key"}}
routes:
  - {host: a.example.com, upstream: "http://127.0.0.1:3000", provider: key}
`

func TestCheckProviderFiles(t *testing.T) {
	cert, key := pair(t)
	_, otherKey := pair(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	for _, tt := range []struct{ name, file, text, want string }{
		{"all well", "ca.pem", cert, ""},
		{"client key missing", "client.pem", "-", "providers.key.client_key|cannot be read"},
		{"client key is none", "client.pem", "hunter2", "providers.key.client_key|holds no PEM block"},
		{"client key is a certificate", "client.pem", cert, "providers.key.client_key|something else"},
		{"client key is broken", "client.pem", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n", "providers.key.client_key|cannot be read"},
		{"client key is encrypted", "client.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n", "providers.key.client_key|is encrypted"},
		{"client key is weak", "client.pem", rsaPEM, "providers.key.client_key|fewer than 2048"},
		{"CA missing", "ca.pem", "-", "providers.key.ca_file|cannot be read"},
		{"CA is none", "ca.pem", "hunter2", "providers.key.ca_file|holds no certificate"},
		{"certificate missing", "tls.crt", "-", "providers.tls.client_cert.cert_file|cannot be read"},
		{"key of another certificate", "tls.key", otherKey, "providers.tls.client_cert|cannot be used"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"client.pem": key, "ca.pem": cert, "tls.crt": cert, "tls.key": key, tt.file: tt.text} {
				if text != "-" {
					write(t, filepath.Join(dir, name), text)
				}
			}
			c, err := config.Parse("x.yaml", []byte(providerFiles), env("DIR", dir))
			if err != nil {
				t.Fatal(err) // Parse never looks at the files
			}
			problems := c.CheckFiles()
			path, what, _ := strings.Cut(tt.want, "|")
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("problems:\n%v", problems)
			case tt.want != "" && (len(problems) != 1 || problems[0].Path != path || !strings.Contains(problems[0].What, what) || problems[0].Line == 0):
				t.Errorf("problems:\n%v\nwant one at %s: …%s…", problems, path, what)
			}
			if strings.Contains(fmt.Sprint(problems), "hunter2") || strings.Contains(fmt.Sprint(problems), dir) {
				t.Errorf("tells a secret: %v", problems)
			}
		})
	}
}

const upstreamFiles = `
server: {public_url: "https://wiki.example.com"}
providers:
  corp: {issuer: "https://id.example.com", client_id: a, client_secret: b}
routes:
  - {upstream: "https://app.internal", upstream_tls: {ca_file: "${DIR}/ca.pem", cert_file: "${DIR}/tls.crt", key_file: "${DIR}/tls.key"}}
  - {path: /docs, upstream: "file://${DIR}/www"}
`

func TestCheckUpstreamFiles(t *testing.T) {
	cert, key := pair(t)
	_, otherKey := pair(t)
	for _, tt := range []struct{ name, file, text, want string }{
		{"all well", "ca.pem", cert, ""},
		{"CA missing", "ca.pem", "-", "routes[0].upstream_tls.ca_file|cannot be read"},
		{"CA is none", "ca.pem", "hunter2", "routes[0].upstream_tls.ca_file|holds no certificate"},
		{"key missing", "tls.key", "-", "routes[0].upstream_tls.key_file|cannot be read"},
		{"key of another certificate", "tls.key", otherKey, "routes[0].upstream_tls|cannot be used"},
		{"folder missing", "www/index.html", "-", "routes[1].upstream|cannot be read"},
		{"folder is a file", "www", "text", "routes[1].upstream|is not a folder"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"ca.pem": cert, "tls.crt": cert, "tls.key": key, "www/index.html": "home"}
			files[tt.file] = tt.text
			if tt.file == "www" {
				delete(files, "www/index.html")
			}
			for name, text := range files {
				if text == "-" {
					continue
				}
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, name), text)
			}
			c, err := config.Parse("x.yaml", []byte(upstreamFiles), env("DIR", dir))
			if err != nil {
				t.Fatal(err) // Parse never looks at the files
			}
			problems := c.CheckFiles()
			path, what, _ := strings.Cut(tt.want, "|")
			switch {
			case tt.want == "" && len(problems) > 0:
				t.Errorf("problems:\n%v", problems)
			case tt.want != "" && (len(problems) != 1 || problems[0].Path != path || !strings.Contains(problems[0].What, what) || problems[0].Line == 0):
				t.Errorf("problems:\n%v\nwant one at %s: …%s…", problems, path, what)
			}
		})
	}
}

// A client certificate is read anew each time, as certificate managers rotate it.
func TestClientCertIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	c := config.ClientCert{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	if _, err := c.Load(); err == nil || !strings.Contains(err.Error(), "client_cert.cert_file") {
		t.Errorf("without files: %v", err)
	}
	var before []byte
	for range 2 {
		cert, key := pair(t)
		write(t, c.CertFile, cert)
		write(t, c.KeyFile, key)
		got, err := c.Load()
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Certificate) != 1 || string(got.Certificate[0]) == string(before) {
			t.Error("the old certificate came back")
		}
		before = got.Certificate[0]
	}
}
