package page_test

import (
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"postern/proxy/page"
)

var update = flag.Bool("update", false, "write the golden files anew")

var clock = time.Date(2026, 11, 21, 14, 5, 30, 0, time.UTC)

func pages() *page.Pages { return branded(page.Options{}) }

// branded are pages of a site called Example Wiki.
func branded(o page.Options) *page.Pages {
	o.Title, o.Now = "Example Wiki", func() time.Time { return clock }
	p, err := page.New(o)
	if err != nil {
		panic(err)
	}
	return p
}

// sample is one page as the proxy shows it.
type sample struct {
	name string
	show http.HandlerFunc
}

func samples() []sample { return samplesOf(pages()) }

func samplesOf(p *page.Pages) []sample {
	const id = "01jd7v3k8q"
	notice := func(n page.Notice) http.HandlerFunc {
		n.RequestID = id
		return func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, n) }
	}
	session := func(s page.SessionView) http.HandlerFunc {
		s.RequestID = id
		return func(w http.ResponseWriter, r *http.Request) { p.Session(w, r, s) }
	}
	one := 1
	return []sample{
		{"forbidden", notice(page.Notice{
			Status: http.StatusForbidden, Say: "denied", Account: "alice@example.com",
			Links: []page.Link{{Say: "another_account", URL: "/oauth2/start?rd=%2Fadmin&prompt=login"}, {Say: "sign_out", URL: "/oauth2/logout"}},
		})},
		{"unavailable", notice(page.Notice{
			Status: http.StatusServiceUnavailable, Say: "store_down",
			Links: []page.Link{{Say: "try_again", URL: "/wiki/Main?a=1&b=2", Primary: true}},
		})},
		{"unnamed", notice(page.Notice{Status: http.StatusNotFound})},
		{"nothing-sent", notice(page.Notice{
			Status: http.StatusUnauthorized, Say: "not_sent", Ended: "idle",
			Links: []page.Link{{Say: "sign_in", URL: "/oauth2/start?rd=%2Fform", Primary: true}},
		})},
		{"iframe", notice(page.Notice{
			Status: http.StatusUnauthorized, Say: "framed",
			Links: []page.Link{{Say: "sign_in", URL: "/oauth2/start?rd=%2Fform", Primary: true, Top: true}},
		})},
		{"loop", notice(page.Notice{
			Status: http.StatusBadRequest, Say: "loop",
			Links: []page.Link{{Say: "try_again", URL: "/oauth2/start?rd=%2F", Primary: true}},
		})},
		{"choose", notice(page.Notice{
			Status: http.StatusOK, Say: "choose",
			Links: []page.Link{{Text: "Example AG", URL: "/oauth2/start?provider=corp&rd=%2F"}, {Text: "GitHub", URL: "/oauth2/start?provider=github&rd=%2F"}},
		})},
		{"signed-out", notice(page.Notice{
			Status: http.StatusOK, Say: "signed_out",
			Links: []page.Link{{Say: "sign_in", URL: "/oauth2/start", Primary: true}},
		})},
		{"confirm", func(w http.ResponseWriter, r *http.Request) {
			p.Confirm(w, r, page.Confirm{Say: "sign_out", Action: "/oauth2/logout", Cancel: "/", RequestID: id})
		}},
		{"cookies", func(w http.ResponseWriter, r *http.Request) {
			p.Confirm(w, r, page.Confirm{
				Status: http.StatusRequestHeaderFieldsTooLarge, Say: "clear", Action: "/oauth2/clear-cookies", Cancel: "/", RequestID: id,
			})
		}},
		{"signin", func(w http.ResponseWriter, r *http.Request) {
			p.SignIn(w, r, page.SignIn{
				Provider: "Team accounts", Action: "/oauth2/start", Fields: map[string]string{"state": "c3RhdGU"}, RequestID: id,
			})
		}},
		{"signin-wrong", func(w http.ResponseWriter, r *http.Request) {
			p.SignIn(w, r, page.SignIn{
				Status: http.StatusUnauthorized, Provider: "Team accounts", Action: "/oauth2/start", Fields: map[string]string{"state": "c3RhdGU"},
				User: `alice"@example.com`, Problem: "wrong", RequestID: id,
			})
		}},
		{"signin-ended", func(w http.ResponseWriter, r *http.Request) {
			p.SignIn(w, r, page.SignIn{
				Provider: "Team accounts", Action: "/oauth2/start", Fields: map[string]string{"state": "c3RhdGU"},
				Ended: "idle", RequestID: id,
			})
		}},
		{"session", session(page.SessionView{
			User: "3f0e9c1e-7d0b-4f8e-9a57-0c3e0d9e0001", Email: "alice@example.com", Name: "Alice Árnadóttir",
			Groups: []string{"wiki-users", "staff"}, Provider: "main",
			SignedIn: clock.Add(-72 * time.Minute), Ends: clock.Add(10*time.Hour + 48*time.Minute),
			IdleUntil: clock.Add(time.Hour), RefreshAt: clock.Add(4*time.Minute + 2*time.Second),
			SignOut: "/oauth2/logout", Home: "/",
		})},
		{"session-list", session(page.SessionView{
			User: "alice", Email: "alice@example.com", Name: "Alice Árnadóttir", Provider: "main",
			SignedIn: clock.Add(-72 * time.Minute), Ends: clock.Add(10*time.Hour + 48*time.Minute), IdleUntil: clock.Add(time.Hour),
			SignOut: "/oauth2/logout", Home: "/", Ended: &one, End: "/oauth2", OtherSessions: true, More: "/oauth2?after=x%3D1#sessions",
			Sessions: []page.SessionLine{
				{ID: "kYxP0m3q", Browser: "Firefox", SignedIn: clock.Add(-72 * time.Minute), Seen: clock.Add(time.Second), This: true},
				{ID: "b<7\"T", Browser: "Other", SignedIn: clock.Add(-50 * time.Hour), Seen: clock.Add(-26 * time.Hour)},
			},
		})},
		{"session-store-down", session(page.SessionView{
			User: "alice", SignedIn: clock.Add(-72 * time.Minute), SignOut: "/oauth2/logout", Home: "/", End: "/oauth2",
			Unknown:  true,
			Sessions: []page.SessionLine{{ID: "kYxP0m3q", Browser: "Firefox", SignedIn: clock.Add(-72 * time.Minute), Seen: clock, This: true}},
		})},
		{"session-bare", session(page.SessionView{User: "bob", SignedIn: clock, SignOut: "/oauth2/logout"})},
		{"continue", func(w http.ResponseWriter, r *http.Request) {
			p.Continue(w, r, page.SignedIn, `/wiki/Foo_(bar)?q=a|b&x="y"^{z}'#part`)
		}},
		{"kept", func(w http.ResponseWriter, r *http.Request) {
			p.Kept(w, r, page.Kept{
				Method: "POST", Path: "/wiki/Main/attach", Type: "multipart/form-data", Size: 3 << 19, At: clock.Add(-3 * time.Minute),
				Fields: []string{"title", "comment", `picture: <b id="x">.png`}, MoreFields: 2, Send: "/wiki/Main/attach?rev=3&x=%C3%A4", Drop: "/oauth2/kept",
				Marker: map[string]string{"postern-kept": "bWFya2Vy"}, DropMarker: map[string]string{"postern-kept": "bWFya2Vy", "rd": "/wiki/Main"}, RequestID: id,
			})
		}},
		{"kept-bare", func(w http.ResponseWriter, r *http.Request) {
			p.Kept(w, r, page.Kept{Method: "DELETE", Path: "/wiki/Main", At: clock, Send: "/wiki/Main", Drop: "/oauth2/kept", RequestID: id})
		}},
		{"fragment", func(w http.ResponseWriter, r *http.Request) {
			p.Fragment(w, r, page.SigningIn, "https://wiki.example.com/oauth2/start?rd=%2Fapp%3Fx%3D1", "/oauth2/fragment.js")
		}},
	}
}

