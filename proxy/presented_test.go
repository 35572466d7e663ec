package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// tokenConfig takes access tokens of clients on its routes.
const tokenConfig = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret, claims: {user: preferred_username}}
routes:
  - {path: /, upstream: "${UPSTREAM}", cors: ["https://app.example.com"], access: {bearer_tokens: {audience: api}}}
  - {path: /staff, upstream: "${UPSTREAM}", access: {groups: [staff], rule: "claims.level >= 3", bearer_tokens: {audience: [api]}}}
  - {path: /orders, upstream: "${UPSTREAM}", access: {bearer_tokens: {audience: [other, api], scopes: [orders.read]}}}
  - {path: /asked, upstream: "${UPSTREAM}", access: {bearer_tokens: {audience: "${ISSUER}/api", introspect: true}}}
  - {path: /asked/billing, upstream: "${UPSTREAM}", access: {bearer_tokens: {audience: billing, introspect: true}}}
  - {path: /sessions, upstream: "${UPSTREAM}"}
  - {path: /none, upstream: "${UPSTREAM}", bearer: none, access: {bearer_tokens: {audience: api}}}
  - {path: /id, upstream: "${UPSTREAM}", bearer: id_token, access: {bearer_tokens: {audience: api}}}
`

// accessToken is one of the stack's provider, good for the audience api.
func accessToken(s *proxytest.Stack, user string, change map[string]any) string {
	now := s.Clock.Now()
	claims := map[string]any{
		"iss": s.Provider.URL, "sub": "sub of " + user, "preferred_username": user, "aud": "api", "client_id": "cli", "jti": "1", "scope": "orders.read",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "groups": []string{"staff"}, "level": 3,
	}
	maps.Copy(claims, change)
	return s.Provider.SignJWT(claims, map[string]any{"typ": "at+jwt"})
}

// present makes a request of a program with these lines of Authorization.
func present(t *testing.T, s *proxytest.Stack, path string, authorization ...string) proxytest.Answer {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", strings.TrimPrefix(s.URL, "http://")
	r.Header["Authorization"] = authorization
	return send(t, s, r)
}

func send(t *testing.T, s *proxytest.Stack, r *http.Request) proxytest.Answer {
	t.Helper()
	res, err := s.Transport().RoundTrip(r.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var text strings.Builder
	if err := res.Write(&text); err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(text.String(), "\r\n\r\n")
	return proxytest.Answer{Response: res, Text: body, URL: r.URL.String()}
}

func TestPresentedTokenIsAWayToBeSignedIn(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	token := accessToken(s, "ann", nil)
	for path, want := range map[string]string{"/": "Bearer " + token, "/staff": "Bearer " + token, "/orders/1": "Bearer " + token, "/none": "", "/id": ""} {
		got := present(t, s, path, "bearer  "+token).Received(t)
		if got.Header.Get("X-Forwarded-User") != "ann" || got.Header.Get("X-Forwarded-Groups") != "staff" || got.Header.Get("Authorization") != want {
			t.Errorf("%s: the application got %v", path, got.Header)
		}
	}
	if a := present(t, s, "/sessions", "Bearer "+token); a.StatusCode != 401 {
		t.Errorf("a route without bearer_tokens: %s", a.Status)
	}
	if strings.Contains(s.Log.String(), strings.Split(token, ".")[2]) {
		t.Error("the log holds the token")
	}
}

// S33: RFC 6750 section 3.1.
func TestPresentedTokensThatAreRefused_S33(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	good := "Bearer " + accessToken(s, "ann", nil)
	for name, c := range map[string]struct {
		path          string
		authorization []string
		status        int
		code          string
	}{
		"nothing":           {"/", nil, 401, ""},
		"another scheme":    {"/", []string{"Basic YTpi"}, 401, ""},
		"no token":          {"/", []string{"Bearer"}, 400, "invalid_request"},
		"no token, a space": {"/", []string{"Bearer "}, 400, "invalid_request"},
		"two words":         {"/", []string{good + " x"}, 400, "invalid_request"},
		"two headers":       {"/", []string{good, good}, 400, "invalid_request"},
		"two, one Basic":    {"/", []string{"Basic YTpi", good}, 400, "invalid_request"},
		"junk":              {"/", []string{"Bearer junk"}, 401, "invalid_token"},
		"another audience":  {"/", []string{"Bearer " + accessToken(s, "ann", map[string]any{"aud": "wiki"})}, 401, "invalid_token"},
		"expired":           {"/", []string{"Bearer " + accessToken(s, "ann", map[string]any{"exp": 1})}, 401, "invalid_token"},
		"too large":         {"/", []string{"Bearer " + accessToken(s, "ann", map[string]any{"pad": strings.Repeat("x", 20000)})}, 401, "invalid_token"},
		"no name":           {"/", []string{"Bearer " + accessToken(s, "", nil)}, 401, "invalid_token"},
		"scope":             {"/orders", []string{"Bearer " + accessToken(s, "ann", map[string]any{"scope": "orders.reading"})}, 403, "insufficient_scope"},
		"group":             {"/staff", []string{"Bearer " + accessToken(s, "ann", map[string]any{"groups": []string{"other"}})}, 403, ""},
		"claim":             {"/staff", []string{"Bearer " + accessToken(s, "ann", map[string]any{"level": 2})}, 403, ""},
		"opaque, unknown":   {"/asked", []string{"Bearer made-up"}, 401, "invalid_token"},
	} {
		a := present(t, s, c.path, c.authorization...)
		challenge := a.Header.Get("WWW-Authenticate")
		if a.StatusCode != c.status || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") || a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %s %s", name, a.Status, a.Header, a.Text)
		}
		if has := strings.Contains(challenge, `error="`+c.code+`"`); c.code != "" && !has || c.code == "" && strings.Contains(challenge, "error=") {
			t.Errorf("%s: challenge %s", name, challenge)
		}
		if c.code == "insufficient_scope" && !strings.Contains(challenge, `scope="orders.read"`) {
			t.Errorf("%s: challenge %s", name, challenge)
		}
		if len(a.Cookies()) > 0 || a.Header.Get("Location") != "" {
			t.Errorf("%s: %v", name, a.Header)
		}
	}
	if n := len(s.App.Requests()); n != 0 {
		t.Errorf("%d requests reached the application", n)
	}
}

// A66: the token decides, not the cookie that comes along; and a browser that presents a bad one is not sent to sign in.
func TestA66_BearerDecidesBeforeTheCookie(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	b := s.Browser()
	if got := b.Go("/").Received(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Fatalf("%v", got.Header)
	}
	if a := b.Do("GET", "/", nil, map[string]string{"Authorization": "Bearer junk"}); a.StatusCode != 401 || a.Header.Get("Location") != "" {
		t.Errorf("junk beside a session: %s", a.Status)
	}
	if got := b.Do("GET", "/", nil, map[string]string{"Authorization": "Bearer " + accessToken(s, "ann", nil)}).Received(t); got.Header.Get("X-Forwarded-User") != "ann" {
		t.Errorf("a good one beside a session: %v", got.Header)
	}
	if got := b.Fetch("/").Received(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("the session afterwards: %v", got.Header)
	}
	if a := s.Browser().Do("GET", "/", nil, map[string]string{"Authorization": "Bearer junk"}); a.StatusCode != 401 {
		t.Errorf("junk without a session: %s", a.Status)
	}
}

func TestPresentedTokenProblemIsReadableForCORS(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	r, _ := http.NewRequest("GET", s.URL+"/", nil)
	r.Header.Set("Authorization", "Bearer junk")
	r.Header.Set("Origin", "https://app.example.com")
	if a := send(t, s, r); a.StatusCode != 401 || a.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
}

// A99: what is remembered of a token for one route says nothing about it for another, nor anything about another token.
func TestA99_WhatATokenIsIsRememberedForItsRouteAlone(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	token := signedInToken(t, s, "alice")
	for range 3 {
		if a := present(t, s, "/asked", "Bearer "+token); a.StatusCode != 200 {
			t.Fatalf("%s %s", a.Status, a.Text)
		}
		if a := present(t, s, "/asked/billing", "Bearer "+token); a.StatusCode != 401 {
			t.Errorf("for another audience: %s", a.Status)
		}
	}
	if n := s.Provider.Calls(idptest.Introspect); n != 2 {
		t.Errorf("%d introspections, want one for each audience", n)
	}
	if a := present(t, s, "/orders", "Bearer "+accessToken(s, "ann", nil)); a.StatusCode != 200 {
		t.Error(a.Status)
	}
	if a := present(t, s, "/asked", "Bearer "+signedInToken(t, s, "bob")); a.Received(t).Header.Get("X-Forwarded-Groups") != "others" {
		t.Errorf("bob is %s", a.Text)
	}
}

// signedInToken is a real access token of the provider.
func signedInToken(t *testing.T, s *proxytest.Stack, user string) string {
	t.Helper()
	s.Provider.AddUser(idptest.User{Sub: "bob", Claims: map[string]any{"preferred_username": "bob", "groups": []string{"others"}}})
	s.Provider.SignInAs(user)
	token, ok := strings.CutPrefix(s.Browser().Go("/sessions").Received(t).Header.Get("Authorization"), "Bearer ")
	if !ok {
		t.Fatal("no token")
	}
	return token
}

func TestIntrospectionIsAskedOnceForAllAndAgainInTime(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	token := signedInToken(t, s, "alice")
	gate := s.Provider.Gate(idptest.Introspect)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := present(t, s, "/asked", "Bearer "+token); a.StatusCode != 200 {
				t.Errorf("%s", a.Status)
			}
		})
	}
	<-gate.Arrived()
	gate.Open()
	wg.Wait()
	if n := s.Provider.Calls(idptest.Introspect); n != 1 {
		t.Errorf("%d introspections", n)
	}
	s.Provider.RevokeUser("alice")
	s.Clock.Add(61 * time.Second)
	if a := present(t, s, "/asked", "Bearer "+token); a.StatusCode != 401 {
		t.Errorf("a revoked token after a minute: %s", a.Status)
	}
	present(t, s, "/asked", "Bearer "+token)
	if n := s.Provider.Calls(idptest.Introspect); n != 2 {
		t.Errorf("%d introspections: a bad token is asked about at each request", n)
	}
}

func TestMadeUpTokensOfOneClientKeepNobodyElseOut(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(tokenConfig, `listen: "${LISTEN}"`, `listen: "${LISTEN}", trusted_proxies: [127.0.0.1]`, 1)})
	good := signedInToken(t, s, "alice")
	ask := func(from, token string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/asked", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", from)
		r.Header.Set("Authorization", "Bearer "+token)
		return send(t, s, r).StatusCode
	}
	gate := s.Provider.Gate(idptest.Introspect)
	const places = 64
	answers := make(chan int, places+1)
	for i := range places + 1 {
		go func() { answers <- ask(fmt.Sprintf("2001:db8::%d", i), fmt.Sprint("made-up-", i)) }()
	}
	if first := <-answers; first != 503 {
		t.Errorf("while a network's %d tokens are checked, its next gets %d", places, first)
	}
	other := make(chan int)
	go func() { other <- ask("198.51.100.7", good) }()
	gate.Open()
	if status := <-other; status != 200 {
		t.Errorf("somebody else's good token: %d", status)
	}
	for range places {
		if status := <-answers; status != 401 {
			t.Errorf("a made-up token: %d", status)
		}
	}
	if status := ask("2001:db8::1", good); status != 200 {
		t.Errorf("the network's own good token, once the others were looked at: %d", status)
	}
}

// A provider that does not answer is neither a bad token nor a good one.
func TestPresentedTokenThatCannotBeChecked(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	token := signedInToken(t, s, "alice")
	s.Provider.Fail(idptest.Introspect, 503, -1)
	if a := present(t, s, "/asked", "Bearer "+token); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" || a.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s %v", a.Status, a.Header)
	}
	s.Provider.Heal(idptest.Introspect)
	s.Clock.Add(2 * time.Second)
	if a := present(t, s, "/asked", "Bearer "+token); a.StatusCode != 200 {
		t.Errorf("after that: %s", a.Status)
	}
}

func TestPresentedTokenIsForgottenWhenItExpires(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig})
	token := accessToken(s, "ann", map[string]any{"exp": s.Clock.Now().Add(30 * time.Second).Unix()})
	if a := present(t, s, "/", "Bearer "+token); a.StatusCode != 200 {
		t.Fatal(a.Status)
	}
	s.Clock.Add(31 * time.Second)
	if a := present(t, s, "/", "Bearer "+token); a.StatusCode != 401 {
		t.Errorf("%s", a.Status)
	}
}

// A stream that a token opened ends with it.
func TestStreamsOfAPresentedTokenEndAtItsExpiry(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: tokenConfig, App: http.HandlerFunc(streamApp)})
	header := func() http.Header {
		exp := s.Clock.Now().Add(2 * time.Second).Unix()
		return http.Header{"Authorization": {"Bearer " + accessToken(s, "ann", map[string]any{"exp": exp})}}
	}
	c, _, err := websocket.Dial(t.Context(), s.URL+"/ws", &websocket.DialOptions{HTTPHeader: header(), HTTPClient: &http.Client{Transport: s.Transport()}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "hello" {
		t.Fatalf("%s %v", got, err)
	}
	closedWith(t, c, 1008, "access token expired")

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/poll", nil)
	r.Header = header()
	res, err := s.Transport().RoundTrip(r)
	if errors.Is(err, context.DeadlineExceeded) || err == nil && (res.StatusCode != 401 || !strings.Contains(res.Header.Get("WWW-Authenticate"), "invalid_token")) {
		t.Errorf("a long poll: %v %v", res, err)
	}
	if err == nil {
		_ = res.Body.Close()
	}
}

func TestForwardAuthTakesPresentedTokens(t *testing.T) {
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			config := strings.Replace(tokenConfig, `{listen: "${LISTEN}"}`, `{listen: "${LISTEN}", trusted_proxies: [127.0.0.1/32]}`+"\nforward_auth: {dialect: "+dialect+"}", 1)
			s := proxytest.New(t, proxytest.Options{Config: config})
			ask := func(path, authorization string) proxytest.Answer {
				method, target, header := question(dialect, "GET", path, strings.TrimPrefix(s.URL, "http://"))
				header["Authorization"], header["Accept"], header["Sec-Fetch-Mode"] = authorization, "*/*", ""
				return s.Browser().Do(method, target, nil, header)
			}
			token := accessToken(s, "ann", nil)
			a := ask("/staff", "Bearer "+token)
			if a.StatusCode != 200 || a.Header.Get("X-Forwarded-User") != "ann" || a.Header.Get("Authorization") != "Bearer "+token {
				t.Errorf("good: %s %v", a.Status, a.Header)
			}
			if a := ask("/staff", "Bearer junk"); a.StatusCode != 401 || !strings.Contains(a.Header.Get("WWW-Authenticate"), "invalid_token") || a.Header.Get("X-Postern-Redirect") != "" {
				t.Errorf("junk: %s %v", a.Status, a.Header)
			}
			if a := ask("/staff", "Bearer "+accessToken(s, "ann", map[string]any{"level": 1})); a.StatusCode != 403 {
				t.Errorf("no staff: %s", a.Status)
			}
			if a := ask("/staff", "Bearer"); a.StatusCode != 400 && !(dialect == "nginx" && a.StatusCode == 403) {
				t.Errorf("malformed: %s", a.Status)
			}
		})
	}
}
