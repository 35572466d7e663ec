package idp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
	"postern/session"
)

func TestNewRefuses(t *testing.T) {
	tests := []struct {
		word   string
		change func(*idp.Options)
	}{
		{"issuer", func(o *idp.Options) { o.Issuer = "" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "id.example.com" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "http://id.example.com" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "http://localhost.example.com" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "https://id.example.com?x=1" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "https://id.example.com#" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "https://me:hunter2@id.example.com" }},
		{"issuer", func(o *idp.Options) { o.Issuer = "https://me:hunter2@[id.example.com" }},
		{"client_id", func(o *idp.Options) { o.ClientID = "" }},
		{"client_id", func(o *idp.Options) { o.ClientID = "a\nb" }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth = "private_key_jwt" }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth, o.ClientSecret = "client_secret_post", nil }},
		{"client_auth", func(o *idp.Options) { o.ClientAuth = "none" }},
		{"scopes", func(o *idp.Options) { o.Scopes = []string{"profile"} }},
		{"scopes", func(o *idp.Options) { o.Scopes = []string{"openid", "a b"} }},
		{"scopes", func(o *idp.Options) { o.Scopes = []string{"openid", ""} }},
		{"response_mode", func(o *idp.Options) { o.ResponseMode = "fragment" }},
		{"id_token_signed_response_alg", func(o *idp.Options) { o.SigningAlg = "none" }},
		{"id_token_signed_response_alg", func(o *idp.Options) { o.SigningAlg = "HS256" }},
		{"timeout", func(o *idp.Options) { o.Timeout = -1 }},
		{"leeway", func(o *idp.Options) { o.Leeway = time.Hour }},
	}
	for _, tt := range tests {
		o := idp.Options{Name: "corp", Issuer: scriptIssuer, ClientID: "wiki", ClientSecret: secret("s")}
		tt.change(&o)
		_, err := idp.New(o)
		if err == nil || !strings.Contains(err.Error(), tt.word+":") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v, want an error about %s", err, tt.word)
		}
	}
	for _, issuer := range []string{"http://127.0.0.1:9000", "http://localhost/realms/x", "http://[::1]:1/", "https://id.example.com/"} {
		mustNew(t, idp.Options{Issuer: issuer, ClientID: "wiki"})
	}
}

