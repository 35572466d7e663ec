//go:build attack

package attack_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

// threeWays are one route each for the kinds of access.
const threeWays = `
  - {path: /public/, upstream: {app}, access: public}
  - {path: /optional/, upstream: {app}, access: optional}
  - {path: /, upstream: {app}, access: signed_in}
`

// identity are the headers that tell an application who asks.
var identity = []string{"X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Preferred-Username", "X-Forwarded-Groups"}

func TestA50_ClientsCannotSayWhoTheyAre(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	spoofed := []string{
		"X-Forwarded-User: root", "X-Forwarded-Email: root@example.com", "X-Forwarded-Preferred-Username: root", "X-Forwarded-Groups: admins",
		"X-Forwarded-Access-Token: junk", "X-Auth-Request-User: root", "X-Auth-Request-Access-Token: junk", "Remote-User: root", "X-Remote-User: root",
		"X-WEBAUTH-USER: root", "X-Goog-Authenticated-User-Email: root", "Cf-Access-Authenticated-User-Email: root", "X-Amzn-Oidc-Data: junk",
		"OIDC_CLAIM_sub: root", "X-MS-Client-Principal: junk", "Tailscale-User-Login: root", "Auth-User: root",
	}
	for _, method := range []string{"GET", "OPTIONS", "POST", "DELETE"} {
		for _, path := range []string{"/public/x", "/optional/x", "/x"} {
			for _, cookie := range []string{"", b.cookies()} {
				if path == "/x" && cookie == "" {
					continue
				}
				w.app.forget()
				lines := append(slices.Clone(spoofed), "Content-Length: 0")
				if cookie != "" {
					lines = append(lines, cookie)
				}
				if a := w.ask(w.request(method+" "+path, lines...)); a.status != http.StatusOK {
					t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
				}
				got := w.app.one(t)
				want := "alice"
				if cookie == "" || path == "/public/x" {
					want = ""
				}
				if user := strings.Join(got.folded("X-Forwarded-User"), "|"); user != want {
					t.Errorf("%s %s: the application is told the user %q, want %q", method, path, user, want)
				}
				if strings.Contains(got.raw, "root") || strings.Contains(got.raw, "junk") || strings.Contains(got.raw, "admins") {
					t.Errorf("%s %s: the application gets %q", method, path, got.raw)
				}
			}
		}
	}
	w.app.forget()
	for _, path := range []string{"/oauth2/session", "/oauth2/nothing", "/x"} {
		if a := w.ask(w.get(path, append(spoofed, "Authorization: Bearer junk")...)); strings.Contains(a.raw, "root") || a.status == http.StatusOK {
			t.Errorf("%s: %s", path, a.raw)
		}
	}
	w.app.none(t)
}

func TestA55_ConnectionHeaderCannotDropIdentity(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	for _, named := range []string{
		"X-Forwarded-User, Authorization, Cookie, X-Forwarded-Email, X-Forwarded-For, X-Request-Id",
		"x-forwarded-user, authorization, cookie", "close, X-FORWARDED-USER,authorization", "X-Forwarded-User\r\nConnection: Authorization",
	} {
		w.app.forget()
		if a := w.ask(w.get("/x", b.cookies(), "Connection: "+named)); a.status != http.StatusOK {
			t.Fatalf("Connection: %s: %d %s", named, a.status, a.body)
		}
		got := w.app.one(t)
		for name, want := range map[string]string{"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com"} {
			if values := got.folded(name); len(values) != 1 || values[0] != want {
				t.Errorf("Connection: %s: %s is %q", named, name, values)
			}
		}
		for _, name := range []string{"Authorization", "X-Forwarded-For", "X-Request-Id"} {
			if len(got.folded(name)) != 1 {
				t.Errorf("Connection: %s: %s is %q", named, name, got.folded(name))
			}
		}
		if strings.Contains(got.raw, b.session()) {
			t.Errorf("Connection: %s: the application gets the session's cookie", named)
		}
	}
}

