//go:build attack

package attack_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"postern/proxy/idp/idptest"
)

// twoProviders are a route for each of two.
const twoProviders = `
  - {path: /, upstream: {app}, access: signed_in, provider: corp}
  - {path: /team/, upstream: {app}, access: signed_in, provider: team}
`

func TestA1_ForeignCallbackSignsNobodyIn(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	attacker, victim := w.browser(), w.browser()
	callback := attacker.callback("/")
	calls := w.calls(idptest.Token)
	p := victim.navigate(callback.String(), "Sec-Fetch-Site: cross-site")
	victim.nobody()
	if calls() != 0 {
		t.Error("the attacker's code was sent")
	}
	// Going on is a sign-in of the victim's own.
	own, err := url.Parse(p.header.Get("Location"))
	if err != nil || !strings.HasPrefix(own.String(), w.provider.URL) || own.Query().Get("state") == callback.Query().Get("state") {
		t.Errorf("%d %s", p.status, own)
	}
	victim.do(http.MethodPost, "/oauth2/callback", callback.RawQuery, "Accept: text/html", "Content-Type: application/x-www-form-urlencoded",
		"Origin: https://evil.example.net", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
	victim.nobody()
	if calls() != 0 {
		t.Error("the attacker's code was sent")
	}
}

func TestA2_CallbackWorksOnce(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	callback := b.callback("/x").String()
	calls := w.calls(idptest.Token)
	b.open(callback)
	w.app.one(t)
	first := b.session()
	if p := b.navigate(callback); p.status != http.StatusSeeOther || p.header.Get("Location") != "/" || b.session() != first {
		t.Errorf("again: %d %s", p.status, p.header.Get("Location"))
	}
	// Nor where the attempt's cookie was kept.
	kept := w.browser()
	again := kept.callback("/x").String()
	copied := kept.sharing()
	kept.open(again)
	w.app.one(t)
	copied.navigate(again)
	if copied.session() != "" {
		t.Error("the second use gave a session")
	}
	if calls() != 2 {
		t.Errorf("%d token requests for two sign-ins", calls())
	}
	w.app.none(t)
}

func TestA3_CallbacksAtOnceMakeOneSession(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	callback := b.callback("/x").String()
	gate := w.provider.Gate(idptest.Token)
	var all sync.WaitGroup
	pages := make([]*page, 20)
	for i := range pages {
		all.Go(func() { pages[i] = b.navigate(callback) })
	}
	<-gate.Arrived()
	gate.Open()
	all.Wait()
	if n := w.provider.Calls(idptest.Token); n != 1 {
		t.Errorf("%d token requests", n)
	}
	cookies := map[string]bool{}
	for _, p := range pages {
		if p.status != http.StatusSeeOther {
			t.Errorf("answer %d", p.status)
		}
		for _, c := range (&http.Response{Header: p.header}).Cookies() {
			if c.Name == w.cookie && c.Value != "" {
				cookies[c.Value] = true
			}
		}
	}
	if len(cookies) != 1 || !b.signedIn() {
		t.Errorf("%d sessions", len(cookies))
	}
}

// That an attempt which took too long begins again is held by the test of the same id in proxy, whose clock can be set.
func TestA4_StatesOfOthersAreRefused(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{publicURL: "-", session: "cookie: {name: __Host-postern}", client: idptest.Client{RedirectURIs: []string{"https://b.example.com/oauth2/callback"}},
		routes: "  - {host: app.example.com, upstream: {app}}\n  - {host: b.example.com, upstream: {app}}\n"})
	calls := w.calls(idptest.Token)
	t.Run("other host", func(t *testing.T) {
		b := w.in(t).browser()
		callback := b.callback("/")
		other := *callback
		other.Host = "b.example.com"
		b.refused(b.navigate(other.String(), "Cookie: "+strings.TrimPrefix(b.cookies(), "Cookie: ")), http.StatusBadRequest)
	})
	if calls() != 0 {
		t.Errorf("%d token requests", calls())
	}
	t.Run("other client", func(t *testing.T) {
		w := newWorld(t, settings{})
		b := w.browser()
		callback := b.callback("/")
		w.provider.AddClient(idptest.Client{ID: "shop", Secret: w.clientSecret, RedirectURIs: []string{w.origin + "/oauth2/callback"}})
		w.restart("client_id: wiki", "client_id: shop")
		if p := b.navigate(callback.String()); !strings.HasPrefix(p.header.Get("Location"), w.provider.URL) {
			t.Errorf("%d %s, want a new sign-in", p.status, p.header.Get("Location"))
		}
		b.nobody()
		if n := w.provider.Calls(idptest.Token); n != 0 {
			t.Errorf("%d token requests", n)
		}
	})
	t.Run("old key", func(t *testing.T) {
		w := newWorld(t, settings{})
		b := w.browser()
		callback := b.callback("/")
		w.otherKey()
		w.restart()
		b.refused(b.navigate(callback.String()), http.StatusBadRequest)
		if n := w.provider.Calls(idptest.Token); n != 0 {
			t.Errorf("%d token requests", n)
		}
	})
}

