//go:build e2e

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postern/session/redistest"
)

// minimal adapts the target file minimal.yaml and adds further lines.
func minimal(t *testing.T, idp int, app *upstream, more ...string) []byte {
	t.Helper()
	config := adapt(t, "../../../config/testdata/target/minimal.yaml", "http://127.0.0.1:9000", providerURL(idp), "client_secret: secret", "client_secret: "+clientSecret, "http://127.0.0.1:3000", app.URL)
	return append(config, []byte(strings.Join(more, "\n")+"\n")...)
}

// stored are the lines that put the sessions of minimal.yaml into Redis.
func stored(r *redistest.Server, key string) string {
	return "session:\n  keys: [" + key + "]\n  store: {redis: {url: " + r.URL() + "}}"
}

// TestMinimal is a whole visit with minimal.yaml: sign in, work while tokens are refreshed, sign out.
func TestMinimal(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	p := newPostern(t, minimal(t, idpPort, app), port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 9 * time.Second})
	p.start(t)
	p.ready(t)
	b := startBrowser(t, nil)

	// The person comes back to the very page that was asked for.
	page := p.origin + "/wiki/page%20one?x=1%7C2&y=%C3%A4"
	b.open(page)
	if at := origin(t, b.location()); at != idp.url {
		t.Fatalf("without a session the browser is at %s, not at the provider", at)
	}
	b.screenshot("provider")
	b.signIn("alice")
	saw := b.seen()
	if at := b.location(); at != page {
		t.Errorf("after signing in the browser is at %s, want %s", at, page)
	}
	b.screenshot("application")
	if want := strings.TrimPrefix(page, p.origin); saw.Target != want {
		t.Errorf("the application sees the target %s, want %s", saw.Target, want)
	}
	hasIdentity(t, saw, "alice", idp.last(t).AccessToken)
	if c := saw.Headers.Get("Cookie"); strings.Contains(c, "postern") {
		t.Errorf("the application sees our cookie: %s", c)
	}
	if len(b.cookies(p.origin)) != 1 {
		t.Errorf("after signing in the browser has the cookies %v, want the session's alone", b.cookies(p.origin))
	}
	session := b.cookie(p.origin, "postern")
	if !session.HttpOnly || session.SameSite != http.SameSiteLaxMode || session.Path != "/" {
		t.Errorf("the session cookie is %v", session)
	}

	t.Run("session", func(t *testing.T) {
		b := b.in(t)
		resp := get(t, p.origin+"/oauth2/session", session)
		var info map[string]any
		if err := json.Unmarshal([]byte(resp.body), &info); err != nil {
			t.Fatalf("%s: %v", resp.body, err)
		}
		if info["user"] != "alice" || info["email"] != "alice@people.example" || info["name"] != "Alice Liddell" {
			t.Errorf("session is %s", resp.body)
		}
		secrets.Search(t, "the session's JSON", resp.body)
		b.click("#session")
		b.sees("dl")
		b.screenshot("session")
		secrets.Search(t, "the session's page", b.page())
		b.open(page)
	})

	t.Run("spoofed headers", func(t *testing.T) {
		resp := get(t, p.origin+"/wiki/", session, "X-Forwarded-User", "root", "X_Forwarded_User", "root", "x.forwarded.user", "root",
			"X-Forwarded-Groups", "admins", "Connection", "Authorization, X-Forwarded-User", "Authorization", "Bearer stolen")
		saw := resp.seen(t)
		hasIdentity(t, saw, "alice", idp.last(t).AccessToken)
		for name := range saw.Headers {
			plain := strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
			if plain == "x-forwarded-user" && name != "X-Forwarded-User" {
				t.Errorf("the application sees %s: %q", name, saw.Headers[name])
			}
		}
	})

	t.Run("untrusted forwarder", func(t *testing.T) {
		saw := get(t, p.origin+"/wiki/", session, "X-Forwarded-For", "203.0.113.7", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https",
			"Forwarded", "for=203.0.113.7;host=evil.example").seen(t)
		for name, values := range saw.Headers {
			if text := strings.Join(values, " "); strings.Contains(text, "203.0.113.7") || strings.Contains(text, "evil.example") {
				t.Errorf("the application sees %s: %s", name, text)
			}
		}
		for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http"} {
			if got := saw.Headers.Get(name); got != want {
				t.Errorf("the application sees %s: %q, want %q", name, got, want)
			}
		}
	})

	t.Run("program without a session", func(t *testing.T) {
		resp := get(t, p.origin+"/wiki/", nil)
		if resp.status != http.StatusUnauthorized || resp.header.Get("WWW-Authenticate") == "" || len(resp.header["Set-Cookie"]) > 0 {
			t.Errorf("answer is %d %v", resp.status, resp.header)
		}
		if got := resp.header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("the answer's type is %s", got)
		}
		if !strings.Contains(resp.body, p.origin+"/oauth2/start") {
			t.Errorf("the answer does not name the login URL: %s", resp.body)
		}
	})

	t.Run("refresh while clicking", func(t *testing.T) {
		b := b.in(t)
		first := idp.last(t).AccessToken
		tokens := map[string]bool{}
		eventually(t, "two refreshes", func() error {
			saw := b.next()
			token := bearer(saw)
			if !slices.ContainsFunc(idp.tokenAnswers(), func(a tokenAnswer) bool { return a.AccessToken == token }) {
				t.Fatalf("the application sees %q, which the provider did not issue", token)
			}
			tokens[token] = true
			if len(tokens) < 3 {
				return errNotYet
			}
			return nil
		})
		if got := idp.last(t).AccessToken; got == first {
			t.Error("the token is still the first one")
		}
		for _, a := range idp.tokenAnswers() {
			if a.Status != http.StatusOK {
				t.Errorf("the provider refused a %s grant: %s %s", a.Grant, a.Error, a.Description)
			}
		}
	})

	t.Run("stale callback", func(t *testing.T) {
		// The address of a callback in the browser's history, with a live session, leads on to the application.
		b := b.in(t)
		b.open(p.origin + "/oauth2/callback?code=old&state=old")
		b.sees("#seen")
		stranger := b.another()
		if status := stranger.open(p.origin + "/oauth2/callback?code=old&state=old"); status != http.StatusBadRequest {
			t.Errorf("without a session it is answered with %d", status)
		}
		stranger.screenshot("stray-callback")
	})

	t.Run("cancelled at the provider", func(t *testing.T) {
		stranger := b.in(t).another()
		stranger.open(page)
		stranger.click(`a[href$="/abort"]`)
		stranger.arrives(p.origin + "/oauth2/callback?")
		stranger.screenshot("cancelled")
		if link := `main a[href*="/oauth2/start?"]`; !strings.Contains(stranger.page(), "not signed in") {
			t.Errorf("the page says %s", stranger.page())
		} else {
			stranger.click(link) // it leads to the provider, once a person says so
		}
		stranger.arrives(idp.url)
	})

	t.Run("sign out", func(t *testing.T) {
		b := b.in(t)
		b.open(p.origin + "/oauth2/logout") // typed, so it asks first
		b.sees(`main form button`)
		b.screenshot("confirm-sign-out")
		b.open(page)
		b.click("#out") // a click on a page of ours does not ask
		b.sees(`button[name=logout]`)
		if at := origin(t, b.location()); at != idp.url {
			t.Fatalf("signing out leads to %s, not to the provider", at)
		}
		b.screenshot("provider-sign-out")
		b.signOutAtProvider()
		b.arrives(p.origin + "/oauth2/logout/callback")
		b.screenshot("signed-out")
		if cookies := b.cookies(p.origin); len(cookies) != 0 {
			t.Errorf("after signing out the browser has the cookies %v", cookies)
		}
		if resp := get(t, p.origin+"/wiki/", session); resp.status != http.StatusUnauthorized {
			t.Errorf("the old cookie is answered with %d", resp.status)
		}
		// The provider has forgotten the person too.
		b.open(page)
		b.sees(`input[name=login]`)
	})
}

