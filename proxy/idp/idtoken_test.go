package idp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

var today = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// scripted makes a provider without sockets, whose clock stands still at today, and ours that speaks to it.
func scripted(t testing.TB, change ...func(*idp.Options)) (*script, *idp.Provider) {
	s := newScript(t)
	o := s.options()
	o.Now = func() time.Time { return today }
	for _, f := range change {
		f(&o)
	}
	return s, mustNew(t, o)
}

// TestIDTokenClaims tries one change of a good ID token at a time: A70 to A79 and facts 5 to 9.
func TestIDTokenClaims(t *testing.T) {
	in := func(d time.Duration) int64 { return today.Add(d).Unix() }
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	tests := []struct {
		name    string
		change  map[string]any // nil values are left out; use raw null for null
		refused string
	}{
		{"good", nil, ""},
		{"A77 exp just past, within leeway", map[string]any{"exp": in(-59 * time.Second)}, ""},
		{"A77 exp past leeway", map[string]any{"exp": in(-60 * time.Second)}, "expired"},
		{"A77 exp fraction", map[string]any{"exp": raw(fmt.Sprintf("%d.75", in(time.Minute)))}, ""},
		{"A77 exp 1e300", map[string]any{"exp": raw("1e300")}, "exp"},
		{"A77 exp 1e999", map[string]any{"exp": raw("1e999")}, "exp"},
		{"A77 exp negative", map[string]any{"exp": -1}, "exp"},
		{"A77 exp string", map[string]any{"exp": fmt.Sprint(in(time.Minute))}, "exp"},
		{"A77 exp null", map[string]any{"exp": raw("null")}, "exp"},
		{"A78 iat ahead within leeway", map[string]any{"iat": in(time.Minute)}, ""},
		{"A78 iat ahead", map[string]any{"iat": in(61 * time.Second)}, "iat"},
		{"A78 iat ten years ahead", map[string]any{"iat": in(87600 * time.Hour), "exp": in(87601 * time.Hour)}, "iat"},
		{"iat eleven minutes ago", map[string]any{"iat": in(-11 * time.Minute)}, ""},
		{"iat older", map[string]any{"iat": in(-11*time.Minute - time.Second)}, "iat"},
		{"iat string", map[string]any{"iat": fmt.Sprint(in(0))}, "iat"},
		{"A78 nbf within leeway", map[string]any{"nbf": in(time.Minute)}, ""},
		{"A78 nbf ahead", map[string]any{"nbf": in(61 * time.Second)}, "nbf"},
		{"nbf string", map[string]any{"nbf": "now"}, "nbf"},
		{"auth_time string", map[string]any{"auth_time": "now"}, "auth_time"},
		{"A79 two audiences, azp missing", map[string]any{"aud": []string{"wiki", "x"}}, "aud"},
		{"A79 two audiences, azp ours", map[string]any{"aud": []string{"wiki", "x"}, "azp": "wiki"}, "aud"},
		{"A79 own audience twice", map[string]any{"aud": []string{"wiki", "wiki"}}, ""},
		{"A79 azp another", map[string]any{"azp": "x"}, "azp"},
		{"A79 azp ours", map[string]any{"azp": "wiki"}, ""},
		{"azp null", map[string]any{"azp": raw("null")}, ""},
		{"aud empty list", map[string]any{"aud": []string{}}, "aud"},
		{"aud number", map[string]any{"aud": 7}, "aud"},
		{"aud of lists", map[string]any{"aud": []any{[]string{"wiki"}}}, "aud"},
		{"aud only in another spelling", map[string]any{"aud": "x", "AUD": "wiki"}, "aud"},
		{"iss also in another spelling", map[string]any{"iss": scriptIssuer, "isſ": "https://evil.example"}, "issued by a different provider"},
		{"iss with a slash", map[string]any{"iss": scriptIssuer + "/"}, "iss"},
		{"sub number", map[string]any{"sub": 7}, "sub"},
		{"sub empty", map[string]any{"sub": ""}, "sub"},
		{"sub of 255", map[string]any{"sub": strings.Repeat("s", 255)}, ""},
		{"sub of 256", map[string]any{"sub": strings.Repeat("s", 256)}, "sub"},
		{"sub with a line break (S51)", map[string]any{"sub": "a\r\nX-Forwarded-Groups: admins"}, "sub"},
		{"sub with NUL", map[string]any{"sub": "a\x00"}, "sub"},
		{"sub with C1", map[string]any{"sub": "a\u0085"}, "sub"},
		{"nonce number", map[string]any{"nonce": 7}, "nonce"},
		{"at_hash empty", map[string]any{"at_hash": ""}, "at_hash"},
		{"at_hash number", map[string]any{"at_hash": 7}, "ID token"},
		{"A76 logout token", map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}, "logout"},
		{"events of another kind", map[string]any{"events": []string{"party"}}, ""},
		{"A83 claim sources that are none", map[string]any{"_claim_names": map[string]any{"groups": "nowhere"}}, "ID token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t)
			b, claims := attempt(t, t.Context(), p, today)
			maps.Copy(claims, tt.change)
			g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
			if tt.refused != "" {
				wantProtocol(t, err, tt.refused)
			} else if err != nil || g.Subject != claims["sub"] {
				t.Errorf("got %+v, %v", g, err)
			}
		})
	}
}

