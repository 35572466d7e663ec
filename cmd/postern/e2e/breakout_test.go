//go:build e2e

package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"postern/proxy/idp/simtest"
)

// TestBreakOut signs in with Postern's own form, for the provider of providers.yaml that has no pages for it.
func TestBreakOut(t *testing.T) {
	const (
		host     = "team.example.com"
		site     = "https://" + host
		ada      = "ada@example.com"
		password = "pass word+%&ü"
	)
	app := startUpstream(t)
	breakout := simtest.NewBreakOut(t, simtest.Options{})
	breakout.AddClient(simtest.Client{ID: "breakout_app", Secret: "123456789", Scopes: []string{"read", "write"}})
	breakout.AddUser(simtest.User{Name: ada, Password: password, Members: map[string]any{"email": ada}})
	nobody := "http://" + address(1) // nobody signs in at the other providers
	config := adapt(t, "../../../config/testdata/target/providers.yaml",
		"https://yourdomain.org", breakout.URL, "http://127.0.0.1:3000", app.URL,
		"https://metamaps.cc", nobody, "https://auth.gearcode.eu", nobody, "https://metafy.gg", nobody, "https://like.co", nobody, "https://api.like.co", nobody)
	port := freePort(t)
	p := newPostern(t, append(config, "server: {trusted_proxies: [127.0.0.0/8]}\n"...), port, site,
		"GEARCODE_SECRET=g", "METAFY_SECRET=m", "LIKECOIN_SECRET=l")
	p.start(t)
	p.ready(t)
	ingress, certificate := newAuthority(t).ingress(t, host, "http://"+address(port))
	key := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	b := startBrowser(t, map[string]string{host: ingress}, base64.StdEncoding.EncodeToString(key[:]))

	page := site + "/wiki/page%20one?x=1"
	b.open(page)
	b.sees(`main form input[name=username][autocomplete=username]`)
	b.sees(`main form input[name=password][type=password][autocomplete=current-password]`)
	b.screenshot("form")

	enter := func(field, text string) {
		t.Helper()
		must(b, "clear "+field, chromedp.Clear(chromedp.CSS(`input[name=`+field+`]`), chromedp.NodeVisible))
		must(b, "enter "+field, chromedp.SendKeys(chromedp.CSS(`input[name=`+field+`]`), text, chromedp.NodeVisible))
	}
	enter("username", ada)
	enter("password", "wrong"+password)
	b.click(`main form button`)
	b.sees(`[role=alert]`)
	b.screenshot("form-wrong-password")
	if text := b.page(); !strings.Contains(text, "wrong") {
		t.Errorf("after a wrong password the page says %s", text)
	}
	value := func(field string) string {
		t.Helper()
		return must(b, "read "+field, chromedp.Evaluate[string](`document.querySelector("input[name=`+field+`]").value`))
	}
	if user, pass := value("username"), value("password"); user != ada || pass != "" {
		t.Errorf("after a wrong password the form holds %q and %q, want the user name alone", user, pass)
	}

	enter("password", password+"\r") // Enter sends the form
	saw := b.seen()
	if at := b.location(); at != page {
		t.Errorf("after signing in the browser is at %s, want %s", at, page)
	}
	if h, err := breakout.Whose(bearer(saw)); err != nil || h.User != ada {
		t.Errorf("the application has a token of %q: %v", h.User, err)
	}
	if got := saw.Headers.Get("X-Forwarded-User"); got != ada {
		t.Errorf("the application sees the user %q", got)
	}
	session := b.cookie(site, "__Host-postern-breakout")
	if !session.Secure || !session.HttpOnly || session.SameSite != http.SameSiteLaxMode {
		t.Errorf("the session cookie is %v", session)
	}
	if len(b.cookies(site)) != 1 {
		t.Errorf("after signing in the browser has the cookies %v, want the session's alone", b.cookies(site))
	}

	b.click("#out")
	b.arrives(site + "/oauth2/logout/callback")
	if cookies := b.cookies(site); len(cookies) != 0 {
		t.Errorf("after signing out the browser has the cookies %v", cookies)
	}
	b.open(page)
	b.sees(`main form input[name=password]`)

	// Whoever comes back after the session ended elsewhere is told so, and signs in.
	enter("username", ada)
	enter("password", password+"\r")
	b.seen()
	session = b.cookie(site, "__Host-postern-breakout")
	out := send(t, "POST", "http://"+address(port), "/oauth2/logout", session, "X-Forwarded-Proto", "https", "X-Forwarded-Host", host)
	if out.status >= 400 {
		t.Fatalf("signing out elsewhere: %d %s", out.status, out.body)
	}
	b.open(page)
	b.sees(`[role=alert]`)
	if text := b.page(); !strings.Contains(text, "You signed out.") {
		t.Errorf("after the session ended elsewhere the form says %s", text)
	}
	if focus := must(b, "read the focus", chromedp.Evaluate[string](`document.activeElement.name`)); focus != "username" {
		t.Errorf("typing begins in %q", focus)
	}
	b.screenshot("form-ended-session")
	enter("username", ada)
	enter("password", password+"\r")
	b.seen()
	if e := breakout.Errors(); len(e) > 0 {
		t.Errorf("protocol errors: %q", e)
	}
}
