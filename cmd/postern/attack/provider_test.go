//go:build attack

package attack_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

// short makes tokens that are soon over: a refresh is due after two thirds of their life, and after that life nobody is let through without one.
const short = 2 * time.Second

// replica is one more program with the same configuration. The world's own is still w.process.
func (w *world) replica() *world {
	w.t.Helper()
	other := *w
	other.listen, other.admin = proctest.Address(proctest.FreePort(w.t)), proctest.Address(proctest.FreePort(w.t))
	other.transport = other.roundTripper()
	other.start()
	return &other
}

// at is the browser at another replica, with the same jar.
func (b *browser) at(w *world) *browser { return &browser{w: w, jar: b.jar} }

// expired signs in with tokens of a short life and waits until they are over.
func (w *world) expired() *browser {
	w.t.Helper()
	w.provider.SetTokenTTL(short)
	b := w.browser()
	b.signIn("/")
	at := time.Now().Add(short + 100*time.Millisecond)
	w.provider.SetTokenTTL(time.Hour)
	proctest.Passes(w.t, at)
	w.app.forget()
	return b
}

// refreshes are the requests of refresh that the provider got, by their token.
func (w *world) refreshes() (tokens []string) {
	for _, r := range w.provider.TokenRequests() {
		if r.Form.Get("grant_type") == "refresh_token" {
			tokens = append(tokens, r.Form.Get("refresh_token"))
		}
	}
	return tokens
}

