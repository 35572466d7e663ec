package idp_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postern/proxy/idp"
	"postern/session"
)

const apiOrigin = "https://api.example.com"

// gitHub are rules and calls as for GitHub.
func gitHub(o *idp.Options) {
	o.Identity = "userinfo"
	o.UserinfoCalls = []idp.UserinfoCall{
		{URL: apiOrigin + "/user"},
		{URL: apiOrigin + "/user/emails", As: "emails"},
		{URL: apiOrigin + "/user/teams?per_page=100", As: "teams"},
	}
	o.Claims = map[string]string{
		"user": "login", "email": "emails.filter(e, e.primary && e.verified)[0].email", "groups": "teams.slug",
	}
}

// TestUserinfoCalls signs in at GitHub, whose people are told of at three addresses.
func TestUserinfoCalls(t *testing.T) {
	s, p := plain(t, gitHub)
	user := s.record("/user", 200, `{"login":"octocat","id":583231,"name":"The Octocat","email":"unverified@x.y"}`)
	emails := s.record("/user/emails", 200, `[{"email":"old@x.y","primary":false,"verified":true},{"email":"octo@x.y","primary":true,"verified":true}]`)
	teams := s.record("/user/teams", 200, `[{"slug":"core"},{"slug":"ops"}]`)
	g, err := s.plainSignIn(t, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := session.Identity{User: "octocat", Name: "The Octocat", Email: "octo@x.y", Groups: []string{"core", "ops"}}
	if diff := cmp.Diff(want, g.Identity); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	for _, r := range slices.Concat(*user, *emails, *teams) {
		if r.method != "GET" || r.header.Get("Authorization") != "Bearer access" {
			t.Errorf("request %+v", r)
		}
	}
	if q := (*teams)[0].query; q != "per_page=100" {
		t.Errorf("query %q", q)
	}
	if n := s.count("/me"); n != 0 {
		t.Error("the call without as does not stand in for the userinfo endpoint")
	}

	t.Run("no verified address", func(t *testing.T) {
		s.answer("/user/emails", 200, `[{"email":"octo@x.y","primary":true,"verified":false}]`)
		g, err := s.plainSignIn(t, p, nil)
		if err != nil || g.Identity.Email != "" || g.Identity.User != "octocat" {
			t.Errorf("got %+v, %v", g.Identity, err)
		}
	})
	t.Run("beside the userinfo endpoint", func(t *testing.T) {
		s, p := plain(t, from("userinfo", "groups", "teams.slug"), calls(idp.UserinfoCall{URL: apiOrigin + "/user/teams", As: "teams"}))
		s.answer("/me", 200, `{"sub":"u1","teams":"shadowed"}`)
		s.answer("/user/teams", 200, `[{"slug":"core"}]`)
		g, err := s.plainSignIn(t, p, nil)
		if diff := cmp.Diff(session.Identity{User: "u1", Groups: []string{"core"}}, g.Identity); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
	t.Run("of OpenID Connect", func(t *testing.T) {
		s, p := scripted(t, from("id_token", "groups", "teams.slug"), calls(idp.UserinfoCall{URL: apiOrigin + "/user/teams", As: "teams"}, idp.UserinfoCall{URL: apiOrigin + "/more"}))
		s.answer("/user/teams", 200, `[{"slug":"core"}]`)
		s.answer("/more", 200, `{"name":"N","sid":"x","acr":"x"}`)
		b, c := attempt(t, t.Context(), p, today)
		token := sign(t, s.key, c)
		g, err := s.complete(t, t.Context(), p, b, token, map[string]any{"refresh_token": "r"})
		if diff := cmp.Diff(session.Identity{User: "alice", Name: "N", Groups: []string{"core"}}, g.Identity); err != nil || diff != "" || g.SID != "" {
			t.Fatalf("%v, sid %q (-want +got):\n%s", err, g.SID, diff)
		}
		// A refresh without an ID token makes them again.
		s.answer("/user/teams", 200, `[]`)
		next, err := s.refreshed(t, p, g, nil)
		if diff := cmp.Diff(session.Identity{User: "alice", Name: "N"}, next.Identity, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("refreshed: %v (-want +got):\n%s", err, diff)
		}
		// Whatever a call says, it says of this person.
		s.answer("/more", 200, `{"sub":"mallory"}`)
		_, err = s.complete(t, t.Context(), p, b, token, nil)
		wantProtocol(t, err, "sub")
	})
}

// pages makes an address answer in pages: each is a body and a Link header.
func (s *script) pages(path string, list ...[2]string) {
	s.set(path, func(r *http.Request) (*http.Response, error) {
		n := 0
		fmt.Sscan(r.URL.Query().Get("page"), &n)
		if r.Header.Get("Authorization") != "Bearer access" {
			return reply(401, ""), nil
		}
		return reply(200, list[n][0], "Link", list[n][1]), nil
	})
}

// TestUserinfoPages follows pages, and refuses what could lead the token elsewhere or never end.
func TestUserinfoPages(t *testing.T) {
	link := func(to, rel string) string { return "<" + to + `>; rel="` + rel + `"` }
	teams := func(names ...string) string {
		for i := range names {
			names[i] = `{"slug":"` + names[i] + `"}`
		}
		return "[" + strings.Join(names, ",") + "]"
	}
	const at = apiOrigin + "/user/teams"
	var endless, many [][2]string
	for i := range 100 {
		endless = append(endless, [2]string{teams("a"), link(fmt.Sprintf("%s?page=%d", at, i+1), "next")})
	}
	for i := range 10 {
		many = append(many, [2]string{`[{"slug":"` + strings.Repeat("x", 500_000) + `"}]`, link(fmt.Sprintf("%s?page=%d", at, i+1), "next")})
	}
	tests := []struct {
		name   string
		pages  [][2]string
		want   []string
		refuse []string
		calls  int // at most
	}{
		{"one", [][2]string{{teams("a"), ""}}, []string{"a"}, nil, 1},
		{"three", [][2]string{
			{teams("a", "b"), link(at+"?page=1", "next") + ", " + link(at+"?page=2", "last")},
			{teams("c"), link(at+"?page=0", "prev") + "," + link(at+"?page=2", "next")},
			{teams("d"), link(at+"?page=1", "prev")}}, []string{"a", "b", "c", "d"}, nil, 3},
		{"empty pages", [][2]string{{`[]`, link(at+"?page=1", "next")}, {teams("a"), ""}}, []string{"a"}, nil, 2},
		{"relative", [][2]string{{teams("a"), link("?page=1", "next")}, {teams("b"), ""}}, []string{"a", "b"}, nil, 2},
		{"absolute path", [][2]string{{teams("a"), link("/user/teams?page=1", "next")}, {teams("b"), ""}}, []string{"a", "b"}, nil, 2},
		{"rel without quotes", [][2]string{{teams("a"), "<?page=1>;rel=next"}, {teams("b"), ""}}, []string{"a", "b"}, nil, 2},
		{"several rels in other case", [][2]string{{teams("a"), `<?page=1>; title="a, <b>; \"c\""; REL="Last Next"`}, {teams("b"), ""}}, []string{"a", "b"}, nil, 2},
		{"the first rel counts", [][2]string{{teams("a"), `<?page=1>; rel="last"; rel="next"`}}, []string{"a"}, nil, 1},
		{"of another context", [][2]string{{teams("a"), `<?page=1>; rel="next"; anchor="/other"`}}, []string{"a"}, nil, 1},
		{"rel that only looks like it", [][2]string{{teams("a"), link("?page=1", "nextish")}}, []string{"a"}, nil, 1},
		{"port written out", [][2]string{{teams("a"), link("https://API.example.com:443/user/teams?page=1", "next")}, {teams("b"), ""}}, []string{"a", "b"}, nil, 2},

		{"another host", [][2]string{{teams("a"), link("https://evil.example/?page=1", "next")}}, nil, []string{"evil.example", "not sent"}, 1},
		{"another host by //", [][2]string{{teams("a"), link("//evil.example/?page=1", "next")}}, nil, []string{"another host"}, 1},
		{"another port", [][2]string{{teams("a"), link("https://api.example.com:8443/?page=1", "next")}}, nil, []string{"another host"}, 1},
		{"plain http", [][2]string{{teams("a"), link("http://api.example.com/user/teams?page=1", "next")}}, nil, []string{"another host"}, 1},
		{"a suffix of the host", [][2]string{{teams("a"), link("https://api.example.com.evil.example/", "next")}}, nil, []string{"another host"}, 1},
		{"credentials", [][2]string{{teams("a"), link("https://me:pw@api.example.com/user/teams?page=1", "next")}}, nil, []string{"unusable"}, 1},
		{"another scheme", [][2]string{{teams("a"), link("file:///etc/passwd", "next")}}, nil, []string{"unusable"}, 1},
		{"unreadable", [][2]string{{teams("a"), "<?page=1; rel=next"}}, nil, []string{"cannot be read"}, 1},
		{"unreadable after a good one", [][2]string{{teams("a"), link("?page=0", "prev") + `, <x>; rel="next`}}, nil, []string{"cannot be read"}, 1},
		{"endless", endless, nil, []string{"pages"}, 20},
		{"itself", [][2]string{{teams("a"), link(at, "next")}}, nil, []string{"pages"}, 20},
		{"too many bytes", many, nil, []string{"bytes"}, 9},
		{"a page that is no list", [][2]string{{teams("a"), link("?page=1", "next")}, {`{"message":"x"}`, ""}}, nil, []string{"no list"}, 2},
		{"a page of garbage", [][2]string{{teams("a"), link("?page=1", "next")}, {`<html>`, ""}}, nil, []string{"neither"}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, p := plain(t, from("userinfo", "groups", "teams.slug"), calls(idp.UserinfoCall{URL: at, As: "teams"}))
			s.answer("/me", 200, `{"sub":"u1"}`)
			s.answer("/", 200, teams("evil"))
			s.pages("/user/teams", tt.pages...)
			g, err := s.plainSignIn(t, p, nil)
			if n := s.count("/user/teams"); n > tt.calls {
				t.Errorf("%d calls", n)
			}
			if n := s.count("/"); n != 0 {
				t.Error("the token was sent to another host")
			}
			if tt.refuse != nil {
				wantProtocol(t, err, append(tt.refuse, "userinfo call teams")...)
				return
			}
			if err != nil || !slices.Equal(g.Identity.Groups, tt.want) {
				t.Errorf("got %q, %v, want %q", g.Identity.Groups, err, tt.want)
			}
		})
	}
}

// TestUserinfoCallFailures tells what is wrong from what is down.
func TestUserinfoCallFailures(t *testing.T) {
	s, p := plain(t, gitHub)
	s.answer("/user", 200, `{"login":"octocat"}`)
	s.answer("/user/emails", 200, `[]`)
	for name, answer := range map[string]*http.Response{
		"401": reply(401, `{"message":"Bad credentials"}`), "403": reply(403, ""), "null": reply(200, "null"), "text": reply(200, `"x"`),
		"two": reply(200, `[][]`), "cut": reply(200, `[{"slug":"co`), "HTML": reply(200, "<html>"), "nothing": reply(200, ""),
		"too long": reply(200, `["`+strings.Repeat("x", 1<<20)+`"]`), "JWT": reply(200, "a.b.c", "Content-Type", "application/jwt"),
		"too deep": reply(200, strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)),
	} {
		t.Run(name, func(t *testing.T) {
			s.set("/user/teams", func(*http.Request) (*http.Response, error) { return answer, nil })
			_, err := s.plainSignIn(t, p, nil)
			wantProtocol(t, err, "teams")
		})
	}
	for name, answer := range map[string]*http.Response{
		"500": reply(500, ""), "429": reply(429, "", "Retry-After", "7"), "302": reply(302, "", "Location", "https://evil.example/?access_token=x"),
		"403 for too many requests": reply(403, "", "X-RateLimit-Remaining", "0"), "403 with Retry-After": reply(403, "", "Retry-After", "7"),
	} {
		t.Run(name, func(t *testing.T) {
			s.set("/user/teams", func(*http.Request) (*http.Response, error) { return answer, nil })
			_, err := s.plainSignIn(t, p, nil)
			if e := wantUnavailable(t, err); strings.Contains(e.Error(), "access_token") {
				t.Errorf("%v shows the address's query", e)
			}
		})
	}
	s.set("/user/teams", func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	_, err := s.plainSignIn(t, p, nil)
	if wantUnavailable(t, err); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v does not tell why", err)
	}
	t.Run("too much together", func(t *testing.T) {
		var list []idp.UserinfoCall
		for i := range 5 {
			list = append(list, idp.UserinfoCall{URL: apiOrigin + "/big", As: fmt.Sprintf("c%d", i)})
		}
		s, p := plain(t, from("userinfo"), calls(list...))
		s.answer("/me", 200, `{"sub":"u1"}`)
		s.answer("/big", 200, `["`+strings.Repeat("x", 900_000)+`"]`)
		_, err := s.plainSignIn(t, p, nil)
		wantProtocol(t, err, "c4", "bytes")
	})
	t.Run("a list without a name", func(t *testing.T) {
		s.answer("/user", 200, `[{"login":"octocat"}]`)
		_, err := s.plainSignIn(t, p, nil)
		wantProtocol(t, err, "as")
	})
}

// onlyThere fails when a request with the access token goes to another origin.
type onlyThere struct {
	http.RoundTripper
	t *testing.T
}

func (o onlyThere) RoundTrip(r *http.Request) (*http.Response, error) {
	if origin := r.URL.Scheme + "://" + r.URL.Host; r.Header.Get("Authorization") == "Bearer access" && origin != scriptIssuer &&
		!strings.EqualFold(strings.TrimSuffix(origin, ":443"), apiOrigin) {
		o.t.Errorf("the access token was sent to %s", r.URL)
	}
	return o.RoundTripper.RoundTrip(r)
}

// FuzzLinkStaysOnOrigin: whatever a Link header says, the access token goes to no other origin, and the calls end.
func FuzzLinkStaysOnOrigin(f *testing.F) {
	for _, seed := range []string{
		`<?page=1>; rel="next"`, `<https://evil.example/>; rel=next`, `<//evil.example>;rel=next`, `<\\evil.example>;rel=next`, `<https:evil.example>;rel=next`,
		`<https://api.example.com@evil.example/>; rel=next`, `<>; rel="next", <http://api.example.com/>; rel=next`, `<a>;x="\`, `,, ,<a>;;;rel`,
		`<https://api.example.com:443/x>;rel="prev next"`, `<https://API.EXAMPLE.COM./>;rel=next`, `<https://api.example.com%2eevil.example/>;rel=next`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		s := newScript(t)
		o := plainOptions()
		from("userinfo")(&o)
		calls(idp.UserinfoCall{URL: apiOrigin + "/user/teams", As: "teams"})(&o)
		o.Transport = onlyThere{s, t}
		s.answer("/me", 200, `{"sub":"u1"}`)
		s.set("/user/teams", func(*http.Request) (*http.Response, error) {
			r := reply(200, `[]`)
			r.Header["Link"] = []string{header}
			return r, nil
		})
		_, _ = s.plainSignIn(t, mustNew(t, o), nil)
	})
}