func TestBeginURL(t *testing.T) {
	s, p := scripted(t, func(o *idp.Options) { o.ResponseMode = "form_post" })
	b := idp.Begin{State: "a b+c", Secret: [32]byte{1}, RedirectURI: callback + "?x=1", Prompt: "login"}
	first, err := p.Begin(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(first, "+") {
		t.Errorf("%s holds a plus for a space", first)
	}
	u, err := url.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	got := u.Query()
	challenge, nonce := got.Get("code_challenge"), got.Get("nonce")
	got.Del("code_challenge")
	got.Del("nonce")
	want := url.Values{
		"tenant": {"7"}, "response_type": {"code"}, "client_id": {"wiki"}, "redirect_uri": {callback + "?x=1"}, "scope": {"openid profile email"},
		"state": {"a b+c"}, "code_challenge_method": {"S256"}, "response_mode": {"form_post"}, "prompt": {"login"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parameters (-want +got):\n%s", diff)
	}
	if len(challenge) != 43 || len(nonce) != 43 || challenge == nonce {
		t.Errorf("got challenge %q, nonce %q", challenge, nonce)
	}
	if p.AuthorizeOrigin() != scriptIssuer || p.Name() != "corp" || p.ResponseMode() != "form_post" {
		t.Errorf("got %q %q %q", p.AuthorizeOrigin(), p.Name(), p.ResponseMode())
	}

	// S3: each attempt its own; the same secret the same, as the browser holds nothing else.
	if again, _ := p.Begin(t.Context(), b); again != first {
		t.Errorf("the same attempt again: got %s, want %s", again, first)
	}
	b.Secret = [32]byte{2}
	other, _ := p.Begin(t.Context(), b)
	if v, _ := url.Parse(other); v.Query().Get("nonce") == nonce || v.Query().Get("code_challenge") == challenge {
		t.Error("two attempts share nonce or challenge")
	}
	b.Secret = [32]byte{}
	if _, err := p.Begin(t.Context(), b); err == nil {
		t.Error("an attempt without a secret was begun")
	}
	if s.count("/.well-known/openid-configuration") != 1 {
		t.Error("discovered more than once")
	}
}

func TestScopes(t *testing.T) {
	for _, tt := range []struct {
		scopes    []string
		supported any
		want      string
	}{
		{nil, nil, "openid profile email"},
		{nil, []string{"openid", "offline_access"}, "openid profile email offline_access"},
		{[]string{"openid", "x"}, []string{"openid", "offline_access"}, "openid x"},
	} {
		s, p := scripted(t, func(o *idp.Options) { o.Scopes = tt.scopes })
		m := scriptMetadata()
		m["scopes_supported"] = tt.supported
		s.answer("/.well-known/openid-configuration", 200, m)
		authURL, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
		if err != nil {
			t.Fatal(err)
		}
		if u, _ := url.Parse(authURL); u.Query().Get("scope") != tt.want {
			t.Errorf("got scope %q, want %q", u.Query().Get("scope"), tt.want)
		}
	}
}

// TestCodeInjection is A7: a stolen code in an attempt of one's own. The provider checks PKCE; here it does not, and the nonce still
// does.
func TestCodeInjection(t *testing.T) {
	s := newStand(t)
	begin := func() (idp.Begin, idptest.Callback) {
		b := idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}
		authURL, err := s.Begin(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return b, s.op.Visit(t, authURL)
	}
	_, stolen := begin()
	mine, _ := begin()
	_, err := s.finish(t, mine, stolen)
	wantProtocol(t, err, "invalid_grant") // by PKCE

	script, p := scripted(t)
	_, claims := attempt(t, t.Context(), p, today)
	own, _ := attempt(t, t.Context(), p, today)
	_, err = script.complete(t, t.Context(), p, own, sign(t, script.key, claims), nil)
	wantProtocol(t, err, "nonce")
}

// TestMixUpAttemptOfAnotherProvider is A9 and S7: what was begun with one provider cannot be finished with another, even where both
// have the same keys.
func TestMixUpAttemptOfAnotherProvider(t *testing.T) {
	s, p := scripted(t)
	o := s.options()
	o.ClientID, o.Now = "other", func() time.Time { return today }
	other := mustNew(t, o)
	b, claims := attempt(t, t.Context(), p, today)
	claims["aud"] = "other"
	_, err := s.complete(t, t.Context(), other, b, sign(t, s.key, claims), nil)
	wantProtocol(t, err, "nonce")

	x, y := newStand(t), newStand(t)
	b = idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}
	authURL, err := x.Begin(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = y.finish(t, b, x.op.Visit(t, authURL))
	wantProtocol(t, err, "iss")
	if x.op.Calls(idptest.Token)+y.op.Calls(idptest.Token) != 0 {
		t.Error("a token request was made")
	}
}

// TestSameSubjectOfAnotherIssuer is A19: the grant says whose subject it is.
func TestSameSubjectOfAnotherIssuer(t *testing.T) {
	x, y := newStand(t).mustSignIn(t), newStand(t).mustSignIn(t)
	if x.Subject != y.Subject || x.Issuer == y.Issuer {
		t.Errorf("got %s of %s and %s of %s", x.Subject, x.Issuer, y.Subject, y.Issuer)
	}
}

// TestMetadataRefused: metadata that must not be used.
func TestMetadataRefused(t *testing.T) {
	tests := []struct {
		name   string
		change map[string]any
		word   string
	}{
		{"issuer with a slash", map[string]any{"issuer": scriptIssuer + "/"}, "issuer"},
		{"no issuer", map[string]any{"issuer": nil}, "issuer"},
		{"L7 http endpoint", map[string]any{"token_endpoint": "http://id.example.com/token"}, "token_endpoint"},
		{"http loopback endpoint of an https issuer", map[string]any{"token_endpoint": "http://127.0.0.1/token"}, "token_endpoint"},
		{"javascript", map[string]any{"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"},
		{"no authorization endpoint", map[string]any{"authorization_endpoint": ""}, "authorization_endpoint"},
		{"with a password", map[string]any{"jwks_uri": "https://a:hunter2@id.example.com/"}, "jwks_uri"},
		{"with a fragment", map[string]any{"authorization_endpoint": "https://id.example.com/#x"}, "authorization_endpoint"},
		{"no jwks_uri", map[string]any{"jwks_uri": nil}, "jwks_uri"},
		{"no userinfo", map[string]any{"userinfo_endpoint": nil}, "identity"},
		{"client authentication", map[string]any{"token_endpoint_auth_methods_supported": []string{"private_key_jwt"}}, "client_auth"},
		{"no client authentication", map[string]any{"token_endpoint_auth_methods_supported": []string{}}, "client_auth"},
		{"types", map[string]any{"scopes_supported": "openid"}, "metadata"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, withUserinfo)
			m := scriptMetadata()
			maps.Copy(m, tt.change)
			s.answer("/.well-known/openid-configuration", 200, m)
			_, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
			wantUnavailable(t, err)
			if !errors.Is(err, idp.ErrNotDiscovered) || p.Discovered() || !strings.Contains(p.Problem(), tt.word) || strings.Contains(p.Problem(), "hunter2") {
				t.Errorf("got %v, problem %q, want one about %s", err, p.Problem(), tt.word)
			}
			_, err = p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c"}}, Secret: newSecret(), RedirectURI: callback})
			wantUnavailable(t, err)
			_, err = p.Refresh(t.Context(), before())
			wantRefreshError(t, err, session.Again)
		})
	}
	for name, body := range map[string]string{"HTML": "<html>secret</html>", "too long (A162)": `{"x":"` + strings.Repeat("x", 1<<20) + `"}`} {
		t.Run(name, func(t *testing.T) {
			s, p := scripted(t)
			s.answer("/.well-known/openid-configuration", 200, body)
			_, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
			if wantUnavailable(t, err); strings.Contains(err.Error(), "secret") {
				t.Errorf("%v shows the body", err)
			}
		})
	}
}

// TestDiscoveryHeals is A160: a provider that is down at start, with back-off until it is up, and hourly from then on.
func TestDiscoveryHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const path = "/.well-known/openid-configuration"
		s := newScript(t)
		good := s.on[path]
		s.set(path, func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		p := mustNew(t, s.options())
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(10 * time.Minute)
		if n := s.count(path); n < 15 || n > 40 {
			t.Errorf("got %d attempts in ten minutes", n)
		}
		if p.Discovered() || !strings.Contains(p.Problem(), "connection refused") || p.AuthorizeOrigin() != "" {
			t.Errorf("discovered %v, problem %q", p.Discovered(), p.Problem())
		}
		if _, ok := p.EndSession("", "", ""); ok {
			t.Error("an end-session URL before discovery")
		}

		s.set(path, good)
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if !p.Discovered() || p.Problem() != "" {
			t.Errorf("up again: discovered %v, problem %q", p.Discovered(), p.Problem())
		}
		if s.count("/jwks") != 1 {
			t.Error("keys were not fetched ahead")
		}
		n := s.count(path)
		time.Sleep(8 * time.Hour)
		if more := s.count(path) - n; more < 6 || more > 11 {
			t.Errorf("got %d refreshes in eight hours", more)
		}

		// Later failures keep what is known, and show.
		s.set(path, func(*http.Request) (*http.Response, error) { return reply(500, "down"), nil })
		time.Sleep(2 * time.Hour)
		if !p.Discovered() || !strings.Contains(p.Problem(), "500") {
			t.Errorf("down later: discovered %v, problem %q", p.Discovered(), p.Problem())
		}
		if _, err := p.Begin(ctx, idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}); err != nil {
			t.Errorf("sign-in with older metadata: %v", err)
		}
		// Endpoints that moved are used once they are known.
		moved := scriptMetadata()
		moved["authorization_endpoint"] = "https://login.example.com/"
		s.answer(path, 200, moved)
		time.Sleep(time.Hour)
		if p.AuthorizeOrigin() != "https://login.example.com" || p.Problem() != "" {
			t.Errorf("moved: got %q, problem %q", p.AuthorizeOrigin(), p.Problem())
		}
		stop()
		wg.Wait()
	})
}

