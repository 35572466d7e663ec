package idp_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postern/proxy/idp"
	"postern/proxy/idp/idptest"
	"postern/session"
)

// before is a grant whose refresh token is due.
func before() session.Grant {
	return session.Grant{
		Issuer: scriptIssuer, Subject: "alice", SID: "s-1", AuthTime: today.Add(-time.Hour),
		Identity: session.Identity{User: "alice", Name: "Alice", Groups: []string{"staff"}},
		Tokens:   session.Tokens{Access: "old-access", Refresh: "old-refresh", ID: "old-id", Expiry: today, Scope: "openid"},
	}
}

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

// TestTokenAnswer goes through the token answers that exist (facts 7 to 9, L16 to L20, A77).
func TestTokenAnswer(t *testing.T) {
	const year = 366 * 24 * time.Hour
	unix := func(d time.Duration) string { return fmt.Sprint(today.Add(d).Unix()) }
	tests := []struct {
		name, body string
		lifetime   time.Duration // 0: unknown
		refused    bool
	}{
		{"expires_in number", `{"access_token":"a","token_type":"Bearer","expires_in":3600}`, time.Hour, false},
		{"expires_in string", `{"access_token":"a","expires_in":"3600"}`, time.Hour, false},
		{"expires_in fraction", `{"access_token":"a","expires_in":3600.5}`, time.Hour + time.Second/2, false},
		{"expires_in exponent", `{"access_token":"a","expires_in":3.6e3}`, time.Hour, false},
		{"expires_in fraction in a string", `{"access_token":"a","expires_in":" 3600.5 "}`, time.Hour + time.Second/2, false},
		{"expires_in missing", `{"access_token":"a"}`, 0, false},
		{"expires_in null", `{"access_token":"a","expires_in":null}`, 0, false},
		{"expires_in empty", `{"access_token":"a","expires_in":""}`, 0, false},
		{"expires_in word", `{"access_token":"a","expires_in":"never"}`, 0, false},
		{"expires_in object", `{"access_token":"a","expires_in":{}}`, 0, false},
		{"expires_in 0", `{"access_token":"a","expires_in":0}`, 0, false},
		{"expires_in negative", `{"access_token":"a","expires_in":-3600}`, 0, false},
		{"expires_in negative infinite", `{"access_token":"a","expires_in":-1e999}`, 0, false},
		{"expires_in absurd", `{"access_token":"a","expires_in":1e300}`, year, false},
		{"expires_in infinite", `{"access_token":"a","expires_in":1e999}`, year, false},
		{"expires_in NaN", `{"access_token":"a","expires_in":"NaN"}`, 0, false},
		{"expires_in 2^63", `{"access_token":"a","expires_in":9223372036854775807}`, year, false},
		{"JWT exp", `{"access_token":"` + jwt(`{"exp":`+unix(90*time.Second)+`}`) + `"}`, 90 * time.Second, false},
		{"JWT exp past", `{"access_token":"` + jwt(`{"exp":`+unix(-time.Second)+`}`) + `"}`, 0, false},
		{"JWT exp absurd", `{"access_token":"` + jwt(`{"exp":1e300}`) + `"}`, year, false},
		{"JWT exp string", `{"access_token":"` + jwt(`{"exp":"x"}`) + `"}`, 0, false},
		{"JWT garbage", `{"access_token":"a.%.c"}`, 0, false},
		{"expires_in before JWT exp", `{"access_token":"` + jwt(`{"exp":`+unix(time.Hour)+`}`) + `","expires_in":5}`, 5 * time.Second, false},
		{"token_type in any case", `{"access_token":"a","token_type":"bEARER"}`, 0, false},
		{"token_type missing", `{"access_token":"a","token_type":null}`, 0, false},
		{"token_type DPoP", `{"access_token":"a","token_type":"DPoP"}`, 0, true},
		{"token_type empty", `{"access_token":"a","token_type":""}`, 0, true},
		{"token_type with more (L20)", `{"access_token":"a","token_type":"x a"}`, 0, true},
		{"token_type number", `{"access_token":"a","token_type":7}`, 0, true},
		{"unheard-of members (S18)", `{"access_token":"a","more":[{"x":1}],"id_token":null}`, 0, false},
		{"no access token", `{"refresh_token":"r"}`, 0, true},
		{"access token empty", `{"access_token":""}`, 0, true},
		{"access token number", `{"access_token":7}`, 0, true},
		{"access token with line break (L20)", `{"access_token":"a\r\nX-Evil: 1"}`, 0, true},
		{"access token with space", `{"access_token":"a b"}`, 0, true},
		{"access token with umlaut", `{"access_token":"ä"}`, 0, true},
		{"access token of 70 KiB", `{"access_token":"` + strings.Repeat("a", 70<<10) + `"}`, 0, true},
		{"refresh token number", `{"access_token":"a","refresh_token":7}`, 0, true},
		{"refresh token of 70 KiB", `{"access_token":"a","refresh_token":"` + strings.Repeat("a", 70<<10) + `"}`, 0, true},
		{"names in other spellings", `{"ACCESS_TOKEN":"a"}`, 0, true},
		{"error empty", `{"access_token":"a","error":""}`, 0, false},
		{"expires_in of 1 hour in a form", `access_token=a&token_type=bearer&expires_in=3600`, time.Hour, false},
		{"form with a parameter twice", `access_token=a&access_token=b`, 0, true},
		{"form with an access token for two lines", `access_token=a%0d%0ab`, 0, true},
		{"form of another kind", `token=a`, 0, true},
		{"page with a link", `<a href="?x=1&access_token=a&y=2">here</a>`, 0, true},
		{"byte order mark", "\ufeff" + `{"access_token":"a","expires_in":5}`, 5 * time.Second, false},
		{"scope list", `{"access_token":"a","scope":["a","b"]}`, 0, false},
		{"scope number", `{"access_token":"a","scope":7}`, 0, false},
		{"error false", `{"access_token":"a","error":false}`, 0, false},
		{"list", `[{"access_token":"a"}]`, 0, true},
		{"null", `null`, 0, true},
		{"empty", ``, 0, true},
		{"more after it", `{"access_token":"a"}{"access_token":"b"}`, 0, true},
		{"too long (A162)", `{"access_token":"a","pad":"` + strings.Repeat("p", 1<<20) + `"}`, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t)
			s.set("/token", func(*http.Request) (*http.Response, error) {
				return reply(200, tt.body, "Content-Type", "text/plain"), nil // content type tolerant
			})
			g, err := p.Refresh(t.Context(), before())
			if tt.refused {
				wantRefreshError(t, err, session.Unknown)
				wantProtocol(t, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var want time.Time
			if tt.lifetime > 0 {
				want = today.Add(tt.lifetime)
			}
			if !g.Tokens.Expiry.Equal(want) || !g.Tokens.Obtained.Equal(today) {
				t.Errorf("got expiry %v, obtained %v, want %v", g.Tokens.Expiry, g.Tokens.Obtained, want)
			}
		})
	}
}

