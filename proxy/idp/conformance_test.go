package idp_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
	"postern/session"
)

// withUserinfo is how a client must be set up for the suite: its tests end with the userinfo call.
func withUserinfo(o *idp.Options) { o.Identity = "userinfo" }

// TestConformanceIDToken goes through the tests of OpenID's suite for relying parties in which the ID token is wrong, or odd. They are
// named by their ids, without oidcc-client-test and fapi2-security-profile-final-client-test. A refused token means no call to
// userinfo and no grant.
func TestConformanceIDToken(t *testing.T) {
	claim := func(name string, value any) func(*idptest.Server) {
		return func(op *idptest.Server) {
			op.MutateIDToken(func(_, c map[string]any) {
				switch v := value.(type) {
				case nil:
					delete(c, name)
				case func(any) any:
					c[name] = v(c[name])
				default:
					c[name] = value
				}
			})
		}
	}
	plusOne := func(v any) any { return v.(string) + "1" }
	signing := func(how idptest.Signing) func(*idptest.Server) {
		return func(op *idptest.Server) { op.SetSigning(how) }
	}
	tests := []struct {
		id, alg string // alg is RS256 unless given
		script  func(*idptest.Server)
		refused string // a word of the error; empty: accepted
	}{
		{id: "", script: func(*idptest.Server) {}},
		{id: "-invalid-iss", script: claim("iss", plusOne), refused: "iss"},
		{id: "-missing-sub", script: claim("sub", nil), refused: "sub"},
		{id: "-invalid-aud", script: claim("aud", plusOne), refused: "aud"},
		{id: "-missing-aud", script: claim("aud", nil), refused: "aud"},
		{id: "-missing-iat", script: claim("iat", nil), refused: "iat"},
		{id: "-nonce-invalid", script: claim("nonce", plusOne), refused: "nonce"},
		{id: "-invalid-athash", script: claim("at_hash", plusOne), refused: "at_hash"},
		{id: "-missing-athash", script: claim("at_hash", nil)},
		{id: "-idtoken-sig-rs256", script: signing(idptest.Signing{})},
		{id: "-idtoken-sig-none", script: signing(idptest.Signing{Alg: "none"}), refused: "RS256"},
		{id: "-invalid-sig-rs256", script: signing(idptest.Signing{Foreign: true}), refused: "not signed by a key"},
		{id: "-invalid-sig-es256", alg: "ES256", script: signing(idptest.Signing{Foreign: true}), refused: "not signed by a key"},
		{id: "-invalid-sig-hs256", script: signing(idptest.Signing{Alg: "HS256", HMACKey: []byte("wrong")}), refused: "RS256"},
		{id: "A71 HS256 with the client's secret", script: signing(idptest.Signing{Alg: "HS256"}), refused: "RS256"},
		{id: "-kid-absent-single-jwks", script: func(op *idptest.Server) {
			op.MutateIDToken(func(h, _ map[string]any) { delete(h, "kid") })
		}},
		{id: "-kid-absent-multiple-jwks", script: func(op *idptest.Server) {
			op.AddKey("RS256")
			op.AddKey("RS256")
			op.AddKey("ES256")
			op.MutateIDToken(func(h, _ map[string]any) { delete(h, "kid") })
		}},
		{id: "-invalid-alternate-alg", script: signing(idptest.Signing{Alg: "ES256"}), refused: "RS256"},
		{id: "-invalid-null-alg", script: func(op *idptest.Server) {
			op.MutateIDToken(func(h, _ map[string]any) { h["alg"] = nil })
		}, refused: "RS256"},
		{id: "-invalid-secondary-aud", script: claim("aud", []string{"wiki", "other"}), refused: "aud"},
		{id: "-valid-aud-as-array", script: claim("aud", []string{"wiki"})},
		{id: "-invalid-missing-exp", script: claim("exp", nil), refused: "exp"},
		{id: "-invalid-missing-iss", script: claim("iss", nil), refused: "iss"},
		{id: "-invalid-missing-nonce", script: claim("nonce", nil), refused: "nonce"},
		{id: "-invalid-expired-exp", script: claim("exp", time.Now().Add(-5*time.Minute).Unix()), refused: "expired"},
	}
	for _, tt := range tests {
		t.Run("oidcc-client-test"+tt.id, func(t *testing.T) {
			if tt.alg == "" {
				tt.alg = "RS256"
			}
			s := newStandWith(t, idptest.Options{Alg: tt.alg}, withUserinfo)
			tt.script(s.op)
			g, err := s.signIn(t)
			if tt.refused == "" {
				if err != nil || g.Identity.User != "alice" || s.op.Calls(idptest.Userinfo) != 1 {
					t.Errorf("got %+v, %v and %d userinfo calls, want alice and one call", g.Identity, err, s.op.Calls(idptest.Userinfo))
				}
				return
			}
			wantProtocol(t, err, tt.refused)
			if n := s.op.Calls(idptest.Userinfo); n != 0 {
				t.Errorf("the access token was used %d times after a bad ID token", n)
			}
			if g.Tokens != (session.Tokens{}) {
				t.Error("tokens came with the error")
			}
		})
	}
}

