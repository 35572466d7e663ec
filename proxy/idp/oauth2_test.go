package idp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

// plainOptions describe a provider that is not OpenID Connect, at the endpoints of a script.
func plainOptions() idp.Options {
	return idp.Options{
		Name: "old",
		OAuth2: &idp.Endpoints{
			Authorize: scriptIssuer + "/authorize/?tenant=7", Token: scriptIssuer + "/token?v=2", Userinfo: scriptIssuer + "/me",
			Revoke: scriptIssuer + "/revoke", Introspect: scriptIssuer + "/introspect", EndSession: scriptIssuer + "/end",
		},
		ClientID: "wiki", ClientSecret: secret("s3cr:t/+%"), Identity: "none",
		Now: func() time.Time { return today },
	}
}

// plain makes such a provider without sockets, and ours that speaks to it.
func plain(t testing.TB, change ...func(*idp.Options)) (*script, *idp.Provider) {
	t.Helper()
	s := newScript(t)
	o := plainOptions()
	o.Transport = s
	for _, f := range change {
		f(&o)
	}
	return s, mustNew(t, o)
}

// sentRequest is a request as it came.
type sentRequest struct {
	method, query, user, pass string
	header                    http.Header
	body                      url.Values
	length                    int64
}

// record makes an endpoint note its requests and answer the same always.
func (s *script) record(path string, status int, body any) *[]sentRequest {
	var got []sentRequest
	s.set(path, func(r *http.Request) (*http.Response, error) {
		one := sentRequest{method: r.Method, query: r.URL.RawQuery, header: r.Header.Clone(), length: r.ContentLength}
		if r.Body != nil {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			if one.body, err = url.ParseQuery(string(b)); err != nil {
				return nil, err
			}
		}
		one.user, one.pass, _ = r.BasicAuth()
		got = append(got, one)
		return reply(status, body), nil
	})
	return &got
}