// TestSignInHealsAtOnce: the first person after an outage does not wait for the back-off, and a crowd causes few attempts.
func TestSignInHealsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const path = "/.well-known/openid-configuration"
		s := newScript(t)
		good := s.on[path]
		s.set(path, func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
		p := mustNew(t, s.options())
		b := idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}
		crowd := func() {
			var wg sync.WaitGroup
			for range 500 {
				wg.Go(func() {
					if _, err := p.Begin(t.Context(), b); !errors.Is(err, idp.ErrNotDiscovered) {
						t.Errorf("got %v", err)
					}
				})
			}
			wg.Wait()
		}
		for range 10 {
			crowd()
			time.Sleep(time.Second)
		}
		if n := s.count(path); n != 5 {
			t.Errorf("got %d attempts in ten seconds, want 5", n)
		}
		s.set(path, good)
		time.Sleep(2 * time.Second)
		if _, err := p.Begin(t.Context(), b); err != nil {
			t.Errorf("up again: %v", err)
		}

		// A161: one that hangs holds nobody for long.
		hung := newScript(t)
		hung.set(path, func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		p = mustNew(t, hung.options())
		begin := time.Now()
		crowd()
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("a crowd waited %v", d)
		}
		crowd()
		if d := time.Since(begin); d != 2*time.Second {
			t.Errorf("a later crowd waited until %v", d)
		}
		time.Sleep(10 * time.Second)
		if n := hung.count(path); n != 1 {
			t.Errorf("got %d attempts, want 1", n)
		}
		synctest.Wait()
	})
}

