package idptest_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp/idptest"
)

const (
	callback = "http://app.test/callback"
	verifier = "a-verifier-that-is-long-enough-for-rfc-7636-0123456789"
)

// world is a provider with one client and two people. ES256 because its keys are made quickly.
func world(t *testing.T, change ...func(*idptest.Options)) *idptest.Server {
	t.Helper()
	o := idptest.Options{Alg: "ES256"}
	for _, f := range change {
		f(&o)
	}
	s := idptest.NewServerWith(t, o)
	s.AddClient(idptest.Client{
		ID: "wiki", Secret: "se cret%", RedirectURIs: []string{callback, "http://app.test/other"}, PostLogoutRedirectURIs: []string{"http://app.test/bye"},
	})
	s.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"name": "Alice", "email": "a@app.test", "groups": []string{"admins"}}})
	s.AddUser(idptest.User{Sub: "bob", Claims: map[string]any{"name": "Bob"}})
	return s
}

func request(change ...string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	v := url.Values{
		"client_id": {"wiki"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid profile"}, "state": {"st"}, "nonce": {"no"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	return with(v, change...)
}

// with sets pairs; an empty value takes the name away.
func with(v url.Values, pairs ...string) url.Values {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			v.Del(pairs[i])
			continue
		}
		v.Set(pairs[i], pairs[i+1])
	}
	return v
}

func signIn(t *testing.T, s *idptest.Server, change ...string) string {
	t.Helper()
	back := s.Visit(t, s.EndpointURL(idptest.Authorize)+"?"+request(change...).Encode())
	code := back.Params.Get("code")
	if code == "" {
		t.Fatalf("no code in %v", back.Params)
	}
	return code
}

type reply struct {
	Status  int    `json:"-"`
	Error   string `json:"error"`
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	ID      string `json:"id_token"`
	Expires int    `json:"expires_in"`
	Scope   string `json:"scope"`
}

func basic(id, secret string) http.Header {
	joined := url.QueryEscape(id) + ":" + url.QueryEscape(secret)
	return http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(joined))}}
}

func post(ctx context.Context, target string, header http.Header, form url.Values) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		return reply{}, err
	}
	maps.Copy(r.Header, header)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	got := reply{Status: resp.StatusCode}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		err = json.Unmarshal(body, &got)
	}
	return got, err
}

func ask(t *testing.T, s *idptest.Server, form url.Values) reply {
	t.Helper()
	got, err := post(t.Context(), s.EndpointURL(idptest.Token), basic("wiki", "se cret%"), form)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func redemption(code string, change ...string) url.Values {
	return with(url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callback}, "code_verifier": {verifier},
	}, change...)
}

func refresh(token string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}
}

func ok(t *testing.T, got reply) reply {
	t.Helper()
	if got.Status != http.StatusOK || got.Access == "" {
		t.Fatalf("got %+v, want tokens", got)
	}
	return got
}

func refused(t *testing.T, got reply, status int, code string) {
	t.Helper()
	if got.Status != status || got.Error != code || got.Access != "" {
		t.Errorf("got %+v, want %d %s", got, status, code)
	}
}

// TestAnotherLibraryAcceptsTheTokens runs the whole flow with go-oidc as the judge.
func TestAnotherLibraryAcceptsTheTokens(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			s := world(t, func(o *idptest.Options) { o.Alg = alg })
			provider, err := oidc.NewProvider(t.Context(), s.URL)
			if err != nil {
				t.Fatal(err)
			}
			got := ok(t, ask(t, s, redemption(signIn(t, s))))
			verify := provider.Verifier(&oidc.Config{ClientID: "wiki", SupportedSigningAlgs: []string{alg}})
			token, err := verify.Verify(t.Context(), got.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := token.VerifyAccessToken(got.Access); err != nil {
				t.Error(err)
			}
			var claims map[string]any
			if err := token.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"iat", "exp", "sid", "at_hash", "auth_time"} {
				if claims[name] == nil {
					t.Errorf("no %s", name)
				}
				delete(claims, name)
			}
			// Without the scope email there is no e-mail address.
			want := map[string]any{
				"iss": s.URL, "sub": "alice", "aud": "wiki", "nonce": "no", "name": "Alice", "groups": []any{"admins"},
			}
			if diff := cmp.Diff(want, claims); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			again := ok(t, ask(t, s, refresh(got.Refresh)))
			if token, err = verify.Verify(t.Context(), again.ID); err != nil || token.Nonce != "" {
				t.Errorf("refreshed ID token: nonce %q, error %v", token.Nonce, err)
			}
			if again.Access == got.Access || again.Refresh == got.Refresh {
				t.Error("a refresh gave an old token")
			}
		})
	}
}