func TestPlainNewRefuses(t *testing.T) {
	tests := []struct {
		word   string
		change func(*idp.Options)
	}{
		{"issuer", func(o *idp.Options) { o.Issuer = scriptIssuer }},
		{"oauth2.token_url", func(o *idp.Options) { o.OAuth2.Token = "" }},
		{"oauth2.token_url", func(o *idp.Options) { o.OAuth2.Token = "http://id.example.com/token" }},
		{"oauth2.token_url", func(o *idp.Options) { o.OAuth2.Token = "https://me:hunter2@id.example.com/token" }},
		{"oauth2.token_url", func(o *idp.Options) { o.OAuth2.Token = "https://id.example.com/token#x" }},
		{"oauth2.authorize_url", func(o *idp.Options) { o.OAuth2.Authorize = "" }},
		{"oauth2.authorize_url", func(o *idp.Options) { o.OAuth2.Authorize = "javascript:alert(1)" }},
		{"oauth2.revoke_url", func(o *idp.Options) { o.OAuth2.Revoke = "http://id.example.com" }},
		{"oauth2.userinfo_url", func(o *idp.Options) { o.OAuth2.Userinfo, o.Identity = "", "userinfo" }},
		{"oauth2.introspect_url", func(o *idp.Options) { o.OAuth2.Introspect, o.Identity = "", "introspection" }},
		{"identity", func(o *idp.Options) { o.Identity = "id_token" }},
		{"identity", func(o *idp.Options) { o.Identity = "guess" }},
		{"grant", func(o *idp.Options) { o.Grant = "implicit" }},
		{"pkce", func(o *idp.Options) { o.PKCE = "plain" }},
		{"token_request", func(o *idp.Options) { o.TokenRequest = "header" }},
		{"scope_separator", func(o *idp.Options) { o.ScopeSeparator = "\n" }},
		{"authorize_params", func(o *idp.Options) { o.AuthorizeParams = map[string]string{"redirect_uri": "https://evil.example"} }},
		{"authorize_params", func(o *idp.Options) { o.AuthorizeParams = map[string]string{"request_uri": "https://evil.example"} }},
		{"authorize_params", func(o *idp.Options) { o.AuthorizeParams = map[string]string{"": "x"} }},
		{"start_params", func(o *idp.Options) { o.StartParams = []string{"state"} }},
		{"start_params", func(o *idp.Options) { o.StartParams = []string{"scope"} }},
		{"token_params", func(o *idp.Options) { o.TokenParams = map[string]string{"grant_type": "x"} }},
		{"token_params", func(o *idp.Options) { o.TokenParams = map[string]string{"client_secret": "x"} }},
		{"token_params", func(o *idp.Options) { o.TokenParams = map[string]string{"client_assertion": "x"} }},
		{"callback_params", func(o *idp.Options) { o.CallbackParams = map[string]string{"code": "state"} }},
		{"callback_params", func(o *idp.Options) { o.CallbackParams = map[string]string{"code": "iss"} }},
		{"callback_params", func(o *idp.Options) { o.CallbackParams = map[string]string{"code": "a b"} }},
		{"callback_params", func(o *idp.Options) { o.CallbackParams = map[string]string{"token": "x"} }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth, o.ClientSecret = "private_key_jwt", nil }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth = "tls_client_auth" }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth = "client_secret_jwt" }},
		{"assertion_audience", func(o *idp.Options) { o.AssertionAudience = "a b" }},
		{"extra_audiences", func(o *idp.Options) { o.ExtraAudiences = []string{""} }},
		{"internal_url", func(o *idp.Options) { o.InternalURL = "keycloak:8080" }},
		{"internal_url", func(o *idp.Options) { o.InternalURL = "ftp://keycloak" }},
		{"internal_url", func(o *idp.Options) { o.InternalURL = "http://me:hunter2@keycloak" }},
		{"internal_url", func(o *idp.Options) { o.InternalURL = "http://keycloak?x=1" }},
		{"ca_file", func(o *idp.Options) { o.CAFile, o.Transport = t.TempDir()+"/none.pem", nil }},
		{"http_proxy", func(o *idp.Options) { o.HTTPProxy, o.Transport = "http://me:hunter2@[proxy", nil }},
		{"http_proxy", func(o *idp.Options) { o.HTTPProxy, o.Transport = "ftp://proxy", nil }},
		{"http_proxy", func(o *idp.Options) { o.HTTPProxy = "http://proxy" }}, // not with a transport that knows none
		{"token_lifetime", func(o *idp.Options) { o.TokenLifetime = -1 }},
	}
	for _, tt := range tests {
		o := plainOptions()
		o.Transport = newScript(t)
		tt.change(&o)
		_, err := idp.New(o)
		if err == nil || !strings.Contains(err.Error(), tt.word+":") && !strings.Contains(err.Error(), tt.word+",") && !strings.Contains(err.Error(), ", "+tt.word) ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want an error about %s", err, tt.word)
		}
	}
	o := plainOptions()
	o.Grant, o.OAuth2.Authorize = "password", ""
	mustNew(t, o)
}

