//go:build attack

package attack_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// maxHops bounds a navigation, as browsers do.
const maxHops = 20

// browser is one person's, with a cookie jar of its own. It follows no redirect by itself.
type browser struct {
	w     *world
	jar   *cookiejar.Jar
	trail []string // the addresses of the last navigation
}

// page is what a browser got.
type page struct {
	answer
	url *url.URL
}

func (w *world) browser() *browser {
	w.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &browser{w: w, jar: jar}
}

// in is the same browser in a sub-test.
func (b *browser) in(t *testing.T) *browser {
	other := *b
	other.w = b.w.in(t)
	return &other
}

// signIn opens a page and goes through the provider, and ends at the application.
func (b *browser) signIn(path string) *page {
	b.w.t.Helper()
	p := b.open(path)
	if p.status != http.StatusOK || b.session() == "" {
		b.w.t.Fatalf("sign-in ends at %s with %d: %s", p.url, p.status, p.body)
	}
	return p
}

// open navigates to an address, relative or not, and follows redirects and forms that send themselves to the end.
func (b *browser) open(address string, header ...string) *page {
	b.w.t.Helper()
	b.trail = nil
	for range maxHops {
		p := b.navigate(address, header...)
		b.trail = append(b.trail, p.url.String())
		location := p.header.Get("Location")
		if location == "" {
			return p
		}
		next, err := p.url.Parse(location)
		if err != nil {
			b.w.t.Fatalf("%s: Location %q: %v", p.url, location, err)
		}
		address = next.String()
	}
	b.w.t.Fatalf("redirects without end: %q", b.trail)
	return nil
}

// navigate makes one request as a browser does for the address bar.
func (b *browser) navigate(address string, header ...string) *page {
	b.w.t.Helper()
	return b.do(http.MethodGet, address, "", append([]string{
		"Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none",
	}, header...)...)
}

// fetch makes one request as a script of the application's pages does.
func (b *browser) fetch(method, address, body string, header ...string) *page {
	b.w.t.Helper()
	return b.do(method, address, body, append([]string{
		"Accept: application/json", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin", "Origin: " + b.w.origin,
	}, header...)...)
}

// post sends a form of a page of this origin.
func (b *browser) post(address string, form url.Values, header ...string) *page {
	b.w.t.Helper()
	return b.do(http.MethodPost, address, form.Encode(), append([]string{
		"Accept: text/html", "Content-Type: application/x-www-form-urlencoded", "Origin: " + b.w.origin,
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: same-origin",
	}, header...)...)
}

// do makes one request with the cookies of the jar. A header line replaces what stands before it under the same name.
func (b *browser) do(method, address, body string, header ...string) *page {
	b.w.t.Helper()
	at, err := url.Parse(b.w.origin)
	if err != nil {
		b.w.t.Fatal(err)
	}
	if at, err = at.Parse(address); err != nil {
		b.w.t.Fatal(err)
	}
	b.w.secrets.AddQuery(at)
	r, err := http.NewRequestWithContext(b.w.t.Context(), method, at.String(), strings.NewReader(body))
	if err != nil {
		b.w.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	for _, c := range b.jar.Cookies(at) {
		r.AddCookie(c)
	}
	resp, err := b.w.transport.RoundTrip(r)
	if err != nil {
		b.w.t.Fatalf("%s %s: %v", method, at, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.w.t.Fatalf("%s %s: %v", method, at, err)
	}
	b.jar.SetCookies(at, resp.Cookies())
	b.w.secrets.AddCookies(resp.Header)
	if at.Host == b.w.host {
		b.w.secrets.Page(string(text))
	}
	if l, err := resp.Location(); err == nil {
		b.w.secrets.AddQuery(l)
	}
	return &page{answer{status: resp.StatusCode, proto: resp.Proto, header: resp.Header, body: string(text)}, at}
}

// cookies is the Cookie header that the browser sends to Postern.
func (b *browser) cookies() string {
	var pairs []string
	for _, c := range b.all() {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return "Cookie: " + strings.Join(pairs, "; ")
}

func (b *browser) all() []*http.Cookie {
	at, err := url.Parse(b.w.origin)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return b.jar.Cookies(at)
}

// session is the value of the session's cookie, or empty.
func (b *browser) session() string {
	for _, c := range b.all() {
		if c.Name == b.w.cookie {
			return c.Value
		}
	}
	return ""
}

// signedIn tells whether Postern knows the browser's session.
func (b *browser) signedIn() bool {
	b.w.t.Helper()
	switch p := b.fetch(http.MethodGet, "/oauth2/session", ""); p.status {
	case http.StatusOK:
		return true
	case http.StatusUnauthorized:
		return false
	default:
		b.w.t.Fatalf("the session endpoint answers %d: %s", p.status, p.body)
		return false
	}
}
