//go:build e2e

package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/session/redistest"
)

// A provider is npm oidc-provider in a process of its own.
type provider struct {
	*process
	url string

	mu      sync.Mutex
	answers []tokenAnswer
}

// A tokenAnswer is one answer of the provider's token endpoint.
type tokenAnswer struct {
	Event        string `json:"event"`
	Grant        string `json:"grant"`
	Status       int    `json:"status"`
	Error        string `json:"error"`
	Description  string `json:"description"`
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`

	Secrets map[string]string `json:"secrets"` // what a request has of them, of the event secrets

	at time.Time
}

// providerSettings are the settings of provider.mjs; zero values leave its own.
type providerSettings struct {
	Port            int           `json:"port"`
	Origin          string        `json:"origin"`
	ClientSecret    string        `json:"client_secret,omitempty"`
	BackChannel     string        `json:"backchannel_logout_uri,omitempty"`
	AccessTokenTTL  time.Duration `json:"-"`
	TokenDelay      time.Duration `json:"-"`
	UserinfoOnly    bool          `json:"-"`
	AccessSeconds   int           `json:"access_token_ttl,omitempty"`
	TokenDelayMS    int           `json:"token_delay,omitempty"`
	ClaimsInIDToken bool          `json:"claims_in_id_token"`
	// Client is further metadata of the client. Gateway gives the provider what gateway.yaml asks of it.
	Client  map[string]any `json:"client,omitempty"`
	Gateway bool           `json:"gateway,omitempty"`
}

// providerURL is the issuer. Its host is another than Postern's, since cookies do not tell ports apart.
func providerURL(port int) string { return fmt.Sprintf("http://localhost:%d", port) }

// startProvider starts the provider and waits until it listens.
func startProvider(t *testing.T, s providerSettings) *provider {
	t.Helper()
	s.AccessSeconds = int(s.AccessTokenTTL.Seconds())
	s.TokenDelayMS = int(s.TokenDelay.Milliseconds())
	s.ClaimsInIDToken = !s.UserinfoOnly
	s.ClientSecret = cmp.Or(s.ClientSecret, clientSecret)
	secrets.Add("client secret", s.ClientSecret)
	settings, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	node, err := filepath.EvalSymlinks("../../../.ci/node/current")
	if err != nil {
		t.Fatalf("run .ci/install e2e first, as make e2e does: %v", err)
	}
	if node, err = filepath.Abs(node); err != nil {
		t.Fatal(err)
	}
	p := &provider{url: providerURL(s.Port)}
	listening := make(chan struct{})
	p.process = start(t, "", []string{"PROVIDER=" + string(settings)}, func(line string) {
		if !strings.HasPrefix(line, "{") { // advice to whoever runs it for real
			fmt.Fprintf(t.Output(), "provider: %s\n", line)
			return
		}
		var a tokenAnswer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Errorf("the provider prints %q: %v", line, err)
			return
		}
		switch a.Event {
		case "listening":
			close(listening)
			return
		case "secrets":
			for name, value := range a.Secrets {
				secrets.AddParameter(name, value)
			}
			return
		}
		secrets.Add("access token", a.AccessToken)
		secrets.Add("refresh token", a.RefreshToken)
		secrets.AddParameter("id_token", a.IDToken)
		a.at = time.Now()
		p.mu.Lock()
		p.answers = append(p.answers, a)
		p.mu.Unlock()
		fmt.Fprintf(t.Output(), "provider: %s grant: %d %s %s\n", a.Grant, a.Status, a.Error, a.Description)
	}, node, "provider.mjs")
	select {
	case <-listening:
	case <-p.Done():
		t.Fatal("the provider ended at once")
	case <-time.After(patience):
		t.Fatal("the provider does not listen")
	}
	return p
}

// tokenAnswers are all answers so far.
func (p *provider) tokenAnswers() []tokenAnswer {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers)
}

// last is the newest answer with tokens.
func (p *provider) last(t *testing.T) tokenAnswer {
	t.Helper()
	for _, a := range slices.Backward(p.tokenAnswers()) {
		if a.AccessToken != "" {
			return a
		}
	}
	t.Fatal("the provider has issued no token")
	return tokenAnswer{}
}

// refreshes counts the refresh requests, refused ones too.
func (p *provider) refreshes() (n int) {
	for _, a := range p.tokenAnswers() {
		if a.Grant == "refresh_token" {
			n++
		}
	}
	return n
}

// dataOf is all that a Redis server has on disk: every command that ever changed something.
func dataOf(t *testing.T, r *redistest.Server) string {
	t.Helper()
	dir, err := r.Client().ConfigGet(context.WithoutCancel(t.Context()), "dir").Result()
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	err = fs.WalkDir(os.DirFS(dir["dir"]), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(name, "appendonlydir/") {
			return err
		}
		content, err := os.ReadFile(filepath.Join(dir["dir"], name))
		all = append(all, content...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// A postern is the program under test.
type postern struct {
	*process
	origin string // where browsers find it
	listen string // host:port
	admin  string // the admin listener's URL

	config string
	args   []string
	env    []string
	log    lines
}

// newPostern prepares the program with a configuration file; origin "" is its own listen address.
func newPostern(t *testing.T, config []byte, port int, origin string, env ...string) *postern {
	t.Helper()
	admin := address(freePort(t))
	p := &postern{origin: origin, listen: address(port), admin: "http://" + admin, env: env}
	if origin == "" {
		p.origin = "http://" + p.listen
	}
	p.config = writeFile(t, t.TempDir(), "postern.yaml", config)
	p.args = []string{"--config", p.config, "--listen", p.listen, "--admin-listen", admin, "--log-level", "debug"}
	return p
}

// start starts the program, for the second time too, and waits until it is alive. When the test ends, all that it leaves is searched for secrets.
func (p *postern) start(t *testing.T) {
	t.Helper()
	p.process = proctest.Start(t, proctest.Options{Env: p.env, Err: func(line string) {
		p.log.add(line)
		fmt.Fprintf(t.Output(), "postern: %s\n", line)
	}}, filepath.Join(programs, "postern"), p.args...)
	t.Cleanup(func() { p.search(&secrets, t) })
	p.Accepting(t, strings.TrimPrefix(p.admin, "http://"))
}

// ready waits until the program says that it is.
func (p *postern) ready(t *testing.T) {
	t.Helper()
	eventually(t, "postern is ready", func() error {
		if p.Ended() {
			t.Fatalf("postern ended")
		}
		status, body, err := fetch(p.admin + "/readyz")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// fetch is a plain GET without cookies.
func fetch(url string) (int, string, error) {
	resp, err := http.Get(url) //nolint:gosec,noctx // an address of this test
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// An upstream is the application behind Postern. Its pages show the request as it arrived.
type upstream struct {
	*httptest.Server
	slow chan struct{} // a request of /slow arrived
	free chan struct{} // closed: it may be answered
}

// A seen is what the application received.
type seen struct {
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Host    string      `json:"host"`
	Headers http.Header `json:"headers"`
}

var upstreamPage = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><title>The application</title><link rel="icon" href="data:,">
<h1>The application</h1>
<p><a id="next" href="/wiki/next">next page</a> <a id="session" href="/oauth2">session</a> <a id="out" href="/oauth2/logout">sign out</a></p>
<pre id="seen">{{.}}</pre>
</html>`))

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{slow: make(chan struct{}, 1), free: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "fine\n%s%s", r.Header.Get("X-Forwarded-User"), r.Header.Get("Authorization"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		u.slow <- struct{}{}
		select {
		case <-u.free:
			io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	})
	serveLive(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, err := json.MarshalIndent(seen{r.Method, r.RequestURI, r.Host, r.Header}, "", "  ")
		if err != nil {
			panic(err)
		}
		if r.Header.Get("Accept") == "application/json" {
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		var page bytes.Buffer
		if err := upstreamPage.Execute(&page, string(body)); err != nil {
			panic(err)
		}
		w.Write(page.Bytes())
	})
	u.Server = httptest.NewServer(mux)
	t.Cleanup(u.Close)
	return u
}