func TestA5_PlantedCookiesAreNotTakenOver(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	w.provider.SignInAs("mallory")
	attacker := w.browser()
	attacker.signIn("/")
	planted := attacker.session()
	w.provider.SignInAs("alice")
	victim := w.browser()
	victim.put(w.cookie, planted)
	victim.signIn("/oauth2/start?rd=/x")
	if victim.session() == planted {
		t.Error("the planted session was kept")
	}
	if status := w.presents(planted); status != http.StatusUnauthorized {
		t.Errorf("the planted session is still good: %d", status)
	}
	for _, value := range []string{"x", "AAAA", strings.Repeat("A", 190)} {
		b := w.browser()
		b.put(w.cookie, value)
		b.put(w.cookie+"-login-0123456789abcdef", value)
		b.put(w.cookie+"-login-loop", value)
		b.signIn("/x")
		if b.session() == value {
			t.Error("a made-up id was kept")
		}
	}
	w.app.forget()
	if a := w.ask(w.get("/x", victim.cookies())); a.status != http.StatusOK {
		t.Fatal(a.status)
	}
	if got := w.app.one(t); strings.Contains(got.raw, "mallory") || strings.Join(got.folded("X-Forwarded-User"), "|") != "alice" {
		t.Errorf("the application gets %q", got.raw)
	}
}

func TestA6_AnotherPersonHasAnotherSession(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	before, record := b.session(), w.records()
	for _, who := range []string{"mallory", "alice", "alice"} { // and the same person again
		w.provider.SignInAs(who)
		b.signIn("/oauth2/start?rd=/")
		if b.session() == before || w.presents(before) != http.StatusUnauthorized {
			t.Errorf("%s has the session of before", who)
		}
		for _, key := range record {
			if value, err := w.redis.Client().Get(t.Context(), key).Result(); err == nil && len(value) > 200 {
				t.Errorf("what was stored of the session before is still there: %d bytes", len(value))
			}
		}
		before, record = b.session(), nil
	}
	t.Run("step-up", func(t *testing.T) {
		w := newWorld(t, settings{routes: "  - {path: /payroll/, upstream: {app}, access: {acr: [strong]}}\n  - {path: /, upstream: {app}}\n"})
		b := w.browser()
		b.signIn("/")
		weak := b.session()
		w.app.forget()
		if p := b.open("/payroll/"); p.status != http.StatusForbidden { // the provider does as if it had not been asked
			t.Errorf("a weak sign-in: %d %q", p.status, b.trail)
		}
		w.app.none(t)
		if b.session() != weak || !b.signedIn() {
			t.Error("a step-up that did not work ended the session")
		}
		w.provider.MutateIDToken(set("acr", "strong"))
		if p := b.open("/payroll/"); p.status != http.StatusOK {
			t.Errorf("a strong sign-in: %d %q", p.status, b.trail)
		}
		if b.session() == weak || w.presents(weak) != http.StatusUnauthorized {
			t.Error("the session of before is still good")
		}
	})
}