func TestDiscoveryPanicIsAnError(t *testing.T) {
	s, p := scripted(t)
	s.set("/.well-known/openid-configuration", func(*http.Request) (*http.Response, error) { panic("parser") })
	_, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
	wantUnavailable(t, err)
}

func TestEndSession(t *testing.T) {
	_, p := scripted(t)
	attempt(t, t.Context(), p, today)
	got, ok := p.EndSession("e30.e30.x", "https://wiki.example.com/oauth2/logout/callback", "a b")
	want := scriptIssuer + "/end?client_id=wiki&id_token_hint=e30.e30.x&post_logout_redirect_uri=https%3A%2F%2Fwiki.example.com%2Foauth2%2Flogout%2Fcallback&state=a%20b&tenant=7"
	if !ok || got.URL != want || got.Form != nil {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	got, _ = p.EndSession("", "", "")
	if want := scriptIssuer + "/end?client_id=wiki&tenant=7"; got.URL != want {
		t.Errorf("got %s, want %s", got.URL, want)
	}
	// S42: what is too long for a URL is posted whole.
	huge := strings.Repeat("t", 5000)
	got, _ = p.EndSession(huge, callback, "s")
	form := map[string]string{"client_id": "wiki", "id_token_hint": huge, "post_logout_redirect_uri": callback, "state": "s"}
	if diff := cmp.Diff(idp.EndSession{URL: scriptIssuer + "/end?tenant=7", Form: form}, got); diff != "" {
		t.Errorf("with a huge ID token (-want +got):\n%s", diff)
	}

	for _, address := range []any{nil, "http://id.example.com/end", "javascript:alert(1)"} {
		s, p := scripted(t)
		m := scriptMetadata()
		m["end_session_endpoint"] = address
		s.answer("/.well-known/openid-configuration", 200, m)
		attempt(t, t.Context(), p, today) // sign-in works all the same
		if got, ok := p.EndSession("x", "", ""); ok {
			t.Errorf("got %v for %v", got, address)
		}
	}
}

// TestLogoutURI stands in for the metadata, and is checked as they are.
func TestLogoutURI(t *testing.T) {
	const uri = "https://id.example.com/out?a={client_id}&b={post_logout_redirect_uri}"
	_, p := scripted(t, func(o *idp.Options) { o.LogoutURI = uri })
	got, ok := p.EndSession("hint", "https://x.example/?a=b&c", "{client_id}")
	if want := "https://id.example.com/out?a=wiki&b=https%3A%2F%2Fx.example%2F%3Fa%3Db%26c"; !ok || got.URL != want || got.Form != nil {
		t.Errorf("got %v before discovery", got)
	}
	for _, bad := range []string{
		"http://id.example.com/out", "https://id.example.com/{client_id}", "https://{state}/", "https://id.example.com/?a={redirect_uri}", "https://id.example.com/?a={",
		"https://id.example.com/?{{state}}", "https://id.example.com/#a", "javascript:alert(1)", "/out",
	} {
		s := newScript(t)
		o := s.options()
		o.LogoutURI = bad
		if _, err := idp.New(o); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestPageOrigins(t *testing.T) {
	s, p := scripted(t, func(o *idp.Options) { o.LogoutURI = "https://out.example.com/x" })
	m := scriptMetadata()
	m["end_session_endpoint"] = "https://end;script-src.example.com/"
	s.answer("/.well-known/openid-configuration", 200, m)
	if diff := cmp.Diff([]string{scriptIssuer, "https://out.example.com"}, p.PageOrigins()); diff != "" {
		t.Errorf("undiscovered (-want +got):\n%s", diff)
	}
	attempt(t, t.Context(), p, today)
	if diff := cmp.Diff([]string{scriptIssuer, "https://out.example.com"}, p.PageOrigins()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestConformanceRPInitiatedLogout is -rp-init-logout: the provider takes what we send.
func TestConformanceRPInitiatedLogout(t *testing.T) {
	s := newStand(t)
	after := "https://wiki.example.com/oauth2/logout/callback"
	s.op.AddClient(idptest.Client{ID: "wiki", Secret: "s3cr:t/+%", RedirectURIs: []string{callback}, PostLogoutRedirectURIs: []string{after}})
	g := s.mustSignIn(t)
	there, ok := s.EndSession(g.Tokens.ID, after, "st")
	if !ok {
		t.Fatal("no end-session URL")
	}
	if back := s.op.Visit(t, there.URL); back.URL != after+"?state=st" {
		t.Errorf("got back at %s", back.URL)
	}
}

// TestOwnTransport is V-56 and A162: certificates are verified, and huge headers are not read.
func TestOwnTransport(t *testing.T) {
	begin := func(issuer string) error {
		p := mustNew(t, idp.Options{Issuer: issuer, ClientID: "wiki"})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := p.Begin(ctx, idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
		cancel()
		if e := p.Run(ctx); e != nil { // closes idle connections
			t.Error(e)
		}
		return err
	}
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	if err := begin(tls.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: got %v", err)
	}
	wide := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 128<<10))
	}))
	defer wide.Close()
	if err := begin(wide.URL); err == nil || !strings.Contains(err.Error(), "header") {
		t.Errorf("a header of 128 KiB: got %v", err)
	}
}

// TestLogsAndErrorsHoldNoSecrets is A115 for this package: canaries in every place from where something could leak.
func TestLogsAndErrorsHoldNoSecrets(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, p := scripted(t, withUserinfo, func(o *idp.Options) { o.Log, o.ClientSecret = log, secret("CANARY-secret") })
	note := func(err error) {
		if err == nil {
			t.Error("got no error")
		}
		log.Error("error", "err", err, "value", fmt.Sprintf("%+v", err))
	}
	finish := func(claims func(map[string]any), token map[string]any) error {
		b, c := attempt(t, t.Context(), p, today)
		claims(c)
		body := map[string]any{"access_token": "CANARY-access", "refresh_token": "CANARY-refresh", "id_token": sign(t, s.key, c)}
		maps.Copy(body, token)
		s.answer("/token", 200, body)
		_, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"CANARY-code"}}, Secret: b.Secret, RedirectURI: callback})
		return err
	}
	same := func(map[string]any) {}
	s.answer("/userinfo", 500, "CANARY-body")
	note(finish(same, nil))
	s.answer("/userinfo", 401, "CANARY-body")
	note(finish(same, nil))
	s.answer("/userinfo", 200, "CANARY-body")
	note(finish(same, nil))
	note(finish(func(c map[string]any) { c["nonce"] = "CANARY-nonce" }, nil))
	note(finish(same, map[string]any{"id_token": "CANARY-id"}))
	note(finish(same, map[string]any{"token_type": "CANARY-type"}))
	note(finish(same, map[string]any{"error": "CANARY-error", "error_description": "CANARY-description"}))
	note(finish(same, map[string]any{"access_token": "CANARY-\n"}))
	prev := before()
	prev.Tokens.Refresh = "CANARY-refresh"
	for _, body := range []string{"CANARY-body", `{"error":"invalid_client","error_description":"CANARY"}`, `{"access_token":"CANARY-new","id_token":"CANARY.x.y"}`} {
		s.answer("/token", 200, body)
		_, err := p.Refresh(t.Context(), prev)
		note(err)
	}
	s.set("/token", func(*http.Request) (*http.Response, error) {
		return reply(307, "", "Location", "https://evil.example/?c=CANARY-location"), nil
	})
	_, err := p.Refresh(t.Context(), prev)
	note(err)
	if i := strings.Index(out.String(), "CANARY"); i >= 0 {
		t.Errorf("leaked: %.200s", out.String()[max(0, i-150):])
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestManyAtOnce runs whole sign-ins and refreshes beside each other and beside Run, for the race detector.
func TestManyAtOnce(t *testing.T) {
	s := newStand(t, withUserinfo)
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 3 {
				g, err := s.signIn(t)
				if err != nil {
					t.Error(err)
					return
				}
				if i == 1 {
					s.op.RotateKeys(true)
				}
				if _, err := s.Refresh(t.Context(), g); err != nil {
					t.Error(err)
				}
				_ = s.Problem()
			}
		})
	}
	wg.Wait()
	stop()
	run.Wait()
	if n := s.op.RefreshReuses(); n != 0 {
		t.Errorf("%d refresh tokens were sent twice", n)
	}
}