// TestTokenRequest holds S15, S16, S19, L18 and the verifier of the attempt, byte for byte.
func TestTokenRequest(t *testing.T) {
	s, p := scripted(t, func(o *idp.Options) {
		o.ClientID, o.ClientSecret = "wiki:1 ü"[:6], secret("a b:+%ü")
	})
	var got *http.Request
	var form url.Values
	s.set("/token", func(r *http.Request) (*http.Response, error) {
		body, _ := io.ReadAll(r.Body)
		got = r
		form, _ = url.ParseQuery(string(body))
		return reply(400, `{"error":"invalid_grant"}`), nil
	})
	_, _ = p.Refresh(t.Context(), before())
	user, pass, _ := got.BasicAuth()
	if user != url.QueryEscape("wiki:1") || pass != url.QueryEscape("a b:+%ü") {
		t.Errorf("got Basic %q %q, want both form-encoded (RFC 6749 section 2.3.1)", user, pass)
	}
	if want := "grant_type=refresh_token&refresh_token=old-refresh"; form.Encode() != want {
		t.Errorf("got refresh body %q, want %q", form.Encode(), want)
	}
	if got.URL.RawQuery != "" || got.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || got.Header.Get("Accept") != "application/json" {
		t.Errorf("got %v %v", got.URL, got.Header)
	}
}

func TestTokenSecretReadAgain(t *testing.T) {
	word, fail := "one", error(nil)
	s, p := scripted(t, func(o *idp.Options) { o.ClientSecret = func() (string, error) { return word, fail } })
	var last string
	s.set("/token", func(r *http.Request) (*http.Response, error) {
		_, last, _ = r.BasicAuth()
		return reply(200, `{"access_token":"a"}`), nil
	})
	for _, word = range []string{"one", "two"} {
		if _, err := p.Refresh(t.Context(), before()); err != nil || last != word {
			t.Errorf("got secret %q, %v, want %q", last, err, word)
		}
	}
	n := s.count("/token")
	word = ""
	_, err := p.Refresh(t.Context(), before())
	wantRefreshError(t, err, session.Again)
	fail = errors.New("permission denied")
	_, err = p.Refresh(t.Context(), before())
	wantRefreshError(t, err, session.Again)
	if s.count("/token") != n {
		t.Error("a request was sent without a secret")
	}
}

