//go:build e2e

package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// A browser is a Chromium window with cookies of its own.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// startBrowser starts Chromium. No name is looked up and nothing leaves the machine: hosts maps names to addresses. Keys
// names the certificates (by the hash of their public key) that it trusts.
func startBrowser(t *testing.T, hosts map[string]string, keys ...string) *browser {
	t.Helper()
	var rules []string
	for name, addr := range hosts {
		rules = append(rules, "MAP "+name+" "+addr)
	}
	rules = append(rules, "MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1", "EXCLUDE localhost")
	options := []chromedp.ExecAllocatorOption{
		chromedp.NoFirstRun,
		chromedp.NoDefaultBrowserCheck,
		chromedp.Headless,
		chromedp.NoSandbox, // CI is root in a container; it visits only pages of this test
		chromedp.DisableGPU,
		chromedp.WindowSize(900, 700),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("host-resolver-rules", strings.Join(rules, ", ")),
	}
	if len(keys) > 0 {
		options = append(options, chromedp.Flag("ignore-certificate-errors-spki-list", strings.Join(keys, ",")))
	}
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		// Waits for the end of Chromium, so that its folder can be removed.
		closing, closed := context.WithTimeout(ctx, patience)
		defer closed()
		_ = chromedp.Cancel(closing)
		cancel()
		stop()
	})
	b := newBrowser(t, ctx)
	t.Cleanup(func() { // before Postern is searched
		for _, c := range must(b, "list all cookies", func(ctx context.Context, t *chromedp.Target) ([]*network.Cookie, error) {
			res, err := cdp.Call(ctx, t, storage.GetCookies, storage.GetCookiesParams{})
			return res.Cookies, err
		}) {
			secrets.Add("cookie "+c.Name, c.Value)
		}
	})
	return b
}

// another is a second person's window, which shares nothing with the first.
func (b *browser) another() *browser {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	b.t.Cleanup(cancel)
	return newBrowser(b.t, ctx)
}

// tab is another tab of the same person's window.
func (b *browser) tab() *browser {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	return newBrowser(b.t, ctx)
}

func newBrowser(t *testing.T, ctx context.Context) *browser {
	t.Helper()
	// The first call starts the browser on ctx itself: with a time limit of its own the browser would end with that.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return &browser{t, ctx}
}

// in is the same window for a subtest, which fails by itself.
func (b *browser) in(t *testing.T) *browser { return &browser{t, b.ctx} }

// ask runs an action within patience and returns its value.
func ask[T any](b *browser, action chromedp.Action[T]) (T, error) {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return chromedp.Run(ctx, action)
}

// must is ask for what has to work.
func must[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	v, err := ask(b, action)
	if err != nil {
		b.screenshot("failure-" + strings.ReplaceAll(b.t.Name(), "/", "-"))
		b.t.Fatalf("browser at %s: %s: %v\nThe page says: %s", b.location(), what, err, b.page())
	}
	return v
}

// open goes to an address and returns the status of what came in the end.
func (b *browser) open(address string) int {
	b.t.Helper()
	return int(must(b, "open "+address, chromedp.NavigateResponse(address)).Status)
}