// TestRedis keeps a session over the end of Postern and an outage of Redis, and looks at what Redis has on disk.
func TestRedis(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	r := startRedis(t, redistest.Options{})
	key := keygen(t)
	p := newPostern(t, minimal(t, idpPort, app, "  - {path: /healthz, access: public, upstream: "+app.URL+"}", stored(r, key)), port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 5 * time.Minute})
	p.start(t)
	p.ready(t)
	b := startBrowser(t, nil)
	b.open(p.origin + "/wiki/")
	b.signIn("alice")
	hasIdentity(t, b.seen(), "alice", idp.last(t).AccessToken)
	session := b.cookie(p.origin, "postern")

	// kill -9, and start again: the same session, without the provider.
	p.Kill()
	p.start(t)
	p.ready(t)
	b.open(p.origin + "/wiki/")
	hasIdentity(t, b.seen(), "alice", idp.last(t).AccessToken)
	if got := len(idp.tokenAnswers()); got != 1 {
		t.Errorf("the provider has answered %d token requests, want the sign-in's alone", got)
	}

	// Redis is away: nobody is let in for long, and nobody is signed out.
	dump := dataOf(t, r)
	r.Stop()
	secrets.Search(t, "Redis's dump", dump)
	for _, secret := range []string{"alice", "Liddell", "people.example", "wiki-users", session.Value, key} {
		if strings.Contains(strings.ToLower(dump), strings.ToLower(secret)) {
			t.Errorf("Redis's dump holds %q", secret)
		}
	}
	if !strings.Contains(dump, "postern:") {
		t.Error("Redis's dump holds nothing of ours")
	}
	eventually(t, "503 without Redis", func() error {
		resp := get(t, p.origin+"/wiki/", session)
		switch {
		case resp.status == http.StatusOK: // a copy younger than max_stale
			return errors.New("still 200")
		case resp.status != http.StatusServiceUnavailable:
			t.Fatalf("without Redis the answer is %d %v", resp.status, resp.header)
		case resp.header.Get("Retry-After") == "":
			t.Fatalf("the 503 has no Retry-After: %v", resp.header)
		case len(resp.header["Set-Cookie"]) > 0:
			t.Fatalf("the 503 sets cookies: %v", resp.header)
		}
		return nil
	})
	if status := b.open(p.origin + "/wiki/"); status != http.StatusServiceUnavailable {
		t.Errorf("the browser gets %d", status)
	}
	b.screenshot("store-unavailable")
	if resp := get(t, p.origin+"/healthz", nil); resp.status != http.StatusOK {
		t.Errorf("a public route answers %d", resp.status)
	}
	if resp := get(t, p.origin+"/wiki/", nil); resp.status != http.StatusUnauthorized {
		t.Errorf("without a cookie the answer is %d", resp.status)
	}
	// A blip of Redis leaves Postern ready, and shows.
	eventually(t, "/readyz names the store", func() error {
		status, body, err := fetch(p.admin + "/readyz")
		if err != nil || status != http.StatusOK {
			t.Fatalf("without Redis /readyz answers %d %v", status, err)
		}
		if strings.Contains(body, `"store":"ok"`) {
			return errors.New(body)
		}
		return nil
	})
	if status, _, err := fetch(p.admin + "/readyz?strict=1"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("without Redis /readyz?strict=1 answers %d %v", status, err)
	}

	// It is back: so is the session.
	r.Start()
	eventually(t, "200 with Redis again", func() error {
		resp := get(t, p.origin+"/wiki/", session)
		switch resp.status {
		case http.StatusOK:
			hasIdentity(t, resp.seen(t), "alice", idp.last(t).AccessToken)
			return nil
		case http.StatusServiceUnavailable:
			return errors.New("still 503")
		}
		t.Fatalf("the answer is %d %v", resp.status, resp.header)
		return nil
	})
	b.open(p.origin + "/wiki/")
	hasIdentity(t, b.seen(), "alice", idp.last(t).AccessToken)

	// A restart of Redis in a quiet moment leaves dead connections in the pool: nobody sees an error from them.
	r.Restart()
	for range 20 {
		if resp := get(t, p.origin+"/wiki/", session); resp.status != http.StatusOK {
			t.Fatalf("after a restart of Redis the answer is %d", resp.status)
		}
	}
}

