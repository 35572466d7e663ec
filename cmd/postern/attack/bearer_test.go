//go:build attack

package attack_test

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
)

// accessToken is a token of RFC 9068 for an audience, changed and signed by p.
func accessToken(p *idptest.Server, audience, scope string, change claims) string {
	now := time.Now()
	c := claims{
		"iss": p.URL, "sub": "alice", "aud": audience, "client_id": "robot", "scope": scope, "jti": "jti-" + audience + scope, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return p.SignJWT(c, header{"typ": "at+jwt"})
}

// bearing tells how Postern answers a program that shows a token.
func (w *world) bearing(path, token string) *answer {
	w.t.Helper()
	w.secrets.Add("bearer token", token)
	return w.ask(w.get(path, "Authorization: Bearer "+token))
}

func TestA76_TokensOfAnotherKindOrForOthers(t *testing.T) {
	attack(t)
	other, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: `
  - {path: /api/, upstream: {app}, provider: corp, access: {bearer_tokens: {audience: api, scopes: [read], provider: corp}}}
  - {path: /, upstream: {app}, provider: corp}
`})
	if a := w.bearing("/api/x", accessToken(w.provider, "api", "read", nil)); a.status != http.StatusOK {
		t.Fatalf("a good token: %d %s", a.status, a.body)
	}
	if got := w.app.one(t); strings.Join(got.folded("X-Forwarded-User"), "|") != "alice" {
		t.Errorf("the application gets %q", got.raw)
	}
	now := time.Now()
	idToken := func(aud any, typ string) string {
		return w.provider.SignJWT(claims{"iss": w.provider.URL, "sub": "alice", "aud": aud, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "nonce": "n", "at_hash": "h", "scope": "read"}, header{"typ": typ})
	}
	good := accessToken(w.provider, "api", "read", claims{"jti": "another"})
	part := strings.Split(good, ".")
	for name, tt := range map[string]struct {
		token  string
		status int
	}{
		"another audience": {accessToken(w.provider, "shop", "read", nil), 401}, "no audience": {accessToken(w.provider, "api", "read", claims{"aud": nil}), 401}, "part of the audience": {accessToken(w.provider, "ap", "read", nil), 401},
		"another issuer": {accessToken(w.provider, "api", "read", claims{"iss": "https://evil.example.net"}), 401}, "another provider of ours": {accessToken(other, "api", "read", nil), 401}, "another provider in our name": {accessToken(other, "api", "read", claims{"iss": w.provider.URL}), 503}, // perhaps with a key that is not known yet
		"an ID token": {idToken("wiki", "JWT"), 401}, "an ID token for the audience": {idToken("api", "JWT"), 401}, "an ID token with a better type": {idToken("api", "at+jwt"), 401},
		"a logout token": {w.provider.LogoutToken("api", "alice", "sid", nil), 401}, "expired": {accessToken(w.provider, "api", "read", claims{"exp": now.Add(-time.Minute).Unix()}), 401}, "without end": {accessToken(w.provider, "api", "read", claims{"exp": nil}), 401},
		"not yet": {accessToken(w.provider, "api", "read", claims{"nbf": now.Add(10 * time.Minute).Unix()}), 401}, "without subject": {accessToken(w.provider, "api", "read", claims{"sub": nil}), 401},
		"bound to a key": {accessToken(w.provider, "api", "read", claims{"cnf": map[string]any{"jkt": "x"}}), 401}, "without the scope": {accessToken(w.provider, "api", "write", nil), 403}, "a scope that begins so": {accessToken(w.provider, "api", "read.all", nil), 403},
		"no signature": {part[0] + "." + part[1] + ".", 401}, "alg none": {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + part[1] + ".", 401}, "junk": {"junk", 401},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			a := w.bearing("/api/x", tt.token)
			if a.status != tt.status && (tt.status != 503 || a.status != 401) || tt.status != 503 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer") || a.header.Get("Location") != "" || a.header.Get("Set-Cookie") != "" {
				t.Errorf("%d %v", a.status, a.header)
			}
			w.app.none(t)
		})
	}
	// Where a route does not take tokens, none is a sign-in; and a session's access token is none for us.
	if a := w.bearing("/x", good); a.status != http.StatusUnauthorized {
		t.Errorf("at a route without bearer_tokens: %d", a.status)
	}
	w.app.none(t)
	// A bad token beside a good session is refused: which of the two is meant is not guessed.
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	if a := w.ask(w.get("/api/x", b.cookies(), "Authorization: Bearer junk")); a.status != http.StatusUnauthorized {
		t.Errorf("junk beside a session: %d", a.status)
	}
	w.app.none(t)
}

