//go:build attack

package attack_test

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest/canary"
)

// Each test of this suite searches the log, the metrics, Redis and the program's environment for what it had of tokens; this one brings
// everything together that could put one there.
func TestA115_TokensShowNowhere(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo, session: "revoke_without_cookie: false", routes: `
  - {path: /, upstream: {app}, access: {rule: 'claims.email != ""'}}
  - {path: /public/, upstream: {app}, access: public}
`})
	secret := w.secrets.New
	w.provider.SetAccessTokens(true, 0)
	referer := secret("referer") // which goes back to its own page, as the address to return to
	w.secrets.MayShow(referer)
	b := w.browser()
	b.signIn("/x?token=" + secret("query"))
	for _, path := range []string{"/x?access_token=" + secret("access-token-in-a-query"), "/public/?code=" + secret("code"), "/oauth2/start?rd=" + url.QueryEscape("/y?t="+secret("query-of-rd")),
		"/oauth2/callback?code=" + secret("foreign-code") + "&state=" + secret("foreign-state"), "/oauth2/logout/callback?state=" + secret("logout-state"), "/oauth2/nothing?x=" + secret("query-of-nothing"), "/%zz?x=" + secret("query-of-a-bad-path")} {
		w.ask(w.get(path, b.cookies()+"; app="+secret("application-cookie"), "Authorization: Bearer "+secret("bearer"), "X-Token: "+secret("header"), "Proxy-Authorization: Basic "+secret("proxy"), "X-Api-Key: "+secret("api-key"),
			"Referer: https://app.example.com/?t="+referer))
	}
	b.post("/x", url.Values{"password": {secret("posted")}})
	b.post("/oauth2/logout/backchannel", url.Values{"logout_token": {secret("logout-token")}})
	w.order("logout_token=" + w.provider.LogoutToken("wiki", "nobody", "", set("x", secret("claim-of-a-logout-token"))))
	// What a provider answers when things go wrong may hold anything.
	for _, answer := range []idptest.Answer{
		{Status: 400, Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"error":"` + secret("error") + `","error_description":"` + secret("description") + `"}`},
		{Status: 500, Body: "<html>" + secret("html")}, {Status: 200, Body: `{"access_token": "` + secret("half") + `"`}, {Status: 200, Body: "access_token=" + secret("form")},
		{Status: 307, Header: http.Header{"Location": {"https://x.example.net/?code=" + secret("location")}}}, {Status: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"access_token":"a\r\n` + secret("with-line-end") + `","token_type":"Bearer"}`},
	} {
		w.provider.AnswerWith(idptest.Token, 1, answer)
		other := w.browser()
		other.failed(other.navigate(other.callback("/").String()))
	}
	for _, endpoint := range []string{idptest.Userinfo} {
		w.provider.AnswerWith(endpoint, 1, idptest.Answer{Status: 401, Header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token", error_description="` + secret("challenge") + `"`}}, Body: secret("userinfo")})
		other := w.browser()
		other.failed(other.navigate(other.callback("/").String()))
	}
	w.provider.AnswerWith(idptest.Token, 2, idptest.Answer{Status: 500, Body: secret("failing-refresh")})
	b.fetch(http.MethodPost, "/oauth2/session/refresh", "")
	w.provider.AnswerWith(idptest.Revoke, 1, idptest.Answer{Status: 500, Body: secret("revocation")})
	b.post("/oauth2/logout", nil)
	w.app.answersBy(func(*received, net.Conn) bool { return false })
	w.ask(w.get("/public/?x="+secret("query-of-a-broken-answer"), "Authorization: Bearer "+secret("bearer-of-a-broken-answer")))
	proctest.Eventually(t, "all is in the log", func() error {
		if n := len(w.log.requests()); n < 25 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	w.process.Terminate(t)
	w.process.ExitCode(t)
}

// failed is refused in a world where others are signed in.
func (b *browser) failed(p *page) {
	b.w.t.Helper()
	if p.status < 500 || b.session() != "" {
		b.w.t.Errorf("%d %s", p.status, p.body)
	}
}

func TestA116_CodesAndStatesInReferers(t *testing.T) {
	attack(t)
	for _, site := range []string{"lax", "strict"} {
		w := newWorld(t, settings{session: "cookie: {same_site: " + site + "}"})
		b := w.browser()
		callback := b.callback("/x")
		p := b.navigate(callback.String())
		if p.header.Get("Referrer-Policy") != "no-referrer" || p.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", site, p.header)
		}
		onward := p.header.Get("Location") + p.body
		for _, name := range []string{"code", "state"} {
			if canary.Holds(onward, callback.Query().Get(name)) {
				t.Errorf("%s: the callback leads on with the %s: %s", site, name, onward)
			}
		}
		other := w.browser()
		for _, p := range []*page{other.navigate("/oauth2/callback?code=x&state=y"), other.navigate("/x"), other.navigate(other.callback("/").String() + "&error=access_denied"), b.navigate("/oauth2/logout"), b.navigate("/oauth2")} {
			if policy := p.header.Get("Referrer-Policy"); policy != "no-referrer" && policy != "same-origin" {
				t.Errorf("%s: Referrer-Policy %q", p.url, policy)
			}
			if regexp.MustCompile(`(src|href)="?(https?:)?//`).MatchString(strings.ReplaceAll(p.body, w.origin, "")) {
				t.Errorf("%s: the page loads or links what is of others: %s", p.url, p.body)
			}
		}
	}
}

func TestA117_MarkupOnPages(t *testing.T) {
	attack(t)
	for name, more := range map[string]string{"built-in templates": "", "own templates": fmt.Sprintf("pages: {templates: %q}", curious(t))} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{more: more, routes: `
  - {path: /, upstream: {app}}
  - {path: /closed/, upstream: {app}, access: {users: [root]}}
`})
			noMarkup(t, w)
			b := w.browser()
			b.open("/")
			if own := strings.Contains(b.navigate("/oauth2").body, "<pre>own template"); own != (more != "") {
				t.Errorf("the page of the session is of an own template: %v", own)
			}
		})
	}
}