func TestConformanceUserinfoInvalidSub(t *testing.T) {
	s := newStand(t, withUserinfo)
	for _, sub := range []any{"mallory", "", nil, 7} {
		s.op.MutateUserinfo(func(c map[string]any) { c["sub"] = sub })
		_, err := s.signIn(t)
		wantProtocol(t, err, "userinfo", "sub")
	}
}

func TestConformanceScopeUserinfoClaims(t *testing.T) {
	s := newStand(t, withUserinfo)
	s.op.AddUser(idptest.User{Sub: "alice", UserinfoClaims: map[string]any{
		"name": "Alice L.", "email": "al@example.com", "email_verified": true, "groups": []string{"staff"},
	}})
	want := session.Identity{User: "alice", Email: "al@example.com", Name: "Alice L.", Groups: []string{"staff"}}
	if diff := cmp.Diff(want, s.mustSignIn(t).Identity); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

// TestConformanceClientAuthentication is -client-secret-basic and its like: one way, the right one, at once (S15, fact 7).
func TestConformanceClientAuthentication(t *testing.T) {
	tests := []struct {
		name      string
		supported any // nil: not in the metadata
		option    string
		public    bool
		want      string
	}{
		{name: "-client-secret-basic", supported: []string{"client_secret_post", "client_secret_basic"}, want: "client_secret_basic"},
		{name: "RFC 8414 default", want: "client_secret_basic"},
		{name: "post only", supported: []string{"private_key_jwt", "client_secret_post"}, want: "client_secret_post"},
		{name: "configured", supported: []string{"client_secret_basic"}, option: "client_secret_post", want: "client_secret_post"},
		{name: "public client", supported: []string{"client_secret_basic", "none"}, public: true, want: "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t, func(o *idp.Options) {
				o.ClientAuth = tt.option
				if tt.public {
					o.ClientSecret = nil
				}
			})
			c := idptest.Client{ID: "wiki", Secret: "s3cr:t/+%", AuthMethod: tt.want, RedirectURIs: []string{callback}}
			if tt.public {
				c.Secret = ""
			}
			s.op.AddClient(c)
			s.op.MutateMetadata(func(m map[string]any) {
				delete(m, "token_endpoint_auth_methods_supported")
				if tt.supported != nil {
					m["token_endpoint_auth_methods_supported"] = tt.supported
				}
			})
			g := s.mustSignIn(t)
			if _, err := s.Refresh(t.Context(), g); err != nil {
				t.Error(err)
			}
			requests := s.op.TokenRequests()
			if len(requests) != 2 {
				t.Errorf("got %d token requests, want 2", len(requests))
			}
			for _, r := range requests {
				basic, post := r.Header.Get("Authorization") != "", r.Form.Has("client_secret")
				if basic != (tt.want == "client_secret_basic") || post != (tt.want == "client_secret_post") {
					t.Errorf("got Basic %v and client_secret %v, want %s alone", basic, post, tt.want)
				}
			}
		})
	}
}