func TestA66_JunkBearerIsNoSignIn(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	for _, junk := range []string{"Authorization: Bearer junk", "Authorization: Bearer " + b.session(), "Authorization: Basic cm9vdDpyb290", "authorization: bearer a.b.c"} {
		if a := w.ask(w.get("/x", junk)); a.status != http.StatusUnauthorized {
			t.Errorf("without cookie, %s: %d", junk, a.status)
		}
	}
	w.app.none(t)
	if a := w.ask(w.get("/x", b.cookies(), "Authorization: Bearer junk", "Authorization: Bearer more")); a.status != http.StatusOK {
		t.Fatalf("with cookie: %d %s", a.status, a.body)
	}
	got := w.app.one(t)
	if values := got.folded("Authorization"); len(values) != 1 || strings.Contains(values[0], "junk") || strings.Contains(values[0], "more") || !strings.HasPrefix(values[0], "Bearer ") {
		t.Errorf("the application gets Authorization %q", values)
	}
	for _, name := range identity {
		if len(got.folded(name)) != 1 {
			t.Errorf("%s is %q", name, got.folded(name))
		}
	}
}

// A route with bearer_tokens goes by the token, whatever cookies are beside it: one that is not good is refused, never passed over.
func TestA66_JunkBearerIsNoSignInWhereTokensAreTaken(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{idp: idptest.Options{JWTAccessTokens: true}, routes: `
  - {path: /api/, upstream: {app}, access: {bearer_tokens: {audience: api}}}
  - {path: /open/, upstream: {app}, access: optional}
  - {path: /, upstream: {app}}
`})
	b := w.browser()
	b.signIn("/")
	own := strings.TrimPrefix(w.app.one(t).Header.Get("Authorization"), "Bearer ")
	keys := w.sessionKeys()
	good := accessToken(w.provider, "api", "read", claims{"sub": "mallory"})
	w.secrets.Add("bearer token", good)
	for _, tt := range []struct {
		header        []string
		alone, beside int    // status without the cookie and with it
		user          string // beside the cookie
	}{
		{[]string{"Authorization: Bearer junk"}, 401, 401, ""},
		{[]string{"Authorization: bearer a.b.c"}, 401, 401, ""},
		{[]string{"Authorization: Bearer " + b.session()}, 401, 401, ""},
		{[]string{"Authorization: Bearer " + own}, 401, 401, ""}, // the session's, which is not for this audience
		{[]string{"Authorization: Bearer " + good[:len(good)-6] + "AAAAAA"}, 401, 401, ""},
		{[]string{"Authorization: Bearer"}, 400, 400, ""},
		{[]string{"Authorization: Bearer junk " + good}, 400, 400, ""},
		{[]string{"Authorization: Bearer " + good, "Authorization: Bearer junk"}, 400, 400, ""},
		{[]string{"Authorization: Basic cm9vdDpyb290", "Authorization: Bearer " + good}, 400, 400, ""},
		{[]string{"Authorization: Bearer " + good}, 200, 200, "mallory"},
		// No token in Authorization: the session decides, and none of this goes on.
		{[]string{"Authorization: Basic cm9vdDpyb290"}, 401, 200, "alice"},
		{[]string{"Proxy-Authorization: Bearer " + good}, 401, 200, "alice"},
		{[]string{"X-Forwarded-Access-Token: " + good}, 401, 200, "alice"},
		{[]string{"Authorization_: Bearer " + good}, 401, 200, "alice"},
	} {
		name := strings.Join(tt.header, ", ")
		if a := w.ask(w.get("/api/x", tt.header...)); a.status != tt.alone || a.header.Get("Set-Cookie") != "" || a.header.Get("Location") != "" {
			t.Errorf("without cookie, %s: %d %v", name, a.status, a.header)
		}
		if tt.alone != http.StatusOK {
			w.app.none(t)
		}
		w.app.forget()
		if a := w.ask(w.get("/api/x", append(tt.header, b.cookies())...)); a.status != tt.beside || a.header.Get("Set-Cookie") != "" {
			t.Errorf("beside a session, %s: %d %v", name, a.status, a.header)
		}
		if tt.user == "" {
			w.app.none(t)
			w.app.forget()
			continue
		}
		got, bearer := w.app.one(t), map[string]string{"mallory": good, "alice": own}[tt.user]
		if values := got.folded("Authorization"); !slices.Equal(values, []string{"Bearer " + bearer}) {
			t.Errorf("beside a session, %s: the application gets Authorization %q", name, values)
		}
		if values := got.folded("X-Forwarded-User"); !slices.Equal(values, []string{tt.user}) {
			t.Errorf("beside a session, %s: the application takes it for one of %q", name, values)
		}
	}
	// Where a token stands in an address (RFC 6750 section 2.3), it is none.
	if a := w.ask(w.get("/api/x?access_token=" + good)); a.status != http.StatusUnauthorized {
		t.Errorf("a token in the address: %d", a.status)
	}
	// A route without bearer_tokens knows no token, and one that is optional no person by it.
	if a := w.ask(w.get("/x", "Authorization: Bearer "+good)); a.status != http.StatusUnauthorized {
		t.Errorf("at a route without bearer_tokens: %d", a.status)
	}
	w.app.none(t)
	if a := w.ask(w.get("/open/x", "Authorization: Bearer "+good)); a.status != http.StatusOK || len(w.app.one(t).folded("X-Forwarded-User")) != 0 {
		t.Errorf("at an optional route: %d, or the application hears of a person", a.status)
	}
	if after := w.sessionKeys(); !slices.Equal(slices.Sorted(slices.Values(keys)), slices.Sorted(slices.Values(after))) || !b.signedIn() {
		t.Errorf("tokens changed what is in Redis: %q, then %q", keys, after)
	}
}