func Example() {
	op, err := idptest.Start("127.0.0.1:0", idptest.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer op.Close()
	op.AddClient(idptest.Client{ID: "wiki", Secret: "secret", RedirectURIs: []string{callback}})
	op.AddUser(idptest.User{Sub: "alice"})

	p, err := idp.New(idp.Options{Name: "corp", Issuer: op.URL, ClientID: "wiki", ClientSecret: secret("secret")})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	defer func() { stop(); <-done }()

	// The attempt's secret and state live in a sealed cookie of the browser; the provider sends the browser back with a code.
	attempt := idp.Begin{State: "state", Secret: newSecret(), RedirectURI: callback}
	authURL, err := p.Begin(ctx, attempt)
	if err != nil {
		fmt.Println(err)
		return
	}
	back := op.Visit(nil2t{}, authURL)
	grant, err := p.Finish(ctx, idp.Finish{Params: back.Params, Secret: attempt.Secret, RedirectURI: callback})
	fmt.Println(grant.Identity.User, err)

	grant, err = p.Refresh(ctx, grant)
	fmt.Println(grant.Subject, err)
	// Output:
	// alice <nil>
	// alice <nil>
}

// nil2t lets an example, which has no test, visit.
type nil2t struct{ testing.TB }

func (nil2t) Helper() {}
