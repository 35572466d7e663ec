package page_test

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"postern/proxy/page"
)

const svg = `<?xml version="1.0"?><!-- ours --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>`

func problemsOf(t *testing.T, o page.Options) string {
	t.Helper()
	if _, err := page.New(o); err != nil {
		return err.Error()
	}
	return ""
}

func TestLogoIsAnImageInThePage(t *testing.T) {
	for media, data := range map[string]string{
		"image/svg+xml": svg,
		"image/png":     "\x89PNG\x0D\x0A\x1A\x0A" + strings.Repeat("\x00", 30),
		"image/jpeg":    "\xFF\xD8\xFF\xE0" + strings.Repeat("\x00", 30),
		"image/webp":    "RIFF\x24\x00\x00\x00WEBPVP8 " + strings.Repeat("\x00", 30),
	} {
		p := branded(page.Options{Logo: []byte(data)})
		for _, s := range samplesOf(p) {
			res := get(t, s.show)
			doc := parse(t, body(t, res))
			images := find(doc, "img")
			if len(images) != 1 || !strings.HasPrefix(attr(images[0], "src"), "data:"+media+";base64,") {
				t.Fatalf("%s: %s: %d images", s.name, media, len(images))
			}
			if len(find(doc, "svg")) != 0 {
				t.Errorf("%s: our mark stands beside it", s.name)
			}
			if got := directives(t, res)["img-src"]; got != "data:" {
				t.Errorf("%s: img-src %s", s.name, got)
			}
		}
	}
}

func TestWhatIsNoImageIsNoLogo(t *testing.T) {
	for name, data := range map[string]string{
		"a page":         "<!DOCTYPE html><html><body><svg></svg></body></html>",
		"a script":       "<script>alert(1)</script>",
		"text":           "svg",
		"text, then svg": "hello <svg></svg>",
		"a comment":      "<!-- <svg> -->",
		"GIF":            "GIF89a" + strings.Repeat("\x00", 30),
		"PDF":            "%PDF-1.4",
		"spaces":         "   \n",
	} {
		if got := problemsOf(t, page.Options{Logo: []byte(data)}); !strings.HasPrefix(got, "logo: is not an image") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestSupportIsALinkAtTheFoot(t *testing.T) {
	for _, url := range []string{"https://help.example.com/a?b=c", "mailto:it@example.com", "mailto:it@example.com?subject=Sign-in"} {
		p := branded(page.Options{Support: page.Support{URL: url, Text: `IT <desk> & "co"`}})
		for _, s := range samplesOf(p) {
			var found []string
			for _, a := range find(find(parse(t, body(t, get(t, s.show))), "body")[0], "a") {
				if attr(a, "href") == url {
					found = append(found, content(a))
				}
			}
			want := []string{`IT <desk> & "co"`}
			if s.name == "iframe" { // other sites may frame it: it holds nothing but the way out
				want = nil
			}
			if strings.Join(found, "|") != strings.Join(want, "|") {
				t.Errorf("%s: %s: %q", s.name, url, found)
			}
		}
	}
	p := branded(page.Options{Support: page.Support{URL: "https://help.example.com/"}})
	if b := body(t, get(t, inLanguage("de", func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, page.Notice{}) }))); !strings.Contains(b, ">Hilfe</a>") {
		t.Error("the link is not in the page's language")
	}
	for _, url := range []string{"javascript:alert(1)", "JavaScript:alert(1)", "http://help.example.com/", "//help.example.com/", "/help", "data:text/html,x", "mailto:", "mailto:it",
		"https://", "https://a:b@help.example.com/", "https://help.example.com/ x", "https://help.example.com/\n", " https://help.example.com/", "https:help", "vbscript:x"} {
		if got := problemsOf(t, page.Options{Support: page.Support{URL: url}}); !strings.HasPrefix(got, "support.url: is neither") {
			t.Errorf("%q: %q", url, got)
		}
	}
}

var custom = regexp.MustCompile(`\n@media \(prefers-color-scheme: (light|dark)\) \{ :root \{(( --[a-z-]+: #[0-9a-f]{6};)*) \} \}`)

