//go:build attack

package attack_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest/canary"
	"postern/session/redistest"
)

// eventually200 waits until a page is the application's again.
func (b *browser) eventually200(path string) {
	b.w.t.Helper()
	proctest.Eventually(b.w.t, "the session works again", func() error {
		if p := b.fetch(http.MethodGet, path, ""); p.status != http.StatusOK {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
}

func TestA180_StoreDown(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: threeWays})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	down := func(when string) {
		t.Helper()
		for _, path := range []string{"/x", "/optional/x"} {
			for range 3 {
				if p := b.navigate(path); p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" || len(p.header.Values("Set-Cookie")) > 0 {
					t.Errorf("%s, %s: %d %v", when, path, p.status, p.header)
				}
				if p := b.fetch(http.MethodGet, path, ""); p.status != http.StatusServiceUnavailable {
					t.Errorf("%s, %s for a script: %d", when, path, p.status)
				}
			}
		}
		w.app.none(t)
		if p := b.navigate("/public/x"); p.status != http.StatusOK {
			t.Errorf("%s: a public page: %d", when, p.status)
		}
		if got := w.app.one(t); len(got.folded("X-Forwarded-User")) > 0 {
			t.Errorf("%s: somebody at a public page", when)
		}
		// Who signs in meanwhile gets a page, and no loop.
		other := w.browser()
		if p := other.open("/x"); p.status != http.StatusServiceUnavailable || other.session() != "" || len(other.trail) != 3 {
			t.Errorf("%s: a sign-in ends with %d: %q", when, p.status, other.trail)
		}
		w.app.none(t)
	}
	w.redis.Stop()
	proctest.Eventually(t, "the loss is noticed", func() error { // until then the copy serves, for cache.max_stale at most
		if p := b.navigate("/x"); p.status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	w.app.forget()
	down("at runtime")
	w.process.Terminate(t)
	w.process.ExitCode(t)
	w.startUnready()
	proctest.Eventually(t, "the provider is known", func() error {
		if p := w.browser().navigate("/x"); p.status != http.StatusSeeOther {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	down("at start")
	if status, _, err := w.askAdmin("/readyz"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("ready without ever a store: %d, %v", status, err)
	}
	w.redis.Start()
	w.ready()
	b.eventually200("/x")
}

// Answers of Redis that come late or never must not reach another's request (V-67).
func TestA181_StoreSlow(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{redis: redistest.Options{Proxied: true}, session: "cache: {max_stale: 1s}"})
	alice, mallory := w.browser(), w.browser()
	alice.signIn("/")
	w.provider.SignInAs("mallory")
	mallory.signIn("/")
	w.app.forget()
	faults := map[string]func(){
		"slow":       func() { w.redis.Proxy.Delay(0, 2*time.Second) },
		"a bit slow": func() { w.redis.Proxy.Delay(0, 200*time.Millisecond) },
		"stalled":    func() { w.redis.Proxy.Stall(true, true) },
		"swallowing": func() { w.redis.Proxy.Swallow(50) },
		"cut":        func() { w.redis.Proxy.Cut(); w.redis.Proxy.Refuse(true) },
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			fault()
			var all sync.WaitGroup
			for i := range 40 {
				all.Go(func() {
					who, b := "alice", alice
					if i%2 == 1 {
						who, b = "mallory", mallory
					}
					began := time.Now()
					a := w.ask(w.get("/"+who, b.cookies()))
					if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
						t.Errorf("%d", a.status)
					}
					if took := time.Since(began); took > 10*time.Second {
						t.Errorf("it took %v", took)
					}
				})
			}
			all.Wait()
			w.redis.Proxy.Heal()
			for _, r := range w.app.received() {
				if user := r.Header.Get("X-Forwarded-User"); "/"+user != r.URL.Path {
					t.Errorf("%s is taken for %s", r.URL.Path, user)
				}
			}
			w.app.forget()
			w.ready()
			alice.in(t).eventually200("/alice")
			mallory.in(t).eventually200("/mallory")
		})
	}
}

// snapshot is what is in Redis; restore makes it so again.
func (w *world) snapshot() (restore func()) {
	w.t.Helper()
	ctx, values := w.t.Context(), map[string]string{}
	ttl := map[string]time.Duration{}
	for _, key := range w.keys() {
		values[key], ttl[key] = w.redis.Client().Dump(ctx, key).Val(), w.redis.Client().PTTL(ctx, key).Val()
	}
	return func() {
		w.forgetSessions()
		for key, value := range values {
			if err := w.redis.Client().Restore(ctx, key, max(ttl[key], 0), value).Err(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// What a running process knows of ends and rotations that the store has lost is held by TestA182 of session and redisstore.
func TestA182_StoreThatWentBack(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	before := w.snapshot()
	if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != http.StatusOK {
		t.Fatal(p.status)
	}
	late := w.browser()
	late.signIn("/")
	w.process.Kill()
	before()
	w.start()
	// A session that is gone: signing in again is all there is to it.
	if p := late.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
		t.Errorf("a lost session: %d", p.status)
	}
	if p := late.open("/x"); p.status != http.StatusOK || len(late.trail) != 4 {
		t.Errorf("the way in: %d %q", p.status, late.trail)
	}
	// A refresh token that was spent before: the provider says so, once.
	if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != http.StatusUnauthorized {
		t.Errorf("a stale refresh token: %d", p.status)
	}
	if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 4 {
		t.Errorf("the way in: %d %q", p.status, b.trail)
	}
}

func TestA183_StoreFullOrEmptied(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	config := func(name, value string) {
		t.Helper()
		if err := w.redis.Client().ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	config("maxmemory-policy", "noeviction")
	config("maxmemory", "1")
	other := w.browser()
	w.app.forget()
	if p := other.open("/x"); p.status != http.StatusServiceUnavailable || other.session() != "" || len(other.trail) != 3 {
		t.Errorf("a sign-in that cannot be stored: %d %q", p.status, other.trail)
	}
	w.app.none(t)
	if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
		t.Errorf("a session that is there: %d", p.status)
	}
	config("maxmemory", "0")
	proctest.Eventually(t, "sign-in works again", func() error {
		if p := w.browser().open("/x"); p.status != http.StatusOK {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
	w.process.Kill()
	w.forgetSessions() // evicted
	w.start()
	if p := b.fetch(http.MethodGet, "/x", ""); p.status != http.StatusUnauthorized {
		t.Errorf("an evicted session: %d", p.status)
	}
	if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 4 {
		t.Errorf("the way in: %d %q", p.status, b.trail)
	}
}

// records are the sessions in Redis.
func (w *world) records() (keys []string) {
	for _, key := range w.sessionKeys() {
		if strings.Contains(key, "s:{") && w.redis.Client().Type(w.t.Context(), key).Val() == "string" {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestA184_StoreTamperedWith(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	client := w.redis.Client()
	// again is a process that remembers nothing.
	again := func() { w.process.Kill(); w.start(); w.app.forget() }
	is := func(what string, b *browser, want int) {
		t.Helper()
		if status := w.presents(b.session()); status != want {
			t.Errorf("%s: %d, want %d", what, status, want)
		}
	}
	alice, mallory := w.browser(), w.browser()
	alice.signIn("/")
	first := w.records()
	w.provider.SignInAs("mallory")
	mallory.signIn("/")
	both := w.records()
	if len(first) != 1 || len(both) != 2 {
		t.Fatalf("records %q, then %q", first, both)
	}
	other := both[0]
	if other == first[0] {
		other = both[1]
	}
	a, m := client.Get(t.Context(), first[0]).Val(), client.Get(t.Context(), other).Val()
	put := func(key, value string) {
		t.Helper()
		if err := client.Set(t.Context(), key, value, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	put(first[0], m)
	put(other, a)
	again()
	is("alice with mallory's record", alice, http.StatusUnauthorized)
	is("mallory with alice's record", mallory, http.StatusUnauthorized)
	w.app.none(t)
	// Behind the head comes what is known of the session without its cookie, for lists and orders to end it, and then the session itself.
	for i := 18; i < len(a); i += max(1, len(a)/12) {
		put(first[0], a[:i]+string(a[i]^0x40)+a[i+1:])
		again()
		status := w.presents(alice.session())
		if i < len(a)/2 && status == http.StatusOK {
			if user := w.app.one(t).Header.Get("X-Forwarded-User"); user != "alice" {
				t.Errorf("byte %d makes alice %s", i, user)
			}
		} else if status != http.StatusUnauthorized {
			t.Errorf("byte %d: %d", i, status)
		}
	}
	w.app.forget()
	for name, value := range map[string]string{"empty": "", "half": a[:len(a)/2], "text": "hello", "JSON": `{"user":"root"}`, "longer": a + "x", "zeros": strings.Repeat("\x00", len(a))} {
		put(first[0], value)
		again()
		is(name, alice, http.StatusUnauthorized)
	}
	w.app.none(t)
	put(first[0], a)
	again()
	is("as it was", alice, http.StatusOK)
	// Rolled back after its end, while a process remembers that.
	value := alice.session()
	alice.post("/oauth2/logout", nil)
	put(first[0], a)
	if status := w.presents(value); status != http.StatusUnauthorized {
		t.Errorf("rolled back: %d", status)
	}
}

func TestA185_StoreDumped(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	name := w.secrets.New("name-of-a-person")
	w.provider.AddUser(idptest.User{Sub: w.secrets.New("subject"), Claims: map[string]any{"name": name, "email": w.secrets.New("local") + "@example.com", "email_verified": true, "groups": []string{w.secrets.New("group")}}})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	dump := w.redis.Dump()
	for _, word := range []string{"alice", "@example", "staff", "eyJ", "Bearer", "refresh"} {
		if strings.Contains(dump, word) {
			t.Errorf("Redis holds %q", word)
		}
	}
	// Whatever is in there is no cookie.
	for _, key := range w.sessionKeys() {
		id := strings.Trim(key[strings.LastIndexByte(key, ':')+1:], "{}")
		value := w.redis.Client().Get(t.Context(), key).Val()
		for _, cookie := range []string{id, key, base64.RawURLEncoding.EncodeToString([]byte(id)), base64.RawURLEncoding.EncodeToString([]byte(value)), base64.RawURLEncoding.EncodeToString([]byte("1" + id + value))} {
			if len(cookie) > 4000 || strings.ContainsAny(cookie, "\x00\r\n; ") {
				continue
			}
			if status := w.presents(cookie); status != http.StatusUnauthorized {
				t.Errorf("%q of Redis is a cookie: %d", cookie, status)
			}
		}
		if canary.Holds(b.session(), id) {
			t.Errorf("the cookie holds the key %s", id)
		}
	}
	w.app.none(t)
}

var redisKey = regexp.MustCompile(`^postern:([sl]:\{[A-Za-z0-9_.!-]{16,80}\}|i:[A-Za-z0-9_:.-]{16,80}|[a-z!][A-Za-z0-9_:.-]{0,80})$`)

func TestA186_NamesThatBecomeKeys(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	odd := []string{"*", "a b", "x:y", "{s}", "../..", "a\u00e9", "?[a-z]*", strings.Repeat("k", 200), "postern:s:{x}", "\"", "%0a"}
	for _, name := range odd {
		w.provider.AddUser(idptest.User{Sub: name, Claims: map[string]any{}})
		w.provider.SignInAs(name)
		w.provider.MutateIDToken(set("sid", name))
		w.browser().signIn("/")
		w.order("logout_token=" + w.provider.LogoutToken("wiki", "", "*", nil))
		w.browser().navigate("/oauth2/logout/frontchannel?sid=*&iss="+w.provider.URL, "Sec-Fetch-Dest: iframe")
		w.presents("*")
		w.presents(strings.Repeat("*", 400))
		w.presents("{" + name)
	}
	for _, key := range w.keys() {
		if !redisKey.MatchString(key) {
			t.Errorf("key %q", key)
		}
	}
	if n := len(w.records()); n < len(odd) {
		t.Errorf("%d sessions of %d are left", n, len(odd))
	}
}

func TestA187_StoreOfTwoEnvironments(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	text, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	w.app.forget()
	own := filepath.Join(filepath.Dir(w.file), "key")
	ownKey, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(config string) string{
		"other keys":   func(config string) string { return config },
		"other client": func(config string) string { return strings.Replace(config, "client_id: wiki", "client_id: shop", 1) },
		"other prefix": func(config string) string {
			return strings.Replace(config, "redis: {", "redis: {key_prefix: 'staging:', ", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "other keys" {
				w.in(t).otherKey()
			} else {
				proctest.WriteFile(t, filepath.Dir(own), "key", ownKey)
			}
			other := *w
			other.t = t
			other.file = proctest.WriteFile(t, t.TempDir(), "postern.yaml", []byte(change(string(text))))
			other.listen, other.admin = proctest.Address(proctest.FreePort(t)), proctest.Address(proctest.FreePort(t))
			other.transport = other.roundTripper()
			other.start()
			if status := other.presents(b.session()); status != http.StatusUnauthorized {
				t.Errorf("%d", status)
			}
		})
	}
	w.app.none(t)
	if status := w.presents(b.session()); status != http.StatusOK {
		t.Errorf("where it belongs: %d", status)
	}
}

// Which fields an older version ignores, and that an unknown format stays as it is, is held by TestA188 of session.
func TestA188_RecordsOfAnotherVersion(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	w.app.forget()
	key := w.records()[0]
	value := w.redis.Client().Get(t.Context(), key).Val()
	for _, format := range []byte{0, 2, 200} {
		newer := string(format) + value[1:]
		if format == 200 {
			newer = "\xc8" + value[1:]
		}
		if err := w.redis.Client().Set(t.Context(), key, newer, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		w.process.Kill()
		w.start()
		if status := w.presents(b.session()); status != http.StatusUnauthorized {
			t.Errorf("format %d: %d", format, status)
		}
		w.app.none(t)
		if got := w.redis.Client().Get(t.Context(), key).Val(); got != newer {
			t.Errorf("format %d: the record was changed", format)
		}
	}
	if err := w.redis.Client().Set(t.Context(), key, value, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	w.process.Kill()
	w.start()
	if status := w.presents(b.session()); status != http.StatusOK {
		t.Errorf("as it was: %d", status)
	}
}

// That cookies and records move under the newest key is held by TestA189 of session and proxy, and by make chaos: it takes a while.
func TestA189_KeysThatRotate(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	first := w.browser()
	first.signIn("/")
	original := first.sharing()
	for i := range 3 {
		w.restart("keys: [", fmt.Sprintf("keys: [{file: %q}, ", w.newKey(fmt.Sprint("key", i))))
		b := w.browser()
		b.signIn("/")
		for name, b := range map[string]*browser{"one of before": first, "a new one": b} {
			if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 1 {
				t.Errorf("rotation %d, %s: %d %q", i, name, p.status, b.trail)
			}
		}
		if status := w.presents(original.session()); status != http.StatusOK {
			t.Errorf("rotation %d, the first cookie: %d", i, status)
		}
	}
}
