package proxy_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/proxy"
	"postern/proxy/idp/idptest"
	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

// streamsConfig is that of replicas which share a store.
const streamsConfig = `
server: {listen: "${LISTEN}", public_url: "${ORIGIN}"}
session: {keys: ["${KEY}"], idle_timeout: 30m}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}"}
  - {path: /staff, access: {groups: [wiki-users]}, upstream: "${UPSTREAM}"}
  - {path: /heartbeats, activity: none, upstream: "${UPSTREAM}"}
  - {path: /open, access: public, upstream: "${UPSTREAM}"}
`

// nudgedStore knows the sessions that were made, and can pretend that they changed.
type nudgedStore struct {
	session.Store
	mu   sync.Mutex
	keys []string
}

func (n *nudgedStore) Create(ctx context.Context, key string, rec session.Record, ttl time.Duration, index []session.IndexEntry) ([]session.IndexEntry, error) {
	n.mu.Lock()
	n.keys = append(n.keys, key)
	n.mu.Unlock()
	return n.Store.Create(ctx, key, rec, ttl, index)
}

// nudge makes every replica look at its streams now: the clock of these tests has moved, and timers do not know.
func (n *nudgedStore) nudge(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range n.keys {
		if ok, err := n.Acquire(t.Context(), key, "nudge", time.Minute); err != nil || !ok {
			continue // a refresh is under way, which tells everyone when it is over
		}
		if err := n.Release(t.Context(), key, "nudge"); err != nil {
			t.Fatal(err)
		}
	}
}

// streamApp is an application with streams of every kind, on any path that ends in its kind. None ends by itself.
func streamApp(w http.ResponseWriter, r *http.Request) {
	say := func(s string) {
		_, _ = io.WriteString(w, s)
		_ = http.NewResponseController(w).Flush()
	}
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/ws"):
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, message, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, message) != nil {
				return
			}
		}
	case strings.HasSuffix(path, "/half"): // half a frame, for ever
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n\x82\x0a01234",
			base64.StdEncoding.EncodeToString(sum[:]))
		_, _ = io.Copy(io.Discard, conn)
	case strings.HasSuffix(path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		say("data: 0\n\n")
		<-r.Context().Done()
	case strings.HasSuffix(path, "/endless"):
		w.Header().Set("Content-Type", "application/x-ndjson")
		say("{}\n")
		<-r.Context().Done()
	case strings.HasSuffix(path, "/download"):
		w.Header().Set("Content-Length", "1000000")
		say(strings.Repeat("x", 100_000)) // enough to reach the client
		<-r.Context().Done()
	case strings.HasSuffix(path, "/poll"):
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	default:
		say("hello")
	}
}

// streamStacks are two replicas on one store. The provider's tokens live for an hour.
func streamStacks(t *testing.T, tls bool) (a, b *proxytest.Stack, store *nudgedStore) {
	t.Helper()
	o := proxytest.Options{Config: streamsConfig, App: http.HandlerFunc(streamApp), Clock: &proxytest.Clock{}, Env: map[string]string{"KEY": seal.NewKey()}, TLS: tls}
	store = &nudgedStore{Store: memstore.New(memstore.Options{Now: o.Clock.Now})}
	o.Store = store
	a = proxytest.New(t, o)
	a.Provider.SetTokenTTL(time.Hour)
	o.Provider = a.Provider
	b = proxytest.New(t, o)
	a.Provider.AddClient(idptest.Client{ID: "wiki", Secret: "canary-client-secret", AuthMethod: "client_secret_basic",
		RedirectURIs: []string{a.URL + "/oauth2/callback", b.URL + "/oauth2/callback"}})
	t.Cleanup(func() { // after the clients are closed: a handler of a WebSocket is not waited for by the server
		waitForTied(t, a, 0)
		waitForTied(t, b, 0)
	})
	return a, b, store
}

