package idp_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
	"postern/session"
)

const callback = "https://wiki.example.com/oauth2/callback"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand is a provider beside the scriptable one.
type stand struct {
	*idp.Provider
	op *idptest.Server
}

// newStand makes a scriptable provider with one client and one person, and ours that speaks to it. Keys are ES256, as RSA keys take
// long to make.
func newStand(t *testing.T, change ...func(*idp.Options)) stand {
	t.Helper()
	return newStandWith(t, idptest.Options{Alg: "ES256"}, change...)
}

func newStandWith(t *testing.T, oo idptest.Options, change ...func(*idp.Options)) stand {
	t.Helper()
	op := idptest.NewServerWith(t, oo)
	op.AddClient(idptest.Client{ID: "wiki", Secret: "s3cr:t/+%", RedirectURIs: []string{callback}})
	op.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{
		"name": "Alice", "preferred_username": "al", "email": "alice@example.com", "email_verified": true, "groups": []string{"staff", "admins"},
	}})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	o := idp.Options{
		Name: "corp", Issuer: op.URL, ClientID: "wiki", ClientSecret: secret("s3cr:t/+%"), SigningAlg: oo.Alg, Transport: transport,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, f := range change {
		f(&o)
	}
	return stand{mustNew(t, o), op}
}

func secret(s string) func() (string, error) { return func() (string, error) { return s, nil } }

func mustNew(t testing.TB, o idp.Options) *idp.Provider {
	t.Helper()
	p, err := idp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newSecret() (s [32]byte) {
	rand.Read(s[:])
	return s
}

// signIn goes through a whole sign-in.
func (s stand) signIn(t *testing.T) (session.Grant, error) {
	t.Helper()
	b := idp.Begin{State: "some-state", Secret: newSecret(), RedirectURI: callback}
	authURL, err := s.Begin(t.Context(), b)
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	return s.finish(t, b, s.op.Visit(t, authURL))
}

func (s stand) finish(t *testing.T, b idp.Begin, back idptest.Callback) (session.Grant, error) {
	t.Helper()
	return s.Finish(t.Context(), idp.Finish{Params: back.Params, Secret: b.Secret, RedirectURI: b.RedirectURI, Posted: back.Posted})
}

func (s stand) mustSignIn(t *testing.T) session.Grant {
	t.Helper()
	g, err := s.signIn(t)
	if err != nil {
		t.Fatalf("sign in: %v", err)
	}
	return g
}

// wantProtocol fails unless err says that an answer was wrong, in words that hold all of the given ones.
func wantProtocol(t *testing.T, err error, words ...string) {
	t.Helper()
	bad, ok := errors.AsType[*idp.ProtocolError](err)
	if !ok {
		t.Fatalf("got error %v (%T), want a ProtocolError", err, err)
	}
	for _, w := range words {
		if !strings.Contains(bad.What, w) {
			t.Errorf("ProtocolError %q does not speak of %q", bad.What, w)
		}
	}
}

func wantUnavailable(t *testing.T, err error) *idp.UnavailableError {
	t.Helper()
	down, ok := errors.AsType[*idp.UnavailableError](err)
	if !ok {
		t.Fatalf("got error %v (%T), want an UnavailableError", err, err)
	}
	if _, ok := errors.AsType[*idp.ProtocolError](err); ok {
		t.Errorf("%v is both unavailable and wrong", err)
	}
	return down
}

func wantRefreshError(t *testing.T, err error, kind session.RefreshKind) *session.RefreshError {
	t.Helper()
	e, ok := errors.AsType[*session.RefreshError](err)
	if !ok {
		t.Fatalf("got error %v (%T), want a RefreshError", err, err)
	}
	if e.Kind != kind {
		t.Errorf("got kind %v (%v), want %v", e.Kind, e, kind)
	}
	return e
}

// script is a provider without sockets: a transport whose endpoints are functions. It signs with one Ed25519 key.
type script struct {
	mu    sync.Mutex
	calls map[string]int
	on    map[string]func(*http.Request) (*http.Response, error)
	key   jose.SigningKey
	jwks  jose.JSONWebKeySet
}

const scriptIssuer = "https://id.example.com"

func newScript(t testing.TB) *script {
	t.Helper()
	s := &script{calls: map[string]int{}}
	s.key = s.newKey(t, "k1")
	s.on = map[string]func(*http.Request) (*http.Response, error){
		"/.well-known/openid-configuration": func(*http.Request) (*http.Response, error) { return reply(200, scriptMetadata()), nil },
		"/jwks":                             func(*http.Request) (*http.Response, error) { return reply(200, s.jwks), nil },
	}
	return s
}

// newKey publishes one more key.
func (s *script) newKey(t testing.TB, id string) jose.SigningKey {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jwks.Keys = append(s.jwks.Keys, jose.JSONWebKey{Key: public, KeyID: id, Algorithm: "EdDSA", Use: "sig"})
	return jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: id}}
}

