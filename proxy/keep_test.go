package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"html"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postern/proxy/proxytest"
	"postern/session"
	"postern/session/memstore"
	"postern/session/redisstore"
	"postern/session/redistest"
)

const keptForm = "title=canary-title&text=canary%20text"

// keptStack has a browser whose session has idled out.
func keptStack(t *testing.T, o proxytest.Options) (*proxytest.Stack, *proxytest.Browser) {
	t.Helper()
	s := proxytest.New(t, o)
	b := s.Browser()
	b.Go("/form")
	s.Clock.Add(2 * time.Hour)
	return s, b
}

// submit sends a form of a page of ours.
func submit(b *proxytest.Browser, s *proxytest.Stack, address, body string, header map[string]string) proxytest.Answer {
	h := map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin", "Origin": s.URL, "Referer": s.URL + "/form?draft=7",
	}
	for name, value := range header {
		h[name] = value
	}
	return b.Do(http.MethodPost, address, strings.NewReader(body), h)
}

var (
	startHref = regexp.MustCompile(`<a class="button primary" href="([^"]*)">Sign in</a>`)
	keptForms = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)">(.*?)</form>`)
	hiddens   = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// wantKept is the address at which the person signs in to come back to what was kept.
func wantKept(t *testing.T, a proxytest.Answer) string {
	t.Helper()
	m := startHref.FindStringSubmatch(a.Text)
	if a.StatusCode != http.StatusUnauthorized || m == nil || !strings.Contains(a.Text, "kept for ten minutes") {
		t.Fatalf("%s: %s, want the page that says it was kept: %.600s", a.URL, a.Status, a.Text)
	}
	return html.UnescapeString(m[1])
}

func wantNotKept(t *testing.T, what string, a proxytest.Answer) {
	t.Helper()
	if strings.Contains(a.Text, "kept") {
		t.Errorf("%s: kept: %s", what, a.Text)
	}
	for _, c := range a.Cookies() {
		if strings.HasSuffix(c.Name, "kept") && c.MaxAge >= 0 {
			t.Errorf("%s: got the cookie %s", what, c.Name)
		}
	}
}

// press posts the form of the page with the kept request that has this button.
func press(t *testing.T, b *proxytest.Browser, page proxytest.Answer, button string, header map[string]string) proxytest.Answer {
	t.Helper()
	for _, m := range keptForms.FindAllStringSubmatch(page.Text, -1) {
		if !strings.Contains(m[2], ">"+button+"</button>") {
			continue
		}
		values := url.Values{}
		for _, in := range hiddens.FindAllStringSubmatch(m[2], -1) {
			values.Set(html.UnescapeString(in[1]), html.UnescapeString(in[2]))
		}
		h := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin", "Origin": origin(page), "Referer": origin(page) + "/oauth2/kept"}
		for name, value := range header {
			h[name] = value
		}
		return b.Do(http.MethodPost, html.UnescapeString(m[1]), strings.NewReader(values.Encode()), h)
	}
	t.Fatalf("%s: %s has no button %s: %.900s", page.URL, page.Status, button, page.Text)
	return proxytest.Answer{}
}

func origin(a proxytest.Answer) string { return a.Request.URL.Scheme + "://" + a.Request.URL.Host }

// arrivedBy are the requests of a method that reached the application.
func arrivedBy(s *proxytest.Stack, method string) []proxytest.Received {
	return slices.DeleteFunc(s.App.Requests(), func(r proxytest.Received) bool { return r.Method != method })
}

