package proxy_test

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
)

// chooseConfig has routes of one provider, of the other, of both and of whatever there is. Every request reads the store.
const chooseConfig = `
server: {listen: "${LISTEN}"}
session: {cache: {max_stale: 0s}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret, title: 'Staff <b>"&'}
  partners: {issuer: "${PARTNERS}", client_id: wiki, client_secret: canary-client-secret, title: Partners, start_params: [login_hint]}
routes:
  - {upstream: "${UPSTREAM}"}
  - {path: /corp, provider: corp, upstream: "${UPSTREAM}"}
  - {path: /partners, provider: partners, upstream: "${UPSTREAM}"}
  - {path: /both, provider: [partners, corp], upstream: "${UPSTREAM}"}
  - {path: /staff, access: {groups: [wiki-users]}, upstream: "${UPSTREAM}"}
  - {path: /outside, access: {groups: [outside]}, upstream: "${UPSTREAM}"}
  - {path: /nobody, access: {groups: [nobody]}, upstream: "${UPSTREAM}"}
  - {path: /optional, access: optional, upstream: "${UPSTREAM}"}
  - {path: /open, access: public, upstream: "${UPSTREAM}"}
`

// two is a stack with two providers: corp signs in alice of wiki-users, partners signs in carol of outside.
type two struct {
	*proxytest.Stack
	partners *idptest.Server
	store    *partialStore
}

func newTwo(t *testing.T, text string, callbacks ...string) *two {
	t.Helper()
	clock := &proxytest.Clock{}
	w := &two{partners: idptest.NewServerWith(t, idptest.Options{Now: clock.Now}), store: &partialStore{Store: memstore.New(memstore.Options{Now: clock.Now})}}
	w.partners.AddUser(idptest.User{Sub: "carol", Claims: map[string]any{"name": "Carol Outside", "email": "carol@example.net", "email_verified": true, "groups": []string{"outside"}}})
	w.Stack = proxytest.New(t, proxytest.Options{Config: text, Clock: clock, Store: w.store, Env: map[string]string{
		"PARTNERS": w.partners.URL, "PARTNERS_AUTHORIZE": w.partners.EndpointURL(idptest.Authorize), "PARTNERS_TOKEN": w.partners.EndpointURL(idptest.Token),
		"PARTNERS_USERINFO": w.partners.EndpointURL(idptest.Userinfo),
	}})
	var uris, after []string
	for _, c := range append(callbacks, "/oauth2/callback") {
		uris = append(uris, w.URL+c)
	}
	after = append(after, w.URL+"/oauth2/logout/callback")
	for _, p := range []*idptest.Server{w.Provider, w.partners} {
		p.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic", RedirectURIs: uris, PostLogoutRedirectURIs: after})
	}
	proxytest.Eventually(t, func() bool { // both are discovered
		rec := httptest.NewRecorder()
		w.Proxy.Admin().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		var body struct{ Providers map[string]string }
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		for _, problem := range body.Providers {
			if problem != "ok" {
				return false
			}
		}
		return true
	})
	return w
}

// partialStore is a store that does not answer about some of its sessions.
type partialStore struct {
	session.Store
	mu   sync.Mutex
	keys []string // as they were made
	down map[string]bool
}

func (p *partialStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	p.mu.Lock()
	p.keys = append(p.keys, key)
	p.mu.Unlock()
	return p.Store.Create(ctx, key, rec, ttl, index)
}

func (p *partialStore) Get(ctx context.Context, key string) (session.Record, error) {
	p.mu.Lock()
	down := p.down[key]
	p.mu.Unlock()
	if down {
		return session.Record{}, errDown
	}
	return p.Store.Get(ctx, key)
}

// lose makes the store silent about the sessions that were made as the nth of all, and about no others.
func (p *partialStore) lose(nth ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = map[string]bool{}
	for _, n := range nth {
		p.down[p.keys[n]] = true
	}
}

func (p *partialStore) made() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.keys)
}

var anchor = regexp.MustCompile(`<a [^>]*href="([^"]*)"[^>]*>([^<]*)</a>`)