func get(t *testing.T, show http.HandlerFunc) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	show(w, httptest.NewRequestWithContext(t.Context(), "GET", "/wiki", nil))
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	var b strings.Builder
	if err := res.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, s, _ := strings.Cut(b.String(), "\r\n\r\n")
	return s
}

// inLanguage shows a page to a browser that wants a language.
func inLanguage(tag string, show http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Accept-Language", tag)
		show(w, r)
	}
}

func TestGolden(t *testing.T) {
	all := samples()
	for _, s := range samples() {
		if s.name == "loop" || s.name == "session-list" || s.name == "signin-wrong" || s.name == "kept" {
			for _, tag := range []string{"de", "es", "fr", "ja", "pl"} {
				all = append(all, sample{s.name + "." + tag, inLanguage(tag, s.show)})
			}
		}
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			got := withoutStyle(t, body(t, get(t, s.show)))
			file := filepath.Join("testdata", s.name+".html")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("run with -update if this is meant (-want +got):\n%s", diff)
			}
		})
	}
}

// withoutStyle leaves the style out of the golden files: it is page.css in all of them.
func withoutStyle(t *testing.T, s string) string {
	t.Helper()
	before, rest, ok := strings.Cut(s, "<style>")
	_, after, ok2 := strings.Cut(rest, "</style>")
	if !ok || !ok2 {
		t.Fatal("no style")
	}
	return before + "<style>…</style>" + after
}

