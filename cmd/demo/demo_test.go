package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// TestMain lets the test's own binary be the demo, so that signals and exit codes can be seen.
func TestMain(m *testing.M) {
	if os.Getenv("POSTERN_DEMO_MAIN") == "yes" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func free(o options) options {
	o.listen, o.provider, o.app = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return o
}

func begin(t *testing.T, o options) *demo {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d, err := start(t.Context(), free(o), t.Output(), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// person is somebody with a browser.
type person struct {
	t      *testing.T
	client *http.Client
	at     *url.URL // where the last navigation ended
	status int
	page   string
}

func newPerson(t *testing.T) *person {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &person{t: t, client: &http.Client{Jar: jar, Transport: transport}}
}

// goTo navigates: with a form it posts.
func (p *person) goTo(target string, form url.Values) {
	p.t.Helper()
	method, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(p.t.Context(), method, target, body)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	resp, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	p.at, p.status, p.page = resp.Request.URL, resp.StatusCode, string(text)
	if next := goesOn.FindStringSubmatch(p.page); next != nil {
		to, err := p.at.Parse(html.UnescapeString(next[1]))
		if err != nil {
			p.t.Fatal(err)
		}
		p.goTo(to.String(), nil)
	}
}

// goesOn finds where a page goes on by itself.
var goesOn = regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]+)"`)

// see fails unless the page is answered with status, at path, and says text.
func (p *person) see(status int, path, text string) {
	p.t.Helper()
	if p.status != status || p.at.Path != path || !strings.Contains(html.UnescapeString(p.page), text) {
		p.t.Fatalf("got %d at %s, want %d at %s with %q:\n%s", p.status, p.at, status, path, text, p.page)
	}
}

var signInForm = regexp.MustCompile(`(?s)<form method="post" action="([^"]+)">.*?name="request" value="([^"]+)"`)

// signIn goes to a page of the application and through the provider's page.
func (p *person) signIn(d *demo, path, sub string) {
	p.t.Helper()
	p.goTo(d.url+path, nil)
	form := signInForm.FindStringSubmatch(p.page)
	if form == nil || !strings.HasPrefix(p.at.String(), d.issuer) {
		p.t.Fatalf("no sign-in page at %s:\n%s", p.at, p.page)
	}
	p.goTo(html.UnescapeString(form[1]), url.Values{"request": {form[2]}, "sub": {sub}})
}

// fetch asks as a script does.
func (p *person) fetch(target string, into any) int {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Sec-Fetch-Mode", "cors")
	r.Header.Set("Sec-Fetch-Dest", "empty")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode
}

// TestMainJob walks what a person tries first.
func TestMainJob(t *testing.T) {
	// Tokens this short are refreshed two seconds after they were issued.
	d := begin(t, options{tokenLife: 3 * time.Second})
	ada := newPerson(t)
	ada.signIn(d, "/headers?from=a+link", "ada")
	ada.see(200, "/headers", "X-Forwarded-User")
	if ada.at.RawQuery != "from=a+link" {
		t.Errorf("came back to %s", ada.at)
	}
	for _, want := range []string{"Bearer ", "ada@example.com", "wiki-users,admins", "Remaining life of the access token"} {
		if !strings.Contains(html.UnescapeString(ada.page), want) {
			t.Errorf("the headers page lacks %q:\n%s", want, ada.page)
		}
	}
	if strings.Contains(ada.page, "postern=") {
		t.Error("the application was sent Postern's cookie")
	}
	ada.goTo(d.url+"/", nil)
	ada.see(200, "/", "Good day, ada")
	ada.goTo(d.url+"/admin", nil)
	ada.see(200, "/admin", "Administration")
	ada.goTo(d.url+"/guestbook", url.Values{"text": {"Hello <world>"}})
	ada.see(200, "/guestbook", "Hello <world>")
	var now struct{ Time string }
	if status := ada.fetch(d.url+"/time", &now); status != 200 || now.Time == "" {
		t.Errorf("fetch: got %d %v", status, now)
	}
	tokenIsReplaced(t, d, ada)
	echoes(t, d, ada)

	ada.goTo(d.url+"/oauth2/logout", url.Values{})
	ada.see(200, "/oauth2/logout/callback", "igned out")
	var problem struct {
		LoginURL string `json:"login_url"`
	}
	if status := ada.fetch(d.url+"/headers.json", &problem); status != http.StatusUnauthorized || problem.LoginURL == "" {
		t.Errorf("signed out: got %d %v", status, problem)
	}
	ada.signIn(d, "/", "ada") // the provider asks again: its session has ended, too
	ada.see(200, "/", "Good day, ada")
}

// tokenIsReplaced follows the clock's stream until the application has seen two access tokens.
func tokenIsReplaced(t *testing.T, d *demo, p *person) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/clock", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := p.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("clock: got %d %s", resp.StatusCode, got)
	}
	seen := map[string]bool{}
	for events := bufio.NewScanner(resp.Body); events.Scan(); {
		if !strings.HasPrefix(events.Text(), "data: ") {
			continue
		}
		var got received
		if status := p.fetch(d.url+"/headers.json", &got); status != 200 || got.Bearer == nil {
			t.Fatalf("got %d %+v", status, got)
		}
		if got.Bearer.Exp < time.Now().Unix() {
			t.Errorf("the application was sent an expired token: %+v", got.Bearer)
		}
		if seen[got.Bearer.ID] = true; len(seen) == 2 {
			return
		}
	}
	t.Fatalf("the clock ended after %d tokens", len(seen))
}