// TestRefreshStorm sends many requests at once with an access token that has just run out, to a provider that rotates refresh
// tokens, answers slowly and revokes everything when one comes twice.
func TestRefreshStorm(t *testing.T) {
	const many = 200
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	r := startRedis(t, redistest.Options{})
	p := newPostern(t, minimal(t, idpPort, app, stored(r, keygen(t))), port, "")
	idp := startProvider(t, providerSettings{
		Port: idpPort, Origin: p.origin, AccessTokenTTL: 6 * time.Second, TokenDelay: 700 * time.Millisecond,
	})
	p.start(t)
	p.ready(t)
	b := startBrowser(t, nil)
	b.open(p.origin + "/wiki/")
	b.signIn("alice")
	b.sees("#seen")
	session := b.cookie(p.origin, "postern")

	for range 2 { // the second storm uses the token of the first
		before := idp.refreshes()
		passes(t, idp.last(t).at.Add(7*time.Second))
		var arrived sync.WaitGroup
		answers := make([]response, many)
		for i := range many {
			arrived.Go(func() { answers[i] = get(t, p.origin+"/wiki/", session) })
		}
		arrived.Wait()
		if got := idp.refreshes() - before; got != 1 {
			t.Errorf("the provider got %d refresh requests, want 1", got)
		}
		token := idp.last(t).AccessToken
		statuses := map[int]int{}
		for _, resp := range answers {
			statuses[resp.status]++
			if resp.status == http.StatusOK {
				hasIdentity(t, resp.seen(t), "alice", token)
			}
		}
		if diff := cmp.Diff(map[int]int{http.StatusOK: many}, statuses); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	}
}