func TestA7_StolenCodeWithOwnState(t *testing.T) {
	attack(t)
	for pkce, endpoint := range map[string]string{"on": idptest.Token, "off": idptest.Userinfo} {
		t.Run("pkce "+pkce, func(t *testing.T) {
			w := newWorld(t, settings{provider: "pkce: " + pkce + ", identity: userinfo"})
			victim, attacker := w.browser(), w.browser()
			stolen := victim.callback("/").Query().Get("code")
			own := attacker.callback("/")
			userinfo := w.calls(idptest.Userinfo)
			attacker.refused(attacker.navigate(with(own, func(q url.Values) { q.Set("code", stolen) })), http.StatusBadGateway)
			if userinfo() != 0 {
				t.Errorf("the stolen token was used (%s)", endpoint)
			}
			w.log.reasons(t, "sign_in_failed")
		})
	}
}

func TestA8_MetadataCannotTurnPKCEOff(t *testing.T) {
	attack(t)
	for name, methods := range map[string]any{"absent": nil, "plain alone": []string{"plain"}, "empty": []string{}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			w.provider.MutateMetadata(func(m map[string]any) {
				delete(m, "code_challenge_methods_supported")
				if methods != nil {
					m["code_challenge_methods_supported"] = methods
				}
			})
			w.restart()
			b := w.browser()
			at, err := url.Parse(b.begin("/"))
			if err != nil || at.Query().Get("code_challenge_method") != "S256" || len(at.Query().Get("code_challenge")) != 43 {
				t.Errorf("the sign-in begins at %s", at)
			}
			b.signIn("/")
			if verifier := w.provider.TokenRequests()[0].Form.Get("code_verifier"); len(verifier) < 43 {
				t.Errorf("a verifier of %d bytes", len(verifier))
			}
			if !strings.Contains(w.log.String(), "does not say that it supports PKCE") {
				t.Error("the log does not warn")
			}
		})
	}
}

func TestA9_CodeOfAnotherProviderIsSentNowhere(t *testing.T) {
	attack(t)
	other, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: twoProviders})
	for _, tt := range []struct{ begun, answered string }{{"/", "/team/"}, {"/team/", "/"}} {
		foreign := w.browser().callback(tt.answered)
		for name, change := range map[string]func(url.Values){
			"code and iss of the other": func(q url.Values) {
				q.Set("code", foreign.Query().Get("code"))
				q.Set("iss", foreign.Query().Get("iss"))
			},
			"iss of the other": func(q url.Values) { q.Set("iss", foreign.Query().Get("iss")) },
			"error of the other": func(q url.Values) {
				q.Del("code")
				q.Set("error", "access_denied")
				q.Set("iss", foreign.Query().Get("iss"))
			},
		} {
			t.Run(tt.begun+" "+name, func(t *testing.T) {
				b := w.in(t).browser()
				b.refused(b.navigate(with(b.callback(tt.begun), change)), http.StatusBadRequest)
			})
		}
	}
	// A provider under attack that does not say that it names itself.
	other.SetIssParameter(false)
	w.restart()
	b := w.browser()
	begun, honest := b.callback("/team/"), w.browser().callback("/")
	b.refused(b.navigate(with(begun, func(q url.Values) { q.Set("code", honest.Query().Get("code")); q.Set("iss", w.provider.URL) })), http.StatusBadRequest)
	if n := w.provider.Calls(idptest.Token) + other.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