func TestA51_NoSpellingOfAnIdentityHeaderPasses(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	for _, spelling := range []string{
		"X_Forwarded_User", "X.Forwarded.User", "x-forwarded-USER", "X-Forwarded_User", "X__Forwarded--User", "XForwardedUser", "X-Forwarded-User-", "x!forwarded!user",
		"HTTP_X_FORWARDED_USER", "X_FORWARDED_EMAIL", "X.Forwarded-Groups", "X_Forwarded_Preferred_Username", "X_FORWARDED_FOR", "AUTHORIZATION_", "Auth_User",
		"REMOTE_USER", "Remote.User", "X_REAL_IP", "CONTENT_LENGTH", "Transfer_Encoding", "X_Request_Id",
	} {
		for _, path := range []string{"/public/x", "/x"} {
			w.app.forget()
			lines := []string{spelling + ": 31337", "X-Harmless: yes"}
			if path == "/x" {
				lines = append(lines, b.cookies())
			}
			if a := w.ask(w.get(path, lines...)); a.status != http.StatusOK {
				t.Errorf("%s: %d", spelling, a.status)
				continue
			}
			got := w.app.one(t)
			if strings.Contains(got.raw, "31337") && spelling != "HTTP_X_FORWARDED_USER" {
				t.Errorf("%s reaches the application: %q", spelling, got.raw)
			}
			if values := got.folded("X-Forwarded-User"); slices.Contains(values, "31337") || len(values) > 1 {
				t.Errorf("%s: an application that folds names sees the users %q", spelling, values)
			}
			if len(got.folded("X-Harmless")) != 1 {
				t.Errorf("%s: other headers are gone: %q", spelling, got.raw)
			}
		}
	}
	w.app.forget()
	for _, line := range []string{" X-Forwarded-User: 31337", "X-Forwarded-User : 31337", "X-Forwarded-User\t: 31337"} {
		a := w.ask(w.get("/public/x", "X-Harmless: yes", line))
		for _, got := range w.app.received() {
			if len(got.folded("X-Forwarded-User")) > 0 {
				t.Errorf("%q reaches the application: %q", line, got.raw)
			}
			got.canonical(t)
		}
		if a == nil {
			t.Errorf("%q: no answer", line)
		}
		w.app.forget()
	}
}