func TestA160_ProviderDownAtStart(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.provider.Down()
	w.restartUnready()
	if p := w.browser().navigate("/x"); p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" || len(p.header.Values("Set-Cookie")) > 0 {
		t.Errorf("sign-in without provider: %d %v", p.status, p.header)
	}
	if p := b.navigate("/x"); p.status != http.StatusOK {
		t.Errorf("a session that was there: %d", p.status)
	}
	if p := w.browser().navigate("/public/"); p.status != http.StatusOK {
		t.Errorf("a public page: %d", p.status)
	}
	if status, _, err := w.askAdmin("/readyz?strict=1"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("ready: %d, %v", status, err)
	}
	w.provider.Up()
	proctest.Eventually(t, "sign-in works by itself", func() error {
		if p := w.browser().navigate("/x"); p.status != http.StatusSeeOther {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	w.browser().signIn("/x")
}

func TestA161_ProviderThatHangs(t *testing.T) {
	attack(t)
	for _, endpoint := range []string{idptest.Token, idptest.Userinfo, idptest.JWKS} {
		t.Run(endpoint, func(t *testing.T) {
			w := newWorld(t, settings{provider: withUserinfo + ", timeout: 1s"})
			signedIn := w.browser()
			signedIn.signIn("/")
			if endpoint == idptest.JWKS {
				w.provider.RotateKeys(false)
			}
			w.app.forget()
			w.provider.Hang(endpoint)
			const many = 40
			callbacks, browsers := make([]string, many), make([]*browser, many)
			for i := range many {
				browsers[i] = w.browser()
				callbacks[i] = browsers[i].callback("/").String()
			}
			began := time.Now()
			var all sync.WaitGroup
			for i := range many {
				all.Go(func() {
					if p := browsers[i].navigate(callbacks[i]); p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" || browsers[i].session() != "" {
						t.Errorf("%d %s", p.status, p.body)
					}
				})
			}
			for range 20 {
				one := time.Now()
				if status := w.presents(signedIn.session()); status != http.StatusOK || time.Since(one) > 5*time.Second {
					t.Errorf("others get %d after %v", status, time.Since(one))
				}
			}
			all.Wait()
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			w.provider.Heal(endpoint)
			proctest.Eventually(t, "sign-in works again", func() error {
				if p := w.browser().open("/"); p.status != http.StatusOK {
					return fmt.Errorf("%d", p.status)
				}
				return nil
			})
		})
	}
}

func TestA162_HugeAnswers(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo + ", timeout: 2s"})
	before := w.memory("VmRSS")
	chunk := strings.Repeat(" ", 64<<10)
	endless := func(rw http.ResponseWriter, r *http.Request) bool {
		rw.Header().Set("Content-Type", "application/json")
		for range 1 << 14 { // a gibibyte, if somebody reads it
			if _, err := rw.Write([]byte(chunk)); err != nil {
				return true
			}
		}
		return true
	}
	drip := func(rw http.ResponseWriter, r *http.Request) bool {
		rw.Header().Set("Content-Type", "application/json")
		for {
			_, _ = rw.Write([]byte(" "))
			rw.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return true
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	headers := func(rw http.ResponseWriter, r *http.Request) bool {
		rw.Header().Set("X-Pad", strings.Repeat("x", 1<<20))
		return false
	}
	for name, hook := range map[string]func(http.ResponseWriter, *http.Request) bool{"endless": endless, "drip": drip, "headers": headers} {
		for _, endpoint := range []string{idptest.Token, idptest.Userinfo} {
			t.Run(name+" "+endpoint, func(t *testing.T) {
				w := w.in(t)
				b := w.browser()
				callback := b.callback("/").String()
				w.provider.On(endpoint, hook)
				began := time.Now()
				b.refused(b.navigate(callback), http.StatusBadGateway, http.StatusServiceUnavailable)
				if took := time.Since(began); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				w.provider.Heal(endpoint)
			})
		}
	}
	for _, endpoint := range []string{idptest.Discovery, idptest.JWKS} {
		t.Run("endless "+endpoint, func(t *testing.T) {
			w := w.in(t)
			w.provider.On(endpoint, endless)
			defer w.provider.Heal(endpoint)
			fresh := newWorldUnready(w)
			if p := fresh.browser().open("/"); p.status != http.StatusServiceUnavailable && p.status != http.StatusBadGateway {
				t.Errorf("%d", p.status)
			}
			if fresh.memory("VmRSS") > before+64<<20 {
				t.Errorf("the program has %d bytes", fresh.memory("VmRSS"))
			}
		})
	}
	if grown := w.memory("VmRSS") - before; grown > 64<<20 {
		t.Errorf("the program grew by %d bytes", grown)
	}
	w.browser().signIn("/")
}

// newWorldUnready is one more program with the configuration of w, which does not wait for the provider.
func newWorldUnready(w *world) *world {
	w.t.Helper()
	other := *w
	other.listen, other.admin = proctest.Address(proctest.FreePort(w.t)), proctest.Address(proctest.FreePort(w.t))
	other.transport = other.roundTripper()
	other.startUnready()
	return &other
}

func TestA163_StormsOfUnknownKeys(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "trusted_proxies: [127.0.0.1]"})
	w.browser().signIn("/")
	jwks := w.calls(idptest.JWKS)
	began := time.Now()
	w.provider.SetSigning(idptest.Signing{Foreign: true})
	forged := w.provider.LogoutToken("wiki", "alice", "", nil)
	unknown := w.provider.LogoutToken("wiki", "alice", "", func(h header, _ claims) { h["kid"] = "unknown" })
	w.provider.SetSigning(idptest.Signing{})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 125 { // from many addresses, each with its own allowance
				w.order("logout_token="+[]string{forged, unknown}[j%2], fmt.Sprintf("X-Forwarded-For: 192.0.%d.%d", i, j))
			}
		})
	}
	all.Wait()
	if n := jwks(); n > 1+int(time.Since(began)/(10*time.Second))+1 {
		t.Errorf("%d fetches of keys in %v", n, time.Since(began))
	}
	w.browser().signIn("/") // known keys still verify
	w.order("logout_token="+w.provider.LogoutToken("wiki", "alice", "", nil)).is(t, http.StatusOK)
}

// That a withdrawn key goes within the hour is held by tests in proxy/idp, whose clock can be set.
func TestA164_KeysThatChange(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: withUserinfo})
	w.tokenAccepted()
	for _, keep := range []bool{true, false, false} {
		w.provider.RotateKeys(keep)
		w.tokenAccepted()
	}
	if n := w.provider.Calls(idptest.JWKS); n != 4 {
		t.Errorf("%d fetches of keys, want 4", n)
	}
	// A key under the name of another one.
	old := w.jwks()
	w.provider.RotateKeys(false)
	renamed := strings.Replace(w.jwks(), kid(t, w.jwks()), kid(t, old), 1)
	w.provider.AnswerWith(idptest.JWKS, -1, idptest.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: renamed})
	w.provider.MutateIDToken(func(h header, _ claims) { h["kid"] = kid(t, old) })
	w.tokenAccepted()
	w.provider.Heal(idptest.JWKS)
	w.provider.MutateIDToken(nil)
	// What the withdrawn keys sign is refused.
	w.provider.SetSigning(idptest.Signing{Foreign: true})
	w.tokenRefused()
}

