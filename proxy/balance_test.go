package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// balancerOf balances over addresses by name.
func balancerOf(t *testing.T, names ...string) *balancer {
	b := &balancer{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, name := range names {
		b.addresses = append(b.addresses, &address{name: name})
	}
	return b
}

func TestFewestUnderWayInTurnAmongEquals(t *testing.T) {
	b := balancerOf(t, "a", "b", "c")
	var order []string
	var open []*address
	for range 5 {
		a := b.pick(nil)
		order, open = append(order, a.name), append(open, a)
	}
	if got := strings.Join(order, ""); got != "abcab" {
		t.Errorf("chosen in the order %s", got)
	}
	b.release(open[1])
	b.release(open[4]) // b has none now, c one, a two
	for i, want := range []string{"b", "c", "b", "c"} {
		if a := b.pick(nil); a.name != want {
			t.Errorf("choice %d is %s, want %s", i, a.name, want)
		}
	}
}

func TestFailingAddressIsSetAsideAndBroughtBackByOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balancerOf(t, "bad", "good")
		bad, down := b.addresses[0], errors.New("refused")
		fail := func() time.Duration {
			t.Helper()
			a := b.pick(nil)
			if a != bad {
				t.Fatalf("tries %s", a.name)
			}
			b.failed(a, down)
			b.failed(a, down) // what was under way beside it counts once
			b.release(a)
			return time.Until(bad.health.until)
		}
		for _, longest := range []time.Duration{1, 2, 4, 8, 16, 30, 30, 30} {
			pause := fail()
			if longest *= time.Second; pause > longest || pause < longest*3/4 {
				t.Fatalf("set aside for %v, want up to %v", pause, longest)
			}
			time.Sleep(pause - time.Nanosecond)
			for range 3 {
				if a := b.pick(nil); a == bad {
					t.Fatal("chosen while set aside")
				} else {
					b.release(a)
				}
			}
			time.Sleep(time.Nanosecond)
		}
		trial := b.pick(nil)
		other := b.pick(nil)
		if trial != bad || other == bad {
			t.Fatal("not exactly one request tries it")
		}
		b.answered(trial)
		b.release(trial)
		if bad.health.failures != 0 {
			t.Error("an answer does not bring it back")
		}
		if pause := fail(); pause > time.Second {
			t.Errorf("begins again with %v", pause)
		}
	})
}

// A request that tells nothing of the address, such as one whose client left, leaves the trial to the next.
func TestTrialWithoutResultIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balancerOf(t, "bad", "good")
		b.failed(b.pick(nil), errors.New("refused"))
		time.Sleep(firstPause)
		for range 2 {
			trial := b.pick(nil)
			if trial.name != "bad" {
				t.Fatalf("tries %s", trial.name)
			}
			b.release(trial)
		}
	})
}

func TestWhereAllAreSetAsideTheLongestIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := balancerOf(t, "a", "b")
		for range b.addresses {
			b.failed(b.pick(nil), errors.New("refused"))
			time.Sleep(time.Millisecond)
		}
		if a := b.pick(nil); a == nil || a.name != "a" {
			t.Errorf("got %v", a)
		}
		if a := b.pick(b.addresses); a != nil {
			t.Errorf("%s is tried twice", a.name)
		}
	})
}

// An answer to a request from before an address was set aside does not bring it back.
func TestLateAnswerBringsNothingBack(t *testing.T) {
	b := balancerOf(t, "a", "b")
	slow := b.pick(nil)
	b.failed(slow, errors.New("refused"))
	b.answered(slow)
	if slow.health.failures == 0 {
		t.Error("back")
	}
}

// alsoAt adds addresses.
func alsoAt(t *testing.T, addresses ...string) func(*upstreamOptions) {
	return func(o *upstreamOptions) {
		for _, address := range addresses {
			at, err := url.Parse(address)
			if err != nil {
				t.Fatal(err)
			}
			o.URLs = append(o.URLs, at)
		}
	}
}

