package idp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

// from says where claims come from, and what the rules are: pairs of names and rules.
func from(identity string, rules ...string) func(*idp.Options) {
	return func(o *idp.Options) {
		o.Identity = identity
		for i := 0; i+1 < len(rules); i += 2 {
			if o.Claims == nil {
				o.Claims = map[string]string{}
			}
			o.Claims[rules[i]] = rules[i+1]
		}
	}
}

func calls(list ...idp.UserinfoCall) func(*idp.Options) {
	return func(o *idp.Options) { o.UserinfoCalls = list }
}

// plainSignIn signs in at a provider that is not OpenID Connect, whose token endpoint answers with members beside the tokens.
func (s *script) plainSignIn(t *testing.T, p *idp.Provider, members map[string]any) (session.Grant, error) {
	t.Helper()
	body := map[string]any{"access_token": "access", "refresh_token": "refresh", "expires_in": 60}
	maps.Copy(body, members)
	s.answer("/token", 200, body)
	return p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c0de"}, "state": {"some-state"}}, Secret: newSecret(), RedirectURI: callback})
}

// refreshed refreshes a grant; the token endpoint answers with members beside the tokens.
func (s *script) refreshed(t *testing.T, p *idp.Provider, prev session.Grant, members map[string]any) (session.Grant, error) {
	t.Helper()
	body := map[string]any{"access_token": "access-2", "expires_in": 60}
	maps.Copy(body, members)
	s.answer("/token", 200, body)
	return p.Refresh(t.Context(), prev)
}