// The attacker is a provider among those that are configured: it leads the browser on to the other one, in the name of the sign-in that was begun with
// itself, and waits for the other one's code at its own token endpoint (RFC 9700 section 4.4.1). Neither names itself in its answers, so that
// own_callback alone is what tells them apart.
func TestA9_OwnCallbackKeepsProvidersApart(t *testing.T) {
	attack(t)
	const shared, corps, teams = "/oauth2/callback", "/oauth2/callback/corp", "/oauth2/callback/team"
	for name, tt := range map[string]struct {
		corp, team string // where each answers
	}{"the first has its own": {corps, shared}, "the second has its own": {shared, teams}, "both have": {corps, teams}} {
		t.Run(name, func(t *testing.T) {
			other, config := second(t, "team")
			if tt.team != shared {
				config = strings.Replace(config, "client_id:", "own_callback: true, client_id:", 1)
			}
			o := settings{providers: config, routes: twoProviders, client: idptest.Client{RedirectURIs: []string{"https://" + publicHost + corps}}}
			if tt.corp != shared {
				o.provider = "own_callback: true"
			}
			w := newWorld(t, o)
			w.provider.SetIssParameter(false)
			other.SetIssParameter(false)
			w.restart()
			for _, flow := range []struct {
				begun, answers   string
				honest           *idptest.Server
				address, foreign string // where the attacker and the honest one answer
			}{{"/", "/team/", other, tt.corp, tt.team}, {"/team/", "/", w.provider, tt.team, tt.corp}} {
				b := w.browser()
				at, err := url.Parse(b.begin(flow.begun))
				if err != nil || at.Query().Get("redirect_uri") != w.origin+flow.address {
					t.Fatalf("the sign-in begins at %s", at)
				}
				honest, err := url.Parse(flow.honest.EndpointURL(idptest.Authorize))
				if err != nil {
					t.Fatal(err)
				}
				honest.RawQuery = at.RawQuery
				back := b.navigate(with(honest, func(q url.Values) { q.Set("redirect_uri", w.origin+flow.foreign) })).header.Get("Location")
				if !strings.HasPrefix(back, w.origin+flow.foreign+"?") || !strings.Contains(back, "code=") {
					t.Fatalf("the honest provider leads to %q", back)
				}
				b.refused(b.navigate(back), http.StatusBadRequest)
				// The answer at another's address, by any way that it came there.
				moved := w.browser().callback(flow.answers)
				moved.Path = flow.address
				w.browser().refused(w.browser().navigate(moved.String()), http.StatusBadRequest)
			}
			if n := w.provider.Calls(idptest.Token) + other.Calls(idptest.Token); n != 0 {
				t.Errorf("%d token requests", n)
			}
			for _, path := range []string{"/", "/team/"} { // and honest sign-ins go on
				if p := w.browser().open(path); p.status != http.StatusOK || len(w.app.one(t).folded("X-Forwarded-User")) != 1 {
					t.Errorf("a sign-in for %s ends with %d", path, p.status)
				}
			}
		})
	}
}

// changedCallbacks opens callbacks that are changed on their way. None may sign anyone in, or send its code.
func changedCallbacks(t *testing.T, o settings, status int, changes map[string]func(url.Values)) {
	w := newWorld(t, o)
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			b := w.in(t).browser()
			b.refused(b.navigate(with(b.callback("/"), change)), status)
		})
	}
	if n := w.provider.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

// fapi2-security-profile-final-client-test-invalid-authorization-response-iss and -remove-authorization-response-iss are among them.
func TestA10_IssuerOfTheCallback(t *testing.T) {
	attack(t)
	changedCallbacks(t, settings{}, http.StatusBadRequest, map[string]func(url.Values){
		"wrong":        func(q url.Values) { q.Set("iss", "https://evil.example.net") },
		"absent":       func(q url.Values) { q.Del("iss") },
		"empty":        func(q url.Values) { q.Set("iss", "") },
		"twice":        func(q url.Values) { q.Add("iss", q.Get("iss")) },
		"two":          func(q url.Values) { q.Add("iss", "https://evil.example.net") },
		"with a slash": func(q url.Values) { q.Set("iss", q.Get("iss")+"/") },
		"upper case":   func(q url.Values) { q.Set("iss", strings.ToUpper(q.Get("iss"))) },
	})
}

