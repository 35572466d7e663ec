//go:build attack

package attack_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/session/redistest"
)

const backChannel = "/oauth2/logout/backchannel"

// order posts to the back channel as a provider does.
func (w *world) order(form string, header ...string) *ordered {
	w.t.Helper()
	return &ordered{w.browser().do(http.MethodPost, backChannel, form, append([]string{"Content-Type: application/x-www-form-urlencoded"}, header...)...)}
}

type ordered struct{ *page }

// is checks the answer, which tells nothing but the status (OpenID Connect Back-Channel Logout section 2.8).
func (o *ordered) is(t *testing.T, status int) {
	t.Helper()
	if o.status != status || o.header.Get("Cache-Control") != "no-store" || o.header.Get("Set-Cookie") != "" {
		t.Errorf("got %d %v %s, want %d", o.status, o.header, o.body, status)
	}
}

// sid records the provider's names of its sessions, and returns that of the last sign-in.
func (w *world) sid() (last func() string) {
	var mu sync.Mutex
	var sid string
	w.provider.MutateIDToken(func(_ header, c claims) {
		mu.Lock()
		defer mu.Unlock()
		sid, _ = c["sid"].(string)
	})
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return sid
	}
}

// The tests of OpenID's suite for the back channel are among them, by their ids.
func TestA84_ForgedLogoutTokens(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	sid := w.sid()
	b := w.browser()
	b.signIn("/")
	after := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, defect := range map[string]func(header, claims){
		"-rp-backchannel-rpinitlogout-lt-alg-none header": func(h header, _ claims) { h["alg"] = "none" },
		"-rp-backchannel-rpinitlogout-lt-no-event":        set("events", nil),
		"-rp-backchannel-rpinitlogout-lt-wrong-event":     set("events", map[string]any{"http://schemas.openid.net/event/foobar": map[string]any{}}),
		"-rp-backchannel-rpinitlogout-lt-with-nonce":      set("nonce", "n"),
		"-rp-backchannel-rpinitlogout-lt-wrong-aud":       func(_ header, c claims) { c["aud"] = "wikiINVALID" },
		"-rp-backchannel-rpinitlogout-lt-wrong-issuer":    func(_ header, c claims) { c["iss"] = fmt.Sprint(c["iss"], "INVALID") },
		"typ of an access token":                          func(h header, _ claims) { h["typ"] = "at+jwt" },
		"event null":                                      set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": nil}),
		"event a text":                                    set("events", "http://schemas.openid.net/event/backchannel-logout"),
		"nonce null":                                      func(_ header, c claims) { c["nonce"] = nil },
		"expired":                                         func(_ header, c claims) { c["iat"], c["exp"] = after(-10*time.Minute), after(-5*time.Minute) },
		"no exp":                                          set("exp", nil),
		"iat in ten minutes":                              func(_ header, c claims) { c["iat"] = after(10 * time.Minute) },
		"no iat":                                          set("iat", nil),
		"iat two days ago":                                func(_ header, c claims) { c["iat"] = after(-48 * time.Hour) },
		"no jti":                                          set("jti", nil),
		"jti empty":                                       set("jti", ""),
		"nobody":                                          func(_ header, c claims) { delete(c, "sub"); delete(c, "sid") },
		"sub a number":                                    set("sub", 7),
		"sid an object":                                   set("sid", map[string]any{}),
		"aud of two":                                      set("aud", []string{"wiki", "other"}),
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.order("logout_token="+w.provider.LogoutToken("wiki", "alice", sid(), defect)).is(t, http.StatusBadRequest)
			if !b.in(t).signedIn() {
				t.Error("the session ended")
			}
		})
	}
	for name, how := range map[string]idptest.Signing{
		"-rp-backchannel-rpinitlogout-lt-wrong-alg": {Alg: "ES256"}, "-rp-backchannel-rpinitlogout-lt-alg-none": {Alg: "none"}, "HS256 with the client's secret": {Alg: "HS256", HMACKey: []byte(w.clientSecret)}, "another's key": {Foreign: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.provider.SetSigning(how)
			w.order("logout_token="+w.provider.LogoutToken("wiki", "alice", sid(), nil)).is(t, http.StatusBadRequest)
			if !b.in(t).signedIn() {
				t.Error("the session ended")
			}
		})
	}
	w.provider.SetSigning(idptest.Signing{})
	w.log.reasons(t, "logout_token_refused")
	t.Run("an ID token", func(t *testing.T) {
		w := w.in(t)
		w.order("logout_token="+w.provider.SignJWT(claims{"iss": w.provider.URL, "aud": "wiki", "sub": "alice", "iat": after(0), "exp": after(time.Minute), "jti": "x", "nonce": "n"}, nil)).is(t, http.StatusBadRequest)
	})
	t.Run("-rp-backchannel-rpinitlogout", func(t *testing.T) {
		w := w.in(t)
		token := w.provider.LogoutToken("wiki", "alice", sid(), set("ignored_claim", 1))
		w.order("logout_token="+token+"&ignored_parameter=x").is(t, http.StatusOK)
		if b.in(t).signedIn() {
			t.Error("the good token ended nothing")
		}
	})
}