func TestAuthorizeRefuses(t *testing.T) {
	s := world(t)
	s.AddClient(idptest.Client{ID: "spa", RedirectURIs: []string{callback}})
	visit := func(v url.Values) url.Values {
		return s.Visit(t, s.EndpointURL(idptest.Authorize)+"?"+v.Encode()).Params
	}
	twice := request()
	twice.Add("scope", "email")
	for name, c := range map[string]struct {
		form url.Values
		code string
	}{
		"plain PKCE":              {request("code_challenge_method", "plain"), "invalid_request"},
		"PKCE without method":     {request("code_challenge_method", ""), "invalid_request"},
		"method without PKCE":     {request("code_challenge", ""), "invalid_request"},
		"short challenge":         {request("code_challenge", "abc"), "invalid_request"},
		"public without PKCE":     {request("client_id", "spa", "code_challenge", "", "code_challenge_method", ""), "invalid_request"},
		"implicit":                {request("response_type", "id_token"), "unsupported_response_type"},
		"no response_type":        {request("response_type", ""), "invalid_request"},
		"unknown response_mode":   {request("response_mode", "fragment"), "invalid_request"},
		"twice a parameter":       {twice, "invalid_request"},
		"none with login":         {request("prompt", "none login"), "invalid_request"},
		"unknown prompt":          {request("prompt", "smile"), "invalid_request"},
		"max_age without number":  {request("max_age", "x"), "invalid_request"},
		"request object":          {request("request", "x"), "request_not_supported"},
		"form_post keeps refusal": {request("response_mode", "form_post", "response_type", "token"), "unsupported_response_type"},
	} {
		got := visit(c.form)
		if got.Get("error") != c.code || got.Get("state") != "st" || got.Get("iss") != s.URL || got.Has("code") {
			t.Errorf("%s: got %v, want %s", name, got, c.code)
		}
	}
	s.RefuseSignIn("access_denied", "no")
	if got := visit(request()); got.Get("error") != "access_denied" {
		t.Errorf("scripted refusal: got %v", got)
	}
	s.RefuseSignIn("", "")
	s.SignInAs("")
	if got := visit(request()); got.Get("error") != "login_required" {
		t.Errorf("nobody to sign in: got %v", got)
	}
}

