package proxy_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

// A193: only a person's page navigation starts a sign-in. Nothing else gets a redirect or a cookie.
func TestA193_OnlyNavigationsStartASignIn(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	for name, c := range map[string]struct {
		method string
		header map[string]string
		want   int
	}{
		"navigation":           {"GET", nil, 303},
		"head":                 {"HEAD", nil, 303},
		"old browser":          {"GET", map[string]string{"Sec-Fetch-Mode": "", "Sec-Fetch-Dest": "", "Sec-Fetch-Site": ""}, 303},
		"fetch":                {"GET", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 401},
		"fetch that wants all": {"GET", map[string]string{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 401},
		"image":                {"GET", map[string]string{"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Accept": "image/*"}, 401},
		"curl":                 {"GET", map[string]string{"Sec-Fetch-Mode": "", "Sec-Fetch-Dest": "", "Sec-Fetch-Site": "", "Accept": "*/*"}, 401},
		"xhr of old browser":   {"GET", map[string]string{"Sec-Fetch-Mode": "", "X-Requested-With": "XMLHttpRequest"}, 401},
		"prefetch":             {"GET", map[string]string{"Sec-Purpose": "prefetch"}, 401},
		"prerender":            {"GET", map[string]string{"Sec-Purpose": "prefetch;prerender"}, 401},
		"iframe":               {"GET", map[string]string{"Sec-Fetch-Dest": "iframe"}, 401},
		"form post":            {"POST", nil, 401},
		"websocket":            {"GET", map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Fetch-Mode": "websocket"}, 401},
		"delete by script":     {"DELETE", map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, 401},
	} {
		a := b.Do(c.method, "/page", nil, c.header)
		if a.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", name, a.Status, c.want)
		}
		if c.want == 401 && len(a.Cookies()) > 0 {
			t.Errorf("%s: got cookies %v", name, a.Cookies())
		}
		if a.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be cached", name)
		}
		b = s.Browser()
	}
	if len(s.App.Requests()) != 0 {
		t.Error("a request without session reached the application")
	}
}

func TestProgramsGetAChallengeWithTheSignInAddress_S33(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	a := b.Do("GET", "/api/items", nil, map[string]string{"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "application/json", "Referer": s.URL + "/page?x=1"})
	if got := a.Header.Get("WWW-Authenticate"); got != `Bearer realm="127.0.0.1"` {
		t.Errorf("WWW-Authenticate: %s", got)
	}
	if a.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(a.Text, `"login_url":"`+s.URL+`/oauth2/start?rd=%2Fpage%3Fx%3D1"`) {
		t.Errorf("%s %s", a.Header.Get("Content-Type"), a.Text)
	}
	framed := b.Do("GET", "/widget", nil, map[string]string{"Sec-Fetch-Dest": "iframe"})
	if !strings.Contains(framed.Text, `target="_top"`) {
		t.Errorf("the frame's page does not lead to the top window: %s", framed.Text)
	}
	form := b.Do("POST", "/save", strings.NewReader("a=b"), map[string]string{"Referer": s.URL + "/form", "Sec-Fetch-Site": "same-origin"})
	if form.StatusCode != 401 || !strings.Contains(form.Text, "Nothing was sent") || !strings.Contains(form.Text, "rd=%2Fform") {
		t.Errorf("form without session: %s %s", form.Status, form.Text)
	}
}

// A190: a stranger writes nothing to the store.
func TestA190_StrangersWriteNothing(t *testing.T) {
	store := newCountingStore()
	s := proxytest.New(t, proxytest.Options{Store: store})
	for range 50 {
		s.Browser().Step("/x")
		s.Browser().Step("/oauth2/start")
		s.Browser().Fetch("/x")
		s.Browser().Step("/oauth2/callback?code=a&state=b")
		s.Browser().Step("/oauth2/session")
	}
	if n := store.calls.Load(); n != 0 {
		t.Errorf("strangers caused %d store operations", n)
	}
}

const routed = `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /open, access: public, upstream: "${UPSTREAM}"}
  - {path: /closed, access: deny}
  - {path: /staff, access: {groups: [staff, wiki-users]}, upstream: "${UPSTREAM}"}
  - {path: /nobody, access: {groups: [admins]}, upstream: "${UPSTREAM}"}
  - {path: /read, methods: [GET, HEAD], access: public, upstream: "${UPSTREAM}"}
`

func TestRulesDecide(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: routed})
	b := s.Browser()
	for _, c := range []struct {
		path string
		want int
	}{{"/open/x", 200}, {"/openx", 404}, {"/staff", 200}, {"/nobody", 403}, {"/closed", 403}, {"/", 404}, {"/read/1", 200}} {
		if a := b.Go(c.path); a.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.path, a.Status, c.want)
		}
	}
	if a := b.Go("/nobody"); !strings.Contains(a.Text, "alice@example.com") || !strings.Contains(a.Text, "another account") {
		t.Errorf("the refusal does not name the account and another: %s", a.Text)
	}
	if a := b.Do("POST", "/read/1", nil, nil); a.StatusCode != 404 {
		t.Errorf("POST on a GET route: %s", a.Status)
	}
	if a := s.Browser().Step("/closed"); a.StatusCode != 403 || len(a.Cookies()) > 0 {
		t.Errorf("a denied route asked a stranger to sign in: %s", a.Status)
	}
}

