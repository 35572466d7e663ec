package proxytest

import (
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// Browser is one person's browser: it keeps cookies, follows redirects of navigations and sends Fetch Metadata.
type Browser struct {
	// Jar holds the cookies.
	Jar *cookiejar.Jar
	// Trail is every address of the last navigation, the first included.
	Trail []string

	t      testing.TB
	stack  *Stack
	origin *url.URL
	client *http.Client
}

// Answer is what a browser got.
type Answer struct {
	*http.Response
	Text string
	URL  string
}

// Browser opens a new browser without cookies.
func (s *Stack) Browser() *Browser {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	origin, err := url.Parse(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	return &Browser{Jar: jar, t: s.t, stack: s, origin: origin, client: &http.Client{
		Jar: jar, Transport: s.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// At points the browser's relative addresses at another stack with the same cookies, such as a restarted one.
func (b *Browser) At(s *Stack) *Browser {
	b.t.Helper()
	other := s.Browser()
	for _, c := range b.Jar.Cookies(b.origin) {
		c.Path = "/"
		other.Jar.SetCookies(other.origin, []*http.Cookie{c})
	}
	return other
}

// maxHops bounds a navigation, as browsers do.
const maxHops = 20

// Go navigates: it follows redirects to the end.
func (b *Browser) Go(address string) Answer {
	b.t.Helper()
	b.Trail = nil
	site := "none"
	for range maxHops {
		a := b.Do(http.MethodGet, address, nil, map[string]string{"Sec-Fetch-Site": site})
		b.Trail = append(b.Trail, a.URL)
		location := a.Onward()
		if location == "" {
			return a
		}
		next, err := a.Request.URL.Parse(location)
		if err != nil {
			b.t.Fatalf("%s: Location %q: %v", address, location, err)
		}
		if next.Host != a.Request.URL.Host {
			site = "cross-site"
		}
		address = next.String()
	}
	b.t.Fatalf("redirects without end: %s", strings.Join(b.Trail, "\n → "))
	return Answer{}
}

// Step does one hop of a navigation without following.
func (b *Browser) Step(address string) Answer {
	b.t.Helper()
	return b.Do(http.MethodGet, address, nil, nil)
}

// Fetch asks as a script of the page would.
func (b *Browser) Fetch(address string) Answer {
	b.t.Helper()
	return b.Do(http.MethodGet, address, nil, map[string]string{
		"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Accept": "application/json",
	})
}

// Post submits a form of a page on the same origin.
func (b *Browser) Post(address string, form url.Values) Answer {
	b.t.Helper()
	u, err := b.origin.Parse(address)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Do(http.MethodPost, address, strings.NewReader(form.Encode()), map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin", "Origin": u.Scheme + "://" + u.Host,
	})
}

var (
	formTag  = regexp.MustCompile(`<form[^>]* method="post"[^>]*>`)
	inputTag = regexp.MustCompile(`<input[^>]*>`)
	oneValue = regexp.MustCompile(`(name|value|action)="([^"]*)"`)
)

// Submit fills in the form of a page, sends it, and follows redirects to the end. The page's own values are kept, as those of hidden fields
// have to be; a field that the page does not have is a mistake.
func (b *Browser) Submit(page Answer, fields map[string]string) Answer {
	b.t.Helper()
	form := formTag.FindString(page.Text)
	if form == "" {
		b.t.Fatalf("%s: %s has no form: %.500s", page.URL, page.Status, page.Text)
	}
	values := url.Values{}
	for _, tag := range inputTag.FindAllString(page.Text, -1) {
		if one := attributes(tag); one["name"] != "" {
			values.Set(one["name"], one["value"])
		}
	}
	for name, value := range fields {
		if !values.Has(name) {
			b.t.Fatalf("%s: the form has no field %s: %.500s", page.URL, name, page.Text)
		}
		values.Set(name, value)
	}
	target, err := page.Request.URL.Parse(attributes(form)["action"])
	if err != nil {
		b.t.Fatal(err)
	}
	a := b.Post(target.String(), values)
	if location := a.Onward(); location != "" {
		next, err := a.Request.URL.Parse(location)
		if err != nil {
			b.t.Fatal(err)
		}
		return b.Go(next.String())
	}
	return a
}

func attributes(tag string) map[string]string {
	all := map[string]string{}
	for _, m := range oneValue.FindAllStringSubmatch(tag, -1) {
		all[m[1]] = html.UnescapeString(m[2])
	}
	return all
}

// Do makes one request as a page navigation; header replaces what a navigation sends, an empty value removes.
func (b *Browser) Do(method, address string, body io.Reader, header map[string]string) Answer {
	b.t.Helper()
	u, err := b.origin.Parse(address)
	if err != nil {
		b.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.t.Context(), method, u.String(), body)
	if err != nil {
		b.t.Fatal(err)
	}
	h := map[string]string{
		"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0 Firefox/150.0",
		"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none",
	}
	for name, value := range header {
		h[name] = value
	}
	for name, value := range h {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if host := header["Host"]; host != "" {
		r.Header.Del("Host")
		r.Host = host
	}
	resp, err := b.client.Do(r)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, u, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, u, err)
	}
	if resp.Request.URL.Host != strings.TrimPrefix(b.stack.Provider.URL, "http://") {
		b.stack.Secrets.AddCookies(resp.Header)
		if resp.Header.Get(ofApp) == "" {
			b.stack.Secrets.Page(string(text))
		}
	}
	return Answer{Response: resp, Text: string(text), URL: u.String()}
}

// Cookie is a cookie of Postern's by name, or nil.
func (b *Browser) Cookie(name string) *http.Cookie {
	for _, c := range b.Jar.Cookies(b.origin) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Cookies are all that the browser would send to Postern.
func (b *Browser) Cookies() []*http.Cookie { return b.Jar.Cookies(b.origin) }

var refresh = regexp.MustCompile(`<meta http-equiv="refresh" content="0; url=([^"]*)"`)

// Onward is where the answer sends a browser by itself: by Location or by a page that goes on. Empty: nowhere.
func (a Answer) Onward() string {
	if m := refresh.FindStringSubmatch(a.Text); m != nil {
		return html.UnescapeString(m[1])
	}
	return a.Header.Get("Location")
}

// Received reads the application's answer.
func (a Answer) Received(t testing.TB) Received {
	t.Helper()
	var got Received
	if a.StatusCode != http.StatusOK || json.Unmarshal([]byte(a.Text), &got) != nil {
		t.Fatalf("%s: %s, not an answer of the application: %.300s", a.URL, a.Status, a.Text)
	}
	return got
}

// Insecure makes the browser send Secure cookies over http, as if TLS ended at a proxy before Postern.
func (b *Browser) Insecure() {
	b.client.Jar = openJar{b.Jar}
}

// openJar is a jar that takes every address for https.
type openJar struct{ http.CookieJar }

func (j openJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.CookieJar.SetCookies(https(u), cookies)
}

func (j openJar) Cookies(u *url.URL) []*http.Cookie { return j.CookieJar.Cookies(https(u)) }

func https(u *url.URL) *url.URL {
	c := *u
	c.Scheme = "https"
	return &c
}

// Forget deletes one cookie of Postern's.
func (b *Browser) Forget(name string) {
	b.Jar.SetCookies(b.origin, []*http.Cookie{{Name: name, Path: "/", MaxAge: -1}})
}