// refusedPort is an address where nobody listens.
func refusedPort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "http://" + ln.Addr().String()
}

// breaker is an application that reads a request's head, says something, and hangs up. It counts requests.
func breaker(t *testing.T, says string) (address string, heads *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	heads = new(atomic.Int64)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				heads.Add(1)
			}
			_, _ = io.WriteString(conn, says)
			conn.Close()
		}
	}()
	return "http://" + ln.Addr().String(), heads
}

// countingEcho answers with method and body, and counts.
func countingEcho(t *testing.T) (address string, n *atomic.Int64) {
	t.Helper()
	n = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Method, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, n
}

const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"

// Nothing was sent where no connection came about: any request goes elsewhere then, its body whole.
func TestUnsentRequestsGoElsewhere(t *testing.T) {
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	for name, bad := range map[string]string{"refused": refusedPort(t), "no socket": "unix:" + filepath.Join(t.TempDir(), "none.sock"), "TLS": untrusted.URL} {
		t.Run(name, func(t *testing.T) {
			good, n := countingEcho(t)
			f := newFront(t, bad, asAlice, alsoAt(t, good))
			if res, body := say(t, f.URL, post); res.StatusCode != 200 || body != "POST hello" {
				t.Errorf("got %s %q", res.Status, body)
			}
			for range 4 {
				if res, _ := say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 200 {
					t.Errorf("got %s", res.Status)
				}
			}
			if h := &f.u.to.addresses[0].health; n.Load() != 5 || h.failures != 1 {
				t.Errorf("the good one has %d requests, the bad one failed %d times", n.Load(), h.failures)
			}
		})
	}
}

// What was sent may have done something: only a request that reads is sent again, and only before any byte of an answer.
func TestSentRequestsGoElsewhereOnlyIfTheyRead(t *testing.T) {
	const handshake = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
	for _, tt := range []struct {
		name, says, request string
		status              int
		elsewhere           int64
	}{
		{"GET", "", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, 1},
		{"HEAD", "", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", 200, 1},
		{"GET with a body", "", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 502, 0},
		{"POST", "", post, 502, 0},
		{"empty POST", "", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 502, 0},
		{"DELETE", "", "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 0},
		{"WebSocket", "", handshake, 502, 0},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 0},
		{"an error", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 500, 0},
		{"an early hint", "HTTP/1.1 103 Early Hints\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 502, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad, sent := breaker(t, tt.says)
			good, n := countingEcho(t)
			f := newFront(t, bad, asAlice, alsoAt(t, good))
			res, _ := sayPastHints(t, f.URL, tt.request)
			if res.StatusCode != tt.status || n.Load() != tt.elsewhere {
				t.Errorf("got %s; elsewhere %d requests", res.Status, n.Load())
			}
			if sent.Load() != 1 {
				t.Errorf("sent %d times to the same address", sent.Load())
			}
			if aside := f.u.to.addresses[0].health.failures > 0; aside != (tt.says == "") {
				t.Errorf("set aside: %v", aside)
			}
		})
	}
}

// sayPastHints is say for answers that begin with 1xx.
func sayPastHints(t *testing.T, address, raw string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	method, _, _ := strings.Cut(raw, " ")
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if res.StatusCode >= 200 {
			body, _ := io.ReadAll(res.Body)
			return res, string(body)
		}
	}
}