func TestA52_AnInjectedHeaderComesOnce(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	var lines []string
	ours := append([]string{"Authorization", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-Ip", "Forwarded", "X-Request-Id"}, identity...)
	for _, name := range ours {
		lines = append(lines, name+": one", strings.ToLower(name)+": two", strings.ReplaceAll(name, "-", "_")+": three")
	}
	if a := w.ask(w.get("/x", append(lines, b.cookies())...)); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := w.app.one(t)
	for _, name := range ours {
		values := got.folded(name)
		if len(values) != 1 || values[0] == "one" || values[0] == "two" || values[0] == "three" {
			t.Errorf("%s: %q", name, values)
		}
	}
}

func TestA53_NoClaimPretendsToBeTwoOrBreaksTheRequest(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	groups := []any{"a,admin", "plain", "q\"uote", "line\r\nX-Evil: yes", "grün", " space ", "100%", "\u0000", "%2Cadmin"}
	w.provider.MutateIDToken(func(_, claims map[string]any) {
		claims["groups"] = groups
		claims["preferred_username"] = "al\r\nX-Evil: yes\r\n\r\nGET /smuggled HTTP/1.1"
	})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
		t.Fatalf("%d %s", p.status, p.body)
	}
	got := w.app.one(t)
	got.canonical(t)
	if len(got.folded("X-Evil")) > 0 {
		t.Errorf("a claim became a header: %q", got.raw)
	}
	values := got.folded("X-Forwarded-Groups")
	if len(values) != 1 {
		t.Fatalf("groups: %q", values)
	}
	// A name with control characters is nobody's group.
	groups = slices.DeleteFunc(groups, func(g any) bool { return strings.ContainsAny(g.(string), "\r\x00") })
	members := strings.Split(values[0], ",")
	if len(members) != len(groups) {
		t.Fatalf("%d groups arrive as %d: %q", len(groups), len(members), values[0])
	}
	for i, member := range members {
		if plain, err := url.PathUnescape(member); err != nil || plain != groups[i] {
			t.Errorf("group %q arrives as %q", groups[i], member)
		}
	}
}

func TestA54_AnAbsentClaimIsNeitherStaleNorTheClients(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	w.provider.MutateIDToken(func(_, claims map[string]any) {
		for _, name := range []string{"email", "email_verified", "preferred_username", "groups"} {
			delete(claims, name)
		}
	})
	b.open("/oauth2/logout")
	b = w.browser()
	b.signIn("/")
	w.app.forget()
	if a := w.ask(w.get("/x", b.cookies(), "X-Forwarded-Email: root@example.com", "X-Forwarded-Groups: admins", "X-Forwarded-Preferred-Username: root")); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := w.app.one(t)
	for _, name := range identity[1:] {
		if values := got.folded(name); len(values) > 0 {
			t.Errorf("%s is %q", name, values)
		}
	}
	if values := got.folded("X-Forwarded-User"); len(values) != 1 || values[0] != "alice" {
		t.Errorf("the user is %q", values)
	}
}

func TestA56_TrailersAreNeverHeaders(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	for _, trailer := range []string{"X-Forwarded-User", "Authorization", "X_Forwarded_User", "Cookie", "Content-Length"} {
		a := w.ask(w.request("POST /x", b.cookies(), "Transfer-Encoding: chunked", "TE: trailers", "Trailer: "+trailer) +
			"3\r\nabc\r\n0\r\n" + trailer + ": 31337\r\n\r\n")
		for _, got := range w.app.received() {
			if strings.Contains(got.raw, "31337") || len(got.folded("Trailer")) > 0 {
				t.Errorf("%s: the application gets %q", trailer, got.raw)
			}
			if values := got.folded("X-Forwarded-User"); len(values) != 1 || values[0] != "alice" {
				t.Errorf("%s: the user is %q", trailer, values)
			}
			got.canonical(t)
		}
		if a == nil || a.status != http.StatusOK && a.status != http.StatusBadRequest {
			t.Errorf("%s: %v", trailer, a)
		}
		w.app.forget()
	}
}

// claimed are the headers by which a proxy tells where a request came from and for what. None of the values may be believed.
var claimed = []string{
	"X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: ftp", "X-Forwarded-Host: evil.example.net", "X-Forwarded-Port: 31337", "X-Forwarded-Prefix: /31337",
	"X-Forwarded-Uri: /public/31337", "X-Forwarded-Method: OPTIONS31337", "X-Forwarded-Server: 31337", "X-Forwarded-Ssl: 31337", "X-Real-IP: 198.51.100.7",
	"Forwarded: for=198.51.100.7;host=evil.example.net;proto=ftp", "X-Original-URL: /public/31337", "X-Original-URI: /public/31337", "X-Rewrite-URL: /public/31337",
	"X-HTTP-Method-Override: OPTIONS31337", "X-HTTP-Method: OPTIONS31337", "X-Method-Override: OPTIONS31337", "X-Original-Method: OPTIONS31337", "X-Original-Host: evil.example.net",
	"X-Host: evil.example.net", "X-Client-IP: 198.51.100.7", "True-Client-IP: 198.51.100.7", "CF-Connecting-IP: 198.51.100.7", "X-Cluster-Client-IP: 198.51.100.7",
	"X-Envoy-External-Address: 198.51.100.7", "X-Envoy-Original-Path: /public/31337", "X-ProxyUser-Ip: 198.51.100.7", "Front-End-Https: 31337", "X-Url-Scheme: ftp",
	"X-Request-Id: 31337",
}

func TestA57_StrangersDoNotSayWhereTheyComeFromOrWhatTheyWant(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	for _, line := range claimed {
		if a := w.ask(w.get("/x", line)); a.status != http.StatusUnauthorized {
			t.Errorf("%s opens a protected page: %d", line, a.status)
		}
		w.app.none(t)
		for _, request := range []string{w.get("/public/x", line), w.get("/x", line, b.cookies())} {
			if a := w.ask(request); a.status != http.StatusOK {
				t.Errorf("%s: %d", line, a.status)
				continue
			}
			got := w.app.one(t)
			for _, value := range []string{"31337", "198.51.100.7", "evil.example.net", "ftp"} {
				if strings.Contains(got.raw, value) {
					t.Errorf("%s reaches the application: %q", line, got.raw)
				}
			}
			if got.Method != http.MethodGet || !slices.Equal(got.folded("X-Forwarded-For"), []string{"127.0.0.1"}) || !slices.Equal(got.folded("X-Forwarded-Host"), []string{w.host}) {
				t.Errorf("%s: the application gets %q", line, got.raw)
			}
		}
	}
}

func TestA58_OfATrustedProxysChainOnlyTheLastStrangerCounts(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]", routes: threeWays})
	for chain, want := range map[string]string{
		"198.51.100.7":                               "198.51.100.7",
		"6.6.6.6, 198.51.100.7":                      "198.51.100.7",
		"6.6.6.6, 198.51.100.7, 10.1.1.1":            "198.51.100.7, 10.1.1.1",
		"127.0.0.1, 6.6.6.6, 198.51.100.7, 10.1.1.1": "198.51.100.7, 10.1.1.1",
		"10.2.2.2, unknown, 10.1.1.1":                "10.1.1.1",
	} {
		w.app.forget()
		if a := w.ask(w.get("/public/x", "X-Forwarded-For: "+chain, "X-Forwarded-Proto: http, https", "X-Forwarded-Host: evil.example.net, "+w.host)); a.status != http.StatusOK {
			t.Fatalf("%s: %d", chain, a.status)
		}
		got := w.app.one(t)
		if values := got.folded("X-Forwarded-For"); len(values) != 1 || !strings.HasPrefix(values[0], want) || strings.Contains(got.raw, "6.6.6.6") {
			t.Errorf("%s: the application is told %q, want %q", chain, values, want)
		}
		if !slices.Equal(got.folded("X-Forwarded-Proto"), []string{"https"}) || !slices.Equal(got.folded("X-Forwarded-Host"), []string{w.host}) {
			t.Errorf("%s: the application gets %q", chain, got.raw)
		}
	}
}

