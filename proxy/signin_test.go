package proxy_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
)

const sessionCookie = "postern" // on a plain http loopback origin

func TestSignInLeadsToTheWantedPageWithBearerAndIdentity(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	a := b.Go("/orders/7?tab=a%20b&c")
	got := a.Received(t)
	if got.Target != "/orders/7?tab=a%20b&c" {
		t.Errorf("the application saw %s", got.Target)
	}
	if token, ok := strings.CutPrefix(got.Header.Get("Authorization"), "Bearer "); !ok || token == "" {
		t.Errorf("Authorization = %q, want a bearer token", got.Header.Get("Authorization"))
	}
	for name, want := range map[string]string{
		"X-Forwarded-User": "alice", "X-Forwarded-Email": "alice@example.com",
		"X-Forwarded-Preferred-Username": "alice", "X-Forwarded-Groups": "wiki-users",
	} {
		if v := got.Header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s = %q, want %q once", name, v, want)
		}
	}
	if c := got.Header.Get("Cookie"); c != "" {
		t.Errorf("our cookies reached the application: %s", c)
	}
	if len(b.Trail) != 4 { // page → authorize → callback → page
		t.Errorf("the way in took %d steps: %v", len(b.Trail), b.Trail)
	}
	for _, c := range b.Cookies() {
		if strings.HasPrefix(c.Name, "postern-login-") && c.Name != "postern-login-loop" {
			t.Errorf("the attempt's cookie %s is still there", c.Name)
		}
	}
}

func TestCookiesAreHostBoundAndClosedToScripts_S20(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{TLS: true, Config: `
server: {listen: "${LISTEN}", public_url: "${ORIGIN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes: [{upstream: "${UPSTREAM}"}]
`})
	b := s.Browser()
	check := func(a proxytest.Answer) {
		t.Helper()
		for _, c := range a.Cookies() {
			if !strings.HasPrefix(c.Name, "__Host-postern") || !c.Secure || !c.HttpOnly || c.Path != "/" || c.Domain != "" || c.SameSite != http.SameSiteLaxMode {
				t.Errorf("cookie is not as it should be: %s", c.Raw)
			}
		}
		if len(a.Cookies()) == 0 {
			t.Errorf("%s set no cookie", a.URL)
		}
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Strict-Transport-Security") != "max-age=15552000" {
			t.Errorf("%s: headers %v", a.URL, a.Header)
		}
	}
	first := b.Step("/")
	check(first)
	callback := b.Step(first.Header.Get("Location"))
	done := b.Step(callback.Header.Get("Location"))
	check(done)
	c := b.Cookie("__Host-postern")
	if c == nil || len(c.Value) < 100 || len(c.Value) > 250 {
		t.Fatalf("session cookie: %v", c)
	}
	if got := b.Go("/").Received(t); got.Header.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("X-Forwarded-Proto = %q", got.Header.Get("X-Forwarded-Proto"))
	}
	if proto := b.Go("/").Proto; proto != "HTTP/2.0" {
		t.Errorf("the browser spoke %s", proto)
	}
}

func TestManyTabsSignInAtOnce(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	var tabs []string
	for _, path := range []string{"/a", "/b", "/c"} {
		tabs = append(tabs, b.Step(path).Header.Get("Location"))
	}
	for i, want := range []string{"/a", "/b", "/c"} {
		if got := b.Go(tabs[i]).Received(t).Target; got != want {
			t.Errorf("tab %d ended at %s, want %s", i, got, want)
		}
	}
}

// A17: a hundred tabs that never finish do not pile up, and the newest still finishes.
func TestA17_AttemptsAreBoundedAndTheNewestFinish(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	var last string
	for range 100 {
		last = b.Step("/" + strings.Repeat("long/", 60) + "?q=" + strings.Repeat("x", 1000)).Header.Get("Location")
		n, total := 0, 0
		for _, c := range b.Cookies() {
			n++
			total += len(c.Name) + len(c.Value)
			if len(c.Name)+len(c.Value) > 700 {
				t.Fatalf("one attempt takes %d bytes", len(c.Name)+len(c.Value))
			}
		}
		if n > 8 || total > 4096 {
			t.Fatalf("%d attempts with %d bytes", n, total)
		}
	}
	b.Go(last).Received(t)
}

func TestLongReturnAddressKeepsItsPathThenTheRoot(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	for path, want := range map[string]string{
		"/short?" + strings.Repeat("q", 900): "/short",
		"/" + strings.Repeat("p", 900):       "/",
		"/fits?" + strings.Repeat("q", 100):  "/fits?" + strings.Repeat("q", 100),
	} {
		if got := s.Browser().Go(path).Received(t).Target; got != want {
			t.Errorf("%.20s… came back to %.40s, want %.40s", path, got, want)
		}
	}
}