// TestSignOutAtProvider signs out at the provider, which tells nobody: the next refresh finds out.
func TestSignOutAtProvider(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	p := newPostern(t, minimal(t, idpPort, app), port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 4 * time.Second})
	p.start(t)
	p.ready(t)
	b := startBrowser(t, nil)
	b.open(p.origin + "/wiki/")
	b.signIn("alice")
	b.sees("#seen")

	b.open(idp.url + "/session/end")
	b.signOutAtProvider()
	b.arrives(idp.url + "/session/end/success")
	eventually(t, "the session is over", func() error {
		b.open(p.origin + "/wiki/")
		if at := b.location(); origin(t, at) != idp.url {
			return fmt.Errorf("the browser is at %s", at)
		}
		return nil
	})
	b.sees(`input[name=login]`)
	if got := idp.refreshes(); got != 1 {
		t.Errorf("the provider got %d refresh requests, want the one that it refused", got)
	}
}

// TestSignOutWithLongToken signs out somebody whose ID token is too long for an address: a page posts it to the provider, by itself or, without
// script, by its button. That it arrives there is all that this shows: npm oidc-provider takes it only where its cookies may come along with a
// foreign form, for which browsers want https.
func TestSignOutWithLongToken(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	p := newPostern(t, minimal(t, idpPort, app), port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 5 * time.Minute})
	p.start(t)
	p.ready(t)
	first := startBrowser(t, nil)
	for b, script := range map[*browser]bool{first: true, first.another(): false} {
		b.open(p.origin + "/wiki/")
		b.signIn("carol")
		b.seen()
		session := b.cookie(p.origin, "postern")
		b.click("#session")
		b.sees("dl")
		if !script {
			b.screenshot("session-many-groups")
			b.withoutScript()
		}
		b.click(`form[action="/oauth2/logout"] button`)
		if !script {
			b.sees(`form[action="` + idp.url + `/session/end"] button`)
			b.screenshot("signing-out")
			b.click("button")
		}
		b.arrives(idp.url + "/session/end")
		if at := b.location(); at != idp.url+"/session/end" {
			t.Errorf("the browser is at %s, want the ID token in no address", at)
		}
		if resp := get(t, p.origin+"/wiki/", session); resp.status != http.StatusUnauthorized {
			t.Errorf("after signing out the session is answered with %d", resp.status)
		}
	}
}