func scriptMetadata() map[string]any {
	return map[string]any{
		"issuer":                 scriptIssuer,
		"authorization_endpoint": scriptIssuer + "/authorize?tenant=7",
		"token_endpoint":         scriptIssuer + "/token",
		"jwks_uri":               scriptIssuer + "/jwks",
		"userinfo_endpoint":      scriptIssuer + "/userinfo",
		"end_session_endpoint":   scriptIssuer + "/end?tenant=7",
	}
}

func (s *script) set(path string, f func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on[path] = f
}

// answer makes an endpoint answer the same always.
func (s *script) answer(path string, status int, body any) {
	s.set(path, func(*http.Request) (*http.Response, error) { return reply(status, body), nil })
}

func (s *script) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[path]
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	s.mu.Lock()
	s.calls[r.URL.Path]++
	f := s.on[r.URL.Path]
	s.mu.Unlock()
	if f == nil {
		return reply(404, "not found"), nil
	}
	return f(r)
}

// reply makes an answer: a string or bytes as they are, anything else as JSON.
func reply(status int, body any, header ...string) *http.Response {
	var b []byte
	switch body := body.(type) {
	case string:
		b = []byte(body)
	case []byte:
		b = body
	default:
		var err error
		if b, err = json.Marshal(body); err != nil {
			panic(err)
		}
	}
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(bytes.NewReader(b))}
}

// sign signs a payload, with further header parameters.
func sign(t testing.TB, key jose.SigningKey, payload any, header ...any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	for i := 0; i+1 < len(header); i += 2 {
		o = o.WithHeader(jose.HeaderKey(header[i].(string)), header[i+1])
	}
	b, ok := payload.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(payload); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := jose.NewSigner(key, o)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (s *script) options() idp.Options {
	return idp.Options{
		Name: "corp", Issuer: scriptIssuer, ClientID: "wiki", ClientSecret: secret("secret"), SigningAlg: "EdDSA", Transport: s,
	}
}

// attempt begins a sign-in and returns the claims that a good ID token for it holds.
func attempt(t testing.TB, ctx context.Context, p *idp.Provider, now time.Time) (idp.Begin, map[string]any) {
	t.Helper()
	b := idp.Begin{State: "some-state", Secret: newSecret(), RedirectURI: callback}
	authURL, err := p.Begin(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(authURL)
	if err != nil {
		t.Fatal(err)
	}
	return b, map[string]any{
		"iss": scriptIssuer, "aud": "wiki", "sub": "alice", "nonce": u.Query().Get("nonce"),
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
}

// complete finishes an attempt with an ID token of the given claims.
func (s *script) complete(t testing.TB, ctx context.Context, p *idp.Provider, b idp.Begin, idToken string, more map[string]any) (session.Grant, error) {
	t.Helper()
	body := map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": idToken}
	maps.Copy(body, more)
	s.answer("/token", 200, body)
	return p.Finish(ctx, idp.Finish{Params: url.Values{"code": {"c0de"}, "state": {b.State}}, Secret: b.Secret, RedirectURI: b.RedirectURI})
}

func diffGrant(want, got session.Grant) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }
