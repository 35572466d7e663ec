package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postern/config"
	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/proxy/idp/simtest"
	"postern/proxy/page"
)

// screen keeps what a command prints and lets a test wait for some of it.
type screen struct {
	mu   sync.Mutex
	more *sync.Cond
	text strings.Builder
	over bool
}

func newScreen() *screen {
	s := &screen{}
	s.more = sync.NewCond(&s.mu)
	return s
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.more.Broadcast()
	return s.text.Write(b)
}

func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.more.Broadcast()
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// find waits until pattern is on the screen and returns its first group; it is empty if the command ended before.
func (s *screen) find(pattern string) string {
	re := regexp.MustCompile(pattern)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if m := re.FindStringSubmatch(s.text.String()); m != nil {
			return m[len(m)-1]
		}
		if s.over {
			return ""
		}
		s.more.Wait()
	}
}

// command is a `postern login` under way, with a person before it.
type command struct {
	t         *testing.T
	out, err  *screen
	keyboard  *io.PipeWriter
	interrupt context.CancelFunc
	done      chan error
}

// signIn runs `postern login` with a configuration and further arguments; what is typed comes through a pipe.
func signIn(t *testing.T, yaml string, args ...string) *command {
	t.Helper()
	in, keyboard := io.Pipe()
	t.Cleanup(func() { in.Close(); keyboard.Close() })
	c := signInFrom(t, in, yaml, args...)
	c.keyboard = keyboard
	return c
}

// signInFrom is signIn where in is what the command reads.
func signInFrom(t *testing.T, in io.Reader, yaml string, args ...string) *command {
	t.Helper()
	file := filepath.Join(t.TempDir(), "postern.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := &command{t: t, out: newScreen(), err: newScreen(), interrupt: cancel, done: make(chan error, 1)}
	t.Cleanup(cancel)
	root := newRoot()
	root.SetArgs(append([]string{"login", "--config", file}, args...))
	root.SetIn(in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	go func() {
		err := root.ExecuteContext(ctx)
		c.out.end()
		c.err.end()
		c.done <- err
	}()
	return c
}

// types enters lines.
func (c *command) types(lines string) {
	c.t.Helper()
	if _, err := io.WriteString(c.keyboard, lines); err != nil {
		c.t.Fatal(err)
	}
}

// address is where the person is asked to sign in.
func (c *command) address() string { return c.out.find(`Sign in at this address:\n\n  (\S+)\n`) }

// redirectURI is what has to be registered.
func (c *command) redirectURI() string { return c.out.find(`Redirect URI: (\S+)\n`) }

// visit is a browser's navigation, to its end.
func (c *command) visit(address string) (status int, text string) {
	c.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := (&http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}).Get(address)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// ends waits for the command and returns all that it printed, with its error.
func (c *command) ends() (string, error) {
	c.t.Helper()
	err := <-c.done
	text := c.out.String() + c.err.String()
	if err != nil {
		text += err.Error()
	}
	c.t.Logf("%s", text)
	return text, err
}

// wants checks for lines of the output; runs of spaces count as one.
func wants(t *testing.T, text string, lines ...string) {
	t.Helper()
	spaces := regexp.MustCompile(` +`)
	text = spaces.ReplaceAllString(text, " ")
	for _, line := range lines {
		if !strings.Contains(text, line) {
			t.Errorf("the output lacks %q", line)
		}
	}
}

// hides checks that the output has none of the secrets.
func hides(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if secret == "" || strings.Contains(text, secret) {
			t.Errorf("the output holds the secret %q", secret)
		}
	}
}

// corp is an OpenID Connect provider with alice.
type corp struct {
	*idptest.Server
	mu     sync.Mutex
	tokens []string // that it gave
}

func newCorp(t *testing.T) *corp {
	c := &corp{Server: idptest.NewServer(t)}
	c.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{
		"name": "Alice Example", "email": "alice@example.com", "email_verified": true, "groups": []string{"admins", "staff"},
	}})
	c.MutateTokenAnswer(func(answer map[string]any) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			if token, ok := answer[name].(string); ok {
				c.tokens = append(c.tokens, token)
			}
		}
	})
	return c
}

// given are all tokens so far.
func (c *corp) given() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens
}

// register makes a redirect URI known.
func (c *corp) register(redirectURI string) {
	c.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{redirectURI}})
}

// yaml is a configuration with more lines for the provider.
func (c *corp) yaml(more ...string) string {
	return fmt.Sprintf(`
providers:
  corp:
    issuer: %s
    client_id: wiki
    client_secret: canary-client-secret
%s
  other: {issuer: "http://127.0.0.1:1", client_id: x, client_secret: x}
routes:
  - {host: wiki.example.com, provider: corp, access: signed_in, upstream: "http://127.0.0.1:3000"}
  - {host: admin.example.com, provider: corp, access: {groups: [admins]}, upstream: "http://127.0.0.1:3000"}
  - {host: board.example.com, provider: corp, access: {groups: [board]}, upstream: "http://127.0.0.1:3000"}
  - {host: shut.example.com, path: /in, methods: [GET, POST], provider: corp, access: deny, upstream: "http://127.0.0.1:3000"}
  - {host: other.example.com, provider: other, access: signed_in, upstream: "http://127.0.0.1:3000"}
  - {host: open.example.com, provider: other, access: public, upstream: "http://127.0.0.1:3000"}
`, c.URL, "    "+strings.Join(more, "\n    "))
}

// signsIn goes through a whole sign-in as alice.
func (c *corp) signsIn(t *testing.T, yaml string, args ...string) (string, error) {
	t.Helper()
	cmd := signIn(t, yaml, append([]string{"corp"}, args...)...)
	c.register(cmd.redirectURI())
	if address := cmd.address(); address != "" {
		cmd.visit(address)
	}
	return cmd.ends()
}

func TestLoginShowsWhatCameBack(t *testing.T) {
	c := newCorp(t)
	cmd := signIn(t, c.yaml(), "corp", "--log-level", "debug")
	c.register(cmd.redirectURI())
	status, text := cmd.visit(cmd.address())
	if status != http.StatusOK || !strings.Contains(text, "You can close this window") {
		t.Errorf("the browser got %d: %s", status, text)
	}
	got, err := cmd.ends()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got,
		"It must be registered for client wiki", "takes any port",
		" user alice\n", " email alice@example.com\n", " name Alice Example\n", " preferred_username -\n", " groups admins, staff\n",
		" access token ******** (opaque, ", ", lives 5m0s\n", " ID token ******** (JWT, ", " scopes openid profile email offline_access\n",
		"ID token holds", ` sub "alice"`, ` groups ["admins","staff"]`,
		" wiki.example.com/ allow signed_in\n", " admin.example.com/ allow conditions\n", " board.example.com/ deny groups\n",
		" GET POST shut.example.com/in deny denied\n", " other.example.com/ deny asks for a sign-in at other\n", " open.example.com/ allow public\n",
		" refresh token rotated: ********",
	)
	if n := len(c.given()); n != 6 {
		t.Errorf("the provider gave %d tokens, want two times three", n)
	}
	hides(t, got, append(c.given(), "canary-client-secret")...)
	if n := c.Calls(idptest.Token); n != 2 {
		t.Errorf("%d token requests, want the code and one refresh", n)
	}
}

func TestLoginShowsTokensWhenAsked(t *testing.T) {
	c := newCorp(t)
	got, err := c.signsIn(t, c.yaml(), "--show-tokens")
	if err != nil {
		t.Fatal(err)
	}
	// The ID token of a refresh replaces the first and is not worth a line.
	for _, token := range c.given()[:5] {
		if !strings.Contains(got, token) && strings.Count(token, ".") != 2 {
			t.Errorf("the output lacks the token %s", token)
		}
	}
}

// A token inside a token is a token: Azure AD B2C puts the access token of another provider into the ID token.
func TestLoginHidesTokensInsideTokens(t *testing.T) {
	c := newCorp(t)
	c.MutateIDToken(func(_, claims map[string]any) { claims["idp_access_token"] = "canary-inner-token" })
	got, err := c.signsIn(t, c.yaml())
	if err != nil {
		t.Fatal(err)
	}
	hides(t, got, "canary-inner-token")
	wants(t, got, " idp_access_token ********\n")
}

// An access token that is a JWT is readable, and not usable without its signature.
func TestLoginShowsWhatAnAccessTokenHolds(t *testing.T) {
	c := newCorp(t)
	c.SetAccessTokens(true, 0)
	got, err := c.signsIn(t, c.yaml())
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, " access token ******** (JWT, ", "Access token holds", ` client_id "wiki"`)
	for _, token := range c.given() {
		hides(t, got, token, token[strings.LastIndex(token, ".")+1:])
	}
}

// What a provider says must not write on the terminal.
func TestLoginPrintsNoControlCharacters(t *testing.T) {
	c := newCorp(t)
	c.MutateIDToken(func(_, claims map[string]any) { claims["city"] = "Paris\u009b2J\u202egnp" })
	c.RefuseSignIn("", "")
	got, err := c.signsIn(t, c.yaml())
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(got, "\u009b\u202e\x1b") {
		t.Errorf("control characters in %q", got)
	}
	c.RefuseSignIn("access_denied", "no\x1b[2J way")
	got, err = c.signsIn(t, c.yaml())
	if err == nil || strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
}

func TestLoginTellsWhatBecameOfTheRefreshToken(t *testing.T) {
	t.Run("stayed", func(t *testing.T) {
		c := newCorp(t)
		c.SetRotation(false)
		got, err := c.signsIn(t, c.yaml())
		if err != nil {
			t.Fatal(err)
		}
		wants(t, got, " refresh token stayed")
	})
	t.Run("none came", func(t *testing.T) {
		c := newCorp(t)
		c.SetRefresh(idptest.RefreshNever)
		got, err := c.signsIn(t, c.yaml())
		if err != nil {
			t.Fatalf("that is how some providers are: %v", err)
		}
		wants(t, got, " refresh token none came", "providers.corp.scopes: many providers want offline_access", "providers.corp.authorize_params: ")
		if n := c.Calls(idptest.Token); n != 1 {
			t.Errorf("%d token requests without a refresh token, want 1", n)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := newCorp(t)
		c.On(idptest.Token, func(w http.ResponseWriter, r *http.Request) bool {
			if r.PostForm.Get("grant_type") != "refresh_token" {
				return false
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
			return true
		})
		got, err := c.signsIn(t, c.yaml())
		if err == nil {
			t.Error("exit code 0")
		}
		wants(t, got, " user alice\n", " result failed\n", "refresh the tokens: token endpoint answered status 400, error invalid_grant\n providers.corp.scopes: ")
	})
}

func TestLoginDoubtsAnIdentity(t *testing.T) {
	c := newCorp(t)
	c.MutateIDToken(func(_, claims map[string]any) {
		delete(claims, "groups")
		claims["email_verified"] = false
	})
	c.MutateTokenAnswer(func(answer map[string]any) { delete(answer, "expires_in") })
	got, err := c.signsIn(t, c.yaml("scopes: [openid, email, wiki:read]"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, " email -\n", "providers.corp.assume_email_verified: ", "providers.corp.claims.groups: no groups came",
		"not known: neither expires_in nor the token says; see providers.corp.token_lifetime")
}

// What the provider module would log is told to whoever sits there.
func TestLoginShowsWarnings(t *testing.T) {
	c := newCorp(t)
	c.MutateIDToken(func(_, claims map[string]any) { claims["email"] = "not an address" })
	got, err := c.signsIn(t, c.yaml())
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, `level=WARN msg="claim left out" claim=email`, " email -\n")
	if strings.Contains(got, "time=") {
		t.Error("the time of a warning is noise here")
	}
}

func TestLoginTellsScopesThatWereNotGranted(t *testing.T) {
	c := newCorp(t)
	c.MutateTokenAnswer(func(answer map[string]any) { answer["scope"] = "openid email" })
	got, err := c.signsIn(t, c.yaml("scopes: [openid, email, offline_access, wiki:read]"))
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, " scopes openid email\n", " not granted wiki:read\n")
}

// metamaps is a provider that displays the code.
const metamapsYAML = `
providers:
  maps:
    oauth2: {authorize_url: "%[1]s/oauth/authorize", token_url: "%[1]s/oauth/token"}
    token_request: query
    client_id: wiki
    client_secret: canary-client-secret
    client_auth: client_secret_post
    identity: none
    redirect_uri: urn:ietf:wg:oauth:2.0:oob
routes:
  - {host: maps.example.com, access: signed_in, upstream: "http://127.0.0.1:3000"}
  - {host: team.example.com, access: {groups: [team]}, upstream: "http://127.0.0.1:3000"}
`

func newMetamaps(t *testing.T) *simtest.Metamaps {
	m := simtest.NewMetamaps(t, simtest.Options{})
	m.AddClient(simtest.Client{ID: "wiki", Secret: "canary-client-secret"})
	m.AddUser(simtest.User{Name: "ada"})
	return m
}

func TestLoginTakesAPastedCode(t *testing.T) {
	m := newMetamaps(t)
	cmd := signIn(t, fmt.Sprintf(metamapsYAML, m.URL))
	if got := cmd.redirectURI(); got != outOfBand {
		t.Fatalf("redirect URI %s", got)
	}
	_, text := cmd.visit(cmd.address())
	code := regexp.MustCompile(`<code id="authorization_code">([^<]+)</code>`).FindStringSubmatch(text)
	if code == nil {
		t.Fatalf("no code on the page: %s", text)
	}
	cmd.err.find("Paste the code: ")
	cmd.types("  " + code[1] + " \r\n")
	got, err := cmd.ends()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, " user -\n", "identity: none", " access token ******** (opaque, 64 bytes)\n", ", lives 2h0m0s\n",
		" maps.example.com/ allow signed_in\n", " team.example.com/ deny groups\n", " refresh token rotated: ")
	hides(t, got, "canary-client-secret")
	if errs := m.Errors(); len(errs) > 0 {
		t.Errorf("protocol errors: %q", errs)
	}
	if regexp.MustCompile(`[0-9a-f]{64}`).MatchString(got) {
		t.Error("the output holds a token")
	}
}

func TestLoginFailsWithAWrongPastedCode(t *testing.T) {
	m := newMetamaps(t)
	cmd := signIn(t, fmt.Sprintf(metamapsYAML, m.URL))
	cmd.types("no-such-code\n")
	got, err := cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "error invalid_grant", "providers.maps.redirect_uri: ", "A code works once")
}

// An OpenID Connect provider that displays the code cannot name itself beside it (RFC 9207). The whole query may be pasted instead.
func TestLoginTakesAPastedCodeOfOpenIDConnect(t *testing.T) {
	for name, pasted := range map[string]func(q url.Values) string{
		"code":          func(q url.Values) string { return q.Get("code") },
		"query":         func(q url.Values) string { return "?" + q.Encode() },
		"address":       func(q url.Values) string { return "https://id.example.com/shown?" + q.Encode() },
		"foreign state": func(q url.Values) string { q.Set("state", "foreign"); return q.Encode() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCorp(t)
			c.register(outOfBand)
			var answer url.Values
			c.MutateAuthorizeAnswer(func(q url.Values) { answer = maps.Clone(q) })
			cmd := signIn(t, c.yaml("redirect_uri: "+outOfBand), "corp")
			client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			resp, err := client.Get(cmd.address())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			cmd.types(pasted(answer) + "\n")
			got, err := cmd.ends()
			if name == "foreign state" {
				if err == nil || c.Calls(idptest.Token) != 0 {
					t.Errorf("a code of another sign-in was used: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wants(t, got, " user alice\n")
		})
	}
}

// LikeCoin by its preset: its own name of the code, the person in the token answer, and a JWT that says when it expires. Somebody who
// refuses comes back without a state.
func TestLoginWithAPreset(t *testing.T) {
	like := simtest.NewLikeCoin(t, simtest.Options{})
	like.AddUser(simtest.User{Name: "ada", Members: map[string]any{"displayName": "Ada Lovelace", "avatar": "https://like.co/ada.png"}})
	yaml := fmt.Sprintf(`
providers:
  like:
    preset: likecoin
    oauth2: {authorize_url: "%[1]s/in/oauth/", token_url: "%[1]s/oauth/access_token"}
    client_id: wiki
    client_secret: canary-client-secret
    scopes: [profile, email]
routes:
  - {access: signed_in, upstream: "http://127.0.0.1:3000"}
`, like.URL)
	signsIn := func() (string, error) {
		cmd := signIn(t, yaml)
		like.AddClient(simtest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{cmd.redirectURI()}, Scopes: []string{"profile", "email"}})
		cmd.visit(cmd.address())
		return cmd.ends()
	}
	got, err := signsIn()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, "ends the refresh tokens of the person's older ones", " user ada\n", " name Ada Lovelace\n", " picture https://like.co/ada.png\n",
		", lives ", "Access token holds", ` azp "wiki"`, " / allow signed_in\n", " refresh token stayed")
	if errs := like.Errors(); len(errs) > 0 {
		t.Errorf("protocol errors: %q", errs)
	}
	like.Refuse(true)
	got, err = signsIn()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, `sign in: provider answered error "denied"`, "refused", "\n providers.like.scopes: asks for profile, email")
}

const breakoutYAML = `
providers:
  team:
    oauth2: {token_url: "%[1]s/oauth/token", userinfo_url: "%[1]s/me/"}
    grant: password
    client_id: wiki
    client_secret: %[2]s
    client_auth: client_secret_basic
    scopes: [read, write]
    identity: userinfo
    claims: {user: email}
routes:
  - {host: team.example.com, access: signed_in, upstream: "http://127.0.0.1:3000"}
`

func newBreakout(t *testing.T) *simtest.BreakOut {
	b := simtest.NewBreakOut(t, simtest.Options{})
	b.AddClient(simtest.Client{ID: "wiki", Secret: "canary-client-secret", Scopes: []string{"read", "write"}})
	b.AddUser(simtest.User{Name: "ada@example.com", Password: "canary password ", Members: map[string]any{"email": "ada@example.com"}})
	return b
}

func TestLoginWithPassword(t *testing.T) {
	b := newBreakout(t)
	cmd := signIn(t, fmt.Sprintf(breakoutYAML, b.URL, "canary-client-secret"))
	cmd.err.find("User name: ")
	cmd.types("ada@example.com\n")
	cmd.err.find("Password: ")
	cmd.types("canary password \r\n") // a blank can be part of a password
	got, err := cmd.ends()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, " user ada@example.com\n", " scopes read write\n", " team.example.com/ allow signed_in\n", " refresh token stayed")
	hides(t, got, "canary password", "canary-client-secret")
	if errs := b.Errors(); len(errs) > 0 {
		t.Errorf("protocol errors: %q", errs)
	}
}

func TestLoginWithWrongPassword(t *testing.T) {
	b := newBreakout(t)
	cmd := signIn(t, fmt.Sprintf(breakoutYAML, b.URL, "canary-client-secret"))
	cmd.types("ada@example.com\ncanary-wrong\n")
	got, err := cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "sign in with a password: ", "The user name or the password is wrong", "providers.team.client_secret: ", "providers.team.client_auth: is client_secret_basic: try client_secret_post")
	hides(t, got, "canary-wrong", "canary-client-secret")
}

// Each failure names the key to change.
func TestLoginFailuresNameTheKey(t *testing.T) {
	tokenSays := func(status int, body string) func(*corp) {
		return func(c *corp) {
			c.AnswerWith(idptest.Token, -1, idptest.Answer{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
		}
	}
	refuses := func(code string) func(*corp) { return func(c *corp) { c.RefuseSignIn(code, "") } }
	claims := func(f func(header, claims map[string]any)) func(*corp) { return func(c *corp) { c.MutateIDToken(f) } }
	for name, test := range map[string]struct {
		breaks func(*corp)
		yaml   string
		want   []string
	}{
		"invalid_client":       {tokenSays(401, `{"error":"invalid_client"}`), "client_auth: client_secret_basic", []string{"client_secret: must be", "client_auth: is client_secret_basic: try client_secret_post"}},
		"invalid_client, auth": {tokenSays(401, `{"error":"invalid_client"}`), "", []string{"client_auth: is not set"}},
		"bare 401":             {tokenSays(401, `{}`), "", []string{"client_secret: must be", "client_auth: "}},
		"unauthorized_client":  {tokenSays(400, `{"error":"unauthorized_client"}`), "", []string{"client_id: ", "grant: or the client is not registered"}},
		"invalid_grant":        {tokenSays(400, `{"error":"invalid_grant"}`), "", []string{"redirect_uri: must be, to the letter", "omit_redirect_uri: "}},
		"invalid_request":      {tokenSays(400, `{"error":"invalid_request"}`), "", []string{"token_params: ", "token_request: query, only"}},
		"GitHub":               {tokenSays(200, `{"error":"redirect_uri_mismatch"}`), "", []string{"redirect_uri: register exactly"}},
		"grant type":           {tokenSays(400, `{"error":"unsupported_grant_type"}`), "", []string{"grant: the provider does not take"}},
		"target":               {tokenSays(400, `{"error":"invalid_target"}`), "", []string{"token_params: "}},
		"not found":            {tokenSays(404, `<html>`), "", []string{"issuer: is this the address of the token endpoint?"}},
		"a page":               {tokenSays(200, `<html>`), "", []string{"issuer: is this the address of the token endpoint?"}},
		"busy":                 {tokenSays(503, ``), "", []string{"finish the sign-in: ", "The provider has trouble of its own", "issuer: if it goes on"}},
		"no connection":        {func(c *corp) { c.DropConnection(idptest.Token, -1) }, "", []string{"issuer: is this the right address?", "http_proxy: or internal_url"}},
		"address as name":      {claims(func(_, c map[string]any) { c["email_verified"] = false }), "claims: {user: email}", []string{"claims.user: ", "assume_email_verified: "}},
		"opaque access token":  {func(*corp) {}, "identity: access_token", []string{"identity: the access token says nothing"}},
		"foreign answer": {func(c *corp) {
			c.MutateAuthorizeAnswer(func(q url.Values) { q.Set("iss", "https://elsewhere.example.com") })
		}, "", []string{"issuer: write the issuer exactly"}},
		"server_error":         {refuses("server_error"), "", []string{"trouble of its own"}},
		"access_denied":        {refuses("access_denied"), "scopes: [openid, email]", []string{"refused", "scopes: asks for openid, email"}},
		"invalid_scope":        {refuses("invalid_scope"), "scopes: [openid, email]", []string{"scopes: asks for openid, email", "scope_separator: "}},
		"login_required":       {refuses("login_required"), "authorize_params: {prompt: none}", []string{"authorize_params: with prompt: none"}},
		"invalid at authorize": {refuses("invalid_request"), "", []string{"authorize_params: add", "pkce: off, only"}},
		"response type":        {refuses("unsupported_response_type"), "", []string{"client_id: register this client for the authorization code flow"}},
		"unheard-of error":     {refuses("out_of_tea"), "", []string{`provider answered error "out_of_tea"`, "authorize_params: "}},
		"callback parameters": {func(c *corp) {
			c.MutateAuthorizeAnswer(func(q url.Values) { q["auth_code"] = q["code"]; q.Del("code") })
		}, "", []string{"callback_params: write the provider's own names"}},
		"no ID token":         {func(c *corp) { c.MutateTokenAnswer(func(a map[string]any) { delete(a, "id_token") }) }, "", []string{"scopes: must have openid"}},
		"token type":          {func(c *corp) { c.MutateTokenAnswer(func(a map[string]any) { a["token_type"] = "mac" }) }, "", []string{"issuer: gives tokens that Postern cannot use"}},
		"algorithm":           {func(*corp) {}, "id_token_signed_response_alg: ES256", []string{"id_token_signed_response_alg: is ES256"}},
		"audience":            {claims(func(_, c map[string]any) { c["aud"] = []string{"wiki", "other"} }), "", []string{"extra_audiences: "}},
		"clock":               {claims(func(_, c map[string]any) { c["exp"] = 1_000_000_000 }), "", []string{"leeway: set this machine's clock right first"}},
		"issuer of the token": {claims(func(_, c map[string]any) { c["iss"] = "https://elsewhere.example.com" }), "", []string{"issuer: write the issuer exactly"}},
		"issuer": {func(c *corp) {
			c.MutateMetadata(func(m map[string]any) { m["issuer"] = "https://elsewhere.example.com" })
		}, "", []string{"find the provider: ", "issuer: write the issuer exactly"}},
		"no metadata": {func(c *corp) { c.Fail(idptest.Discovery, 404, -1) }, "", []string{"issuer: there are no metadata"}},
		"client auth": {func(c *corp) {
			c.MutateMetadata(func(m map[string]any) { m["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt"} })
		}, "", []string{"client_auth: write one of those"}},
		"userinfo":      {func(c *corp) { c.Fail(idptest.Userinfo, 403, -1) }, "identity: userinfo", []string{"issuer: this address did not tell", "scopes: the token may lack", "identity: or take another source"}},
		"no such claim": {func(*corp) {}, "claims: {user: data.login}", []string{"identity: ", "claims"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCorp(t)
			test.breaks(c)
			got, err := c.signsIn(t, c.yaml(test.yaml))
			if err == nil {
				t.Error("exit code 0")
			}
			for _, want := range test.want {
				wants(t, got, strings.ReplaceAll(want, "{corp}", "providers.corp."))
				if key, _, ok := strings.Cut(want, ": "); ok && !strings.Contains(key, " ") {
					wants(t, got, "\n providers.corp."+want)
				}
			}
			hides(t, got, append(c.given(), "canary-client-secret")...)
		})
	}
}

// The provider's certificate is of a CA that this machine does not know.
func TestLoginNamesTheCAFile(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	defer s.Close()
	cmd := signIn(t, fmt.Sprintf("providers:\n  corp: {issuer: %q, client_id: wiki, client_secret: s}\nroutes:\n  - upstream: http://127.0.0.1:3000\n", s.URL))
	got, err := cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "find the provider: ", "\n providers.corp.ca_file: name the CA")
}

// The provider shows its own page for a redirect URI that it does not know, and nobody comes back.
func TestLoginGivesUp(t *testing.T) {
	c := newCorp(t)
	cmd := signIn(t, c.yaml(), "corp", "--timeout", "1ms")
	got, err := cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "nothing came in time", "\n providers.corp.redirect_uri: if the provider shows an error about the redirect URI")

	cmd = signIn(t, fmt.Sprintf(breakoutYAML, "http://127.0.0.1:1", "s"), "--timeout", "1ms")
	got, err = cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "read the user name: nothing came in time")

	cmd = signIn(t, fmt.Sprintf(metamapsYAML, "http://127.0.0.1:1"), "--timeout", "1ms")
	got, err = cmd.ends()
	if err == nil {
		t.Error("exit code 0")
	}
	wants(t, got, "read the code: nothing came in time")
}

func TestLoginCanBeInterrupted(t *testing.T) {
	for name, interrupt := range map[string]func(c *corp) *command{
		"while the browser is away": func(c *corp) *command {
			cmd := signIn(t, c.yaml(), "corp")
			cmd.err.find("Waiting up to")
			return cmd
		},
		"while the provider is silent": func(c *corp) *command {
			gate := c.Gate(idptest.Discovery)
			cmd := signIn(t, c.yaml(), "corp")
			<-gate.Arrived()
			return cmd
		},
		"while a password is typed": func(*corp) *command {
			cmd := signIn(t, fmt.Sprintf(breakoutYAML, "http://127.0.0.1:1", "s"))
			cmd.types("ada\n")
			cmd.err.find("Password: ")
			return cmd
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := interrupt(newCorp(t))
			cmd.interrupt()
			if _, err := cmd.ends(); err == nil || err.Error() != "interrupted" {
				t.Errorf("error %v, want interrupted", err)
			}
		})
	}
}

// Whoever can reach the loopback address, and every page in a browser on this machine, can send something there.
func TestLoginIgnoresForeignCallbacks(t *testing.T) {
	c := newCorp(t)
	cmd := signIn(t, c.yaml(), "corp")
	redirectURI := cmd.redirectURI()
	c.register(redirectURI)
	address := cmd.address()
	for _, query := range []string{"", "?code=foreign", "?code=foreign&state=foreign", "?code=foreign&state=", "?error=access_denied&state=foreign"} {
		if status, _ := cmd.visit(redirectURI + query); status != http.StatusBadRequest {
			t.Errorf("%s: status %d, want 400", query, status)
		}
	}
	if status, _ := cmd.visit(strings.TrimSuffix(redirectURI, "/callback") + "/favicon.ico"); status != http.StatusNotFound {
		t.Errorf("another path: status %d, want 404", status)
	}
	if c.Calls(idptest.Token) != 0 {
		t.Error("a foreign code was sent to the provider")
	}
	cmd.visit(address)
	got, err := cmd.ends()
	if err != nil {
		t.Fatal(err)
	}
	wants(t, got, "ignored: it does not have the state", "Its parameters: code, state.", " user alice\n")
	hides(t, got, "foreign")
}

// newCallback is the loopback listener's handler alone.
func newCallback(t *testing.T, c config.Provider) (*callback, *strings.Builder) {
	t.Helper()
	c.Name, c.ClientID, c.ClientAuth, c.Identity, c.ResponseMode = "corp", "wiki", "none", "none", "query"
	c.OAuth2 = &config.OAuth2{
		AuthorizeURL: &url.URL{Scheme: "https", Host: "id.example.com", Path: "/authorize"},
		TokenURL:     &url.URL{Scheme: "https", Host: "id.example.com", Path: "/token"},
	}
	p, err := proxy.NewProvider(&config.Config{}, c, proxy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := page.New(page.Options{})
	if err != nil {
		t.Fatal(err)
	}
	notes := &strings.Builder{}
	return &callback{
		path: "/callback", state: "our-state", provider: p, pages: pages, got: make(chan answer, 1),
		note: func(format string, args ...any) { fmt.Fprintf(notes, format+"\n", args...) },
	}, notes
}

func (c *callback) serve(method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	c.ServeHTTP(w, r)
	return w
}

// taken is the answer that the handler accepted, if it did.
func (c *callback) taken() answer {
	select {
	case a := <-c.got:
		return a
	default:
		return answer{}
	}
}

func TestCallbackTakesOneAnswer(t *testing.T) {
	c, _ := newCallback(t, config.Provider{})
	for _, want := range []int{http.StatusOK, http.StatusConflict, http.StatusConflict} {
		if w := c.serve("GET", "/callback?code=first&state=our-state", ""); w.Code != want {
			t.Errorf("status %d, want %d", w.Code, want)
		}
	}
	if a := c.taken(); a.Get("code") != "first" || a.posted {
		t.Errorf("got %v", a)
	}
	if w := c.serve("GET", "/callback?code=second&state=our-state", ""); w.Code != http.StatusConflict || len(c.got) != 0 {
		t.Errorf("a second answer was taken: status %d", w.Code)
	}
}

func TestCallbackReadsAPostedAnswer(t *testing.T) {
	c, _ := newCallback(t, config.Provider{})
	if w := c.serve("PUT", "/callback?code=a&state=our-state", ""); w.Code != http.StatusBadRequest {
		t.Errorf("PUT: status %d, want 400", w.Code)
	}
	if w := c.serve("POST", "/callback", "code=a&state=our-state&pad="+strings.Repeat("x", maxPosted)); w.Code != http.StatusBadRequest {
		t.Errorf("a long form: status %d, want 400", w.Code)
	}
	if w := c.serve("POST", "/callback?state=our-state&code=query", "code=posted&state=our-state"); w.Code != http.StatusOK {
		t.Errorf("status %d, want 200", w.Code)
	}
	if a := c.taken(); !a.posted || a.Get("code") != "posted" {
		t.Errorf("got %v", a)
	}
}

// LikeCoin names the code auth_code, and says "denied" without anything else.
func TestCallbackByTheProvidersNames(t *testing.T) {
	c, notes := newCallback(t, config.Provider{CallbackParams: map[string]string{"code": "auth_code", "error": "denied", "state": "st"}})
	if w := c.serve("GET", "/callback?auth_code=a&state=our-state", ""); w.Code != http.StatusBadRequest {
		t.Errorf("the state under another name: status %d, want 400", w.Code)
	}
	if !strings.Contains(notes.String(), "Its parameters: auth_code, state.") || !strings.Contains(notes.String(), "providers.corp.callback_params") {
		t.Errorf("notes %q", notes)
	}
	w := c.serve("GET", "/callback?denied=1", "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "did not sign you in") || !strings.Contains(w.Body.String(), "You can close this window") {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
	if a := c.taken(); !a.Has("denied") {
		t.Errorf("got %v", a)
	}
}

// Strays are told a few times, however many come and whatever they are called.
func TestCallbackBoundsWhatStraysPrint(t *testing.T) {
	c, notes := newCallback(t, config.Provider{})
	for range 100 {
		c.serve("GET", "/callback?"+strings.Repeat("x", 1000)+"&"+strings.Repeat("y", 1000), "")
	}
	if n := strings.Count(notes.String(), "ignored"); n != maxStrays || notes.Len() > 4000 {
		t.Errorf("%d notes of %d bytes", n, notes.Len())
	}
}

// The browser runs on another machine: its address bar is pasted.
func TestLoginTakesAPastedAddress(t *testing.T) {
	c := newCorp(t)
	cmd := signIn(t, c.yaml("redirect_uri: http://localhost:"+freeLoopbackPort(t)+"/done"), "corp")
	redirectURI := cmd.redirectURI()
	if !strings.HasSuffix(redirectURI, "/done") {
		t.Fatalf("redirect URI %s", redirectURI)
	}
	c.register(redirectURI)
	var answer url.Values
	c.MutateAuthorizeAnswer(func(q url.Values) { answer = maps.Clone(q) })
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(cmd.address())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	foreign := maps.Clone(answer)
	foreign.Set("state", "foreign")
	cmd.types("what?\n\n" + redirectURI + "?" + foreign.Encode() + "\n" + resp.Header.Get("Location") + "\n")
	got, err := cmd.ends()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got, "That is not the address of this sign-in"); n != 2 {
		t.Errorf("%d notes, want 2", n)
	}
	wants(t, got, " user alice\n")
	if strings.Contains(got, "takes any port") {
		t.Error("the port is configured")
	}
}

// The redirect URI is sent as it was written: providers compare strings. Without a port any will do.
func TestLoginRedirectURI(t *testing.T) {
	port := freeLoopbackPort(t)
	for written, want := range map[string]string{
		"":                                       `^http://127\.0\.0\.1:\d+/callback$`,
		"http://127.0.0.1:" + port:               `^http://127\.0\.0\.1:` + port + `$`,
		"http://127.0.0.1:" + port + "/a%20b":    `^http://127\.0\.0\.1:` + port + `/a%20b$`,
		"http://127.0.0.1/back":                  `^http://127\.0\.0\.1:\d+/back$`,
		"http://LOCALHOST:" + port + "/callback": `^http://LOCALHOST:` + port + `/callback$`,
	} {
		t.Run(written, func(t *testing.T) {
			c := newCorp(t)
			more := ""
			if written != "" {
				more = "redirect_uri: " + written
			}
			cmd := signIn(t, c.yaml(more), "corp")
			redirectURI := cmd.redirectURI()
			if !regexp.MustCompile(want).MatchString(redirectURI) {
				t.Errorf("redirect URI %s, want %s", redirectURI, want)
			}
			c.register(redirectURI)
			cmd.visit(cmd.address())
			if _, err := cmd.ends(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("--port", func(t *testing.T) {
		c := newCorp(t)
		cmd := signIn(t, c.yaml(), "corp", "--port", port)
		if got, want := cmd.redirectURI(), "http://127.0.0.1:"+port+"/callback"; got != want {
			t.Errorf("redirect URI %s, want %s", got, want)
		}
		cmd.interrupt()
		if got, _ := cmd.ends(); strings.Contains(got, "takes any port") {
			t.Error("the port is chosen")
		}
	})
	t.Run("taken", func(t *testing.T) {
		c := newCorp(t)
		cmd := signIn(t, c.yaml("redirect_uri: "+c.URL+"/callback"), "corp") // where the provider itself listens
		got, err := cmd.ends()
		if err == nil {
			t.Error("exit code 0")
		}
		wants(t, got, "address already in use", "providers.corp.redirect_uri: ")
	})
}

func TestTerminalReadsPipes(t *testing.T) {
	person := newTerminal(strings.NewReader("ada\r\n two words \n\nlast"), io.Discard, io.Discard)
	for _, want := range []string{"ada", " two words ", "", "last"} {
		if got, err := person.hidden(t.Context()); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if got, err := person.line(t.Context()); err == nil {
		t.Errorf("got %q after the end", got)
	}
	person = newTerminal(strings.NewReader(strings.Repeat("x", maxLine+1)+"\n"), io.Discard, io.Discard)
	if got, err := person.line(t.Context()); err == nil {
		t.Errorf("took a line of %d bytes", len(got))
	}
}

// Postern's page in the browser holds nothing of the answer, and is not kept.
func TestCallbackPage(t *testing.T) {
	c, _ := newCallback(t, config.Provider{})
	w := c.serve("GET", "/callback?code=canary-code&state=our-state", "")
	if strings.Contains(w.Body.String(), "canary-code") || strings.Contains(w.Body.String(), "our-state") {
		t.Errorf("the page holds the answer: %s", w.Body)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s %q, want %q", name, got, want)
		}
	}
}

func freeLoopbackPort(t *testing.T) string {
	t.Helper()
	_, port, _ := strings.Cut(freePort(t), ":")
	return port
}