// What a site's colours change is readable in both schemes, whatever the accent: WCAG 2.2, 1.4.3.
func TestColorsCanBeRead(t *testing.T) {
	for _, colors := range []page.Colors{
		{Accent: "#0b57d0"}, {Accent: "#000"}, {Accent: "#767676"}, {Accent: "#C00"}, {Accent: "#7a5c00", AccentDark: "#ffd34d"}, {Background: "#fff", BackgroundDark: "#000"},
		{Accent: "#0b5", AccentDark: "#0b5"}, {Accent: "#006d32", Background: "#eef3fb", BackgroundDark: "#0a1020"}, {AccentDark: "#8ab4f8"},
	} {
		p, err := page.New(page.Options{Colors: colors})
		if colors.Accent == "#0b5" { // too light on white
			if err == nil || !strings.HasPrefix(err.Error(), "colors.accent: #00bb55 has a contrast of 2.5:1 to the card's #ffffff, and text needs 4.5:1. Take one such as #") {
				t.Errorf("%+v: %v", colors, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", colors, err)
			continue
		}
		res := get(t, func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, page.Notice{}) })
		b := body(t, res)
		if got, want := directives(t, res)["style-src"], styleHash(t, b); got != want {
			t.Errorf("%+v: the style is not allowed: %s, want %s", colors, got, want)
		}
		set := custom.FindAllStringSubmatch(b, -1)
		if len(set) != 2 {
			t.Fatalf("%+v: %d schemes", colors, len(set))
		}
		light, dark := schemesOf(t)
		for i, base := range []map[string]float64{light, dark} {
			for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(set[i][2], -1) {
				base[m[1]] = luminance(t, m[2])
			}
			for _, pair := range [][2]string{{"text", "ground"}, {"soft", "ground"}, {"text", "tint"}, {"accent", "card"}, {"on-accent", "accent"}, {"on-accent", "accent-hover"}} {
				a, b := base[pair[0]], base[pair[1]]
				if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < 4.5 {
					t.Errorf("%+v: %s: %s on %s is %.2f:1", colors, set[i][1], pair[0], pair[1], got)
				}
			}
		}
	}
}

// schemesOf reads the colours of page.css as [TestContrast] does.
func schemesOf(t *testing.T) (light, dark map[string]float64) {
	t.Helper()
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(string(css), "prefers-color-scheme: dark")
	read := func(text string) map[string]float64 {
		all := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(text, -1) {
			all[m[1]] = luminance(t, m[2])
		}
		return all
	}
	return read(before), read(after)
}

// The mend is a colour that would do.
func TestColorsThatCannotBeReadAreRefused(t *testing.T) {
	for _, tt := range []struct {
		colors page.Colors
		option string
		mended func(to string) page.Colors
	}{
		{page.Colors{Accent: "#fc0"}, "colors.accent", func(to string) page.Colors { return page.Colors{Accent: to} }},
		{page.Colors{AccentDark: "#003"}, "colors.accent_dark", func(to string) page.Colors { return page.Colors{AccentDark: to} }},
		{page.Colors{Background: "#123456"}, "colors.background", func(to string) page.Colors { return page.Colors{Background: to} }},
		{page.Colors{BackgroundDark: "#ddd"}, "colors.background_dark", func(to string) page.Colors { return page.Colors{BackgroundDark: to} }},
	} {
		got := problemsOf(t, page.Options{Colors: tt.colors})
		_, mend, ok := strings.Cut(got, "Take one such as ")
		if !ok || !strings.HasPrefix(got, tt.option+": ") {
			t.Errorf("%+v: %q", tt.colors, got)
			continue
		}
		if again := problemsOf(t, page.Options{Colors: tt.mended(strings.TrimSpace(mend))}); again != "" {
			t.Errorf("%+v: the mend %s is no better: %s", tt.colors, mend, again)
		}
	}
}

// A colour is nothing but a number: it cannot end the style and begin another.
func TestColorsInjectNothing(t *testing.T) {
	for _, value := range []string{"red", "#12", "#1234", "#12345", "#1234567", "#ggg", "0b57d0", "#0b57d0;}", "#fff}*{display:none", "</style><script>", "url(//evil.example)",
		" #fff", "#fff ", "#fff\n", "rgb(0,0,0)", "var(--x)", "#０００"} {
		for _, colors := range []page.Colors{{Accent: value}, {AccentDark: value}, {Background: value}, {BackgroundDark: value}} {
			if got := problemsOf(t, page.Options{Colors: colors}); !strings.Contains(got, "is not a colour") {
				t.Errorf("%q: %q", value, got)
			}
		}
	}
}

func TestTitleIsEscapedAndCut(t *testing.T) {
	p, err := page.New(page.Options{Title: "<b>" + strings.Repeat("x", 500)})
	if err != nil {
		t.Fatal(err)
	}
	b := body(t, get(t, func(w http.ResponseWriter, r *http.Request) { p.Notice(w, r, page.Notice{}) }))
	if strings.Contains(b, "<b>") || strings.Contains(b, strings.Repeat("x", 300)) {
		t.Error("the title is in the page as it was")
	}
}
