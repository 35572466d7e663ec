package idp_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

func TestClientCredentials(t *testing.T) {
	tests := []struct{ scope, audience, want string }{
		{"", "", "grant_type=client_credentials&tenant=7"},
		{"read write", "", "grant_type=client_credentials&scope=read+write&tenant=7"},
		{"read", "https://api.example.com", "audience=https%3A%2F%2Fapi.example.com&grant_type=client_credentials&scope=read&tenant=7"},
	}
	for _, tt := range tests {
		s, p := plain(t, func(o *idp.Options) {
			o.TokenParams, o.Scopes = map[string]string{"tenant": "7"}, []string{"for", "people"}
		})
		got := s.record("/token", 200, `{"access_token":"a","expires_in":60,"refresh_token":"r","id_token":"i"}`)
		tokens, err := p.ClientCredentials(t.Context(), tt.scope, tt.audience)
		if err != nil {
			t.Fatal(err)
		}
		want := session.Tokens{Access: "a", Scope: tt.scope, Obtained: today, Expiry: today.Add(60e9)}
		if diff := cmp.Diff(want, tokens); diff != "" {
			t.Errorf("tokens (-want +got):\n%s", diff)
		}
		if r := (*got)[0]; r.body.Encode() != tt.want || r.user != "wiki" {
			t.Errorf("got %s by %q, want %s", r.body.Encode(), r.user, tt.want)
		}
	}
}

func TestClientCredentialsRefused(t *testing.T) {
	s, p := plain(t)
	s.answer("/token", 401, `{"error":"invalid_client"}`)
	_, err := p.ClientCredentials(t.Context(), "", "")
	wantProtocol(t, err, "client_secret")
	s.answer("/token", 400, `{"error":"invalid_scope"}`)
	_, err = p.ClientCredentials(t.Context(), "", "")
	wantProtocol(t, err, "invalid_scope")
	s.answer("/token", 502, `x`)
	_, err = p.ClientCredentials(t.Context(), "", "")
	wantUnavailable(t, err)

	s, p = plain(t, func(o *idp.Options) { o.ClientSecret = nil })
	_, err = p.ClientCredentials(t.Context(), "", "")
	wantProtocol(t, err, "client_secret")
	if s.count("/token") != 0 {
		t.Error("asked as a client that anyone can be")
	}
}

// TestClientCredentialsOpenID: nobody signs in, so no ID token is wanted.
func TestClientCredentialsOpenID(t *testing.T) {
	s, p := scripted(t)
	s.answer("/token", 200, `{"access_token":"a"}`)
	if tokens, err := p.ClientCredentials(t.Context(), "x", ""); err != nil || tokens.Access != "a" {
		t.Errorf("got %+v, %v", tokens, err)
	}
}