func TestA59_NobodyIsTrustedByDefaultAndTheWholeInternetNever(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	if a := w.ask(w.get("/public/x", "X-Forwarded-For: 198.51.100.7", "X-Forwarded-Proto: https")); a.status != http.StatusOK {
		t.Fatal(a.status)
	}
	if got := w.app.one(t); !slices.Equal(got.folded("X-Forwarded-For"), []string{"127.0.0.1"}) || slices.Contains(got.folded("X-Forwarded-Proto"), "https") {
		t.Errorf("by default the application gets %q", got.raw)
	}
	for _, everybody := range []string{"0.0.0.0/0", "::/0", "0.0.0.0/1"} {
		file := proctest.WriteFile(t, t.TempDir(), "postern.yaml", []byte(fmt.Sprintf(`
server: {trusted_proxies: [%q], public_url: "https://app.example.com"}
providers: {corp: {issuer: "https://id.example.com", client_id: a, client_secret: b}}
routes: [{upstream: "http://127.0.0.1:1", access: public}]
`, everybody)))
		out, err := exec.CommandContext(t.Context(), program, "check", "--config", file).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "trusts addresses of the whole internet") {
			t.Errorf("%s: %v %s", everybody, err, out)
		}
	}
}

func TestA60_ForwardedProtoChangesNeitherCookiesNorRedirects(t *testing.T) {
	attack(t)
	for _, trusted := range []string{"", "trusted_proxies: [127.0.0.0/8]"} {
		w := newWorld(t, settings{server: trusted})
		for _, proto := range []string{"http", "https", "ws", "javascript"} {
			p := w.browser().navigate("/x", "X-Forwarded-Proto: "+proto, "Forwarded: proto="+proto, "X-Forwarded-Ssl: off", "X-Forwarded-Port: 80")
			if p.status != http.StatusSeeOther {
				t.Fatalf("%d %s", p.status, p.body)
			}
			for _, c := range (&http.Response{Header: p.header}).Cookies() {
				if !c.Secure || !c.HttpOnly || !strings.HasPrefix(c.Name, "__Host-") || c.Domain != "" || c.Path != "/" {
					t.Errorf("%s: cookie %q", proto, c)
				}
			}
			to, err := url.Parse(p.header.Get("Location"))
			if err != nil {
				t.Fatal(err)
			}
			if got := to.Query().Get("redirect_uri"); got != w.origin+"/oauth2/callback" {
				t.Errorf("%s: redirect_uri %s", proto, got)
			}
		}
	}
}

