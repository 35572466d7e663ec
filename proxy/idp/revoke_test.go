package idp_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/proxy/idp"
	"postern/session"
)

// TestRevokeRequest holds RFC 7009 section 2.1: first the refresh token, and what has expired not at all.
func TestRevokeRequest(t *testing.T) {
	const refresh, access = "token=r&token_type_hint=refresh_token", "token=a&token_type_hint=access_token"
	tests := []struct {
		name   string
		tokens session.Tokens
		want   []string
	}{
		{"both", session.Tokens{Refresh: "r", Access: "a", ID: "i"}, []string{refresh, access}},
		{"no refresh token", session.Tokens{Access: "a", Expiry: today.Add(time.Minute)}, []string{access}},
		{"expired", session.Tokens{Refresh: "r", Access: "a", Expiry: today.Add(-2 * time.Minute)}, []string{refresh}},
		{"expired by this clock alone", session.Tokens{Refresh: "r", Access: "a", Expiry: today.Add(-time.Second)}, []string{refresh, access}},
		{"nothing", session.Tokens{}, nil},
	}
	for _, tt := range tests {
		for _, auth := range []string{"client_secret_basic", "client_secret_post"} {
			// Neither token_params nor token_request: query is about this endpoint.
			s, p := plain(t, func(o *idp.Options) {
				o.ClientAuth, o.TokenRequest, o.TokenParams = auth, "query", map[string]string{"resource": "x"}
			})
			sent := s.record("/revoke", 200, "")
			if err := p.Revoke(t.Context(), tt.tokens); err != nil || !p.CanRevoke() {
				t.Errorf("%s: got %v", tt.name, err)
			}
			var got []string
			for _, r := range *sent {
				if (r.user == "wiki") != (auth == "client_secret_basic") || (r.body.Get("client_secret") != "") != (auth == "client_secret_post") || r.query != "" || r.method != "POST" {
					t.Errorf("%s: got %+v", tt.name, r)
				}
				r.body.Del("client_id")
				r.body.Del("client_secret")
				got = append(got, r.body.Encode())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: requests (-want +got):\n%s", tt.name, diff)
			}
		}
	}
}

// TestRevokeAnswers: what an answer to the first request means, and whether the second is made.
func TestRevokeAnswers(t *testing.T) {
	tests := []struct {
		name  string
		reply *http.Response
		err   any // a sample of the type; nil: done
		after time.Duration
		calls int
	}{
		{"200", reply(200, ""), nil, 0, 2},
		{"204", reply(204, ""), nil, 0, 2},
		{"200 with a page", reply(200, "<html>"), nil, 0, 2},
		{"unsupported_token_type", reply(400, `{"error":"unsupported_token_type"}`), nil, 0, 2},
		{"invalid_token", reply(400, `{"error":"invalid_token"}`), nil, 0, 2},
		{"503: still valid", reply(503, "", "Retry-After", "7"), &idp.UnavailableError{}, 7 * time.Second, 1},
		{"503", reply(503, ""), &idp.UnavailableError{}, 0, 1},
		{"429", reply(429, "", "Retry-After", "7"), &idp.UnavailableError{}, 7 * time.Second, 1},
		{"500", reply(500, ""), &idp.UnavailableError{}, 0, 1},
		{"temporarily_unavailable", reply(400, `{"error":"temporarily_unavailable"}`), &idp.UnavailableError{}, 0, 1},
		{"invalid_client", reply(401, `{"error":"invalid_client"}`), &idp.ProtocolError{}, 0, 2},
		{"error with 200", reply(200, `{"error":"invalid_request"}`), &idp.ProtocolError{}, 0, 2},
		{"404", reply(404, "x"), &idp.ProtocolError{}, 0, 2},
		{"redirect", reply(302, "", "Location", "https://evil.example/?CANARY"), &idp.ProtocolError{}, 0, 2},
		{"too much", reply(200, strings.Repeat("x", 2<<20)), &idp.ProtocolError{}, 0, 2},
		{"cut", nil, &idp.UnavailableError{}, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t)
			n := 0
			s.set("/revoke", func(*http.Request) (*http.Response, error) {
				if n++; n > 1 {
					return reply(200, ""), nil
				}
				if tt.reply == nil {
					return nil, io.ErrUnexpectedEOF
				}
				return tt.reply, nil
			})
			err := p.Revoke(t.Context(), session.Tokens{Refresh: "CANARY-r", Access: "CANARY-a"})
			switch tt.err.(type) {
			case nil:
				if err != nil {
					t.Errorf("got %v", err)
				}
			case *idp.UnavailableError:
				if e := wantUnavailable(t, err); e.RetryAfter != tt.after {
					t.Errorf("got retry after %v, want %v", e.RetryAfter, tt.after)
				}
			case *idp.ProtocolError:
				wantProtocol(t, err)
			}
			if n != tt.calls {
				t.Errorf("made %d calls, want %d", n, tt.calls)
			}
			if err != nil && strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v shows a token", err)
			}
		})
	}
}

// TestRevokeLastWord: an access token that may still be valid is worth another try, whatever became of the refresh token.
func TestRevokeLastWord(t *testing.T) {
	s, p := plain(t)
	n := 0
	s.set("/revoke", func(*http.Request) (*http.Response, error) {
		if n++; n == 1 {
			return reply(400, `{"error":"invalid_request"}`), nil
		}
		return reply(503, "", "Retry-After", "9"), nil
	})
	if e := wantUnavailable(t, p.Revoke(t.Context(), session.Tokens{Refresh: "r", Access: "a"})); e.RetryAfter != 9*time.Second {
		t.Errorf("got %v", e.RetryAfter)
	}
}

func TestRevokeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := plain(t, func(o *idp.Options) { o.Now = nil })
		s.set("/revoke", func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		start := time.Now()
		wantUnavailable(t, p.Revoke(t.Context(), session.Tokens{Refresh: "r", Access: "a"}))
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestRevokeOpenID: the endpoint comes from metadata, and an unusable one costs no sign-in.
func TestRevokeOpenID(t *testing.T) {
	for address, can := range map[string]bool{scriptIssuer + "/revoke": true, "": false, "http://evil.example/revoke": false, "%": false} {
		s, p := scripted(t)
		m := scriptMetadata()
		m["revocation_endpoint"] = address
		s.answer("/.well-known/openid-configuration", 200, m)
		sent := s.record("/revoke", 200, "")
		if p.CanRevoke() {
			t.Error("knows of an endpoint before discovery")
		}
		err := p.Revoke(t.Context(), session.Tokens{Refresh: "r"})
		if p.CanRevoke() != can || errors.Is(err, idp.ErrNoRevocation) == can || (len(*sent) == 1) != can || !p.Discovered() {
			t.Errorf("%q: got %v, %v, %d calls", address, p.CanRevoke(), err, len(*sent))
		}
	}
	s, p := plain(t, func(o *idp.Options) { o.OAuth2.Revoke = "" })
	if err := p.Revoke(t.Context(), session.Tokens{Refresh: "r"}); !errors.Is(err, idp.ErrNoRevocation) || p.CanRevoke() || len(s.calls) != 0 {
		t.Errorf("got %v", err)
	}
}