// Nothing may be sent to a redirect URI that is not this client's.
func TestAuthorizeSendsNothingToForeignPlaces(t *testing.T) {
	s := world(t)
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	twice := request()
	twice.Add("redirect_uri", "http://app.test/other")
	for name, form := range map[string]url.Values{
		"unknown client":   request("client_id", "nobody"),
		"foreign redirect": request("redirect_uri", "http://evil.test/callback"),
		"longer redirect":  request("redirect_uri", callback+"/x"),
		"with query":       request("redirect_uri", callback+"?x=1"),
		"two redirects":    twice,
		"no redirect":      request("redirect_uri", ""),
	} {
		resp, err := browser.Get(s.EndpointURL(idptest.Authorize) + "?" + form.Encode())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || resp.Header.Get("Location") != "" {
			t.Errorf("%s: got %d, Location %q", name, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
}

func TestAuthorizeAnswers(t *testing.T) {
	s := world(t)
	got := s.Visit(t, s.EndpointURL(idptest.Authorize)+"?"+request("response_mode", "form_post").Encode())
	if !got.Posted || got.URL != callback || got.Params.Get("state") != "st" || got.Params.Get("code") == "" {
		t.Errorf("form_post: got %+v", got)
	}
	s.SetIssParameter(false)
	if got := s.Visit(t, s.EndpointURL(idptest.Authorize)+"?"+request().Encode()); got.Posted || got.Params.Has("iss") {
		t.Errorf("without iss: got %+v", got)
	}
	s.MutateAuthorizeAnswer(func(v url.Values) { v.Set("state", "forged") })
	if got := s.Visit(t, s.EndpointURL(idptest.Authorize)+"?"+request().Encode()); got.Params.Get("state") != "forged" {
		t.Errorf("mutated: got %+v", got)
	}
}

func TestCodeIsBoundAndSpent(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	s := world(t, func(o *idptest.Options) {
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	s.AddClient(idptest.Client{ID: "other", Secret: "x", RedirectURIs: []string{callback}})
	for name, form := range map[string]url.Values{
		"unknown":          redemption("nonsense"),
		"other redirect":   redemption(signIn(t, s), "redirect_uri", "http://app.test/other"),
		"no redirect":      redemption(signIn(t, s), "redirect_uri", ""),
		"wrong verifier":   redemption(signIn(t, s), "code_verifier", strings.Repeat("x", 50)),
		"no verifier":      redemption(signIn(t, s), "code_verifier", ""),
		"PKCE downgrade":   redemption(signIn(t, s, "code_challenge", "", "code_challenge_method", "")),
		"of another: wiki": redemption(signIn(t, s, "client_id", "other")),
	} {
		t.Run(name, func(t *testing.T) { refused(t, ask(t, s, form), 400, "invalid_grant") })
	}

	code := signIn(t, s)
	stolen, err := post(t.Context(), s.EndpointURL(idptest.Token), basic("other", "x"), redemption(code))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, stolen, 400, "invalid_grant") // and another client does not spend it
	first := ok(t, ask(t, s, redemption(code)))
	refused(t, ask(t, s, redemption(code)), 400, "invalid_grant")
	refused(t, ask(t, s, refresh(first.Refresh)), 400, "invalid_grant") // what the stolen code gave is revoked

	code = signIn(t, s)
	mu.Lock()
	now = now.Add(2 * time.Minute)
	mu.Unlock()
	refused(t, ask(t, s, redemption(code)), 400, "invalid_grant")

	// A verifier that was wrong once spends the code: no guessing.
	code = signIn(t, s)
	refused(t, ask(t, s, redemption(code, "code_verifier", strings.Repeat("x", 50))), 400, "invalid_grant")
	refused(t, ask(t, s, redemption(code)), 400, "invalid_grant")
}

func TestClientAuthenticationIsTheRegisteredOne(t *testing.T) {
	s := world(t)
	s.AddClient(idptest.Client{ID: "poster", Secret: "p", AuthMethod: "client_secret_post", RedirectURIs: []string{callback}})
	s.AddClient(idptest.Client{ID: "spa", RedirectURIs: []string{callback}})
	for name, c := range map[string]struct {
		client string
		header http.Header
		form   []string
		status int
		code   string
	}{
		"basic":                 {"wiki", basic("wiki", "se cret%"), nil, 200, ""},
		"basic and client_id":   {"wiki", basic("wiki", "se cret%"), []string{"client_id", "wiki"}, 200, ""},
		"post":                  {"poster", nil, []string{"client_id", "poster", "client_secret", "p"}, 200, ""},
		"none":                  {"spa", nil, []string{"client_id", "spa"}, 200, ""},
		"wrong secret":          {"wiki", basic("wiki", "x"), nil, 401, "invalid_client"},
		"unknown":               {"wiki", basic("nobody", "x"), nil, 401, "invalid_client"},
		"nothing":               {"wiki", nil, nil, 401, "invalid_client"},
		"raw basic":             {"wiki", http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("wiki:se cret%"))}}, nil, 401, "invalid_client"},
		"no basic at all":       {"wiki", http.Header{"Authorization": {"Bearer x"}}, nil, 401, "invalid_client"},
		"post for basic":        {"wiki", nil, []string{"client_id", "wiki", "client_secret", "se cret%"}, 401, "invalid_client"},
		"none for basic":        {"wiki", nil, []string{"client_id", "wiki"}, 401, "invalid_client"},
		"basic for post":        {"poster", basic("poster", "p"), nil, 401, "invalid_client"},
		"basic for none":        {"spa", basic("spa", ""), nil, 401, "invalid_client"},
		"both":                  {"wiki", basic("wiki", "se cret%"), []string{"client_id", "wiki", "client_secret", "se cret%"}, 400, "invalid_request"},
		"two different clients": {"wiki", basic("wiki", "se cret%"), []string{"client_id", "spa"}, 401, "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			form := redemption(signIn(t, s, "client_id", c.client), c.form...)
			got, err := post(t.Context(), s.EndpointURL(idptest.Token), c.header, form)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != c.status || got.Error != c.code {
				t.Errorf("got %d %q, want %d %q", got.Status, got.Error, c.status, c.code)
			}
		})
	}
	code := signIn(t, s)
	for name, target := range map[string]string{
		"code in the query":   s.EndpointURL(idptest.Token) + "?code=" + code,
		"secret in the query": s.EndpointURL(idptest.Token) + "?client_secret=x",
	} {
		got, err := post(t.Context(), target, basic("wiki", "se cret%"), redemption(code))
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != 400 {
			t.Errorf("%s: got %d", name, got.Status)
		}
	}
	twice := redemption(code)
	twice.Add("code", code)
	refused(t, ask(t, s, twice), 400, "invalid_request")
	ok(t, ask(t, s, redemption(code)))
}

