//go:build attack

package attack_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

func TestA194_LoopsEnd(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	t.Run("no cookies", func(t *testing.T) {
		w := w.in(t)
		address, hops := "/x", 0
		for ; hops < maxHops; hops++ {
			p := w.browser().navigate(address) // nothing is kept
			if address = p.header.Get("Location"); address == "" {
				if p.status != http.StatusBadRequest || !strings.Contains(p.body, "cookies") {
					t.Errorf("%d %s", p.status, p.body)
				}
				break
			}
		}
		if hops > 10 {
			t.Errorf("%d hops", hops)
		}
	})
	t.Run("the session's cookie alone is lost", func(t *testing.T) {
		b := w.in(t).browser()
		for i := 0; ; i++ {
			p := b.navigate("/x")
			if p.status == http.StatusBadRequest {
				break
			}
			if i > 3 {
				t.Fatalf("sign-in %d begins: %d", i, p.status)
			}
			b.navigate(b.navigate(p.header.Get("Location")).header.Get("Location"))
			b.forget(w.cookie)
		}
	})
	t.Run("the application says 401", func(t *testing.T) {
		w := w.in(t)
		w.app.answersBy(func(_ *received, conn net.Conn) bool {
			_, err := io.WriteString(conn, reply("401 Unauthorized", "no\n", "WWW-Authenticate: Bearer"))
			return err == nil
		})
		defer w.app.answersBy(nil)
		b := w.browser()
		authorize, token := w.calls(idptest.Authorize), w.calls(idptest.Token)
		w.app.forget()
		if p := b.open("/x"); p.status != http.StatusUnauthorized || len(b.trail) != 4 {
			t.Errorf("%d %q", p.status, b.trail)
		}
		if n := len(w.app.received()); n > 2 || authorize() != 1 || token() > 2 {
			t.Errorf("%d requests, %d sign-ins, %d token requests", n, authorize(), token())
		}
	})
	t.Run("the provider refuses at once", func(t *testing.T) {
		w := w.in(t)
		w.provider.RefuseSignIn("login_required", "")
		defer w.provider.RefuseSignIn("", "")
		b := w.browser()
		if p := b.open("/x"); p.status != http.StatusForbidden || len(b.trail) != 3 {
			t.Errorf("%d %q", p.status, b.trail)
		}
	})
}

func TestA195_MistakesInTheConfiguration(t *testing.T) {
	attack(t)
	dir := t.TempDir()
	secret := "canary-secret-in-the-configuration"
	good := fmt.Sprintf("providers:\n  corp: {issuer: \"http://127.0.0.1:9\", client_id: wiki, client_secret: {file: %q}}\nroutes:\n  - {upstream: \"http://127.0.0.1:9\", access: signed_in}\n",
		proctest.WriteFile(t, dir, "secret", []byte(secret)))
	open := proctest.WriteFile(t, dir, "open", []byte(secret))
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	placeholder := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for name, tt := range map[string]struct {
		from, to string
		bad      bool
		says     string
	}{
		"good": {"wiki", "wiki", false, "good"}, "unknown key": {"access:", "acess:", true, "access"}, "key of another place": {"providers:", "access: public\nproviders:", true, "access"}, "wrong type": {"access: signed_in", "access: 7", true, "access"},
		"access misspelt": {"signed_in", "sign_in", true, "signed_in"}, "http issuer": {"http://127.0.0.1:9\", client", "http://idp.example.com\", client", true, "https"}, "no issuer": {"issuer: \"http://127.0.0.1:9\", ", "", true, "issuer"},
		"no such secret": {"/secret\"", "/nothing\"", true, "nothing"}, "key is a placeholder": {"providers:", "session: {keys: [\"" + placeholder + "\"]}\nproviders:", true, "keys"}, "key is short": {"providers:", "session: {keys: [\"c2hvcnQ=\"]}\nproviders:", true, "keys"},
		"empty secret": {"{file: ", "{env: NOTHING_AT_ALL, file: ", true, "secret"}, "no variable": {"wiki", "\"${NOTHING_AT_ALL}\"", true, "NOTHING_AT_ALL"}, "no groups": {"signed_in", "{groups: []}", false, "lets nobody in"}, "groups null": {"signed_in", "{groups: }", true, "groups"},
		"empty conditions": {"signed_in", "{}", true, "access"}, "secret for all to read": {"/secret\"", "/open\"", false, "every user of the machine"}, "twice": {"routes:", "routes: []\nroutes:", true, "routes"}, "no routes": {"routes:", "route:", true, "routes"},
		"an upstream with a password": {"http://127.0.0.1:9\", access", "http://u:p@127.0.0.1:9\", access", true, "upstream"}, "rule of another language": {"signed_in", "{rule: 'groups.contains'}", true, "rule"}, "cookie without https": {"providers:", "session: {cookie: {name: __Host-x, insecure: true}}\nproviders:", true, "cookie"},
		"all may be trusted proxies": {"providers:", "server: {trusted_proxies: [0.0.0.0/0]}\nproviders:", true, "trusted_proxies"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(good, tt.from) {
				t.Fatalf("no %q", tt.from)
			}
			file := proctest.WriteFile(t, t.TempDir(), "postern.yaml", []byte(strings.Replace(good, tt.from, tt.to, 1)))
			out, err := exec.CommandContext(t.Context(), program, "check", "--config", file).CombinedOutput()
			if (err != nil) != tt.bad || !strings.Contains(string(out), tt.says) {
				t.Errorf("check: %v, %s", err, out)
			}
			if strings.Contains(string(out), secret) || strings.Contains(string(out), placeholder) {
				t.Errorf("check shows a secret: %s", out)
			}
			if !tt.bad {
				return
			}
			out, err = exec.CommandContext(t.Context(), program, "--config", file, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0").CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.says) || strings.Contains(string(out), secret) {
				t.Errorf("start: %v, %s", err, out)
			}
		})
	}
}

