//go:build attack

package attack_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

// begin opens a page and returns the address at the provider that it leads to.
func (b *browser) begin(path string) string {
	b.w.t.Helper()
	p := b.navigate(path)
	if p.status != http.StatusSeeOther || p.header.Get("Location") == "" {
		b.w.t.Fatalf("%s leads to no provider: %d %s", path, p.status, p.body)
	}
	return p.header.Get("Location")
}

// callback begins a sign-in and goes through the provider. It returns the address that leads back, without opening it.
func (b *browser) callback(path string) *url.URL {
	b.w.t.Helper()
	p := b.navigate(b.begin(path))
	back, err := url.Parse(p.header.Get("Location"))
	if err != nil || back.Host != b.w.host {
		b.w.t.Fatalf("the provider leads to %q: %d %s", back, p.status, p.body)
	}
	return back
}

// with is an address with a changed query.
func with(at *url.URL, change func(url.Values)) string {
	changed, query := *at, at.Query()
	change(query)
	changed.RawQuery = query.Encode()
	return changed.String()
}

// sharing is a browser of its own that begins with a copy of the cookies of b.
func (b *browser) sharing() *browser {
	b.w.t.Helper()
	other := b.w.browser()
	at, err := url.Parse(b.w.origin)
	if err != nil {
		b.w.t.Fatal(err)
	}
	other.jar.SetCookies(at, b.all())
	return other
}

// put puts a cookie into the jar, as an attacker on a sibling host or a bad network can.
func (b *browser) put(name, value string) {
	b.w.t.Helper()
	at, err := url.Parse(b.w.origin)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.jar.SetCookies(at, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: at.Scheme == "https"}})
}

// forget removes a cookie.
func (b *browser) forget(name string) {
	b.w.t.Helper()
	at, err := url.Parse(b.w.origin)
	if err != nil {
		b.w.t.Fatal(err)
	}
	b.jar.SetCookies(at, []*http.Cookie{{Name: name, Path: "/", MaxAge: -1, Secure: at.Scheme == "https"}})
}

// presents tells how Postern answers a program that shows a session's cookie.
func (w *world) presents(session string) int {
	w.t.Helper()
	return w.ask(w.get("/", "Cookie: "+w.cookie+"="+session)).status
}

// refused checks that a callback signed nobody in: no cookie and no key of a session, nothing at the application, and a page.
func (b *browser) refused(p *page, statuses ...int) {
	b.w.t.Helper()
	if !slices.Contains(statuses, p.status) || !strings.Contains(p.body, "<html") {
		b.w.t.Errorf("%d, want %v and a page: %s", p.status, statuses, p.body)
	}
	b.nobody()
}

// nobody checks that nobody is signed in here, nor has been in the meantime.
func (b *browser) nobody() {
	b.w.t.Helper()
	if b.session() != "" {
		b.w.t.Error("a session's cookie was set")
	}
	if keys := b.w.sessionKeys(); len(keys) > 0 {
		b.w.t.Errorf("in Redis: %q", keys)
	}
	b.w.app.none(b.w.t)
}

// sessionKeys are the keys in Redis that are there because someone has signed in.
func (w *world) sessionKeys() (keys []string) {
	for _, key := range w.keys() {
		if !strings.HasPrefix(key, "postern:s:{logout-") {
			keys = append(keys, key)
		}
	}
	return keys
}

// calls is how many more calls an endpoint of the provider got since.
func (w *world) calls(endpoint string) (since func() int) {
	before := w.provider.Calls(endpoint)
	return func() int { return w.provider.Calls(endpoint) - before }
}

// second is one more provider that knows Postern under the client ID of the first, and has a person named alice too. Its text goes into
// settings.providers.
func second(t *testing.T, name string) (p *idptest.Server, config string) {
	t.Helper()
	p = idptest.NewServer(t)
	const secret = "canary-secret-of-the-second"
	p.AddClient(idptest.Client{ID: "wiki", Secret: secret, RedirectURIs: []string{"https://" + publicHost + "/oauth2/callback", "https://" + publicHost + "/oauth2/callback/" + name}})
	p.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"preferred_username": "another-alice", "email": "alice@example.net", "email_verified": true}})
	return p, fmt.Sprintf("  %s: {issuer: %q, client_id: wiki, client_secret: {file: %q}}\n", name, p.URL, proctest.WriteFile(t, t.TempDir(), "secret", []byte(secret)))
}

// restart ends the program and starts it with a configuration in which pairs of texts are exchanged.
func (w *world) restart(pairs ...string) {
	w.t.Helper()
	w.process.Terminate(w.t)
	w.process.ExitCode(w.t)
	w.rewrite(pairs...)
	w.start()
}

// rewrite exchanges pairs of texts in the configuration.
func (w *world) rewrite(pairs ...string) {
	w.t.Helper()
	text, err := os.ReadFile(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	for pair := range slices.Chunk(pairs, 2) {
		if !strings.Contains(string(text), pair[0]) {
			w.t.Fatalf("the configuration does not hold %q:\n%s", pair[0], text)
		}
	}
	if err := os.WriteFile(w.file, []byte(strings.NewReplacer(pairs...).Replace(string(text))), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// otherKey replaces session.keys by a new one. Programs that start from now on know the old one no longer.
func (w *world) otherKey() { w.t.Helper(); w.newKey("key") }

// newKey makes a key in a file beside the configuration.
func (w *world) newKey(name string) (file string) {
	w.t.Helper()
	key, err := exec.CommandContext(w.t.Context(), program, "keygen").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	w.secrets.Add("session key", strings.TrimSpace(string(key)))
	return proctest.WriteFile(w.t, filepath.Dir(w.file), name, key)
}

// startUnready starts the program without waiting until it is ready, only until it listens.
func (w *world) startUnready() {
	w.t.Helper()
	w.run()
	w.process.Accepting(w.t, w.admin)
}

// ready waits until all parts are well.
func (w *world) ready() {
	w.t.Helper()
	proctest.Eventually(w.t, "all parts are well", func() error {
		status, body, err := w.askAdmin("/readyz?strict=1")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

// restartUnready ends the program and starts it where parts that it needs do not answer.
func (w *world) restartUnready() {
	w.t.Helper()
	w.process.Terminate(w.t)
	w.process.ExitCode(w.t)
	w.startUnready()
}