func echoes(t *testing.T, d *demo, p *person) {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), d.url+"/echo", &websocket.DialOptions{HTTPClient: p.client, HTTPHeader: http.Header{"Origin": {d.url}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
}

func TestPeopleDiffer(t *testing.T) {
	d := begin(t, options{tokenLife: time.Minute})
	stranger := newPerson(t)
	stranger.goTo(d.url+"/public", nil)
	stranger.see(200, "/public", "Everybody may read this page")

	grace := newPerson(t)
	grace.signIn(d, "/", "grace")
	grace.see(200, "/", "Good day, grace")
	grace.goTo(d.url+"/admin", nil)
	if grace.status != http.StatusForbidden || strings.Contains(grace.page, "Levers") {
		t.Errorf("Grace at /admin: got %d\n%s", grace.status, grace.page)
	}
	// Another application of the same provider would not ask again; nor does this one after its own cookie is lost.
	lost, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := url.Parse(d.issuer + "/connect/authorize")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range grace.client.Jar.Cookies(issuer) {
		if c.Name == "idptest" {
			c.Path = "/connect/"
			lost.SetCookies(issuer, []*http.Cookie{c})
		}
	}
	grace.client.Jar = lost
	grace.goTo(d.url+"/guestbook", nil)
	grace.see(200, "/guestbook", "Guest book")
}

func TestCancelAtTheProvider(t *testing.T) {
	d := begin(t, options{tokenLife: time.Minute})
	p := newPerson(t)
	p.signIn(d, "/", "")
	if p.at.Path != "/oauth2/callback" || p.status < 400 || p.status >= 500 {
		t.Errorf("got %d at %s", p.status, p.at)
	}
	p.signIn(d, "/", "ada") // it can be tried again
	p.see(200, "/", "Good day, ada")
}

func TestTakenPortsAreLeftAlone(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var out bytes.Buffer
	l, err := listen("provider", taken.Addr().String(), &out)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if want := taken.Addr().String() + " is taken, so the provider is at " + l.Addr().String() + ".\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// Nobody in the demo has a password, so other machines must not reach it.
func TestListensOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{":4180", "0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1"} {
		if l, err := listen("Postern", address, io.Discard); err == nil {
			l.Close()
			t.Errorf("%s: listened at %s", address, l.Addr())
		}
	}
}

func TestFlags(t *testing.T) {
	o, err := parseFlags([]string{"--listen", "127.0.0.1:1", "--quiet", "--token-life=2s"}, io.Discard)
	want := options{"127.0.0.1:1", "127.0.0.1:9000", "127.0.0.1:3000", 2 * time.Second, true}
	if err != nil || o != want {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, args := range [][]string{{"--token-life=0s"}, {"--token-life=1500ms"}, {"extra"}, {"--unknown"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%v: accepted", args)
		}
	}
}

// TestInterrupt runs the program, talks to it, and presses Ctrl-C while a stream is open.
func TestInterrupt(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "--listen=127.0.0.1:0", "--provider-listen=127.0.0.1:0", "--app-listen=127.0.0.1:0", "--quiet")
	cmd.Env = append(os.Environ(), "POSTERN_DEMO_MAIN=yes")
	var logs bytes.Buffer
	cmd.Stderr = &logs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text := bufio.NewReader(out)
	var said strings.Builder
	for !strings.Contains(said.String(), "Ctrl-C") {
		line, err := text.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %s%s", err, said.String(), logs.String())
		}
		said.WriteString(line)
	}
	for _, want := range []string{"Ada Lovelace (wiki-users, admins)", "Grace Hopper (wiki-users)"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the welcome lacks %q:\n%s", want, said.String())
		}
	}
	found := regexp.MustCompile(`Application +(http://\S+)`).FindStringSubmatch(said.String())
	resp, err := newPerson(t).client.Get(found[1] + "/clock")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(text)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, rest, logs.String())
	}
	if logs.Len() > 0 {
		t.Errorf("--quiet logged:\n%s", logs.String())
	}
}