// A bad file opens nothing and fails nobody, a bad key neither; a rotated secret is taken all the same.
func TestA196_FilesThatChange(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	b := w.browser()
	b.signIn("/")
	w.rewrite("access: signed_in", "access: public", "client_id: wiki", "client_id: [")
	key := filepath.Join(filepath.Dir(w.file), "key")
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	failed := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				failed <- n
				return
			default:
				if p := b.sharing().fetch(http.MethodGet, "/x", ""); p.status != http.StatusOK {
					n++
				}
			}
		}
	}()
	proctest.Eventually(t, "the broken files are noticed", func() error {
		if !strings.Contains(w.log.String(), "configuration not taken") {
			return fmt.Errorf("nothing in the log")
		}
		return nil
	})
	close(stop)
	if n := <-failed; n > 0 {
		t.Errorf("%d requests failed", n)
	}
	if a := w.ask(w.get("/x")); a.status != http.StatusUnauthorized {
		t.Errorf("a route that the file opens: %d", a.status)
	}
	w.browser().signIn("/x") // still with the old key and secret
	secret := w.secrets.New("client-secret")
	w.provider.AddClient(idptest.Client{ID: "wiki", Secret: secret, RedirectURIs: []string{w.origin + "/oauth2/callback"}})
	proctest.WriteFile(t, filepath.Dir(w.file), "client-secret", []byte(secret))
	proctest.Eventually(t, "the new client secret is used", func() error {
		if p := w.browser().open("/x"); p.status != http.StatusOK {
			return fmt.Errorf("%d", p.status)
		}
		return nil
	})
}

// A sign-in began with one configuration and comes back to another. Its code goes to nobody but the provider that gave it, and nobody is signed in by
// halves: the person is sent to sign in again, and then it works. The same for the tokens of a session.
func TestA196_ChangesDuringASignIn(t *testing.T) {
	attack(t)
	for name, change := range map[string]func(w *world, other string) (pairs []string){
		"the name stands for another provider": func(w *world, other string) []string { return []string{w.provider.URL, other} },
		"the client is another":                func(*world, string) []string { return []string{"client_id: wiki", "client_id: wiki2"} },
		"the provider has another name":        func(*world, string) []string { return []string{"corp: {", "renamed: {"} },
		"all keys are others":                  func(w *world, _ string) []string { w.otherKey(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			other, _ := second(t, "other")
			w := newWorld(t, settings{})
			for _, p := range []*idptest.Server{w.provider, other} {
				p.SetIssParameter(false) // which would tell providers apart by itself
				p.SetTokenTTL(2 * time.Second)
				for _, id := range []string{"wiki", "wiki2"} {
					p.AddClient(idptest.Client{ID: id, Secret: w.clientSecret, RedirectURIs: []string{w.origin + "/oauth2/callback"}})
				}
			}
			w.restart()
			before := w.browser()
			before.signIn("/x")
			keys := w.sessionKeys()
			w.app.forget()
			b := w.browser()
			callback := b.callback("/x").String()
			calls := func() int { return w.provider.Calls(idptest.Token) + other.Calls(idptest.Token) }
			sent := calls()
			w.reloads(func() { w.rewrite(change(w, other.URL)...) })
			p := b.navigate(callback)
			if p.status >= http.StatusInternalServerError || b.session() != "" || calls() != sent {
				t.Errorf("the callback gets %d, session %q, and %d codes were sent", p.status, b.session(), calls()-sent)
			}
			proctest.Passes(t, time.Now().Add(2*time.Second)) // the session's access token has expired
			if a := w.ask(w.get("/x", before.cookies())); a.status != http.StatusUnauthorized || calls() != sent {
				t.Errorf("a session of before gets %d, and %d tokens were sent", a.status, calls()-sent)
			}
			w.app.none(t)
			if after := w.sessionKeys(); len(after) > len(keys) {
				t.Errorf("in Redis: %q, before %q", after, keys)
			}
			if p := b.open("/x"); p.status != http.StatusOK {
				t.Errorf("signing in again ends with %d", p.status)
			}
		})
	}
}

