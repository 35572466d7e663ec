package idp_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

// pemKey writes a private key as operators keep it.
func pemKey(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func thumbprint(t *testing.T, public any) string {
	t.Helper()
	sum, err := (&jose.JSONWebKey{Key: public}).Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// readAssertion checks a client assertion as a strict provider does (RFC 7523 section 3) and returns its id.
func readAssertion(t *testing.T, r sentRequest, public any, alg jose.SignatureAlgorithm, kid, audience string) (jti string) {
	t.Helper()
	if r.header.Get("Authorization") != "" || r.body.Has("client_secret") {
		t.Error("the client authenticates in two ways (S15)")
	}
	if r.body.Get("client_id") != "wiki" || r.body.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
		t.Errorf("got %v", r.body)
	}
	jws, err := jose.ParseSignedCompact(r.body.Get("client_assertion"), []jose.SignatureAlgorithm{alg})
	if err != nil {
		t.Fatal(err)
	}
	if h := jws.Signatures[0].Protected; h.KeyID != kid || h.ExtraHeaders[jose.HeaderType] != "JWT" || h.JSONWebKey != nil {
		t.Errorf("got header %+v, want kid %s", h, kid)
	}
	payload, err := jws.Verify(public)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	if jti, _ = c["jti"].(string); len(jti) < 22 {
		t.Errorf("got jti %q", jti)
	}
	delete(c, "jti")
	want := map[string]any{"iss": "wiki", "sub": "wiki", "aud": audience, "iat": float64(today.Unix()), "exp": float64(today.Unix() + 60)}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	return jti
}

// TestPrivateKeyJWT: every type of key, for OpenID Connect, where metadata decide what is not said.
func TestPrivateKeyJWT(t *testing.T) {
	p256, p384, p521, rsaKey := newEC(t, elliptic.P256()), newEC(t, elliptic.P384()), newEC(t, elliptic.P521()), newRSA(t, 2048)
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	ecFile := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ecDER}))
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))
	tests := []struct {
		name, key string
		public    any
		alg       jose.SignatureAlgorithm
		supported []string
		change    func(*idp.Options)
		kid       string
		audience  string
	}{
		{"P-256", pemKey(t, p256), &p256.PublicKey, jose.ES256, nil, nil, "", scriptIssuer},
		{"P-256 as openssl writes it", ecFile, &p256.PublicKey, jose.ES256, nil, nil, "", scriptIssuer},
		{"P-384", pemKey(t, p384), &p384.PublicKey, jose.ES384, nil, nil, "", scriptIssuer},
		{"P-521", pemKey(t, p521), &p521.PublicKey, jose.ES512, nil, nil, "", scriptIssuer},
		{"Ed25519", pemKey(t, ed), edPublic, jose.EdDSA, nil, nil, "", scriptIssuer},
		{"RSA", pemKey(t, rsaKey), &rsaKey.PublicKey, jose.RS256, nil, nil, "", scriptIssuer},
		{"RSA of old", pkcs1, &rsaKey.PublicKey, jose.RS256, []string{"RS256", "PS256"}, nil, "", scriptIssuer},
		{"RSA where only PSS is known", pemKey(t, rsaKey), &rsaKey.PublicKey, jose.PS256, []string{"PS256", "ES256"}, nil, "", scriptIssuer},
		{"key id", pemKey(t, p256), &p256.PublicKey, jose.ES256, nil, func(o *idp.Options) { o.ClientKeyID = "2026-11" }, "2026-11", scriptIssuer},
		{"audience", pemKey(t, p256), &p256.PublicKey, jose.ES256, nil, func(o *idp.Options) { o.AssertionAudience = "urn:them" }, "", "urn:them"},
		{"chosen out of metadata, beside a secret", pemKey(t, p256), &p256.PublicKey, jose.ES256, nil,
			func(o *idp.Options) { o.ClientAuth, o.ClientSecret = "", secret("s") }, "", scriptIssuer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, func(o *idp.Options) {
				o.ClientAuth, o.ClientSecret, o.ClientKey = "private_key_jwt", nil, secret(tt.key)
				if tt.change != nil {
					tt.change(o)
				}
			})
			m := scriptMetadata()
			m["token_endpoint_auth_methods_supported"] = []string{"client_secret_basic", "private_key_jwt"}
			m["token_endpoint_auth_signing_alg_values_supported"] = tt.supported
			s.answer("/.well-known/openid-configuration", 200, m)
			got := s.record("/token", 400, `{"error":"invalid_grant"}`)
			_, _ = p.Refresh(t.Context(), before())
			_, _ = p.Refresh(t.Context(), before())
			kid := tt.kid
			if kid == "" {
				kid = thumbprint(t, tt.public)
			}
			first := readAssertion(t, (*got)[0], tt.public, tt.alg, kid, tt.audience)
			if second := readAssertion(t, (*got)[1], tt.public, tt.alg, kid, tt.audience); second == first {
				t.Error("an assertion was used twice")
			}
		})
	}
}