func TestRefreshRotatesAndRevokesTheFamilyOnReuse(t *testing.T) {
	s := world(t)
	first := ok(t, ask(t, s, redemption(signIn(t, s))))
	other := ok(t, ask(t, s, redemption(signIn(t, s))))
	second := ok(t, ask(t, s, refresh(first.Refresh)))
	if s.RefreshReuses() != 0 {
		t.Errorf("got %d reuses before any", s.RefreshReuses())
	}
	refused(t, ask(t, s, refresh(first.Refresh)), 400, "invalid_grant")
	refused(t, ask(t, s, refresh(second.Refresh)), 400, "invalid_grant")
	if s.RefreshReuses() != 1 {
		t.Errorf("got %d reuses, want 1", s.RefreshReuses())
	}
	if userinfo(t, s, second.Access) != http.StatusUnauthorized {
		t.Error("the access token outlived its family")
	}
	ok(t, ask(t, s, refresh(other.Refresh))) // another sign-in is not concerned
}

func TestRefreshIsBound(t *testing.T) {
	s := world(t)
	s.AddClient(idptest.Client{ID: "other", Secret: "x", RedirectURIs: []string{callback}})
	first := ok(t, ask(t, s, redemption(signIn(t, s))))
	got, err := post(t.Context(), s.EndpointURL(idptest.Token), basic("other", "x"), refresh(first.Refresh))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, got, 400, "invalid_grant")
	refused(t, ask(t, s, with(refresh(first.Refresh), "scope", "openid email")), 400, "invalid_scope")
	if narrower := ok(t, ask(t, s, with(refresh(first.Refresh), "scope", "openid"))); narrower.Scope != "openid" {
		t.Errorf("got scope %q", narrower.Scope)
	}
	s.SetRotation(false)
	one := ok(t, ask(t, s, redemption(signIn(t, s))))
	for range 2 {
		if again := ok(t, ask(t, s, refresh(one.Refresh))); again.Refresh != "" {
			t.Error("a new refresh token without rotation")
		}
	}
	s.RevokeUser("alice")
	refused(t, ask(t, s, refresh(one.Refresh)), 400, "invalid_grant")
}

func TestRefreshTokensByScope(t *testing.T) {
	s := world(t)
	s.SetRefresh(idptest.RefreshByScope)
	if got := ok(t, ask(t, s, redemption(signIn(t, s)))); got.Refresh != "" {
		t.Error("a refresh token without offline_access")
	}
	got := ok(t, ask(t, s, redemption(signIn(t, s, "scope", "openid offline_access"))))
	if ok(t, ask(t, s, refresh(got.Refresh))).Refresh == "" {
		t.Error("no refresh token with offline_access")
	}
	s.SetRefresh(idptest.RefreshNever)
	if got := ok(t, ask(t, s, redemption(signIn(t, s, "scope", "openid offline_access")))); got.Refresh != "" {
		t.Error("a refresh token though there are none")
	}
}