func TestA11_ParametersTwice(t *testing.T) {
	attack(t)
	changes := map[string]func(url.Values){}
	for _, name := range []string{"state", "code", "error_description", "error"} {
		changes["the same "+name] = func(q url.Values) { q.Set(name, q.Get(name)); q.Add(name, q.Get(name)) }
		changes["another "+name] = func(q url.Values) { q.Add(name, "x"); q.Add(name, "y") }
	}
	changedCallbacks(t, settings{}, http.StatusBadRequest, changes)
	t.Run("logout_token", func(t *testing.T) {
		w := newWorld(t, settings{})
		b := w.browser()
		b.signIn("/")
		token := w.provider.LogoutToken("wiki", "alice", "", nil)
		w.order(url.Values{"logout_token": {token, token}}.Encode()).is(t, http.StatusBadRequest)
		w.order(url.Values{"logout_token": {"x", token}}.Encode()).is(t, http.StatusBadRequest)
		if !b.signedIn() {
			t.Error("the session ended")
		}
	})
}

func TestA12_ErrorsWithTextOfAnAttacker(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	script := `"><script>alert(1)</script><b onclick=x>`
	for name, tt := range map[string]struct {
		change func(url.Values)
		status []int
	}{
		"script as error": {func(q url.Values) { q.Set("error", script) }, []int{http.StatusBadGateway}},
		"script as description": {func(q url.Values) {
			q.Set("error", "access_denied")
			q.Set("error_description", script)
			q.Set("error_uri", "javascript:alert(1)")
		}, []int{http.StatusForbidden}},
		"long description": {func(q url.Values) {
			q.Set("error", "access_denied")
			q.Set("error_description", strings.Repeat(script, 100))
		}, []int{http.StatusForbidden}},
		"too long": {func(q url.Values) {
			q.Set("error", "access_denied")
			q.Set("error_description", strings.Repeat(script, 300))
		}, []int{http.StatusBadRequest}},
		"another state": {func(q url.Values) { q.Set("error", "access_denied"); q.Set("state", "x"+q.Get("state")) }, []int{http.StatusBadRequest}},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.in(t).browser()
			p := b.navigate(with(b.callback("/"), func(q url.Values) { q.Del("code"); tt.change(q) }))
			b.refused(p, tt.status...)
			if strings.Contains(p.body, "alert(1)") || strings.Contains(p.body, "onclick") {
				t.Errorf("the page shows what came: %s", p.body)
			}
		})
	}
	t.Run("a megabyte", func(t *testing.T) {
		c := w.dial()
		a := c.send(w.get("/oauth2/callback?error=x&error_description=" + strings.Repeat("A", 1<<20))).answer("GET")
		if a == nil || a.status != http.StatusRequestHeaderFieldsTooLarge && a.status != http.StatusRequestURITooLong && a.status != http.StatusBadRequest {
			t.Errorf("%+v", a)
		}
	})
	t.Run("without cookie", func(t *testing.T) {
		callback := w.browser().callback("/")
		b := w.in(t).browser()
		b.refused(b.navigate(with(callback, func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") })), http.StatusBadRequest)
	})
	if n := w.provider.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

func TestA13_CallbackByTheOtherMethod(t *testing.T) {
	attack(t)
	for mode, method := range map[string]string{"query": http.MethodPost, "form_post": http.MethodGet} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, settings{provider: "response_mode: " + mode})
			b := w.browser()
			// The cookies go along here; a browser would keep a Lax one back from a POST of another site.
			back := w.provider.Visit(t, b.begin("/"))
			address, form := "/oauth2/callback", back.Params.Encode()
			w.secrets.AddQuery(&url.URL{RawQuery: form})
			if method == http.MethodGet {
				address, form = address+"?"+form, ""
			}
			b.refused(b.do(method, address, form, "Accept: text/html", "Content-Type: application/x-www-form-urlencoded", "Origin: "+w.provider.URL), http.StatusBadRequest)
			for _, method := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"} {
				if p := b.do(method, "/oauth2/callback?"+back.Params.Encode(), "", "Accept: text/html"); p.status != http.StatusMethodNotAllowed {
					t.Errorf("%s: %d", method, p.status)
				}
			}
			if n := w.provider.Calls(idptest.Token); n != 0 {
				t.Errorf("%d token requests", n)
			}
		})
	}
}