// TestIDTokenForms is A70, A73, A74, A76 and fact 5: tokens that are not a JWS of the registered algorithm in compact form.
func TestIDTokenForms(t *testing.T) {
	s, p := scripted(t)
	other := newScript(t)
	type forge func(claims map[string]any) string
	fixed := func(token string) forge { return func(map[string]any) string { return token } }
	tests := map[string]forge{
		"empty":                 fixed(" "),
		"garbage":               fixed("a.b.c"),
		"a million dots (V-63)": fixed(strings.Repeat(".", 60<<10)),
		"2 MB":                  fixed(strings.Repeat("A", 600<<10)),
		"four parts":            func(c map[string]any) string { return sign(t, s.key, c) + ".x" },
		"JWE":                   fixed("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA"),
		"white space":           func(c map[string]any) string { return " " + sign(t, s.key, c) },
		"foreign key":           func(c map[string]any) string { return sign(t, other.key, c) },
		"not an object":         func(map[string]any) string { return sign(t, s.key, []byte(`["iss"]`)) },
		"null":                  func(map[string]any) string { return sign(t, s.key, []byte(`null`)) },
		"not JSON":              func(map[string]any) string { return sign(t, s.key, []byte(`{`)) },
		"two objects": func(c map[string]any) string {
			text, _ := json.Marshal(c)
			return sign(t, s.key, append(text, "{}"...))
		},
		"typ logout+jwt":             func(c map[string]any) string { return sign(t, s.key, c, "typ", "logout+jwt") },
		"typ application/LOGOUT+JWT": func(c map[string]any) string { return sign(t, s.key, c, "typ", "application/LOGOUT+JWT") },
		"typ at+jwt":                 func(c map[string]any) string { return sign(t, s.key, c, "typ", "at+jwt") },
		"typ number":                 func(c map[string]any) string { return sign(t, s.key, c, "typ", 7) },
		"crit":                       func(c map[string]any) string { return sign(t, s.key, c, "crit", []string{"exp"}) },
		"A73 embedded key": func(c map[string]any) string {
			signer, err := jose.NewSigner(other.key, (&jose.SignerOptions{EmbedJWK: true}).WithHeader("kid", "k1").WithHeader("jku", "https://evil.example/jwks"))
			if err != nil {
				t.Fatal(err)
			}
			text, _ := json.Marshal(c)
			jws, err := signer.Sign(text)
			if err != nil {
				t.Fatal(err)
			}
			token, err := jws.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			return token
		},
		"JSON serialisation": func(c map[string]any) string {
			jws, err := jose.ParseSignedCompact(sign(t, s.key, c), []jose.SignatureAlgorithm{jose.EdDSA})
			if err != nil {
				t.Fatal(err)
			}
			return jws.FullSerialize()
		},
	}
	for name, forge := range tests {
		t.Run(name, func(t *testing.T) {
			b, claims := attempt(t, t.Context(), p, today)
			_, err := s.complete(t, t.Context(), p, b, forge(claims), nil)
			wantProtocol(t, err)
		})
	}
	if n := s.count("/jwks"); n > 3 {
		t.Errorf("got %d fetches of keys", n)
	}
	b, claims := attempt(t, t.Context(), p, today)
	if _, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims, "typ", "JWT"), nil); err != nil {
		t.Errorf("the honest token after them: %v", err)
	}
}

