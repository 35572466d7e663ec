package page_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"postern/proxy/page"
)

// speaks is the language in which p answers a browser that sends these headers.
func speaks(t *testing.T, p *page.Pages, accept ...string) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	r.Header["Accept-Language"] = accept
	p.Notice(w, r, page.Notice{Status: 403, Say: "denied"})
	tag := attr(find(parse(t, body(t, w.Result())), "html")[0], "lang")
	if got := w.Header().Get("Content-Language"); got != tag {
		t.Errorf("%q: Content-Language %q, lang %q", accept, got, tag)
	}
	if vary := strings.Join(w.Header().Values("Vary"), ", "); !strings.Contains(vary, "Accept-Language") {
		t.Errorf("%q: Vary %q", accept, vary)
	}
	return tag
}

func TestLanguageIsTheBrowsers(t *testing.T) {
	for _, tt := range []struct{ accept, want string }{
		{"de", "de"},
		{"de-AT,de;q=0.9,en;q=0.8", "de"},
		{"en-GB,en;q=0.9,de;q=0.8", "en"},
		{"pt-BR;q=0.3, fr;q=0.4", "fr"},
		{"fr;q=0.2,ja;q=0.9", "ja"},
		{"JA-jp", "ja"},
		{"es-419", "es"},
		{"nl,pl;q=0.5", "pl"},
		{"de;q=0,fr", "fr"},
		{"zu", "en"},
		{"*", "en"},
		{"", "en"},
		{"tlh, *;q=0.1", "en"},
	} {
		if got := speaks(t, pages(), tt.accept); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.accept, got, tt.want)
		}
	}
	if got := speaks(t, pages()); got != "en" {
		t.Errorf("without the header: %s", got)
	}
}

// What no browser sends costs nothing and is answered in the first language.
func TestHostileAcceptLanguage(t *testing.T) {
	for name, accept := range map[string][]string{
		"10,000 entries": {strings.Repeat("de,", 10_000)},
		"21 entries":     {strings.Repeat("de,", 20) + "de"},
		"over 1 KiB":     {"de" + strings.Repeat(" ", 1<<10)},
		"twice":          {"de", "de"},
		"1,000 times":    slices.Repeat([]string{"de"}, 1000),
		"odd bytes":      {"de\x00\xff"},
		"markup":         {`"><script>alert(1)</script>`},
		"many subtags":   {"de" + strings.Repeat("-a", 500)},
		"odd quality":    {"de;q=x"},
		"lines":          {"de\r\nSet-Cookie: a=b"},
	} {
		if got := speaks(t, pages(), accept...); got != "en" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzAcceptLanguageIsAnsweredInALanguageOfOurs(f *testing.F) {
	f.Add("de-AT,de;q=0.9,en;q=0.8")
	f.Add("*;q=0,x-,,;;=")
	f.Add("en-u-co-phonebk-x-a-b-c")
	p := pages()
	f.Fuzz(func(t *testing.T, accept string) {
		if got := speaks(t, p, accept); !slices.Contains([]string{"de", "en", "es", "fr", "ja", "pl"}, got) {
			t.Errorf("%q: %q", accept, got)
		}
	})
}

func TestLanguagesThatAreOffered(t *testing.T) {
	p := branded(page.Options{Languages: []string{"de", "fr"}})
	for accept, want := range map[string]string{"": "de", "en": "de", "fr-CH": "fr", "pl": "de"} {
		if got := speaks(t, p, accept); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
	_, err := page.New(page.Options{Languages: []string{"de", "xx"}})
	if err == nil || !strings.Contains(err.Error(), `languages[1]: there are no texts in "xx". Known: de, en, es, fr, ja, pl; another needs texts/xx.yaml in templates`) {
		t.Error(err)
	}
}

func TestOperatorAddsALanguageAndOverrulesTexts(t *testing.T) {
	p := branded(page.Options{Templates: fstest.MapFS{
		"texts/ar.yaml":    {Data: []byte("dir: rtl\ndenied.title: ممنوع\n")},
		"texts/de.yaml":    {Data: []byte("denied.title: \"Halt! <b>\"\n")},
		"texts/pt-BR.yaml": {Data: []byte("denied.title: Sem acesso\n")},
		"..data":           {Data: []byte("Kubernetes puts such beside them")},
	}})
	for accept, want := range map[string][3]string{
		"ar":    {"ar", "rtl", "ممنوع"},
		"de-DE": {"de", "ltr", "Halt! <b>"},
		"pt":    {"pt-BR", "ltr", "Sem acesso"},
		"fr":    {"fr", "ltr", "Accès refusé"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Header.Set("Accept-Language", accept)
		p.Notice(w, r, page.Notice{Status: 403, Say: "denied"})
		doc := parse(t, body(t, w.Result()))
		root := find(doc, "html")[0]
		got := [3]string{attr(root, "lang"), attr(root, "dir"), find(doc, "h1")[0].FirstChild.Data}
		if got != want {
			t.Errorf("%s: %q, want %q", accept, got, want)
		}
	}
}

// Every page is whole in every language: TestAccessible's rules, and nothing of English left that a sentence could stand in.
func TestEveryPageInEveryLanguage(t *testing.T) {
	english := map[string]string{}
	for _, tag := range []string{"en", "de", "es", "fr", "ja", "pl"} {
		for _, s := range samples() {
			w := httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
			r.Header.Set("Accept-Language", tag)
			s.show(w, r)
			doc := parse(t, body(t, w.Result()))
			if got := attr(find(doc, "html")[0], "lang"); got != tag {
				t.Errorf("%s: lang %s, want %s", s.name, got, tag)
			}
			said := content(find(doc, "h1")[0])
			if main := content(find(doc, "main")[0]); strings.ContainsAny(main, "{}") {
				t.Errorf("%s in %s: a word in braces is left: %s", s.name, tag, main)
			}
			if tag == "en" {
				english[s.name] = said
			} else if said == english[s.name] {
				t.Errorf("%s: the heading is in English: %s", tag, said)
			}
		}
	}
}

func TestPagesForProgramsStayEnglish(t *testing.T) {
	if title, text := page.English("denied"); title != "No access" || !strings.HasPrefix(text, "You are signed in") {
		t.Errorf("%q, %q", title, text)
	}
}

func TestHeadInAnotherLanguageSaysTheSameLength(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/", nil)
	r.Header.Set("Accept-Language", "ja")
	w := httptest.NewRecorder()
	pages().Notice(w, r, page.Notice{Status: 403, Say: "denied"})
	r.Method = http.MethodGet
	full := httptest.NewRecorder()
	pages().Notice(full, r, page.Notice{Status: 403, Say: "denied"})
	if w.Body.Len() != 0 || w.Header().Get("Content-Length") != full.Header().Get("Content-Length") {
		t.Errorf("%d bytes, Content-Length %s", w.Body.Len(), w.Header().Get("Content-Length"))
	}
}