func TestFormSurvivesSignIn(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	a := submit(b, s, "/save?token=canary-query&x=1", keptForm, map[string]string{"X-Csrf-Token": "csrf", "Authorization": "Basic stolen", "X-Forwarded-User": "root"})
	if !strings.Contains(a.Text, "away for a while") {
		t.Errorf("the page does not say why: %s", a.Text)
	}
	page := b.Go(wantKept(t, a))
	if page.StatusCode != http.StatusOK || page.Request.URL.Path != "/oauth2/kept" {
		t.Fatalf("after sign-in: %s %s: %s", page.URL, page.Status, page.Text)
	}
	for _, want := range []string{"POST /save<", "application/x-www-form-urlencoded", "37 B", ">title<", ">text<"} {
		if !strings.Contains(page.Text, want) {
			t.Errorf("the page does not say %q: %s", want, page.Text)
		}
	}
	visible := keptForms.ReplaceAllString(page.Text, "")
	if strings.Contains(visible, "canary") {
		t.Errorf("the page shows values: %s", visible)
	}
	if page.Header.Get("Cache-Control") != "no-store" || !strings.Contains(page.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers %v", page.Header)
	}
	if len(arrivedBy(s, http.MethodPost)) != 0 {
		t.Fatal("it was sent before the person said so")
	}
	again := b.Go("/oauth2/kept") // loading the page again changes nothing
	got := press(t, b, again, "Send", nil).Received(t)
	if got.Method != http.MethodPost || got.Target != "/save?token=canary-query&x=1" || got.Body != keptForm {
		t.Errorf("the application got %s %s %q", got.Method, got.Target, got.Body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "37", "X-Csrf-Token": "csrf", "Referer": s.URL + "/form?draft=7", "Origin": s.URL,
		"X-Forwarded-User": "alice", "Cookie": "",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if v := got.Header.Get("Authorization"); !strings.HasPrefix(v, "Bearer ") {
		t.Errorf("Authorization: %q", v)
	}
	second := press(t, b, again, "Send", nil)
	if second.StatusCode != http.StatusConflict || !strings.Contains(second.Text, "sent already") || len(arrivedBy(s, http.MethodPost)) != 1 {
		t.Errorf("sent twice: %s %s", second.Status, second.Text)
	}
	for _, want := range []string{`"event":"kept"`, `"event":"kept_replayed"`} {
		if !strings.Contains(s.Audit.String(), want) {
			t.Errorf("the audit log does not have %s:\n%s", want, s.Audit)
		}
	}
	if logs := s.Log.String() + s.Audit.String(); strings.Contains(logs, "canary-title") || strings.Contains(logs, "canary-query") {
		t.Error("what was kept is in a log")
	}
}

// multipartForm is a form with a file of random-looking bytes.
func multipartForm(t *testing.T, size int) (contentType, body string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.WriteField("title", "canary-title")
	f, err := w.CreateFormFile("attachment", `plan "B" <x>.bin`)
	if err != nil {
		t.Fatal(err)
	}
	for i := range size {
		_, _ = f.Write([]byte{byte(i * i >> 3)})
	}
	_ = w.Close()
	return w.FormDataContentType(), b.String()
}

// The whole way through Redis, where nothing can be read of it.
func TestFileSurvivesSignInThroughRedis(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	store, err := redisstore.New(redisstore.Options{URL: server.URL(), KeyPrefix: "p:", Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var got struct {
		sync.Mutex
		body, contentType string
	}
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, _ := io.ReadAll(r.Body)
			got.Lock()
			got.body, got.contentType = string(body), r.Header.Get("Content-Type")
			got.Unlock()
		}
	})
	s := proxytest.New(t, proxytest.Options{Store: store, App: app})
	b := s.Browser()
	b.Go("/form")
	s.Clock.Add(2 * time.Hour)
	contentType, body := multipartForm(t, 9<<20)
	a := submit(b, s, "/upload", body, map[string]string{"Content-Type": contentType})
	link := wantKept(t, a)
	for _, key := range server.Client().Keys(t.Context(), "p:k*").Val() {
		if value := server.Client().Get(t.Context(), key).Val(); strings.Contains(value, "canary-title") || strings.Contains(value, "alice") || strings.Contains(value, "/upload") {
			t.Errorf("%s can be read in Redis", key)
		}
		if ttl := server.Client().PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 10*time.Minute {
			t.Errorf("%s stays for %v", key, ttl)
		}
	}
	page := b.Go(link)
	for _, want := range []string{"multipart/form-data", "9216 KiB", ">title<", "attachment: plan &#34;B&#34; &lt;x&gt;.bin"} {
		if !strings.Contains(page.Text, want) {
			t.Errorf("the page does not say %q: %s", want, page.Text)
		}
	}
	press(t, b, page, "Send", nil)
	got.Lock()
	defer got.Unlock()
	if got.body != body || got.contentType != contentType {
		t.Errorf("the application got %d bytes of %s, want %d of %s", len(got.body), got.contentType, len(body), contentType)
	}
	for _, key := range server.Client().Keys(t.Context(), "p:k*").Val() {
		if n := server.Client().StrLen(t.Context(), key).Val(); n > 100 {
			t.Errorf("%s still holds %d bytes", key, n)
		}
	}
}

func TestScriptsAreToldThatTheirRequestIsKept(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	script := map[string]string{
		"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Origin": s.URL, "Accept": "application/json",
		"Content-Type": "application/json", "If-Match": `"7"`,
	}
	a := b.Do(http.MethodPut, "/api/orders/7", strings.NewReader(`{"n":1}`), script)
	var problem struct {
		Kept     bool
		LoginURL string `json:"login_url"`
		Ended    string
	}
	if err := json.Unmarshal([]byte(a.Text), &problem); err != nil || a.StatusCode != http.StatusUnauthorized || !problem.Kept || problem.Ended != "idle" {
		t.Fatalf("%s %s", a.Status, a.Text)
	}
	got := press(t, b, b.Go(problem.LoginURL), "Send", nil).Received(t)
	if got.Method != http.MethodPut || got.Target != "/api/orders/7" || got.Body != `{"n":1}` || got.Header.Get("If-Match") != `"7"` || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the application got %+v", got)
	}

	// A script does not take the place of what a person typed.
	s.Clock.Add(2 * time.Hour)
	link := wantKept(t, submit(b, s, "/save", keptForm, nil))
	wantNotKept(t, "a script after the form", b.Do(http.MethodPost, "/api/beat", strings.NewReader(`{}`), script))
	if got := press(t, b, b.Go(link), "Send", nil).Received(t); got.Target != "/save" {
		t.Errorf("the application got %s", got.Target)
	}
}