// curious makes own templates that print all that they are given, and put it where scripts and addresses stand. The search at the end of the test reads the pages.
func curious(t *testing.T) (dir string) {
	t.Helper()
	const from = "../../../proxy/page/templates"
	all, err := fs.Glob(os.DirFS(from), "*.html")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	changed := 0
	for _, name := range all {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		own := strings.Replace(string(text), "</main>", `<pre>own template {{printf "%+v %#v" $ $}}</pre></main>`, 1)
		if name == "session.html" {
			own = strings.Replace(own, "<dl>", `<p title={{$.Name}} data-name='{{$.Email}}'><a href="{{$.Name}}" onclick="tell({{$.Name}})">{{$.Name}}</a><script>let name = {{$.Name}}, user = "{{$.User}}"</script></p><dl>`, 1)
		}
		if own != string(text) {
			changed++
			proctest.WriteFile(t, dir, name, []byte(own))
		}
	}
	if changed < 5 {
		t.Fatalf("%d templates in %s", changed, from)
	}
	return dir
}

// noMarkup has an attacker put markup wherever a page could show it.
func noMarkup(t *testing.T, w *world) {
	payloads := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `'><svg/onload=alert(1)>`, `</title><script>alert(1)</script>`, `javascript:alert(1)`, `&#60;script&#62;`, `{{7*7}}`, "`-alert(1)-`"}
	check := func(where string, a *answer) {
		t.Helper()
		if a == nil || t.Failed() {
			return
		}
		for _, bad := range []string{"<script>alert", "<img src=x", "<svg/onload", `href="javascript:`, "&#60;script", ">49<"} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%s: the page holds %s: %s", where, bad, a.body)
			}
		}
		h := a.header
		if csp := h.Get("Content-Security-Policy"); strings.HasPrefix(h.Get("Content-Type"), "text/html") &&
			(!strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" && !strings.HasSuffix(where, "iframe")) {
			t.Errorf("%s: %v", where, h)
		}
	}
	for _, payload := range payloads {
		q := url.QueryEscape(payload)
		w.provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"name": payload, "preferred_username": payload, "email": `"` + payload + `"@example.com`, "email_verified": true, "groups": []string{payload}}})
		b := w.browser()
		b.open("/")
		for _, path := range []string{"/closed/" + url.PathEscape(payload), "/oauth2", "/oauth2/logout?rd=" + q, "/oauth2/start?rd=" + q, "/oauth2/" + url.PathEscape(payload), "/oauth2/callback?error=" + q + "&error_description=" + q + "&error_uri=" + q,
			"/oauth2/callback?state=" + q, "/oauth2/logout/callback?state=" + q, "/oauth2/start?login_hint=" + q, "/oauth2/session?" + q} {
			for _, dest := range []string{"document", "iframe"} { // in a frame there is a page with nothing but a link to the whole window
				if strings.Contains(path, "state=") {
					continue // by the wire alone: what browsers carry as a state is searched for
				}
				check(path+" "+dest, &b.navigate(path, "Sec-Fetch-Dest: "+dest, "User-Agent: "+payload, "Referer: https://app.example.com/"+payload).answer)
				check(path+" "+dest, &w.browser().navigate(path, "Sec-Fetch-Dest: "+dest).answer)
			}
			check(path, w.ask(w.get(path, "Accept: text/html", "X-Request-Id: "+payload, "X-Forwarded-Host: "+payload, "Accept-Language: "+payload)))
		}
		check("host", w.ask("GET / HTTP/1.1\r\nHost: "+payload+"\r\nAccept: text/html\r\n\r\n"))
		check("method", w.ask(strings.Map(func(c rune) rune {
			if c == ' ' {
				return -1
			}
			return c
		}, payload)+" / HTTP/1.1\r\nHost: "+publicHost+"\r\nAccept: text/html\r\n\r\n"))
		if p := b.fetch(http.MethodGet, "/oauth2/session", ""); !strings.HasPrefix(p.header.Get("Content-Type"), "application/json") || p.header.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(p.body, "<script") {
			t.Errorf("the session endpoint answers %v %s", p.header, p.body)
		}
	}
}