// A50, A54: on a public route no identity passes, whoever sends it, and the application's own credentials do.
func TestA50_PublicRouteCarriesNoIdentity(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: routed})
	b := s.Browser()
	b.Go("/staff").Received(t)
	got := b.Do("GET", "/open", nil, map[string]string{
		"X-Forwarded-User": "root", "X_Forwarded_Email": "root@x", "x.forwarded.groups": "admins", "Authorization": "Basic YTpi",
	}).Received(t)
	for name, values := range got.Header {
		if strings.Contains(strings.Join(values, ""), "root") || strings.Contains(strings.Join(values, ""), "admins") || strings.Contains(strings.ToLower(name), "user") && name != "User-Agent" {
			t.Errorf("%s: %q reached the application", name, values)
		}
	}
	if got.Header.Get("Authorization") != "Basic YTpi" {
		t.Errorf("the application's own credentials did not arrive: %q", got.Header.Get("Authorization"))
	}
	if got.Header.Get("Cookie") != "" {
		t.Errorf("our cookie reached a public route: %s", got.Header.Get("Cookie"))
	}
}

// The issue's own check, and A55: a client cannot keep, add or drop an identity header.
func TestA55_ConnectionHeaderCannotDropIdentity(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	got := b.Do("GET", "/", nil, map[string]string{
		"X-Forwarded-User": "root", "X_Forwarded_User": "root", "X.Forwarded.User": "root", "Authorization": "Bearer junk",
		"Connection": "Authorization, X-Forwarded-User, x-forwarded-groups",
	}).Received(t)
	count := 0
	for name, values := range got.Header {
		if strings.EqualFold(strings.NewReplacer("_", "-", ".", "-").Replace(name), "X-Forwarded-User") {
			count += len(values)
		}
	}
	if count != 1 || got.Header.Get("X-Forwarded-User") != "alice" || got.Header.Get("X-Forwarded-Groups") != "wiki-users" {
		t.Errorf("identity: %v", got.Header)
	}
	if v := got.Header.Values("Authorization"); len(v) != 1 || !strings.HasPrefix(v[0], "Bearer ") || v[0] == "Bearer junk" {
		t.Errorf("Authorization: %q", v)
	}
}

// A66: a bearer token alone is no way in.
func TestA66_JunkBearerIsNoLogin(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	a := s.Browser().Do("GET", "/", nil, map[string]string{"Authorization": "Bearer junk", "Sec-Fetch-Mode": "cors"})
	if a.StatusCode != http.StatusUnauthorized || len(s.App.Requests()) != 0 {
		t.Errorf("%s", a.Status)
	}
}

// A143: a cookie that is not ours, or is ours and damaged, is no session; the answer does not tell which.
func TestA143_DamagedCookiesAreNoSession(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	good := b.Cookie(sessionCookie).Value
	want := ""
	for _, value := range []string{"x", good[:len(good)-4], good + "A", flip(good, 5), flip(good, len(good)/2), strings.Repeat("A", 3000)} {
		thief := s.Browser()
		thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: value, Path: "/"}})
		a := thief.Fetch("/")
		text := strings.NewReplacer(a.Header.Get("X-Request-Id"), "").Replace(a.Text)
		text = text[:strings.Index(text, "request_id")]
		if a.StatusCode != http.StatusUnauthorized || want != "" && text != want {
			t.Errorf("%.20s…: %s %s", value, a.Status, text)
		}
		want = text
	}
}

func flip(s string, i int) string {
	c := byte('A')
	if s[i] == c {
		c = 'B'
	}
	return s[:i] + string(c) + s[i+1:]
}

// A100, A102, A105: what could be read in two ways goes nowhere.
func TestA100_AmbiguousTargetsAndOddMethodsAreRefused(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: routed})
	for target, want := range map[string]int{
		"/open/../staff": 400, "/open/%2e%2e/staff": 400, "/open/..%2fstaff": 400, "/open//x": 400, "/open/%00": 400, "/open/..;/staff": 400,
		"/open%5cstaff": 400, "/open/%252e%252e/staff": 400, "/%6fpen": 200, "/OPEN": 404, "/oauth2%2fsession": 400,
		"/%6fauth2/session": 401, "/OAuth2/session": 404, "/oauth2/": 401, "/oauth2x": 404,
		"/open;x/staff": 400, "/open;x=1": 400, "/open/a;x=1": 200, "/staff/..;/open": 400,
	} {
		if got := raw(t, s, "GET "+target+" HTTP/1.1"); got != want {
			t.Errorf("GET %s: %d, want %d", target, got, want)
		}
	}
	for method, want := range map[string]int{"TRACE": 405, "CONNECT": 405, "get": 405, "GeT": 405, "OPTIONS": 200} {
		if got := raw(t, s, method+" /open HTTP/1.1"); got != want && !(method == "CONNECT" && got == 400) {
			t.Errorf("%s: %d, want %d", method, got, want)
		}
	}
}