func TestPlainIsDiscoveredAtOnce(t *testing.T) {
	s, p := plain(t, func(o *idp.Options) { o.ClientSecret, o.PKCE = nil, "off" })
	if !p.Discovered() || p.Problem() != "" || p.AuthorizeOrigin() != scriptIssuer || p.Issuer() != "oauth2:"+scriptIssuer+"/token?v=2" {
		t.Errorf("got %v %q %q %q", p.Discovered(), p.Problem(), p.AuthorizeOrigin(), p.Issuer())
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(s.calls) != 0 {
		t.Errorf("made calls: %v", s.calls)
	}
}

// TestPlainAuthorizeURL compares whole addresses, as encodings matter.
func TestPlainAuthorizeURL(t *testing.T) {
	tests := []struct {
		name   string
		change func(*idp.Options)
		begin  func(*idp.Begin)
		want   string // without code_challenge
	}{
		{"as little as possible", nil, nil,
			"client_id=wiki&code_challenge_method=S256&redirect_uri=CALLBACK&response_type=code&state=s%2B%201&tenant=7"},
		{"scopes between %20",
			func(o *idp.Options) { o.Scopes = []string{"profile", "email", "read:like.info"} }, nil,
			"client_id=wiki&code_challenge_method=S256&redirect_uri=CALLBACK&response_type=code&scope=profile%20email%20read%3Alike.info&state=s%2B%201&tenant=7"},
		{"scopes between commas",
			func(o *idp.Options) { o.Scopes, o.ScopeSeparator = []string{"a", "b"}, "," }, nil,
			"client_id=wiki&code_challenge_method=S256&redirect_uri=CALLBACK&response_type=code&scope=a%2Cb&state=s%2B%201&tenant=7"},
		{"no PKCE", func(o *idp.Options) { o.PKCE = "off" }, nil,
			"client_id=wiki&redirect_uri=CALLBACK&response_type=code&state=s%2B%201&tenant=7"},
		{"more parameters",
			func(o *idp.Options) {
				o.AuthorizeParams = map[string]string{"access_type": "off line", "prompt": "consent"}
			}, nil,
			"access_type=off%20line&client_id=wiki&code_challenge_method=S256&prompt=consent&redirect_uri=CALLBACK&response_type=code&state=s%2B%201&tenant=7"},
		{"parameters from start that are allowed",
			func(o *idp.Options) {
				o.StartParams = []string{"login_hint", "ui_locales", "prompt", "long", "twice", "control"}
				o.AuthorizeParams = map[string]string{"prompt": "consent", "ui_locales": "en"}
			},
			func(b *idp.Begin) {
				b.Params = url.Values{
					"login_hint": {"me+x@example.com"}, "prompt": {"login"}, "other": {"x"}, "state": {"evil"}, "client_id": {"evil"},
					"redirect_uri": {"https://evil.example"}, "long": {strings.Repeat("x", 600)}, "twice": {"a", "b"}, "control": {"a\nb"},
				}
			},
			"client_id=wiki&code_challenge_method=S256&login_hint=me%2Bx%40example.com&prompt=login&redirect_uri=CALLBACK&response_type=code&state=s%2B%201&tenant=7&ui_locales=en"},
		{"a prompt of Postern's own beats all",
			func(o *idp.Options) { o.StartParams = []string{"prompt"} },
			func(b *idp.Begin) { b.Prompt, b.Params = "login", url.Values{"prompt": {"none"}} },
			"client_id=wiki&code_challenge_method=S256&prompt=login&redirect_uri=CALLBACK&response_type=code&state=s%2B%201&tenant=7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, p := plain(t, func(o *idp.Options) {
				if tt.change != nil {
					tt.change(o)
				}
			})
			b := idp.Begin{State: "s+ 1", Secret: [32]byte{1}, RedirectURI: callback}
			if tt.begin != nil {
				tt.begin(&b)
			}
			address, err := p.Begin(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			base, query, _ := strings.Cut(address, "?")
			if base != scriptIssuer+"/authorize/" {
				t.Errorf("got %s", base)
			}
			var kept []string
			for pair := range strings.SplitSeq(query, "&") {
				if challenge, ok := strings.CutPrefix(pair, "code_challenge="); !ok {
					kept = append(kept, pair)
				} else if len(challenge) != 43 {
					t.Errorf("got challenge %q", challenge)
				}
			}
			want := strings.ReplaceAll(tt.want, "CALLBACK", url.QueryEscape(callback))
			if diff := cmp.Diff(strings.Split(want, "&"), kept); diff != "" {
				t.Errorf("query (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlainTokenRequest holds every parameter of every kind of token request, where it stands and how the client authenticates.
func TestPlainTokenRequest(t *testing.T) {
	const basic = "wiki s3cr%3At%2F%2B%25" // RFC 6749 section 2.3.1
	type want struct {
		auth  string // user and password of Basic
		place string // body or query
		code  string // parameters with a code, without code_verifier
		again string // and with a refresh token
	}
	code := "code=c0de&grant_type=authorization_code&redirect_uri=" + url.QueryEscape(callback)
	again := "grant_type=refresh_token&refresh_token=old-refresh"
	post := "&client_id=wiki&client_secret=s3cr%3At%2F%2B%25"
	tests := []struct {
		name   string
		change func(*idp.Options)
		want   want
	}{
		{"default", func(*idp.Options) {}, want{basic, "body", code, again}},
		{"client_secret_post", func(o *idp.Options) { o.ClientAuth = "client_secret_post" }, want{"", "body", code + post, again + post}},
		{"public", func(o *idp.Options) { o.ClientSecret = nil }, want{"", "body", code + "&client_id=wiki", again + "&client_id=wiki"}},
		{"omit_redirect_uri", func(o *idp.Options) { o.OmitRedirectURI = true }, want{basic, "body", "code=c0de&grant_type=authorization_code", again}},
		{"token_params", func(o *idp.Options) { o.TokenParams = map[string]string{"resource_id": "x y"} },
			want{basic, "body", code + "&resource_id=x+y", again + "&resource_id=x+y"}},
		{"query", func(o *idp.Options) { o.TokenRequest, o.ClientAuth = "query", "client_secret_post" }, want{"", "query", code + post, again + post}},
		{"query, Basic", func(o *idp.Options) { o.TokenRequest = "query" }, want{basic, "query", code, again}},
		{"renamed code", func(o *idp.Options) { o.CallbackParams = map[string]string{"code": "auth_code"} }, want{basic, "body", code, again}},
	}
	for _, tt := range tests {
		for _, pkce := range []string{"on", "off"} {
			t.Run(tt.name+", PKCE "+pkce, func(t *testing.T) {
				s, p := plain(t, tt.change, func(o *idp.Options) { o.PKCE = pkce })
				got := s.record("/token", 200, `{"access_token":"a","id_token":"not.looked.at"}`)
				back := url.Values{"code": {"c0de"}, "auth_code": {"c0de"}, "iss": {"https://not.looked.at"}}
				g, err := p.Finish(t.Context(), idp.Finish{Params: back, Secret: newSecret(), RedirectURI: callback})
				if err != nil {
					t.Fatal(err)
				}
				if g.Issuer != p.Issuer() || g.Tokens.ID != "" || g.Tokens.Access != "a" {
					t.Errorf("got %+v", g)
				}
				g.Tokens.Refresh = "old-refresh"
				if _, err := p.Refresh(t.Context(), g); err != nil {
					t.Fatal(err)
				}
				for i, params := range []string{tt.want.code, tt.want.again} {
					r := (*got)[i]
					want, _ := url.ParseQuery(params)
					in, out := r.body, mustQuery(t, r.query)
					if tt.want.place == "query" {
						if r.length != 0 || len(r.body) != 0 || r.header.Get("Content-Type") != "" {
							t.Errorf("got a body of %d bytes: %v", r.length, r.header)
						}
						if strings.Contains(r.query, "+") {
							t.Errorf("%s holds a plus for a space", r.query)
						}
						in, out = out, url.Values{"v": out["v"]}
						in.Del("v")
					} else if ct := r.header.Get("Content-Type"); ct != "application/x-www-form-urlencoded" {
						t.Errorf("got content type %q", ct)
					}
					if verifier := in.Get("code_verifier"); (len(verifier) == 43) != (pkce == "on" && i == 0) {
						t.Errorf("got verifier %q", verifier)
					}
					in.Del("code_verifier")
					if diff := cmp.Diff(want, in); diff != "" {
						t.Errorf("parameters (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff(url.Values{"v": {"2"}}, out); diff != "" {
						t.Errorf("the endpoint's own query (-want +got):\n%s", diff)
					}
					if auth := strings.TrimSpace(r.user + " " + r.pass); auth != tt.want.auth || (auth == "") != (r.header.Get("Authorization") == "") {
						t.Errorf("got Basic %q, want %q", auth, tt.want.auth)
					}
					if r.method != "POST" || r.header.Get("Accept") != "application/json" {
						t.Errorf("got %s, Accept %q", r.method, r.header.Get("Accept"))
					}
				}
			})
		}
	}
}

func mustQuery(t *testing.T, query string) url.Values {
	t.Helper()
	v, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestCallback: the provider's own names, errors without a state, and nothing twice (A11).
func TestCallback(t *testing.T) {
	like := func(o *idp.Options) {
		o.CallbackParams = map[string]string{"code": "auth_code", "state": "st", "error": "denied"}
	}
	tests := []struct {
		query  string
		change []func(*idp.Options)
		state  string
		failed bool
		word   string // of the error of Finish; empty: it asks for tokens
	}{
		{"code=c&state=s", nil, "s", false, ""},
		{"code=c&state=s&auth_code=x&auth_code=y", nil, "s", false, ""},
		{"error=access_denied&state=s", nil, "s", true, "access_denied"},
		{"error=denied", nil, "", true, "denied"},
		{"error=", nil, "", true, "unreadable"},
		{"", nil, "", false, "neither"},
		{"state=a&state=b&code=c", nil, "", false, "more than once"},
		{"state=a&code=c&code=d", nil, "a", false, "more than once"},
		{"state=a&error=c&error=d", nil, "a", true, "more than once"},
		{"state=" + strings.Repeat("a", 9<<10) + "&code=c", nil, "", false, "bytes"},
		{"auth_code=c&st=s", []func(*idp.Options){like}, "s", false, ""},
		{"code=c&st=s", []func(*idp.Options){like}, "s", false, "neither auth_code nor denied"},
		{"denied=1", []func(*idp.Options){like}, "", true, "unreadable"},
		{"denied=yes&auth_code=c&st=s", []func(*idp.Options){like}, "s", true, "yes"},
		{"auth_code=c&auth_code=d&st=s", []func(*idp.Options){like}, "s", false, "more than once"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.30s", tt.query), func(t *testing.T) {
			s, p := plain(t, tt.change...)
			s.answer("/token", 200, `{"access_token":"a"}`)
			params := mustQuery(t, tt.query)
			if state, failed := p.Callback(params); state != tt.state || failed != tt.failed {
				t.Errorf("got %q, %v, want %q, %v", state, failed, tt.state, tt.failed)
			}
			_, err := p.Finish(t.Context(), idp.Finish{Params: params, Secret: newSecret(), RedirectURI: callback})
			if tt.word == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("got %v, want one that says %q", err, tt.word)
			}
			if s.count("/token") != 0 {
				t.Error("asked for tokens")
			}
		})
	}
}

func TestTokenLifetime(t *testing.T) {
	for body, want := range map[string]time.Duration{
		`{"access_token":"a"}`:                           time.Hour,
		`{"access_token":"a","expires_in":0}`:            time.Hour,
		`{"access_token":"a","expires_in":60}`:           time.Minute,
		`{"access_token":"` + jwt(`{"exp":1e12}`) + `"}`: 366 * 24 * time.Hour,
	} {
		s, p := plain(t, func(o *idp.Options) { o.TokenLifetime = time.Hour })
		s.answer("/token", 200, body)
		g, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c"}}, Secret: newSecret(), RedirectURI: callback})
		if err != nil || !g.Tokens.Expiry.Equal(today.Add(want)) {
			t.Errorf("%s: got %v, %v, want expiry after %v", body, g.Tokens.Expiry, err, want)
		}
		g.Tokens.Refresh = "r"
		if g, err = p.Refresh(t.Context(), g); err != nil || !g.Tokens.Expiry.Equal(today.Add(want)) {
			t.Errorf("%s, refreshed: got %v, %v, want expiry after %v", body, g.Tokens.Expiry, err, want)
		}
	}
}

func TestScopeAnswered(t *testing.T) {
	for answered, want := range map[string]string{
		`"read write"`: "read write", `["read","write"]`: "read write", `["read",7,"write"]`: "read write", `7`: "asked for", `null`: "asked for",
		`""`: "asked for", `"a\nb"`: "asked for", `[]`: "asked for", `{"a":1}`: "asked for",
	} {
		s, p := plain(t, func(o *idp.Options) { o.Scopes = []string{"asked", "for"} })
		s.answer("/token", 200, `{"access_token":"a","scope":`+answered+`}`)
		g, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c"}}, Secret: newSecret(), RedirectURI: callback})
		if err != nil || g.Tokens.Scope != want {
			t.Errorf("%s: got %q, %v, want %q", answered, g.Tokens.Scope, err, want)
		}
	}
}

// TestRefreshTokenKept: the same, a new one or none.
func TestRefreshTokenKept(t *testing.T) {
	for answered, want := range map[string]string{``: "old", `,"refresh_token":null`: "old", `,"refresh_token":""`: "old", `,"refresh_token":"old"`: "old", `,"refresh_token":"new"`: "new"} {
		s, p := plain(t)
		s.answer("/token", 200, `{"access_token":"a"`+answered+`}`)
		g, err := p.Refresh(t.Context(), session.Grant{Issuer: p.Issuer(), Tokens: session.Tokens{Refresh: "old"}})
		if err != nil || g.Tokens.Refresh != want {
			t.Errorf("%s: got %q, %v, want %q", answered, g.Tokens.Refresh, err, want)
		}
	}
}

// TestMixUpPlainProvider: an attempt, or a session, of another provider is of no use here.
func TestMixUpPlainProvider(t *testing.T) {
	s, p := plain(t)
	s.answer("/token", 200, `{"access_token":"a"}`)
	_, err := p.Refresh(t.Context(), session.Grant{Issuer: "oauth2:https://other.example/token", Tokens: session.Tokens{Refresh: "r"}})
	wantRefreshError(t, err, session.Invalid)
	if s.count("/token") != 0 {
		t.Error("another provider's refresh token was sent")
	}
}

// TestQueryLeaksNothing is the price of token_request: query. Whatever goes wrong on the way, over real sockets, no error and no log line
// holds any part of the address.
func TestQueryLeaksNothing(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	cut := func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, strings.ReplaceAll(body, "QUERY", r.URL.RawQuery))
		}
	}
	back := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusTemporaryRedirect)
	}
	for name, handler := range map[string]http.HandlerFunc{
		"refused": nil, "cut": cut, "time-out": hang, "garbage": answer(200, "<html>QUERY"), "500": answer(500, "QUERY"),
		"redirect": back, "error": answer(400, `{"error":"QUERY"}`), "page": answer(401, "QUERY"), "header": answer(200, "QUERY", "X", strings.Repeat("x", 128<<10)),
		"bad location": answer(302, "", "Location", "http://[CANARY"), "form": answer(200, "error=x&QUERY"), "type": answer(200, `{"access_token":"CANARY-a","token_type":"QUERY"}`),
	} {
		t.Run(name, func(t *testing.T) {
			base := "http://" + closed.Addr().String()
			if handler != nil {
				server := httptest.NewServer(handler)
				defer server.Close()
				base = server.URL
			}
			o := plainOptions()
			o.Grant = "authorization_code"
			o.OAuth2 = &idp.Endpoints{Authorize: base + "/authorize", Token: base + "/token"}
			o.TokenRequest, o.ClientAuth, o.ClientSecret = "query", "client_secret_post", secret("CANARY-secret")
			o.TokenParams = map[string]string{"resource": "CANARY-param"}
			o.Timeout, o.Log, o.Now = 50*time.Millisecond, log, nil
			p := mustNew(t, o)
			_, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"CANARY-code"}}, Secret: newSecret(), RedirectURI: callback})
			note(t, log, err)
			_, err = p.Refresh(t.Context(), session.Grant{Issuer: p.Issuer(), Tokens: session.Tokens{Refresh: "CANARY-refresh", Access: "CANARY-access"}})
			note(t, log, err)
			_, err = p.ClientCredentials(t.Context(), "CANARY-scope", "CANARY-audience")
			note(t, log, err)
			o.Grant, o.Scopes = "password", []string{"CANARY"}
			_, err = mustNew(t, o).Password(t.Context(), "CANARY-user", "CANARY-password")
			note(t, log, err)
		})
	}
	for _, word := range []string{"CANARY", "code_verifier", "grant_type", "token?"} {
		if i := strings.Index(out.String(), word); i >= 0 {
			t.Errorf("leaked %s: %.300s", word, out.String()[max(0, i-150):])
		}
	}
}