// TestBackChannelLogout signs out at the provider, which tells one of two replicas: both refuse, and what the person's tabs hold open through
// either of them ends, a WebSocket with 1008, all in about a second. The person is not asked to come by, and a session of somebody else at the
// same provider lives on.
func TestBackChannelLogout(t *testing.T) {
	idpPort, ports := freePort(t), [2]int{freePort(t), freePort(t)}
	app := startUpstream(t)
	r := startRedis(t, redistest.Options{})
	// Nobody asks Redis again within this test: what is known here was told.
	config := minimal(t, idpPort, app, stored(r, keygen(t)), "  cache: {max_stale: 1h}")
	var replicas [2]*postern
	for i, port := range ports {
		replicas[i] = newPostern(t, config, port, "")
	}
	first := replicas[0]
	// The second replica is called: it never saw the browser.
	idp := startProvider(t, providerSettings{
		Port: idpPort, Origin: first.origin, AccessTokenTTL: 5 * time.Minute, BackChannel: replicas[1].origin + "/oauth2/logout/backchannel",
	})
	for _, p := range replicas {
		p.start(t)
		p.ready(t)
	}
	b := startBrowser(t, nil)
	b.open(first.origin + "/wiki/")
	b.signIn("alice")
	b.sees("#seen")
	other := b.another()
	other.open(first.origin + "/wiki/")
	other.signIn("bob")
	other.sees("#seen")
	alice, bob := b.cookie(first.origin, "postern"), other.cookie(first.origin, "postern")
	var tabs [2]*browser
	for i, p := range replicas { // both have the sessions in their caches
		get(t, p.origin+"/wiki/", alice).seen(t)
		get(t, p.origin+"/wiki/", bob).seen(t)
		tabs[i] = b.tab()
		tabs[i].goesLive(p.origin)
	}
	other.goesLive(first.origin)

	b.open(idp.url + "/session/end")
	began := time.Now()
	b.signOutAtProvider()
	for i, p := range replicas {
		eventually(t, fmt.Sprintf("replica %d refuses", i), func() error {
			if resp := get(t, p.origin+"/wiki/", alice); resp.status != http.StatusUnauthorized {
				return fmt.Errorf("still %d", resp.status)
			}
			return nil
		})
		// The browser's click and the provider's page are part of it.
		t.Logf("replica %d refuses %v after the click", i, time.Since(began).Round(time.Millisecond))
		if resp := get(t, p.origin+"/wiki/", alice); !strings.Contains(resp.body, "back_channel") {
			t.Errorf("replica %d says %s", i, resp.body)
		}
		get(t, p.origin+"/wiki/", bob).seen(t)
	}
	for _, tab := range tabs {
		tab.isCutOff(t, began, "signed out at the identity provider")
	}
	other.staysLive()
	b.arrives(idp.url + "/session/end/success")
	b.open(first.origin + "/wiki/")
	b.sees(`input[name=login]`)
}

