//go:build attack

package attack_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// guarded is a public part in an application that is otherwise for who is signed in.
const guarded = `
  - {path: /public/, upstream: {app}, access: public}
  - {path: /api/, upstream: {app}, access: public}
  - {path: /, upstream: {app}, access: signed_in}
`

func TestA100_NoSpellingOfAPathSlipsPastItsRule(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: guarded})
	for _, path := range []string{
		"/public/../admin", "/public/%2e%2e/admin", "/public/.%2e/admin", "/public/..%2fadmin", "/public%2f..%2fadmin", "/public/%252e%252e/admin", "/public/%252e%252e%252fadmin", "/public%2fadmin", "/public/a%2fb", "/public/a%252fb",
		"//public/../admin", "/public//../admin", "//admin", "/public/./../admin", "/./admin", "/public/..;/admin", "/public/..;x=y/admin", "/public;x/../admin", "/public/.;/../admin",
		"/public\\..\\admin", "/public/..\\admin", "/public/..%5cadmin", "/public/%5c../admin", "/public/..%255cadmin", "/public/%00/../admin", "/public/x%00", "/public/x%0d%0a",
		"/public/..%20/admin", "/public/.. /admin", "/public/%c0%ae%c0%ae/admin", "/public/%c0%af../admin", "/public/%e0%80%af../admin", "/public/%u002e%u002e/admin",
		"/public/%2", "/public/%zz", "/public/%", "/public#/../admin", "/public/#", "/public/%2523", "/public/%253f", "/public/x%09", "/public/\x7f", "/public/\x01", "*", "admin", "?public/",
		"http:///public/x", "javascript:alert(1)", "/public%ff",
	} {
		w.app.forget()
		a := w.ask(w.get(path))
		if a == nil || a.status != http.StatusBadRequest && a.status != http.StatusMisdirectedRequest {
			t.Errorf("%q: %+v, want 400", path, a)
		}
		w.app.none(t)
	}
	for path, public := range map[string]bool{
		"/public/x": true, "/public": true, "/public/": true, "/public/a%23b": true, "/public/a%3fb": true, "/public/%70lain": true, "/%70ublic/x": true, "/public/a;v=1": true,
		"/public/a%20b": true, "/public/gr%c3%bcn": true, "/public/x?next=/../admin": true,
		"/Public/x": false, "/PUBLIC/x": false, "/publicx": false, "/public%20/x": false, "/admin": false, "/admin;/public/x": false, "/admin%23/public/": false,
		"/admin%3f/public/": false, "/x/public/": false, "/admin?/public/": false, "/%2561dmin": false,
	} {
		w.app.forget()
		a := w.ask(w.get(path))
		switch {
		case a == nil:
			t.Errorf("%q: no answer", path)
		case !public:
			if a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
				t.Errorf("%q opens: %d", path, a.status)
			}
			w.app.none(t)
		case a.status != http.StatusOK:
			t.Errorf("%q: %d, want it public", path, a.status)
		default:
			if got := w.app.one(t); got.RequestURI != path {
				t.Errorf("%q reaches the application as %q", path, got.RequestURI)
			}
		}
	}
}

func TestA101_OnlyThePathDecidesWhatIsPublic(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: guarded})
	for _, target := range []string{
		"/admin?x=/public/", "/admin?/public/x", "/admin/public/x", "/admin%23/public/x", "/admin%3f/public/x", "/foo/secret%23/public/", "/admin;/public/", "/adminpublic/", "/Xpublic/x",
		"http://app.example.com/admin?u=http://app.example.com/public/", "/admin?" + strings.Repeat("a=1&", 10001) + "public=/public/",
	} {
		if a := w.ask(w.get(target)); a == nil || a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			t.Errorf("%.60q: %+v", target, a)
		}
		w.app.none(t)
	}
	// What the rule did not read reaches the application as it was written.
	for _, query := range []string{"?a=1;b=2", "?q=100%", "?q=%zz&ok=1", "?", "?a=b=c&&", "?" + strings.Repeat("a=1&", 10001)} {
		w.app.forget()
		if a := w.ask(w.get("/public/x" + query)); a == nil || a.status != http.StatusOK {
			t.Fatalf("%.60q: %+v", query, a)
		}
		if got := w.app.one(t); got.RequestURI != "/public/x"+query {
			t.Errorf("%.60q reaches the application as %.60q", query, got.RequestURI)
		}
	}
}

