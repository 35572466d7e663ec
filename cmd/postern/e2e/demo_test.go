//go:build e2e

package e2e_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestDemo visits what `make demo` starts as somebody who tries Postern does.
func TestDemo(t *testing.T) {
	demo := start(t, "", nil, nil, filepath.Join(programs, "demo"),
		"--listen", address(freePort(t)), "--provider-listen", address(freePort(t)), "--app-listen", address(freePort(t)), "--token-life", "6s")
	var postern string
	eventually(t, "the demo prints where it is", func() error {
		if demo.Ended() {
			t.Fatal("the demo ended")
		}
		if m := regexp.MustCompile(`Postern +(http://\S+)`).FindStringSubmatch(demo.Printed()); m != nil {
			postern = m[1]
			return nil
		}
		return errNotYet
	})

	b := startBrowser(t, nil)
	b.open(postern)
	b.sees(`button[value=ada]`)
	b.screenshot("demo-provider")
	b.click(`button[value=ada]`)
	b.arrives(postern + "/")
	b.sees(`nav`)
	b.screenshot("demo-home")
	for page, screenshot := range map[string]string{"/guestbook": "demo-guestbook", "/admin": "demo-admin", "/public": "demo-public"} {
		if status := b.open(postern + page); status != 200 {
			t.Errorf("ada gets %d for %s", status, page)
		}
		b.screenshot(screenshot)
	}

	b.open(postern + "/headers")
	if user := must(b, "read the user", chromedp.Text(chromedp.CSS(`[data-header="X-Forwarded-User"]`))); user != "ada" {
		t.Errorf("the application sees the user %q", user)
	}
	if auth := must(b, "read the token", chromedp.Text(chromedp.CSS(`[data-header="Authorization"]`))); !strings.HasPrefix(auth, "Bearer ") {
		t.Errorf("the application sees Authorization: %q", auth)
	}
	b.sees(`#changes li`) // the page asks again by itself, and sees another token
	b.screenshot("demo-headers")

	b.open(postern + "/live")
	b.click(`#fetch`)
	b.click(`#say button`)
	eventually(t, "fetch, events and WebSocket work", func() error {
		for _, id := range []string{"fetched", "clock", "echoed"} {
			text := must(b, "read "+id, chromedp.Evaluate[string](`document.getElementById("`+id+`").textContent`))
			if text == "" || strings.Contains(text, "connecting") {
				return fmt.Errorf("%s shows %q", id, text)
			}
			if strings.Contains(text, "no answer") || strings.Contains(text, "closed") {
				t.Fatalf("%s shows %q", id, text)
			}
		}
		return nil
	})
	b.screenshot("demo-live")

	grace := b.another()
	grace.open(postern + "/admin")
	grace.click(`button[value=grace]`)
	grace.arrives(postern + "/admin")
	grace.screenshot("demo-no-access")
	if status := grace.open(postern + "/admin"); status != 403 {
		t.Errorf("grace, who is no admin, gets %d", status)
	}

	b.click(`header form button`)
	b.arrives(postern + "/oauth2/logout/callback")
	b.screenshot("demo-signed-out")

	demo.Terminate(t)
	if code := demo.ExitCode(t); code != 0 {
		t.Errorf("the demo exited with %d", code)
	}
}
