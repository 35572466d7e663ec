//go:build attack

package attack_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/cmd/postern/proctest"
	"postern/proxy/idp/idptest"
)

// The tests of this file hold what Postern takes of memory and goroutines under strain, and that it lets go of them. They are small in
// make attack, and as large as -full makes them in make floor.

// full is the flag -full.
var full bool

// size is how large an attack is.
func size(small, large int) int {
	if full {
		return large
	}
	return small
}

// operators is the token of the admin listener.
const operators = "canary-token-of-operators"

// strain is what one attack costs the program.
type strain struct {
	w            *world
	what         string
	before, peak use
}

// use is what a program has. Heap is what is held after a collection: the system gets memory back later.
type use struct{ memory, heap, goroutines int }

// newStrain begins to measure. The world needs the admin listener of [strained].
func (w *world) newStrain(what string, args ...any) *strain {
	w.t.Helper()
	w.ask(w.get("/warm"))
	s := &strain{w: w, what: fmt.Sprintf(what, args...), before: w.use()}
	s.peak = s.before
	// From here on VmHWM is the peak (proc_pid_clear_refs(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", w.process.PID()), []byte("5"), 0); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// strained are the settings of a world that is measured.
func strained(o settings) settings {
	o.server = join("admin: {token: "+operators+"}", o.server)
	return o
}

// height takes the number of goroutines while the attack is at its height.
func (s *strain) height() {
	s.w.t.Helper()
	s.peak.goroutines = max(s.peak.goroutines, s.w.use().goroutines)
}

// ends holds what the attack took against its bounds, and waits until the program is as it was.
func (s *strain) ends(memory, goroutines int) {
	t := s.w.t
	t.Helper()
	s.peak.memory = s.w.memory("VmHWM")
	if grown := s.peak.memory - s.before.memory; grown > memory {
		t.Errorf("%s: it takes %d MiB, more than %d", s.what, grown>>20, memory>>20)
	}
	if grown := s.peak.goroutines - s.before.goroutines; grown > goroutines {
		t.Errorf("%s: it takes %d goroutines, more than %d", s.what, grown, goroutines)
	}
	left := s.before.heap + 16<<20 + s.peak.goroutines<<9 // Go keeps half a KiB of each goroutine, for the next one
	var after use
	proctest.Eventually(t, s.what+": the program lets go", func() error {
		if after = s.w.use(); after.goroutines > s.before.goroutines+30 || after.heap > left {
			return fmt.Errorf("it has %d goroutines and %d MiB in use, before %d and %d", after.goroutines, after.heap>>20, s.before.goroutines, s.before.heap>>20)
		}
		return nil
	})
	verdicts.Lock()
	defer verdicts.Unlock()
	verdicts.strains = append(verdicts.strains, fmt.Sprintf("%-50s %9d %9d %9d %11d %9d %9d %9d", s.what, s.before.memory>>20, s.peak.memory>>20, after.memory>>20, after.heap>>20, s.before.goroutines, s.peak.goroutines, after.goroutines))
}

// printStrains prints what was measured. Its caller holds the lock of the verdicts.
func printStrains() {
	fmt.Printf("%-50s %9s %9s %9s %11s %9s %9s %9s\n", "MiB of memory and goroutines", "before", "peak", "after", "heap after", "before", "peak", "after")
	for _, line := range verdicts.strains {
		fmt.Println(line)
	}
}

// use collects garbage and measures.
func (w *world) use() use {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.admin+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+operators)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s, %v", resp.Status, err)
	}
	_, metrics, err := w.askAdmin("/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	value := func(name string) int {
		_, rest, _ := strings.Cut(metrics, "\n"+name+" ")
		text, _, _ := strings.Cut(rest, "\n")
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		return int(n)
	}
	return use{w.memory("VmRSS"), value("go_memstats_heap_alloc_bytes"), value("go_goroutines")}
}

// memory is the resident memory of the program: VmRSS as it is, VmHWM at most.
func (w *world) memory(what string) int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.process.PID()))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), what+":")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return kib << 10
}

// written is the number of changes that Redis has ever made.
func (w *world) written() string {
	w.t.Helper()
	info, err := w.redis.Client().Info(w.t.Context(), "persistence").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "rdb_changes_since_last_save:")
	n, _, _ := strings.Cut(rest, "\r")
	return n
}

func TestA190_StrangersWriteNothing(t *testing.T) {
	attack(t)
	w := newWorld(t, strained(settings{}))
	rounds := size(500, 25_000)
	s := w.newStrain("%d requests of strangers", 4*rounds)
	written := w.written()
	next := make(chan int)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for i := range next {
				for _, line := range [][2]string{
					{fmt.Sprintf("/x%d", i), "Accept: text/html"}, {"/oauth2/start?rd=/x", "Accept: text/html"}, {fmt.Sprintf("/oauth2/callback?code=x%d&state=y%d", i, i), "Accept: */*"},
					{"/x", fmt.Sprintf("Cookie: %s=x%d", w.cookie, i)},
				} {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.origin+line[0], nil)
					if err != nil {
						t.Error(err)
						continue
					}
					name, value, _ := strings.Cut(line[1], ": ")
					r.Header.Set(name, value)
					resp, err := w.transport.RoundTrip(r)
					if err != nil {
						t.Error(err)
						continue
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode == http.StatusOK || resp.StatusCode >= 500 {
						t.Errorf("%s with %s: %s", line[0], line[1], resp.Status)
					}
				}
			}
		})
	}
	for i := range rounds {
		next <- i
	}
	close(next)
	s.height()
	clients.Wait()
	if now := w.written(); now != written {
		t.Errorf("Redis has made %s changes, before %s", now, written)
	}
	s.ends(64<<20, 100)
	w.app.none(t)
	if w.browser().signIn("/x"); w.written() == written {
		t.Error("a session writes nothing either: the count proves nothing")
	}
}