func TestHeaders(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			res := get(t, s.show)
			referrer := "no-referrer"
			if s.name == "confirm" || s.name == "cookies" || strings.HasPrefix(s.name, "session") || strings.HasPrefix(s.name, "signin") || strings.HasPrefix(s.name, "kept") {
				referrer = "same-origin" // else the form's own Origin would be null
			}
			for k, want := range map[string]string{
				"Content-Type":           "text/html; charset=utf-8",
				"Content-Language":       "en",
				"Cache-Control":          "no-store",
				"Referrer-Policy":        referrer,
				"X-Content-Type-Options": "nosniff",
			} {
				if got := res.Header.Values(k); len(got) != 1 || got[0] != want {
					t.Errorf("%s: got %q, want %q", k, got, want)
				}
			}
			b := body(t, res)
			if got := res.Header.Get("Content-Length"); got != strconv.Itoa(len(b)) {
				t.Errorf("Content-Length %s, body of %d", got, len(b))
			}

			csp := directives(t, res)
			frame, xfo := "'none'", "DENY"
			if s.name == "iframe" {
				frame, xfo = "*", ""
			}
			form := map[string]string{
				"confirm": "'self'", "cookies": "'self'", "session": "'self'",
				"session-bare": "'self'", "session-list": "'self'", "session-store-down": "'self'", "signin": "'self'", "signin-wrong": "'self'", "signin-ended": "'self'",
				"kept": "'self' https:", "kept-bare": "'self' https:",
			}[s.name]
			if form == "" {
				form = "'none'"
			}
			if got := res.Header.Get("X-Frame-Options"); got != xfo {
				t.Errorf("X-Frame-Options %q, want %q", got, xfo)
			}
			want := map[string]string{
				"default-src": "'none'", "style-src": styleHash(t, b), "img-src": "data:",
				"form-action": form, "frame-ancestors": frame, "base-uri": "'none'",
			}
			if s.name == "fragment" {
				want["script-src"] = "'self'"
			}
			if diff := cmp.Diff(want, csp); diff != "" {
				t.Errorf("Content-Security-Policy (-want +got):\n%s", diff)
			}
		})
	}
}

func directives(t *testing.T, res *http.Response) map[string]string {
	t.Helper()
	all := res.Header.Values("Content-Security-Policy")
	if len(all) != 1 {
		t.Fatalf("Content-Security-Policy: %q", all)
	}
	out := map[string]string{}
	for d := range strings.SplitSeq(all[0], ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(d), " ")
		if _, twice := out[name]; twice {
			t.Errorf("directive %s stands twice in %q", name, all[0])
		}
		out[name] = value
	}
	return out
}

// styleHash hashes the style that a browser finds in the page.
func styleHash(t *testing.T, body string) string {
	t.Helper()
	styles := find(parse(t, body), "style")
	if len(styles) != 1 {
		t.Fatalf("%d style elements", len(styles))
	}
	sum := sha256.Sum256([]byte(styles[0].FirstChild.Data))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// What a caller said of another body, or a proxy copied from the upstream, must not describe the page; what belongs to the answer stays.
func TestHeadersOfAnotherBodyGo(t *testing.T) {
	w := httptest.NewRecorder()
	h := w.Header()
	for _, k := range []string{"Content-Encoding", "Etag", "Last-Modified", "Content-Range", "Accept-Ranges", "Expires", "Content-Disposition"} {
		h.Set(k, "stale")
	}
	h.Set("Content-Length", "7")
	h.Set("Content-Type", "application/zip")
	h.Set("Cache-Control", "public, max-age=3600")
	h.Set("Content-Security-Policy", "default-src *")
	h.Set("Retry-After", "2")
	h.Set("Www-Authenticate", "Bearer")
	h.Add("Set-Cookie", "a=b")
	h.Set("Vary", "Origin, cookie")
	pages().Notice(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil), page.Notice{Status: 502})
	res := w.Result()
	for k, vs := range res.Header {
		if strings.Contains(strings.Join(vs, ","), "stale") {
			t.Errorf("%s: %q", k, vs)
		}
	}
	if got := res.Header.Values("Cache-Control"); len(got) != 1 || got[0] != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	if got := directives(t, res)["default-src"]; got != "'none'" {
		t.Errorf("default-src %q", got)
	}
	for _, k := range []string{"Retry-After", "Www-Authenticate", "Set-Cookie"} {
		if res.Header.Get(k) == "" {
			t.Errorf("%s is gone", k)
		}
	}
	want := "Origin, cookie, Accept, Accept-Language, Sec-Fetch-Dest, Sec-Fetch-Mode"
	if got := strings.Join(res.Header.Values("Vary"), ", "); got != want {
		t.Errorf("Vary %q, want %q", got, want)
	}
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		notice page.Notice
		want   int
	}{
		{page.Notice{Status: 403}, 403},
		{page.Notice{Status: 503}, 503},
		{page.Notice{Status: 421}, 421},
		{page.Notice{}, 500},
		{page.Notice{Status: 100}, 500}, // would not end the response
		{page.Notice{Status: 101}, 500},
		{page.Notice{Status: -1}, 500},
		{page.Notice{Status: 1000}, 500},
		{page.Notice{Status: 200}, 200},
	} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) { pages().Notice(w, r, tt.notice) })
		if res.StatusCode != tt.want {
			t.Errorf("%+v: %d, want %d", tt.notice, res.StatusCode, tt.want)
		}
	}
}