// jwks is the provider's key set, fetched without counting as a call.
func (w *world) jwks() string {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.provider.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/jwks", nil))
	return rec.Body.String()
}

func kid(t *testing.T, jwks string) string {
	t.Helper()
	_, after, ok := strings.Cut(jwks, `"kid":"`)
	id, _, _ := strings.Cut(after, `"`)
	if !ok {
		t.Fatal(jwks)
	}
	return id
}

func TestA165_RefreshOfManyAtOnce(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	replicas := []*world{w, w.replica(), w.replica()}
	b := w.expired()
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if p := b.at(replicas[i%3]).fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
				t.Errorf("%d %s", p.status, p.body)
			}
		})
	}
	all.Wait()
	if n := len(w.refreshes()); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	bearers := map[string]bool{}
	for _, r := range w.app.received() {
		bearers[r.Header.Get("Authorization")] = true
	}
	if len(bearers) != 1 || w.provider.RefreshReuses() != 0 {
		t.Errorf("%d access tokens, %d reuses", len(bearers), w.provider.RefreshReuses())
	}
}

// That the second send comes when the holder's lease has run out is held by tests in session and by `make chaos`; the lease is some 15 seconds.
func TestA166_HolderOfARefreshDies(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: "timeout: 1s"})
	other := w.replica()
	b := w.expired()
	gate := w.provider.Gate(idptest.Token)
	var waiting sync.WaitGroup
	waiting.Go(func() { // its answer never comes
		c := w.dial()
		c.send(w.get("/x", b.cookies())).answer("GET")
	})
	<-gate.Arrived()
	w.process.Kill()
	gate.Open()
	waiting.Wait()
	began := time.Now()
	proctest.Eventually(t, "the session is clear", func() error {
		switch p := b.at(other).fetch(http.MethodGet, "/x", ""); p.status {
		case http.StatusOK, http.StatusUnauthorized:
			return nil
		default:
			return fmt.Errorf("%d after %v", p.status, time.Since(began))
		}
	})
	if n := len(w.refreshes()); n > 2 {
		t.Errorf("the token was sent %d times", n)
	}
	if p := b.at(other).open("/x"); p.status != http.StatusOK {
		t.Errorf("the person ends at %d", p.status)
	}
	w.start()
}

func TestA167_RefusedRefresh(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.expired()
	w.provider.FailOAuth(idptest.Token, http.StatusBadRequest, "invalid_grant", 1)
	script := b.fetch(http.MethodGet, "/x", "")
	if script.status != http.StatusUnauthorized || !strings.Contains(script.body, "refresh_rejected") {
		t.Errorf("a script gets %d %s", script.status, script.body)
	}
	for range 5 {
		if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
			t.Errorf("again: %d", p.status)
		}
	}
	w.app.none(t)
	if n := len(w.refreshes()); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 4 {
		t.Errorf("the person's way in: %d %q", p.status, b.trail)
	}
}

func TestA168_RefreshThatFailsForNow(t *testing.T) {
	attack(t)
	for name, fault := range map[string]func(p *idptest.Server){
		"500":           func(p *idptest.Server) { p.Fail(idptest.Token, 500, -1) },
		"429":           func(p *idptest.Server) { p.Fail(idptest.Token, 429, -1, "Retry-After", "3") },
		"503":           func(p *idptest.Server) { p.Fail(idptest.Token, 503, -1, "Retry-After", "2") },
		"cut":           func(p *idptest.Server) { p.DropConnection(idptest.Token, -1) },
		"down":          func(p *idptest.Server) { p.Down() },
		"hang":          func(p *idptest.Server) { p.Hang(idptest.Token) },
		"no JSON":       func(p *idptest.Server) { p.AnswerWith(idptest.Token, -1, idptest.Answer{Status: 200, Body: "<html>"}) },
		"wrong secret":  func(p *idptest.Server) { p.FailOAuth(idptest.Token, 401, "invalid_client", -1) },
		"server_error":  func(p *idptest.Server) { p.FailOAuth(idptest.Token, 400, "server_error", -1) },
		"a redirect":    func(p *idptest.Server) { p.Fail(idptest.Token, 307, -1, "Location", "https://evil.example.net/token") },
		"unavailable":   func(p *idptest.Server) { p.FailOAuth(idptest.Token, 400, "temporarily_unavailable", -1) },
		"a proxy's 502": func(p *idptest.Server) { p.Fail(idptest.Token, 502, -1) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{provider: "timeout: 1s"})
			b := w.expired()
			fault(w.provider)
			for range 4 {
				p := b.navigate("/x")
				if p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" || len(p.header.Values("Set-Cookie")) > 0 || b.session() == "" {
					t.Errorf("%d %v", p.status, p.header)
				}
			}
			w.app.none(t)
			if n := len(w.refreshes()); n > 2 {
				t.Errorf("the token was sent %d times", n)
			}
			w.provider.Heal(idptest.Token)
			w.provider.Up()
			if name == "500" || name == "429" { // the others take as long; the pauses are held by tests in session
				proctest.Eventually(t, "the session goes on", func() error {
					if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
						return fmt.Errorf("%d", p.status)
					}
					return nil
				})
			}
		})
	}
}