func TestAnotherPersonNeverSendsWhatWasKept(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	link := wantKept(t, submit(b, s, "/save", keptForm, nil))
	s.Provider.SignInAs("bob")
	page := b.Go(link)
	if page.StatusCode != http.StatusForbidden || !strings.Contains(page.Text, "another account") || strings.Contains(page.Text, "<bdi>title") || !strings.Contains(page.Text, "Bob Example") {
		t.Errorf("bob sees %s %s", page.Status, page.Text)
	}
	if !strings.Contains(s.Audit.String(), `"event":"kept_other_user"`) {
		t.Errorf("audit log:\n%s", s.Audit)
	}
	s.Provider.SignInAs("alice")
	b.Go("/oauth2/start?rd=/oauth2/kept")
	if again := b.Go("/oauth2/kept"); again.StatusCode != http.StatusGone {
		t.Errorf("it is still there: %s", again.Status)
	}
	if len(arrivedBy(s, http.MethodPost)) != 0 {
		t.Error("it was sent")
	}
}

// Only what a page of ours sends for a session that has just ended is kept; nothing else writes anything.
func TestNothingElseIsKept(t *testing.T) {
	store := &keepCounter{Store: memstore.New(memstore.Options{})}
	s := proxytest.New(t, proxytest.Options{Store: store, Config: `
server: {listen: "${LISTEN}"}
session: {kept_requests: {max_size: 1KiB}}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}", access: signed_in}
  - {path: /open, upstream: "${UPSTREAM}", access: optional}
`})
	person := s.Browser()
	person.Go("/form")
	cookie := person.Cookie(sessionCookie).Value
	signedOut := s.Browser()
	signedOut.Go("/form")
	gone := signedOut.Cookie(sessionCookie).Value
	signedOut.Post("/oauth2/logout", nil)
	s.Clock.Add(2 * time.Hour)

	large := strings.Repeat("x", 1<<10+1)
	for what, c := range map[string]struct {
		method, cookie, address, body string
		header                        map[string]string
	}{
		"no cookie":              {"POST", "", "/save", keptForm, nil},
		"a cookie that is not":   {"POST", "AAAA" + cookie[4:], "/save", keptForm, nil},
		"a person signed out":    {"POST", gone, "/save", keptForm, nil},
		"a page of another site": {"POST", cookie, "/save", keptForm, map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}},
		"a sibling host":         {"POST", cookie, "/save", keptForm, map[string]string{"Sec-Fetch-Site": "same-site", "Origin": "https://x.example.com"}},
		"origin and site differ": {"POST", cookie, "/save", keptForm, map[string]string{"Origin": "https://evil.example"}},
		"origin null":            {"POST", cookie, "/save", keptForm, map[string]string{"Origin": "null", "Sec-Fetch-Site": ""}},
		"nothing tells":          {"POST", cookie, "/save", keptForm, map[string]string{"Origin": "", "Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Referer": ""}},
		"another's referer":      {"POST", cookie, "/save", keptForm, map[string]string{"Origin": "", "Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Referer": s.URL + ".evil.example/"}},
		"too large":              {"POST", cookie, "/save", large, nil},
		"too large, unannounced": {"POST", cookie, "/save", large, map[string]string{"Chunked": "yes"}},
		"a safe method":          {"GET", cookie, "/save", "", map[string]string{"Sec-Fetch-Mode": "cors"}},
		"a beacon":               {"POST", cookie, "/beacon", "x", map[string]string{"Content-Type": "text/plain", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"}},
		"a frame":                {"POST", cookie, "/save", keptForm, map[string]string{"Sec-Fetch-Dest": "iframe"}},
		"an optional route":      {"POST", cookie, "/open", keptForm, nil},
		"an endpoint of ours":    {"POST", cookie, "/oauth2", keptForm, nil},
	} {
		b := s.Browser()
		h := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin", "Origin": s.URL}
		for name, value := range c.header {
			h[name] = value
		}
		if c.cookie != "" {
			h["Cookie"] = sessionCookie + "=" + c.cookie
		}
		var body io.Reader = strings.NewReader(c.body)
		if h["Chunked"] != "" {
			delete(h, "Chunked")
			body = io.MultiReader(body)
		}
		wantNotKept(t, what, b.Do(c.method, c.address, body, h))
		if n := store.kept.Load(); n != 0 {
			t.Errorf("%s: the store was asked to keep it", what)
			store.kept.Store(0)
		}
	}
	// The same without any of these faults is kept, also by what an old browser says of itself.
	for _, h := range []map[string]string{nil, {"Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Sec-Fetch-Dest": ""}, {"Sec-Fetch-Site": "", "Sec-Fetch-Mode": "", "Origin": ""}} {
		wantKept(t, submit(person, s, "/save", keptForm, h))
	}
}

// keepCounter counts what is kept, and can refuse or fail.
type keepCounter struct {
	session.Store
	kept, takes atomic.Int64
	err         atomic.Pointer[error]
}

func (c *keepCounter) Keep(ctx context.Context, key string, value []byte, ttl time.Duration, total int64) error {
	c.kept.Add(1)
	if err := c.err.Load(); err != nil {
		return *err
	}
	return c.Store.Keep(ctx, key, value, ttl, total)
}

func (c *keepCounter) Kept(ctx context.Context, key string) ([]byte, error) {
	if err := c.err.Load(); err != nil {
		return nil, *err
	}
	return c.Store.Kept(ctx, key)
}

func (c *keepCounter) TakeKept(ctx context.Context, key string) error {
	c.takes.Add(1)
	if err := c.err.Load(); err != nil {
		return *err
	}
	return c.Store.TakeKept(ctx, key)
}

func TestWithoutRoomOrStoreNothingIsKept(t *testing.T) {
	store := &keepCounter{Store: memstore.New(memstore.Options{})}
	s, b := keptStack(t, proxytest.Options{Store: store})
	for _, err := range []error{session.ErrFull, session.ErrUnavailable} {
		store.err.Store(&err)
		a := submit(b, s, "/save", keptForm, nil)
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "Nothing was sent") {
			t.Errorf("%v: %s %s", err, a.Status, a.Text)
		}
		wantNotKept(t, err.Error(), a)
	}
	store.err.Store(nil)
	link := wantKept(t, submit(b, s, "/save", keptForm, nil))
	page := b.Go(link)
	err := session.ErrUnavailable
	store.err.Store(&err)
	if a := press(t, b, page, "Send", nil); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("sent while the store does not answer: %s", a.Status)
	}
	store.err.Store(nil)
	if got := press(t, b, page, "Send", nil).Received(t); got.Body != keptForm {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestKeptRequestsCanBeTurnedOff(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "providers:", "session: {kept_requests: {max_size: 0}}\nproviders:", 1)})
	a := submit(b, s, "/save", keptForm, nil)
	wantNotKept(t, "off", a)
	if !strings.Contains(a.Text, "Nothing was sent") {
		t.Errorf("%s", a.Text)
	}
}