func TestWebSocketGoesElsewhereWhenUnsent(t *testing.T) {
	good, _ := rawApplication(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	f := newFront(t, refusedPort(t), asAlice, alsoAt(t, good))
	conn, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != 101 {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestEachAddressIsTriedOnceWhenAllAreDown(t *testing.T) {
	var addresses []string
	var counts []*atomic.Int64
	for range 2 {
		address, n := breaker(t, "")
		addresses, counts = append(addresses, address), append(counts, n)
	}
	f := newFront(t, addresses[0], asAlice, alsoAt(t, addresses[1], refusedPort(t)))
	if res, _ := say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 502 {
		t.Errorf("got %s", res.Status)
	}
	if counts[0].Load() != 1 || counts[1].Load() != 1 {
		t.Errorf("sent %d and %d times", counts[0].Load(), counts[1].Load())
	}
	<-f.failed
	// Set aside as they are, the next request is tried all the same.
	if res, _ := say(t, f.URL, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); res.StatusCode != 502 {
		t.Errorf("got %s", res.Status)
	}
	if got := <-f.failed; got.Reason == "" {
		t.Error("no reason")
	}
}

// What a client does, or asks for, sets nothing aside: otherwise anyone could empty the list.
func TestClientsSetNothingAside(t *testing.T) {
	huge, _ := rawApplication(t, "HTTP/1.1 200 OK\r\nX-Huge: "+strings.Repeat("x", 1<<20)+"\r\nContent-Length: 0\r\n\r\n")
	good, _ := countingEcho(t)
	f := newFront(t, huge, asAlice, alsoAt(t, good))
	for range 2 {
		say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	arrived := make(chan bool)
	waits := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { arrived <- true; <-r.Context().Done() }))
	defer waits.Close()
	left := newFront(t, waits.URL, asAlice, alsoAt(t, waits.URL+"/2"))
	conn, err := net.Dial("tcp", left.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-arrived
	conn.Close()
	if got := <-left.failed; got.Status != statusClientClosed {
		t.Errorf("got %+v", got)
	}
	for _, a := range append(f.u.to.addresses, left.u.to.addresses...) {
		if a.health.failures > 0 {
			t.Errorf("%s is set aside", a.name)
		}
	}
}

// An address that connects to nowhere is set aside even where the route's timeout is shorter than ours for connecting.
func TestTimeoutWhileConnectingSetsAside(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // no TLS handshake comes from here
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	good, _ := countingEcho(t)
	f := newFront(t, "https://"+silent.Addr().String(), asAlice, alsoAt(t, good), func(o *upstreamOptions) { o.Timeout = 50 * time.Millisecond })
	if res, _ := say(t, f.URL, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); res.StatusCode != 504 {
		t.Errorf("got %s", res.Status)
	}
	if f.u.to.addresses[0].health.failures != 1 {
		t.Error("not set aside")
	}
}

// Requests under way are counted to their end, and nothing is lost among many.
func TestBalancedUnderLoad(t *testing.T) {
	bad, _ := breaker(t, "")
	a, na := countingEcho(t)
	b, nb := countingEcho(t)
	f := newFront(t, a, asAlice, alsoAt(t, bad, b, refusedPort(t)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				res, err := http.Get(f.URL)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 200 {
					t.Errorf("got %s", res.Status)
				}
			}
		})
	}
	wg.Wait()
	if na.Load()+nb.Load() != 200 || na.Load() < 50 || nb.Load() < 50 {
		t.Errorf("%d and %d requests", na.Load(), nb.Load())
	}
	f.u.to.mu.Lock()
	defer f.u.to.mu.Unlock()
	for _, a := range f.u.to.addresses {
		if a.health.underWay != 0 {
			t.Errorf("%s has %d under way", a.name, a.health.underWay)
		}
	}
}

// Each address has a base path and a host of its own.
func TestBasePathAndHostOfTheAddress(t *testing.T) {
	var app recorder
	server := httptest.NewServer(&app)
	defer server.Close()
	own := func(o *upstreamOptions) { o.OwnHost = true }
	f := newFront(t, refusedPort(t)+"/one", asAlice, alsoAt(t, server.URL+"/two"), own)
	say(t, f.URL, "GET /x?y HTTP/1.1\r\nHost: wiki.example.com\r\n\r\n")
	got := app.request()
	if got.RequestURI != "/two/x?y" || got.Host != strings.TrimPrefix(server.URL, "http://") || got.Header.Get("X-Forwarded-Host") != "wiki.example.com" {
		t.Errorf("got %q at %q, forwarded for %q", got.RequestURI, got.Host, got.Header.Get("X-Forwarded-Host"))
	}
}
