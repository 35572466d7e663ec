package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is a folder of files with what must not be served in and beside it.
func site(t *testing.T) string {
	t.Helper()
	above := t.TempDir()
	dir := filepath.Join(above, "www")
	for name, text := range map[string]string{
		"secret.txt": "secret", "www/index.html": "<h1>home</h1>", "www/a b.txt": "spaced", "www/100%.txt": "percent", "www/docs/index.html": "docs",
		"www/docs/page.html": "page", "www/list/x.txt": "x", "www/.env": "secret", "www/.git/config": "secret", "www/docs/.htpasswd": "secret", "www/ü.txt": "umlaut",
		"www/data.bin": strings.Repeat("0123456789", 100),
	} {
		path := filepath.Join(above, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte(text))
	}
	for name, target := range map[string]string{
		"inside": "docs/page.html", "outside": "../secret.txt", "absolute": filepath.Join(above, "secret.txt"), "up": "..", "root": "/",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newFolderFront(t *testing.T, dir string, change ...func(*upstreamOptions)) *front {
	return newFront(t, (&url.URL{Scheme: "file", Path: dir}).String(), asAlice, change...)
}

func get(path string, header ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: wiki.example.com\r\n" + strings.Join(append(header, "", ""), "\r\n")
}

func TestFilesOfAFolder(t *testing.T) {
	f := newFolderFront(t, site(t))
	for path, want := range map[string]string{
		"/": "<h1>home</h1>", "/index.html": "<h1>home</h1>", "/?q=%zz": "<h1>home</h1>", "/a%20b.txt": "spaced", "/100%25.txt": "percent", "/docs/": "docs",
		"/docs/page.html": "page", "/inside": "page", "/%C3%BC.txt": "umlaut", "/%64ocs/p%61ge.html": "page",
	} {
		if res, body := say(t, f.URL, get(path)); res.StatusCode != 200 || body != want {
			t.Errorf("%s: got %s %q", path, res.Status, body)
		}
	}
}

// A100 for files: nothing outside the folder, nothing hidden, no lists, and nothing that would wait for ever.
func TestFilesThatAreNotServed(t *testing.T) {
	f := newFolderFront(t, site(t), func(o *upstreamOptions) { o.EncodedSlash = true })
	for _, path := range []string{
		"/none", "/docs/none", "/data.bin/", "/data.bin/x", "/list/", "/.env", "/.git/config", "/.git/", "/%2egit/config", "/docs/.htpasswd", "/docs%2Fpage.html",
		"/outside", "/absolute", "/up/secret.txt", "/root/etc/passwd", "/pipe", "/" + strings.Repeat("x", 1000), "/docs/page.html;x",
	} {
		res, body := say(t, f.URL, get(path))
		if got := <-f.failed; res.StatusCode != 404 || got.Reason != "no_file" || body != "" {
			t.Errorf("%s: got %s %q, %+v", path, res.Status, body, got)
		}
	}
	for _, path := range []string{"/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/docs/..%5c..%5csecret.txt", "/%252e%252e/secret.txt", "//etc/passwd", "/x%00.txt", "/..;/secret.txt"} {
		res, body := say(t, f.URL, get(path))
		if <-f.failed; res.StatusCode != 400 || body != "" {
			t.Errorf("%s: got %s %q", path, res.Status, body)
		}
	}
}

func TestFolderWithoutSlashIsSentOn(t *testing.T) {
	dir := site(t)
	if err := os.Mkdir(filepath.Join(dir, "a:b"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/docs": "./docs/", "/docs?a=b&c": "./docs/?a=b&c", "/a:b": "./a:b/", "/d%6Fcs": "./d%6Fcs/"} {
		res, _ := say(t, newFolderFront(t, dir).URL, get(path))
		if res.StatusCode != 302 || res.Header.Get("Location") != want {
			t.Errorf("%s: got %s to %q", path, res.Status, res.Header.Get("Location"))
		}
	}
	// Behind a prefix too, which may itself be all of the path.
	f := newFolderFront(t, dir, func(o *upstreamOptions) { o.StripPrefix = "/site" })
	for path, want := range map[string]string{"/site": "./site/", "/site/docs": "./docs/"} {
		if res, _ := say(t, f.URL, get(path)); res.StatusCode != 302 || res.Header.Get("Location") != want {
			t.Errorf("%s: got %s to %q", path, res.Status, res.Header.Get("Location"))
		}
	}
	if _, body := say(t, f.URL, get("/site/docs/page.html")); body != "page" {
		t.Errorf("got %q", body)
	}
}

func TestFilesAnswerConditionsAndRanges(t *testing.T) {
	dir := site(t)
	f := newFolderFront(t, dir, func(o *upstreamOptions) { o.HSTS = "max-age=1" })
	res, body := say(t, f.URL, get("/data.bin"))
	h := res.Header
	etag := h.Get("ETag")
	if len(body) != 1000 || etag == "" || h.Get("Last-Modified") == "" || h.Get("Cache-Control") != "private" || h.Get("Strict-Transport-Security") != "max-age=1" ||
		h.Get("Content-Length") != "1000" || h.Get("Accept-Ranges") != "bytes" {
		t.Errorf("got %v", h)
	}
	for _, tt := range []struct {
		header, body string
		status       int
	}{
		{"If-None-Match: " + etag, "", 304},
		{"If-None-Match: \"other\"", body, 200},
		{"If-Modified-Since: " + h.Get("Last-Modified"), "", 304},
		{"Range: bytes=10-14", "01234", 206},
		{"Range: bytes=-3", "789", 206},
		{"Range: bytes=5000-", "", 416},
		{"Range: bytes=0-1\r\nIf-Range: \"other\"", body, 200},
	} {
		res, got := say(t, f.URL, get("/data.bin", tt.header))
		if res.StatusCode != tt.status || tt.status < 300 && got != tt.body {
			t.Errorf("%s: got %s, %d bytes", tt.header, res.Status, len(got))
		}
	}
	if res, body := say(t, f.URL, strings.Replace(get("/data.bin"), "GET", "HEAD", 1)); res.StatusCode != 200 || res.ContentLength != 1000 || body != "" {
		t.Errorf("HEAD: got %s, %d", res.Status, res.ContentLength)
	}
	write(t, filepath.Join(dir, "data.bin"), []byte("new"))
	if res, body := say(t, f.URL, get("/data.bin", "If-None-Match: "+etag)); res.StatusCode != 200 || body != "new" {
		t.Errorf("changed: got %s %q", res.Status, body)
	}
}

func TestFilesAreOnlyRead(t *testing.T) {
	f := newFolderFront(t, site(t))
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"} {
		res, _ := say(t, f.URL, method+" / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %s, %q", method, res.Status, res.Header.Get("Allow"))
		}
	}
}

// A folder that is replaced as a whole, as deployments do, is served as it is now; one that is missing is the operator's matter.
func TestFolderIsOpenedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "current")
	f := newFolderFront(t, dir)
	res, _ := say(t, f.URL, get("/"))
	if got := <-f.failed; res.StatusCode != 502 || got.Reason != "no_folder" {
		t.Errorf("got %s, %+v", res.Status, got)
	}
	for i := range 2 {
		release := t.TempDir()
		write(t, filepath.Join(release, "index.html"), []byte(fmt.Sprint(i)))
		_ = os.Remove(dir)
		if err := os.Symlink(release, dir); err != nil {
			t.Fatal(err)
		}
		if _, body := say(t, f.URL, get("/")); body != fmt.Sprint(i) {
			t.Errorf("release %d: got %q", i, body)
		}
	}
}

// A file on its way is cut by the timeout, and does not look whole.
func TestFileIsCutByTimeout(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "large.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	f := newFolderFront(t, dir, within(50*time.Millisecond))
	res, err := http.Get(f.URL + "/large.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	time.Sleep(200 * time.Millisecond) // a client that does not read holds the file up
	if n, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Errorf("got %d bytes as if they were all", n)
	}
}