func parsed(t testing.TB, text string) (m map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// TestIdentityKinds signs in at plain OAuth 2.0 providers, each of which says in its own place who the person is.
func TestIdentityKinds(t *testing.T) {
	member := func(name string, value any) map[string]any { return map[string]any{name: value} }
	token := func(payload string) map[string]any { return member("access_token", jwt(payload)) }
	tests := []struct {
		name     string
		options  func(*idp.Options)
		members  map[string]any
		userinfo string
		introspe string
		want     session.Identity
		refuse   []string // words of the ProtocolError
	}{
		{name: "userinfo by default rules", options: from("userinfo"), userinfo: `{"sub":"u1","name":"N","groups":["g"]}`,
			want: session.Identity{User: "u1", Name: "N", Groups: []string{"g"}}},
		{name: "userinfo: numbers", options: from("userinfo", "user", "id"), userinfo: `{"id":583231}`, want: session.Identity{User: "583231"}},
		{name: "userinfo: nested", options: from("userinfo", "user", "data.id", "groups", "data.teams.name"),
			userinfo: `{"data":{"id":"7","teams":[{"name":"a"},{"name":"b"}]}}`, want: session.Identity{User: "7", Groups: []string{"a", "b"}}},
		{name: "userinfo: no user", options: from("userinfo"), userinfo: `{"id":1}`, refuse: []string{"identity", "userinfo", "claims.user"}},
		{name: "userinfo: user mapped, absent", options: from("userinfo", "user", "login"), userinfo: `{"sub":"u1"}`, refuse: []string{"claims.user"}},
		{name: "userinfo: user null", options: from("userinfo", "user", "login"), userinfo: `{"login":null}`, refuse: []string{"claims.user"}},
		{name: "userinfo: user empty", options: from("userinfo", "user", "login"), userinfo: `{"login":""}`, refuse: []string{"claims.user"}},
		{name: "userinfo: user fails", options: from("userinfo", "user", "names[3]"), userinfo: `{"names":[]}`, refuse: []string{"claims.user"}},
		{name: "userinfo: user a list", options: from("userinfo", "user", "names"), userinfo: `{"names":["a"]}`, refuse: []string{"claims.user", "[0]"}},
		{name: "userinfo: user true", options: from("userinfo", "user", "ok"), userinfo: `{"ok":true}`, refuse: []string{"claims.user"}},
		{name: "userinfo: user an object", options: from("userinfo", "user", "ok"), userinfo: `{"ok":{"a":1}}`, refuse: []string{"claims.user"}},
		{name: "S51 user with a line break", options: from("userinfo"), userinfo: `{"sub":"a\r\nX-Admin: 1"}`, refuse: []string{"claims.user"}},
		{name: "S51 user with NUL", options: from("userinfo"), userinfo: `{"sub":"a\u0000"}`, refuse: []string{"claims.user"}},
		{name: "user with space around it", options: from("userinfo"), userinfo: `{"sub":"admin "}`, refuse: []string{"claims.user", "space"}},
		{name: "user too long", options: from("userinfo"), userinfo: `{"sub":"` + strings.Repeat("a", 256) + `"}`, refuse: []string{"claims.user"}},
		{name: "other members that fail are absent", options: from("userinfo", "name", "a.b + c", "groups", "x[0]", "email", "emails[0]"), userinfo: `{"sub":"u1"}`,
			want: session.Identity{User: "u1"}},
		{name: "A83 too many groups", options: from("userinfo", "groups", "g.map(x, x)"), userinfo: `{"sub":"u1","g":[` + strings.Repeat(`"a",`, 10_000) + `"a"]}`,
			refuse: []string{"groups"}},
		{name: "A83 too many groups through objects", options: from("userinfo", "groups", "g.n"), userinfo: `{"sub":"u1","g":[` + strings.Repeat(`{"n":"a"},`, 10_000) + `{"n":"a"}]}`,
			refuse: []string{"groups"}},
		{name: "A83 overage is not fetched", options: from("userinfo"), userinfo: `{"sub":"u1","_claim_names":{"groups":"src"},"_claim_sources":{"src":{"endpoint":"https://169.254.169.254/"}}}`,
			want: session.Identity{User: "u1"}},

		{name: "token answer (LikeCoin)", options: from("token_response", "user", "user", "name", "displayName"),
			members: map[string]any{"user": "ckxpress", "displayName": "CK", "avatar": "https://like.co/a.png"}, want: session.Identity{User: "ckxpress", Name: "CK"}},
		{name: "token answer, nested", options: from("token_response", "user", "authed_user.id"), members: member("authed_user", map[string]any{"id": "U1"}), want: session.Identity{User: "U1"}},
		{name: "token answer without the person", options: from("token_response", "user", "user"), refuse: []string{"token_response", "claims.user"}},
		{name: "tokens are no members", options: from("token_response", "user", "access_token"), refuse: []string{"claims.user"}},
		{name: "nor is the refresh token", options: from("token_response", "user", "claims.refresh_token + ''"), refuse: []string{"claims.user"}},

		{name: "access token", options: from("access_token"), members: token(`{"sub":"u1","groups":["g"]}`), want: session.Identity{User: "u1", Groups: []string{"g"}}},
		{name: "access token, mapped", options: from("access_token", "user", "user"), members: token(`{"sub":"s","user":"u1"}`), want: session.Identity{User: "u1"}},
		{name: "access token with padding", options: from("access_token"), members: member("access_token", "e30.eyJzdWIiOiJhYiJ9Cg==.x"), want: session.Identity{User: "ab"}},
		{name: "access token without sub (GearCode)", options: from("access_token"), members: token(`{"scope":"x"}`), want: session.Identity{}},
		{name: "access token with sub null", options: from("access_token"), members: token(`{"sub":null}`), want: session.Identity{}},
		{name: "access token with a sub that is no name", options: from("access_token"), members: token(`{"sub":{"id":1}}`), refuse: []string{"claims.user"}},
		{name: "access token without the mapped user", options: from("access_token", "user", "sub"), members: token(`{"scope":"x"}`), refuse: []string{"access_token", "claims.user"}},
		{name: "opaque access token", options: from("access_token"), refuse: []string{"identity", "not a JWT"}},
		{name: "opaque access token with dots", options: from("access_token"), members: member("access_token", "a.b.c"), refuse: []string{"identity", "not a JWT"}},
		{name: "encrypted access token", options: from("access_token"), members: member("access_token", "e30.e30.e30.e30.e30"), refuse: []string{"identity", "not a JWT"}},
		{name: "access token that holds a list", options: from("access_token"), members: token(`["u1"]`), refuse: []string{"identity", "not a JWT"}},
		{name: "access token that holds two values", options: from("access_token"), members: token(`{"sub":"u1"}{"sub":"u2"}`), refuse: []string{"identity", "not a JWT"}},

		{name: "introspection", options: from("introspection"), introspe: `{"active":true,"sub":"u1","exp":1795262460}`, want: session.Identity{User: "u1"}},
		{name: "introspection, mapped", options: from("introspection", "user", "username", "groups", `claims.scope.split(" ")`), introspe: `{"active":true,"username":"u1","scope":"a b"}`,
			want: session.Identity{User: "u1", Groups: []string{"a", "b"}}},
		{name: "introspection without a user", options: from("introspection"), introspe: `{"active":true,"username":"u1"}`, refuse: []string{"introspection", "claims.user"}},
		{name: "introspection: inactive", options: from("introspection"), introspe: `{"active":false,"sub":"u1"}`, refuse: []string{"introspection", "not active"}},
		{name: "introspection: active as text", options: from("introspection"), introspe: `{"active":"true","sub":"u1"}`, refuse: []string{"introspection", "not active"}},
		{name: "introspection: active as number", options: from("introspection"), introspe: `{"active":1,"sub":"u1"}`, refuse: []string{"introspection", "not active"}},
		{name: "introspection: active missing", options: from("introspection"), introspe: `{"sub":"u1"}`, refuse: []string{"introspection", "not active"}},
		{name: "introspection: expired", options: from("introspection"), introspe: `{"active":true,"sub":"u1","exp":1495262460}`, refuse: []string{"introspection", "expired"}},
		{name: "introspection: exp a text", options: from("introspection"), introspe: `{"active":true,"sub":"u1","exp":"never"}`, refuse: []string{"introspection", "exp"}},
		{name: "introspection: not yet", options: from("introspection"), introspe: `{"active":true,"sub":"u1","nbf":1999999999}`, refuse: []string{"introspection", "nbf"}},
		{name: "introspection: a list", options: from("introspection"), introspe: `[{"active":true}]`, refuse: []string{"introspection"}},

		{name: "none", options: from("none"), members: map[string]any{"user": "u1", "sub": "u1", "access_token": jwt(`{"sub":"u1","groups":["g"]}`)}, userinfo: `{"sub":"u1"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t, tt.options)
			userinfo := s.record("/me", 200, tt.userinfo)
			introspected := s.record("/introspect", 200, tt.introspe)
			g, err := s.plainSignIn(t, p, tt.members)
			if tt.refuse != nil {
				wantProtocol(t, err, tt.refuse...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, g.Identity); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
			if g.Issuer != "oauth2:"+scriptIssuer+"/token?v=2" || g.Subject != tt.want.User || g.SID != "" || g.ACR != "" || !g.AuthTime.IsZero() {
				t.Errorf("issuer %q, subject %q, sid %q, acr %q, auth_time %v", g.Issuer, g.Subject, g.SID, g.ACR, g.AuthTime)
			}
			for _, r := range *userinfo {
				if r.method != "GET" || r.query != "" || r.header.Get("Authorization") != "Bearer access" || r.header.Get("Accept") != "application/json" {
					t.Errorf("userinfo request %+v", r)
				}
			}
			for _, r := range *introspected {
				// RFC 7662 section 2.1; the client authenticates as it does elsewhere.
				if r.method != "POST" || r.query != "" || r.user != "wiki" || r.body.Get("token") != "access" || r.body.Get("token_type_hint") != "access_token" {
					t.Errorf("introspection request %+v", r)
				}
			}
			if tt.name == "none" && len(*userinfo)+len(*introspected) != 0 {
				t.Error("someone was asked who it is")
			}
		})
	}
}

// TestExtraClaims: names that are none of an identity's own are kept beside it, as texts.
func TestExtraClaims(t *testing.T) {
	s, p := plain(t, from("token_response", "user", "user", "picture", "avatar", "level", "n", "staff", "is_staff", "roles", `r.join(" ")`,
		"list", "r", "long", "long", "absent", "absent", "bad", "bad", "failing", "a.b + 1"))
	g, err := s.plainSignIn(t, p, map[string]any{
		"user": "u1", "avatar": "https://like.co/a.png", "n": 7, "is_staff": true, "r": []string{"a", "b"}, "long": strings.Repeat("x", 1025), "bad": "a\nb",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"picture": "https://like.co/a.png", "level": "7", "staff": "true", "roles": "a b"}
	if diff := cmp.Diff(want, g.Extra); diff != "" {
		t.Errorf("extra (-want +got):\n%s", diff)
	}
	next, err := s.refreshed(t, p, g, map[string]any{"user": "u1", "avatar": "new"})
	if diff := cmp.Diff(map[string]string{"picture": "new"}, next.Extra); err != nil || diff != "" {
		t.Errorf("refreshed: %v, extra (-want +got):\n%s", err, diff)
	}
	kept, err := s.refreshed(t, p, g, nil)
	if diff := cmp.Diff(want, kept.Extra); err != nil || diff != "" {
		t.Errorf("refreshed without the person: %v, extra (-want +got):\n%s", err, diff)
	}
}

// TestPlainEmail holds A81 where there is no OpenID Connect: the default wants the provider's word, a rule is the operator's.
func TestPlainEmail(t *testing.T) {
	tests := []struct {
		name, userinfo, rule string
		assume               bool
		want                 string
	}{
		{name: "default, verified", userinfo: `{"email":"a@b.c","email_verified":true}`, want: "a@b.c"},
		{name: "A81 default, absent", userinfo: `{"email":"a@b.c"}`},
		{name: "A81 default, null", userinfo: `{"email":"a@b.c","email_verified":null}`},
		{name: "default, assumed", userinfo: `{"email":"a@b.c"}`, assume: true, want: "a@b.c"},
		{name: "rule", userinfo: `{"email":"a@b.c"}`, rule: "email", want: "a@b.c"},
		{name: "rule for another place", userinfo: `{"mail":["a@b.c"]}`, rule: "mail[0]", want: "a@b.c"},
		{name: "A81 rule, false", userinfo: `{"email":"a@b.c","email_verified":false}`, rule: "email"},
		{name: "A81 rule, false as text", userinfo: `{"email":"a@b.c","email_verified":"false"}`, rule: "email"},
		{name: "A81 rule, 0", userinfo: `{"email":"a@b.c","email_verified":0}`, rule: "email"},
		{name: "A81 rule for another place, false", userinfo: `{"mail":"a@b.c","email_verified":false}`, rule: "mail"},
		{name: "A81 rule, assumed, false", userinfo: `{"email":"a@b.c","email_verified":false}`, rule: "email", assume: true},
		{name: "rule with a condition", userinfo: `{"email":"a@b.c","verified":true}`, rule: `verified ? email : ""`, want: "a@b.c"},
		{name: "A81 rule with a condition that fails", userinfo: `{"email":"a@b.c","verified":false}`, rule: `verified ? email : ""`},
		{name: "A82 two @", userinfo: `{"email":"a@evil.com@corp.com"}`, rule: "email"},
		{name: "A82 space", userinfo: `{"email":"a b@corp.com"}`, rule: "email"},
		{name: "A82 no local part", userinfo: `{"email":"@corp.com"}`, rule: "email"},
		{name: "A82 no @", userinfo: `{"email":"corp.com"}`, rule: "email"},
		{name: "A82 line break", userinfo: `{"email":"a@b.c\nx: y"}`, rule: "email"},
		{name: "a list", userinfo: `{"emails":[{"email":"a@b.c"}]}`, rule: "emails.email"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t, from("userinfo"), func(o *idp.Options) {
				o.AssumeEmailVerified = tt.assume
				if tt.rule != "" {
					o.Claims = map[string]string{"email": tt.rule}
				}
			})
			s.answer("/me", 200, `{"sub":"u1",`+tt.userinfo[1:])
			g, err := s.plainSignIn(t, p, nil)
			if err != nil || g.Identity.Email != tt.want {
				t.Errorf("got %q, %v, want %q", g.Identity.Email, err, tt.want)
			}
		})
	}
}

// TestMappedOpenID: rules change who an OpenID Connect provider's people are called, never whose session it is.
func TestMappedOpenID(t *testing.T) {
	tests := []struct {
		name    string
		options func(*idp.Options)
		claims  string
		members map[string]any // of the token answer
		want    session.Identity
		refuse  []string
	}{
		{name: "user", options: from("id_token", "user", "preferred_username"), claims: `{"preferred_username":"al"}`, want: session.Identity{User: "al", PreferredUsername: "al"}},
		{name: "user absent", options: from("id_token", "user", "upn"), claims: `{}`, refuse: []string{"id_token", "claims.user"}},
		{name: "groups (Keycloak)", options: from("id_token", "groups", "realm_access.roles"), claims: `{"realm_access":{"roles":["r"]},"groups":["not"]}`,
			want: session.Identity{User: "alice", Groups: []string{"r"}}},
		{name: "groups (Auth0)", options: from("id_token", "groups", "https://corp.example/groups"), claims: `{"https://corp.example/groups":["r"]}`,
			want: session.Identity{User: "alice", Groups: []string{"r"}}},
		{name: "A81 user is an address nobody vouches for", options: from("id_token", "user", "email"), claims: `{"email":"boss@corp"}`, refuse: []string{"claims.user", "email_verified"}},
		{name: "A81 user is a false address", options: from("id_token", "user", "email"), claims: `{"email":"boss@corp","email_verified":false}`, refuse: []string{"claims.user", "email_verified"}},
		{name: "A81 user by claims.email", options: from("id_token", "user", "claims.email"), claims: `{"email":"boss@corp"}`, refuse: []string{"claims.user", "email_verified"}},
		{name: "user is a verified address", options: from("id_token", "user", "email"), claims: `{"email":"a@b.c","email_verified":true}`, want: session.Identity{User: "a@b.c", Email: "a@b.c"}},
		{name: "A81 writing email out is no word about it", options: from("id_token", "email", "email"), claims: `{"email":"a@b.c"}`, want: session.Identity{User: "alice"}},
		{name: "A81 nor is claims.email", options: from("id_token", "email", "claims.email"), claims: `{"email":"a@b.c"}`, want: session.Identity{User: "alice"}},
		{name: "another claim for addresses is", options: from("id_token", "email", "upn"), claims: `{"upn":"a@b.c"}`, want: session.Identity{User: "alice", Email: "a@b.c"}},
		{name: "A81 unless the provider says no", options: from("id_token", "email", "upn"), claims: `{"upn":"a@b.c","email_verified":false}`, want: session.Identity{User: "alice"}},

		{name: "access token beside the ID token", options: from("access_token", "groups", "realm_access.roles"), claims: `{"name":"A"}`,
			members: map[string]any{"access_token": jwt(`{"realm_access":{"roles":["r"]},"sub":"other","sid":"other","acr":"other","iss":"other"}`)},
			want:    session.Identity{User: "alice", Name: "A", Groups: []string{"r"}}},
		{name: "A81 an address of the access token is not verified by the ID token", options: from("access_token"), claims: `{"email":"a@b.c","email_verified":true}`,
			members: map[string]any{"access_token": jwt(`{"email":"root@corp"}`)}, want: session.Identity{User: "alice"}},
		{name: "A81 a word about no address is none about the ID token's", options: from("access_token"), claims: `{"email":"root@corp"}`,
			members: map[string]any{"access_token": jwt(`{"email_verified":true}`)}, want: session.Identity{User: "alice"}},
		{name: "A81 but that it is not verified is believed", options: from("access_token"), claims: `{"email":"a@b.c","email_verified":true}`,
			members: map[string]any{"access_token": jwt(`{"email_verified":false}`)}, want: session.Identity{User: "alice"}},
		{name: "token answer beside the ID token", options: from("token_response", "name", "nick"), claims: `{}`, members: map[string]any{"nick": "A", "sub": "mallory"},
			want: session.Identity{User: "alice", Name: "A"}},
		{name: "none", options: from("none"), claims: `{"name":"A","groups":["g"],"email":"a@b.c","email_verified":true}`, want: session.Identity{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t, tt.options)
			b, claims := attempt(t, t.Context(), p, today)
			maps.Copy(claims, parsed(t, tt.claims))
			claims["sid"] = "s-1"
			g, err := s.complete(t, t.Context(), p, b, sign(t, s.key, claims), tt.members)
			if tt.refuse != nil {
				wantProtocol(t, err, tt.refuse...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, g.Identity); diff != "" || g.Subject != "alice" || g.Issuer != scriptIssuer || g.SID != "s-1" || g.ACR != "" {
				t.Errorf("subject %q, issuer %q, sid %q, acr %q, identity (-want +got):\n%s", g.Subject, g.Issuer, g.SID, g.ACR, diff)
			}
		})
	}
}

// TestRefreshedIdentity: claims are looked at again at every refresh, and the session stays the person's own.
func TestRefreshedIdentity(t *testing.T) {
	alice := session.Identity{User: "alice", Name: "A", Groups: []string{"g"}}
	const she = `{"sub":"alice","name":"A","groups":["g"]}`
	type members = map[string]any
	tests := []struct {
		name     string
		options  func(*idp.Options)
		answer   members
		userinfo string // also what introspection answers
		status   int
		want     session.Identity
		invalid  bool
	}{
		{name: "userinfo: new groups", options: from("userinfo"), userinfo: `{"sub":"alice","groups":["new"]}`, want: session.Identity{User: "alice", Groups: []string{"new"}}},
		{name: "userinfo: no groups any more", options: from("userinfo"), userinfo: `{"sub":"alice"}`, want: session.Identity{User: "alice"}},
		{name: "userinfo: someone else", options: from("userinfo"), userinfo: `{"sub":"mallory"}`, invalid: true},
		{name: "userinfo: nobody", options: from("userinfo"), userinfo: `{}`, invalid: true},
		{name: "userinfo: refused", options: from("userinfo"), status: 401, invalid: true},
		{name: "userinfo: down", options: from("userinfo"), status: 502, want: alice},
		{name: "userinfo: busy", options: from("userinfo"), status: 429, want: alice},
		{name: "token answer without the person", options: from("token_response"), answer: members{"name": "ignored", "groups": []string{"ignored"}}, want: alice},
		{name: "token answer with the person", options: from("token_response"), answer: members{"sub": "alice", "groups": []string{"new"}}, want: session.Identity{User: "alice", Groups: []string{"new"}}},
		{name: "token answer with someone else", options: from("token_response"), answer: members{"sub": "mallory"}, invalid: true},
		{name: "token answer with a bad name", options: from("token_response"), answer: members{"sub": "a\nb"}, invalid: true},
		{name: "access token", options: from("access_token"), answer: members{"access_token": jwt(`{"sub":"alice","name":"New"}`)}, want: session.Identity{User: "alice", Name: "New"}},
		{name: "access token without sub", options: from("access_token"), answer: members{"access_token": jwt(`{}`)}, want: alice},
		{name: "access token of someone else", options: from("access_token"), answer: members{"access_token": jwt(`{"sub":"mallory"}`)}, invalid: true},
		{name: "access token that became opaque", options: from("access_token"), answer: members{"access_token": "opaque"}, invalid: true},
		{name: "introspection", options: from("introspection"), userinfo: `{"active":true,"sub":"alice","name":"New"}`, want: session.Identity{User: "alice", Name: "New"}},
		{name: "introspection of someone else", options: from("introspection"), userinfo: `{"active":true,"sub":"mallory"}`, invalid: true},
		{name: "introspection: inactive", options: from("introspection"), userinfo: `{"active":false}`, invalid: true},
		{name: "introspection: down", options: from("introspection"), status: 503, want: alice},
		{name: "introspection: client refused", options: from("introspection"), status: 401, invalid: true},
		{name: "none", options: from("none"), want: session.Identity{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t, tt.options)
			s.answer("/me", 200, she)
			s.answer("/introspect", 200, `{"active":true,`+she[1:])
			first := parsed(t, she)
			first["access_token"] = jwt(she)
			prev, err := s.plainSignIn(t, p, first)
			if err != nil {
				t.Fatal(err)
			}
			status := tt.status
			if status == 0 {
				status = 200
			}
			s.answer("/me", status, tt.userinfo)
			s.answer("/introspect", status, tt.userinfo)
			got, err := s.refreshed(t, p, prev, tt.answer)
			if tt.invalid {
				wantRefreshError(t, err, session.Invalid)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := prev
			want.Identity, want.Tokens = tt.want, got.Tokens
			if diff := diffGrant(want, got); diff != "" {
				t.Errorf("grant (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(got.Tokens.Access, "access-2") && tt.answer["access_token"] != got.Tokens.Access || got.Tokens.Refresh != "refresh" {
				t.Errorf("tokens %+v", got.Tokens)
			}
		})
	}
}

// TestTypedName: where the provider does not say who it is, it is the name whose password it took (BreakOut).
func TestTypedName(t *testing.T) {
	tests := []struct {
		name, userinfo, typed string
		rules                 []string
		want                  session.Identity
		refuse                bool
	}{
		{name: "the provider's word comes first", userinfo: `{"email":"real@x.y"}`, typed: "typed@x.y", rules: []string{"user", "email", "email", "email"},
			want: session.Identity{User: "real@x.y", Email: "real@x.y"}},
		{name: "typed", userinfo: `{"id":7}`, typed: "typed@x.y", rules: []string{"user", "email", "email", "email"}, want: session.Identity{User: "typed@x.y", Email: "typed@x.y"}},
		{name: "typed, no address", userinfo: `{"id":7}`, typed: "bob", rules: []string{"user", "email", "email", "email"}, want: session.Identity{User: "bob"}},
		{name: "A81 a typed address is not believed by default", userinfo: `{"id":7}`, typed: "ceo@corp", want: session.Identity{User: "ceo@corp"}},
		{name: "A81 nor when the provider says no", userinfo: `{"email_verified":false}`, typed: "ceo@corp", rules: []string{"email", "email"}, want: session.Identity{User: "ceo@corp"}},
		{name: "A81 nor by a word about another address", userinfo: `{"email_verified":true}`, typed: "ceo@corp", want: session.Identity{User: "ceo@corp"}},
		{name: "A81 nor by a word about an empty one", userinfo: `{"email":"","email_verified":true}`, typed: "ceo@corp", want: session.Identity{User: "ceo@corp"}},
		{name: "typed for no name is not a way round a bad one", userinfo: `{"sub":"a\nb"}`, typed: "bob", refuse: true},
		{name: "space around it", userinfo: `{}`, typed: " admin", refuse: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t, from("userinfo", tt.rules...), func(o *idp.Options) { o.Grant, o.OAuth2.Authorize = "password", "" })
			s.answer("/me", 200, tt.userinfo)
			s.answer("/token", 200, map[string]any{"access_token": "access", "refresh_token": "refresh", "expires_in": 60})
			g, err := p.Password(t.Context(), tt.typed, "hunter2")
			if tt.refuse {
				wantProtocol(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, g.Identity); diff != "" || g.Subject != tt.want.User {
				t.Errorf("subject %q, identity (-want +got):\n%s", g.Subject, diff)
			}
			next, err := s.refreshed(t, p, g, nil)
			if diff := cmp.Diff(tt.want, next.Identity); err != nil || diff != "" || next.Subject != g.Subject {
				t.Errorf("refreshed: subject %q, %v, identity (-want +got):\n%s", next.Subject, err, diff)
			}
		})
	}
}

// TestIdentityFailures tells a provider that is down from one that refuses, in introspection; userinfo has its own test.
func TestIdentityFailures(t *testing.T) {
	s, p := plain(t, from("introspection"))
	for _, status := range []int{500, 502, 503, 429, 404, 302} {
		s.answer("/introspect", status, `{"active":true,"sub":"u1"}`)
		_, err := s.plainSignIn(t, p, nil)
		wantUnavailable(t, err)
	}
	for _, status := range []int{401, 403} {
		s.answer("/introspect", status, `{"active":true,"sub":"u1"}`)
		_, err := s.plainSignIn(t, p, nil)
		wantProtocol(t, err, "introspection", "client_secret")
	}
	s.set("/introspect", func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	_, err := s.plainSignIn(t, p, nil)
	if wantUnavailable(t, err); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v does not tell why", err)
	}
}

func TestIdentityOptionsRefused(t *testing.T) {
	url := scriptIssuer + "/emails"
	tests := []struct {
		word   string
		change func(*idp.Options)
	}{
		{"claims.user", from("userinfo", "user", "a b")},
		{"identity: none", from("none", "user", "sub")},
		{"identity: none", calls(idp.UserinfoCall{URL: url, As: "emails"})},
		{"as: \"e-mails\"", calls(idp.UserinfoCall{URL: url, As: "e-mails"})},
		{"as: sub", calls(idp.UserinfoCall{URL: url, As: "sub"})},
		{"as: email_verified", calls(idp.UserinfoCall{URL: url, As: "email_verified"})},
		{"as: claims", calls(idp.UserinfoCall{URL: url, As: "claims"})},
		{"two calls", calls(idp.UserinfoCall{URL: url}, idp.UserinfoCall{URL: url})},
		{"two calls", calls(idp.UserinfoCall{URL: url, As: "a"}, idp.UserinfoCall{URL: url, As: "a"})},
		{"https", calls(idp.UserinfoCall{URL: "http://id.example.com/emails", As: "a"})},
		{"more than 8", calls(make([]idp.UserinfoCall, 9)...)},
	}
	for _, tt := range tests {
		o := plainOptions()
		if !strings.Contains(tt.word, "none") {
			o.Identity = "userinfo"
		}
		tt.change(&o)
		if _, err := idp.New(o); err == nil || !strings.Contains(err.Error(), tt.word) {
			t.Errorf("got %v, want an error of %q", err, tt.word)
		}
	}
}

// TestIdentityLogsNoValues: what claims hold is nobody's business but the application's.
func TestIdentityLogsNoValues(t *testing.T) {
	var log strings.Builder
	s, p := plain(t, from("userinfo", "user", "id", "name", "string(int(hush))", "groups", "hush + ['x']", "email", "hush", "picture", "list", "other", "hush[0]"), func(o *idp.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	s.answer("/me", 200, `{"id":"u1","hush":"hush-hush","list":["hush-hush"]}`)
	g, err := s.plainSignIn(t, p, nil)
	if err != nil || g.Identity.User != "u1" {
		t.Fatalf("got %+v, %v", g.Identity, err)
	}
	if strings.Contains(log.String(), "hush-hush") {
		t.Errorf("log holds a value:\n%s", log.String())
	}
	for _, member := range []string{"name", "groups", "email", "picture", "other"} {
		if !strings.Contains(log.String(), "claim="+member) {
			t.Errorf("log does not say that %s is absent:\n%s", member, log.String())
		}
	}
	s.answer("/me", 200, `{"id":["hush-hush"]}`)
	if _, err := s.plainSignIn(t, p, nil); err == nil || strings.Contains(err.Error(), "hush-hush") {
		t.Errorf("error %v", err)
	}
}

// TestIntrospectionExpiry: the token lasts no longer than introspection says, nor than the token endpoint said.
func TestIntrospectionExpiry(t *testing.T) {
	in := func(d time.Duration) time.Time { return today.Add(d) }
	for _, tt := range []struct {
		expiresIn any
		exp       time.Time
		want      time.Time
	}{
		{nil, in(time.Minute), in(time.Minute)},
		{60, in(time.Hour), in(time.Minute)},
		{3600, in(time.Minute), in(time.Minute)},
		{3600, time.Time{}, in(time.Hour)},
		{nil, time.Time{}, time.Time{}},
	} {
		s, p := plain(t, from("introspection"))
		says := map[string]any{"active": true, "sub": "u1"}
		if !tt.exp.IsZero() {
			says["exp"] = tt.exp.Unix()
		}
		s.answer("/introspect", 200, says)
		g, err := s.plainSignIn(t, p, map[string]any{"expires_in": tt.expiresIn})
		if err != nil || !g.Tokens.Expiry.Equal(tt.want) {
			t.Errorf("expires_in %v, exp %v: got %v, %v, want %v", tt.expiresIn, tt.exp, g.Tokens.Expiry, err, tt.want)
		}
		g.Tokens.Expiry = today // an older one says nothing about the new token
		next, err := s.refreshed(t, p, g, map[string]any{"expires_in": tt.expiresIn})
		if err != nil || !next.Tokens.Expiry.Equal(tt.want) {
			t.Errorf("refreshed, expires_in %v, exp %v: got %v, %v, want %v", tt.expiresIn, tt.exp, next.Tokens.Expiry, err, tt.want)
		}
		s.answer("/introspect", 503, "")
		next, err = s.refreshed(t, p, g, map[string]any{"expires_in": 120})
		if err != nil || !next.Tokens.Expiry.Equal(in(2*time.Minute)) {
			t.Errorf("refreshed while introspection was down: got %v, %v", next.Tokens.Expiry, err)
		}
	}
}

// TestIntrospectionClientAuth: the client proves who it is as it does at the token endpoint, and never in the address.
func TestIntrospectionClientAuth(t *testing.T) {
	s, p := plain(t, from("introspection"), func(o *idp.Options) { o.ClientAuth, o.TokenRequest = "client_secret_post", "query" })
	got := s.record("/introspect", 200, `{"active":true,"sub":"u1"}`)
	if _, err := s.plainSignIn(t, p, nil); err != nil {
		t.Fatal(err)
	}
	r := (*got)[0]
	if r.query != "" || r.header.Get("Authorization") != "" || r.body.Get("client_secret") != "s3cr:t/+%" || r.body.Get("client_id") != "wiki" {
		t.Errorf("request %+v", r)
	}
}

// TestIdentityWithinTime: many calls that each take nearly their whole time do not add up.
func TestIdentityWithinTime(t *testing.T) {
	var list []idp.UserinfoCall
	for i := range 8 {
		list = append(list, idp.UserinfoCall{URL: scriptIssuer + "/slow", As: fmt.Sprintf("c%d", i)})
	}
	s, p := plain(t, from("userinfo"), calls(list...), func(o *idp.Options) { o.Timeout = 40 * time.Millisecond })
	s.answer("/me", 200, `{"sub":"u1"}`)
	s.set("/slow", func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done() // its own limit, or the one of all calls
		return reply(200, "[]"), nil
	})
	_, err := s.plainSignIn(t, p, nil)
	wantUnavailable(t, err)
	if n := s.count("/slow"); n > 3 {
		t.Errorf("%d slow calls were made", n)
	}
}
