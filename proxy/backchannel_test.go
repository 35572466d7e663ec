package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

const backChannel = "/oauth2/logout/backchannel"

// orderLogout posts as a provider does: no browser, no cookie, a parameter that is to be ignored.
func orderLogout(t testing.TB, s *proxytest.Stack, token string) proxytest.Answer {
	t.Helper()
	return orderLogoutWith(t, s, url.Values{"logout_token": {token}, "ignored_parameter": {"x"}}.Encode(), nil)
}

func orderLogoutWith(t testing.TB, s *proxytest.Stack, body string, header map[string]string) proxytest.Answer {
	t.Helper()
	h := map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Accept": "*/*", "User-Agent": "provider",
		"Sec-Fetch-Mode": "", "Sec-Fetch-Dest": "", "Sec-Fetch-Site": "",
	}
	for name, value := range header {
		h[name] = value
	}
	method := http.MethodPost
	if m := h["method"]; m != "" {
		method = m
		delete(h, "method")
	}
	return s.Browser().Do(method, backChannel, strings.NewReader(body), h)
}

// wantOrder fails unless the answer is the one of Back-Channel Logout section 2.8, which tells nothing.
func wantOrder(t testing.TB, a proxytest.Answer, status int) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Cache-Control") != "no-store" || len(a.Cookies()) > 0 {
		t.Errorf("got %s %v, want %d", a.Status, a.Header, status)
	}
	if status == http.StatusOK && a.Text != "" || status != http.StatusOK && !strings.Contains(a.Text, `"error":"invalid_request"`) {
		t.Errorf("%d with %q", status, a.Text)
	}
}

// recordSIDs tells the provider's name of its session that was begun last.
func recordSIDs(s *proxytest.Stack) (last func() string) {
	var sid atomic.Value
	s.Provider.MutateIDToken(func(_, claims map[string]any) { sid.Store(claims["sid"]) })
	return func() string { return sid.Load().(string) }
}

func isSignedIn(t testing.TB, b *proxytest.Browser) bool {
	t.Helper()
	switch a := b.Fetch("/"); a.StatusCode {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		t.Fatalf("neither signed in nor out: %s", a.Status)
		return false
	}
}

// -rp-backchannel-rpinitlogout, S38: a good token ends the session, on any host that reaches us, and is answered as the suite wants it.
func TestBackChannelLogoutEndsTheSession(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b, other := s.Browser(), s.Browser()
	b.Go("/").Received(t)
	s.Provider.SignInAs("bob")
	other.Go("/").Received(t)
	a := orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", "", func(_, claims map[string]any) { claims["ignored_claim"] = 1 }))
	wantOrder(t, a, http.StatusOK)
	if isSignedIn(t, b) || !isSignedIn(t, other) {
		t.Error("alice should be signed out, and nobody else")
	}
	if a := b.Fetch("/"); !strings.Contains(a.Text, `"ended":"back_channel"`) {
		t.Errorf("the person is told %s", a.Text)
	}
	if log := s.Log.String(); !strings.Contains(log, `"reason":"back_channel_logout"`) || !strings.Contains(log, `"sessions":1`) {
		t.Error("the log does not say what was done")
	}
	// Nothing of a browser is needed for it, nor wrong with it.
	b.Go("/").Received(t)
	wantOrder(t, orderLogoutWith(t, s, "logout_token="+s.Provider.LogoutToken("wiki", "bob", "", nil),
		map[string]string{"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site", "Cookie": sessionCookie + "=garbage", "Content-Type": "Application/X-WWW-Form-URLencoded; charset=utf-8"}), http.StatusOK)
	if isSignedIn(t, other) {
		t.Error("bob is still signed in")
	}
}

// A provider inside a cluster calls us by a name that no route has.
func TestBackChannelLogoutWorksOnAnyHost(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{TLS: true, Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {host: wiki.example.com, upstream: "${UPSTREAM}"}
`})
	if a := s.Browser().Fetch("/"); a.StatusCode != http.StatusMisdirectedRequest {
		t.Fatalf("another path: %s", a.Status)
	}
	token := s.Provider.LogoutToken("wiki", "alice", "", nil)
	wantOrder(t, orderLogoutWith(t, s, "logout_token="+token, map[string]string{"Host": "postern.auth.svc:8443"}), http.StatusOK)
	if a := s.Browser().Step(backChannel); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", a.Status)
	}
}

// A84: one POST per defect, and the session lives. What each check does is held in proxy/idp.
func TestA84_ForgedLogoutTokensEndNothing(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	sid := recordSIDs(s)
	b := s.Browser()
	b.Go("/").Received(t)
	defects := map[string]func(header, claims map[string]any){
		"alg none":   func(header, _ map[string]any) { header["alg"] = "none" },
		"typ at+jwt": func(header, _ map[string]any) { header["typ"] = "at+jwt" },
		"wrong aud":  func(_, c map[string]any) { c["aud"] = "wikiINVALID" },
		"wrong iss":  func(_, c map[string]any) { c["iss"] = s.Provider.URL + "INVALID" },
		"expired":    func(_, c map[string]any) { c["exp"] = s.Clock.Now().Add(-2 * time.Minute).Unix() },
		"no exp":     func(_, c map[string]any) { delete(c, "exp") },
		"future iat": func(_, c map[string]any) { c["iat"] = s.Clock.Now().Add(10 * time.Minute).Unix() },
		"no iat":     func(_, c map[string]any) { delete(c, "iat") },
		"no jti":     func(_, c map[string]any) { delete(c, "jti") },
		"no event":   func(_, c map[string]any) { delete(c, "events") },
		"wrong event": func(_, c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/foobar": map[string]any{}}
		},
		"event null": func(_, c map[string]any) {
			c["events"] = map[string]any{"http://schemas.openid.net/event/backchannel-logout": nil}
		},
		"nonce":        func(_, c map[string]any) { c["nonce"] = "n" },
		"nonce null":   func(_, c map[string]any) { c["nonce"] = nil },
		"nobody":       func(_, c map[string]any) { delete(c, "sub"); delete(c, "sid") },
		"sub a number": func(_, c map[string]any) { c["sub"] = 7 },
	}
	for name, defect := range defects {
		t.Run(name, func(t *testing.T) {
			wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", sid(), defect)), http.StatusBadRequest)
			if !isSignedIn(t, b) {
				t.Error("the session ended")
			}
		})
	}
	for name, how := range map[string]idptest.Signing{"validly signed with ES256": {Alg: "ES256"}, "none": {Alg: "none"}, "HS256": {Alg: "HS256", HMACKey: []byte("canary-client-secret")}, "foreign": {Foreign: true}} {
		s.Provider.SetSigning(how)
		wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", "", nil)), http.StatusBadRequest)
		if !isSignedIn(t, b) {
			t.Errorf("%s: the session ended", name)
		}
	}
	s.Provider.SetSigning(idptest.Signing{})
	if log := s.Log.String(); !strings.Contains(log, `"reason":"logout_token_refused"`) || !strings.Contains(log, "iat is missing") {
		t.Error("the log does not say why")
	}
	wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", sid(), nil)), http.StatusOK)
	if isSignedIn(t, b) {
		t.Error("the good token ended nothing")
	}
}

// A85: the same token twice; the second is refused, by another replica too.
func TestA85_LogoutTokenIsCarriedOutOnce(t *testing.T) {
	store := memstore.New(memstore.Options{})
	key := map[string]string{"KEY": seal.NewKey()}
	one := proxytest.New(t, proxytest.Options{Store: store, Config: withKey, Env: key})
	two := proxytest.New(t, proxytest.Options{Store: store, Config: withKey, Env: key, Provider: one.Provider, Clock: one.Clock})
	token := one.Provider.LogoutToken("wiki", "alice", "", nil)
	wantOrder(t, orderLogout(t, one, token), http.StatusOK)
	wantOrder(t, orderLogout(t, one, token), http.StatusBadRequest)
	wantOrder(t, orderLogout(t, two, token), http.StatusBadRequest)
	if !strings.Contains(two.Log.String(), `"reason":"logout_token_replayed"`) {
		t.Error("the log does not say why")
	}
	// The same jti in another token is a replay all the same (section 2.6, step 9).
	again := one.Provider.LogoutToken("wiki", "bob", "", func(_, c map[string]any) { c["jti"] = "the-same" })
	wantOrder(t, orderLogout(t, one, again), http.StatusOK)
	again = one.Provider.LogoutToken("wiki", "alice", "", func(_, c map[string]any) { c["jti"] = "the-same" })
	wantOrder(t, orderLogout(t, two, again), http.StatusBadRequest)

	// Of many deliveries at once one is told that it was carried out.
	token = one.Provider.LogoutToken("wiki", "alice", "", nil)
	var done atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if a := orderLogout(t, []*proxytest.Stack{one, two}[i%2], token); a.StatusCode == http.StatusOK {
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if done.Load() != 1 {
		t.Errorf("%d of 20 deliveries were answered with 200", done.Load())
	}
	// It is remembered for as long as it would be accepted.
	one.Clock.Add(2*time.Minute + 50*time.Second)
	wantOrder(t, orderLogout(t, one, token), http.StatusBadRequest)
}

const withKey = `
server: {listen: "${LISTEN}"}
session: {keys: ["${KEY}"]}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - upstream: ${UPSTREAM}
`

// failingStore fails single operations.
type failingStore struct {
	session.Store
	index, end, create, get atomic.Bool
}

func newFailingStore() *failingStore { return &failingStore{Store: memstore.New(memstore.Options{})} }

func (f *failingStore) Index(ctx context.Context, name string) ([]session.IndexEntry, error) {
	if f.index.Load() {
		return nil, errDown
	}
	return f.Store.Index(ctx, name)
}

func (f *failingStore) End(ctx context.Context, key string, why session.Reason, keep bool, index []session.IndexEntry) (bool, error) {
	if f.end.Load() {
		return false, errDown
	}
	return f.Store.End(ctx, key, why, keep, index)
}

func (f *failingStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	if f.create.Load() {
		return nil, errDown
	}
	return f.Store.Create(ctx, key, rec, ttl, index)
}

func (f *failingStore) Get(ctx context.Context, key string) (session.Record, error) {
	if f.get.Load() {
		return session.Record{}, errDown
	}
	return f.Store.Get(ctx, key)
}

// A85, the store's part: whatever of it fails, the answer is 400, nothing is remembered, and the repeat is carried out.
func TestA85_LogoutTokenIsRememberedOnlyOnceCarriedOut(t *testing.T) {
	f := newFailingStore()
	s := proxytest.New(t, proxytest.Options{Store: f})
	for name, part := range map[string]*atomic.Bool{"index": &f.index, "end": &f.end, "create": &f.create, "get": &f.get} {
		t.Run(name, func(t *testing.T) {
			b := s.Browser()
			b.Go("/").Received(t)
			token := s.Provider.LogoutToken("wiki", "alice", "", nil)
			part.Store(true)
			wantOrder(t, orderLogout(t, s, token), http.StatusBadRequest)
			part.Store(false)
			wantOrder(t, orderLogout(t, s, token), http.StatusOK)
			if isSignedIn(t, b) {
				t.Error("the session lives")
			}
			wantOrder(t, orderLogout(t, s, token), http.StatusBadRequest)
		})
	}
}

// A86: by sub all of a person's sessions at that issuer, by sid one, both only where both fit; another issuer's sid is another's.
func TestA86_LogoutTokenEndsExactlyWhatItNames(t *testing.T) {
	other := idptest.NewServer(t)
	other.AddUser(idptest.User{Sub: "alice"})
	s := proxytest.New(t, proxytest.Options{Env: map[string]string{"OTHER": other.URL}, Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
  team: {issuer: "${OTHER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}", provider: corp, access: signed_in}
  - {path: /team, upstream: "${UPSTREAM}", provider: team, access: signed_in}
`})
	other.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", RedirectURIs: []string{s.URL + "/oauth2/callback"}})
	sid := recordSIDs(s)
	other.MutateIDToken(func(_, claims map[string]any) { claims["sid"] = "sid-at-the-other" })
	var browsers [3]*proxytest.Browser // two sessions of alice at corp, one of another alice at team
	var sids [2]string
	begin := func() {
		for i := range browsers {
			if browsers[i] == nil || !live(t, browsers[i], i) {
				browsers[i] = s.Browser()
				browsers[i].Go([]string{"/", "/", "/team"}[i]).Received(t)
				if i < 2 {
					sids[i] = sid()
				}
			}
		}
	}
	for _, tt := range []struct {
		name  string
		token func() string
		want  [3]bool // who is signed in afterwards
	}{
		{"by sid", func() string { return s.Provider.LogoutToken("wiki", "", sids[0], nil) }, [3]bool{false, true, true}},
		{"by sub", func() string { return s.Provider.LogoutToken("wiki", "alice", "", nil) }, [3]bool{false, false, true}},
		{"by both", func() string { return s.Provider.LogoutToken("wiki", "alice", sids[1], nil) }, [3]bool{true, false, true}},
		{"by both that do not fit", func() string { return s.Provider.LogoutToken("wiki", "bob", sids[1], nil) }, [3]bool{true, true, true}},
		{"sid of another issuer", func() string { return s.Provider.LogoutToken("wiki", "", "sid-at-the-other", nil) }, [3]bool{true, true, true}},
		{"sub at the other issuer", func() string { return other.LogoutToken("wiki", "alice", "", nil) }, [3]bool{true, true, false}},
		{"signed by the other in the name of the first", func() string {
			return other.LogoutToken("wiki", "alice", "", func(_, c map[string]any) { c["iss"] = s.Provider.URL })
		}, [3]bool{true, true, true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin()
			orderLogout(t, s, tt.token())
			var got [3]bool
			for i, b := range browsers {
				got[i] = live(t, b, i)
			}
			if got != tt.want {
				t.Errorf("signed in afterwards: %v, want %v", got, tt.want)
			}
		})
	}
}

func live(t *testing.T, b *proxytest.Browser, i int) bool {
	t.Helper()
	return b.Fetch([]string{"/", "/", "/team"}[i]).StatusCode == http.StatusOK
}

// Two clients of one issuer: the audience tells whose token it is.
func TestBackChannelLogoutTellsClientsOfOneIssuerApart(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
  shop: {issuer: "${ISSUER}", client_id: shop, client_secret: canary-client-secret}
routes:
  - {path: /, upstream: "${UPSTREAM}", provider: corp, access: signed_in}
  - {path: /shop, upstream: "${UPSTREAM}", provider: shop, access: signed_in}
`})
	s.Provider.AddClient(idptest.Client{ID: "shop", Secret: "canary-client-secret", RedirectURIs: []string{s.URL + "/oauth2/callback"}})
	b := s.Browser()
	b.Go("/").Received(t)
	b.Go("/shop").Received(t)
	wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("shop", "alice", "", nil)), http.StatusOK)
	if wiki, shop := b.Fetch("/").StatusCode, b.Fetch("/shop").StatusCode; wiki != http.StatusOK || shop != http.StatusUnauthorized {
		t.Errorf("wiki %d, shop %d", wiki, shop)
	}
	wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("stranger", "alice", "", nil)), http.StatusBadRequest)
}

// A token that comes late ends no newer sign-in.
func TestLateLogoutTokenSparesNewerSignIns(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.MutateIDToken(func(_, claims map[string]any) { claims["sid"] = "the-same-sid" })
	old := s.Browser()
	old.Go("/").Received(t)
	s.Clock.Add(10 * time.Second)
	bySub, bySID := s.Provider.LogoutToken("wiki", "alice", "", nil), s.Provider.LogoutToken("wiki", "", "the-same-sid", nil)
	s.Clock.Add(10 * time.Second)
	newer := s.Browser()
	newer.Go("/").Received(t)
	wantOrder(t, orderLogout(t, s, bySub), http.StatusOK)
	wantOrder(t, orderLogout(t, s, bySID), http.StatusOK)
	if isSignedIn(t, old) || !isSignedIn(t, newer) {
		t.Error("want the older session alone to be over")
	}
}

// A refresh does not make an old sign-in a newer one.
func TestLateLogoutTokenEndsRefreshedSessions(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/").Received(t)
	token := s.Provider.LogoutToken("wiki", "alice", "", nil)
	s.Clock.Add(61 * time.Second)
	b.Fetch("/").Received(t)
	if s.Provider.Calls(idptest.Token) != 2 {
		t.Fatal("there was no refresh")
	}
	wantOrder(t, orderLogout(t, s, token), http.StatusOK)
	if isSignedIn(t, b) {
		t.Error("the session lives")
	}
}

// A11, A87: what is no such request is refused before anything is verified.
func TestA87_OtherRequestsThanLogoutTokensAreRefused(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	token := s.Provider.LogoutToken("wiki", "alice", "", nil)
	big := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, body string
		header     map[string]string
		status     int
	}{
		{"GET", "", map[string]string{"method": "GET"}, http.StatusMethodNotAllowed},
		{"HEAD", "", map[string]string{"method": "HEAD"}, http.StatusMethodNotAllowed},
		{"PUT", "logout_token=" + token, map[string]string{"method": "PUT"}, http.StatusMethodNotAllowed},
		{"OPTIONS", "", map[string]string{"method": "OPTIONS"}, http.StatusMethodNotAllowed},
		{"JSON", `{"logout_token":"` + token + `"}`, map[string]string{"Content-Type": "application/json"}, http.StatusBadRequest},
		{"plain text", "logout_token=" + token, map[string]string{"Content-Type": "text/plain"}, http.StatusBadRequest},
		{"no type", "logout_token=" + token, map[string]string{"Content-Type": ""}, http.StatusBadRequest},
		{"empty", "", nil, http.StatusBadRequest},
		{"without a token", "other=" + token, nil, http.StatusBadRequest},
		{"empty token", "logout_token=", nil, http.StatusBadRequest},
		{"A11 two tokens", "logout_token=" + token + "&logout_token=" + token, nil, http.StatusBadRequest},
		{"A11 two tokens, one empty", "logout_token=" + token + "&logout_token=", nil, http.StatusBadRequest},
		{"broken escape", "logout_token=" + token + "&x=%zz", nil, http.StatusBadRequest},
		{"semicolon", "logout_token=" + token + ";x=y", nil, http.StatusBadRequest},
		{"1 MB token", "logout_token=" + big, nil, http.StatusRequestEntityTooLarge},
		{"1 MB beside it", "logout_token=" + token + "&x=" + big, nil, http.StatusRequestEntityTooLarge},
		{"16 KiB token", "logout_token=" + big[:16<<10+1], nil, http.StatusBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := orderLogoutWith(t, s, tt.body, tt.header)
			if a.StatusCode != tt.status || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("got %s %v, want %d", a.Status, a.Header, tt.status)
			}
			if tt.status == http.StatusMethodNotAllowed && a.Header.Get("Allow") != "POST" {
				t.Errorf("Allow: %q", a.Header.Get("Allow"))
			}
		})
	}
	// A token in the address would be in logs.
	if a := s.Browser().Do("POST", backChannel+"?logout_token="+token, strings.NewReader(""), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}); a.StatusCode != http.StatusBadRequest {
		t.Errorf("in the query: %s", a.Status)
	}
	if !isSignedIn(t, b) {
		t.Error("the session ended")
	}
	if strings.Contains(s.Log.String(), token) {
		t.Error("the token is in the log")
	}
}

// A87: a flood of forged tokens is cut short by a limit, costs the provider next to nothing, and hinders nobody else. Good tokens are
// never limited: a provider may sign out many people at once.
func TestA87_FloodOfForgedLogoutTokens(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, `server: {`, `server: {trusted_proxies: [127.0.0.0/8], `, 1)})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Clock.Stop()
	keys := s.Provider.Calls(idptest.JWKS)
	from := func(address, token string) int {
		return orderLogoutWith(t, s, "logout_token="+token, map[string]string{"X-Forwarded-For": address}).StatusCode
	}
	statuses := map[int]int{}
	for i := range 1000 {
		statuses[from("192.0.2.7", s.Provider.LogoutToken("wiki", "alice", "", func(header, _ map[string]any) { header["kid"] = fmt.Sprint("forged ", i) }))]++
	}
	if statuses[http.StatusTooManyRequests] < 500 || statuses[http.StatusBadRequest] < 200 || statuses[http.StatusBadRequest]+statuses[http.StatusTooManyRequests] != 1000 {
		t.Errorf("statuses %v", statuses)
	}
	if n := s.Provider.Calls(idptest.JWKS) - keys; n > 3 {
		t.Errorf("the provider's keys were fetched %d times", n)
	}
	good := s.Provider.LogoutToken("wiki", "alice", "", nil)
	a := orderLogoutWith(t, s, "logout_token="+good, map[string]string{"X-Forwarded-For": "192.0.2.8"}) // the same network
	if a.StatusCode != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" || !isSignedIn(t, b) {
		t.Errorf("from the same network: %s", a.Status)
	}
	if status := from("198.51.100.7", good); status != http.StatusOK || isSignedIn(t, b) {
		t.Errorf("from another network: %d", status)
	}
	s.Clock.Add(20 * time.Second)
	if status := from("192.0.2.7", s.Provider.LogoutToken("wiki", "alice", "", nil)); status != http.StatusOK {
		t.Errorf("from the same network later: %d", status)
	}
	for range 300 {
		if status := from("198.51.100.7", s.Provider.LogoutToken("wiki", "alice", "", nil)); status != http.StatusOK {
			t.Fatalf("the provider is limited: %d", status)
		}
	}
}

// Keys that cannot be had say nothing about a token: 400, and the repeat is carried out.
func TestBackChannelLogoutWhileTheProviderIsDown(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/").Received(t)
	s.Provider.RotateKeys(false)
	token := s.Provider.LogoutToken("wiki", "alice", "", nil)
	s.Provider.Fail(idptest.JWKS, 503, -1)
	wantOrder(t, orderLogout(t, s, token), http.StatusBadRequest)
	if !strings.Contains(s.Log.String(), `"reason":"provider_unavailable"`) {
		t.Error("the log does not say why")
	}
	s.Provider.Heal(idptest.JWKS)
	s.Clock.Add(11 * time.Second)
	wantOrder(t, orderLogout(t, s, token), http.StatusOK)
	if isSignedIn(t, b) {
		t.Error("the session lives")
	}
}

// S39: tokens of a session that the provider ended are revoked, unless it had granted offline access.
func TestS39_BackChannelLogoutRevokesRefreshTokens(t *testing.T) {
	for _, tt := range []struct {
		name, scopes, session string
		known                 bool // to this process, before the order comes
		revoked               bool // at once
		later                 bool // when the cookie comes
	}{
		{"of a session that is known here", "[openid]", "", true, true, true},
		{"when the cookie comes", "[openid]", "", false, false, true},
		{"at once", "[openid]", ", revoke_without_cookie: true", false, true, true},
		{"offline access", "[openid, offline_access]", ", revoke_without_cookie: true", false, false, false},
		{"offline access, known here", "[openid, offline_access]", "", true, false, false},
		{"offline access, when the cookie comes", "[openid, offline_access]", "", false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := proxytest.Options{Env: map[string]string{"KEY": seal.NewKey()}, Config: `
server: {listen: "${LISTEN}"}
session: {keys: ["${KEY}"]` + tt.session + `}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret, scopes: ` + tt.scopes + `}
routes:
  - upstream: ${UPSTREAM}
`}
			s := proxytest.New(t, o)
			b := s.Browser()
			b.Go("/").Received(t)
			if !tt.known {
				s.Restart(o)
				b = b.At(s)
			}
			wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", "", nil)), http.StatusOK)
			if tt.revoked {
				proxytest.Eventually(t, func() bool { return s.Provider.Calls(idptest.Revoke) > 0 })
			} else if n := s.Provider.Calls(idptest.Revoke); n > 0 && !tt.later { // a replica that has the session in its cache need not wait
				t.Errorf("%d calls to revoke", n)
			}
			if isSignedIn(t, b) {
				t.Error("the session lives")
			}
			s.Stop() // waits for what was begun
			if got := s.Provider.Calls(idptest.Revoke) > 0; got != tt.later {
				t.Errorf("revoked in the end: %v, want %v", got, tt.later)
			}
		})
	}
}