// linkTo is where the page's link with that text leads.
func linkTo(t *testing.T, page proxytest.Answer, text string) string {
	t.Helper()
	for _, m := range anchor.FindAllStringSubmatch(page.Text, -1) {
		if html.UnescapeString(m[2]) == text {
			return html.UnescapeString(m[1])
		}
	}
	t.Fatalf("%s: %s has no link %q: %s", page.URL, page.Status, text, page.Text)
	return ""
}

// asks tells whether a page asks where to sign in.
func asks(page proxytest.Answer) bool {
	return page.StatusCode == http.StatusOK && strings.Contains(page.Text, "Choose where you have an account")
}

const (
	staffTitle    = `Staff <b>"&`
	partnersTitle = "Partners"
	corpCookie    = "postern"
	otherCookie   = "postern-partners"
	choiceCookie  = "postern-login-choice"
)

func TestAPersonChoosesAmongTheProvidersOfARoute(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b := w.Browser()
	page := b.Go("/both/page?x=1")
	if !asks(page) || strings.Contains(page.Text, "<b>") || page.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %s %s", page.URL, page.Status, page.Text)
	}
	if strings.Index(page.Text, partnersTitle+"</a>") > strings.Index(page.Text, "Staff ") {
		t.Error("the page is not in the order of the route")
	}
	if len(b.Cookies()) > 0 {
		t.Errorf("cookies before anything was chosen: %v", b.Cookies())
	}
	got := b.Go(linkTo(t, page, staffTitle)).Received(t)
	if got.Target != "/both/page?x=1" || got.Header.Get("X-Forwarded-User") != "alice" || got.Header.Get("Cookie") != "" {
		t.Errorf("the application sees %s, %v", got.Target, got.Header)
	}

	// The choice is remembered, longer than the session.
	b.Forget(corpCookie)
	if got := b.Go("/both").Received(t); got.Header.Get("X-Forwarded-User") != "alice" || len(b.Trail) != 4 {
		t.Errorf("with a remembered choice: %v by %v", got.Header, b.Trail)
	}
	b.Forget(corpCookie)
	if page := b.Go("/oauth2/start?rd=/both&provider="); !asks(page) {
		t.Errorf("an empty provider: %s %s", page.Status, page.Text)
	}
	if got := b.Go("/oauth2/start?rd=/both&provider=partners").Received(t); got.Header.Get("X-Forwarded-User") != "carol" {
		t.Errorf("a named provider: %v", got.Header)
	}
	if c := b.Cookie(choiceCookie); c == nil || c.Value != "partners" {
		t.Errorf("the newer choice is not remembered: %v", c)
	}
}

func TestAChoiceIsRememberedOnlyOnceItWorks(t *testing.T) {
	w := newTwo(t, chooseConfig)
	w.partners.RefuseSignIn("access_denied", "")
	b := w.Browser()
	failed := b.Go("/oauth2/start?rd=/both&provider=partners")
	if failed.StatusCode != http.StatusForbidden || b.Cookie(choiceCookie) != nil {
		t.Fatalf("%s, choice %v", failed.Status, b.Cookie(choiceCookie))
	}
	if !asks(b.Go(linkTo(t, failed, "Sign in"))) {
		t.Error("after a refusal one cannot choose another provider")
	}
	if b.Go("/corp").Received(t); b.Cookie(choiceCookie) != nil {
		t.Error("a choice is remembered where there was none")
	}
}

// Nobody stays stuck at a provider that was chosen once and is down now.
func TestAProviderThatIsDownCanBeLeft(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b := w.Browser()
	b.Go("/oauth2/start?rd=/both&provider=partners").Received(t)
	b.Forget(otherCookie)
	w.partners.Fail(idptest.Token, http.StatusServiceUnavailable, -1)
	down := b.Go("/both")
	if down.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%s %s", down.Status, down.Text)
	}
	page := b.Go(linkTo(t, down, "Sign in"))
	if !asks(page) {
		t.Fatalf("leads to %s: %s", page.URL, page.Status)
	}
	if got := b.Go(linkTo(t, page, staffTitle)).Received(t); got.Header.Get("X-Forwarded-User") != "alice" {
		t.Errorf("signed in as %v", got.Header)
	}
}