// TestPrivateKeyJWTPlain: without an issuer the audience is the token endpoint, also at the others and inside a network of one's own.
func TestPrivateKeyJWTPlain(t *testing.T) {
	key := newEC(t, elliptic.P256())
	s, p := plain(t, func(o *idp.Options) {
		o.ClientSecret, o.ClientKey, o.InternalURL = nil, secret(pemKey(t, key)), "http://auth.internal:8080"
	})
	got := s.record("/revoke", 200, "")
	if err := p.Revoke(t.Context(), session.Tokens{Refresh: "r"}); err != nil {
		t.Fatal(err)
	}
	readAssertion(t, (*got)[0], &key.PublicKey, jose.ES256, thumbprint(t, &key.PublicKey), scriptIssuer+"/token?v=2")
}

// TestClientKeyReadAgain: a key file that changes is used at once, one that cannot be used is not sent anywhere and not shown.
func TestClientKeyReadAgain(t *testing.T) {
	one, two := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	text, fail := pemKey(t, one), error(nil)
	s, p := plain(t, func(o *idp.Options) {
		o.ClientSecret, o.ClientKey = nil, func() (string, error) { return text, fail }
	})
	got := s.record("/token", 400, `{"error":"invalid_grant"}`)
	prev := session.Grant{Issuer: p.Issuer(), Tokens: session.Tokens{Refresh: "r"}}
	_, _ = p.Refresh(t.Context(), prev)
	text = pemKey(t, two)
	_, _ = p.Refresh(t.Context(), prev)
	readAssertion(t, (*got)[0], &one.PublicKey, jose.ES256, thumbprint(t, &one.PublicKey), scriptIssuer+"/token?v=2")
	readAssertion(t, (*got)[1], &two.PublicKey, jose.ES256, thumbprint(t, &two.PublicKey), scriptIssuer+"/token?v=2")

	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := pemKey(t, one)
	for name, bad := range map[string]string{
		"empty": "", "no PEM": "hunter2", "cut": good[:len(good)/2], "another type": strings.ReplaceAll(good, "PRIVATE KEY", "CERTIFICATE"),
		"garbage":            string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hunter2")})),
		"encrypted":          string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("hunter2")})),
		"encrypted of old":   string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("hunter2")})),
		"RSA with 1024 bits": pemKey(t, weakRSA(t)),
		"P-224":              pemKey(t, newEC(t, elliptic.P224())),
		"X25519":             pemKey(t, x25519),
	} {
		text = bad
		_, err := p.Refresh(t.Context(), prev)
		e := wantRefreshError(t, err, session.Again)
		if !strings.Contains(e.Error(), "client_key") || strings.Contains(e.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, e)
		}
	}
	text, fail = good, errors.New("permission denied")
	_, err = p.Refresh(t.Context(), prev)
	wantRefreshError(t, err, session.Again)
	if n := len(*got); n != 2 {
		t.Errorf("%d requests were sent without a key", n-2)
	}
}

// weakRSA is a key that the standard library does not make any more.
func weakRSA(t *testing.T) *rsa.PrivateKey {
	t.Setenv("GODEBUG", "rsa1024min=0")
	return newRSA(t, 1024)
}

