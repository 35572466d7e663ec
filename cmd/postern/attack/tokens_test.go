//go:build attack

package attack_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern/proxy/idp/idptest"
)

// claims change the claims of ID tokens, header their headers.
type (
	claims = map[string]any
	header = map[string]any
)

// set sets one claim; nil takes it away.
func set(name string, value any) func(header, claims) {
	return func(_ header, c claims) {
		if delete(c, name); value != nil {
			c[name] = value
		}
	}
}

// append1 is how OpenID's suite makes a claim wrong.
func append1(name string) func(header, claims) {
	return func(_ header, c claims) { c[name] = fmt.Sprint(c[name], "1") }
}

// forge makes every further ID token one that make makes of the regular one's claims.
func (w *world) forge(make func(c claims) string) {
	w.provider.MutateTokenAnswer(func(answer map[string]any) {
		if token, ok := answer["id_token"].(string); ok {
			answer["id_token"] = make(payload(w.t, token))
		}
	})
}

// payload is what a JWS says.
func payload(t testing.TB, token string) (c claims) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		t.Error(err)
	}
	return c
}

// jws puts a token together whose signature sign makes.
func jws(h header, c claims, sign func(signed []byte) []byte) string {
	part := func(v any) string {
		text, _ := json.Marshal(v) // of strings and numbers
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(h) + "." + part(c)
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(signed)))
}

// byHMAC signs with HS256.
func byHMAC(key []byte) func([]byte) []byte {
	return func(signed []byte) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

// byRSA signs with RS256.
func byRSA(t testing.TB, key *rsa.PrivateKey) func([]byte) []byte {
	return func(signed []byte) []byte {
		digest := sha256.Sum256(signed)
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
		if err != nil {
			t.Error(err)
		}
		return sig
	}
}

func newKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// tokenRefused signs in and checks that the answer of the token endpoint is believed in nothing: no session, no key in Redis, nothing at the
// application, and no use of the access token.
func (w *world) tokenRefused() {
	w.t.Helper()
	b := w.browser()
	callback := b.callback("/")
	userinfo := w.calls(idptest.Userinfo)
	p := b.navigate(callback.String())
	b.refused(p, http.StatusBadGateway, http.StatusServiceUnavailable)
	if userinfo() != 0 {
		w.t.Error("the access token was used")
	}
	w.log.reasons(w.t, "sign_in_failed")
}

// tokenAccepted signs in and out again.
func (w *world) tokenAccepted() {
	w.t.Helper()
	b := w.browser()
	userinfo := w.calls(idptest.Userinfo)
	b.signIn("/")
	if got := w.app.one(w.t); strings.Join(got.folded("X-Forwarded-User"), "|") != "alice" {
		w.t.Errorf("the application gets %q", got.raw)
	}
	if userinfo() != 1 {
		w.t.Errorf("%d userinfo calls, want 1", userinfo())
	}
	w.forgetSessions()
}

// forgetSessions empties Redis, so that what is there afterwards is new.
func (w *world) forgetSessions() {
	w.t.Helper()
	if err := w.redis.Client().FlushAll(w.t.Context()).Err(); err != nil {
		w.t.Fatal(err)
	}
	w.app.forget()
}

// withUserinfo makes sign-ins end with the userinfo call, as OpenID's suite wants it.
const withUserinfo = "identity: userinfo"

// idTokens signs in once for each way to change ID tokens; all must be refused.
func idTokens(t *testing.T, changes map[string]func(header, claims)) {
	t.Helper()
	w := newWorld(t, settings{provider: withUserinfo})
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.provider.MutateIDToken(change)
			w.tokenRefused()
		})
	}
	w.provider.MutateIDToken(nil)
	w.tokenAccepted()
}