// What a link or a cookie names is chosen only among the providers of the route.
func TestAProviderThatTheRouteDoesNotTakeIsNotUsed(t *testing.T) {
	w := newTwo(t, chooseConfig)
	corp := w.Provider.EndpointURL(idptest.Authorize)
	for _, address := range []string{"/oauth2/start?rd=/corp&provider=partners", "/oauth2/start?rd=/corp", "/corp"} {
		b := w.Browser()
		b.Jar.SetCookies(mustURL(t, w.URL), []*http.Cookie{{Name: choiceCookie, Value: "partners", Path: "/"}})
		if a := b.Step(address); !strings.HasPrefix(a.Header.Get("Location"), corp) {
			t.Errorf("%s: %s to %s", address, a.Status, a.Header.Get("Location"))
		}
	}
	for _, name := range []string{"nobody", "corp,partners", "CORP", "../corp", "\"><script>"} {
		b := w.Browser()
		b.Jar.SetCookies(mustURL(t, w.URL), []*http.Cookie{{Name: choiceCookie, Value: "evil", Path: "/"}})
		if a := b.Go("/oauth2/start?rd=/both&provider=" + url.QueryEscape(name)); !asks(a) || strings.Contains(a.Text, "script") {
			t.Errorf("provider %q: %s %s", name, a.Status, a.Text)
		}
		if a := b.Go("/both"); !asks(a) {
			t.Errorf("choice evil: %s %s", a.Status, a.URL)
		}
	}
}

func TestWhatALinkTellsTheProviderGoesThroughThePage(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b := w.Browser()
	page := b.Go("/oauth2/start?rd=/both&login_hint=carol")
	a := b.Step(linkTo(t, page, partnersTitle))
	if q := mustURL(t, a.Header.Get("Location")).Query(); q.Get("login_hint") != "carol" || q.Has("provider") || q.Has("rd") {
		t.Errorf("the provider is asked with %v", q)
	}
	long := b.Go("/oauth2/start?rd=/both&login_hint=" + strings.Repeat("x", 4000))
	if !asks(long) || len(long.Text) > 20_000 {
		t.Errorf("a long link: %s, %d bytes", long.Status, len(long.Text))
	}
	linkTo(t, long, partnersTitle)
}

// Each provider has its own session. A route takes those of its own providers; the first that its rule lets in decides.
func TestSessionsOfSeveralProviders(t *testing.T) {
	w := newTwo(t, chooseConfig)
	alice, carol, both, nobody := w.Browser(), w.Browser(), w.Browser(), w.Browser()
	alice.Go("/corp").Received(t)
	carol.Go("/partners").Received(t)
	both.Go("/partners").Received(t)
	both.Go("/corp").Received(t)
	if both.Cookie(corpCookie) == nil || both.Cookie(otherCookie) == nil {
		t.Fatalf("cookies %v", both.Cookies())
	}
	const ask = "" // whom the application sees; empty: the answer is not its
	for _, c := range []struct {
		path   string
		b      *proxytest.Browser
		status int
		user   string
	}{
		{"/", alice, 200, "alice"}, {"/", carol, 200, "carol"}, {"/", both, 200, "alice"}, {"/", nobody, 401, ask},
		{"/corp", alice, 200, "alice"}, {"/corp", carol, 401, ask}, {"/corp", both, 200, "alice"},
		{"/partners", alice, 401, ask}, {"/partners", carol, 200, "carol"}, {"/partners", both, 200, "carol"},
		{"/both", alice, 200, "alice"}, {"/both", both, 200, "carol"},
		{"/staff", alice, 200, "alice"}, {"/staff", carol, 403, ask}, {"/staff", both, 200, "alice"},
		{"/outside", alice, 403, ask}, {"/outside", carol, 200, "carol"}, {"/outside", both, 200, "carol"},
		{"/nobody", both, 403, ask}, {"/nobody", nobody, 401, ask},
		{"/optional", nobody, 200, ask}, {"/optional", carol, 200, "carol"},
	} {
		a := c.b.Fetch(c.path)
		if a.StatusCode != c.status {
			t.Errorf("%s: %s, want %d: %s", c.path, a.Status, c.status, a.Text)
			continue
		}
		if c.status != 200 {
			continue
		}
		got := a.Received(t)
		if user := got.Header.Get("X-Forwarded-User"); user != c.user {
			t.Errorf("%s: the application sees %q, want %q", c.path, user, c.user)
		}
		if token := strings.TrimPrefix(got.Header.Get("Authorization"), "Bearer "); (token == "") != (c.user == "") {
			t.Errorf("%s: token %q", c.path, token)
		}
	}
	if page := both.Go("/nobody"); !strings.Contains(page.Text, "alice@example.com") {
		t.Errorf("the refusal is not about the first session: %s", page.Text)
	}
}