func TestA85_ReplayedLogoutTokens(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{redis: redistest.Options{}})
	token := w.provider.LogoutToken("wiki", "alice", "", nil)
	w.order("logout_token="+token).is(t, http.StatusOK)
	b := w.browser()
	b.signIn("/")
	w.order("logout_token="+token).is(t, http.StatusBadRequest)
	w.log.reasons(t, "logout_token_replayed")
	w.restart() // it is remembered where all replicas see it
	w.order("logout_token="+token).is(t, http.StatusBadRequest)
	same := func(sub string) string { return w.provider.LogoutToken("wiki", sub, "", set("jti", "the-same-jti")) }
	w.order("logout_token="+same("mallory")).is(t, http.StatusOK)
	w.order("logout_token="+same("alice")).is(t, http.StatusBadRequest)
	if !b.signedIn() {
		t.Error("a replay ended the session")
	}
	at := w.provider.LogoutToken("wiki", "mallory", "", nil)
	statuses := make([]int, 20)
	var all sync.WaitGroup
	for i := range statuses {
		all.Go(func() { statuses[i] = w.order("logout_token=" + at).status })
	}
	all.Wait()
	if n := strings.Count(fmt.Sprint(statuses), "200"); n != 1 {
		t.Errorf("of twenty at once %d were carried out: %v", n, statuses)
	}
	// Where nobody can tell whether it was carried out before, it is not; the provider may send it again.
	fresh := w.provider.LogoutToken("wiki", "alice", "", nil)
	w.redis.Stop()
	w.order("logout_token="+fresh).is(t, http.StatusBadRequest)
	w.redis.Start()
	w.ready()
	w.order("logout_token="+fresh).is(t, http.StatusOK)
	if b.signedIn() {
		t.Error("the repeat ended nothing")
	}
}