// TestConformanceIDToken goes through the tests of OpenID's suite for relying parties about the ID token and what it is signed with, by their ids.
func TestConformanceIDToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, settings{provider: withUserinfo})
	claim := func(change func(header, claims)) func(*idptest.Server) {
		return func(p *idptest.Server) { p.MutateIDToken(change) }
	}
	signing := func(how idptest.Signing) func(*idptest.Server) {
		return func(p *idptest.Server) { p.SetSigning(how) }
	}
	for _, tt := range []struct {
		id      string
		script  func(*idptest.Server)
		refused bool
	}{
		{"", func(*idptest.Server) {}, false},
		// Those with new keys come first: after a token that no key fitted, keys are not fetched again for some seconds.
		{"-signing-key-rotation", func(p *idptest.Server) { p.RotateKeys(false) }, false},
		{"-kid-absent-multiple-jwks", func(p *idptest.Server) {
			p.AddKey("RS256")
			p.AddKey("ES256")
			p.MutateIDToken(func(h header, _ claims) { delete(h, "kid") })
		}, false},
		{"-invalid-iss", claim(append1("iss")), true},
		{"-missing-sub", claim(set("sub", nil)), true},
		{"-invalid-aud", claim(append1("aud")), true},
		{"-missing-aud", claim(set("aud", nil)), true},
		{"-missing-iat", claim(set("iat", nil)), true},
		{"-nonce-invalid", claim(append1("nonce")), true},
		{"-invalid-athash", claim(append1("at_hash")), true},
		{"-missing-athash", claim(set("at_hash", nil)), false},
		{"-kid-absent-single-jwks", claim(func(h header, _ claims) { delete(h, "kid") }), false},
		{"-idtoken-sig-rs256", signing(idptest.Signing{Alg: "RS256"}), false},
		{"-idtoken-sig-none", signing(idptest.Signing{Alg: "none"}), true},
		{"-invalid-sig-rs256", signing(idptest.Signing{Foreign: true}), true},
		{"-invalid-sig-hs256", signing(idptest.Signing{Alg: "HS256", HMACKey: []byte("wrong")}), true},
		{"-invalid-sig-es256", signing(idptest.Signing{Alg: "ES256", Foreign: true}), true},
		{"fapi2 -invalid-alternate-alg", signing(idptest.Signing{Alg: "ES256"}), true},
		{"fapi2 -invalid-null-alg", claim(func(h header, _ claims) { h["alg"] = nil }), true},
		{"fapi2 -invalid-secondary-aud", claim(set("aud", []string{"wiki", "other"})), true},
		{"fapi2 -valid-aud-as-array", claim(set("aud", []string{"wiki"})), false},
		{"fapi2 -invalid-missing-exp", claim(set("exp", nil)), true},
		{"fapi2 -invalid-missing-iss", claim(set("iss", nil)), true},
		{"fapi2 -invalid-missing-nonce", claim(set("nonce", nil)), true},
		{"fapi2 -invalid-expired-exp", claim(func(_ header, c claims) { c["exp"] = time.Now().Add(-5 * time.Minute).Unix() }), true},
		{"fapi2 -token-endpoint-response-without-expires_in", func(*idptest.Server) {
			w.provider.MutateTokenAnswer(func(a map[string]any) { delete(a, "expires_in") })
		}, false},
		{"fapi2 -token-type-case-insensitivity", func(*idptest.Server) {
			w.provider.MutateTokenAnswer(func(a map[string]any) { a["token_type"] = "bEARER" })
		}, false},
		{"-userinfo-invalid-sub", func(p *idptest.Server) { p.MutateUserinfo(func(c map[string]any) { c["sub"] = "mallory" }) }, false},
	} {
		t.Run("oidcc-client-test"+tt.id, func(t *testing.T) {
			w := w.in(t)
			w.provider.MutateTokenAnswer(nil)
			w.provider.MutateIDToken(nil)
			w.provider.SetSigning(idptest.Signing{})
			tt.script(w.provider)
			switch {
			case tt.id == "-userinfo-invalid-sub": // the one that is refused after the call
				b := w.browser()
				b.refused(b.navigate(b.callback("/").String()), http.StatusBadGateway)
			case tt.refused:
				w.tokenRefused()
			default:
				w.tokenAccepted()
			}
		})
	}
}