// click clicks on what the CSS selector finds, once that is there.
func (b *browser) click(selector string) {
	b.t.Helper()
	must(b, "click "+selector, chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// sees waits until the page has something visible for the selector.
func (b *browser) sees(selector string) {
	b.t.Helper()
	must(b, "see "+selector, chromedp.WaitVisible(chromedp.CSS(selector)))
}

func (b *browser) location() string {
	at, err := ask(b, chromedp.Location())
	if err != nil {
		return err.Error()
	}
	return at
}

// page is the text of the page.
func (b *browser) page() string {
	text, err := ask(b, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	if err != nil {
		return err.Error()
	}
	return text
}

// seen is what the application showed on its page.
func (b *browser) seen() seen {
	b.t.Helper()
	text := must(b, "read the application's page", chromedp.Text(chromedp.CSS("#seen"), chromedp.NodeVisible))
	var s seen
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		b.t.Fatalf("the application's page shows %q: %v", text, err)
	}
	return s
}

// next clicks from one page of the application to the next and returns what that shows.
func (b *browser) next() seen {
	b.t.Helper()
	// The page is marked, so that the old one is not taken for the new one.
	must(b, "mark the page", chromedp.Evaluate[string](`document.body.id = "old"`))
	b.click("#next")
	must(b, "go to the next page", chromedp.WaitReady(chromedp.CSS("body:not(#old)")))
	return b.seen()
}

// signIn signs in on the provider's pages, which must be showing, and agrees to what the client asks for.
func (b *browser) signIn(user string) {
	b.t.Helper()
	b.signInAgain(user)
	b.click(`input[name=prompt][value=consent] ~ button`)
}

// signInAgain signs in where the person has agreed before.
func (b *browser) signInAgain(user string) {
	b.t.Helper()
	must(b, "enter the name", chromedp.SendKeys(chromedp.CSS(`input[name=login]`), user, chromedp.NodeVisible))
	must(b, "enter the password", chromedp.SendKeys(chromedp.CSS(`input[name=password]`), "any", chromedp.NodeVisible))
	b.click(`button.login-submit`)
}

// signOutAtProvider agrees on the provider's sign-out page, which must be showing.
func (b *browser) signOutAtProvider() {
	b.t.Helper()
	b.click(`button[name=logout]`)
}

// arrives waits until the browser is at an address that begins so.
func (b *browser) arrives(address string) {
	b.t.Helper()
	eventually(b.t, "the browser arrives at "+address, func() error {
		if at := b.location(); !strings.HasPrefix(at, address) {
			return errors.New(at)
		}
		return nil
	})
	must(b, "wait for the page", chromedp.WaitReady(chromedp.CSS("body")))
}

// cookies are those that the browser would send to an address.
func (b *browser) cookies(address string) []*http.Cookie {
	b.t.Helper()
	var cookies []*http.Cookie
	for _, c := range must(b, "list the cookies", func(ctx context.Context, t *chromedp.Target) ([]*network.Cookie, error) {
		res, err := cdp.Call(ctx, t, network.GetCookies, network.GetCookiesParams{URLs: []string{address}})
		return res.Cookies, err
	}) {
		secrets.Add("cookie "+c.Name, c.Value)
		cookies = append(cookies, &http.Cookie{
			Name: c.Name, Value: c.Value, Path: c.Path, Domain: c.Domain, Secure: c.Secure, HttpOnly: c.HTTPOnly,
			Expires:  time.Unix(int64(c.Expires), 0),
			SameSite: sameSite(c.SameSite),
		})
	}
	return cookies
}

func sameSite(s network.CookieSameSite) http.SameSite {
	switch s {
	case network.CookieSameSiteStrict:
		return http.SameSiteStrictMode
	case network.CookieSameSiteLax:
		return http.SameSiteLaxMode
	case network.CookieSameSiteNone:
		return http.SameSiteNoneMode
	}
	return http.SameSiteDefaultMode
}

// cookie is the one of that name.
func (b *browser) cookie(address, name string) *http.Cookie {
	b.t.Helper()
	var names []string
	for _, c := range b.cookies(address) {
		if c.Name == name {
			return c
		}
		names = append(names, c.Name)
	}
	b.t.Fatalf("the browser has no cookie %s for %s, but %q", name, address, names)
	return nil
}

// screenshot keeps pictures of the page when someone wants to look at it: as it is, and as a phone in the dark shows it.
func (b *browser) screenshot(name string) {
	dir := os.Getenv("POSTERN_SCREENSHOTS")
	if dir == "" {
		return
	}
	err := errors.Join(os.MkdirAll(dir, 0o755), b.picture(filepath.Join(dir, name+".png")))
	_, darkErr := ask(b, chromedp.Steps(colorScheme("dark"), chromedp.EmulateViewport(390, 800)))
	err = errors.Join(err, darkErr, b.picture(filepath.Join(dir, name+"-phone.png")))
	_, lightErr := ask(b, chromedp.Steps(colorScheme(""), chromedp.EmulateViewport(1100, 800)))
	if err := errors.Join(err, lightErr); err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
	}
}

func (b *browser) picture(file string) error {
	png, err := ask(b, chromedp.FullScreenshot(100))
	if err != nil {
		return err
	}
	return os.WriteFile(file, png, 0o644)
}

func colorScheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// origin is the scheme and host of an address.
func origin(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Scheme + "://" + u.Host
}
