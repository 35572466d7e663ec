package idp_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

func withPassword(o *idp.Options) {
	o.Grant, o.Scopes = "password", []string{"read", "write"}
	o.OAuth2.Authorize = ""
}

// TestPasswordRequest holds RFC 6749 section 4.3.2, byte for byte.
func TestPasswordRequest(t *testing.T) {
	s, p := plain(t, withPassword, func(o *idp.Options) { o.TokenParams = map[string]string{"tenant": "7"} })
	got := s.record("/token", 200, `{"access_token":"a","token_type":"bearer","refresh_token":"r","expires_in":42961,"scope":"read write"}`)
	g, err := p.Password(t.Context(), "me@example.com", "pä ss+&=")
	if err != nil {
		t.Fatal(err)
	}
	want := session.Tokens{Access: "a", Refresh: "r", Scope: "read write", Obtained: today, Expiry: today.Add(42961e9)}
	if diff := cmp.Diff(want, g.Tokens); diff != "" || g.Issuer != p.Issuer() {
		t.Errorf("%s: tokens (-want +got):\n%s", g.Issuer, diff)
	}
	r := (*got)[0]
	if body := r.body.Encode(); body != "grant_type=password&password=p%C3%A4+ss%2B%26%3D&scope=read+write&tenant=7&username=me%40example.com" {
		t.Errorf("got %s", body)
	}
	if r.user != "wiki" || r.header.Get("Accept") != "application/json" || r.header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		t.Errorf("got %+v", r)
	}
	if _, err := p.Refresh(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if body := (*got)[1].body.Encode(); body != "grant_type=refresh_token&refresh_token=r&tenant=7" {
		t.Errorf("got %s", body)
	}
}

// TestPasswordRefused: whatever a provider says about a user or a password, the answer is one and the same.
func TestPasswordRefused(t *testing.T) {
	refusals := map[string]*http.Response{
		"RFC 6749":             reply(400, `{"error":"invalid_grant","error_description":"Bad credentials for CANARY"}`),
		"401":                  reply(401, `{"error":"invalid_grant"}`),
		"200":                  reply(200, `{"error":"invalid_grant"}`),
		"Spring, unknown user": reply(401, `{"error":"unauthorized","error_description":"CANARY"}`),
		"access_denied":        reply(403, `{"error":"access_denied"}`),
		"page":                 reply(401, `CANARY`),
		"403":                  reply(403, ``),
		"400":                  reply(400, `{"message":"CANARY"}`),
	}
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var first error
	for name, answer := range refusals {
		s, p := plain(t, withPassword, func(o *idp.Options) { o.Log = log })
		s.set("/token", func(*http.Request) (*http.Response, error) { return answer, nil })
		_, err := p.Password(t.Context(), "CANARY@example.com", "CANARY")
		refused, ok := errors.AsType[*idp.AuthorizationError](err)
		if !ok || refused.Code != "invalid_grant" {
			t.Errorf("%s: got %v (%T)", name, err, err)
			continue
		}
		if first == nil {
			first = err
		}
		if diff := cmp.Diff(first, err); diff != "" {
			t.Errorf("%s: another answer than the others (-first +this):\n%s", name, diff)
		}
	}
	for name, want := range map[string]struct {
		answer *http.Response
		down   bool
	}{
		"invalid_client":         {reply(401, `{"error":"invalid_client"}`), false},
		"unauthorized_client":    {reply(400, `{"error":"unauthorized_client"}`), false},
		"unsupported_grant_type": {reply(400, `{"error":"unsupported_grant_type"}`), false},
		"not found":              {reply(404, `x`), false},
		"garbage":                {reply(200, `x`), false},
		"busy":                   {reply(503, `x`), true},
		"broken":                 {reply(500, `{"error":"invalid_grant"}`), true},
		"limited":                {reply(429, `{"message":"x"}`), true},
	} {
		s, p := plain(t, withPassword)
		s.set("/token", func(*http.Request) (*http.Response, error) { return want.answer, nil })
		_, err := p.Password(t.Context(), "me@example.com", "x")
		t.Log(name)
		if want.down {
			wantUnavailable(t, err)
		} else {
			wantProtocol(t, err)
		}
	}
	if strings.Contains(out.String(), "CANARY") {
		t.Errorf("logged %s", &out)
	}
}

// TestPasswordNotSent: nothing is asked about what nobody can have typed, an empty password first of all: directories take it for an
// anonymous bind that works.
func TestPasswordNotSent(t *testing.T) {
	s, p := plain(t, withPassword)
	s.answer("/token", 200, `{"access_token":"a"}`)
	for _, typed := range [][2]string{
		{"me", ""}, {"", "x"}, {"", ""}, {"me\n", "x"}, {"me\x00", "x"}, {"m\xff", "x"}, {"me", "x\x00"}, {"me", "\xff"},
		{strings.Repeat("m", 600), "x"}, {"me", strings.Repeat("x", 5<<10)},
	} {
		_, err := p.Password(t.Context(), typed[0], typed[1])
		if refused, ok := errors.AsType[*idp.AuthorizationError](err); !ok || refused.Code != "invalid_grant" {
			t.Errorf("%.20q: got %v", typed, err)
		}
	}
	if s.count("/token") != 0 {
		t.Error("asked the provider")
	}
}

// TestGrantsAreNotMixed: a provider is asked in the one way that the operator chose.
func TestGrantsAreNotMixed(t *testing.T) {
	s, p := plain(t, withPassword)
	if _, err := p.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback}); err == nil {
		t.Error("sign-in was begun at a provider that takes passwords")
	}
	_, err := p.Finish(t.Context(), idp.Finish{Params: map[string][]string{"code": {"c"}}, Secret: newSecret(), RedirectURI: callback})
	wantProtocol(t, err)
	if p.AuthorizeOrigin() != "" {
		t.Errorf("got %q", p.AuthorizeOrigin())
	}
	other, q := plain(t)
	_, err = q.Password(t.Context(), "me", "x")
	wantProtocol(t, err)
	if s.count("/token")+other.count("/token") != 0 {
		t.Error("asked the provider")
	}
}

// TestPasswordOpenID: a provider may be OpenID Connect all the same; its ID token has no nonce then, and is checked for the rest.
func TestPasswordOpenID(t *testing.T) {
	s, p := scripted(t, func(o *idp.Options) { o.Grant = "password" })
	claims := map[string]any{"iss": scriptIssuer, "aud": "wiki", "sub": "alice", "iat": today.Unix(), "exp": today.Unix() + 60}
	answer := func() {
		s.answer("/token", 200, map[string]any{"access_token": "a", "id_token": sign(t, s.key, claims)})
	}
	answer()
	if g, err := p.Password(t.Context(), "someone else", "x"); err != nil || g.Subject != "alice" || g.Identity.User != "alice" {
		t.Errorf("got %+v, %v", g, err)
	}
	claims["aud"] = "other"
	answer()
	_, err := p.Password(t.Context(), "alice", "x")
	wantProtocol(t, err, "aud")
	s.answer("/token", 200, `{"access_token":"a"}`)
	_, err = p.Password(t.Context(), "alice", "x")
	wantProtocol(t, err, "id_token")
}