func TestA61_NoHostHeaderLeadsSomewhereElse(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {host: app.example.com, upstream: {app}}\n  - {host: app.example.com, path: /public/, upstream: {app}, access: public}\n"})
	for _, request := range []string{
		"GET /x HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
		"GET http://evil.example.net/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET http://evil.example.net/public/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: app.example.com.evil.example.net\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: evil.example.net#app.example.com\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: app.example.com\r\nHost: evil.example.net\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost: app.example.com, evil.example.net\r\n\r\n",
		"GET /public/x HTTP/1.1\r\nHost:\r\n\r\n",
		"GET /public/x HTTP/1.1\r\n\r\n",
		"GET /oauth2/start HTTP/1.1\r\nHost: evil.example.net\r\nAccept: text/html\r\n\r\n",
	} {
		a := w.ask(request)
		if a == nil || a.status != http.StatusBadRequest && a.status != http.StatusMisdirectedRequest {
			t.Errorf("%q: %+v", request, a)
		}
		w.app.none(t)
		w.app.forget()
	}
	for _, line := range []string{"X-Forwarded-Host: evil.example.net", "X-Host: evil.example.net", "Forwarded: host=evil.example.net", "X-Original-Host: evil.example.net"} {
		p := w.browser().navigate("/x", line)
		if p.status != http.StatusSeeOther || strings.Contains(p.header.Get("Location"), "evil") {
			t.Errorf("%s: %d %s", line, p.status, p.header.Get("Location"))
		}
	}
	// A route for every host changes nothing about where people are sent, and an absolute address must name ours.
	w = newWorld(t, settings{})
	p := w.browser().navigate("/x", "Host: evil.example.net")
	if to := p.header.Get("Location"); p.status != http.StatusSeeOther || !strings.HasPrefix(to, w.origin+"/") && !strings.HasPrefix(to, w.provider.URL) || strings.Contains(to, "evil") {
		t.Errorf("Host: evil.example.net is sent to %q", to)
	}
	if a := w.ask("GET http://evil.example.net/x HTTP/1.1\r\nHost: app.example.com\r\n\r\n"); a.status != http.StatusMisdirectedRequest {
		t.Errorf("an absolute address of another host: %d", a.status)
	}
	w.app.none(t)
}