// fapi2-security-profile-final-client-test-ensure-authorization-response-with-invalid-state and -missing-state are among them.
func TestA14_CallbackWithoutStateOrCookie(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	good := w.browser().callback("/")
	for _, query := range []string{"", "?", "?code=x", "?state=", "?code=x&state=", "?code=x&state=y", "?state=" + strings.Repeat("A", 300), "?code=%zz&state=%zz", "?;", "?state[]=x",
		"?error=access_denied", "?code=" + good.Query().Get("code") + "&iss=" + url.QueryEscape(w.provider.URL)} {
		b := w.browser()
		b.refused(b.navigate("/oauth2/callback"+query), http.StatusBadRequest)
	}
	state := good.Query().Get("state")
	for i := 0; i < len(state); i += 3 { // each part of it
		b := w.browser()
		b.refused(b.navigate(with(good, func(q url.Values) { q.Set("state", state[:i]+flip(state[i])+state[i+1:]) })), http.StatusBadRequest)
	}
	if n := w.provider.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

// flip is another letter of base64url, whose bits differ in all but the last four: those of the last letter of a value may carry nothing.
func flip(c byte) string {
	if c == '_' {
		return "A"
	}
	return "_"
}

func TestA15_OversizedCallbacks(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	begun := b.callback("/")
	before := w.memory("VmRSS")
	many := make(url.Values)
	for i := range 10_000 {
		many.Set("p"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i%300), "v")
	}
	for range 20 {
		for name, query := range map[string]string{
			"code of 64 KiB":    with(begun, func(q url.Values) { q.Set("code", strings.Repeat("c", 64<<10)) }),
			"code of 9 KiB":     with(begun, func(q url.Values) { q.Set("code", strings.Repeat("c", 9<<10)) }),
			"state of 60 KiB":   with(begun, func(q url.Values) { q.Set("state", strings.Repeat("c", 60<<10)) }),
			"10,000 parameters": with(begun, func(q url.Values) { q.Del("code") }) + "&" + strings.Repeat("a=b&", 10_000),
		} {
			_, target, _ := strings.Cut(query, publicHost)
			a := w.ask(w.get(target, "Accept: text/html", b.cookies()))
			if a == nil || a.status != http.StatusBadRequest && a.status != http.StatusRequestHeaderFieldsTooLarge && a.status != http.StatusRequestURITooLong && a.status != http.StatusSeeOther {
				t.Fatalf("%s: %+v", name, a)
			}
		}
		form := strings.Repeat("p=v&", 1<<18)
		if p := b.do(http.MethodPost, "/oauth2/callback", form, "Accept: text/html", "Content-Type: application/x-www-form-urlencoded"); p.status != http.StatusBadRequest && p.status != http.StatusRequestEntityTooLarge {
			t.Fatalf("a form of a megabyte: %d", p.status)
		}
	}
	b.nobody()
	if grown := w.memory("VmRSS") - before; grown > 64<<20 {
		t.Errorf("the program grew by %d bytes", grown)
	}
	if n := w.provider.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

func TestA16_TokensInTheCallbackAreIgnored(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	forged := w.provider.SignJWT(map[string]any{"iss": w.provider.URL, "aud": "wiki", "sub": "mallory"}, nil)
	inject := func(q url.Values) {
		for _, name := range []string{"id_token", "access_token", "response", "token", "refresh_token"} {
			q.Set(name, forged)
		}
		q.Set("token_type", "Bearer")
		q.Set("expires_in", "3600")
	}
	b := w.browser()
	if p := b.open(with(b.callback("/x"), inject)); p.status != http.StatusOK {
		t.Fatalf("%d %s", p.status, p.body)
	}
	got := w.app.one(t)
	if user := strings.Join(got.folded("X-Forwarded-User"), "|"); user != "alice" || strings.Contains(got.raw, forged) {
		t.Errorf("the application gets %q", got.raw)
	}
	other := w.browser()
	if p := other.navigate(with(other.callback("/x"), func(q url.Values) { q.Del("code"); inject(q) })); p.status != http.StatusBadRequest || other.session() != "" {
		t.Errorf("tokens in place of a code: %d", p.status)
	}
	w.app.none(t)
}

func TestA17_ManyTabs(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	var last string
	for range 100 {
		last = b.begin("/" + strings.Repeat("long/", 60) + "?q=" + strings.Repeat("x", 1000))
		if size := len(b.cookies()); size > 5000 {
			t.Fatalf("cookies of %d bytes", size)
		}
	}
	if n := len(b.all()); n > 8 {
		t.Errorf("%d cookies", n)
	}
	if p := b.open(last); p.status != http.StatusOK {
		t.Errorf("the newest tab ends with %d", p.status)
	}
	if keys := len(w.keys()); keys > 4 {
		t.Errorf("%d keys in Redis for one session", keys)
	}
}

func TestA18_SignInAsAnotherReplacesTheSession(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	old := b.session()
	w.provider.SignInAs("mallory")
	w.app.forget()
	b.signIn("/oauth2/start?rd=/x")
	got := w.app.one(t)
	if user := strings.Join(got.folded("X-Forwarded-User"), "|"); user != "mallory" || strings.Contains(got.raw, "alice") || strings.Contains(got.raw, "staff") {
		t.Errorf("the application gets %q", got.raw)
	}
	if b.session() == old {
		t.Error("the cookie stayed")
	}
	if status := w.presents(old); status != http.StatusUnauthorized {
		t.Errorf("the old session: %d", status)
	}
}

func TestA19_SubjectsOfTwoIssuersAreTwoPeople(t *testing.T) {
	attack(t)
	other, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: twoProviders})
	corp, team := w.browser(), w.browser()
	corp.signIn("/")
	team.open("/team/")
	teams := team.all()
	var value string
	for _, c := range teams {
		if strings.HasPrefix(c.Name, w.cookie) && !strings.Contains(c.Name, "login") {
			value = c.Value
		}
	}
	if value == "" {
		t.Fatalf("no session of the second provider: %v", teams)
	}
	w.app.forget()
	for name, header := range map[string]string{"as it is": team.cookies(), "under the other's name": "Cookie: " + w.cookie + "=" + value} {
		if a := w.ask(w.get("/", header)); a.status != http.StatusUnauthorized {
			t.Errorf("the second provider's session at the first's route, %s: %d", name, a.status)
		}
	}
	w.app.none(t)
	w.order("logout_token="+other.LogoutToken("wiki", "alice", "", nil)).is(t, http.StatusOK)
	if !corp.signedIn() {
		t.Error("the other provider's order ended the session")
	}
	if a := w.ask(w.get("/team/", team.cookies())); a.status != http.StatusUnauthorized {
		t.Errorf("the second provider's order did not end its own session: %d", a.status)
	}
	w.order("logout_token="+other.LogoutToken("wiki", "alice", "", func(_, c map[string]any) { c["iss"] = w.provider.URL })).is(t, http.StatusBadRequest)
	if !corp.signedIn() {
		t.Error("the other provider's keys ended the session")
	}
}
