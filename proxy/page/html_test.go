package page_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"postern/proxy/page"
)

// What a keyboard and a screen reader need of every page.
func TestAccessible(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			doc := parse(t, body(t, get(t, s.show)))
			if got := attr(find(doc, "html")[0], "lang"); got != "en" {
				t.Errorf("lang %q", got)
			}
			for _, tag := range []string{"h1", "title", "main", "header", "footer"} {
				n := find(doc, tag)
				if tag == "footer" && (s.name == "continue" || s.name == "fragment") {
					continue // they have neither status nor request id
				}
				if len(n) != 1 || content(n[0]) == "" {
					t.Errorf("%d %s, want one with content", len(n), tag)
				}
			}
			if h, title := content(find(doc, "h1")[0]), content(find(doc, "title")[0]); title != h+" · Example Wiki" {
				t.Errorf("title %q, heading %q", title, h)
			}
			for _, tag := range []string{"a", "button", "li", "dt", "dd"} {
				for _, n := range find(doc, tag) {
					if content(n) == "" {
						t.Errorf("an empty %s", tag)
					}
				}
			}
			for _, n := range find(doc, "a") {
				if attr(n, "href") == "" {
					t.Errorf("link %q leads nowhere", content(n))
				}
			}
			for _, n := range find(doc, "svg") {
				if attr(n, "aria-hidden") != "true" {
					t.Error("the mark is read aloud")
				}
			}
			for _, n := range find(doc, "input") {
				labelled := slices.ContainsFunc(find(doc, "label"), func(l *html.Node) bool { return attr(l, "for") == attr(n, "id") && content(l) != "" })
				if attr(n, "type") != "hidden" && (attr(n, "id") == "" || !labelled) {
					t.Errorf("input %q needs a label", attr(n, "name"))
				}
			}
			for _, n := range find(doc, "form") {
				if attr(n, "method") != "post" {
					t.Errorf("form method %q: a secret field would stand in the address", attr(n, "method"))
				}
				if len(find(n, "button")) != 1 {
					t.Error("a form without its button")
				}
			}
			if n := find(doc, "meta"); !slices.ContainsFunc(n, func(n *html.Node) bool {
				return attr(n, "name") == "viewport" && !strings.Contains(attr(n, "content"), "scalable=no")
			}) {
				t.Error("no viewport, or zooming is off")
			}
		})
	}
}

func TestRoles(t *testing.T) {
	for name, want := range map[string]string{"forbidden": "alert", "nothing-sent": "alert", "signed-out": "status"} {
		i := slices.IndexFunc(samples(), func(s sample) bool { return s.name == name })
		doc := parse(t, body(t, get(t, samples()[i].show)))
		if got := attr(find(doc, "main")[0].FirstChild.NextSibling, "role"); got != want {
			t.Errorf("%s: role %q, want %q", name, got, want)
		}
	}
}