func TestConformanceDiscoveryIssuerMismatch(t *testing.T) {
	s := newStand(t)
	s.op.MutateMetadata(func(m map[string]any) { m["issuer"] = s.op.URL + "INVALID" })
	_, err := s.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
	if !errors.Is(err, idp.ErrNotDiscovered) || s.Discovered() || !strings.Contains(s.Problem(), "issuer") {
		t.Errorf("got %v, discovered %v, problem %q", err, s.Discovered(), s.Problem())
	}
}

func TestConformanceSigningKeyRotationJustBeforeSigning(t *testing.T) {
	s := newStand(t)
	b := idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}
	authURL, err := s.Begin(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	back := s.op.Visit(t, authURL)
	s.op.RotateKeys(false)
	if _, err := s.finish(t, b, back); err != nil {
		t.Error(err)
	}
}

func TestConformanceSigningKeyRotation(t *testing.T) {
	s := newStand(t)
	s.mustSignIn(t)
	s.mustSignIn(t)
	if n := s.op.Calls(idptest.JWKS); n != 1 {
		t.Errorf("got %d fetches of keys for a known key, want 1", n)
	}
	s.op.RotateKeys(false)
	s.mustSignIn(t)
	s.op.RotateKeys(true)
	s.mustSignIn(t)
	if n := s.op.Calls(idptest.JWKS); n != 3 {
		t.Errorf("got %d fetches of keys after two rotations, want 3", n)
	}
}

// TestConformanceAuthorizationResponse holds S25 and A10, A11, A12, A14, A15, A16: what comes back through the browser.
func TestConformanceAuthorizationResponse(t *testing.T) {
	tests := []struct {
		name    string
		change  func(url.Values)
		refused string
	}{
		{"fapi2 -invalid-authorization-response-iss", func(v url.Values) { v.Set("iss", "https://evil.example") }, "iss"},
		{"fapi2 -remove-authorization-response-iss", func(v url.Values) { v.Del("iss") }, "iss"},
		{"A10 iss with a slash", func(v url.Values) { v.Set("iss", v.Get("iss")+"/") }, "iss"},
		{"A10 iss empty", func(v url.Values) { v.Set("iss", "") }, "iss"},
		{"A10 iss twice", func(v url.Values) { v.Add("iss", v.Get("iss")) }, "iss more than once"},
		{"A11 code twice", func(v url.Values) { v.Add("code", v.Get("code")) }, "code more than once"},
		{"A11 state twice", func(v url.Values) { v.Add("state", v.Get("state")) }, "state more than once"},
		{"A14 neither code nor error", func(v url.Values) { v.Del("code") }, "neither"},
		{"A15 code of 64 KiB", func(v url.Values) { v.Set("code", strings.Repeat("c", 64<<10)) }, "more than"},
		{"A16 tokens and JARM", func(v url.Values) { v.Set("id_token", "x"); v.Set("access_token", "y"); v.Set("response", "z") }, ""},
		{"unknown parameters twice", func(v url.Values) { v["session_state"] = []string{"a", "b"} }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStand(t)
			b := idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}
			authURL, err := s.Begin(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			back := s.op.Visit(t, authURL)
			tt.change(back.Params)
			_, err = s.finish(t, b, back)
			if tt.refused == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantProtocol(t, err, tt.refused)
			if n := s.op.Calls(idptest.Token); n != 0 {
				t.Errorf("%d token requests were made", n)
			}
		})
	}
}

// TestMixUpErrorOfAnotherIssuer is A9 for error responses: an attacker's provider must not end attempts at this one.
func TestMixUpErrorOfAnotherIssuer(t *testing.T) {
	s := newStand(t)
	for _, iss := range []string{"https://evil.example", ""} {
		params := url.Values{"error": {"access_denied"}, "state": {"s"}}
		if iss != "" {
			params.Set("iss", iss)
		}
		_, err := s.Finish(t.Context(), idp.Finish{Params: params, Secret: newSecret(), RedirectURI: callback})
		wantProtocol(t, err, "iss")
	}
}