// TestConformanceClient is what OpenID's suite asks of a client beside the ID token.
func TestConformanceClient(t *testing.T) {
	t.Parallel()
	t.Run("oidcc-client-test-discovery-issuer-mismatch", func(t *testing.T) {
		w := newWorld(t, settings{})
		w.provider.MutateMetadata(func(m map[string]any) { m["issuer"] = w.provider.URL + "INVALID" })
		w.process.Kill()
		w.startUnready()
		b := w.browser()
		if p := b.navigate("/"); p.status != http.StatusServiceUnavailable || p.header.Get("Location") != "" || len(b.all()) > 0 {
			t.Errorf("%d %s", p.status, p.header.Get("Location"))
		}
	})
	t.Run("oidcc-client-test-signing-key-rotation-just-before-signing", func(t *testing.T) {
		w := newWorld(t, settings{})
		w.browser().signIn("/")
		b := w.browser()
		callback := b.callback("/")
		w.provider.RotateKeys(false)
		if p := b.open(callback.String()); p.status != http.StatusOK {
			t.Errorf("%d %s", p.status, p.body)
		}
		if n := w.provider.Calls(idptest.JWKS); n != 2 {
			t.Errorf("%d fetches of keys, want 2", n)
		}
	})
	t.Run("oidcc-client-test-scope-userinfo-claims", func(t *testing.T) {
		w := newWorld(t, settings{provider: withUserinfo})
		w.provider.AddUser(idptest.User{Sub: "alice", UserinfoClaims: map[string]any{"email": "from-userinfo@example.com", "email_verified": true}})
		w.browser().signIn("/")
		if got := w.app.one(t); strings.Join(got.folded("X-Forwarded-Email"), "|") != "from-userinfo@example.com" {
			t.Errorf("the application gets %q", got.raw)
		}
	})
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		t.Run("oidcc-client-test-"+strings.ReplaceAll(method, "_", "-"), func(t *testing.T) {
			w := newWorld(t, settings{client: idptest.Client{AuthMethod: method}, provider: "client_auth: " + method})
			w.browser().signIn("/")
			for _, r := range w.provider.TokenRequests() {
				if basic := r.Header.Get("Authorization") != ""; basic != (method == "client_secret_basic") || r.Form.Has("client_secret") == basic {
					t.Errorf("%v %v", r.Header, r.Form)
				}
			}
		})
	}
	for name, id := range map[string]string{"access_denied": "oidcc-client-test-form-post-error", "": "oidcc-client-formpost-basic"} {
		t.Run(id, func(t *testing.T) {
			w := newWorld(t, settings{provider: "response_mode: form_post"})
			if name != "" {
				w.provider.RefuseSignIn(name, "<script>")
			}
			b := w.browser()
			back := w.provider.Visit(t, b.begin("/x"))
			p := b.do(http.MethodPost, back.URL, back.Params.Encode(), "Accept: text/html", "Content-Type: application/x-www-form-urlencoded", "Origin: "+w.provider.URL, "Sec-Fetch-Site: cross-site")
			if name != "" {
				b.refused(p, http.StatusForbidden)
			} else if p.status != http.StatusSeeOther || b.session() == "" {
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
	for id, change := range map[string]func(header, claims){"-invalid-issuer": append1("iss"), "-invalid-sub": append1("sub"), "": nil} {
		t.Run("oidcc-client-test-refresh-token"+id, func(t *testing.T) {
			w := newWorld(t, settings{provider: withUserinfo})
			b := w.browser()
			b.signIn("/")
			userinfo := w.calls(idptest.Userinfo)
			w.provider.MutateIDToken(change)
			p := b.fetch(http.MethodPost, "/oauth2/session/refresh", "")
			if id == "" {
				if p.status != http.StatusOK || userinfo() != 1 {
					t.Errorf("%d with %d userinfo calls", p.status, userinfo())
				}
				return
			}
			if p.status != http.StatusUnauthorized || userinfo() != 0 || b.sharing().signedIn() {
				t.Errorf("%d with %d userinfo calls", p.status, userinfo())
			}
		})
	}
}

func TestA70_NoSignature(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	b := w.browser()
	b.signIn("/")
	nothing := func([]byte) []byte { return nil }
	tokens := map[string]func(c claims) string{}
	for _, alg := range []any{"none", "None", "nOnE", "NONE", "", nil, "none ", []string{"none"}, 0} {
		tokens[fmt.Sprintf("alg %v", alg)] = func(c claims) string { return jws(header{"alg": alg, "typ": "JWT"}, c, nothing) }
	}
	tokens["no alg"] = func(c claims) string { return jws(header{}, c, nothing) }
	tokens["RS256 and no signature"] = func(c claims) string { return jws(header{"alg": "RS256"}, c, nothing) }
	tokens["two parts"] = func(c claims) string {
		return strings.TrimSuffix(jws(header{"alg": "none"}, c, nothing), ".")
	}
	tokens["JSON serialisation"] = func(c claims) string {
		parts := strings.Split(w.provider.SignJWT(c, nil), ".")
		return fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2])
	}
	order := payload(t, w.provider.LogoutToken("wiki", "alice", "", nil))
	for name, forge := range tokens {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.order("logout_token="+forge(order)).is(t, http.StatusBadRequest)
			if !b.in(t).signedIn() {
				t.Error("the logout token was believed")
			}
		})
	}
	w.forgetSessions()
	for name, forge := range tokens {
		t.Run("ID token, "+name, func(t *testing.T) {
			w := w.in(t)
			w.forge(forge)
			w.tokenRefused()
			if a := w.ask(w.get("/", "Authorization: Bearer "+forge(claims{"iss": w.provider.URL, "aud": "wiki", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}))); a.status != http.StatusUnauthorized {
				t.Errorf("as a bearer token: %d", a.status)
			}
		})
	}
	w.app.none(t)
}