// TestRefreshKinds says what each failure means for the refresh token: A167 and A168, design.md "Refresh".
func TestRefreshKinds(t *testing.T) {
	oauth := func(status int, code string, header ...string) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) {
			return reply(status, `{"error":"`+code+`"}`, header...), nil
		}
	}
	plain := func(status int, header ...string) func(*http.Request) (*http.Response, error) {
		return func(*http.Request) (*http.Response, error) { return reply(status, "<html>", header...), nil }
	}
	tests := []struct {
		name   string
		answer func(*http.Request) (*http.Response, error)
		kind   session.RefreshKind
		after  time.Duration
	}{
		{"A167 invalid_grant", oauth(400, "invalid_grant"), session.Rejected, 0},
		{"invalid_grant with 401", oauth(401, "invalid_grant"), session.Rejected, 0},
		{"invalid_grant with 200", oauth(200, "invalid_grant"), session.Rejected, 0},
		{"invalid_client", oauth(401, "invalid_client"), session.Again, 0},
		{"unauthorized_client", oauth(400, "unauthorized_client"), session.Again, 0},
		{"what GitHub says with 200", oauth(200, "bad_refresh_token"), session.Rejected, 0},
		{"what old Spring says", oauth(401, "invalid_token"), session.Rejected, 0},
		{"what Slack says", oauth(200, "invalid_refresh_token"), session.Rejected, 0},
		{"unreadable error", oauth(400, "W\u00e4r"), session.Again, 0},
		{"temporarily_unavailable", oauth(400, "temporarily_unavailable"), session.Again, 0},
		{"server_error", oauth(400, "server_error"), session.Unknown, 0},
		{"429", plain(429), session.Again, 0},
		{"429 for a while", plain(429, "Retry-After", "7"), session.Again, 7 * time.Second},
		{"429 for ever", plain(429, "Retry-After", "99999999999999999999"), session.Again, 0},
		{"429 for a day", plain(429, "Retry-After", "86400"), session.Again, time.Hour},
		{"503 until", plain(503, "Retry-After", today.Add(9*time.Second).Format(http.TimeFormat)), session.Again, 9 * time.Second},
		{"503 until long ago", plain(503, "Retry-After", today.Add(-time.Hour).Format(http.TimeFormat)), session.Again, time.Second},
		{"503 now", plain(503, "Retry-After", "0"), session.Again, time.Second},
		{"503", plain(503), session.Unknown, 0},
		{"503 soon", plain(503, "Retry-After", "soon"), session.Unknown, 0},
		{"500", plain(500), session.Unknown, 0},
		{"502 with Retry-After", plain(502, "Retry-After", "7"), session.Unknown, 7 * time.Second},
		{"500 invalid_grant", oauth(500, "invalid_grant"), session.Unknown, 0},
		{"408", plain(408), session.Unknown, 0},
		{"404 of an ingress", plain(404), session.Again, 0},
		{"A168 redirect", plain(307, "Location", "https://evil.example/token?x=old-refresh"), session.Again, 0},
		{"garbage", plain(200), session.Unknown, 0},
		{"cut", func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }, session.Unknown, 0},
		{"cut body", func(*http.Request) (*http.Response, error) {
			r := reply(200, "")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"access_token":"`), brokenReader{}))
			return r, nil
		}, session.Unknown, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := scripted(t)
			s.set("/token", tt.answer)
			_, err := p.Refresh(t.Context(), before())
			e := wantRefreshError(t, err, tt.kind)
			if e.RetryAfter != tt.after {
				t.Errorf("got retry after %v, want %v", e.RetryAfter, tt.after)
			}
			if n := s.count("/token"); n != 1 {
				t.Errorf("the refresh token was sent %d times", n)
			}
			if strings.Contains(err.Error(), "old-") || strings.Contains(err.Error(), "html") {
				t.Errorf("error %q shows a token or a body", err)
			}
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestRefreshNotSent: what never reached the provider may be sent again (A160, A168), over real sockets.
func TestRefreshNotSent(t *testing.T) {
	s := newStand(t)
	g := s.mustSignIn(t)
	s.op.Down()
	_, err := s.Refresh(t.Context(), g)
	wantRefreshError(t, err, session.Again)
	s.op.Up()
	if g, err = s.Refresh(t.Context(), g); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Refresh(ctx, g)
	wantRefreshError(t, err, session.Again)
	if n := s.op.RefreshReuses(); n != 0 {
		t.Errorf("%d refresh tokens were sent twice", n)
	}
}

// TestRefreshAnswerLost is A170: the provider has rotated, nobody knows.
func TestRefreshAnswerLost(t *testing.T) {
	s := newStand(t)
	g := s.mustSignIn(t)
	s.op.DropConnectionAfterProcessing(idptest.Token, 1)
	calls := s.op.Calls(idptest.Token)
	_, err := s.Refresh(t.Context(), g)
	wantRefreshError(t, err, session.Unknown)
	if n := s.op.Calls(idptest.Token) - calls; n != 1 {
		t.Errorf("got %d requests, want 1", n)
	}
	_, err = s.Refresh(t.Context(), g)
	wantRefreshError(t, err, session.Rejected)
}

// TestRefreshTimeout is A161: a token endpoint that hangs.
func TestRefreshTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(t)
		o := s.options()
		p := mustNew(t, o)
		s.set("/token", func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() })
		begin := time.Now()
		_, err := p.Refresh(t.Context(), before())
		e := wantRefreshError(t, err, session.Unknown)
		if !errors.Is(e, context.DeadlineExceeded) || time.Since(begin) != 10*time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
	})
}