func TestKeptRequestIsGoneAfterTenMinutes(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	page := b.Go(wantKept(t, submit(b, s, "/save", keptForm, nil)))
	s.Clock.Add(11 * time.Minute)
	for what, a := range map[string]proxytest.Answer{"the page": b.Go("/oauth2/kept"), "send": press(t, b, page, "Send", nil)} {
		if a.StatusCode != http.StatusGone || !strings.Contains(a.Text, "Nothing is kept here") {
			t.Errorf("%s: %s %s", what, a.Status, a.Text)
		}
	}
	if len(arrivedBy(s, http.MethodPost)) != 0 {
		t.Error("the form that asks for it reached the application")
	}
}

func TestNewerKeptRequestTakesTheEarliersPlace(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	other := b.At(s) // another window with the same session
	first := wantKept(t, submit(b, s, "/save?n=1", keptForm, nil))
	page := b.Go(first)
	second := wantKept(t, submit(other, s, "/save?n=2", keptForm, nil))
	if a := press(t, b, page, "Send", nil); a.StatusCode != http.StatusGone {
		t.Errorf("the earlier one: %s", a.Status)
	}
	if got := press(t, other, other.Go(second), "Send", nil).Received(t); got.Target != "/save?n=2" {
		t.Errorf("the application got %s", got.Target)
	}
}

