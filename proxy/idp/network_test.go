package idp_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// TestInternalURL: calls go to the network of one's own, browsers do not, and the issuer stays the public one.
func TestInternalURL(t *testing.T) {
	const internal = "http://auth.internal:8080"
	tests := []struct {
		name, base, prefix string
	}{
		{"scheme and host", internal, ""},
		{"slash", internal + "/", ""},
		{"base path", internal + "/id", "/id"},
		{"base path that the public one has", internal + "/realms", ""},
		{"the whole internal issuer", internal + "/realms/staff", ""},
		{"a path that only begins alike", internal + "/realm", "/realm"},
	}
	const issuer = "https://id.example.com/realms/staff"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			var calls []string
			network := roundTripper(func(r *http.Request) (*http.Response, error) {
				calls = append(calls, r.URL.Scheme+"://"+r.URL.Host+r.URL.EscapedPath())
				switch {
				case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
					return reply(200, map[string]any{
						"issuer": issuer, "authorization_endpoint": issuer + "/authorize", "token_endpoint": issuer + "/token",
						"jwks_uri": "https://id.example.com:443/realms/staff/jw%20ks", "revocation_endpoint": "https://elsewhere.example/revoke",
						"userinfo_endpoint": internal + "/realms/staff/me", "end_session_endpoint": issuer + "/end",
					}), nil
				case strings.HasSuffix(r.URL.Path, "/jw ks"):
					return reply(200, s.jwks), nil
				case strings.HasSuffix(r.URL.Path, "/token"):
					claims := map[string]any{"iss": issuer, "aud": "wiki", "sub": "alice", "iat": today.Unix(), "exp": today.Unix() + 60}
					return reply(200, map[string]any{"access_token": "a", "id_token": sign(t, s.key, claims)}), nil
				case strings.HasSuffix(r.URL.Path, "/me"):
					return reply(200, `{"sub":"alice"}`), nil
				}
				return reply(200, ""), nil
			})
			o := s.options()
			o.Issuer, o.InternalURL, o.Transport, o.Now, o.Identity = issuer, tt.base, network, func() time.Time { return today }, "userinfo"
			p := mustNew(t, o)
			address, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
			if err != nil || !strings.HasPrefix(address, issuer+"/authorize?") {
				t.Fatalf("got %s, %v (%s)", address, err, p.Problem())
			}
			if end, _ := p.EndSession("", callback, ""); !strings.HasPrefix(end.URL, issuer+"/end?") || p.AuthorizeOrigin() != "https://id.example.com" {
				t.Errorf("got %s, %s", end.URL, p.AuthorizeOrigin())
			}
			if _, err := p.Refresh(t.Context(), session.Grant{Issuer: issuer, Subject: "alice", Tokens: session.Tokens{Refresh: "r"}}); err != nil {
				t.Fatal(err)
			}
			if err := p.Revoke(t.Context(), session.Tokens{Refresh: "r"}); err != nil {
				t.Fatal(err)
			}
			at := internal + tt.prefix + "/realms/staff"
			want := []string{at + "/.well-known/openid-configuration", at + "/token", at + "/jw%20ks", internal + "/realms/staff/me", "https://elsewhere.example/revoke"}
			if diff := cmp.Diff(want, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestInternalURLTrustsNobodyElse: what a document names outside of both networks must be https all the same, and an internal document
// of another issuer is not this provider's.
func TestInternalURLTrustsNobodyElse(t *testing.T) {
	for word, change := range map[string]map[string]any{
		"token_endpoint that is not https": {"token_endpoint": "http://id.example.com:443/token"}, // another origin, for all its port
		"another issuer":                   {"issuer": "http://auth.internal:8080"},
		"token_endpoint":                   {"token_endpoint": "http://evil.example/token"},
		"jwks_uri":                         {"jwks_uri": "http://auth.internal:8081/jwks"},
		"authorization_endpoint":           {"authorization_endpoint": "http://auth.internal:8080/authorize"}, // no browser gets there
		"unusable token_endpoint":          {"token_endpoint": "https://a:b@id.example.com/token"},
	} {
		s, p := scripted(t, func(o *idp.Options) { o.InternalURL = "http://auth.internal:8080" })
		m := scriptMetadata()
		for name, v := range change {
			m[name] = v
		}
		s.answer("/.well-known/openid-configuration", 200, m)
		_, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
		wantUnavailable(t, err)
		if !strings.Contains(p.Problem(), word) {
			t.Errorf("got problem %q, want one about %s", p.Problem(), word)
		}
	}
}

// TestCAFile: the file's authorities, and no others.
func TestCAFile(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	var op *httptest.Server
	op = ours.serve(t, tls.NoClientCert, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": op.URL, "authorization_endpoint": op.URL + "/authorize", "token_endpoint": op.URL + "/token", "jwks_uri": op.URL + "/jwks",
		})
	})
	begin := func(file string, transport http.RoundTripper) (string, error) {
		p, err := idp.New(idp.Options{Issuer: op.URL, ClientID: "wiki", CAFile: file, Transport: transport})
		if err != nil {
			return "", err
		}
		_, _ = p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
		return p.Problem(), nil
	}
	if problem, err := begin(ours.file(t), nil); problem != "" || err != nil {
		t.Errorf("got %q, %v", problem, err)
	}
	if problem, err := begin(ours.file(t), &http.Transport{}); problem != "" || err != nil {
		t.Errorf("with a transport: got %q, %v", problem, err)
	}
	for _, file := range []string{"", other.file(t)} {
		if problem, err := begin(file, nil); !strings.Contains(problem, "certificate") || err != nil {
			t.Errorf("%s: got %q, %v", file, problem, err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := begin(empty, nil); err == nil || !strings.Contains(err.Error(), "ca_file") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a file without certificates: got %v", err)
	}
}

// TestAdopt: what a provider said counts for another configuration of it, and for no other issuer, way or authority.
func TestAdopt(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	calls := 0
	var op *httptest.Server
	op = ours.serve(t, tls.NoClientCert, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": op.URL, "authorization_endpoint": op.URL + "/authorize", "token_endpoint": op.URL + "/token", "jwks_uri": op.URL + "/jwks",
		})
	})
	o := idp.Options{Issuer: op.URL, ClientID: "wiki", CAFile: ours.file(t)}
	known := mustNew(t, o)
	if _, err := known.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*idp.Options)
		want   bool
	}{
		"the same":                       {func(*idp.Options) {}, true},
		"other scopes":                   {func(o *idp.Options) { o.Scopes = []string{"openid"} }, true},
		"the same authority, moved":      {func(o *idp.Options) { o.CAFile = ours.file(t) }, true},
		"another authority":              {func(o *idp.Options) { o.CAFile = other.file(t) }, false},
		"another issuer":                 {func(o *idp.Options) { o.Issuer += "/x" }, false},
		"another way":                    {func(o *idp.Options) { o.InternalURL = "https://127.0.0.1:1" }, false},
		"a need that it does not answer": {func(o *idp.Options) { o.Identity = "userinfo" }, false},
	} {
		changed := o
		tt.change(&changed)
		p := mustNew(t, changed)
		p.Adopt(known)
		if p.Discovered() != tt.want {
			t.Errorf("%s: known is %v, want %v", name, p.Discovered(), tt.want)
		}
	}
	unknown, p := mustNew(t, o), mustNew(t, o)
	if p.Adopt(unknown); p.Discovered() || calls != 1 {
		t.Errorf("nothing is known, and it is known; or it was asked %d times", calls)
	}
}

// TestHTTPProxy: every call goes through the proxy, with its credentials for it alone.
func TestHTTPProxy(t *testing.T) {
	var mu sync.Mutex
	var through []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		through = append(through, r.Method+" "+r.Host)
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunter2"))
		if r.Header.Get("Proxy-Authorization") != want {
			t.Errorf("got Proxy-Authorization %q", r.Header.Get("Proxy-Authorization"))
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("me", "hunter2")
	o := plainOptions()
	o.HTTPProxy, o.Now = u.String(), nil
	p := mustNew(t, o)
	_, err = p.Refresh(t.Context(), session.Grant{Issuer: p.Issuer(), Tokens: session.Tokens{Refresh: "r"}})
	wantRefreshError(t, err, session.Again) // there was never a way to the provider
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(through, []string{"CONNECT id.example.com:443"}) {
		t.Errorf("got %v", through)
	}
}