func TestA71_SecretsThatAreNone(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	resp, err := http.Get(w.provider.EndpointURL(idptest.JWKS))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&keys); err != nil {
		t.Fatal(err)
	}
	public := keys.Keys[0]
	der, err := x509.MarshalPKIXPublicKey(public.Key)
	if err != nil {
		t.Fatal(err)
	}
	asJWK, err := public.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	w.provider.AddUser(idptest.User{Sub: "alice"})
	order := payload(t, w.provider.LogoutToken("wiki", "alice", "", nil))
	for name, secret := range map[string][]byte{
		"PEM": inPEM, "PEM without its last line end": bytes.TrimSpace(inPEM), "DER": der, "PKCS#1": x509.MarshalPKCS1PublicKey(public.Key.(*rsa.PublicKey)), "JWK": asJWK,
		"modulus": public.Key.(*rsa.PublicKey).N.Bytes(), "client secret": []byte(w.clientSecret), "nothing": {},
	} {
		for _, h := range []header{{"alg": "HS256", "kid": public.KeyID}, {"alg": "HS256"}, {"alg": "RS256", "kid": public.KeyID}} {
			t.Run(fmt.Sprint(name, h["alg"], h["kid"] != nil), func(t *testing.T) {
				w := w.in(t)
				w.forge(func(c claims) string { return jws(h, c, byHMAC(secret)) })
				w.tokenRefused()
				w.order("logout_token="+jws(h, order, byHMAC(secret))).is(t, http.StatusBadRequest)
			})
		}
	}
}

func TestA72_OddKeyNames(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	key := newKey(t)
	before := w.calls(idptest.JWKS)
	kids := []any{"../../../../dev/null", "/dev/null", "' OR '1'='1", "", "\u202e", "x\r\nSet-Cookie: a=b", strings.Repeat("k", 40<<10), strings.Repeat("k", 80<<10), 7, nil, []string{"a"}, map[string]any{"a": 1}, "http://127.0.0.1:1/"}
	for i, kid := range kids {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := w.in(t)
			w.forge(func(c claims) string { return jws(header{"alg": "RS256", "kid": kid}, c, byRSA(t, key)) })
			w.tokenRefused()
		})
	}
	t.Run("many", func(t *testing.T) {
		w := w.in(t)
		for i := range 150 {
			w.order("logout_token="+jws(header{"alg": "RS256", "kid": fmt.Sprint("k", i)}, claims{"iss": w.provider.URL, "aud": "wiki"}, byRSA(t, key))).is(t, http.StatusBadRequest)
		}
	})
	t.Run("a million dots", func(t *testing.T) { // V-63
		w := w.in(t)
		grown := w.memory("VmRSS")
		w.forge(func(claims) string { return strings.Repeat(".", 900_000) })
		w.tokenRefused()
		w.order("logout_token="+strings.Repeat(".", 1_000_000)).is(t, http.StatusRequestEntityTooLarge)
		w.order("logout_token="+strings.Repeat(".", 30_000)).is(t, http.StatusBadRequest)
		if grown = w.memory("VmRSS") - grown; grown > 64<<20 {
			t.Errorf("the program grew by %d bytes", grown)
		}
	})
	// One at sign-in, and not another one within each ten seconds.
	if n := before(); n > 8 {
		t.Errorf("%d fetches of keys", n)
	}
	if strings.Contains(w.log.String(), strings.Repeat("k", 1000)) {
		t.Error("the log holds a whole key name")
	}
	w = newWorld(t, settings{provider: withUserinfo}) // two keys of one name: each is tried
	w.provider.On(idptest.JWKS, func(rw http.ResponseWriter, r *http.Request) bool {
		rec := httptest.NewRecorder()
		w.provider.On(idptest.JWKS, nil)
		w.provider.ServeHTTP(rec, r)
		var set jose.JSONWebKeySet
		if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil {
			t.Error(err)
		}
		set.Keys = slices.Insert(set.Keys, 0, jose.JSONWebKey{Key: &key.PublicKey, KeyID: set.Keys[0].KeyID, Algorithm: "RS256", Use: "sig"})
		_ = json.NewEncoder(rw).Encode(set)
		return true
	})
	w.tokenAccepted()
}