func TestDoNotSendDropsIt(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	page := b.Go(wantKept(t, submit(b, s, "/save", keptForm, nil)))
	if a := press(t, b, page, "Do not send", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}); a.StatusCode != http.StatusForbidden {
		t.Errorf("another site dropped it: %s", a.Status)
	}
	a := press(t, b, page, "Do not send", nil)
	if a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/form?draft=7" {
		t.Errorf("%s to %s", a.Status, a.Header.Get("Location"))
	}
	if again := b.Go("/oauth2/kept"); again.StatusCode != http.StatusGone {
		t.Errorf("it is still there: %s", again.Status)
	}
	if a := press(t, b, page, "Send", nil); a.StatusCode != http.StatusGone || len(arrivedBy(s, http.MethodPost)) != 0 {
		t.Errorf("sent after all: %s", a.Status)
	}
}

// Another site cannot make a browser send what is kept, nor does a marker help without the cookie.
func TestKeptRequestIsSentByOurPageAlone_A134(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	page := b.Go(wantKept(t, submit(b, s, "/save", keptForm, nil)))
	for what, h := range map[string]map[string]string{
		"cross-site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
		"same-site":  {"Sec-Fetch-Site": "same-site", "Origin": "https://x.example.com"},
		"null":       {"Sec-Fetch-Site": "", "Origin": "null"},
	} {
		if a := press(t, b, page, "Send", h); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %s", what, a.Status)
		}
	}
	if a := press(t, s.Browser(), page, "Send", nil); a.StatusCode != http.StatusGone {
		t.Errorf("another browser: %s", a.Status)
	}
	guess := submit(b, s, "/save", "postern-kept="+strings.Repeat("A", 22), nil)
	if guess.StatusCode != http.StatusGone {
		t.Errorf("a marker that is made up: %s", guess.Status)
	}
	if len(arrivedBy(s, http.MethodPost)) != 0 {
		t.Error("something was sent")
	}
	if got := press(t, b, page, "Send", nil).Received(t); got.Body != keptForm {
		t.Errorf("%+v", got)
	}
}

// What is sent in the end is decided on as if it came now: by its own method, path and headers.
func TestKeptRequestMeetsItsRouteAndRule(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}"}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {upstream: "${UPSTREAM}", csrf: fetch_metadata}
  - {path: /items, methods: [DELETE], upstream: "${UPSTREAM}", access: {groups: [admins]}}
  - {path: /rule, upstream: "${UPSTREAM}", access: {rule: 'request.method == "PATCH" && request.path == "/rule"'}}
