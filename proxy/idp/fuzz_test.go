package idp_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"postern/proxy/idp"
)

// FuzzIDTokenClaimsAccepted holds what every accepted payload has in common, whatever a provider signs.
func FuzzIDTokenClaimsAccepted(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"sub":"a\nb"}`, `{"aud":["wiki","x"],"azp":"wiki"}`, `{"exp":1e300}`, `{"iat":-1}`, `{"email":"a@b","email_verified":"true"}`,
		`{"groups":["a",["b"],1,null]}`, `{"_claim_names":{"groups":"x"},"_claim_sources":{"x":{}}}`, `{"at_hash":""}`, `{"auth_time":1.5,"acr":7,"sid":["x"]}`,
		`{"iss":"https://evil.example"}`, `{"events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`, `{"email":["x"],"name":{"a":1}}`,
	} {
		f.Add([]byte(seed), []byte(`{"sub":"alice"}`))
		f.Add([]byte(`{"email":["x"]}`), []byte(seed))
	}
	secretOf := [32]byte{7}
	f.Fuzz(func(t *testing.T, more, userinfo []byte) {
		s, p := scripted(t, withUserinfo)
		b := idp.Begin{State: "s", Secret: secretOf, RedirectURI: callback}
		authURL, err := p.Begin(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(authURL)
		good := map[string]any{
			"iss": scriptIssuer, "aud": "wiki", "sub": "alice", "nonce": u.Query().Get("nonce"), "iat": today.Unix(), "exp": today.Unix() + 60,
		}
		payload := append([]byte(nil), more...) // as it is, or over a good one
		var over map[string]any
		if json.Unmarshal(more, &over) == nil && over != nil {
			for name, v := range over {
				good[name] = v
			}
			payload, _ = json.Marshal(good)
		}
		s.answer("/userinfo", 200, userinfo)
		g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, payload), nil)
		if err != nil {
			var bad *idp.ProtocolError
			if !errors.As(err, &bad) {
				t.Errorf("got %v (%T)", err, err)
			}
			return
		}
		var c struct {
			Iss, Sub, Nonce string
			Exp, Iat        float64
		}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatalf("accepted %q: %v", payload, err)
		}
		now := float64(today.Unix())
		if c.Iss != scriptIssuer || c.Sub == "" || c.Sub != g.Subject || c.Nonce != good["nonce"] || c.Exp <= now-60 || c.Iat > now+60 || c.Iat < now-660 {
			t.Errorf("accepted %s", payload)
		}
		all := append([]string{g.SID, g.ACR, g.Identity.User, g.Identity.Email, g.Identity.Name, g.Identity.PreferredUsername}, g.Identity.Groups...)
		for _, v := range all {
			if strings.ContainsFunc(v, unicode.IsControl) {
				t.Errorf("%q cannot be in a header", v)
			}
		}
		if g.AuthTime.After(time.Unix(253402300800, 0)) {
			t.Errorf("auth_time %v", g.AuthTime)
		}
	})
}

// FuzzKeySetKeepsTheGoodKey: whatever else is in a key set, it neither panics nor hides or replaces the provider's key.
func FuzzKeySetKeepsTheGoodKey(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"kty":"RSA","n":"AQAB","e":"AQAB"}`, `{"kty":"oct","k":"AA","kid":"k1","alg":"HS256"}`, `{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`,
		`{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"k1"}`, `{"use":7}`, `7`, `{"kty":"OKP","crv":"Ed25519","kid":"k1","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		`{"x5c":["AA"]}`, `{"kty":"RSA","n":"","e":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, odd []byte) {
		if !json.Valid(odd) || len(odd) > 1<<19 {
			return
		}
		s, p := scripted(t)
		good, err := json.Marshal(s.jwks.Keys[0])
		if err != nil {
			t.Fatal(err)
		}
		s.answer("/jwks", 200, `{"keys":[`+string(odd)+`,`+string(good)+`]}`)
		b, claims := attempt(t, t.Context(), p, today)
		if _, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), nil); err != nil {
			t.Error(err)
		}
		foreign := newScript(t)
		b, claims = attempt(t, t.Context(), p, today)
		if _, err := s.complete(t, t.Context(), p, b, sign(t, foreign.key, claims), nil); err == nil {
			t.Error("a foreign signature was accepted")
		}
	})
}