// note logs an error in every way that there is.
func note(t *testing.T, log *slog.Logger, err error) {
	t.Helper()
	if err == nil {
		t.Error("got no error")
		return
	}
	log.Error("error", "err", err, "value", fmt.Sprintf("%+v %#v", err, err))
	for e := err; e != nil; e = errors.Unwrap(e) {
		text, _ := json.Marshal(e)
		log.Error("cause", "err", fmt.Sprintf("%+v %s", e, text))
	}
}

func TestExtraAudiences(t *testing.T) {
	tests := []struct {
		aud, azp any
		good     bool
	}{
		{"wiki", nil, true},
		{[]string{"wiki"}, nil, true},
		{[]string{"project", "wiki", "mobile"}, "wiki", true},
		{[]string{"project", "wiki"}, nil, true},
		{[]string{"project", "wiki"}, "project", false},
		{[]string{"project", "mobile"}, "wiki", false}, // not for us at all
		{"project", "wiki", false},
		{[]string{"wiki", "evil"}, "wiki", false},
		{[]string{"wiki", ""}, "wiki", false},
		{[]any{"wiki", 7}, "wiki", false},
		{[]string{}, "wiki", false},
	}
	for _, tt := range tests {
		s, p := scripted(t, func(o *idp.Options) { o.ExtraAudiences = []string{"project", "mobile"} })
		b, c := attempt(t, t.Context(), p, today)
		maps.Copy(c, map[string]any{"aud": tt.aud})
		if tt.azp != nil {
			c["azp"] = tt.azp
		}
		if _, err := s.complete(t, t.Context(), p, b, sign(t, s.key, c), nil); (err == nil) != tt.good {
			t.Errorf("aud %v, azp %v: got %v", tt.aud, tt.azp, err)
		}
	}
}