// TestChooseClientAuth: what is not said is found in metadata, and never by trying.
func TestChooseClientAuth(t *testing.T) {
	key := pemKey(t, newEC(t, elliptic.P256()))
	withKey := func(o *idp.Options) { o.ClientKey = secret(key) }
	noSecret := func(o *idp.Options) { o.ClientSecret = nil }
	tests := []struct {
		name      string
		supported any
		change    []func(*idp.Options)
		want      string
	}{
		{"secret, nothing said", nil, nil, "basic"},
		{"secret, post only", []string{"client_secret_post"}, nil, "post"},
		{"secret, both", []string{"client_secret_post", "client_secret_basic"}, nil, "basic"},
		{"secret, neither", []string{"private_key_jwt"}, nil, "none of them"},
		{"no secret", nil, []func(*idp.Options){noSecret}, "none"},
		{"key, nothing said", nil, []func(*idp.Options){noSecret, withKey}, "key"},
		{"key, not supported", []string{"client_secret_basic"}, []func(*idp.Options){noSecret, withKey}, "none of them"},
		{"key and secret, nothing said", nil, []func(*idp.Options){withKey}, "basic"},
		{"key and secret, key supported", []string{"client_secret_basic", "private_key_jwt"}, []func(*idp.Options){withKey}, "key"},
		{"explicit", []string{"client_secret_basic"}, []func(*idp.Options){func(o *idp.Options) { o.ClientAuth = "client_secret_post" }}, "post"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, tt.change...)
			m := scriptMetadata()
			m["token_endpoint_auth_methods_supported"] = tt.supported
			s.answer("/.well-known/openid-configuration", 200, m)
			sent := s.record("/token", 400, `{"error":"invalid_grant"}`)
			_, _ = p.Refresh(t.Context(), before())
			got := "none of them"
			if len(*sent) > 0 {
				switch r := (*sent)[0]; {
				case r.header.Get("Authorization") != "":
					got = "basic"
				case r.body.Has("client_secret"):
					got = "post"
				case r.body.Has("client_assertion"):
					got = "key"
				default:
					got = "none"
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s (%s)", got, tt.want, p.Problem())
			}
		})
	}
}

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	a := authority{key: newEC(t, elliptic.P256()), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func (a authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key := newEC(t, elliptic.P256())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"id.example.com"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// file writes the authority's certificate for ca_file.
func (a authority) file(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// serve starts a TLS server with a certificate of a. With clients it asks for theirs, as far as a signed them.
func (a authority) serve(t *testing.T, clients tls.ClientAuthType, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{a.issue(t, "server")}, ClientAuth: clients, ClientCAs: a.pool, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = discardLog()
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// TestTLSClientAuth holds RFC 8705 sections 2 and 5: the certificate, at the aliases, to nobody else; and the client_id in the body.
func TestTLSClientAuth(t *testing.T) {
	a := newAuthority(t)
	var mu sync.Mutex
	var seen []string
	note := func(server string, r *http.Request) url.Values {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		who := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %s by %s", server, r.URL.Path, who))
		return form
	}
	mtls := a.serve(t, tls.RequireAndVerifyClientCert, func(w http.ResponseWriter, r *http.Request) {
		form := note("mtls", r)
		if form.Get("client_id") != "wiki" || form.Has("client_secret") || form.Has("client_assertion") || r.Header.Get("Authorization") != "" {
			t.Errorf("got %v %v", form, r.Header)
		}
		if r.URL.Path == "/token" {
			io.WriteString(w, `{"access_token":"a","refresh_token":"r"}`)
		}
	})
	var op *httptest.Server
	op = a.serve(t, tls.RequestClientCert, func(w http.ResponseWriter, r *http.Request) { // asks everyone
		note("op", r)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": op.URL, "authorization_endpoint": op.URL + "/authorize", "token_endpoint": op.URL + "/token", "jwks_uri": op.URL + "/jwks",
			"revocation_endpoint":                   op.URL + "/revoke",
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "tls_client_auth"},
			"mtls_endpoint_aliases":                 map[string]string{"token_endpoint": mtls.URL + "/token", "revocation_endpoint": mtls.URL + "/revoke"},
		})
	})
	cert, fail := a.issue(t, "one"), error(nil)
	p := mustNew(t, idp.Options{
		Name: "corp", Issuer: op.URL, ClientID: "wiki", CAFile: a.file(t), // nothing says tls_client_auth but the metadata
		ClientCert: func() (tls.Certificate, error) { mu.Lock(); defer mu.Unlock(); return cert, fail },
	})
	prev := session.Grant{Issuer: op.URL, Subject: "alice", Tokens: session.Tokens{Refresh: "r"}}
	refresh := func() error { _, err := p.Refresh(t.Context(), prev); return err }
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	cert = a.issue(t, "two") // read again
	mu.Unlock()
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	if err := p.Revoke(t.Context(), session.Tokens{Refresh: "r", Access: "a"}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	fail = errors.New("permission denied")
	mu.Unlock()
	wantRefreshError(t, refresh(), session.Again) // certainly not sent
	mu.Lock()
	cert, fail = newAuthority(t).issue(t, "stranger"), nil
	mu.Unlock()
	if err := refresh(); err == nil {
		t.Error("a stranger's certificate was good")
	}
	want := []string{"op /.well-known/openid-configuration by nobody", "mtls /token by one", "mtls /token by two", "mtls /revoke by two", "mtls /revoke by two"}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}