func TestA169_OddAnswersToARefresh(t *testing.T) {
	attack(t)
	for name, tt := range map[string]struct {
		change func(a map[string]any)
		token  func(header, claims)
		status int
	}{
		"no refresh token": {change: func(a map[string]any) { delete(a, "refresh_token") }, status: 200}, "no ID token": {change: func(a map[string]any) { delete(a, "id_token") }, status: 200}, "another person": {token: set("sub", "mallory"), status: 401},
		"another issuer": {token: set("iss", "https://evil.example.net"), status: 401}, "another client": {token: set("aud", "shop"), status: 401}, "narrower scope": {change: func(a map[string]any) { a["scope"] = "openid" }, status: 200}, "as it should be": {status: 200},
		"ID token of nobody": {token: set("sub", nil), status: 401}, "another audience beside": {token: set("aud", []string{"wiki", "shop"}), status: 401}, "expired ID token": {token: func(_ header, c claims) { c["exp"] = 1000 }, status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings{})
			b := w.browser()
			b.signIn("/")
			w.app.forget()
			old := w.provider.TokenRequests()
			var access string
			w.provider.MutateTokenAnswer(func(a map[string]any) {
				if tt.change != nil {
					tt.change(a)
				}
				access, _ = a["access_token"].(string)
			})
			w.provider.MutateIDToken(tt.token)
			if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != tt.status {
				t.Errorf("%d %s", p.status, p.body)
			}
			if p := b.fetch(http.MethodGet, "/x", ""); p.status != tt.status {
				t.Errorf("afterwards %d", p.status)
			}
			if tt.status != 200 {
				w.app.none(t)
				return
			}
			got := w.app.one(t)
			if got.Header.Get("Authorization") != "Bearer "+access || strings.Join(got.folded("X-Forwarded-User"), "|") != "alice" {
				t.Errorf("the application gets %q", got.raw)
			}
			if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); name != "no refresh token" && p.status != 200 {
				t.Errorf("the second refresh: %d", p.status)
			}
			if sent := w.refreshes(); len(sent) < 2 || (sent[0] == sent[1]) != (name == "no refresh token") || len(old) != 1 {
				t.Errorf("sent %d tokens", len(sent))
			}
		})
	}
}

func TestA170_AnswerToARefreshIsLost(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{provider: "timeout: 1s"})
	b := w.expired()
	w.provider.DropConnectionAfterProcessing(idptest.Token, 1)
	if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusServiceUnavailable {
		t.Errorf("%d", p.status)
	}
	proctest.Eventually(t, "the session is over", func() error {
		if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	w.app.none(t)
	if n := len(w.refreshes()); n != 2 {
		t.Errorf("%d refreshes, want 2", n)
	}
	if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 4 {
		t.Errorf("the way in: %d %q", p.status, b.trail)
	}
}

func TestA171_DisabledPeopleGo(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.expired()
	w.provider.RevokeUser("alice")
	began := time.Now()
	if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
		t.Errorf("%d %v after the token's end", p.status, time.Since(began))
	}
	w.app.none(t)
	// Nor do they come back.
	w.provider.RefuseSignIn("access_denied", "")
	if p := b.open("/x"); p.status != http.StatusForbidden || b.sharing().signedIn() {
		t.Errorf("%d", p.status)
	}
	w.app.none(t)
}

