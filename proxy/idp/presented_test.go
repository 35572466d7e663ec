package idp_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
)

// accessClaims are those of a good access token for the audience api.
func (s stand) accessClaims(change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": s.op.URL, "sub": "alice", "aud": "api", "client_id": "cli", "jti": "1", "scope": "orders.read orders.write",
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "preferred_username": "al", "groups": []string{"staff"}, "level": 3,
	}
	for name, value := range change {
		if value == nil {
			delete(c, name)
		} else {
			c[name] = value
		}
	}
	return c
}

var accessType = map[string]any{"typ": "at+jwt"}

func TestPresentedTokenIsTheGrantOfItsClaims(t *testing.T) {
	s := newStand(t, func(o *idp.Options) {
		o.Claims, o.KeepClaims = map[string]string{"user": "preferred_username"}, []string{"level"}
	})
	signedIn := time.Now().Add(-time.Minute).Truncate(time.Second)
	for name, typ := range map[string]map[string]any{
		"RFC 9068": accessType, "long type": {"typ": "application/at+jwt"}, "upper case": {"typ": "AT+JWT"}, "plain": {"typ": "JWT"},
	} {
		token := s.op.SignJWT(s.accessClaims(map[string]any{"acr": "mfa", "auth_time": signedIn.Unix(), "aud": []string{"other", "api"}}), typ)
		g, err := s.Presented(t.Context(), token, []string{"spare", "api"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if g.Subject != "alice" || g.Issuer != s.op.URL || g.Identity.User != "al" || len(g.Identity.Groups) != 1 || g.Claims["level"] != json.Number("3") ||
			g.ACR != "mfa" || !g.AuthTime.Equal(signedIn) || g.Tokens.Scope != "orders.read orders.write" || g.Tokens.Access != token || g.Tokens.Refresh+g.Tokens.ID != "" {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

// A76: what is no access token for the audience, by this issuer, now, is refused.
func TestA76_PresentedTokensThatAreNotGood(t *testing.T) {
	s := newStand(t)
	now := time.Now()
	for name, c := range map[string]struct {
		claims, header map[string]any
		words          string
	}{
		"another issuer":         {map[string]any{"iss": "https://evil.example"}, accessType, "iss"},
		"no issuer":              {map[string]any{"iss": nil}, accessType, "iss"},
		"issuer with slash":      {map[string]any{"iss": s.op.URL + "/"}, accessType, "iss"},
		"another audience":       {map[string]any{"aud": "wiki"}, accessType, "aud"},
		"audience with a prefix": {map[string]any{"aud": []string{"api2", "xapi", ""}}, accessType, "aud"},
		"no audience":            {map[string]any{"aud": nil}, accessType, "aud"},
		"audience is an object":  {map[string]any{"aud": map[string]any{"api": true}}, accessType, "aud"},
		"no subject":             {map[string]any{"sub": nil}, accessType, "sub"},
		"expired":                {map[string]any{"exp": now.Add(-time.Second).Unix()}, accessType, "expired"},
		"no expiry":              {map[string]any{"exp": nil}, accessType, "exp"},
		"expiry is a text":       {map[string]any{"exp": "2099-01-01"}, accessType, "exp"},
		"not yet valid":          {map[string]any{"nbf": now.Add(time.Hour).Unix()}, accessType, "nbf"},
		"issued tomorrow":        {map[string]any{"iat": now.Add(time.Hour).Unix()}, accessType, "iat"},
		"logout token":           {nil, map[string]any{"typ": "logout+jwt"}, "typ"},
		"a type that is none":    {nil, map[string]any{"typ": 7}, "typ"},
		"logout by its events":   {map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}, map[string]any{}, "events"},
		"ID token with a nonce":  {map[string]any{"nonce": "n", "aud": []string{"wiki", "api"}}, map[string]any{}, "nonce"},
		"ID token with at_hash":  {map[string]any{"at_hash": "h"}, map[string]any{}, "at_hash"},
		"Keycloak's ID token":    {map[string]any{"typ": "ID"}, map[string]any{}, "typ"},
		"Keycloak's refresh":     {map[string]any{"typ": "Refresh"}, map[string]any{}, "typ"},
		"bare ID token":          {map[string]any{"aud": []string{"wiki", "api"}, "scope": nil}, map[string]any{}, "ID token"},
		"bound to a key":         {map[string]any{"cnf": map[string]any{"jkt": "x"}}, accessType, "bound"},
		"critical extension":     {nil, map[string]any{"typ": "at+jwt", "crit": []string{"exp"}, "exp": 1}, ""},
		"b64":                    {nil, map[string]any{"typ": "at+jwt", "crit": []string{"b64"}, "b64": true}, ""},
		"too large":              {map[string]any{"pad": strings.Repeat("x", 16<<10)}, accessType, "larger"},
	} {
		_, err := s.Presented(t.Context(), s.op.SignJWT(s.accessClaims(c.claims), c.header), []string{"api"})
		t.Run(name, func(t *testing.T) { wantProtocol(t, err, c.words) })
	}
	real := s.mustSignIn(t).Tokens
	for name, token := range map[string]string{"opaque": real.Access, "ID token": real.ID, "empty": "", "dots": "..", "JWE": "a.b.c.d.e"} {
		_, err := s.Presented(t.Context(), token, []string{"api", "wiki"})
		t.Run(name, func(t *testing.T) { wantProtocol(t, err) })
	}
}

// A70, A71: only a key of the provider, with its own asymmetric algorithm.
func TestA70_PresentedTokensThatAreForged(t *testing.T) {
	s := newStandWith(t, idptest.Options{Alg: "RS256"})
	good := s.op.SignJWT(s.accessClaims(nil), accessType)
	if _, err := s.Presented(t.Context(), good, []string{"api"}); err != nil {
		t.Fatal(err)
	}
	forged := func(how idptest.Signing, header map[string]any) string {
		s.op.SetSigning(how)
		defer s.op.SetSigning(idptest.Signing{})
		return s.op.SignJWT(s.accessClaims(nil), header)
	}
	kid := kidOf(t, good)
	public := publicKey(t, s.op)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"alg none":          forged(idptest.Signing{Alg: "none"}, accessType),
		"alg nOnE":          forged(idptest.Signing{Alg: "none"}, map[string]any{"typ": "at+jwt", "alg": "nOnE"}),
		"public key as MAC": forged(idptest.Signing{Alg: "HS256", HMACKey: public}, map[string]any{"typ": "at+jwt", "kid": kid}),
		"client secret":     forged(idptest.Signing{Alg: "HS256", HMACKey: []byte("s3cr:t/+%")}, accessType),
		"foreign key":       forged(idptest.Signing{Foreign: true}, accessType),
		"kid of another":    forged(idptest.Signing{Alg: "ES256"}, map[string]any{"typ": "at+jwt", "kid": kid}),
		"alg of another":    forged(idptest.Signing{}, map[string]any{"typ": "at+jwt", "alg": "PS256"}),
		"no signature":      parts[0] + "." + parts[1] + ".",
		"other claims":      parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+s.op.URL+`","sub":"bob","aud":"api","exp":9999999999}`)) + "." + parts[2],
	} {
		_, err := s.Presented(t.Context(), token, []string{"api"})
		t.Run(name, func(t *testing.T) { wantProtocol(t, err) })
	}
}

// The keys of the provider decide which algorithms it signs access tokens with, whatever its ID tokens are signed with.
func TestPresentedTokenMayHaveAnotherAlgorithmThanIDTokens(t *testing.T) {
	s := newStand(t)
	s.op.SetSigning(idptest.Signing{Alg: "EdDSA"})
	token := s.op.SignJWT(s.accessClaims(nil), accessType)
	if _, err := s.Presented(t.Context(), token, []string{"api"}); err != nil {
		t.Error(err)
	}
}

// A163: whoever makes tokens up does not make us ask the provider for its keys again and again; tokens of other issuers never do.
func TestA163_PresentedGarbageFetchesFewKeys(t *testing.T) {
	s := newStand(t)
	good := s.op.SignJWT(s.accessClaims(nil), accessType)
	if _, err := s.Presented(t.Context(), good, []string{"api"}); err != nil {
		t.Fatal(err)
	}
	before := s.op.Calls(idptest.JWKS)
	for range 100 {
		_, err := s.Presented(t.Context(), s.op.SignJWT(s.accessClaims(map[string]any{"iss": "https://other.example"}), map[string]any{"kid": "x"}), []string{"api"})
		wantProtocol(t, err)
	}
	if n := s.op.Calls(idptest.JWKS) - before; n != 0 {
		t.Errorf("tokens of another issuer: %d fetches", n)
	}
	for range 100 {
		if _, err := s.Presented(t.Context(), s.op.SignJWT(s.accessClaims(nil), map[string]any{"kid": "x"}), []string{"api"}); err == nil {
			t.Fatal("taken")
		}
	}
	if n := s.op.Calls(idptest.JWKS) - before; n > 2 {
		t.Errorf("%d fetches", n)
	}
}

func TestPresentedTokenIsNotJudgedWithoutKeys(t *testing.T) {
	s := newStand(t)
	s.op.Fail(idptest.JWKS, 500, -1)
	_, err := s.Presented(t.Context(), s.op.SignJWT(s.accessClaims(nil), accessType), []string{"api"})
	wantUnavailable(t, err)
}

// S32, L39: active is a boolean, and everything else that a JWT would say counts too.
func TestIntrospectedTokens(t *testing.T) {
	s := newStand(t)
	access := s.mustSignIn(t).Tokens.Access
	api := []string{s.op.URL + "/api"}
	g, err := s.Introspected(t.Context(), access, api)
	if err != nil || g.Subject != "alice" || g.Identity.PreferredUsername != "al" || g.Tokens.Access != access || g.Tokens.Scope == "" {
		t.Fatalf("%+v %v", g, err)
	}
	for name, change := range map[string]map[string]any{
		"inactive": {"active": false}, "a text": {"active": "true"}, "no word": {"active": nil}, "another audience": {"aud": "else"}, "no audience": {"aud": nil},
		"another issuer": {"iss": "https://evil.example"}, "expired": {"exp": time.Now().Add(-time.Second).Unix()}, "not yet": {"nbf": time.Now().Add(time.Hour).Unix()},
		"refresh token": {"token_type": "refresh_token"}, "bound": {"cnf": map[string]any{"x5t#S256": "x"}}, "nobody": {"sub": nil},
	} {
		s.op.MutateIntrospection(func(answer map[string]any) { maps.Copy(answer, change) })
		_, err := s.Introspected(t.Context(), access, api)
		t.Run(name, func(t *testing.T) { wantProtocol(t, err) })
	}
	s.op.MutateIntrospection(func(answer map[string]any) { delete(answer, "exp") })
	if g, err := s.Introspected(t.Context(), access, api); err != nil || time.Until(g.Tokens.Expiry) > time.Minute {
		t.Errorf("without exp: %v until %v", err, g.Tokens.Expiry)
	}
	s.op.MutateIntrospection(nil)
	for name, answer := range map[string]idptest.Answer{
		"our secret is wrong": {Status: 401, Body: `{"error":"invalid_client"}`}, "busy": {Status: 503}, "no JSON": {Status: 200, Body: "<html>"},
	} {
		s.op.AnswerWith(idptest.Introspect, 1, answer)
		_, err := s.Introspected(t.Context(), access, api)
		t.Run(name, func(t *testing.T) { wantUnavailable(t, err) })
	}
}

func TestIntrospectionThatIsNotOffered(t *testing.T) {
	op := idptest.NewServerWith(t, idptest.Options{Alg: "ES256"})
	op.MutateMetadata(func(doc map[string]any) { delete(doc, "introspection_endpoint") })
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := mustNew(t, idp.Options{Name: "corp", Issuer: op.URL, ClientID: "wiki", SigningAlg: "ES256", Transport: transport})
	_, err := p.Introspected(t.Context(), "x", []string{"api"})
	wantUnavailable(t, err)
}

func TestExchange(t *testing.T) {
	s := newStand(t)
	access := s.mustSignIn(t).Tokens.Access
	for name, c := range map[string]struct {
		to   idp.Target
		want map[string]string
	}{
		"RFC 8693": {idp.Target{Audience: "api://backend", Scope: "orders.read", Resource: "https://backend.example"}, map[string]string{
			"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": access, "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
			"requested_token_type": "urn:ietf:params:oauth:token-type:access_token", "audience": "api://backend", "scope": "orders.read", "resource": "https://backend.example"}},
		"on behalf of": {idp.Target{OnBehalfOf: true, Scope: "api://backend/.default"}, map[string]string{
			"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": access, "requested_token_use": "on_behalf_of", "scope": "api://backend/.default"}},
	} {
		got, err := s.Exchange(t.Context(), access, c.to)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if sub, audience, active := s.op.Issued(got.Access); sub != "alice" || len(audience) == 0 || !active || got.Refresh+got.ID != "" || got.Expiry.IsZero() {
			t.Errorf("%s: %s %v %v %+v", name, sub, audience, active, got)
		}
		all := s.op.TokenRequests()
		form := all[len(all)-1].Form
		for member, value := range c.want {
			if form.Get(member) != value {
				t.Errorf("%s: %s is %q, want %q", name, member, form.Get(member), value)
			}
		}
		if len(form) != len(c.want) || all[len(all)-1].Header.Get("Authorization") == "" {
			t.Errorf("%s: sent %v", name, form)
		}
	}
}

// S29: issued_token_type and token_type are checked.
func TestExchangeOfWrongTypes(t *testing.T) {
	s := newStand(t)
	access := s.mustSignIn(t).Tokens.Access
	to := idp.Target{Audience: "b"}
	for name, change := range map[string]map[string]any{
		"no issued type": {"issued_token_type": nil}, "an ID token": {"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"},
		"N_A": {"token_type": "N_A"}, "no type": {"token_type": nil}, "DPoP": {"token_type": "DPoP"}, "line break": {"access_token": "a\r\nX-Evil: 1"},
		"refresh token": {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "no token": {"access_token": nil},
	} {
		s.op.MutateTokenAnswer(func(answer map[string]any) { maps.Copy(answer, change) })
		_, err := s.Exchange(t.Context(), access, to)
		t.Run(name, func(t *testing.T) { wantProtocol(t, err) })
	}
	s.op.MutateTokenAnswer(func(answer map[string]any) {
		answer["issued_token_type"], answer["token_type"], answer["expires_in"] = "urn:ietf:params:oauth:token-type:jwt", "bearer", 1e9
	})
	if got, err := s.Exchange(t.Context(), access, to); err != nil || time.Until(got.Expiry) > time.Hour {
		t.Errorf("%v until %v", err, got.Expiry)
	}
	s.op.MutateTokenAnswer(nil)
	s.op.FailOAuth(idptest.Token, 400, "invalid_target", 1)
	_, err := s.Exchange(t.Context(), access, to)
	wantProtocol(t, err, "invalid_target")
	s.op.Fail(idptest.Token, 503, 1)
	_, err = s.Exchange(t.Context(), access, to)
	wantUnavailable(t, err)
}

func kidOf(t *testing.T, token string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		t.Fatal(err)
	}
	return jws.Signatures[0].Protected.KeyID
}

// publicKey is the provider's key as an attacker has it.
func publicKey(t *testing.T, op *idptest.Server) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(op.EndpointURL(idptest.JWKS))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(set.Keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