func TestA191_SlowAndRestlessClientsHoldNobodyUp(t *testing.T) {
	attack(t)
	w := newWorld(t, strained(settings{routes: everyone}))
	many := size(300, 10_000)
	s := w.newStrain("%d half-open clients", many)
	var half []net.Conn
	for i := range many {
		c, err := w.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 3 {
		case 0: // says nothing
		case 1:
			_, err = io.WriteString(c, "GET /x HTTP/1.1\r\nHost: app.example.com\r\nX-Slow: ")
		case 2:
			_, err = io.WriteString(c, w.request("POST /slow", "Content-Length: 100")+"a")
		}
		if err != nil {
			t.Fatal(err)
		}
		half = append(half, c)
	}
	s.height()
	w.serves(fmt.Sprintf("among %d half-open clients", many))
	for i, c := range half {
		if i%3 == 2 { // bodies have a minute: TestA191_ABodyThatStandsStillIsCut in proxy
			continue
		}
		_ = c.SetDeadline(time.Now().Add(proctest.Patience)) // headers have ten seconds
		got, err := io.ReadAll(c)
		if err != nil && os.IsTimeout(err) || bytes.HasPrefix(got, []byte("HTTP/1.1 200")) {
			t.Fatalf("a header that does not end: %q, %v", got, err)
		}
	}
	for _, c := range half {
		c.Close()
	}
	s.ends(64<<20+many*48<<10, 100+many*3)
}

func TestA192_ALargeUploadStreams(t *testing.T) {
	attack(t)
	mebibytes := size(256, 10<<10)
	got := make(chan int64, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: proctest.Patience, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodPost {
			got <- n
		}
	})}
	go func() { _ = server.Serve(l) }() // ends with the test
	t.Cleanup(func() { server.Close() })
	w := newWorld(t, strained(settings{routes: "  - {upstream: \"http://" + l.Addr().String() + "\", access: public}\n"}))
	s := w.newStrain("an upload of %d MiB", mebibytes)
	c := w.dial()
	c.send(w.request("POST /x", "Content-Length: "+strconv.Itoa(mebibytes<<20)))
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for i := range mebibytes {
		if err := c.SetDeadline(time.Now().Add(proctest.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Conn.Write(piece); err != nil {
			t.Fatal(err)
		}
		if i == mebibytes/2 {
			s.height()
		}
	}
	if a := c.answer("POST"); a == nil || a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	if n := <-got; n != int64(mebibytes)<<20 {
		t.Errorf("%d bytes arrive", n)
	}
	c.Close()
	s.ends(48<<20, 20)
}

func TestA151_AnAnswerWithoutEndStreams(t *testing.T) {
	attack(t)
	mebibytes := size(256, 10<<10)
	w := newWorld(t, strained(settings{routes: everyone}))
	s := w.newStrain("an answer without end, read for %d MiB", mebibytes)
	left := make(chan struct{})
	piece := strings.Repeat("x", 256<<10)
	w.app.answersBy(func(_ *received, conn net.Conn) bool {
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		for err == nil {
			_, err = io.WriteString(conn, piece)
		}
		close(left)
		return false
	})
	c, err := w.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, w.get("/endless")); err != nil {
		t.Fatal(err)
	}
	for i := range mebibytes {
		_ = c.SetDeadline(time.Now().Add(proctest.Patience))
		if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
			t.Fatal(err)
		}
		if i == mebibytes/2 {
			s.height()
		}
	}
	c.Close()
	<-left // the application is let go
	s.ends(48<<20, 20)
}

func TestA162_AHugeKeySetIsNotRead(t *testing.T) {
	attack(t)
	w := newWorld(t, strained(settings{}))
	s := w.newStrain("a key set of 1 GiB")
	var sent atomic.Int64
	piece := bytes.Repeat([]byte(" "), 64<<10)
	w.provider.On(idptest.JWKS, func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Content-Type", "application/json")
		for range 1 << 30 / len(piece) {
			n, err := rw.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				break
			}
		}
		return true
	})
	w.provider.RotateKeys(false) // so that the set is asked for
	b := w.browser()
	b.refused(b.navigate(b.callback("/").String()), http.StatusBadGateway, http.StatusServiceUnavailable)
	s.height()
	if n := sent.Load(); n == 0 || n > 32<<20 {
		t.Errorf("%d bytes of it are taken", n)
	}
	w.provider.Heal(idptest.JWKS)
	s.ends(48<<20, 50)
}

func TestA192_ManyWebSocketsAreHeld(t *testing.T) {
	attack(t)
	many := size(200, 5000)
	w := newWorld(t, strained(settings{}))
	b := w.browser()
	b.signIn("/x")
	w.app.sockets()
	s := w.newStrain("%d open WebSockets", many)
	var open []*wire
	for i := range many {
		c := w.dial().send(w.handshake("/x", b.cookies(), "Origin: "+w.origin))
		if a := c.answer("GET"); a == nil || a.status != http.StatusSwitchingProtocols {
			t.Fatalf("the WebSocket %d: %+v", i, a)
		}
		open = append(open, c)
	}
	s.height()
	w.ask(w.get("/x", b.cookies()))
	for _, c := range open {
		c.Close()
	}
	s.ends(64<<20+many*32<<10, 100+many*2)
}