func TestA86_OrdersEndWhatTheyName(t *testing.T) {
	attack(t)
	other, config := second(t, "team")
	w := newWorld(t, settings{providers: config, routes: twoProviders})
	sid := w.sid()
	other.MutateIDToken(set("sid", "sid-of-the-second-provider"))
	type three struct{ one, two, team bool }
	for name, tt := range map[string]struct {
		token func(sids [2]string) string
		want  three
	}{
		"sid":                       {func(s [2]string) string { return w.provider.LogoutToken("wiki", "", s[0], nil) }, three{false, true, true}},
		"sub":                       {func([2]string) string { return w.provider.LogoutToken("wiki", "alice", "", nil) }, three{false, false, true}},
		"both":                      {func(s [2]string) string { return w.provider.LogoutToken("wiki", "alice", s[1], nil) }, three{true, false, true}},
		"both that do not fit":      {func(s [2]string) string { return w.provider.LogoutToken("wiki", "mallory", s[1], nil) }, three{true, true, true}},
		"sid of another issuer":     {func([2]string) string { return w.provider.LogoutToken("wiki", "", "sid-of-the-second-provider", nil) }, three{true, true, true}},
		"sub at the other issuer":   {func([2]string) string { return other.LogoutToken("wiki", "alice", "", nil) }, three{true, true, false}},
		"the other's key, our name": {func([2]string) string { return other.LogoutToken("wiki", "alice", "", set("iss", w.provider.URL)) }, three{true, true, true}},
		"another client":            {func([2]string) string { return w.provider.LogoutToken("shop", "alice", "", nil) }, three{true, true, true}},
		"part of a sid":             {func(s [2]string) string { return w.provider.LogoutToken("wiki", "", s[0][:10], nil) }, three{true, true, true}},
		"a pattern":                 {func([2]string) string { return w.provider.LogoutToken("wiki", "*", "", nil) }, three{true, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			w.forgetSessions()
			one, two, team := w.browser(), w.browser(), w.browser()
			var sids [2]string
			one.signIn("/")
			sids[0] = sid()
			two.signIn("/")
			sids[1] = sid()
			team.open("/team/")
			w.order("logout_token=" + tt.token(sids))
			if got := (three{one.signedIn(), two.signedIn(), team.signedIn()}); got != tt.want {
				t.Errorf("signed in are %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestA87_FloodsAtTheBackChannel(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	jwks := w.calls(idptest.JWKS)
	good := w.provider.LogoutToken("wiki", "alice", "", nil)
	for name, tt := range map[string]struct {
		bytes  string
		status []int
	}{
		"GET":               {w.get(backChannel + "?logout_token=" + good), []int{405}},
		"in the query":      {w.request("POST "+backChannel+"?logout_token="+good, "Content-Length: 0", "Content-Type: application/x-www-form-urlencoded"), []int{400}},
		"JSON":              {w.request("POST "+backChannel, "Content-Type: application/json", fmt.Sprint("Content-Length: ", len(good)+19)) + `{"logout_token":"` + good + `"}`, []int{400}},
		"multipart":         {w.request("POST "+backChannel, "Content-Type: multipart/form-data; boundary=x", "Content-Length: 3") + "--x", []int{400}},
		"nothing":           {w.request("POST "+backChannel, "Content-Length: 0"), []int{400}},
		"a megabyte":        {w.request("POST "+backChannel, "Content-Type: application/x-www-form-urlencoded", "Content-Length: 1048576") + "logout_token=" + strings.Repeat("a", 1<<20-13), []int{413}},
		"a token of 20 KiB": {w.request("POST "+backChannel, "Content-Type: application/x-www-form-urlencoded", "Content-Length: 20480") + "logout_token=" + strings.Repeat("a", 20<<10-13), []int{400}},
	} {
		if a := w.ask(tt.bytes); a == nil || a.status != tt.status[0] {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if !b.signedIn() {
		t.Error("the session ended")
	}
	w.provider.SetSigning(idptest.Signing{Foreign: true})
	forged := w.provider.LogoutToken("wiki", "alice", "", nil)
	w.provider.SetSigning(idptest.Signing{})
	statuses := map[int]int{}
	began := time.Now()
	for range 1000 {
		statuses[w.order("logout_token="+forged).status]++
	}
	if statuses[429] < 500 || statuses[400] > 300+20*int(time.Since(began).Seconds()) || statuses[400]+statuses[429] != 1000 {
		t.Errorf("a thousand forged tokens in %v: %v", time.Since(began), statuses)
	}
	if n := jwks(); n > 2+int(time.Since(began).Seconds())/5 {
		t.Errorf("%d fetches of keys in %v", n, time.Since(began))
	}
	if !b.signedIn() {
		t.Error("the session ended")
	}
}

func TestA88_FrontChannelByOtherSites(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	sid := w.sid()
	b := w.browser()
	b.signIn("/")
	const path = "/oauth2/logout/frontchannel"
	issuer := url.QueryEscape(w.provider.URL)
	image := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Referer: https://evil.example.net/"}
	if p := b.navigate(path+"?iss="+issuer+"&sid="+sid(), image...); p.status != http.StatusBadRequest || !b.signedIn() {
		t.Errorf("an image with the real sid: %d", p.status)
	}
	frame := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: iframe"}
	bodies := map[string]bool{}
	for name, tt := range map[string]struct {
		query  string
		status int
	}{
		"guessed sid": {"?iss=" + issuer + "&sid=guessed", 200}, "no sid": {"?iss=" + issuer, 400}, "no iss": {"?sid=" + sid(), 400}, "nothing": {"", 400}, "another issuer": {"?iss=https://evil.example.net&sid=" + sid(), 400},
		"two issuers": {"?iss=" + issuer + "&iss=x&sid=" + sid(), 400}, "two sids": {"?iss=" + issuer + "&sid=x&sid=" + sid(), 400}, "pattern": {"?iss=" + issuer + "&sid=*", 200}, "issuer with a slash": {"?iss=" + issuer + "%2F&sid=" + sid(), 400},
		"long": {"?iss=" + issuer + "&sid=" + strings.Repeat("s", 3000), 400},
	} {
		p := b.navigate(path+tt.query, frame...)
		if p.status != tt.status || p.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d", name, p.status)
		}
		if p.status == http.StatusOK {
			bodies[p.body+p.header.Get("Content-Security-Policy")] = true
		}
		if !b.signedIn() {
			t.Fatalf("%s: the session ended", name)
		}
	}
	revoked := w.calls(idptest.Revoke)
	p := w.browser().navigate(path+"?iss="+issuer+"&sid="+sid(), frame...) // the real one, as the provider's page sends it: without cookies
	if bodies[p.body+p.header.Get("Content-Security-Policy")] = true; len(bodies) != 1 {
		t.Error("the answer tells whether there is such a session")
	}
	if csp := p.header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "frame-ancestors "+w.provider.URL) || p.header.Get("X-Frame-Options") != "" {
		t.Errorf("%v", p.header)
	}
	if b.signedIn() {
		t.Error("the order of the provider's page ended nothing")
	}
	if revoked() != 0 {
		t.Error("a request that anyone can make revoked tokens")
	}
	if p := b.do(http.MethodPost, path, "", "Accept: text/html"); p.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", p.status)
	}
}

// oidcc-client-test-rp-init-logout, -rp-init-logout-other-state and -rp-init-logout-no-state are among them.
func TestA89_SignOutByOtherSites(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	ended := w.calls(idptest.EndSession)
	cross := []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example.net"}
	for name, p := range map[string]*page{
		"link": b.navigate("/oauth2/logout", "Sec-Fetch-Site: cross-site"), "image": b.navigate("/oauth2/logout", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"),
		"address bar": b.navigate("/oauth2/logout"), "sibling": b.navigate("/oauth2/logout", "Sec-Fetch-Site: same-site"), "HEAD": b.do(http.MethodHead, "/oauth2/logout", "", "Accept: text/html", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"),
		"fetch": b.fetch(http.MethodGet, "/oauth2/logout", ""), "old browser": b.do(http.MethodGet, "/oauth2/logout", "", "Accept: text/html"), "sign_out": b.navigate("/oauth2/sign_out", "Sec-Fetch-Site: cross-site"),
	} {
		if p.status != http.StatusOK || len(p.header.Values("Set-Cookie")) > 0 {
			t.Errorf("%s: %d %v", name, p.status, p.header)
		}
	}
	for name, header := range map[string][]string{"cross-site": cross, "sibling": {"Sec-Fetch-Site: same-site", "Origin: https://evil.example.com"}, "null origin": {"Origin: null", "Sec-Fetch-Site: cross-site"}, "by Origin alone": {"Origin: https://evil.example.net", "Sec-Fetch-Site: "}} {
		if p := b.post("/oauth2/logout", nil, header...); p.status != http.StatusForbidden {
			t.Errorf("form, %s: %d", name, p.status)
		}
	}
	for _, path := range []string{"/oauth2/", "/oauth2", "/oauth2/session/refresh"} {
		if p := b.post(path, url.Values{"end": {"others"}}, cross...); p.status == http.StatusOK || p.status == http.StatusSeeOther {
			t.Errorf("%s from another site: %d", path, p.status)
		}
	}
	if !b.signedIn() || ended() != 0 {
		t.Fatal("the session ended")
	}
	// A person's own click.
	p := b.navigate("/oauth2/logout", "Sec-Fetch-Site: same-origin")
	for _, c := range (&http.Response{Header: p.header}).Cookies() {
		if !strings.HasPrefix(c.Name, "__Host-") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.MaxAge >= 0 {
			t.Errorf("the cookie is expired by %s", c.Raw)
		}
	}
	at, err := url.Parse(p.header.Get("Location"))
	if err != nil || b.session() != "" || !strings.HasPrefix(at.String(), w.provider.EndpointURL(idptest.EndSession)) {
		t.Fatalf("%d %s %s", p.status, at, p.body)
	}
	if at.Query().Get("id_token_hint") == "" || at.Query().Get("post_logout_redirect_uri") != w.origin+"/oauth2/logout/callback" {
		t.Errorf("the provider is sent %s", at)
	}
	back, err := url.Parse(b.navigate(at.String()).header.Get("Location"))
	if err != nil || back.Query().Get("state") == "" {
		t.Fatalf("back to %s", back)
	}
	for name, change := range map[string]func(url.Values){
		"-rp-init-logout": func(url.Values) {}, "-rp-init-logout-other-state": func(q url.Values) { q.Set("state", q.Get("state")+"_INVALID") }, "-rp-init-logout-no-state": func(q url.Values) { q.Del("state") },
	} {
		if p := b.navigate(with(back, change)); p.status != http.StatusOK && p.header.Get("Location") != "/" || b.session() != "" {
			t.Errorf("%s: %d %s", name, p.status, p.header.Get("Location"))
		}
	}
	// A session that the store cannot end is not called ended.
	b.signIn("/")
	w.redis.Stop()
	if p := b.post("/oauth2/logout", nil); p.status != http.StatusServiceUnavailable || b.session() == "" || bytes.Contains([]byte(p.body), []byte("You are signed out")) {
		t.Errorf("without store: %d", p.status)
	}
}