// "Sign in with another account" leads to where another provider can be chosen, and the way to there is short.
func TestWhoIsRefusedCanChooseAnotherProvider(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b := w.Browser()
	b.Go("/oauth2/start?rd=/&provider=corp").Received(t)
	refused := b.Go("/outside/x")
	if refused.StatusCode != http.StatusForbidden {
		t.Fatal(refused.Status)
	}
	linkTo(t, refused, "Sign out")
	page := b.Go(linkTo(t, refused, "Sign in with another account"))
	if !asks(page) {
		t.Fatalf("%s %s", page.URL, page.Text)
	}
	if got := b.Go(linkTo(t, page, partnersTitle)).Received(t); got.Target != "/outside/x" || got.Header.Get("X-Forwarded-User") != "carol" {
		t.Errorf("%s as %v", got.Target, got.Header)
	}
}

func TestSignOutEndsAllSessionsOfTheBrowserAndForgetsTheChoice(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b := w.Browser()
	b.Go("/oauth2/start?rd=/both&provider=partners").Received(t)
	b.Go("/corp").Received(t)
	old := w.Browser()
	for _, c := range b.Cookies() {
		old.Jar.SetCookies(mustURL(t, w.URL), []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/"}})
	}
	if a := b.Fetch("/oauth2/session"); a.StatusCode != 200 || !strings.Contains(a.Text, `"provider":"corp"`) {
		t.Errorf("session: %s %s", a.Status, a.Text)
	}
	out := b.Submit(b.Go("/oauth2/logout"), nil)
	if !strings.Contains(out.Text, "You are signed out") {
		t.Fatalf("%s %s %s", out.URL, out.Status, out.Text)
	}
	for _, name := range []string{corpCookie, otherCookie, choiceCookie} {
		if c := b.Cookie(name); c != nil {
			t.Errorf("cookie %s is still there", name)
		}
	}
	for _, path := range []string{"/corp", "/partners"} {
		if a := old.Fetch(path); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s with the old cookie: %s", path, a.Status)
		}
	}
	if page := b.Go(linkTo(t, out, "Sign in")); !asks(page) {
		t.Errorf("after signing out one is sent to %s", page.URL)
	}
}

// Absent is not broken: with several providers, too, a store that does not answer about one session neither lets anyone in nor signs anyone out.
func TestStoreOutageWithSeveralProviders_A180(t *testing.T) {
	w := newTwo(t, chooseConfig)
	b, carol := w.Browser(), w.Browser()
	b.Go("/corp").Received(t)         // the first session
	b.Go("/partners").Received(t)     // the second
	carol.Go("/partners").Received(t) // the third
	check := func(name string, b *proxytest.Browser, path string, want int) {
		t.Helper()
		for kind, a := range map[string]proxytest.Answer{"page": b.Step(path), "fetch": b.Fetch(path)} {
			if a.StatusCode != want || want != 200 && len(a.Header.Values("Set-Cookie")) > 0 {
				t.Errorf("%s, %s %s: %s %v, want %d", name, kind, path, a.Status, a.Header, want)
			}
			if want == 503 && a.Header.Get("Retry-After") == "" {
				t.Errorf("%s, %s %s: no Retry-After", name, kind, path)
			}
		}
	}
	w.store.lose(0)
	check("one is silent, the other is let in", b, "/outside", 200)
	check("one is silent, the other would be refused", b, "/staff", 503)
	check("one is silent, the other does not count", b, "/corp", 503)
	check("one is silent, the other counts", b, "/partners", 200)
	w.store.lose(1)
	check("the second is silent", b, "/staff", 200)
	check("the second might be let in", b, "/outside", 503)
	w.store.lose(0, 1)
	check("both are silent", b, "/", 503)
	check("nobody is let in anonymously", b, "/optional", 503)
	w.store.lose(2)
	check("the only one is silent", carol, "/", 503)
	w.store.lose()
	check("it came back", carol, "/", 200)
	check("it came back for both", b, "/staff", 200)
}