// TestUserinfo takes the claims from userinfo, for a provider that keeps them out of the ID token.
func TestUserinfo(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	config := minimal(t, idpPort, app)
	config = []byte(strings.Replace(string(config), "client_id: wiki", "client_id: wiki\n    identity: userinfo", 1))
	p := newPostern(t, config, port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, UserinfoOnly: true})
	p.start(t)
	p.ready(t)
	b := startBrowser(t, nil)
	b.open(p.origin + "/wiki/")
	b.signIn("bob")
	hasIdentity(t, b.seen(), "bob", idp.last(t).AccessToken)
}

// TestProviderDown starts Postern before its provider: only signing in waits, and it heals by itself.
func TestProviderDown(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	r := startRedis(t, redistest.Options{})
	config := minimal(t, idpPort, app, "  - {path: /healthz, access: public, upstream: "+app.URL+"}", stored(r, keygen(t)))
	p := newPostern(t, config, port, "")
	p.start(t)
	b := startBrowser(t, nil)
	if status := b.open(p.origin + "/wiki/"); status != http.StatusServiceUnavailable {
		t.Errorf("without a provider the browser gets %d", status)
	}
	b.screenshot("provider-down")
	if resp := get(t, p.origin+"/healthz", nil); resp.status != http.StatusOK {
		t.Errorf("without a provider a public route answers %d", resp.status)
	}

	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 5 * time.Minute})
	eventually(t, "sign-in works", func() error {
		if status := b.open(p.origin + "/wiki/"); status != http.StatusOK {
			return fmt.Errorf("the browser gets %d", status)
		}
		return nil
	})
	b.signIn("alice")
	hasIdentity(t, b.seen(), "alice", idp.last(t).AccessToken)

	// A live session does not need the provider, not even after a restart.
	idp.Kill()
	p.Kill()
	p.start(t)
	eventually(t, "the session is served without a provider", func() error {
		if status := b.open(p.origin + "/wiki/"); status != http.StatusOK {
			return fmt.Errorf("the browser gets %d", status)
		}
		return nil
	})
	b.seen()
}

// hasIdentity checks what the application is told of a person.
func hasIdentity(t *testing.T, saw seen, user, token string) {
	t.Helper()
	groups := map[string]string{"alice": "wiki-users,staff", "bob": "visitors"}
	want := map[string][]string{
		"Authorization":                  {"Bearer " + token},
		"X-Forwarded-User":               {user},
		"X-Forwarded-Email":              {user + "@people.example"},
		"X-Forwarded-Preferred-Username": {user},
		"X-Forwarded-Groups":             {groups[user]},
	}
	got := map[string][]string{}
	for name := range want {
		got[name] = saw.Headers[name]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what the application is told (-want +got):\n%s", diff)
	}
}

func bearer(s seen) string { return strings.TrimPrefix(s.Headers.Get("Authorization"), "Bearer ") }

// A response is an answer that was read whole.
type response struct {
	status int
	header http.Header
	body   string
}

// seen is what the application's JSON shows.
func (r response) seen(t *testing.T) seen {
	t.Helper()
	var s seen
	if err := json.Unmarshal([]byte(r.body), &s); r.status != http.StatusOK || err != nil {
		t.Fatalf("the answer is %d %s", r.status, r.body)
	}
	return s
}

// get asks as a program does, with the session cookie unless that is nil, and follows no redirect.
func get(t *testing.T, address string, session *http.Cookie, header ...string) response {
	t.Helper()
	return getBy(t, http.DefaultTransport, address, session, header...)
}

func getBy(t *testing.T, transport http.RoundTripper, address string, session *http.Cookie, header ...string) response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Error(err)
		return response{}
	}
	r.Header.Set("Accept", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]} // spelled as it is
	}
	if session != nil {
		r.AddCookie(&http.Cookie{Name: session.Name, Value: session.Value})
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Error(err)
		return response{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return response{resp.StatusCode, resp.Header, string(body)}
}