// trap is a server that nobody may call.
func trap(t testing.TB) (url string, calls *atomic.Int32) {
	t.Helper()
	calls = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { calls.Add(1); _, _ = w.Write([]byte("{}")) }))
	t.Cleanup(s.Close)
	return s.URL, calls
}

func TestA73_KeysThatTokensBring(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	at, calls := trap(t)
	key := newKey(t)
	jwk, err := jose.JSONWebKey{Key: &key.PublicKey, KeyID: "own", Algorithm: "RS256", Use: "sig"}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	order := payload(t, w.provider.LogoutToken("wiki", "alice", "", nil))
	for name, h := range map[string]header{
		"jku": {"jku": at + "/jwks", "kid": "own"}, "x5u": {"x5u": at + "/cert"}, "jwk": {"jwk": json.RawMessage(jwk), "kid": "own"}, "x5c": {"x5c": []string{base64.StdEncoding.EncodeToString(der)}},
		"crit": {"crit": []string{"exp"}, "exp": 1}, "b64": {"b64": false, "crit": []string{"b64"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			h = maps.Clone(h)
			h["alg"] = "RS256"
			w.forge(func(c claims) string { return jws(h, c, byRSA(t, key)) })
			w.tokenRefused()
			w.order("logout_token="+jws(h, order, byRSA(t, key))).is(t, http.StatusBadRequest)
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls to an address in a token", n)
	}
}

func TestA74_EncryptedAndCompressedTokens(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	key := sha256.Sum256([]byte(w.clientSecret))
	encrypted := func(text []byte, zip jose.CompressionAlgorithm) string {
		e, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: key[:]}, (&jose.EncrypterOptions{Compression: zip}).WithContentType("JWT"))
		if err != nil {
			t.Fatal(err)
		}
		object, err := e.Encrypt(text)
		if err != nil {
			t.Fatal(err)
		}
		token, err := object.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	before := w.memory("VmRSS")
	order := w.provider.LogoutToken("wiki", "alice", "", nil)
	for name, make := range map[string]func(inner string) string{
		"nested":           func(inner string) string { return encrypted([]byte(inner), jose.NONE) },
		"bomb":             func(string) string { return encrypted(make([]byte, 8<<20), jose.DEFLATE) },
		"five empty parts": func(string) string { return "...." },
		"broken":           func(inner string) string { return encrypted([]byte(inner), jose.NONE)[5:] },
		"no parts":         func(string) string { return "e30" },
		"inflated header": func(string) string {
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","zip":"DEF"}`)) + ".AAAA.AAAA"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.forge(func(c claims) string { return make(w.provider.SignJWT(c, nil)) })
			w.tokenRefused()
			w.order("logout_token="+make(order)).is(t, http.StatusBadRequest)
			if a := w.ask(w.get("/", "Authorization: Bearer "+make(order))); a.status != http.StatusUnauthorized {
				t.Errorf("as a bearer token: %d", a.status)
			}
		})
	}
	if grown := w.memory("VmRSS") - before; grown > 64<<20 {
		t.Errorf("the program grew by %d bytes", grown)
	}
}

func TestA75_IssuersThatShareKeys(t *testing.T) {
	attack(t)
	idTokens(t, map[string]func(header, claims){
		"another path":    func(_ header, c claims) { c["iss"] = fmt.Sprint(c["iss"], "/realms/other") },
		"a slash more":    func(_ header, c claims) { c["iss"] = fmt.Sprint(c["iss"], "/") },
		"another scheme":  func(_ header, c claims) { c["iss"] = strings.Replace(c["iss"].(string), "http:", "https:", 1) },
		"another host":    set("iss", "https://evil.example.net"),
		"Google's":        set("iss", "accounts.google.com"),
		"several":         func(_ header, c claims) { c["iss"] = []any{c["iss"]} },
		"upper case":      func(_ header, c claims) { c["iss"] = strings.ToUpper(c["iss"].(string)) },
		"one with spaces": func(_ header, c claims) { c["iss"] = fmt.Sprint(c["iss"], " ") },
	})
}