func TestRefreshRefusesToSend(t *testing.T) {
	s, p := scripted(t)
	g := before()
	g.Issuer = "https://other.example.com"
	_, err := p.Refresh(t.Context(), g)
	wantRefreshError(t, err, session.Invalid)
	g = before()
	g.Tokens.Refresh = ""
	_, err = p.Refresh(t.Context(), g)
	wantRefreshError(t, err, session.Rejected)
	if s.count("/token") != 0 {
		t.Error("a request was sent")
	}
}

// TestRefreshAnswers is A169 and A172: which tokens stay, and that claims are evaluated again.
func TestRefreshAnswers(t *testing.T) {
	s, p := scripted(t)
	idToken := func(more string) string {
		return sign(t, s.key, []byte(fmt.Sprintf(`{"iss":%q,"aud":"wiki","sub":"alice","iat":%d,"exp":%d%s}`, scriptIssuer, today.Unix(), today.Unix()+60, more)))
	}
	demoted := idToken(`,"name":"Alice","groups":[],"sid":"s-2","auth_time":` + fmt.Sprint(today.Unix()) + `,"nonce":"whatever"`)
	tests := []struct {
		name   string
		answer map[string]any
		kind   session.RefreshKind // Unknown: it succeeds
		want   func(*session.Grant)
	}{
		{"nothing but an access token", map[string]any{"access_token": "n"}, 0, func(*session.Grant) {}},
		{"the same refresh token", map[string]any{"access_token": "n", "refresh_token": "old-refresh"}, 0, func(*session.Grant) {}},
		{"rotated", map[string]any{"access_token": "n", "refresh_token": "r2"}, 0, func(g *session.Grant) { g.Tokens.Refresh = "r2" }},
		{"narrower scope", map[string]any{"access_token": "n", "scope": "x"}, 0, func(g *session.Grant) { g.Tokens.Scope = "x" }},
		{"A172 group removed", map[string]any{"access_token": "n", "id_token": demoted}, 0, func(g *session.Grant) {
			g.Tokens.ID, g.Identity.Groups = demoted, nil
		}},
		{"other sub", map[string]any{"access_token": "n", "id_token": idToken(`,"sub":"mallory"`)}, session.Invalid, nil},
		{"sub unfit for headers", map[string]any{"access_token": "n", "id_token": idToken(`,"sub":"a\nb"`)}, session.Invalid, nil},
		{"expired", map[string]any{"access_token": "n", "id_token": idToken(`,"exp":1`)}, session.Invalid, nil},
		{"at_hash of another token", map[string]any{"access_token": "n", "id_token": idToken(`,"at_hash":"AAAAAAAAAAAAAAAAAAAAAA"`)}, session.Invalid, nil},
		{"garbage", map[string]any{"access_token": "n", "id_token": "a.b.c"}, session.Invalid, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.answer("/token", 200, tt.answer)
			got, err := p.Refresh(t.Context(), before())
			if tt.want == nil {
				wantRefreshError(t, err, tt.kind)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := before()
			want.Tokens.Access, want.Tokens.Obtained, want.Tokens.Expiry = "n", today, time.Time{}
			tt.want(&want)
			if diff := diffGrant(want, got); diff != "" {
				t.Errorf("grant (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefreshNeverLosesARotatedToken: once tokens came, nothing that does not answer takes them away, and the identity stays.
func TestRefreshNeverLosesARotatedToken(t *testing.T) {
	hang := func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
	down := func(*http.Request) (*http.Response, error) { return reply(503, ""), nil }
	for name, f := range map[string]func(*http.Request) (*http.Response, error){"hangs": hang, "fails": down} {
		for _, path := range []string{"/jwks", "/userinfo"} {
			t.Run(path+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, p := scripted(t, withUserinfo)
					s.set(path, f)
					token := sign(t, s.key, map[string]any{
						"iss": scriptIssuer, "aud": "wiki", "sub": "alice", "iat": today.Unix(), "exp": today.Unix() + 60, "groups": "admins",
					})
					s.answer("/token", 200, map[string]any{"access_token": "n", "refresh_token": "r2", "id_token": token})
					begin := time.Now()
					got, err := p.Refresh(t.Context(), before())
					if err != nil {
						t.Fatal(err)
					}
					if d := time.Since(begin); d > 5*time.Second {
						t.Errorf("the new refresh token was held back for %v", d)
					}
					want := before()
					want.Tokens.Access, want.Tokens.Refresh, want.Tokens.Obtained, want.Tokens.Expiry = "n", "r2", today, time.Time{}
					if diff := diffGrant(want, got); diff != "" {
						t.Errorf("grant (-want +got):\n%s", diff)
					}
					time.Sleep(10 * time.Second) // until what hangs has been given up
					synctest.Wait()
				})
			})
		}
	}
}

// TestRefreshUserinfoWithoutIDToken: the claims of the last ID token are the ground on which userinfo puts its own.
func TestRefreshUserinfoWithoutIDToken(t *testing.T) {
	s, p := scripted(t, withUserinfo)
	prev := before()
	prev.Tokens.ID = jwt(`{"sub":"alice","preferred_username":"al","name":"Old","groups":["from-token"]}`)
	s.answer("/token", 200, map[string]any{"access_token": "n"})
	for _, tt := range []struct {
		userinfo string
		want     session.Identity
	}{
		{`{"sub":"alice","name":"New"}`, session.Identity{User: "alice", PreferredUsername: "al", Name: "New", Groups: []string{"from-token"}}},
		{`{"sub":"alice","groups":["x"]}`, session.Identity{User: "alice", PreferredUsername: "al", Name: "Old", Groups: []string{"x"}}},
	} {
		s.answer("/userinfo", 200, tt.userinfo)
		got, err := p.Refresh(t.Context(), prev)
		if err != nil {
			t.Fatal(err)
		}
		want := prev
		want.Identity, want.Tokens.Access, want.Tokens.Obtained, want.Tokens.Expiry = tt.want, "n", today, time.Time{}
		if diff := diffGrant(want, got); diff != "" {
			t.Errorf("grant (-want +got):\n%s", diff)
		}
	}
	s.answer("/userinfo", 200, `{"sub":"mallory"}`)
	_, err := p.Refresh(t.Context(), prev)
	wantRefreshError(t, err, session.Invalid)
	s.answer("/userinfo", 401, ``)
	_, err = p.Refresh(t.Context(), prev)
	wantRefreshError(t, err, session.Invalid)
}

// TestCodeErrors: what a refused or lost code means at sign-in.
func TestCodeErrors(t *testing.T) {
	s, p := scripted(t)
	finish := func() error {
		_, err := p.Finish(t.Context(), idp.Finish{Params: url.Values{"code": {"c0de"}}, Secret: newSecret(), RedirectURI: callback})
		return err
	}
	s.answer("/token", 400, `{"error":"invalid_grant","error_description":"code c0de"}`)
	wantProtocol(t, finish(), "invalid_grant", "code is spent")
	s.answer("/token", 401, `{"error":"invalid_client"}`)
	wantProtocol(t, finish(), "client_secret")
	s.answer("/token", 200, `{"error":"bad_verification_code"}`)
	wantProtocol(t, finish(), "bad_verification_code")
	s.answer("/token", 200, `{"error":["c0de"]}`)
	wantProtocol(t, finish(), "unreadable")
	s.answer("/token", 403, `c0de`)
	wantProtocol(t, finish(), "403")
	for _, status := range []int{500, 502, 503, 429} {
		s.answer("/token", status, `c0de`)
		wantUnavailable(t, finish())
	}
	s.answer("/token", 200, `c0de`)
	err := finish()
	wantProtocol(t, err, "JSON")
	if strings.Contains(err.Error(), "c0de") {
		t.Errorf("%q shows the body", err)
	}
}

// TestNoRedirectWithCredentials is fact 9: a 307 from the token endpoint must not carry code and secret elsewhere.
func TestNoRedirectWithCredentials(t *testing.T) {
	s := newStand(t)
	elsewhere := newStand(t)
	for _, endpoint := range []string{idptest.Token, idptest.JWKS, idptest.Discovery} {
		s.op.AnswerWith(endpoint, -1, idptest.Answer{Status: 307, Header: http.Header{"Location": {elsewhere.op.EndpointURL(endpoint) + "?code=1"}}})
	}
	_, err := s.Begin(t.Context(), idp.Begin{State: "s", Secret: newSecret(), RedirectURI: callback})
	if !errors.Is(err, idp.ErrNotDiscovered) || !strings.Contains(s.Problem(), "redirect") || strings.Contains(s.Problem(), "code=") {
		t.Errorf("got %v, problem %q", err, s.Problem())
	}
	fresh := newStand(t)
	fresh.op.AnswerWith(idptest.Token, -1, idptest.Answer{Status: 307, Header: http.Header{"Location": {elsewhere.op.EndpointURL(idptest.Token)}}})
	_, err = fresh.signIn(t)
	wantProtocol(t, err, "redirect")
	for _, endpoint := range []string{idptest.Token, idptest.JWKS, idptest.Discovery} {
		if n := elsewhere.op.Calls(endpoint); n != 0 {
			t.Errorf("%s: the redirect was followed", endpoint)
		}
	}
}

func FuzzTokenAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r"}`, `{"access_token":"a","expires_in":"1e999"}`,
		`{"error":"invalid_grant"}`, `{"error":{}}`, `{"access_token":"a\r\nb"}`, `null`, `[`, "", `{"access_token":"e30.eyJleHAiOjFlOTk5fQ.x"}`,
		`access_token=a&scope=x&refresh_token=r`, `error=bad_refresh_token&error_description=x`, "\ufeff{}", `{"access_token":"a","scope":["x",1]}`,
	} {
		f.Add(200, []byte(seed), "7", "application/json")
		f.Add(503, []byte(seed), "Sat, 21 Nov 2026 12:00:09 GMT", "text/plain; charset=utf-8")
	}
	const canary = "canary-c0de"
	f.Fuzz(func(t *testing.T, status int, body []byte, retryAfter, mediaType string) {
		if status < 100 || status > 999 {
			return
		}
		s, p := scripted(t)
		s.set("/token", func(*http.Request) (*http.Response, error) {
			return reply(status, body, "Retry-After", retryAfter, "Content-Type", mediaType), nil
		})
		prev := before()
		prev.Tokens.Refresh = canary
		g, err := p.Refresh(t.Context(), prev)
		if err == nil {
			if g.Subject != prev.Subject || g.Issuer != prev.Issuer || g.Tokens.Refresh == "" || g.Tokens.Access == "" {
				t.Errorf("got %+v", g)
			}
			if strings.ContainsFunc(g.Tokens.Access, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("access token %q cannot be in a header", g.Tokens.Access)
			}
			if e := g.Tokens.Expiry; !e.IsZero() && (!e.After(today) || e.After(today.AddDate(1, 0, 1))) {
				t.Errorf("got expiry %v", e)
			}
			var c map[string]any
			form, formErr := url.ParseQuery(string(bytes.TrimSpace(body)))
			if json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &c) != nil && (formErr != nil || len(form["access_token"]) != 1 || mediaType == "application/json") {
				t.Error("accepted what is neither JSON nor a form")
			}
			return
		}
		e, ok := errors.AsType[*session.RefreshError](err)
		if !ok || e.RetryAfter < 0 || e.RetryAfter > time.Hour {
			t.Errorf("got %v (%T)", err, err)
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("error %q shows the refresh token", err)
		}
	})
}