// A1, A5: someone else's callback address does not sign this browser in as them.
func TestA1_ForeignCallbackDoesNotSignIn(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	attacker, victim := s.Browser(), s.Browser()
	authorize := attacker.Step("/").Header.Get("Location")
	callback := attacker.Step(authorize).Header.Get("Location")
	calls := s.Provider.Calls(idptest.Token)
	a := victim.Step(callback)
	if victim.Cookie(sessionCookie) != nil {
		t.Error("the victim was signed in")
	}
	if s.Provider.Calls(idptest.Token) != calls {
		t.Error("the foreign code was sent")
	}
	if !strings.HasPrefix(a.Header.Get("Location"), s.Provider.URL) { // the victim may sign in as themselves
		t.Errorf("answer %s %s", a.Status, a.Header.Get("Location"))
	}
}

func TestA2_CallbackRepeatedGoesOnToTheApplication(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	callback := b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location")
	b.Go(callback).Received(t)
	calls := s.Provider.Calls(idptest.Token)
	if a := b.Step(callback); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/" {
		t.Errorf("repeated callback: %s %s", a.Status, a.Header.Get("Location"))
	}
	if s.Provider.Calls(idptest.Token) != calls {
		t.Error("the code was sent again")
	}
}

func TestA3_TwentyCallbacksAtOnceExchangeOneCode(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	callback := b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location")
	gate := s.Provider.Gate(idptest.Token)
	var wg sync.WaitGroup
	answers := make([]proxytest.Answer, 20)
	for i := range answers {
		wg.Go(func() { answers[i] = b.Step(callback) })
	}
	<-gate.Arrived()
	gate.Open()
	wg.Wait()
	if n := s.Provider.Calls(idptest.Token); n != 1 {
		t.Errorf("%d token requests, want 1", n)
	}
	for _, a := range answers {
		// Who came while the first was at work has its outcome; who came after it is late, and signed in or sent to sign in.
		if a.StatusCode != http.StatusSeeOther {
			t.Errorf("answer %s", a.Status)
		}
	}
	b.Go("/x").Received(t)
	if n := s.Provider.Calls(idptest.Token); n != 1 {
		t.Errorf("%d token requests in the end, want 1", n)
	}
}

func TestA11_A14_MalformedCallbacksAreRefusedWithAPage(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	u, _ := url.Parse(b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location"))
	q := u.Query()
	for name, query := range map[string]string{
		"bare":             "",
		"no state":         "code=x",
		"empty state":      "code=x&state=",
		"foreign state":    "code=x&state=abcdefgh",
		"duplicate state":  u.RawQuery + "&state=" + url.QueryEscape(q.Get("state")),
		"tampered state":   "code=x&state=" + url.QueryEscape("A"+q.Get("state")[1:]),
		"error, no state":  "error=denied",
		"error and script": "error=<script>alert(1)</script>&error_description=" + url.QueryEscape(`"><script>`),
		"broken escape":    "code=%zz&state=%zz",
	} {
		a := s.Browser().Step("/oauth2/callback?" + query)
		if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "/oauth2/start") && name != "broken escape" || strings.Contains(a.Text, "<script>") {
			t.Errorf("%s: %s %.200s", name, a.Status, a.Text)
		}
	}
	if n := s.Provider.Calls(idptest.Token); n != 0 {
		t.Errorf("%d token requests", n)
	}
}

func TestLostAttemptCookieStartsAgainButErrorDoesNot(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	callback := func() *url.URL {
		b := s.Browser()
		u, err := url.Parse(b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if got := s.Browser().Go(callback().String()).Received(t); got.Target != "/" {
		t.Errorf("started again, and ended at %s", got.Target)
	}
	u := callback()
	q := u.Query()
	q.Del("code")
	q.Set("error", "access_denied")
	u.RawQuery = q.Encode()
	if a := s.Browser().Step(u.String()); a.StatusCode != http.StatusBadRequest {
		t.Errorf("error without cookie: %s", a.Status)
	}
}

func TestRefusalAtTheProviderIsAPageWithTheWayBack(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.RefuseSignIn("access_denied", "<b>no</b>")
	b := s.Browser()
	a := b.Go("/wanted?x=1")
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "rd=%2Fwanted%3Fx%3D1") || strings.Contains(a.Text, "<b>no") {
		t.Errorf("%s %.400s", a.Status, a.Text)
	}
}

// A194: cookies blocked. The state carries the count, so a browser that keeps nothing ends at the page that says so.
func TestA194_BlockedCookiesEndInAPageNotALoop(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	address, hops := "/", 0
	for ; hops < 20; hops++ {
		a := s.Browser().Step(address) // a new browser each time: nothing is kept
		if a.Header.Get("Location") == "" {
			if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "blocks or deletes cookies") {
				t.Errorf("%s %.300s", a.Status, a.Text)
			}
			break
		}
		address = a.Header.Get("Location")
	}
	if hops > 8 {
		t.Errorf("took %d hops", hops)
	}
}