func TestHeadHasNoBody(t *testing.T) {
	for _, s := range samples() {
		w := httptest.NewRecorder()
		s.show(w, httptest.NewRequestWithContext(t.Context(), "HEAD", "/", nil))
		if w.Body.Len() != 0 {
			t.Errorf("%s: %d bytes", s.name, w.Body.Len())
		}
		if want := strconv.Itoa(len(body(t, get(t, s.show)))); w.Header().Get("Content-Length") != want {
			t.Errorf("%s: Content-Length %q, want that of GET, %s", s.name, w.Header().Get("Content-Length"), want)
		}
	}
}

func TestContinueGoesOn(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"/", "/"},
		{"/wiki?a=b&c=d#e", "/wiki?a=b&c=d#e"},
		{`/a|b?q="x"^{y}'z\w`, `/a|b?q="x"^{y}'z\w`}, // byte for byte
		{"https://wiki.example.com/x", "https://wiki.example.com/x"},
		{"", "/"},
		{"javascript:alert(1)", "/"},
		{"//evil.example", "/"},
		{"/x\n0;url=//evil.example", "/"},
	} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) { pages().Continue(w, r, page.SignedIn, tt.url) })
		var got []string
		for _, m := range find(parse(t, body(t, res)), "meta") {
			if attr(m, "http-equiv") == "refresh" {
				got = append(got, attr(m, "content"))
			}
		}
		if diff := cmp.Diff([]string{"0; url=" + tt.want}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tt.url, diff)
		}
	}
	for _, s := range samples() {
		if s.name != "continue" && strings.Contains(body(t, get(t, s.show)), "http-equiv") {
			t.Errorf("%s goes on by itself", s.name)
		}
	}
}

func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		in   time.Duration
		want string
	}{
		{5 * time.Second, "in less than a minute"},
		{time.Minute, "in 1 min"},
		{59*time.Minute + 59*time.Second, "in 59 min"},
		{time.Hour, "in 1 h"},
		{11*time.Hour + 42*time.Minute, "in 11 h 42 min"},
		{25*time.Hour + time.Minute, "in 25 h 1 min"},
		{49 * time.Hour, "in 2 days 1 h"},
		{72 * time.Hour, "in 3 days"},
		{0, "just now"},
		{-30 * time.Second, "just now"},
		{-2 * time.Minute, "2 min ago"},
		{-26 * time.Hour, "26 h ago"},
	} {
		at := clock.Add(tt.in)
		zone := time.FixedZone("somewhere", 5*60*60)
		res := get(t, func(w http.ResponseWriter, r *http.Request) {
			pages().Session(w, r, page.SessionView{User: "alice", Ends: at.In(zone)})
		})
		times := find(parse(t, body(t, res)), "time")
		if len(times) != 1 {
			t.Fatalf("%d times", len(times))
		}
		if got, want := attr(times[0], "datetime"), at.Format("2006-01-02T15:04:05Z"); got != want {
			t.Errorf("%v: datetime %q, want %q", tt.in, got, want)
		}
		if got, want := content(times[0]), tt.want+" "+at.Format("2006-01-02 15:04 UTC"); got != want {
			t.Errorf("%v: got %q, want %q", tt.in, got, want)
		}
	}
}

func parse(t *testing.T, s string) *html.Node {
	t.Helper()
	n, err := html.Parse(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func find(n *html.Node, tag string) []*html.Node {
	var out []*html.Node
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == tag {
			out = append(out, d)
		}
	}
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func content(n *html.Node) string {
	var parts []string
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			parts = append(parts, strings.Fields(d.Data)...)
		}
	}
	return strings.Join(parts, " ")
}

// A provider with identity: none tells nothing about the person, who is signed in all the same.
func TestSessionWithoutIdentityIsASession(t *testing.T) {
	got := body(t, get(t, func(w http.ResponseWriter, r *http.Request) {
		pages().Session(w, r, page.SessionView{Provider: "Maps", SignedIn: clock, SignOut: "/oauth2/logout"})
	}))
	if !strings.Contains(got, "You are signed in") || !strings.Contains(got, "/oauth2/logout") {
		t.Error(got)
	}
}
