package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postern/config"
)

// authority is a CA of a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	ca := &authority{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca.key = key
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return ca
}

// issue makes a certificate for a name, as PEM.
func (ca *authority) issue(name string) (cert, key []byte) {
	ca.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, &k.PublicKey, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		ca.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func (ca *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// write writes a file in place of another.
func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An upstream of a private CA that wants to know who calls: the files count as they are when a connection is made.
func TestUpstreamTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	files := config.UpstreamTLS{
		CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), ServerName: "erp.internal",
	}
	identify := func(from *authority, name string) {
		cert, key := from.issue(name)
		write(t, files.CertFile, cert)
		write(t, files.KeyFile, key)
	}
	cert, key := ca.issue("erp.internal")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName+" "+r.TLS.ServerName+" "+r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.StartTLS()
	defer server.Close()
	f := newFront(t, server.URL, asAlice, func(o *upstreamOptions) { o.TLS = files.Load })
	expect := func(what string, status int, text string) {
		t.Helper()
		f.u.close() // so that a new connection is made
		res, body := say(t, f.URL, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
		if res.StatusCode != status || status == 200 && body != text {
			t.Errorf("%s: got %s %q", what, res.Status, body)
		}
	}

	expect("no files", 502, "")
	write(t, files.CAFile, ca.pem())
	identify(ca, "postern-1")
	expect("all files", 200, "postern-1 erp.internal HTTP/2.0")
	identify(ca, "postern-2")
	expect("another certificate", 200, "postern-2 erp.internal HTTP/2.0")
	identify(other, "postern-3")
	expect("a certificate of another CA", 502, "")
	identify(ca, "postern-4")
	write(t, files.CAFile, other.pem())
	expect("another CA", 502, "")
	write(t, files.CAFile, []byte("nothing"))
	expect("a broken CA file", 502, "")
	write(t, files.CAFile, ca.pem())
	expect("all files again", 200, "postern-4 erp.internal HTTP/2.0")

	files.ServerName = "crm.internal"
	wrong := newFront(t, server.URL, asAlice, func(o *upstreamOptions) { o.TLS = files.Load })
	if res, _ := say(t, wrong.URL, "GET / HTTP/1.1\r\nHost: erp.internal\r\n\r\n"); res.StatusCode != 502 {
		t.Errorf("a certificate of another name: got %s", res.Status)
	}
	if got := <-wrong.failed; got.Reason != "upstream_tls" {
		t.Errorf("got %+v", got)
	}
}

// Upstreams that speak HTTP/2 open WebSockets by HTTP/1.1.
func TestWebSocketOverTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("%s: %v", r.Proto, err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	f := newFront(t, server.URL, asAlice, trustingServer(server))
	res, _ := say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
	if res.StatusCode != 101 || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		t.Errorf("got %s", res.Status)
	}
}

// A connection whose certificate one route accepts is not used by another that would refuse it.
func TestUpstreamTLSConnectionsAreNotShared(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "secret") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	connections := map[destination]transports{}
	shared := func(o *upstreamOptions) { o.Shared = connections }
	const ask = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
	for range 2 {
		trusting := newFront(t, server.URL, nil, shared, trustingServer(server))
		if res, _ := say(t, trusting.URL, ask); res.StatusCode != 200 {
			t.Errorf("a route that knows the CA: %s", res.Status)
		}
		strict := newFront(t, server.URL, nil, shared)
		if res, body := say(t, strict.URL, ask); res.StatusCode != 502 {
			t.Errorf("a route that does not: %s %q", res.Status, body)
		}
	}
}