// The session cookie alone does not arrive: say a proxy drops it. Three sign-ins in a row, then the page.
func TestSessionThatNeverArrivesEndsInAPage(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	for range 3 {
		callback := b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location")
		b.Step(callback)
		b.Forget(sessionCookie)
	}
	a := b.Step("/x")
	if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "Sign-in does not hold") {
		t.Fatalf("%s %.300s", a.Status, a.Text)
	}
	b.Go("/x").Received(t) // told once; the next try works where cookies do
}

func TestSignInTakesThePlaceOfTheOldSession_A5_A18(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	old := b.Cookie(sessionCookie)
	s.Provider.SignInAs("bob")
	if got := b.Go("/oauth2/start?rd=/").Received(t); got.Header.Get("X-Forwarded-User") != "bob" || got.Header.Get("X-Forwarded-Email") != "" {
		t.Errorf("after the switch: %v", got.Header)
	}
	if b.Cookie(sessionCookie).Value == old.Value {
		t.Error("the cookie stayed")
	}
	thief := s.Browser()
	thief.Jar.SetCookies(mustURL(t, s.URL), []*http.Cookie{{Name: sessionCookie, Value: old.Value, Path: "/"}})
	if a := thief.Fetch("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old cookie: %s", a.Status)
	}
}

func TestStrictCookiesGoOnByAPage(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "providers:", "session: {cookie: {same_site: strict}}\nproviders:", 1)})
	b := s.Browser()
	callback := b.Step(b.Step("/wanted?x=1").Header.Get("Location")).Header.Get("Location")
	if a := b.Step(callback); a.StatusCode != http.StatusOK || a.Onward() != "/wanted?x=1" {
		t.Fatalf("%s %s", a.Status, a.Text)
	}
	b.Go("/wanted").Received(t)
}

func TestFormPostCallback(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{TLS: true, Config: `
server: {listen: "${LISTEN}", public_url: "${ORIGIN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret, response_mode: form_post}
routes: [{upstream: "${UPSTREAM}"}]
`})
	b := s.Browser()
	first := b.Step("/wanted")
	for _, c := range first.Cookies() {
		if c.SameSite != http.SameSiteNoneMode || !c.Secure {
			t.Errorf("the attempt's cookie would not come with the provider's form: %s", c.Raw)
		}
	}
	authorize := mustURL(t, first.Header.Get("Location"))
	if authorize.Query().Get("response_mode") != "form_post" {
		t.Errorf("authorize: %s", authorize)
	}
	cb := s.Provider.Visit(t, authorize.String())
	a := b.Do(http.MethodPost, cb.URL, strings.NewReader(cb.Params.Encode()), map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site", "Origin": s.Provider.URL,
	})
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/wanted" {
		t.Errorf("%s %s", a.Status, a.Header.Get("Location"))
	}
	b.Go("/wanted").Received(t)
}

func TestProviderDownAtStartHealsByItself_A160(t *testing.T) {
	provider := idptest.NewServer(t)
	provider.AddUser(idptest.User{Sub: "alice"})
	provider.SignInAs("alice")
	provider.Down()
	s := proxytest.New(t, proxytest.Options{Provider: provider, Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes: [{upstream: "${UPSTREAM}"}, {path: /open, access: public, upstream: "${UPSTREAM}"}]
`})
	b := s.Browser()
	if a := b.Step("/x"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || len(a.Cookies()) > 0 {
		t.Errorf("sign-in without provider: %s %v", a.Status, a.Header)
	}
	b.Go("/open").Received(t)
	provider.Up()
	proxytest.Eventually(t, func() bool { return b.Step("/x").StatusCode == http.StatusSeeOther })
	b.Go("/x").Received(t)
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A4: an attempt that took too long begins again instead of being finished.
func TestA4_AttemptThatTookTooLongBeginsAgain(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	callback := b.Step(b.Step("/x").Header.Get("Location")).Header.Get("Location")
	s.Clock.Add(31 * time.Minute)
	a := b.Step(callback)
	if !strings.HasPrefix(a.Header.Get("Location"), s.Provider.URL) || s.Provider.Calls(idptest.Token) != 0 {
		t.Errorf("%s %s, %d token requests", a.Status, a.Header.Get("Location"), s.Provider.Calls(idptest.Token))
	}
}