func TestIDTokenMissing(t *testing.T) {
	s, p := scripted(t)
	b, _ := attempt(t, t.Context(), p, today)
	_, err := s.complete(t, t.Context(), p, b, "", nil)
	wantProtocol(t, err, "id_token", "openid")
}

// TestIdentity holds the claims' defaults, A81 and A83.
func TestIdentity(t *testing.T) {
	many := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("%04x", i))
		}
		return list
	}
	tests := []struct {
		name   string
		claims string
		assume bool
		want   session.Identity
		refuse string
	}{
		{name: "nothing", claims: `{}`},
		{name: "email verified", claims: `{"email":"a@b.c","email_verified":true}`, want: session.Identity{Email: "a@b.c"}},
		{name: "A81 verified as string", claims: `{"email":"a@b.c","email_verified":"true"}`, want: session.Identity{Email: "a@b.c"}},
		{name: "A81 false", claims: `{"email":"a@b.c","email_verified":false}`},
		{name: "A81 false as string", claims: `{"email":"a@b.c","email_verified":"false"}`},
		{name: "A81 absent", claims: `{"email":"a@b.c"}`},
		{name: "A81 null", claims: `{"email":"a@b.c","email_verified":null}`},
		{name: "A81 1", claims: `{"email":"a@b.c","email_verified":1}`},
		{name: "assumed", claims: `{"email":"a@b.c"}`, assume: true, want: session.Identity{Email: "a@b.c"}},
		{name: "assumed, yet denied", claims: `{"email":"a@b.c","email_verified":false}`, assume: true},
		{name: "A82 two @", claims: `{"email":"a@evil.com@corp.com","email_verified":true}`},
		{name: "email with line break", claims: `{"email":"a@b.c\r\nX: y","email_verified":true}`},
		{name: "email a list", claims: `{"email":["a@b.c"],"email_verified":true}`},
		{name: "names", claims: `{"name":"Älice 〱","preferred_username":"al"}`, want: session.Identity{Name: "Älice 〱", PreferredUsername: "al"}},
		{name: "S51 name with line break", claims: `{"name":"A\nB","preferred_username":"a\u0000"}`},
		{name: "names of other types", claims: `{"name":{"x":1},"preferred_username":true}`},
		{name: "a number is a name", claims: `{"preferred_username":7}`, want: session.Identity{PreferredUsername: "7"}},
		{name: "name too long", claims: `{"name":"` + strings.Repeat("n", 2000) + `"}`},
		{name: "A83 groups string", claims: `{"groups":"staff"}`, want: session.Identity{Groups: []string{"staff"}}},
		{name: "groups list", claims: `{"groups":["a,admin","b",17,"é"]}`, want: session.Identity{Groups: []string{"a,admin", "b", "17", "é"}}},
		{name: "A83 groups nested", claims: `{"groups":["a",["admins"],{"x":"admins"},null,true,"","x\ny"]}`, want: session.Identity{Groups: []string{"a"}}},
		{name: "groups object", claims: `{"groups":{"admins":true}}`},
		{name: "A83 overage", claims: `{"_claim_names":{"groups":"src"},"_claim_sources":{"src":{"endpoint":"https://169.254.169.254/"}}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, func(o *idp.Options) { o.AssumeEmailVerified = tt.assume })
			b, claims := attempt(t, t.Context(), p, today)
			var more map[string]any
			if err := json.Unmarshal([]byte(tt.claims), &more); err != nil {
				t.Fatal(err)
			}
			maps.Copy(claims, more)
			g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.User = "alice"
			if diff := cmp.Diff(tt.want, g.Identity); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("A83 groups in userinfo", func(t *testing.T) {
		s, p := scripted(t, withUserinfo)
		for _, tt := range []struct{ n, size int }{{10_000, 0}, {10_001, 0}, {300, 1000}} {
			groups := many(tt.n)
			for i := range groups {
				groups[i] += strings.Repeat("g", tt.size)
			}
			s.answer("/userinfo", 200, map[string]any{"sub": "alice", "groups": groups})
			b, claims := attempt(t, t.Context(), p, today)
			g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
			if tt.n != 10_000 {
				wantProtocol(t, err, "groups")
			} else if err != nil || !slices.Equal(g.Identity.Groups, groups) {
				t.Errorf("got %d groups, %v", len(g.Identity.Groups), err)
			}
		}
	})
}

func TestGrantMembers(t *testing.T) {
	s, p := scripted(t)
	b, claims := attempt(t, t.Context(), p, today)
	maps.Copy(claims, map[string]any{"sid": "s-1", "acr": "gold", "auth_time": today.Add(-time.Hour).Unix()})
	token := sign(t, s.key, claims)
	got, err := s.complete(t, t.Context(), p, b, token, map[string]any{"refresh_token": "r", "expires_in": 60})
	if err != nil {
		t.Fatal(err)
	}
	want := session.Grant{
		Issuer: scriptIssuer, Subject: "alice", SID: "s-1", ACR: "gold", AuthTime: today.Add(-time.Hour), Issued: today,
		Identity: session.Identity{User: "alice"},
		Tokens: session.Tokens{
			Access: "access", Refresh: "r", ID: token, Obtained: today, Expiry: today.Add(time.Minute), Scope: "openid profile email",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("grant (-want +got):\n%s", diff)
	}
}

// TestUserinfoMerge holds what userinfo may change, and what it may not.
func TestUserinfoMerge(t *testing.T) {
	tests := []struct {
		name, userinfo string
		want           session.Identity
	}{
		{"over", `{"name":"B","groups":["x"]}`, session.Identity{Name: "B", Email: "a@b.c", Groups: []string{"x"}}},
		{"null says nothing", `{"name":null,"groups":null}`, session.Identity{Name: "A", Email: "a@b.c", Groups: []string{"g"}}},
		{"another address is not verified by the token's word", `{"email":"root@corp"}`, session.Identity{Name: "A", Groups: []string{"g"}}},
		{"the same address is", `{"email":"a@b.c"}`, session.Identity{Name: "A", Email: "a@b.c", Groups: []string{"g"}}},
		{"addresses that are lists", `{"email":["a@b.c"]}`, session.Identity{Name: "A", Groups: []string{"g"}}},
		{"token claims stay", `{"sid":"x","iss":"x","auth_time":1,"exp":1}`, session.Identity{Name: "A", Email: "a@b.c", Groups: []string{"g"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, withUserinfo)
			s.answer("/userinfo", 200, `{"sub":"alice",`+tt.userinfo[1:])
			b, claims := attempt(t, t.Context(), p, today)
			maps.Copy(claims, map[string]any{"name": "A", "email": "a@b.c", "email_verified": true, "groups": []string{"g"}, "sid": "s"})
			g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.want.User = "alice"
			if diff := cmp.Diff(tt.want, g.Identity); diff != "" || g.SID != "s" || g.Issuer != scriptIssuer {
				t.Errorf("sid %q, issuer %q, identity (-want +got):\n%s", g.SID, g.Issuer, diff)
			}
		})
	}
}

// TestUserinfoFailures tells what is wrong from what is down.
func TestUserinfoFailures(t *testing.T) {
	s, p := scripted(t, withUserinfo)
	signIn := func(t *testing.T) error {
		b, claims := attempt(t, t.Context(), p, today)
		_, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
		return err
	}
	wrong := map[string]*http.Response{
		"401":      reply(401, `{"error":"invalid_token"}`),
		"403":      reply(403, ""),
		"JWT":      reply(200, "a.b.c", "Content-Type", "application/jwt; charset=utf-8"),
		"HTML":     reply(200, "<html>", "Content-Type", "text/html"),
		"list":     reply(200, "[]"),
		"too long": reply(200, `{"sub":"alice","x":"`+strings.Repeat("x", 1<<20)+`"}`),
	}
	for name, answer := range wrong {
		t.Run(name, func(t *testing.T) {
			s.set("/userinfo", func(*http.Request) (*http.Response, error) { return answer, nil })
			wantProtocol(t, signIn(t), "userinfo")
		})
	}
	down := map[string]*http.Response{
		"500": reply(500, ""), "429": reply(429, ""), "404": reply(404, ""),
		"redirect": reply(307, "", "Location", "https://evil.example/?access_token=x"),
	}
	for name, answer := range down {
		t.Run(name, func(t *testing.T) {
			s.set("/userinfo", func(*http.Request) (*http.Response, error) { return answer, nil })
			if e := wantUnavailable(t, signIn(t)); strings.Contains(e.Error(), "access_token") {
				t.Errorf("%v shows the address's query", e)
			}
		})
	}
	if n := s.count("/"); n != 0 {
		t.Error("the redirect was followed")
	}
}

// TestKeysFloodOfUnknownKids is A72 and A163: bad tokens cause one fetch for each stretch of time, and known keys still verify.
func TestKeysFloodOfUnknownKids(t *testing.T) {
	now := today
	var mu sync.Mutex
	s, p := scripted(t, func(o *idp.Options) {
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	advance := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	signIn := func(t *testing.T, key jose.SigningKey) error {
		b, claims := attempt(t, t.Context(), p, today)
		_, err := s.complete(t, t.Context(), p, b, sign(t, key, claims), nil)
		return err
	}
	if err := signIn(t, s.key); err != nil {
		t.Fatal(err)
	}
	foreign := newScript(t)
	for i := range 300 {
		key := foreign.key
		if i%3 > 0 { // a known kid with a bad signature, too
			key = foreign.newKey(t, fmt.Sprintf("../../%d\x00", i))
		}
		if err := signIn(t, key); err == nil {
			t.Fatal("a foreign token was accepted")
		}
	}
	if n := s.count("/jwks"); n != 2 {
		t.Errorf("got %d fetches of keys for 300 bad tokens, want 2", n)
	}
	if err := signIn(t, s.key); err != nil {
		t.Errorf("a known key meanwhile: %v", err)
	}
	next := s.newKey(t, "k2")
	if down := wantUnavailable(t, signIn(t, next)); down.RetryAfter <= 0 || down.RetryAfter > 10*time.Second {
		t.Errorf("a new key meanwhile: retry after %v", down.RetryAfter)
	}
	advance(10 * time.Second)
	if err := signIn(t, next); err != nil {
		t.Errorf("a new key afterwards: %v", err)
	}
}

// TestKeysOutageIsNotABadToken is A161 and L4: nobody is told that a token is bad because keys could not be had.
func TestKeysOutageIsNotABadToken(t *testing.T) {
	now := today
	s, p := scripted(t, func(o *idp.Options) { o.Now = func() time.Time { return now } })
	signIn := func(key jose.SigningKey) error {
		b, claims := attempt(t, t.Context(), p, now)
		_, err := s.complete(t, t.Context(), p, b, sign(t, key, claims), nil)
		return err
	}
	good := s.on["/jwks"]
	broken := map[string]func(*http.Request) (*http.Response, error){
		"down":    func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") },
		"503":     func(*http.Request) (*http.Response, error) { return reply(503, ""), nil },
		"garbage": func(*http.Request) (*http.Response, error) { return reply(200, "<html>"), nil },
		"huge":    func(*http.Request) (*http.Response, error) { return reply(200, make([]byte, 1<<20+1)), nil },
		"too many": func(*http.Request) (*http.Response, error) {
			return reply(200, `{"keys":[`+strings.Repeat("{},", 100)+`{}]}`), nil
		},
		"redirect": func(*http.Request) (*http.Response, error) {
			return reply(302, "", "Location", "https://evil.example/"), nil
		},
	}
	for name, f := range broken {
		s.set("/jwks", f)
		now = now.Add(3 * time.Second)
		before := s.count("/jwks")
		wantUnavailable(t, signIn(s.key))
		wantUnavailable(t, signIn(s.key))
		if n := s.count("/jwks") - before; n != 1 {
			t.Errorf("%s: got %d fetches at once, want 1", name, n)
		}
	}
	s.set("/jwks", good)
	now = now.Add(3 * time.Second)
	if err := signIn(s.key); err != nil {
		t.Fatalf("healed: %v", err)
	}
	s.set("/jwks", broken["down"])
	wantUnavailable(t, signIn(s.newKey(t, "k2")))
	if err := signIn(s.key); err != nil {
		t.Errorf("the known key does not need the fetch: %v", err)
	}
}

// TestKeysThatMustNotVerify is fact 5: keys for encryption or for other algorithms, and weak ones.
func TestKeysThatMustNotVerify(t *testing.T) {
	changes := map[string]func(map[string]any){
		"use enc":     func(k map[string]any) { k["use"] = "enc" },
		"key_ops":     func(k map[string]any) { k["key_ops"] = []string{"encrypt"} },
		"alg":         func(k map[string]any) { k["alg"] = "RS256" },
		"private":     func(k map[string]any) { k["d"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" },
		"another kid": func(k map[string]any) { k["kid"] = "k9" },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			s, p := scripted(t)
			text, err := json.Marshal(s.jwks.Keys[0])
			if err != nil {
				t.Fatal(err)
			}
			var key map[string]any
			if err := json.Unmarshal(text, &key); err != nil {
				t.Fatal(err)
			}
			change(key)
			s.answer("/jwks", 200, map[string]any{"keys": []any{key, map[string]any{"kty": "OKP", "crv": "Ed448", "x": "AA"}, map[string]any{"kty": "oct", "k": "AAAA"}}})
			b, claims := attempt(t, t.Context(), p, today)
			_, err = s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil)
			wantProtocol(t, err, "not signed by a key")
		})
	}
}

// TestKeysKidReused is A164: a kid whose key changed.
func TestKeysKidReused(t *testing.T) {
	s, p := scripted(t)
	for range 2 {
		b, claims := attempt(t, t.Context(), p, today)
		if _, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil); err != nil {
			t.Fatal(err)
		}
		s.jwks.Keys = nil
		s.key = s.newKey(t, "k1")
	}
}

// TestKeysOneFetchForAll: whoever needs the new key at the same time shares one fetch.
func TestKeysOneFetchForAll(t *testing.T) {
	s, p := scripted(t)
	const people = 20
	good := s.on["/jwks"]
	release := make(chan struct{})
	s.set("/jwks", func(r *http.Request) (*http.Response, error) { <-release; return good(r) })
	s.set("/token", nil)
	var wg sync.WaitGroup
	tokens := make(chan struct{}, people)
	type one struct {
		b     idp.Begin
		token string
	}
	var all []one
	byCode := map[string]string{}
	for i := range people {
		b, claims := attempt(t, t.Context(), p, today)
		o := one{b, sign(t, s.key, claims)}
		all = append(all, o)
		byCode[fmt.Sprint(i)] = o.token
	}
	s.set("/token", func(r *http.Request) (*http.Response, error) {
		defer func() { tokens <- struct{}{} }()
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		return reply(200, map[string]any{"access_token": "a", "id_token": byCode[r.PostForm.Get("code")]}), nil
	})
	for i, o := range all {
		wg.Go(func() {
			_, err := p.Finish(t.Context(), idp.Finish{Params: map[string][]string{"code": {fmt.Sprint(i)}}, Secret: o.b.Secret, RedirectURI: callback})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for range people {
		<-tokens
	}
	close(release)
	wg.Wait()
	if n := s.count("/jwks"); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

// TestKeysWaiterLeaves: a person who leaves does not take the fetch along.
func TestKeysWaiterLeaves(t *testing.T) {
	s, p := scripted(t)
	good := s.on["/jwks"]
	begun, release := make(chan struct{}), make(chan struct{})
	s.set("/jwks", func(r *http.Request) (*http.Response, error) { close(begun); <-release; return good(r) })
	b, claims := attempt(t, t.Context(), p, today)
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-begun; leave() }()
	_, err := s.complete(t, ctx, p, b, sign(t, s.key, claims), nil)
	if down := wantUnavailable(t, err); !errors.Is(down, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	b, claims = attempt(t, t.Context(), p, today)
	if _, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil); err != nil {
		t.Error(err)
	}
	if n := s.count("/jwks"); n != 1 {
		t.Errorf("got %d fetches, want 1", n)
	}
}

// TestKeysCrowdWithBadKids is A163 with everyone at once: no one slips a fetch of its own in after another's has just ended.
func TestKeysCrowdWithBadKids(t *testing.T) {
	s, p := scripted(t)
	foreign := newScript(t)
	byCode, attempts := map[string]string{}, []idp.Begin{}
	for i := range 200 {
		b, claims := attempt(t, t.Context(), p, today)
		byCode[fmt.Sprint(i)] = sign(t, foreign.newKey(t, fmt.Sprint("bad", i)), claims)
		attempts = append(attempts, b)
	}
	s.set("/token", func(r *http.Request) (*http.Response, error) {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		return reply(200, map[string]any{"access_token": "a", "id_token": byCode[r.PostForm.Get("code")]}), nil
	})
	var wg sync.WaitGroup
	for i, b := range attempts {
		wg.Go(func() {
			_, err := p.Finish(t.Context(), idp.Finish{Params: map[string][]string{"code": {fmt.Sprint(i)}}, Secret: b.Secret, RedirectURI: callback})
			if err == nil {
				t.Error("a foreign token was accepted")
			}
		})
	}
	wg.Wait()
	// The first keys, and once more for tokens that may be newer than these.
	if n := s.count("/jwks"); n > 2 {
		t.Errorf("got %d fetches, want 2 at most", n)
	}
}

// TestKeysOlderThanTheToken: a fetch that was under way before the provider changed its key says nothing about a token of the new one.
func TestKeysOlderThanTheToken(t *testing.T) {
	s, p := scripted(t)
	old := s.key
	good := s.on["/jwks"]
	begun, release := make(chan struct{}), make(chan struct{})
	stale := reply(200, s.jwks)
	s.set("/jwks", func(*http.Request) (*http.Response, error) {
		s.set("/jwks", good)
		close(begun)
		<-release
		return stale, nil
	})
	b1, claims1 := attempt(t, t.Context(), p, today)
	b2, claims2 := attempt(t, t.Context(), p, today)
	tokens := map[string]string{"1": sign(t, old, claims1), "2": sign(t, s.newKey(t, "k2"), claims2)}
	second := make(chan struct{})
	s.set("/token", func(r *http.Request) (*http.Response, error) {
		if err := r.ParseForm(); err != nil {
			return nil, err
		}
		code := r.PostForm.Get("code")
		if code == "2" {
			defer close(second)
		}
		return reply(200, map[string]any{"access_token": "a", "id_token": tokens[code]}), nil
	})
	finish := func(code string, b idp.Begin) {
		_, err := p.Finish(t.Context(), idp.Finish{Params: map[string][]string{"code": {code}}, Secret: b.Secret, RedirectURI: callback})
		if err != nil {
			t.Errorf("code %s: %v", code, err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { finish("1", b1) })
	<-begun
	wg.Go(func() { finish("2", b2) })
	<-second
	close(release)
	wg.Wait()
	if n := s.count("/jwks"); n != 2 {
		t.Errorf("got %d fetches, want 2", n)
	}
}