func TestForwardAuthLeadsToThePageToChoose(t *testing.T) {
	for _, dialect := range dialects {
		w := newTwo(t, strings.Replace(chooseConfig, `"${LISTEN}"}`, `"${LISTEN}", trusted_proxies: [127.0.0.1/32]}`+"\nforward_auth: {dialect: "+dialect+"}", 1))
		b := w.Browser()
		method, target, header := question(dialect, "GET", "/both/page", strings.TrimPrefix(w.URL, "http://"))
		a := b.Do(method, target, nil, header)
		there, want := a.Header.Get("Location"), http.StatusSeeOther
		if dialect == "nginx" {
			there, want = a.Header.Get("X-Postern-Redirect"), http.StatusUnauthorized
		}
		if a.StatusCode != want || there != w.URL+"/oauth2/start?rd=%2Fboth%2Fpage" {
			t.Errorf("%s: %s to %q", dialect, a.Status, there)
			continue
		}
		b.Go(linkTo(t, b.Go(there), partnersTitle))
		if a := b.Do(method, target, nil, header); a.StatusCode != 200 || a.Header.Get("X-Forwarded-User") != "carol" {
			t.Errorf("%s: %s for %q", dialect, a.Status, a.Header.Get("X-Forwarded-User"))
		}
	}
}

// A browser that keeps no session cookie goes round and round only so often, whatever it chooses.
func TestSeveralProvidersDoNotLoop_A194(t *testing.T) {
	w := newTwo(t, chooseConfig)
	drops := w.Browser()
	drops.Jar.SetCookies(mustURL(t, w.URL), []*http.Cookie{{Name: choiceCookie, Value: "partners", Path: "/"}})
	for range 10 { // follows redirects by hand, and drops the session
		address := "/both"
		for range 8 {
			a := drops.Step(address)
			drops.Forget(otherCookie)
			if a.StatusCode == http.StatusBadRequest && strings.Contains(a.Text, "does not hold") {
				if !asks(drops.Go(linkTo(t, a, "Sign in"))) {
					t.Error("the page about the loop does not let choose")
				}
				return
			}
			if address = a.Onward(); address == "" {
				break
			}
		}
	}
	t.Error("the loop did not end")
}

// A page that no route of several providers answers for leads to the providers of its host alone.
func TestProvidersOfAHost(t *testing.T) {
	w := newTwo(t, `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
  partners: {issuer: "${PARTNERS}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {host: a.example.com, path: /app, provider: corp, upstream: "${UPSTREAM}"}
  - {host: a.example.com, path: /open, access: public, upstream: "${UPSTREAM}"}
  - {host: b.example.com, path: /app, upstream: "${UPSTREAM}"}
`)
	b := w.Browser()
	corp := w.Provider.EndpointURL(idptest.Authorize)
	for _, rd := range []string{"/app", "/open", "/else", "/"} {
		if a := b.Step("http://a.example.com/oauth2/start?rd=" + rd); !strings.HasPrefix(a.Header.Get("Location"), corp) {
			t.Errorf("%s: %s to %q", rd, a.Status, a.Header.Get("Location"))
		}
		if a := b.Step("http://b.example.com/oauth2/start?rd=" + rd); !asks(a) {
			t.Errorf("%s on the other host: %s to %q", rd, a.Status, a.Header.Get("Location"))
		}
	}
}