func TestA99_TokensAreJudgedForEachRoute(t *testing.T) {
	attack(t)
	_, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: routesForTokens})
	w.judgesForEachRoute(map[string]string{
		"read": accessToken(w.provider, "api", "read", nil), "write": accessToken(w.provider, "api", "write", claims{"sub": "mallory"}), "shop": accessToken(w.provider, "shop", "read", nil),
		"staff": accessToken(w.provider, "api", "read", claims{"groups": []string{"staff"}, "jti": "of-staff"}),
	})
}

// The same tokens without anything to read in them: the provider tells what they are, each of those that it knows.
func TestA99_OpaqueTokensAreJudgedForEachRoute(t *testing.T) {
	attack(t)
	_, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: strings.ReplaceAll(routesForTokens, "bearer_tokens: {", "bearer_tokens: {introspect: true, ")})
	about := map[string]claims{
		"canary-opaque-read": {"aud": "api", "scope": "read", "sub": "alice"}, "canary-opaque-write": {"aud": "api", "scope": "write", "sub": "mallory"},
		"canary-opaque-shop": {"aud": "shop", "scope": "read", "sub": "alice"}, "canary-opaque-staff": {"aud": "api", "scope": "read", "sub": "alice", "groups": []string{"staff"}},
	}
	w.provider.On(idptest.Introspect, func(rw http.ResponseWriter, r *http.Request) bool {
		answer := claims{"active": false}
		if c := about[r.PostFormValue("token")]; c != nil {
			answer = maps.Clone(c)
			maps.Copy(answer, claims{"active": true, "iss": w.provider.URL, "client_id": "robot", "exp": time.Now().Add(5 * time.Minute).Unix()})
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(answer)
		return true
	})
	tokens := map[string]string{}
	for token := range about {
		tokens[strings.TrimPrefix(token, "canary-opaque-")] = token
	}
	w.judgesForEachRoute(tokens)
}

const routesForTokens = `
  - {path: /read/, upstream: {app}, provider: corp, access: {bearer_tokens: {audience: api, scopes: [read], provider: corp}}}
  - {path: /write/, upstream: {app}, provider: corp, access: {bearer_tokens: {audience: api, scopes: [write], provider: corp}}}
  - {path: /shop/, upstream: {app}, provider: corp, access: {bearer_tokens: {audience: shop, scopes: [read], provider: corp}}}
  - {path: /staff/, upstream: {app}, provider: corp, access: {groups: [staff], bearer_tokens: {audience: api, provider: corp}}}
  - {path: /team/, upstream: {app}, provider: team, access: {bearer_tokens: {audience: api, scopes: [read], provider: team}}}
`

// judgesForEachRoute brings tokens to the routesForTokens.
func (w *world) judgesForEachRoute(tokens map[string]string) {
	t := w.t
	t.Helper()
	want := map[string]map[string]int{
		"read": {"/read/": 200, "/write/": 403, "/shop/": 401, "/staff/": 403, "/team/": 401}, "write": {"/read/": 403, "/write/": 200, "/shop/": 401, "/staff/": 403, "/team/": 401},
		"shop": {"/read/": 401, "/write/": 401, "/shop/": 200, "/staff/": 401, "/team/": 401}, "staff": {"/read/": 200, "/write/": 403, "/shop/": 401, "/staff/": 200, "/team/": 401},
	}
	for range 4 { // what the first round found is remembered for the next
		for name, token := range tokens {
			for path, status := range want[name] {
				w.app.forget()
				if a := w.bearing(path, token); a.status != status {
					t.Errorf("the %s token at %s: %d, want %d", name, path, a.status, status)
				}
				if status != http.StatusOK {
					w.app.none(t)
					continue
				}
				user := map[bool]string{true: "mallory", false: "alice"}[name == "write"]
				if got := w.app.one(t).Header.Get("X-Forwarded-User"); got != user {
					t.Errorf("the %s token is of %q, want %q", name, got, user)
				}
			}
		}
	}
}
