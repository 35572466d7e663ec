//go:build e2e

package e2e_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// TestSessionPage is one person in three browsers: the page of one lists all, ends one, then the others, without any script.
func TestSessionPage(t *testing.T) {
	idpPort, port := freePort(t), freePort(t)
	app := startUpstream(t)
	p := newPostern(t, minimal(t, idpPort, app), port, "")
	idp := startProvider(t, providerSettings{Port: idpPort, Origin: p.origin, AccessTokenTTL: 5 * time.Minute})
	p.start(t)
	p.ready(t)

	here := startBrowser(t, nil)
	var others []*http.Cookie
	for _, b := range []*browser{here, here.another(), here.another()} {
		b.open(p.origin + "/wiki/")
		b.signIn("alice")
		b.seen()
		if b != here {
			others = append(others, b.cookie(p.origin, "postern"))
		}
	}
	mine := here.cookie(p.origin, "postern")
	here.withoutScript()

	here.open(p.origin + "/oauth2")
	here.sees(".sessions li:nth-child(3)")
	if n := strings.Count(here.page(), "This one"); n != 1 {
		t.Errorf("%d sessions are marked as this one:\n%s", n, here.page())
	}
	here.screenshot("sessions")
	secrets.Search(t, "the list of sessions", here.page())

	here.click(`.sessions li:not(:has(.this)) button`)
	here.sees(`[role=status]`)
	if !strings.Contains(here.page(), "One session has ended.") || strings.Contains(here.location(), "/wiki") {
		t.Errorf("after ending one session the browser is at %s:\n%s", here.location(), here.page())
	}
	here.screenshot("sessions-ended-one")
	live := 0
	for _, cookie := range others {
		if get(t, p.origin+"/wiki/", cookie).status == http.StatusOK {
			live++
		}
	}
	if live != 1 {
		t.Errorf("%d of the two other sessions live, want 1", live)
	}

	here.click(`input[value=others] ~ button`)
	here.sees(`.sessions:not(:has(li:nth-child(2)))`)
	for _, cookie := range others {
		if resp := get(t, p.origin+"/wiki/", cookie); resp.status != http.StatusUnauthorized {
			t.Errorf("an ended session is answered with %d", resp.status)
		}
	}
	if resp := get(t, p.origin+"/wiki/", mine); resp.status != http.StatusOK {
		t.Errorf("this session is answered with %d", resp.status)
	}

	// Ending this one is signing out.
	here.click(`.sessions button`)
	here.sees(`button[name=logout]`)
	if at := origin(t, here.location()); at != idp.url {
		t.Errorf("signing out leads to %s, not to the provider", at)
	}
	if resp := get(t, p.origin+"/wiki/", mine); resp.status != http.StatusUnauthorized {
		t.Errorf("after signing out this session is answered with %d", resp.status)
	}
}

// withoutScript turns script off for the pages of this window.
func (b *browser) withoutScript() {
	b.t.Helper()
	must(b, "turn script off", chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
}