func TestA102_NoMethodSlipsPastItsRule(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {methods: [GET, OPTIONS], upstream: {app}, access: public}\n  - {upstream: {app}, access: signed_in}\n"})
	for _, method := range []string{"get", "GeT", "options", "Get", "TRACE", "TRACK", "CONNECT", "PRI", "trace"} {
		a := w.ask(w.request(method + " /x"))
		if a == nil || a.status != http.StatusMethodNotAllowed && a.status != http.StatusBadRequest && a.status != http.StatusSwitchingProtocols {
			t.Errorf("%s: %+v", method, a)
		}
		w.app.none(t)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "FOO", "PROPFIND", "GETX", "X"} {
		for _, trick := range []string{"X-Harmless: 1", "X-HTTP-Method-Override: GET", "X-Method-Override: GET", "X-HTTP-Method: GET"} {
			if a := w.ask(w.request(method+" /x?_method=GET", trick, "Content-Length: 0")); a == nil || a.status != http.StatusUnauthorized {
				t.Errorf("%s with %s: %+v", method, trick, a)
			}
			w.app.none(t)
		}
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
		w.app.forget()
		if a := w.ask(w.request(method+" /x", "X-HTTP-Method-Override: DELETE")); a == nil || a.status != http.StatusOK {
			t.Errorf("%s: %+v", method, a)
			continue
		}
		if got := w.app.one(t); got.Method != method || len(got.folded("X-HTTP-Method-Override")) > 0 {
			t.Errorf("%s reaches the application as %q", method, got.raw)
		}
	}
}

func TestA103_APreflightCarriesNobody(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {upstream: {app}, access: signed_in, preflight: pass}\n"})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	if a := w.ask(w.request("OPTIONS /x", "Origin: https://evil.example.net", "Access-Control-Request-Method: POST", "X-Forwarded-User: root", "Authorization: Bearer junk", b.cookies())); a.status != http.StatusOK {
		t.Fatalf("a preflight: %d", a.status)
	}
	got := w.app.one(t)
	for _, name := range append([]string{"Authorization"}, identity...) {
		if values := got.folded(name); len(values) > 0 {
			t.Errorf("%s goes along: %q", name, values)
		}
	}
	for _, lines := range [][]string{
		{"Access-Control-Request-Method: POST"}, {"Origin: https://evil.example.net"}, {"Origin: null", "Origin: x", "Access-Control-Request-Method: POST"},
	} {
		if a := w.ask(w.request("OPTIONS /x", lines...)); a.status != http.StatusUnauthorized {
			t.Errorf("%q: %d", lines, a.status)
		}
	}
	if a := w.ask(w.request("POST /x", "Origin: https://evil.example.net", "Access-Control-Request-Method: POST", "Content-Length: 0")); a.status != http.StatusUnauthorized {
		t.Errorf("a POST that looks like a preflight: %d", a.status)
	}
	w.app.none(t)
}

func TestA104_APrefixEndsAtASegment(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: guarded})
	for _, path := range []string{"/apixyz", "/api.evil", "/api-x/", "/api%41", "/ap", "/apii/", "/api%2Fx", "/api%3b/x"} {
		if a := w.ask(w.get(path)); a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, a.status)
		}
		w.app.none(t)
	}
	for _, path := range []string{"/api", "/api/", "/api/x"} {
		if a := w.ask(w.get(path)); a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

func TestA105_OurOwnPathsAreNeverHalfOurs(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {upstream: {app}, access: public}\n"})
	b := w.browser()
	for _, cookie := range []string{"X-Nothing: 1", b.cookies()} {
		for path, want := range map[string]int{
			"/oauth2%2fcallback": 400, "//oauth2/callback": 400, "/oauth2//callback": 400, "/oauth2/./callback": 400, "/x/../oauth2/callback": 400, "/oauth2\\callback": 400, "/oauth2/callback%00": 400,
			"/OAuth2/callback": 200, "/oauth2x": 200, "/oauth2.": 200, "/x/oauth2/callback": 200, // an application's own
			"/oauth2/session": 401, "/%6fauth2/session": 401, "/oauth2;x/session": 401, "/oauth2/session/": 401, "/oauth2/session;x": 401, "/oauth2/session?x": 401, // ours
			"/oauth2/nothing": 404, "/oauth2/Session": 404,
		} {
			w.app.forget()
			a := w.ask(w.get(path, cookie))
			if a == nil || a.status != want && a.status != http.StatusBadRequest {
				t.Errorf("%s: %+v, want %d", path, a, want)
				continue
			}
			if a.status == http.StatusOK {
				w.app.one(t)
			} else {
				w.app.none(t)
			}
		}
	}
}

func TestA106_ApplicationAndPosternDoNotShadowEachOther(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "prefix: /.postern", routes: "  - {upstream: {app}, access: public}\n"})
	if a := w.ask(w.get("/oauth2/callback?code=x&state=y")); a.status != http.StatusOK {
		t.Errorf("the application's own /oauth2/callback: %d", a.status)
	}
	w.app.one(t)
	for path, want := range map[string]int{"/.postern/session": 401, "/.postern/callback": 400, "/.postern/nothing": 404} {
		if a := w.ask(w.get(path)); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	w.app.none(t)
}