func userinfo(t *testing.T, s *idptest.Server, token string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.EndpointURL(idptest.Userinfo), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestAccessTokens(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	s := world(t, func(o *idptest.Options) {
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	s.SetTokenTTL(time.Minute)
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	if got.Expires != 60 || strings.Contains(got.Access, ".") {
		t.Errorf("got expires_in %d, token %q", got.Expires, got.Access)
	}
	if status := userinfo(t, s, got.Access); status != 200 {
		t.Errorf("userinfo: got %d", status)
	}
	if status := userinfo(t, s, got.Access+"x"); status != 401 {
		t.Errorf("userinfo with another token: got %d", status)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	if status := userinfo(t, s, got.Access); status != 401 {
		t.Errorf("userinfo with an expired token: got %d", status)
	}
	for _, asJWT := range []bool{false, true} {
		s.SetAccessTokens(asJWT, 1200)
		got := ok(t, ask(t, s, redemption(signIn(t, s))))
		if len(got.Access) < 1200 || len(got.Access) > 1300 || strings.Count(got.Access, ".") == 2 != asJWT {
			t.Errorf("JWT %v: got %d bytes: %.40s…", asJWT, len(got.Access), got.Access)
		}
		if status := userinfo(t, s, got.Access); status != 200 {
			t.Errorf("JWT %v: userinfo: got %d", asJWT, status)
		}
	}
}

func TestRevocation(t *testing.T) {
	s := world(t)
	s.AddClient(idptest.Client{ID: "other", Secret: "x", RedirectURIs: []string{callback}})
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	revoke := func(header http.Header, token string) int {
		answer, err := post(t.Context(), s.EndpointURL(idptest.Revoke), header, url.Values{"token": {token}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status
	}
	if status := revoke(nil, got.Refresh); status != 401 {
		t.Errorf("without a client: got %d", status)
	}
	if status := revoke(basic("other", "x"), got.Refresh); status != 200 {
		t.Errorf("of another client: got %d", status)
	}
	if status := revoke(basic("wiki", "se cret%"), "unknown"); status != 200 {
		t.Errorf("unknown: got %d", status)
	}
	got = ok(t, ask(t, s, refresh(got.Refresh))) // none of these revoked it
	if status := revoke(basic("wiki", "se cret%"), got.Refresh); status != 200 {
		t.Errorf("got %d", status)
	}
	refused(t, ask(t, s, refresh(got.Refresh)), 400, "invalid_grant")
	if s.RefreshReuses() != 0 {
		t.Error("a revoked token is no reuse")
	}
}

// tab is a browser with a cookie jar that stops at the application's addresses.
func tab(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "app.test" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// read returns what a browser sees: the status, where it is sent, and the text.
func read(t *testing.T) func(*http.Response, error) (int, *url.URL, string) {
	return func(resp *http.Response, err error) (int, *url.URL, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		target, err := resp.Location()
		if err != nil {
			target = &url.URL{}
		}
		return resp.StatusCode, target, string(body)
	}
}

var pendingName = regexp.MustCompile(`name="request" value="([^"]+)"`)

func TestInteractiveSignInIsRemembered(t *testing.T) {
	s := world(t, func(o *idptest.Options) { o.Interactive = true })
	browser := tab(t)
	authorize := func(change ...string) (int, *url.URL, string) {
		return read(t)(browser.Get(s.EndpointURL(idptest.Authorize) + "?" + request(change...).Encode()))
	}
	if _, to, _ := authorize("prompt", "none"); to.Query().Get("error") != "login_required" {
		t.Errorf("prompt=none: sent to %s", to)
	}
	status, _, page := authorize()
	if status != 200 || !strings.Contains(page, "Alice") || !strings.Contains(page, "Bob") {
		t.Fatalf("got %d\n%s", status, page)
	}
	name := pendingName.FindStringSubmatch(page)[1]
	choose := func(sub string) (int, *url.URL, string) {
		return read(t)(browser.PostForm(s.EndpointURL(idptest.SignIn), url.Values{"request": {name}, "sub": {sub}}))
	}
	if status, to, _ := choose("mallory"); status != 400 || to.Host != "" {
		t.Errorf("an unknown person: got %d, sent to %s", status, to)
	}
	status, to, _ := choose("bob")
	if status != http.StatusSeeOther || to.Query().Get("code") == "" || to.Query().Get("state") != "st" {
		t.Fatalf("got %d, sent to %s", status, to)
	}
	if status, to, _ := choose("bob"); status != 400 || to.Host != "" {
		t.Errorf("the page again: got %d, sent to %s", status, to)
	}
	if got := ok(t, ask(t, s, redemption(to.Query().Get("code")))); userinfo(t, s, got.Access) != 200 {
		t.Error("userinfo refused")
	}

	// Single sign-on: nobody is asked again, unless the client says so.
	if _, to, _ := authorize(); to.Query().Get("code") == "" {
		t.Errorf("second sign-in: sent to %s", to)
	}
	if _, _, page := authorize("prompt", "login"); !pendingName.MatchString(page) {
		t.Error("prompt=login did not ask")
	}
	if _, _, page := read(t)(browser.Get(s.URL)); !strings.Contains(page, "Signed in as Bob") {
		t.Errorf("home page:\n%s", page)
	}

	_, _, page = authorize("prompt", "login")
	name = pendingName.FindStringSubmatch(page)[1]
	if _, to, _ := choose(""); to.Query().Get("error") != "access_denied" {
		t.Errorf("cancel: sent to %s", to)
	}
}

func TestMaxAge(t *testing.T) {
	var mu sync.Mutex
	now := time.Now()
	s := world(t, func(o *idptest.Options) {
		o.Interactive = true
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	browser := tab(t)
	authorize := func(change ...string) (*url.URL, string) {
		_, to, page := read(t)(browser.Get(s.EndpointURL(idptest.Authorize) + "?" + request(change...).Encode()))
		return to, page
	}
	_, page := authorize()
	form := url.Values{"request": {pendingName.FindStringSubmatch(page)[1]}, "sub": {"alice"}}
	read(t)(browser.PostForm(s.EndpointURL(idptest.SignIn), form))
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	if to, _ := authorize("max_age", "60"); !to.Query().Has("code") {
		t.Errorf("recent enough: sent to %s", to)
	}
	if _, page := authorize("max_age", "59"); !pendingName.MatchString(page) {
		t.Error("too long ago: not asked")
	}
	if to, _ := authorize("max_age", "59", "prompt", "none"); to.Query().Get("error") != "login_required" {
		t.Errorf("too long ago, prompt=none: sent to %s", to)
	}
}

func TestSignInPageRefusesForeignForms(t *testing.T) {
	s := world(t, func(o *idptest.Options) { o.Interactive = true })
	browser := tab(t)
	_, _, page := read(t)(browser.Get(s.EndpointURL(idptest.Authorize) + "?" + request().Encode()))
	form := url.Values{"request": {pendingName.FindStringSubmatch(page)[1]}, "sub": {"bob"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.EndpointURL(idptest.SignIn), strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if status, to, _ := read(t)(browser.Do(r)); status != http.StatusForbidden || to.Host != "" {
		t.Errorf("got %d, sent to %s", status, to)
	}
}

func TestEndSession(t *testing.T) {
	s := world(t)
	browser := tab(t)
	authorize := func(prompt string) *url.URL {
		_, to, _ := read(t)(browser.Get(s.EndpointURL(idptest.Authorize) + "?" + request("prompt", prompt).Encode()))
		return to
	}
	got := ok(t, ask(t, s, redemption(authorize("").Query().Get("code"))))
	end := func(form url.Values) (int, *url.URL) {
		status, to, _ := read(t)(browser.Get(s.EndpointURL(idptest.EndSession) + "?" + form.Encode()))
		return status, to
	}
	hint := func(pairs ...string) url.Values { return with(url.Values{"id_token_hint": {got.ID}}, pairs...) }
	stranger := world(t)
	foreign := ok(t, ask(t, stranger, redemption(signIn(t, stranger))))
	for name, form := range map[string]url.Values{
		"not registered":   hint("post_logout_redirect_uri", "http://evil.test/"),
		"no client":        {"post_logout_redirect_uri": {"http://app.test/bye"}},
		"another's hint":   {"id_token_hint": {foreign.ID}, "post_logout_redirect_uri": {"http://app.test/bye"}},
		"hint of nobody":   {"id_token_hint": {"x.y.z"}, "post_logout_redirect_uri": {"http://app.test/bye"}},
		"only a bad hint":  {"id_token_hint": {"x.y.z"}},
		"two clients":      hint("client_id", "other"),
		"other, unlisted":  {"client_id": {"other"}, "post_logout_redirect_uri": {"http://app.test/bye"}},
		"path is not free": hint("post_logout_redirect_uri", "http://app.test/bye/"),
	} {
		if status, to := end(form); status != 400 || to.Host != "" {
			t.Errorf("%s: got %d, sent to %s", name, status, to)
		}
	}
	status, to := end(hint("post_logout_redirect_uri", "http://app.test/bye", "state", "s1"))
	if status != http.StatusSeeOther || to.String() != "http://app.test/bye?state=s1" {
		t.Errorf("got %d, sent to %s", status, to)
	}
	refused(t, ask(t, s, refresh(got.Refresh)), 400, "invalid_grant") // without offline_access it ends with the session
}

func TestInteractiveSignOutAsksWithoutAHint(t *testing.T) {
	s := world(t, func(o *idptest.Options) { o.Interactive = true })
	browser := tab(t)
	_, _, page := read(t)(browser.Get(s.EndpointURL(idptest.Authorize) + "?" + request().Encode()))
	form := url.Values{"request": {pendingName.FindStringSubmatch(page)[1]}, "sub": {"alice"}}
	read(t)(browser.PostForm(s.EndpointURL(idptest.SignIn), form))
	query := url.Values{"client_id": {"wiki"}, "post_logout_redirect_uri": {"http://app.test/bye"}, "state": {"s2"}}
	status, _, page := read(t)(browser.Get(s.EndpointURL(idptest.EndSession) + "?" + query.Encode()))
	if status != 200 || !strings.Contains(page, "Alice") {
		t.Fatalf("got %d\n%s", status, page)
	}
	if _, _, page := read(t)(browser.Get(s.URL)); !strings.Contains(page, "Signed in as Alice") {
		t.Error("signed out without being asked")
	}
	status, to, _ := read(t)(browser.PostForm(s.EndpointURL(idptest.EndSession), with(query, "confirm", "yes")))
	if status != http.StatusSeeOther || to.String() != "http://app.test/bye?state=s2" {
		t.Errorf("got %d, sent to %s", status, to)
	}
	if _, _, page := read(t)(browser.Get(s.URL)); !strings.Contains(page, "Nobody is signed in") {
		t.Error("still signed in")
	}
	if _, to, _ := read(t)(browser.Get(s.EndpointURL(idptest.EndSession) + "?" + query.Encode())); to.Host != "app.test" {
		t.Error("asked though nobody is signed in")
	}
}

func TestPagesLoadNothingFromElsewhere(t *testing.T) {
	s := world(t, func(o *idptest.Options) { o.Interactive = true })
	resp, err := http.Get(s.EndpointURL(idptest.Authorize) + "?" + request("state", `"><script>`).Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
		t.Errorf("got policy %q", got)
	}
	if regexp.MustCompile(`<(link|img|script)\b|url\(`).Match(body) {
		t.Errorf("the page loads something:\n%s", body)
	}
}

func TestFailures(t *testing.T) {
	s := world(t)
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	before := s.Calls(idptest.Token)

	s.Fail(idptest.Token, 503, 2, "Retry-After", "1")
	for range 2 {
		if answer := ask(t, s, refresh(got.Refresh)); answer.Status != 503 {
			t.Errorf("got %d", answer.Status)
		}
	}
	got = ok(t, ask(t, s, refresh(got.Refresh))) // failures spend nothing
	s.FailOAuth(idptest.Token, 400, "invalid_grant", 1)
	refused(t, ask(t, s, refresh(got.Refresh)), 400, "invalid_grant")
	if calls := s.Calls(idptest.Token) - before; calls != 4 {
		t.Errorf("got %d calls, want 4", calls)
	}
	if all := s.TokenRequests(); len(all) != s.Calls(idptest.Token) || all[len(all)-1].Form.Get("refresh_token") != got.Refresh {
		t.Errorf("got %d requests in the log", len(all))
	}

	s.Fail(idptest.Token, 500, -1)
	for range 3 {
		if answer := ask(t, s, refresh(got.Refresh)); answer.Status != 500 {
			t.Errorf("got %d", answer.Status)
		}
	}
	s.Heal(idptest.Token)
	s.On(idptest.Token, func(w http.ResponseWriter, r *http.Request) bool {
		if r.PostForm.Get("grant_type") == "refresh_token" {
			w.WriteHeader(http.StatusTeapot)
			return true
		}
		return false
	})
	if answer := ask(t, s, refresh(got.Refresh)); answer.Status != http.StatusTeapot {
		t.Errorf("hook: got %d", answer.Status)
	}
	ok(t, ask(t, s, redemption(signIn(t, s))))
}

func TestLostAnswerSpendsTheToken(t *testing.T) {
	s := world(t)
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	try := func() error {
		_, err := post(t.Context(), s.EndpointURL(idptest.Token), basic("wiki", "se cret%"), refresh(got.Refresh))
		return err
	}
	s.DropConnection(idptest.Token, 1)
	if try() == nil {
		t.Error("an answer through a cut connection")
	}
	s.DropConnectionAfterProcessing(idptest.Token, 1)
	if try() == nil {
		t.Error("an answer through a cut connection")
	}
	if s.RefreshReuses() != 0 {
		t.Error("the unprocessed request spent the token")
	}
	refused(t, ask(t, s, refresh(got.Refresh)), 400, "invalid_grant")
	if s.RefreshReuses() != 1 {
		t.Error("the processed request did not spend the token")
	}
}

func TestGateAndHang(t *testing.T) {
	s := world(t)
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	gate := s.Gate(idptest.Token)
	answers := make(chan reply, 2)
	for range 2 {
		go func() {
			answer, err := post(t.Context(), s.EndpointURL(idptest.Token), basic("wiki", "se cret%"), refresh(got.Refresh))
			if err != nil {
				t.Error(err)
			}
			answers <- answer
		}()
	}
	<-gate.Arrived()
	<-gate.Arrived()
	select {
	case a := <-answers:
		t.Errorf("answered behind a closed gate: %+v", a)
	default:
	}
	gate.Open()
	gate.Open()
	statuses := map[int]int{}
	for range 2 {
		statuses[(<-answers).Status]++
	}
	if diff := cmp.Diff(map[int]int{200: 1, 400: 1}, statuses); diff != "" {
		t.Errorf("the same token twice (-want +got):\n%s", diff)
	}

	s.Hang(idptest.Token)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := post(ctx, s.EndpointURL(idptest.Token), basic("wiki", "se cret%"), refresh("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// A client that gives up behind a gate has its request processed all the same, as with a slow provider.
func TestGateProcessesWhatWasGivenUp(t *testing.T) {
	s := world(t)
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	gate := s.Gate(idptest.Token)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := post(ctx, s.EndpointURL(idptest.Token), basic("wiki", "se cret%"), refresh(got.Refresh))
		gone <- err
	}()
	<-gate.Arrived()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	processed := make(chan struct{})
	s.MutateTokenAnswer(func(map[string]any) { close(processed) })
	gate.Open()
	<-processed
	s.MutateTokenAnswer(nil)
	refused(t, ask(t, s, refresh(got.Refresh)), 400, "invalid_grant")
}

func TestDownAndUp(t *testing.T) {
	s := world(t)
	fetch := func() error {
		resp, err := http.Get(s.EndpointURL(idptest.Discovery))
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for range 3 {
		if err := fetch(); err != nil {
			t.Fatal(err)
		}
		s.Down()
		s.Down()
		if err := fetch(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("down: got %v", err)
		}
		s.Up()
		s.Up()
	}
	s.Close()
	s.Close()
}

func TestSigningCanBeBroken(t *testing.T) {
	s := world(t)
	provider, err := oidc.NewProvider(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	check := func() error {
		// A provider of its own each time: go-oidc's key set may hand a second caller the keys of a fetch that has just ended.
		now, err := oidc.NewProvider(t.Context(), s.URL)
		if err != nil {
			return err
		}
		v := now.Verifier(&oidc.Config{ClientID: "wiki", SupportedSigningAlgs: []string{"ES256", "RS256"}})
		_, err = v.Verify(t.Context(), ok(t, ask(t, s, redemption(signIn(t, s)))).ID)
		return err
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for name, how := range map[string]idptest.Signing{
		"none":            {Alg: "none"},
		"HS256":           {Alg: "HS256"},
		"HS256, own key":  {Alg: "HS256", HMACKey: []byte("k")},
		"foreign":         {Foreign: true},
		"not agreed upon": {Alg: "EdDSA"},
	} {
		s.SetSigning(how)
		if err := check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s.SetSigning(idptest.Signing{Alg: "RS256"})
	if err := check(); err != nil {
		t.Error(err)
	}
	s.SetSigning(idptest.Signing{})
	s.MutateIDToken(func(header, claims map[string]any) { claims["aud"] = "other" })
	if err := check(); err == nil {
		t.Error("another audience: accepted")
	}
	s.MutateIDToken(func(header, claims map[string]any) { header["kid"] = "unknown" })
	if err := check(); err == nil {
		t.Error("another kid: accepted")
	}
	s.MutateIDToken(nil)
	old := ok(t, ask(t, s, redemption(signIn(t, s)))).ID
	kept := provider.Verifier(&oidc.Config{ClientID: "wiki", SupportedSigningAlgs: []string{"ES256"}})
	s.RotateKeys(true)
	if _, err := kept.Verify(t.Context(), old); err != nil {
		t.Error(err)
	}
	s.RotateKeys(false)
	if err := check(); err != nil {
		t.Error(err)
	}
	fresh, err := oidc.NewProvider(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Verifier(&oidc.Config{ClientID: "wiki", SupportedSigningAlgs: []string{"ES256"}}).Verify(t.Context(), old); err == nil {
		t.Error("a token of a withdrawn key: accepted")
	}
}

func TestMetadataAndUserinfoCanBeBroken(t *testing.T) {
	s := world(t)
	s.MutateMetadata(func(doc map[string]any) { doc["issuer"] = "http://evil.test" })
	if _, err := oidc.NewProvider(t.Context(), s.URL); err == nil {
		t.Error("another issuer: accepted")
	}
	s.MutateMetadata(nil)
	s.AddUser(idptest.User{Sub: "carol", UserinfoClaims: map[string]any{"groups": []string{"late"}}})
	s.SignInAs("carol")
	s.MutateUserinfo(func(claims map[string]any) { claims["sub"] = "mallory" })
	got := ok(t, ask(t, s, redemption(signIn(t, s))))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.EndpointURL(idptest.Userinfo), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "bearer "+got.Access)
	_, _, body := read(t)(http.DefaultClient.Do(r))
	if want := `{"groups":["late"],"sub":"mallory"}`; strings.TrimSpace(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
}

// The provider is a plain handler, too, and its issuer may have a path.
func TestIssuerWithAPath(t *testing.T) {
	for _, path := range []string{"/realms/corp", "/realms/corp/"} {
		var s *idptest.Server
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(w, r) }))
		t.Cleanup(front.Close)
		s = idptest.New(idptest.Options{Issuer: front.URL + path, Alg: "ES256"})
		if _, err := oidc.NewProvider(t.Context(), s.URL); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		s.AddClient(idptest.Client{ID: "wiki", Secret: "se cret%", RedirectURIs: []string{callback}})
		s.AddUser(idptest.User{Sub: "alice"})
		ok(t, ask(t, s, redemption(signIn(t, s))))
		if status, _, _ := read(t)(http.Get(front.URL + "/.well-known/openid-configuration")); status != http.StatusNotFound {
			t.Errorf("outside the path: got %d", status)
		}
	}
}

func TestScriptRefusesMisspeltEndpoints(t *testing.T) {
	s := world(t)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.Fail("tokn", 500, 1)
}
