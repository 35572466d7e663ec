package idp_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
)

// What providers do with a redirect URI that they do not know, and what looks like it.
func TestTryAuthorizeTellsWhatTheProviderMakesOfIt(t *testing.T) {
	for _, c := range []struct {
		name     string
		status   int
		location string
		body     string
		want     idp.Sent
	}{
		{"back, nobody is signed in", 302, callback + "?error=login_required&state=x", "", idp.Sent{Back: true, Code: "login_required", Status: 302}},
		{"back, refused", 303, callback + "?error=invalid_scope", "", idp.Sent{Back: true, Code: "invalid_scope", Status: 303}},
		{"back by a form", 200, "", `<form method="post" action="` + callback + `"><input type="hidden" name="error" value="login_required"></form>`,
			idp.Sent{Back: true, Code: "login_required", Status: 200}},
		{"to a page that signs in, with the request in its address", 302, "https://id.example.com/login?redirect_uri=" + callback, "", idp.Sent{Status: 302}},
		{"a page that signs in", 200, "", `<h1>Sign in</h1><a href="/help?redirect_uri=` + callback + `">Help</a>`, idp.Sent{Status: 200}},
		{"an address that only begins like ours", 302, callback + "x?error=login_required", "", idp.Sent{Status: 302, Refused: true}},
		{"Keycloak", 400, "", "<p>Invalid parameter: redirect_uri</p>", idp.Sent{Status: 400, Refused: true, Blames: "redirect_uri"}},
		{"Entra", 200, "", "AADSTS50011: The redirect URI 'https://x' specified in the request does not match", idp.Sent{Status: 200, Refused: true, Blames: "redirect_uri"}},
		{"Google", 302, "https://accounts.google.com/signin/oauth/error?message=redirect_uri_mismatch", "", idp.Sent{Status: 302, Refused: true, Blames: "redirect_uri"}},
		{"an unknown client", 400, "", "<p>Client not found.</p>", idp.Sent{Status: 400, Refused: true, Blames: "client_id"}},
		{"trouble", 500, "", "Oops", idp.Sent{Status: 500, Refused: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t)
			s.op.On(idptest.Authorize, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Form.Get("prompt") != "none" || len(r.Cookies()) > 0 {
					t.Errorf("asked with prompt %q and %d cookies", r.Form.Get("prompt"), len(r.Cookies()))
				}
				if c.location != "" {
					w.Header().Set("Location", c.location)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
				return true
			})
			s.known(t)
			got, err := s.TryAuthorize(t.Context(), callback)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// A refused code is the good answer; each other one is told, and the token endpoint is asked once.
func TestTryClientAsksOnce(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		code       string // of the ProtocolError; "-" none: the client is right
	}{
		{"a code that is refused", `{"error":"invalid_grant"}`, 400, "-"},
		{"as GitHub says it", `{"error":"bad_verification_code"}`, 200, "-"},
		{"a wrong secret", `{"error":"invalid_client"}`, 401, "invalid_client"},
		{"something else", `{"error":"unsupported_grant_type"}`, 400, "unsupported_grant_type"},
		{"tokens for a code that nobody has", `{"access_token":"x","token_type":"Bearer"}`, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand(t)
			s.op.AnswerWith(idptest.Token, 1, idptest.Answer{Status: c.status, Header: http.Header{"Content-Type": {"application/json"}}, Body: c.body})
			s.known(t)
			err := s.TryClient(t.Context(), callback)
			bad, wrong := errors.AsType[*idp.ProtocolError](err)
			if (err == nil) != (c.code == "-") || wrong && bad.Code != c.code {
				t.Errorf("%v", err)
			}
			if n := s.op.Calls(idptest.Token); n != 1 {
				t.Errorf("%d token requests", n)
			}
		})
	}
}

// What a provider says of itself is told also where it cannot be used.
func TestExamineTellsWhatIsWrong(t *testing.T) {
	s := newStand(t)
	s.op.On(idptest.Discovery, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
		w.Header().Set("Age", "60")
		return false
	})
	s.op.MutateMetadata(func(m map[string]any) { m["issuer"] = "https://other.example.com" })
	told, err := s.Examine(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another issuer") || told.Issuer != "https://other.example.com" {
		t.Errorf("%+v, %v", told, err)
	}
	if !told.Dated || told.Ahead < 10*time.Minute || told.Ahead > 12*time.Minute { // an answer that is a minute old shows a clock of a minute ago
		t.Errorf("%s ahead", told.Ahead)
	}
}

// known reads the provider's metadata.
func (s stand) known(t *testing.T) {
	t.Helper()
	if _, err := s.Examine(t.Context()); err != nil {
		t.Fatal(err)
	}
}