// Host: a name that no route has is misdirected, and no host but the public one becomes part of an address (A40, A61).
func TestA61_HostDecidesNothingButTheRoute(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {host: wiki.example.com, upstream: "${UPSTREAM}"}
  - {host: "*.apps.example.com", access: public, upstream: "${UPSTREAM}"}
`})
	b := s.Browser()
	for host, want := range map[string]int{"evil.com": 421, "": 421, "a.apps.example.com": 200, "apps.example.com": 421, "wiki.example.com.evil.com": 421} {
		if host == "" {
			host = "127.0.0.1"
		}
		if a := b.Do("GET", "/", nil, map[string]string{"Host": host}); a.StatusCode != want {
			t.Errorf("%s: %s, want %d", host, a.Status, want)
		}
	}
	a := b.Do("GET", "/page", nil, map[string]string{"Host": "wiki.example.com", "X-Forwarded-Host": "evil.com", "X-Forwarded-Proto": "http", "Forwarded": "host=evil.com", "X-Original-URL": "/oauth2/logout"})
	redirect := mustURL(t, a.Header.Get("Location")).Query().Get("redirect_uri")
	if redirect != "https://wiki.example.com/oauth2/callback" {
		t.Errorf("redirect_uri = %q", redirect)
	}
	for _, c := range a.Cookies() {
		if !c.Secure || !strings.HasPrefix(c.Name, "__Host-") {
			t.Errorf("cookie %s", c.Raw)
		}
	}
}

// With public_url a navigation on another host goes there first; where Host is rewritten on the way this happens once.
func TestNavigationMovesToThePublicHostOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `listen: "${LISTEN}"`, `listen: "${LISTEN}", public_url: "https://wiki.example.com"`, 1)})
	b := s.Browser()
	b.Insecure() // the jar sends Secure cookies over http, as if TLS ended before us
	first := b.Step("/page?x=1")
	if first.Header.Get("Location") != "https://wiki.example.com/page?x=1" {
		t.Fatalf("%s %s", first.Status, first.Header.Get("Location"))
	}
	if second := b.Step("/page?x=1"); !strings.HasPrefix(second.Header.Get("Location"), s.Provider.URL) {
		t.Errorf("again: %s %s", second.Status, second.Header.Get("Location"))
	}
	if a := s.Browser().Fetch("/page"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a fetch was moved: %s", a.Status)
	}
}

func TestIdleAndLifetimeEndSessions_A174(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "providers:", "session: {idle_timeout: 30m, lifetime: 2h, cache: {max_stale: 0s}}\nproviders:", 1)})
	s.Provider.SetTokenTTL(24 * time.Hour)
	b := s.Browser()
	b.Go("/").Received(t)
	for range 4 { // used every 25 minutes: alive at 1 h 40
		s.Clock.Add(25 * time.Minute)
		b.Fetch("/").Received(t)
		proxytest.Eventually(t, func() bool { return strings.Contains(b.Fetch("/oauth2/session").Text, "idle_until") })
	}
	s.Clock.Add(25 * time.Minute)
	if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"lifetime"`) {
		t.Errorf("past the lifetime: %s %s", a.Status, a.Text)
	}
	b.Go("/").Received(t)
	s.Clock.Add(31 * time.Minute)
	if a := b.Fetch("/"); a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `"ended":"idle"`) {
		t.Errorf("past idle: %s %s", a.Status, a.Text)
	}
}

// A115: nothing secret is logged.
func TestA115_LogsHoldNoSecretNorName(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	first := b.Step("/page?password=canary-query")
	callback := b.Step(first.Header.Get("Location")).Header.Get("Location")
	got := b.Go(callback).Received(t)
	b.Go("/oauth2/session")
	b.Post("/oauth2/logout", nil)
	log := s.Log.String()
	q := mustURL(t, callback).Query()
	canaries := []string{"canary-query", "alice", "Alice", "canary-client-secret", q.Get("code"), q.Get("state"), strings.TrimPrefix(got.Header.Get("Authorization"), "Bearer ")}
	for _, r := range s.Provider.TokenRequests() {
		canaries = append(canaries, r.Form.Get("code_verifier"))
	}
	for _, c := range b.Cookies() {
		canaries = append(canaries, c.Value)
	}
	for _, c := range canaries {
		if c == "" || strings.Contains(log, c) {
			t.Errorf("the log holds %.40q", c)
		}
	}
	if !strings.Contains(log, `"msg":"request"`) || !strings.Contains(log, `"verdict":"allow"`) {
		t.Errorf("the log lacks its lines: %s", log)
	}
	_ = idptest.Token
}