func TestA172_GroupsThatAreTakenAway(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: `
  - {path: /staff/, upstream: {app}, access: {groups: [staff]}}
  - {path: /rule/, upstream: {app}, access: {rule: '"staff" in groups'}}
  - {path: /, upstream: {app}}
`})
	b := w.browser()
	b.signIn("/staff/")
	w.provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"guests"}}})
	w.app.forget()
	if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != http.StatusOK {
		t.Fatal(p.status)
	}
	for _, path := range []string{"/staff/", "/rule/"} {
		if p := b.fetch(http.MethodGet, path, ""); p.status != http.StatusForbidden {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	w.app.none(t)
	b.navigate("/")
	if got := w.app.one(t); strings.Join(got.folded("X-Forwarded-Groups"), "|") != "guests" || len(got.folded("X-Forwarded-Email")) > 0 {
		t.Errorf("the application gets %q", got.raw)
	}
}

func TestA174_NothingProlongsTheLifetime(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{session: "lifetime: 5s, idle_timeout: 2s, refresh_before: 1s"})
	began := time.Now()
	busy, idle := w.browser(), w.browser()
	busy.signIn("/")
	idle.signIn("/")
	sawIdle := false
	proctest.Eventually(t, "the lifetime is over", func() error {
		if !sawIdle && time.Since(began) > 3*time.Second { // asking does not count as using
			if sawIdle = true; idle.signedIn() {
				t.Error("a session that nobody used for three seconds is not idle")
			}
		}
		if p := busy.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != http.StatusOK && time.Since(began) < 5*time.Second {
			t.Errorf("%d after %v", p.status, time.Since(began))
		}
		if p := busy.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
			if time.Since(began) > 8*time.Second {
				t.Fatalf("it lives after %v", time.Since(began))
			}
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	if took := time.Since(began); took < 4500*time.Millisecond {
		t.Errorf("it was over after %v", took)
	}
	proctest.Eventually(t, "Redis has forgotten", func() error {
		for _, key := range w.keys() {
			if ttl := w.redis.Client().TTL(t.Context(), key).Val(); ttl < 0 && ttl != -2 || ttl > time.Hour+12*time.Hour {
				t.Errorf("%s lives for %v", key, ttl)
			}
		}
		return nil
	})
}

func TestA175_EndsReachAllReplicas(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	other := w.replica()
	for range 10 {
		b := w.browser()
		b.signIn("/")
		copied := b.sharing()
		for _, at := range []*world{w, other} { // it is in the memory of both
			if p := copied.at(at).fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
				t.Fatal(p.status)
			}
		}
		b.post("/oauth2/logout", nil)
		began := time.Now()
		proctest.Eventually(t, "the end is known everywhere", func() error {
			if p := copied.at(other).fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
				return fmt.Errorf("%d", p.status)
			}
			return nil
		})
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
		if p := copied.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
			t.Errorf("where it was ended: %d", p.status)
		}
	}
}

func TestA176_EndDuringARefresh(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for range 5 {
		b := w.browser()
		b.signIn("/")
		value := b.session()
		copied := b.sharing()
		gate := w.provider.Gate(idptest.Token)
		var refreshing sync.WaitGroup
		refreshing.Go(func() { copied.fetch(http.MethodPost, "/oauth2/session/refresh", "") })
		<-gate.Arrived()
		b.post("/oauth2/logout", nil)
		gate.Open()
		refreshing.Wait()
		for range 3 {
			if status := w.presents(value); status != http.StatusUnauthorized {
				t.Errorf("the session is back: %d", status)
			}
		}
	}
}

func TestA177_TwoSignInsOfOneBrowser(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	for range 5 {
		b := w.browser()
		one, two := b.callback("/one").String(), b.callback("/two").String()
		var all sync.WaitGroup
		for _, address := range []string{one, two} {
			all.Go(func() {
				if p := b.navigate(address); p.status != http.StatusSeeOther || !slices.Contains([]string{"/one", "/two"}, p.header.Get("Location")) {
					t.Errorf("%d %s", p.status, p.header.Get("Location"))
				}
			})
		}
		all.Wait()
		if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 1 {
			t.Errorf("%d %q", p.status, b.trail)
		}
	}
}