func TestOnlyPrimaryAndTopLinksAreMarked(t *testing.T) {
	res := get(t, func(w http.ResponseWriter, r *http.Request) {
		pages().Notice(w, r, page.Notice{Status: 401, Links: []page.Link{
			{Text: "a", URL: "/a"}, {Text: "b", URL: "/b", Primary: true}, {Text: "c", URL: "/c", Top: true},
		}})
	})
	var got []string
	for _, a := range find(parse(t, body(t, res)), "a") {
		got = append(got, attr(a, "href")+" "+attr(a, "class")+" "+attr(a, "target"))
	}
	want := []string{"/a button ", "/b button primary ", "/c button _top"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A page that cannot lead out of a frame gains nothing by being framed.
func TestUnsafeTopLinkDoesNotAllowFraming(t *testing.T) {
	res := get(t, func(w http.ResponseWriter, r *http.Request) {
		pages().Notice(w, r, page.Notice{Status: 401, Links: []page.Link{{Text: "a", URL: "javascript:alert(1)", Top: true}}})
	})
	if got := res.Header.Get("X-Frame-Options"); got != "DENY" {
		t.Errorf("X-Frame-Options %q", got)
	}
}

// attacks are texts that strangers might put into a path, a host, an error_description or a claim (security.md A12, A44, A117).
var attacks = []string{
	`<script>alert(1)</script>`,
	`</title><script>alert(1)</script>`,
	`</style><script>alert(1)</script>`,
	`</main></div></body></html><img src=x onerror=alert(1)>`,
	`"><script>alert(1)</script>`,
	`'><script>alert(1)</script>`,
	`" onmouseover="alert(1)`,
	`' autofocus onfocus='alert(1)`,
	`';alert(1);//`,
	"`-alert(1)-`",
	`<svg/onload=alert(1)>`,
	`<svg><style><img src=x onerror=alert(1)>`,
	`<!--><script>alert(1)</script>-->`,
	`--><script>alert(1)</script>`,
	`<![CDATA[<script>alert(1)</script>]]>`,
	`<meta http-equiv="refresh" content="0;url=//evil.example">`,
	`<base href="//evil.example/">`,
	`<form action=//evil.example><input name=x>`,
	`<a href="//evil.example" target=_top>click</a>`,
	`<iframe srcdoc="<script>alert(1)</script>">`,
	`<link rel=stylesheet href=//evil.example>`,
	`&lt;script&gt;alert(1)&lt;/script&gt;`,
	`&#60;script&#62;alert(1)`,
	`{{.Style}}{{template "foot"}}`,
	`${alert(1)}`,
	"+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
	"<scr\x00ipt>alert(1)</scr\x00ipt>",
	"\xc0\xbcscript\xc0\xbealert(1)",
	"\xff\xfe<script>",
	"\u202egnp.exe <b>",
	"line\r\nSet-Cookie: a=b\r\n\r\n<script>",
	"javascript:alert(1)",
	"JaVaScRiPt:alert(1)",
	" javascript:alert(1)",
	"java\tscript:alert(1)",
	"java\nscript:alert(1)",
	"\x01javascript:alert(1)",
	"data:text/html,<script>alert(1)</script>",
	"vbscript:msgbox(1)",
	"//evil.example",
	`/\evil.example`,
	`\\evil.example`,
	"/\t/evil.example",
	"https:evil.example",
	"https:/evil.example",
	"https:///evil.example",
	"https://",
	"https://:443/",
	"https://good.example@evil.example/",
	"https:\\\\evil.example",
	"https://*; script-src 'unsafe-inline'",
	"https://evil.example; frame-ancestors *",
	"https://evil.example,",
	strings.Repeat("<b>", 400_000), // over 1 MB
}

// hostile is every page with attack in every field.
func hostile(t *testing.T, attack string) []sample {
	t.Helper()
	p, err := page.New(page.Options{Title: attack, Support: page.Support{URL: "https://help.example.com/", Text: attack}})
	if err != nil {
		t.Fatal(err)
	}
	field := attack[:min(len(attack), 4096)] // fields are the proxy's own: they are not cut
	fields := map[string]string{field: field}
	return []sample{
		{"notice", func(w http.ResponseWriter, r *http.Request) {
			p.Notice(w, r, page.Notice{Status: 400, Say: "denied", Ended: attack, Account: attack, RequestID: attack,
				Links: []page.Link{{Text: attack, URL: "/ok"}, {Text: "x", URL: attack, Primary: true}, {Text: attack, URL: attack, Top: true}}})
		}},
		{"confirm", func(w http.ResponseWriter, r *http.Request) {
			p.Confirm(w, r, page.Confirm{Say: "sign_out", Action: attack, Cancel: attack, RequestID: attack})
		}},
		{"session", func(w http.ResponseWriter, r *http.Request) {
			p.Session(w, r, page.SessionView{User: attack, Email: attack, Name: attack, Provider: attack, Groups: slices.Repeat([]string{attack}, 12),
				SignOut: attack, Home: attack, End: "/ok", More: attack, RequestID: attack,
				Sessions: []page.SessionLine{{ID: "id", Browser: attack, SignedIn: clock, Seen: clock}}})
		}},
		{"signin fields", func(w http.ResponseWriter, r *http.Request) {
			p.SignIn(w, r, page.SignIn{Action: "/ok", Fields: fields})
		}},
		{"signin", func(w http.ResponseWriter, r *http.Request) {
			p.SignIn(w, r, page.SignIn{Provider: attack, Action: attack, Fields: fields, User: attack, Ended: attack, RequestID: attack})
		}},
		{"kept", func(w http.ResponseWriter, r *http.Request) {
			p.Kept(w, r, page.Kept{Method: attack, Path: attack, Type: attack, Fields: []string{attack}, Send: attack, Drop: "/ok", Marker: fields, RequestID: attack})
		}},
		{"continue", func(w http.ResponseWriter, r *http.Request) { p.Continue(w, r, page.SignedIn, attack) }},
	}
}

// TestErrorPageXSS parses every hostile page as a browser does and looks for anything that our templates do not hold.
func TestErrorPageXSS(t *testing.T) {
	elements := strings.Fields("html head meta title link style body header svg path span main div h1 p ul li a form label input button dl dt dd bdi details summary time small footer code section h2 strong")
	attributes := strings.Fields("lang dir charset name content http-equiv rel href width height viewbox viewBox aria-hidden focusable fill stroke stroke-width " +
		"stroke-linejoin stroke-linecap d role id for autocomplete autocapitalize spellcheck required maxlength autofocus aria-describedby aria-labelledby aria-label class target method action type value datetime")
	for i, attack := range attacks {
		for _, s := range hostile(t, attack) {
			t.Run(strconv.Itoa(i)+" "+s.name, func(t *testing.T) {
				res := get(t, s.show)
				b := body(t, res)
				if !utf8.ValidString(b) {
					t.Error("not UTF-8")
				}
				if len(b) > 64<<10 {
					t.Errorf("a page of %d bytes", len(b))
				}
				doc := parse(t, b)
				for n := range doc.Descendants() {
					switch n.Type {
					case html.CommentNode:
						t.Errorf("comment %q", n.Data)
					case html.ElementNode:
						if !slices.Contains(elements, n.Data) {
							t.Errorf("element %s", n.Data)
						}
						for _, a := range n.Attr {
							if !slices.Contains(attributes, a.Key) {
								t.Errorf("attribute %s of %s", a.Key, n.Data)
							}
							if (a.Key == "href" && n.Data != "link" || a.Key == "action") && !leadsHome(a.Val) && a.Val != "https://help.example.com/" {
								t.Errorf("%s of %s leads to %q", a.Key, n.Data, a.Val)
							}
							if a.Key == "content" && attr(n, "http-equiv") != "" && !leadsHome(strings.TrimPrefix(a.Val, "0; url=")) {
								t.Errorf("goes on to %q", a.Val)
							}
						}
					}
				}
				for _, tag := range []string{"h1", "title", "main", "style", "body"} {
					if n := len(find(doc, tag)); n != 1 {
						t.Errorf("%d %s", n, tag)
					}
				}
				for _, n := range find(doc, "style") {
					if strings.Contains(n.FirstChild.Data, "alert") {
						t.Error("the attack is in the style")
					}
				}
				for k, vs := range res.Header {
					if strings.ContainsAny(strings.Join(vs, ""), "\r\n") {
						t.Errorf("header %s has lines: %q", k, vs)
					}
				}
				csp := directives(t, res)
				if csp["default-src"] != "'none'" || csp["script-src"] != "" || len(csp) != 6 || strings.Contains(csp["form-action"], "*") {
					t.Errorf("Content-Security-Policy: %v", csp)
				}
				if csp["frame-ancestors"] != "'none'" && len(find(doc, "form")) > 0 {
					t.Error("a page with a form can be framed")
				}
			})
		}
	}
}

// leadsHome reports whether no attack of the corpus is behind an address: it is a path of this origin, written so that every browser agrees.
func leadsHome(u string) bool {
	if u == "/" || u == "/ok" {
		return true
	}
	// Texts of the corpus that are relative references by every reading, escaped by the template.
	first := strings.ToLower(u)
	for _, bad := range []string{"javascript:", "data:", "vbscript:", "//", `/\`, `\`, "http:", "https:", "/\t"} {
		if strings.HasPrefix(first, bad) {
			return false
		}
	}
	return !strings.ContainsAny(u, "\x00\x01\t\r\n ")
}

func TestLinksLeadOnlyWhereAllowed(t *testing.T) {
	for _, tt := range []struct {
		url string
		ok  bool
	}{
		{"/", true},
		{"/oauth2/start?rd=%2Fa%3Fb", true},
		{"/a:b", true},
		{"start?rd=/", true},
		{"?a=b", true},
		{"#a", true},
		{"/a?b=https://c.example/", true},
		{`/a?b=\c`, true},
		{"http://wiki.example.com/", true},
		{"https://wiki.example.com:8443/a?b#c", true},
		{"HTTPS://wiki.example.com", true},
		{"https://[::1]:4180/", true},

		{"", false},
		{"javascript:alert(1)", false},
		{"JAVASCRIPT:alert(1)", false},
		{"java\tscript:alert(1)", false},
		{"\x00javascript:alert(1)", false},
		{" /", false},
		{"/a b", false},
		{"data:text/html,x", false},
		{"mailto:a@example.com", false},
		{"ftp://example.com/", false},
		{"file:///etc/passwd", false},
		{"blob:https://example.com/1", false},
		{"filesystem:https://example.com/1", false},
		{"//evil.example/", false},
		{"///evil.example/", false},
		{`/\evil.example/`, false},
		{`\/evil.example/`, false},
		{`a\b`, false},
		{"https:evil.example", false},
		{"https:/evil.example", false},
		{"https:///evil.example", false},
		{"http:?x", false},
		{"https://:443/", false},
		{"https://user@example.com/", false},
		{"https://a:b@example.com/", false},
		{"https://exa mple.com/", false},
		{"https://example.com:x/", false},
		{"/\x7f", false},
		{"/\xff", false},
	} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) {
			pages().Notice(w, r, page.Notice{Links: []page.Link{{Text: "x", URL: tt.url}}})
		})
		if got := len(find(parse(t, body(t, res)), "a")) == 1; got != tt.ok {
			t.Errorf("%q: link %v, want %v", tt.url, got, tt.ok)
		}
	}
}

func TestFieldsArriveUnchanged(t *testing.T) {
	fields := map[string]string{"csrf": "a+b/c==", "rd": "/x?y=\"z\"&a='b'#<c> {{d}}", "empty": "", "é": "日本\u202e", "long": strings.Repeat("x", 5000)}
	show := func(w http.ResponseWriter, r *http.Request) {
		pages().SignIn(w, r, page.SignIn{Action: "/x", Fields: fields})
	}
	got := map[string]string{}
	for _, n := range find(parse(t, body(t, get(t, show))), "input") {
		if attr(n, "type") == "hidden" {
			got[attr(n, "name")] = attr(n, "value")
		}
	}
	if len(got) != len(fields) {
		t.Errorf("%d fields, want %d", len(got), len(fields))
	}
	for k, want := range fields {
		if got[k] != want {
			t.Errorf("%s = %q, want %q", k, got[k], want)
		}
	}
}

// Names that read from the right must not rewrite what stands beside them.
func TestTextIsCleanedAndCut(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"Alice", "Alice"},
		{"  Alice \n Smith\t", "Alice Smith"},
		{"a\x00b\x07c\x1b[31m", "abc[31m"},
		{"a\u202eb\u2066c\u200e", "abc"},
		{"א ב", "א ב"},
		{"👩‍🚀", "👩‍🚀"},
		{"\xffAlice\xc3", "Alice"},
		{strings.Repeat("é", 200), strings.Repeat("é", 200)},
		{strings.Repeat("é", 201), strings.Repeat("é", 200) + "…"},
		{strings.Repeat("😀", 1_000_000), strings.Repeat("😀", 200) + "…"},
	} {
		res := get(t, func(w http.ResponseWriter, r *http.Request) {
			pages().Session(w, r, page.SessionView{User: tt.in})
		})
		var got string
		for _, n := range find(parse(t, body(t, res)), "bdi") {
			got += content(n)
		}
		if got != tt.want {
			t.Errorf("%.40q: got %.40q, want %.40q", tt.in, got, tt.want)
		}
	}
}

// What one can do is below the groups: many of them wait behind a word.
func TestManyGroupsAreCounted(t *testing.T) {
	for n, want := range map[int]struct {
		items, hidden int
		summary       string
	}{
		9:   {items: 9},
		10:  {items: 10, hidden: 2, summary: "2 more"},
		450: {items: 50, hidden: 42, summary: "42 more, and 400 that are not listed"},
	} {
		doc := parse(t, body(t, get(t, func(w http.ResponseWriter, r *http.Request) {
			pages().Session(w, r, page.SessionView{User: "alice", Groups: slices.Repeat([]string{"g"}, n)})
		})))
		hidden, summary := 0, ""
		for _, d := range find(doc, "details") {
			hidden, summary = len(find(d, "li")), content(find(d, "summary")[0])
		}
		if got := len(find(doc, "li")); got != want.items || hidden != want.hidden || summary != want.summary {
			t.Errorf("%d groups: %d items, of them %d behind %q; want %+v", n, got, hidden, summary, want)
		}
	}
}
