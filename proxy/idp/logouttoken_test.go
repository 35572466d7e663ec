package idp_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
)

// logoutClaims are those of a good logout token.
func logoutClaims() map[string]any {
	return map[string]any{
		"iss": scriptIssuer, "aud": "wiki", "sub": "alice", "sid": "s-1", "jti": "j-1",
		"iat": today.Unix(), "exp": today.Add(2 * time.Minute).Unix(), "events": map[string]any{logoutEvent: map[string]any{}},
	}
}

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// TestLogoutTokenClaims tries one change of a good logout token at a time: S38, L12, A84 and the -rp-backchannel tests of section 1. What the
// library refuses, too, is refused in our words: our own check is not to be the one that is missing.
func TestLogoutTokenClaims(t *testing.T) {
	in := func(d time.Duration) int64 { return today.Add(d).Unix() }
	null := json.RawMessage("null")
	type object = map[string]any
	absent := "(absent)"
	tests := []struct {
		name    string
		change  object
		refused string
	}{
		{"good", nil, ""},
		{"with a claim to ignore", object{"ignored_claim": object{"x": 1}}, ""},
		{"no-event", object{"events": absent}, "events"},
		{"wrong-event", object{"events": object{"http://schemas.openid.net/event/foobar": object{}}}, "events"},
		{"another event beside it", object{"events": object{logoutEvent: object{}, "http://schemas.openid.net/event/foobar": object{}}}, ""},
		{"event is null", object{"events": object{logoutEvent: null}}, "events"},
		{"event is a string", object{"events": object{logoutEvent: "x"}}, "events"},
		{"event is a list", object{"events": object{logoutEvent: []any{}}}, "events"},
		{"event with members", object{"events": object{logoutEvent: object{"x": 1}}}, ""},
		{"events is a list", object{"events": []any{logoutEvent}}, "events"},
		{"events is a string", object{"events": logoutEvent}, "events"},
		{"events in another spelling", object{"events": absent, "Events": object{logoutEvent: object{}}}, "events"},
		{"with-nonce", object{"nonce": "n"}, "as ID tokens do"},
		{"nonce empty", object{"nonce": ""}, "as ID tokens do"},
		{"nonce null", object{"nonce": null}, "as ID tokens do"},
		{"nonce in another spelling", object{"Nonce": "n"}, "nonce"},
		{"wrong-aud", object{"aud": "wikiINVALID"}, "aud"},
		{"no aud", object{"aud": absent}, "aud"},
		{"aud list", object{"aud": []string{"wiki"}}, ""},
		{"aud with a stranger", object{"aud": []string{"wiki", "x"}}, "aud"},
		{"aud with a trusted one", object{"aud": []string{"wiki", "friend"}}, ""},
		{"aud of a trusted one alone", object{"aud": "friend"}, "aud"},
		{"aud of objects", object{"aud": []any{object{"wiki": 1}}}, "aud"},
		{"wrong-iss", object{"iss": scriptIssuer + "INVALID"}, "iss is missing or another"},
		{"iss with a slash", object{"iss": scriptIssuer + "/"}, "iss is missing or another"},
		{"no iss", object{"iss": absent}, "iss is missing or another"},
		{"iss also in another spelling", object{"isſ": "https://evil.example"}, "issued by a different provider"},
		{"expired within leeway", object{"exp": in(-59 * time.Second)}, ""},
		{"expired", object{"exp": in(-60 * time.Second)}, "expired"},
		{"no exp", object{"exp": absent}, "exp"},
		{"exp null", object{"exp": null}, "exp"},
		{"exp string", object{"exp": fmt.Sprint(in(time.Minute))}, "exp"},
		{"no iat (V-24)", object{"iat": absent}, "iat"},
		{"iat null", object{"iat": null}, "iat"},
		{"iat ahead within leeway", object{"iat": in(time.Minute)}, ""},
		{"future iat", object{"iat": in(61 * time.Second)}, "iat"},
		{"iat of yesterday", object{"iat": in(-24*time.Hour - time.Minute)}, ""},
		{"older iat", object{"iat": in(-24*time.Hour - 61*time.Second)}, "iat"},
		{"nbf ahead", object{"nbf": in(2 * time.Minute)}, "nbf"},
		{"no jti (V-24)", object{"jti": absent}, "jti is missing"},
		{"jti null", object{"jti": null}, "jti is missing"},
		{"jti empty", object{"jti": ""}, "jti"},
		{"jti number", object{"jti": 7}, "jti"},
		{"jti of 1 KiB", object{"jti": strings.Repeat("j", 1<<10)}, ""},
		{"jti longer", object{"jti": strings.Repeat("j", 1<<10+1)}, "jti"},
		{"sub twice", object{"ſub": "other"}, "twice"},
		{"sub alone", object{"sid": absent}, ""},
		{"sid alone", object{"sub": absent}, ""},
		{"neither sub nor sid", object{"sub": absent, "sid": absent}, "neither"},
		{"both null", object{"sub": null, "sid": null}, "neither"},
		{"sid number", object{"sid": 7}, "sid"},
		{"sid empty beside sub", object{"sid": ""}, "sid"},
		{"sub list", object{"sub": []string{"alice"}}, "sub"},
		{"sub of 256", object{"sub": strings.Repeat("s", 256)}, "sub"},
		{"sid with a line break", object{"sid": "a\n"}, "sid"},
		{"sid twice", object{"ſid": "other"}, "twice"},
		{"azp another", object{"azp": "x"}, "azp"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, func(o *idp.Options) { o.ExtraAudiences = []string{"friend"} })
			claims := logoutClaims()
			maps.Copy(claims, tt.change)
			maps.DeleteFunc(claims, func(_ string, v any) bool { return v == absent })
			_, err := p.VerifyLogout(t.Context(), sign(t, s.key, claims, "typ", "logout+jwt"))
			if tt.refused != "" {
				wantProtocol(t, err, tt.refused)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLogoutTokenSaysWhom(t *testing.T) {
	s, p := scripted(t)
	claims := logoutClaims()
	claims["iat"] = json.RawMessage(fmt.Sprintf("%d.5", today.Unix()-1))
	got, err := p.VerifyLogout(t.Context(), sign(t, s.key, claims))
	if err != nil {
		t.Fatal(err)
	}
	want := idp.Logout{SID: "s-1", Subject: "alice", ID: "j-1", Issued: today.Add(-time.Second / 2), Expires: today.Add(3 * time.Minute)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	claims["exp"] = today.Add(87600 * time.Hour).Unix() // nobody remembers a jti for ten years
	if got, err := p.VerifyLogout(t.Context(), sign(t, s.key, claims)); err != nil || got.Expires.Sub(got.Issued) != 24*time.Hour+time.Minute {
		t.Errorf("with an exp in ten years: %v, %v", got, err)
	}
}

// TestA70A74LogoutTokenForms is S40, A70, A74, A84, V-64: tokens that are not a JWS of the registered algorithm in compact form, and tokens
// that the provider signed for something else.
func TestA70A74LogoutTokenForms(t *testing.T) {
	s, p := scripted(t)
	other := newScript(t)
	type forge func(c map[string]any) string
	typ := func(v any) forge { return func(c map[string]any) string { return sign(t, s.key, c, "typ", v) } }
	good := map[string]forge{
		"no typ":                     func(c map[string]any) string { return sign(t, s.key, c) },
		"typ logout+jwt":             typ("logout+jwt"),
		"typ application/LOGOUT+JWT": typ("application/LOGOUT+JWT"),
		"typ JWT":                    typ("JWT"),
	}
	bad := map[string]forge{
		"empty":               func(map[string]any) string { return "" },
		"garbage":             func(map[string]any) string { return "a.b.c" },
		"many dots":           func(map[string]any) string { return strings.Repeat(".", 16<<10) },
		"larger than 16 KiB":  func(c map[string]any) string { c["pad"] = strings.Repeat("x", 13<<10); return sign(t, s.key, c) },
		"not an object":       func(map[string]any) string { return sign(t, s.key, []byte(`[]`)) },
		"foreign key":         func(c map[string]any) string { return sign(t, other.key, c) },
		"typ at+jwt":          typ("at+jwt"),
		"typ secevent+jwt":    typ("secevent+jwt"),
		"typ empty":           typ(""),
		"typ number":          typ(7),
		"crit":                func(c map[string]any) string { return sign(t, s.key, c, "crit", []string{"exp"}) },
		"ID token":            func(c map[string]any) string { delete(c, "events"); c["nonce"] = "n"; return sign(t, s.key, c) },
		"ID token with event": func(c map[string]any) string { c["nonce"] = "n"; return sign(t, s.key, c) },
		"JWE": func(map[string]any) string {
			return "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA"
		},
		"JWE that is a bomb": func(map[string]any) string {
			return "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIiwiemlwIjoiREVGIn0..AAAAAAAAAAAAAAAA." + strings.Repeat("A", 8<<10) + ".AAAAAAAAAAAAAAAAAAAAAA"
		},
		"JWE without a key (V-64)": func(map[string]any) string { return "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA" },
		"JSON serialisation": func(c map[string]any) string {
			part := strings.Split(sign(t, s.key, c), ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, part[0], part[1], part[2])
		},
	}
	for _, alg := range []string{"none", "None", "nOnE", ""} {
		bad["alg "+alg] = func(c map[string]any) string {
			part := strings.Split(sign(t, s.key, c), ".")
			return base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf(`{"alg":%q}`, alg))) + "." + part[1] + "."
		}
	}
	for name, f := range good {
		if _, err := p.VerifyLogout(t.Context(), f(logoutClaims())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range bad {
		t.Run(name, func(t *testing.T) {
			_, err := p.VerifyLogout(t.Context(), f(logoutClaims()))
			wantProtocol(t, err, "logout token")
		})
	}
}

// TestLogoutTokenWrongAlg is -wrong-alg: validly signed, by a published key, with another algorithm than the registered one (L12).
func TestLogoutTokenWrongAlg(t *testing.T) {
	s := newStandWith(t, idptest.Options{Alg: "ES256"})
	s.op.AddKey("EdDSA")
	if _, err := s.VerifyLogout(t.Context(), s.op.LogoutToken("wiki", "alice", "", nil)); err != nil {
		t.Fatal(err)
	}
	for _, alg := range []string{"EdDSA", "HS256", "none"} {
		s.op.SetSigning(idptest.Signing{Alg: alg, HMACKey: []byte("s3cr:t/+%")})
		_, err := s.VerifyLogout(t.Context(), s.op.LogoutToken("wiki", "alice", "", nil))
		wantProtocol(t, err, "logout token is not signed with ES256")
	}
	s.op.SetSigning(idptest.Signing{Foreign: true})
	_, err := s.VerifyLogout(t.Context(), s.op.LogoutToken("wiki", "alice", "", nil))
	wantProtocol(t, err, "not signed by a key")
}

// TestA87LogoutTokenFloodFetchesNoKeys is A87 and A72: a flood of forged logout tokens makes two calls to the provider.
func TestA87LogoutTokenFloodFetchesNoKeys(t *testing.T) {
	s, p := scripted(t)
	if _, err := p.VerifyLogout(t.Context(), sign(t, s.key, logoutClaims())); err != nil {
		t.Fatal(err)
	}
	foreign := newScript(t)
	var wg sync.WaitGroup
	for i := range 10 {
		keys := []jose.SigningKey{foreign.key, foreign.newKey(t, fmt.Sprintf("%d", i))}
		wg.Go(func() {
			for j := range 100 {
				if _, err := p.VerifyLogout(t.Context(), sign(t, keys[j%2], logoutClaims())); err == nil {
					t.Error("a forged token was accepted")
				}
			}
		})
	}
	wg.Wait()
	if n := s.count("/jwks"); n != 2 {
		t.Errorf("got %d fetches of keys for 1,000 forged tokens, want 2", n)
	}
	if _, err := p.VerifyLogout(t.Context(), sign(t, s.key, logoutClaims())); err != nil {
		t.Errorf("a good one meanwhile: %v", err)
	}
}

// Whoever is not discovered, or has no issuer, verifies nothing and panics at nothing.
func TestLogoutTokenWithoutProvider(t *testing.T) {
	s, p := scripted(t)
	s.answer("/.well-known/openid-configuration", 503, "down")
	_, err := p.VerifyLogout(t.Context(), sign(t, s.key, logoutClaims()))
	wantUnavailable(t, err)

	plain := mustNew(t, idp.Options{Name: "x", ClientID: "wiki", OAuth2: &idp.Endpoints{Authorize: scriptIssuer + "/authorize", Token: scriptIssuer + "/token"}, Transport: s})
	claims := logoutClaims()
	claims["iss"] = plain.Issuer()
	token := sign(t, s.key, claims)
	if plain.Addressed(token) || plain.HasIssuer(plain.Issuer()) {
		t.Error("a provider without an issuer feels addressed")
	}
	_, err = plain.VerifyLogout(t.Context(), token)
	wantProtocol(t, err, "not OpenID Connect")
}

func TestLogoutTokenFindsItsAddressee(t *testing.T) {
	s, p := scripted(t)
	other := newScript(t)
	for name, tt := range map[string]struct {
		change map[string]any
		want   bool
	}{
		"ours":              {nil, true},
		"list":              {map[string]any{"aud": []any{7, "wiki"}}, true},
		"another issuer":    {map[string]any{"iss": "https://other.example"}, false},
		"another client":    {map[string]any{"aud": "shop"}, false},
		"aud of objects":    {map[string]any{"aud": []any{map[string]any{}}}, false},
		"issuer in a list":  {map[string]any{"iss": []any{scriptIssuer}}, false},
		"issuer is a claim": {map[string]any{"iss": map[string]any{}}, false},
	} {
		claims := logoutClaims()
		maps.Copy(claims, tt.change)
		if got := p.Addressed(sign(t, other.key, claims)); got != tt.want { // by whomever it is signed
			t.Errorf("%s: got %v", name, got)
		}
	}
	for _, token := range []string{"", ".", "a.b.c", strings.Repeat("A", 20<<10), sign(t, s.key, []byte(`[]`)), sign(t, s.key, []byte(`null`))} {
		if p.Addressed(token) {
			t.Errorf("%.50q addresses us", token)
		}
	}
}

// The library takes Google's issuer without its scheme, too (L5): what it takes is not what this provider is called.
func TestLogoutTokenIssuerIsComparedExactly(t *testing.T) {
	const google = "https://accounts.google.com"
	s, p := scripted(t, func(o *idp.Options) { o.Issuer = google })
	metadata := scriptMetadata()
	metadata["issuer"] = google
	s.answer("/.well-known/openid-configuration", 200, metadata)
	claims := logoutClaims()
	claims["iss"] = google
	if _, err := p.VerifyLogout(t.Context(), sign(t, s.key, claims)); err != nil {
		t.Error(err)
	}
	claims["iss"] = "accounts.google.com"
	_, err := p.VerifyLogout(t.Context(), sign(t, s.key, claims))
	wantProtocol(t, err, "iss")
}

// A token that no provider verifies for its size is of nobody: it is not even read.
func TestLongLogoutTokenIsOfNobody(t *testing.T) {
	s, p := scripted(t)
	claims := logoutClaims()
	claims["pad"] = strings.Repeat("x", 16<<10)
	if p.Addressed(sign(t, s.key, claims)) {
		t.Error("it was read")
	}
}

// FuzzLogoutTokenAccepted holds what every accepted payload has in common, whatever a provider signs.
func FuzzLogoutTokenAccepted(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"nonce":null}`, `{"events":{}}`, `{"events":null}`, `{"sub":null}`, `{"sub":null,"sid":""}`, `{"jti":["x"]}`, `{"aud":["wiki",{}]}`,
		`{"exp":1e300}`, `{"iat":-1}`, `{"Nonce":"x"}`, `{"SID":"other"}`, `{"iss":"https://evil.example"}`, `{"sid":"a\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, more []byte) {
		s, p := scripted(t)
		claims := logoutClaims()
		payload := append([]byte(nil), more...) // as it is, or over a good one
		var over map[string]any
		if json.Unmarshal(more, &over) == nil && over != nil {
			maps.Copy(claims, over)
			payload, _ = json.Marshal(claims)
		}
		l, err := p.VerifyLogout(t.Context(), sign(t, s.key, payload))
		if err != nil {
			wantProtocol(t, err)
			return
		}
		var c map[string]any
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatal(err)
		}
		events, _ := c["events"].(map[string]any)
		_, event := events[logoutEvent].(map[string]any)
		_, nonce := c["nonce"]
		if c["iss"] != scriptIssuer || !event || nonce || l.ID == "" || l.SID+l.Subject == "" || l.Issued.After(today.Add(time.Minute)) || l.Expires.Before(today) {
			t.Errorf("accepted %s as %+v", payload, l)
		}
	})
}
