package proxy_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postern/proxy"
	"postern/proxy/proxytest"
)

const upstreamsConfig = `
server: {listen: "${LISTEN}", max_request_body: 10B}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: ["${NOBODY}", "${UPSTREAM}/base"], upstream_host: upstream}
  - {path: /large, upstream: "${UPSTREAM}", max_request_body: 20B}
  - {path: /app/v1, upstream: "${UPSTREAM}/base", strip_prefix: /app/, rewrite_response: true}
  - {path: /docs, upstream: "file://${DOCS}", strip_prefix: /docs, headers_response: {X-Reader: user}}
  - {path: /public, upstream: "file://${DOCS}", strip_prefix: /public, access: public}
`

// What the file says of upstreams reaches them.
func TestUpstreamsAsTheFileSays(t *testing.T) {
	docs := t.TempDir()
	if err := os.WriteFile(filepath.Join(docs, "a.html"), []byte("a page"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := proxytest.New(t, proxytest.Options{Config: upstreamsConfig, Env: map[string]string{"NOBODY": "http://127.0.0.1:1", "DOCS": docs}})
	b := s.Browser()
	for range 3 {
		if got := b.Go("/x").Received(t); got.Target != "/base/x" || got.Host != strings.TrimPrefix(s.App.URL, "http://") {
			t.Errorf("balanced: got %s at %s", got.Target, got.Host)
		}
	}
	if n := strings.Count(s.Log.String(), `"msg":"upstream set aside"`); n != 1 {
		t.Errorf("told of %d times", n)
	}
	for path, limit := range map[string]int{"/": 10, "/large": 20} {
		for size, want := range map[int]int{limit: 200, limit + 1: 413} {
			if a := b.Do("POST", path, strings.NewReader(strings.Repeat("x", size)), nil); a.StatusCode != want {
				t.Errorf("%d bytes to %s: %s", size, path, a.Status)
			}
		}
	}
	got := b.Fetch("/app/v1/x?y").Received(t)
	if got.Target != "/base/v1/x?y" || got.Header.Get("X-Forwarded-Prefix") != "/app" || got.Host != strings.TrimPrefix(s.URL, "http://") {
		t.Errorf("stripped: got %s at %s, %v", got.Target, got.Host, got.Header)
	}

	a := b.Go("/docs/a.html")
	if a.StatusCode != 200 || a.Text != "a page" || a.Header.Get("Cache-Control") != "private" || a.Header.Get("X-Reader") != "alice" {
		t.Errorf("file: %s %v", a.Status, a.Header)
	}
	if a := b.Go("/docs/none"); a.StatusCode != 404 || a.Header.Get("Cache-Control") != "no-store" || !strings.Contains(a.Text, "Nothing here") {
		t.Errorf("no file: %s %v", a.Status, a.Header)
	}
	stranger := s.Browser()
	if a := stranger.Fetch("/docs/a.html"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger gets %s", a.Status)
	}
	if a := stranger.Fetch("/public/a.html"); a.StatusCode != 200 || a.Header.Get("Cache-Control") != "" {
		t.Errorf("a public file: %s %v", a.Status, a.Header)
	}
}

// A file on its way is cut when the session ends, like any answer.
func TestFileIsCutWithTheSession(t *testing.T) {
	docs := t.TempDir()
	file, err := os.Create(filepath.Join(docs, "large.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	s := proxytest.New(t, proxytest.Options{Config: upstreamsConfig, Env: map[string]string{"NOBODY": "http://127.0.0.1:1", "DOCS": docs}})
	b := s.Browser()
	b.Go("/app/v1").Received(t)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/docs/large.bin", nil)
	for _, c := range b.Cookies() {
		r.AddCookie(c)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	proxytest.Eventually(t, func() bool { return proxy.Tied(s.Proxy) == 1 }) // it waits for this client to read
	b.Post("/oauth2/logout", nil)
	var n int64
	buffer := make([]byte, 1<<20)
	for err == nil {
		var k int
		k, err = res.Body.Read(buffer)
		n += int64(k)
	}
	if n == 1<<30 {
		t.Error("the whole file came")
	}
}

// Routes to the same application use the same connections, unless they differ in how long it may take.
func TestRoutesShareConnections(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}", access: public}
  - {path: /base, upstream: "${UPSTREAM}/base", access: public}
  - {path: /timed, upstream: "${UPSTREAM}", access: public, timeout: 20s}
`, App: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) })})
	b := s.Browser()
	first, second, timed := b.Go("/").Text, b.Go("/base").Text, b.Go("/timed").Text
	if first == "" || first != second {
		t.Errorf("the same application got connections from %q and %q", first, second)
	}
	if timed == first {
		t.Error("a route with another time limit uses the same connection")
	}
}