`})
	script := func(method, address string) string {
		a := b.Do(method, address, strings.NewReader(`{}`), map[string]string{
			"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin", "Origin": s.URL, "Content-Type": "application/json",
		})
		var problem struct {
			LoginURL string `json:"login_url"`
			Kept     bool
		}
		if json.Unmarshal([]byte(a.Text), &problem) != nil || !problem.Kept {
			t.Fatalf("%s: %s", a.Status, a.Text)
		}
		return problem.LoginURL
	}
	denied := b.Go(script(http.MethodDelete, "/items/7"))
	if a := press(t, b, denied, "Send", nil); a.StatusCode != http.StatusForbidden || len(arrivedBy(s, http.MethodDelete)) != 0 {
		t.Errorf("a rule that refuses: %s", a.Status)
	}
	if a := press(t, b, denied, "Send", nil); a.StatusCode != http.StatusForbidden { // it was not taken
		t.Errorf("the second time: %s", a.Status)
	}
	s.Clock.Add(2 * time.Hour)
	if got := press(t, b, b.Go(script(http.MethodPatch, "/rule")), "Send", nil).Received(t); got.Method != http.MethodPatch {
		t.Errorf("the application got %s", got.Method)
	}
}

// Whatever ended the session, the person is known for a while; after a sign-out nobody is.
func TestKeptAfterEachEnd(t *testing.T) {
	for what, end := range map[string]func(s *proxytest.Stack, b *proxytest.Browser){
		"refresh_rejected": func(s *proxytest.Stack, b *proxytest.Browser) {
			s.Provider.FailOAuth("token", http.StatusBadRequest, "invalid_grant", 1)
			s.Clock.Add(6 * time.Minute)
		},
		"back_channel": func(s *proxytest.Stack, _ *proxytest.Browser) {
			wantOrder(t, orderLogout(t, s, s.Provider.LogoutToken("wiki", "alice", "", nil)), http.StatusOK)
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := proxytest.New(t, proxytest.Options{})
			b := s.Browser()
			b.Go("/form")
			end(s, b)
			if a := b.Fetch("/poll"); !strings.Contains(a.Text, what) { // the page asks before the person sends
				t.Fatalf("not ended by %s: %s", what, a.Text)
			}
			if got := press(t, b, b.Go(wantKept(t, submit(b, s, "/save", keptForm, nil))), "Send", nil).Received(t); got.Body != keptForm {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A form of the application's own that is as long as ours, and one that begins like ours, arrive as they are.
func TestFormsOfTheSameLengthPass(t *testing.T) {
	s := proxytest.New(t, proxytest.Options{})
	b := s.Browser()
	b.Go("/")
	for _, body := range []string{"x=" + strings.Repeat("y", 33), "postern-kept=" + strings.Repeat("A", 21), "postern-kepT=" + strings.Repeat("A", 22)} {
		if got := submit(b, s, "/own", body, nil).Received(t); got.Body != body {
			t.Errorf("%q arrived as %q", body, got.Body)
		}
	}
}

func TestKeptAtOnceIsBounded(t *testing.T) {
	s, b := keptStack(t, proxytest.Options{})
	cookie := sessionCookie + "=" + b.Cookie(sessionCookie).Value
	// Eight that never end take all places.
	var writers []*io.PipeWriter
	var done sync.WaitGroup
	hold := func() {
		r, w := io.Pipe()
		writers = append(writers, w)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/save", r)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Cookie": cookie, "Content-Type": "application/json", "Origin": s.URL, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"} {
			req.Header.Set(name, value)
		}
		done.Go(func() {
			if resp, err := s.Transport().RoundTrip(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	for range 8 {
		hold()
	}
	proxytest.Eventually(t, func() bool {
		hold() // one of the eight may have found a form in its place
		return strings.Contains(submit(s.Browser(), s, "/save", keptForm, map[string]string{"Cookie": cookie}).Text, "Nothing was sent")
	})
	for _, w := range writers {
		_ = w.Close()
	}
	done.Wait()
	wantKept(t, submit(b, s, "/save", keptForm, nil))
}