var requestID = regexp.MustCompile(`\b[A-Z2-7]{26}\b`)

func TestA118_PagesTellNothingOfWhatIsBehind(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{session: "cache: {max_stale: 1s}"})
	b := w.browser()
	b.signIn("/")
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(w.app.URL, "http://"))
	_, redis, _ := net.SplitHostPort(w.redis.Address())
	provider, err := url.Parse(w.provider.URL)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, a *answer) {
		t.Helper()
		if a.status < 500 {
			t.Errorf("%s: %d", name, a.status)
		}
		all := strings.ToLower(fmt.Sprint(a.header, a.body))
		for _, word := range []string{"127.0.0.1", ":" + port, ":" + redis, ":" + provider.Port(), "redis", "dial ", "tcp", "refused", "goroutine", ".go:", "eof", w.admin, "panic", "go1.", "corp", "wiki"} {
			if strings.Contains(all, word) {
				t.Errorf("%s: the answer holds %q: %s", name, word, all)
			}
		}
		if !requestID.MatchString(a.body) {
			t.Errorf("%s: no request is named: %s", name, a.body)
		}
	}
	both := func(name, path string, cookie ...string) {
		t.Helper()
		check(name, w.ask(w.get(path, append(cookie, "Accept: text/html", "Sec-Fetch-Mode: navigate")...)))
		check(name+", a program", w.ask(w.get(path, cookie...)))
	}
	cookies := b.cookies()
	for name, answer := range map[string]string{"no answer": "", "half an answer": "HTTP/1.1 200 OK\r\nContent-Le", "no HTTP": "secret-banner 127.0.0.1\r\n\r\n"} {
		w.app.answersBy(func(_ *received, conn net.Conn) bool { _, _ = io.WriteString(conn, answer); return false })
		both(name, "/x", cookies)
	}
	w.app.listener.Close()
	w.app.cut()
	both("application down", "/x", cookies)
	w.provider.Down()
	w.restartUnready()
	check("provider down", w.ask(w.get("/", "Accept: text/html", "Sec-Fetch-Mode: navigate")))
	w.redis.Stop()
	both("store down", "/x", cookies)
	// What a page of the provider or of errors would be told by a second service: there is none (V-39).
}

func TestA119_TextThatWritesLogLines(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "audit: {stdout: true}"})
	evil := "x\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\x1b[31m\u202e\u2028"
	w.provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"name": evil, "preferred_username": evil, "email": evil, "email_verified": true, "groups": []string{evil}}})
	b := w.browser()
	b.open("/")
	q := url.QueryEscape(evil)
	for _, target := range []string{"/" + url.PathEscape(evil), "/x?" + q, "/oauth2/callback?error=" + q + "&error_description=" + q + "&state=" + q, "/oauth2/callback?iss=" + q, "/oauth2/" + url.PathEscape(evil), "/oauth2/start?rd=" + q, "/%0d%0a%1b[31mforged"} {
		w.ask(w.get(target, `User-Agent: x","level":"ERROR","msg":"forged`, "Referer: "+q, `X-Request-Id: x","msg":"forged`, "Accept: text/html"))
	}
	for _, line := range []string{"User-Agent: x\x1b[31m", "User-Agent: x\rforged: y", "X-Request-Id: \x00", "Accept-Language: \x1b"} {
		w.ask(w.get("/", line))
	}
	w.ask("GET / HTTP/1.1\r\nHost: x\x1b[31mforged\r\n\r\n")
	w.ask("FORGED\x1b / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
	begun := b.callback("/oauth2/start?rd=/")
	b.navigate(with(begun, func(v url.Values) { v.Del("code"); v.Set("error", evil); v.Set("error_description", evil) }))
	w.provider.AnswerWith(idptest.Token, 1, idptest.Answer{Status: 400, Header: http.Header{"Content-Type": {"application/json"}}, Body: `{"error":"x\r\nforged\u001b[31m","error_description":"\r\nforged"}`})
	other := w.browser()
	other.navigate(other.callback("/").String())
	w.provider.RevokeUser("alice")
	w.order("logout_token=" + w.provider.LogoutToken("wiki", evil, evil, set("jti", evil)))
	w.process.Terminate(t)
	w.process.ExitCode(t)
	for line := range strings.Lines(w.log.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("no line of JSON: %q", line)
		}
		if entry["msg"] == "forged" {
			t.Errorf("forged: %q", line)
		}
		if strings.ContainsAny(line, "\x1b\r\x00\u202e\u2028") {
			t.Errorf("control characters: %q", line)
		}
	}
	for line := range strings.Lines(w.process.Printed()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil || strings.ContainsAny(line, "\x1b\r\u2028") {
			t.Errorf("the audit log holds %q", line)
		}
	}
}