func TestIssNotAdvertised(t *testing.T) {
	s := newStand(t)
	s.op.SetIssParameter(false)
	s.mustSignIn(t) // absent is fine then
	s.op.MutateAuthorizeAnswer(func(v url.Values) { v.Set("iss", "https://evil.example") })
	_, err := s.signIn(t)
	wantProtocol(t, err, "iss") // wrong is not
}

func TestConformanceFormPost(t *testing.T) {
	post := newStand(t, func(o *idp.Options) { o.ResponseMode = "form_post" })
	g := post.mustSignIn(t)
	if g.Identity.User != "alice" {
		t.Errorf("got %+v", g.Identity)
	}
	query := newStand(t)
	// A13: each mode refuses the other's way in.
	for _, tt := range []struct {
		s      stand
		posted bool
	}{{post, false}, {query, true}} {
		_, err := tt.s.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c"}, "iss": {tt.s.op.URL}}, Posted: tt.posted, Secret: newSecret()})
		wantProtocol(t, err, "response_mode")
	}
	// -form-post-error
	post.op.RefuseSignIn("access_denied", "no\r\n\x1b[31mentry\u202e <b>")
	_, err := post.signIn(t)
	denied, ok := errors.AsType[*idp.AuthorizationError](err)
	if !ok || denied.Code != "access_denied" || strings.ContainsAny(denied.Description, "\r\n\x1b\u202e") {
		t.Errorf("got %+v (%v)", denied, err)
	}
}

// TestAuthorizationErrorWithAttackerText is A12.
func TestAuthorizationErrorWithAttackerText(t *testing.T) {
	s := newStand(t)
	_, err := s.Finish(t.Context(), idp.Finish{Secret: newSecret(), RedirectURI: callback, Params: url.Values{
		"iss": {s.op.URL}, "error": {"<script>alert(1)</script>"}, "error_description": {strings.Repeat("A", 4<<10)}, "code": {"c"},
	}})
	denied, ok := errors.AsType[*idp.AuthorizationError](err)
	if !ok || denied.Code != "unreadable" || len(denied.Description) > 300 || s.op.Calls(idptest.Token) != 0 {
		t.Errorf("got %+v (%v)", denied, err)
	}
}

func TestConformanceTokenAnswer(t *testing.T) {
	s := newStand(t)
	s.op.MutateTokenAnswer(func(m map[string]any) {
		delete(m, "expires_in")
		m["token_type"] = "bEARER"
		m["unheard_of"] = map[string]any{"x": 1}
	})
	g := s.mustSignIn(t)
	if !g.Tokens.Expiry.IsZero() {
		t.Errorf("got expiry %v without expires_in, want none", g.Tokens.Expiry)
	}
}

// TestConformanceRefreshToken is -refresh-token, -refresh-token-invalid-issuer and -refresh-token-invalid-sub.
func TestConformanceRefreshToken(t *testing.T) {
	s := newStand(t, withUserinfo)
	g := s.mustSignIn(t)
	next, err := s.Refresh(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(g, next, cmpopts.IgnoreFields(session.Tokens{}, "Access", "Refresh", "ID", "Obtained", "Expiry")); diff != "" {
		t.Errorf("grant (-before +after):\n%s", diff)
	}
	if next.Tokens.Access == g.Tokens.Access || next.Tokens.Refresh == g.Tokens.Refresh || next.Tokens.ID == g.Tokens.ID {
		t.Error("some token stayed the same")
	}
	if n := s.op.Calls(idptest.Userinfo); n != 2 {
		t.Errorf("got %d userinfo calls, want 2", n)
	}
	for _, name := range []string{"iss", "sub", "aud"} {
		g = s.mustSignIn(t)
		before := s.op.Calls(idptest.Userinfo)
		s.op.MutateIDToken(func(_, c map[string]any) { c[name] = c[name].(string) + "1" })
		_, err := s.Refresh(t.Context(), g)
		wantRefreshError(t, err, session.Invalid)
		if n := s.op.Calls(idptest.Userinfo); n != before {
			t.Errorf("%s: the new access token was used", name)
		}
		s.op.MutateIDToken(nil)
	}
}