func TestA107_AQuestionOfAnotherProxyThatIsNotWholeIsDenied(t *testing.T) {
	attack(t)
	asks := map[string][]string{
		"nginx":   {"X-Original-Url: https://app.example.com/public/x", "X-Original-Method: GET"},
		"traefik": {"X-Forwarded-Method: GET", "X-Forwarded-Proto: https", "X-Forwarded-Host: app.example.com", "X-Forwarded-Uri: /public/x"},
		"caddy":   {"X-Forwarded-Method: GET", "X-Forwarded-Proto: https", "X-Forwarded-Host: app.example.com", "X-Forwarded-Uri: /public/x"},
	}
	for dialect, lines := range asks {
		w := newWorld(t, settings{server: "trusted_proxies: [127.0.0.0/8]", routes: guarded, more: "forward_auth: {dialect: " + dialect + "}"})
		if a := w.ask(w.get("/oauth2/auth", lines...)); a.status < 200 || a.status > 299 {
			t.Fatalf("%s: a whole question about a public page: %d %s", dialect, a.status, a.body)
		}
		for i, line := range lines {
			name, _, _ := strings.Cut(line, ":")
			for _, bad := range []string{"", name + ":", line + "\r\n" + line, name + ": \x80\xff", name + ": /public/../admin", name + ": admin/../public", name + ": ://", name + ": https://app.example.com/public/\r\n" + name + ": https://app.example.com/admin"} {
				if strings.HasSuffix(name, "-Proto") && bad == line {
					continue
				}
				question := slices.Clone(lines)
				question[i] = bad
				question = slices.DeleteFunc(question, func(s string) bool { return s == "" })
				if a := w.ask(w.get("/oauth2/auth", question...)); a == nil || a.status >= 200 && a.status < 400 {
					t.Errorf("%s: %q: %+v", dialect, question, a)
				}
			}
		}
		for _, protected := range []string{"/admin", "/public/../admin", "/public%2f..%2fadmin", "/admin?/public/", "/oauth2/session"} {
			var question []string
			for _, line := range lines {
				question = append(question, strings.ReplaceAll(line, "/public/x", protected))
			}
			if a := w.ask(w.get("/oauth2/auth", question...)); a == nil || a.status < 400 {
				t.Errorf("%s about %s: %+v", dialect, protected, a)
			}
		}
		w.app.none(t)
	}
}

func TestA108_ABrokenCookieIsNeverLetIn(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	value := b.session()
	broken := []string{"", "x", "=", "%", strings.Repeat("A", 200), strings.Repeat("A", 8000), value + "A", value[1:], value[:len(value)-1], value + value, strings.ToUpper(value), `"`, "\x80\xff", "a b", "null", "{}", "../../etc/passwd", "*", "postern:*"}
	for i := 0; i < len(value); i += 7 {
		flipped := []byte(value)
		if flipped[i] ^= 1; flipped[i] == ';' || flipped[i] == ',' {
			continue
		}
		broken = append(broken, string(flipped))
	}
	for _, v := range broken {
		for _, name := range []string{w.cookie, w.cookie + "-corp", "postern", "__Secure-postern", strings.ToUpper(w.cookie)} {
			if a := w.ask(w.get("/x", "Cookie: "+name+"="+v)); a == nil || a.status != http.StatusUnauthorized && a.status != http.StatusBadRequest {
				t.Errorf("%s=%.40q: %+v", name, v, a)
			}
		}
	}
	for _, name := range []string{"postern", "__Secure-postern", strings.ToUpper(w.cookie), w.cookie + "x"} {
		if a := w.ask(w.get("/x", "Cookie: "+name+"="+value)); a.status != http.StatusUnauthorized {
			t.Errorf("the session under the name %s: %d", name, a.status)
		}
	}
	w.app.none(t)
	w.redis.Pause()
	defer w.redis.Resume()
	if a := w.ask(w.get("/other", "Cookie: "+w.cookie+"="+value[:len(value)-4]+"AAAA")); a.status == http.StatusOK {
		t.Errorf("with a store that does not answer: %d", a.status)
	}
	w.app.none(t)
}

func TestA109_AfterARefusalNothingOfTheApplicationFollows(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	const secret = "the application's secret page"
	w.app.answers(reply("200 OK", secret))
	for _, request := range []string{
		w.get("/x"), w.get("/x", "Accept: text/html"), w.request("POST /x", "Content-Length: 3") + "abc", w.request("HEAD /x"), w.get("/x", "Connection: Upgrade", "Upgrade: websocket"),
		w.get("/x", "Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), w.get("/oauth2/callback?error=x"), w.get("/%00"),
	} {
		c := w.dial().send(strings.Replace(request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		method, _, _ := strings.Cut(request, " ")
		a := c.answer(method)
		if a == nil || a.status < 300 || strings.Contains(a.raw, secret) {
			t.Errorf("%q: %+v", request, a)
		}
		c.closed()
	}
	w.app.none(t)
}