func TestA120_SessionEndpointTellsNoTokens(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	w.provider.SetAccessTokens(true, 0)
	var tokens []string
	w.provider.MutateTokenAnswer(func(a map[string]any) {
		for _, name := range []string{"access_token", "refresh_token", "id_token"} {
			if s, ok := a[name].(string); ok {
				tokens = append(tokens, s)
			}
		}
	})
	b := w.browser()
	b.signIn("/")
	tokens = append(tokens, b.session())
	jwt := regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}`)
	pages := []*page{b.fetch("GET", "/oauth2/session", ""), b.fetch("GET", "/oauth2/userinfo", ""), b.navigate("/oauth2"), b.fetch("POST", "/oauth2/session/refresh", ""), b.navigate("/oauth2/session"), b.fetch("GET", "/oauth2/session?access_token=1&debug=1", "")}
	for _, p := range pages {
		if p.status != http.StatusOK {
			t.Errorf("%s: %d", p.url, p.status)
		}
		all := fmt.Sprint(p.header, p.body)
		if jwt.MatchString(all) || slices.ContainsFunc(tokens, func(token string) bool { return canary.Holds(all, token) }) {
			t.Errorf("%s: %s", p.url, all)
		}
	}
	// Nor does the application get more than its route says.
	w.app.forget()
	w.ask(w.get("/", b.cookies()))
	raw := w.app.one(t).raw
	if len(tokens) < 6 || !strings.Contains(raw, "Authorization: Bearer ") || canary.Holds(raw, tokens[1]) || canary.Holds(raw, b.session()) {
		t.Errorf("the application gets %q", raw)
	}
}

func TestA121_NothingInternalOnThePublicListener(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: "  - {path: /, upstream: {app}, access: public}\n", server: "admin: {token: canary-admin-token}"})
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/healthz", "/readyz", "/config", "/sessions", "/api/sessions", "/admin", "/.well-known/postern"} {
		w.app.forget()
		if a := w.ask(w.get(path, "Authorization: Bearer canary-admin-token")); a.body != "ok\n" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		w.app.one(t) // it is the application's
		for _, own := range []string{"/oauth2" + path, "/oauth2/../.." + path, "/oauth2/%2e%2e" + path} {
			if a := w.ask(w.get(own)); a.status < 400 || strings.Contains(a.body, "postern_") || strings.Contains(a.body, "goroutine") {
				t.Errorf("%s: %d %s", own, a.status, a.body)
			}
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/sessions", "/sessions?user=alice"} {
		for _, header := range []string{"", "Bearer ", "Bearer x", "Basic Y2FuYXJ5LWFkbWluLXRva2Vu", "Bearer canary-admin-toke"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+w.admin+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", header)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s on the admin listener with %q: %d", path, header, resp.StatusCode)
			}
		}
	}
	// It listens at these two, on loopback.
	if got, want := listening(t, w.process.PID()), []string{w.listen, w.admin}; !slices.Equal(got, sorted(want)) {
		t.Errorf("it listens at %v, want %v", got, want)
	}
}

func sorted(s []string) []string { slices.Sort(s); return s }

// listening are the IPv4 addresses at which a process listens; an IPv6 one is an error.
func listening(t *testing.T, pid int) (addresses []string) {
	t.Helper()
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			inodes[strings.Trim(to, "socket:[]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // without IPv6
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] {
				continue
			}
			var a, b, c, d byte
			var port int
			if _, err := fmt.Sscanf(f[1], "%02X%02X%02X%02X:%04X", &d, &c, &b, &a, &port); err != nil || table == "tcp6" {
				t.Errorf("it listens at %s", f[1])
				continue
			}
			addresses = append(addresses, fmt.Sprintf("%d.%d.%d.%d:%d", a, b, c, d, port))
		}
	}
	return sorted(addresses)
}