// FuzzStartParamsNeverReplaceTheProtocol: whatever a link to start asks for, the request stays the one that was begun.
func FuzzStartParamsNeverReplaceTheProtocol(f *testing.F) {
	for _, seed := range []string{"", "login_hint=x", "prompt=none&prompt=login", "state=evil&client_id=evil", "login_hint=%0d%0a&hd=a%26state%3Devil", "login_hint=a+b;c&ui_locales=%ff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		_, p := plain(t, func(o *idp.Options) {
			o.StartParams, o.AuthorizeParams = []string{"login_hint", "prompt", "ui_locales"}, map[string]string{"hd": "example.com"}
		})
		params, _ := url.ParseQuery(query)
		b := idp.Begin{State: "s", Secret: [32]byte{1}, RedirectURI: callback}
		want, err := p.Begin(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		b.Params = params
		address, err := p.Begin(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		_, with, _ := strings.Cut(address, "?")
		_, without, _ := strings.Cut(want, "?")
		got := mustQuery(t, with)
		for _, name := range []string{"login_hint", "prompt", "ui_locales"} {
			if v := got[name]; len(v) > 1 || len(v) == 1 && (len(params[name]) != 1 || v[0] != params.Get(name)) {
				t.Errorf("%s: got %q of %q", name, v, params[name])
			}
			got.Del(name)
		}
		if diff := cmp.Diff(mustQuery(t, without), got); diff != "" || strings.Contains(with, "+") {
			t.Errorf("%s: the request changed (-want +got):\n%s", with, diff)
		}
	})
}
