//go:build e2e

package e2e_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"postern/session/redistest"
)

// forms is an application with a form for a file, and a page that shows what stands after # in its address.
type forms struct {
	*upstream
	mu   sync.Mutex
	got  []byte
	name string
	note string
}

func startForms(t *testing.T) *forms {
	t.Helper()
	f := &forms{upstream: &upstream{}}
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "form-action 'self'")
		fmt.Fprintf(w, `<!doctype html><html lang="en"><title>Forms</title><link rel="icon" href="data:,">%s</html>`, body)
	}
	mux.HandleFunc("GET /desk/form", func(w http.ResponseWriter, _ *http.Request) {
		page(w, `<form method="post" action="save?draft=7" enctype="multipart/form-data">
<input id="note" name="note"><input id="file" type="file" name="file"><button id="save">Save</button></form>`)
	})
	mux.HandleFunc("POST /desk/save", func(w http.ResponseWriter, r *http.Request) {
		file, header, err := r.FormFile("file")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		content, err := io.ReadAll(file)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		f.got, f.name, f.note = content, header.Filename, r.FormValue("note")
		f.mu.Unlock()
		http.Redirect(w, r, "saved?"+r.URL.RawQuery, http.StatusSeeOther)
	})
	mux.HandleFunc("GET /desk/saved", func(w http.ResponseWriter, _ *http.Request) { page(w, `<h1 id="saved">Saved</h1>`) })
	mux.HandleFunc("GET /spa/", func(w http.ResponseWriter, _ *http.Request) {
		page(w, `<h1 id="app">An application that routes by #</h1>`)
	})
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

// startDesk starts everything, with sessions in Redis that idle out soon.
func startDesk(t *testing.T) (*postern, *forms, *browser) {
	t.Helper()
	redis := startRedis(t, redistest.Options{})
	idpPort, app := freePort(t), startForms(t)
	config := minimal(t, idpPort, app.upstream, "  - {path: /spa, upstream: "+app.URL+", keep_fragment: true}", stored(redis, keygen(t)), "  idle_timeout: 10s")
	p := newPostern(t, config, freePort(t), "")
	startProvider(t, providerSettings{Port: idpPort, Origin: p.origin})
	p.start(t)
	p.ready(t)
	return p, app, startBrowser(t, nil)
}

// TestFormWithFileSurvivesSignIn sends a form when the session has ended meanwhile: its file arrives byte for byte after sign-in.
func TestFormWithFileSurvivesSignIn(t *testing.T) {
	p, app, b := startDesk(t)
	content := make([]byte, 3<<20)
	source := rand.NewChaCha8([32]byte{7})
	_, _ = source.Read(content)
	file := writeFile(t, t.TempDir(), "plan B ü.bin", content)

	b.open(p.origin + "/desk/form")
	b.signIn("alice")
	must(b, "type a note", chromedp.SendKeys(chromedp.CSS("#note"), "for Monday", chromedp.NodeVisible))
	must(b, "choose the file", chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{file}))
	cookie := b.cookie(p.origin, "postern")
	eventually(t, "the session ends", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.origin+"/oauth2/session", nil)
		if err != nil {
			return err
		}
		req.AddCookie(cookie)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			return errors.New(resp.Status)
		}
		return nil
	})

	b.click("#save")
	b.sees("main a.primary")
	if text := b.page(); !strings.Contains(text, "kept for ten minutes") {
		t.Fatalf("the page says %s", text)
	}
	b.screenshot("kept")
	b.click("main a.primary")
	b.arrives(p.origin + "/oauth2/kept") // the provider still knows the person
	for _, want := range []string{"POST /desk/save", "multipart/form-data", "3072 KiB", "note", "file: " + filepath.Base(file)} {
		if text := b.page(); !strings.Contains(text, want) {
			t.Errorf("the page does not say %q: %s", want, text)
		}
	}
	if text := b.page(); strings.Contains(text, "Monday") {
		t.Errorf("the page shows what was typed: %s", text)
	}
	b.screenshot("kept-send")
	b.click("main button.primary")
	b.sees("#saved")
	if at := b.location(); at != p.origin+"/desk/saved?draft=7" {
		t.Errorf("the application's redirect led to %s", at)
	}
	app.mu.Lock()
	defer app.mu.Unlock()
	if !bytes.Equal(app.got, content) || app.note != "for Monday" {
		t.Errorf("the application got %d bytes (%x) named %q with the note %q, want %d (%x)", len(app.got), sha256.Sum256(app.got), app.name, app.note, len(content), sha256.Sum256(content))
	}
}

// TestFragmentSurvivesSignIn opens a page by an address that ends in #/orders/7.
func TestFragmentSurvivesSignIn(t *testing.T) {
	p, _, b := startDesk(t)
	b.open(p.origin + "/spa/?x=1#/orders/7")
	b.signIn("alice")
	b.sees("#app")
	if at := b.location(); at != p.origin+"/spa/?x=1#/orders/7" {
		t.Errorf("after signing in the browser is at %s", at)
	}
}