// FuzzPresentedTokenAccepted holds what every accepted access token has in common, whatever a client writes and whatever a provider signs.
func FuzzPresentedTokenAccepted(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"aud":["api",{}]}`, `{"aud":"api "}`, `{"Aud":"x"}`, `{"exp":1e300}`, `{"exp":"9999999999"}`, `{"nbf":1e18}`, `{"iat":-1}`, `{"iss":"https://evil.example"}`, `{"iss":["x"]}`, `{"sub":"a\nb"}`,
		`{"sub":null}`, `{"nonce":""}`, `{"events":{}}`, `{"typ":"Refresh"}`, `{"cnf":{}}`, `{"scope":["a"],"client_id":7}`, `{"sub":"alice","sub":"bob"}`, `{"groups":[["a"],1]}`,
	} {
		f.Add("", []byte(seed))
	}
	for _, token := range []string{
		"..", "a.b.c", "a.b.c.d.e", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", "eyJhbGciOiJIUzI1NiJ9.e30.AA", `{"payload":"e30","signatures":[]}`, "e30.e30.e30", "\x00", " . . ",
	} {
		f.Add(token, []byte(`{}`))
	}
	f.Fuzz(func(t *testing.T, written string, more []byte) {
		s, p := scripted(t)
		if _, err := p.Presented(t.Context(), written, []string{"api"}); err == nil {
			t.Errorf("accepted %q, which nobody has signed", written)
		}
		claims := map[string]any{"iss": scriptIssuer, "sub": "alice", "aud": "api", "scope": "read", "iat": today.Unix(), "exp": today.Unix() + 60}
		payload := append([]byte(nil), more...) // as it is, or over a good one
		var over map[string]any
		if json.Unmarshal(more, &over) == nil && over != nil {
			maps.Copy(claims, over)
			payload, _ = json.Marshal(claims)
		}
		token := sign(t, s.key, payload)
		g, err := p.Presented(t.Context(), token, []string{"api"})
		if err != nil {
			if _, ok := errors.AsType[*idp.ProtocolError](err); !ok {
				t.Errorf("got %v (%T)", err, err)
			}
			return
		}
		var c struct {
			Iss, Sub string
			Exp      float64
			Aud      any
		}
		if err := json.Unmarshal(payload, &c); err != nil {
			t.Fatalf("accepted %q: %v", payload, err)
		}
		audience, _ := c.Aud.([]any)
		if c.Iss != scriptIssuer || c.Sub == "" || c.Sub != g.Subject || c.Exp <= float64(today.Unix()) || c.Aud != any("api") && !slices.Contains(audience, any("api")) {
			t.Errorf("accepted %s", payload)
		}
		if g.Tokens.Access != token || g.Tokens.Refresh+g.Tokens.ID != "" || !g.Tokens.Expiry.After(today) {
			t.Errorf("accepted %s as %+v", payload, g.Tokens)
		}
		for _, v := range append([]string{g.ACR, g.Identity.User, g.Identity.Email, g.Identity.Name}, g.Identity.Groups...) {
			if strings.ContainsFunc(v, unicode.IsControl) {
				t.Errorf("%q cannot be in a header", v)
			}
		}
	})
}

// FuzzIntrospectionAnswerAccepted: only a provider that says that a token is active, now and for this audience, makes it so.
func FuzzIntrospectionAnswerAccepted(f *testing.F) {
	for _, seed := range []string{
		`{"active":true,"aud":"api","sub":"alice"}`, `{"active":"true","aud":"api","sub":"alice"}`, `{"active":1}`, `{"active":false,"aud":"api","sub":"alice"}`, `{"Active":true}`, `{"active":true,"active":false,"aud":"api","sub":"alice"}`,
		`{"active":true,"aud":["x","api"],"sub":"alice","exp":1}`, `{"active":true,"aud":"api","sub":"alice","nbf":1e300}`, `{"active":true,"aud":"api","sub":"alice","iss":"https://evil.example"}`, `{"active":true,"aud":"api"}`, `null`, `[`, ``, `{"error":"x"}`,
	} {
		f.Add(200, []byte(seed))
		f.Add(401, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 100 || status > 999 {
			return
		}
		s, p := scripted(t)
		about := scriptMetadata()
		about["introspection_endpoint"] = scriptIssuer + "/introspect"
		s.answer("/.well-known/openid-configuration", 200, about)
		s.answer("/introspect", status, body)
		const token = "canary-opaque-token"
		g, err := p.Introspected(t.Context(), token, []string{"api"})
		if err != nil {
			_, bad := errors.AsType[*idp.ProtocolError](err)
			_, down := errors.AsType[*idp.UnavailableError](err)
			if bad == down || strings.Contains(err.Error(), token) {
				t.Errorf("got %v (%T)", err, err)
			}
			return
		}
		var c map[string]any
		if err := json.Unmarshal(body, &c); err != nil || status != http.StatusOK {
			t.Fatalf("accepted %d %q: %v", status, body, err)
		}
		audience, _ := c["aud"].([]any)
		if c["active"] != true || c["aud"] != "api" && !slices.Contains(audience, any("api")) || c["iss"] != nil && c["iss"] != scriptIssuer || g.Subject == "" || !g.Tokens.Expiry.After(today) {
			t.Errorf("accepted %s as %+v", body, g)
		}
	})
}