func TestA77_OddExpiries(t *testing.T) {
	attack(t)
	now := float64(time.Now().Unix())
	idTokens(t, map[string]func(header, claims){
		"missing": set("exp", nil), "zero": set("exp", 0), "negative": set("exp", -now), "1e300": set("exp", 1e300), "negative huge": set("exp", -1e300), "text": set("exp", "tomorrow"), "date": set("exp", "2099-01-01T00:00:00Z"),
		"true": set("exp", true), "list": set("exp", []float64{now + 300}), "beyond 64 bits": set("exp", json.Number("18446744073709551617")), "long past": set("exp", now-3600),
	})
	w := newWorld(t, settings{})
	for name, value := range map[string]any{"absent": nil, "zero": 0, "negative": -1, "huge": 1e300, "text": "3600", "fraction": 3600.5, "empty": "", "NaN": "NaN", "beyond 64 bits": json.Number("18446744073709551617"), "list": []int{1}} {
		t.Run("expires_in "+name, func(t *testing.T) {
			w := w.in(t)
			w.provider.MutateTokenAnswer(func(a map[string]any) {
				if delete(a, "expires_in"); value != nil {
					a["expires_in"] = value
				}
			})
			b := w.browser()
			b.open("/")
			for _, key := range w.sessionKeys() {
				if ttl := w.redis.Client().TTL(t.Context(), key).Val(); ttl <= 0 || ttl > 12*time.Hour+10*time.Minute {
					t.Errorf("%s lives for %v", key, ttl)
				}
			}
			w.forgetSessions()
		})
	}
	t.Run("fractional exp", func(t *testing.T) { // a number all the same (RFC 7519 section 2)
		w := w.in(t)
		w.provider.MutateTokenAnswer(nil)
		w.provider.MutateIDToken(set("exp", now+300.5))
		w.browser().open("/")
	})
}

func TestA78_TokensOfTheFuture(t *testing.T) {
	attack(t)
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	idTokens(t, map[string]func(header, claims){
		"iat in five minutes": func(_ header, c claims) { c["iat"] = at(5 * time.Minute) },
		"iat in ten years":    func(_ header, c claims) { c["iat"] = at(87600 * time.Hour) },
		"iat an hour ago":     func(_ header, c claims) { c["iat"] = at(-time.Hour) },
		"iat a text":          set("iat", "now"),
		"nbf in five minutes": func(_ header, c claims) { c["nbf"] = at(5 * time.Minute) },
		"nbf a text":          set("nbf", "now"),
		"auth_time a text":    set("auth_time", "now"),
		"exp a minute past the leeway": func(_ header, c claims) {
			c["exp"], c["iat"] = at(-2*time.Minute), at(-4*time.Minute)
		},
	})
}

func TestA79_AudiencesAndHashes(t *testing.T) {
	attack(t)
	both := func(azp any) func(header, claims) {
		return func(_ header, c claims) {
			c["aud"] = []string{"wiki", "other"}
			if azp != nil {
				c["azp"] = azp
			}
		}
	}
	idTokens(t, map[string]func(header, claims){
		"two audiences": both(nil), "two and the other's azp": both("other"), "two and our azp": both("wiki"), "our aud and another azp": set("azp", "other"), "azp a number": set("azp", 7),
		"no audience": set("aud", []string{}), "numbers": set("aud", []any{7, "wiki"}), "part of ours": set("aud", "wik"), "upper case": set("aud", "WIKI"), "an object": set("aud", map[string]string{"wiki": "wiki"}),
		"at_hash off by one": append1("at_hash"), "at_hash of nothing": set("at_hash", ""), "at_hash a number": set("at_hash", 7),
		"typ of a logout token": func(h header, _ claims) { h["typ"] = "logout+jwt" }, "typ of an access token": func(h header, _ claims) { h["typ"] = "at+jwt" }, "full typ": func(h header, _ claims) { h["typ"] = "application/at+JWT" },
		"a logout event": set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}),
		"sub too long":   set("sub", strings.Repeat("s", 300)), "sub a number": set("sub", 7), "sub with a line end": set("sub", "alice\nroot"), "sub empty": set("sub", ""),
	})
}