func dial(t *testing.T, s *proxytest.Stack, b *proxytest.Browser, path string) *websocket.Conn {
	t.Helper()
	var pairs []string
	for _, c := range b.Cookies() {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	c, _, err := websocket.Dial(t.Context(), s.URL+path, &websocket.DialOptions{
		HTTPHeader: http.Header{"Cookie": {strings.Join(pairs, "; ")}}, HTTPClient: &http.Client{Transport: s.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// request begins a request of a program and returns when its answer has.
func request(t *testing.T, s *proxytest.Stack, b *proxytest.Browser, path string) *http.Response {
	t.Helper()
	res, err := askAs(t, s, b, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func askAs(t *testing.T, s *proxytest.Stack, b *proxytest.Browser, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		return nil, err
	}
	for _, c := range b.Cookies() {
		r.AddCookie(c)
	}
	return s.Transport().RoundTrip(r)
}

// closedWith reads c to its end and checks how it was closed.
func closedWith(t *testing.T, c *websocket.Conn, code websocket.StatusCode, reason string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, err := c.Read(ctx)
	var closed websocket.CloseError
	if !errors.As(err, &closed) || closed.Code != code || closed.Reason != reason {
		t.Errorf("the client sees %v, want %d %q", err, code, reason)
	}
}

// waitForTied waits until a replica follows n streams, so that what happens then reaches open ones.
func waitForTied(t *testing.T, s *proxytest.Stack, n int) {
	t.Helper()
	was := -1
	proxytest.Eventually(t, func() bool {
		if got := proxy.Tied(s.Proxy); got != was {
			was = got
			t.Logf("%d tied", got)
		}
		return was == n
	})
}

// A131: signing out on one replica closes a WebSocket on another, with 1008 and a reason where frames allow it.
func TestA131_SignOutElsewhereClosesWebSockets(t *testing.T) {
	a, b, _ := streamStacks(t, false)
	alice, other := a.Browser(), a.Browser()
	alice.Go("/")
	other.Go("/")
	c, half, stays := dial(t, a, alice, "/ws"), dialRaw(t, a, alice, "/half"), dial(t, a, other, "/ws")
	for _, ws := range []*websocket.Conn{c, stays} {
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, got, err := ws.Read(t.Context()); err != nil || string(got) != "hi" {
			t.Fatal(string(got), err)
		}
	}
	waitForTied(t, a, 3)
	began := time.Now()
	if out := alice.At(b).Post("/oauth2/logout", nil); out.StatusCode != http.StatusOK {
		t.Fatal(out.Status)
	}
	closedWith(t, c, websocket.StatusPolicyViolation, "signed out")
	t.Logf("closed %v after the beginning of the sign-out", time.Since(began))
	// In the middle of a frame no close frame can stand: the connection is cut.
	if rest, err := io.ReadAll(half); strings.ContainsRune(string(rest), '\x88') {
		t.Errorf("half a frame ends with %q, %v", rest, err)
	}
	waitForTied(t, a, 1)
	if err := stays.Write(t.Context(), websocket.MessageText, []byte("still here")); err != nil {
		t.Error(err)
	}
	if _, got, err := stays.Read(t.Context()); err != nil || string(got) != "still here" {
		t.Error(string(got), err)
	}
	if log := a.Log.String(); !strings.Contains(log, `"reason":"session_ended_signed_out"`) {
		t.Errorf("the log does not say why")
	}
}

// dialRaw opens a WebSocket and returns its connection behind the answer to the handshake.
func dialRaw(t *testing.T, s *proxytest.Stack, b *proxytest.Browser, path string) *bufio.ReadWriter {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	var cookies []string
	for _, c := range b.Cookies() {
		cookies = append(cookies, c.Name+"="+c.Value)
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: %s\r\n\r\n", path, strings.TrimPrefix(s.URL, "http://"), strings.Join(cookies, "; "))
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	return bufio.NewReadWriter(r, bufio.NewWriter(conn))
}

// A133: responses that take long end with their session: event streams in good order, others so that nobody takes the part for the whole, and
// what the application has not answered yet as if it had come later. By HTTP/1.1 and HTTP/2.
func TestA133_SignOutElsewhereEndsLongResponses(t *testing.T) {
	for _, secure := range []bool{false, true} {
		a, b, _ := streamStacks(t, secure)
		alice := a.Browser()
		alice.Go("/")
		events, endless, download := request(t, a, alice, "/events"), request(t, a, alice, "/endless"), request(t, a, alice, "/download")
		open := request(t, a, alice, "/open/events")
		if major := map[bool]int{false: 1, true: 2}[secure]; events.ProtoMajor != major {
			t.Fatalf("it is HTTP/%d", events.ProtoMajor)
		}
		polled := make(chan *http.Response, 1)
		go func() {
			res, err := askAs(t, a, alice, "/poll")
			if err != nil {
				t.Errorf("poll: %v", err)
			}
			polled <- res
		}()
		waitForTied(t, a, 4)
		if out := alice.At(b).Post("/oauth2/logout", nil); out.StatusCode != http.StatusOK {
			t.Fatal(out.Status)
		}
		if text, err := io.ReadAll(events.Body); string(text) != "data: 0\n\n" || err != nil {
			t.Errorf("TLS %v: events end with %q, %v", secure, text, err)
		}
		if text, err := io.ReadAll(endless.Body); string(text) != "{}\n" || err == nil {
			t.Errorf("TLS %v: a response of unknown length ends with %q, %v", secure, text, err)
		}
		if text, err := io.ReadAll(download.Body); len(text) > 100_000 || err == nil {
			t.Errorf("TLS %v: a download ends after %d bytes, %v", secure, len(text), err)
		}
		if poll := <-polled; poll != nil {
			text, _ := io.ReadAll(poll.Body)
			poll.Body.Close()
			if poll.StatusCode != http.StatusUnauthorized || !strings.Contains(string(text), `"ended":"signed_out"`) {
				t.Errorf("TLS %v: a long poll is answered with %s %s", secure, poll.Status, text)
			}
		}
		waitForTied(t, a, 0)
		read := make(chan error, 1)
		go func() { // a public route's stream has nothing to do with any session
			_, err := io.ReadAll(open.Body)
			read <- err
		}()
		select {
		case err := <-read:
			t.Errorf("TLS %v: a public stream ended: %v", secure, err)
		default:
		}
		open.Body.Close()
		<-read
	}
}

// A133, A131: events that are only received keep no session; the WebSocket of the same session ends with it, too.
func TestA133_IdleAndLifetimeEndStreams(t *testing.T) {
	for why, after := range map[string]time.Duration{"session idle": 40 * time.Minute, "session at its greatest age": 13 * time.Hour} {
		a, _, store := streamStacks(t, false)
		alice := a.Browser()
		alice.Go("/")
		ws, events := dial(t, a, alice, "/ws"), request(t, a, alice, "/events")
		waitForTied(t, a, 2)
		a.Clock.Add(after)
		store.nudge(t)
		closedWith(t, ws, websocket.StatusPolicyViolation, why)
		if _, err := io.ReadAll(events.Body); err != nil {
			t.Error(err)
		}
		waitForTied(t, a, 0)
	}
}

// What the client sends as data counts as activity, in pieces too; pings and pongs do not; nor does anything where the route says so.
func TestStreamActivity(t *testing.T) {
	const idle = "\x88\x0e\x03\xf0session idle"
	for _, tt := range []struct {
		name, path, send, answer string
		lives                    bool
	}{
		{"text", "/ws", "\x81\x81\x00\x00\x00\x001", "\x81\x011", true},
		{"binary", "/ws", "\x82\x81\x00\x00\x00\x001", "\x82\x011", true},
		{"ping", "/ws", "\x89\x81\x00\x00\x00\x001", "\x8a\x011", false},
		{"pong", "/ws", "\x8a\x80\x00\x00\x00\x00", "", false},
		{"text, activity: none", "/heartbeats/ws", "\x81\x81\x00\x00\x00\x001", "\x81\x011", false},
	} {
		a, _, store := streamStacks(t, false)
		alice := a.Browser()
		alice.Go("/")
		c := dialRaw(t, a, alice, tt.path)
		waitForTied(t, a, 1)
		send := func() {
			_, _ = c.WriteString(tt.send)
			_ = c.Flush()
			got := make([]byte, len(tt.answer))
			if _, err := io.ReadFull(c, got); string(got) != tt.answer {
				t.Errorf("%s: got %q, %v", tt.name, got, err)
			}
		}
		for range 2 {
			a.Clock.Add(20 * time.Minute) // of 30
			send()
		}
		store.nudge(t)
		if tt.lives {
			send()
			if got := alice.Fetch("/"); got.StatusCode != http.StatusOK {
				t.Errorf("%s: a request gets %s", tt.name, got.Status)
			}
			continue
		}
		got := make([]byte, len(idle))
		if _, err := io.ReadFull(c, got); string(got) != idle {
			t.Errorf("%s: got %q, %v", tt.name, got, err)
		}
	}
}

// Whoever uploads something large is not idle.
func TestUploadIsActivity(t *testing.T) {
	a, _, store := streamStacks(t, false)
	alice := a.Browser()
	alice.Go("/")
	body, client := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL+"/poll", body)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range alice.Cookies() {
		r.AddCookie(c)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := a.Transport().RoundTrip(r); err == nil {
			t.Errorf("the upload is answered with %s", res.Status)
			res.Body.Close()
		}
	}()
	chunk := make([]byte, 16<<20) // more than what lies between us and Postern
	_, _ = client.Write(chunk)
	waitForTied(t, a, 1)
	for range 2 {
		a.Clock.Add(20 * time.Minute) // of 30
		_, _ = client.Write(chunk)
	}
	store.nudge(t)
	if got := alice.Fetch("/"); got.StatusCode != http.StatusOK {
		t.Errorf("a request meanwhile gets %s", got.Status)
	}
	cancel()
	_ = client.Close()
	<-done
}

func say1(t *testing.T, c *websocket.Conn) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// On a route with activity: none requests do not count either.
func TestActivityNoneHoldsForRequests(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: streamsConfig, App: http.HandlerFunc(streamApp), Env: map[string]string{"KEY": seal.NewKey()}})
	for path, want := range map[string]int{"/page": http.StatusOK, "/heartbeats/page": http.StatusUnauthorized} {
		b := s.Browser()
		b.Go("/")
		for range 2 {
			s.Clock.Add(20 * time.Minute)
			if a := b.Fetch(path); a.StatusCode != http.StatusOK && want == http.StatusOK {
				t.Errorf("%s: %s", path, a.Status)
			}
		}
		if a := b.Fetch(path); a.StatusCode != want {
			t.Errorf("%s: after 40 minutes of requests every 20: %s", path, a.Status)
		}
	}
}

// A172, A131: a session that only streams use is refreshed, and rules are decided again on what comes; a dismissed person's streams end.
func TestA131_RefreshReachesStreams(t *testing.T) {
	a, b, store := streamStacks(t, false)
	a.Provider.SetIDTokenOnRefresh(true)
	a.Provider.SetTokenTTL(10 * time.Minute)
	alice := a.Browser()
	alice.Go("/")
	staff, open, there := dial(t, a, alice, "/staff/ws"), dial(t, a, alice, "/ws"), dial(t, b, alice.At(b), "/staff/ws")
	waitForTied(t, a, 2)
	waitForTied(t, b, 1)
	a.Provider.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"groups": []string{"leavers"}}})
	calls := a.Provider.Calls(idptest.Token)
	a.Clock.Add(10 * time.Minute)
	store.nudge(t)
	closedWith(t, staff, websocket.StatusPolicyViolation, "access no longer allowed")
	closedWith(t, there, websocket.StatusPolicyViolation, "access no longer allowed")
	if n := a.Provider.Calls(idptest.Token) - calls; n != 1 {
		t.Errorf("%d refreshes", n)
	}
	for _, replica := range []*proxytest.Stack{a, b} { // who is kept out from now on is audited as anyone is
		oneAudited(t, replica, "access_refused", map[string]any{"user": "alice", "path": "/staff/ws", "reason": "groups", "method": "GET"})
	}
	say1(t, open)
	waitForTied(t, a, 1)
	a.Provider.RevokeUser("alice")
	a.Clock.Add(10 * time.Minute)
	store.nudge(t)
	closedWith(t, open, websocket.StatusPolicyViolation, "session not prolonged by the identity provider")
}

// A131: signing in again in the same browser takes the place of the session.
func TestA131_ReplacedSessionClosesItsStreams(t *testing.T) {
	a, _, _ := streamStacks(t, false)
	alice := a.Browser()
	alice.Go("/")
	c := dial(t, a, alice, "/ws")
	waitForTied(t, a, 1)
	alice.Go("/oauth2/start?rd=/")
	closedWith(t, c, websocket.StatusPolicyViolation, "signed in again")
}