func TestA62_SpellingsOfAHostAreOneHost(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {host: app.example.com, upstream: {app}, access: signed_in}\n  - {host: www.example.com, upstream: {app}, access: public}\n", publicURL: "-"})
	for host, want := range map[string]int{
		"app.example.com": 401, "APP.EXAMPLE.COM": 401, "app.example.com.": 401, "app.example.com:443": 401, "app.example.com:1": 401, "App.Example.Com.:80": 401,
		"www.example.com": 200, "WWW.example.com.:443": 200,
		"www.example.com@app.example.com": 400, "app.example.com@www.example.com": 400, "user:pw@www.example.com": 400,
		"www.example.com..": 421, "www.example.com:x": 421, "[www.example.com]": 421, "www.example.com:80:80": 421, "xwww.example.com": 421,
	} {
		w.app.forget()
		a := w.ask("GET /x HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if a == nil || a.status != want && !(want >= 421 && a.status == 400) && !(want == 400 && a.status == 421) {
			t.Errorf("Host: %s: %+v, want %d", host, a, want)
		}
		if want != 200 {
			w.app.none(t)
		}
	}
}

func TestA63_ClientCertificatesInHeadersAreNotBelieved(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	for _, name := range []string{
		"Client-Cert", "Client-Cert-Chain", "X-SSL-Client-Cert", "X-SSL-Client-Verify", "X-SSL-Client-S-DN", "SSL-Client-Cert", "SSL_CLIENT_VERIFY", "X-Client-Verify", "X-Client-DN",
		"X-Client-Cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-ARR-ClientCert", "X-Amzn-Mtls-Clientcert", "X-TLS-Client-Cert", "Client_Cert",
	} {
		w.app.forget()
		if a := w.ask(w.get("/public/x", name+": SUCCESS31337")); a.status != http.StatusOK {
			t.Fatalf("%s: %d", name, a.status)
		}
		if got := w.app.one(t); strings.Contains(got.raw, "31337") {
			t.Errorf("%s reaches the application: %q", name, got.raw)
		}
	}
}

func TestA64_WhatIsMeantForProxiesStopsHere(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	for _, line := range []string{
		"Proxy-Authorization: Basic 31337", "Proxy-Connection: keep-alive31337", "Proxy_Authorization: 31337", "Proxy: http://31337/", "Keep-Alive: timeout=31337",
		"TE: 31337", "Connection: X-Named\r\nX-Named: 31337", "HTTP2-Settings: 31337", "Upgrade: 31337\r\nConnection: Upgrade",
	} {
		w.app.forget()
		if a := w.ask(w.get("/public/x", line)); a.status != http.StatusOK {
			t.Errorf("%s: %d", line, a.status)
			continue
		}
		if got := w.app.one(t); strings.Contains(got.raw, "31337") || len(got.folded("Connection")) > 0 {
			t.Errorf("%s reaches the application: %q", line, got.raw)
		}
	}
}

func TestA65_NoHealthCheckOpensADoor(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for _, line := range []string{
		"User-Agent: GoogleHC/1.0", "User-Agent: kube-probe/1.33", "User-Agent: ELB-HealthChecker/2.0", "X-Health-Check: 1", "User-Agent: Prometheus/3.0",
	} {
		for _, path := range []string{"/admin", "/healthz", "/readyz", "/metrics", "/ping", "/oauth2/healthz", "/debug/pprof/"} {
			if a := w.ask(w.get(path, line)); a.status != http.StatusUnauthorized && a.status != http.StatusNotFound {
				t.Errorf("%s, %s: %d", path, line, a.status)
			}
		}
	}
	w.app.none(t)
}