// reloads waits until the program has taken what change makes of the configuration.
func (w *world) reloads(change func()) {
	w.t.Helper()
	const taken = `"msg":"configuration taken"`
	before := strings.Count(w.log.String(), taken)
	change()
	w.process.Signal(w.t, syscall.SIGHUP)
	proctest.Eventually(w.t, "the configuration is taken", func() error {
		if strings.Count(w.log.String(), taken) == before {
			return errors.New("not yet")
		}
		return nil
	})
}

// Each test searches environ and cmdline of the program, its log and pages; here are the commands.
func TestA197_CommandsShowNoSecrets(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "admin: {token: " + operators + "}"})
	w.secrets.Add("admin token", operators)
	w.browser().signIn("/")
	for _, args := range [][]string{
		{"check", "--config", w.file}, {"explain", "--config", w.file, "GET", "https://" + publicHost + "/x"}, {"explain", "--config", w.file, "GET", "https://" + publicHost + "/x", "--user", "alice"}, {"providers"}, {"version"}, {"help"}, {"sessions", "--config", w.file}, {"check", "--config", w.file, "--log-level", "loud"},
		{"--config", w.file, "--listen", w.listen}, {"providers", "corp", "--config", w.file},
	} {
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		t.Logf("%v: %v, %d bytes", args, err, len(out))
		w.secrets.Search(t, fmt.Sprint(args), string(out))
	}
	if id, _, err := w.askAdmin("/config"); err != nil || id != http.StatusNotFound {
		t.Errorf("/config: %d, %v", id, err)
	}
	_, ready, err := w.askAdmin("/readyz")
	if err != nil {
		t.Fatal(err)
	}
	w.secrets.Search(t, "/readyz", ready)
}

func TestA201_ShutdownInTheMiddle(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{server: "drain_delay: 0s"})
	refreshing := w.browser()
	refreshing.signIn("/")
	b, left := w.browser(), w.browser()
	callback, abandoned := b.callback("/x").String(), left.callback("/x")
	gate := w.provider.Gate(idptest.Token)
	signedIn, refreshed := make(chan *page, 1), make(chan *page, 1)
	go func() { signedIn <- b.navigate(callback) }()
	<-gate.Arrived()
	go func() { refreshed <- refreshing.fetch(http.MethodPost, "/oauth2/session/refresh", "") }()
	<-gate.Arrived()
	// One whose browser leaves in the middle (V-30).
	c := w.dial()
	c.send(w.get("/oauth2/callback?"+abandoned.RawQuery, left.cookies(), "Accept: text/html"))
	<-gate.Arrived()
	c.Close()
	w.process.Terminate(t)
	proctest.Eventually(t, "it takes no more connections", func() error {
		conn, err := net.DialTimeout("tcp", w.listen, time.Second)
		if err == nil {
			conn.Close()
			return fmt.Errorf("it does")
		}
		return nil
	})
	gate.Open()
	if p := <-signedIn; p.status != http.StatusSeeOther || p.header.Get("Location") != "/x" {
		t.Errorf("the callback: %d %s", p.status, p.body)
	}
	if p := <-refreshed; p.status != http.StatusOK {
		t.Errorf("the refresh: %d %s", p.status, p.body)
	}
	if code := w.process.ExitCode(t); code != 0 {
		t.Errorf("it ends with %d", code)
	}
	w.start()
	for name, b := range map[string]*browser{"signed in": b, "refreshed": refreshing} {
		if p := b.open("/x"); p.status != http.StatusOK || len(b.trail) != 1 {
			t.Errorf("%s: %d %q", name, p.status, b.trail)
		}
		if p := b.fetch(http.MethodPost, "/oauth2/session/refresh", ""); p.status != http.StatusOK {
			t.Errorf("%s: the next refresh: %d", name, p.status)
		}
	}
	if n := w.provider.RefreshReuses(); n != 0 {
		t.Errorf("%d refresh tokens were sent twice", n)
	}
}

func TestA202_NothingRandomComesTwice(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{})
	seen := map[string]bool{}
	once := func(what, value string, least int) {
		t.Helper()
		if seen[value] || len(value) < least {
			t.Errorf("%s %q: %d bytes, seen before: %v", what, value, len(value), seen[value])
		}
		seen[value] = true
	}
	for range 200 {
		b := w.browser()
		at, err := url.Parse(b.begin("/"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			once(name, at.Query().Get(name), 22) // 128 bits
		}
		for _, c := range b.all() {
			once("cookie "+c.Name, c.Value, 60)
		}
	}
	var bits [256]int
	total := 0
	for range 40 {
		b := w.browser()
		b.signIn("/")
		once("session", b.session(), 60)
		for _, c := range []byte(b.session()) {
			bits[c]++
			total++
		}
	}
	for _, key := range w.records() {
		once("record", key, len("postern:s:{}")+22)
	}
	for c, n := range bits { // 64 letters, none much more often than others
		if n > total/10 {
			t.Errorf("byte %d makes %d of %d", c, n, total)
		}
	}
	for _, r := range w.provider.TokenRequests() {
		once("code_verifier", r.Form.Get("code_verifier"), 43)
	}
}
