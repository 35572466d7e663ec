package page

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"
)

// sameAsEnglish are texts that a language shares with English.
var sameAsEnglish = map[string][]string{
	"dir":              {"de", "es", "fr", "ja", "pl"},
	"time.minutes":     {"es", "fr", "pl"},
	"time.hours":       {"es", "fr"},
	"time.two":         {"de", "es", "fr", "pl"},
	"time.in":          {"de"},
	"foot.status":      {"de"},
	"link.continue":    {},
	"session.name":     {"de"},
	"session.provider": {},
	"ask.type":         {"fr"},
}

func TestEveryLanguageSaysEverything(t *testing.T) {
	all := builtinWordings()
	for _, tag := range []string{"de", "en", "es", "fr", "ja", "pl"} {
		if all[tag] == nil {
			t.Errorf("no texts in %s", tag)
		}
	}
	english := all["en"]()
	for tag, read := range all {
		in := read()
		for key, text := range in.texts {
			if what := badText(entry{key: key, text: text}, english.texts); what != "" {
				t.Errorf("%s: %s %s", tag, key, what)
			}
			if tag != "en" && text == english.texts[key] && !slices.Contains(sameAsEnglish[key], tag) {
				t.Errorf("%s: %s is in English: %s", tag, key, text)
			}
			if got, want := len(in.list(key)), len(english.list(key)); strings.HasSuffix(key, ".details") && got != want {
				t.Errorf("%s: %s has %d entries, want %d", tag, key, got, want)
			}
		}
		for key := range english.texts {
			if in.texts[key] == "" {
				t.Errorf("%s lacks %s", tag, key)
			}
		}
	}
}

// Files of texts must not say one thing twice: the second would win unseen.
func TestNoTextTwice(t *testing.T) {
	names, err := files.ReadDir("texts")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := files.ReadFile("texts/" + name.Name())
		if err != nil {
			t.Fatal(err)
		}
		entries, problem := parseTexts(data)
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.key] {
				t.Errorf("%s:%d: %s again", name.Name(), e.line, e.key)
			}
			seen[e.key] = true
		}
		if problem != "" || len(entries) == 0 {
			t.Errorf("%s: %d texts, %s", name.Name(), len(entries), problem)
		}
	}
}

// Sentences stand in texts/ alone: neither templates hold any, nor does the code that calls this package.
func TestNoSentenceElsewhere(t *testing.T) {
	action := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	for _, name := range builtinFiles() {
		data, err := files.ReadFile("templates/" + name)
		if err != nil {
			t.Fatal(err)
		}
		z := html.NewTokenizer(strings.NewReader(action.ReplaceAllString(string(data), "")))
		for kind := z.Next(); kind != html.ErrorToken; kind = z.Next() {
			token := z.Token()
			if kind == html.TextToken && strings.ContainsFunc(token.Data, unicode.IsLetter) {
				t.Errorf("%s says %q", name, token.Data)
			}
			for _, a := range token.Attr {
				if slices.Contains([]string{"aria-label", "title", "placeholder", "alt"}, a.Key) && strings.ContainsFunc(a.Val, unicode.IsLetter) {
					t.Errorf("%s says %q in %s", name, a.Val, a.Key)
				}
			}
		}
	}
	sentence := regexp.MustCompile(`^[A-Z][a-z]+( [a-z0-9,]+){2,}`)
	for file, lit := range literals(t, "*.go") {
		for _, text := range lit {
			if sentence.MatchString(text) && !strings.Contains(file, "_test.go") && !slices.Contains([]string{"own.go", "check.go", "brand.go", "colors.go", "language.go", "page.go"}, file) {
				t.Errorf("%s says %q", file, text)
			}
		}
	}
}

// A key that nobody has texts for would be shown as it is.
func TestEveryKeyInCodeHasATextAndEveryTextAUse(t *testing.T) {
	english := builtinWordings()["en"]().texts
	used := map[string]bool{}
	use := func(where, key string) {
		if english[key] == "" {
			t.Errorf("%s names the text %s, which is not there", where, key)
		}
		used[key] = true
	}
	call := regexp.MustCompile(`\.Say "([a-z_.]+)"`)
	for _, name := range builtinFiles() {
		data, err := files.ReadFile("templates/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(data), -1) {
			use(name, m[1])
		}
	}
	plain := regexp.MustCompile(`^[a-z_]+$`)
	dotted := regexp.MustCompile(`^(foot|link|time|onward|form|session|sessions|ask)\.[a-z_]+$`)
	for _, pattern := range []string{"*.go", "../*.go", "../../cmd/postern/*.go"} {
		for file, texts := range literals(t, pattern) {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for _, text := range texts {
				switch {
				case pattern == "*.go" && dotted.MatchString(text):
					use(file, text)
				case english["link."+text] != "" && plain.MatchString(text):
					used["link."+text] = true
				case english["form."+text] != "" && plain.MatchString(text):
					used["form."+text] = true
				}
				if plain.MatchString(text) && english[text+".title"] != "" {
					for _, part := range []string{".title", ".text", ".button", ".details"} {
						used[text+part] = true
					}
				}
				if english[text] != "" {
					used[text] = true
				}
			}
		}
	}
	for key := range english {
		if !used[key] && !strings.HasPrefix(key, "ended.") && key != "dir" {
			t.Errorf("nothing says %s", key)
		}
	}
}

// literals are the texts in quotes of Go files.
func literals(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v", pattern, err)
	}
	all := map[string][]string{}
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					all[filepath.Base(name)] = append(all[filepath.Base(name)], text)
				}
			}
			return true
		})
	}
	return all
}

func TestValuesAreFilledInOnce(t *testing.T) {
	in := builtinWordings()["en"]()
	if got, want := in.say("sessions.end_since", "browser", "{when}", "when", "{browser}"), "End this session: {when}, signed in {browser}"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, key := range slices.Sorted(maps.Keys(in.texts))[:3] {
		if _, err := in.text(key, "n"); err == nil {
			t.Errorf("%s takes half a pair", key)
		}
	}
	if _, err := in.text("no.such.text"); err == nil {
		t.Error("a text that is not there is said")
	}
}

func TestTextsOfAnOperator(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{"denied.title: Halt", ""},
		{"loop.details: |\n  one\n  two\n", ""},
		{"dir: rtl", ""},
		{"# nothing\n\ndenied.titel: Halt", "3: denied.titel is no text that any page says"},
		{"denied.title: [a]", "1: denied.title is not a text; put it in quotes"},
		{"denied.title: 7", "1: denied.title is not a text; put it in quotes"},
		{"denied.title: ''", "1: denied.title is empty"},
		{`denied.title: "a\nb"`, "1: denied.title holds a line break or another control character"},
		{"dir: up", "1: dir is neither ltr nor rtl"},
		{"signed_in_as: Hello", "1: signed_in_as must hold the same words in braces as the English text: {name}"},
		{"denied.title: Halt, {name}", "1: denied.title must hold the same words in braces as the English text: none"},
		{"denied.title: " + strings.Repeat("x", 2001), "1: denied.title is longer than 2000 characters"},
		{"- a", "1: is not one mapping of keys to texts"},
		{"", "1: is not one mapping of keys to texts"},
		{"a: 'b", "1: is not YAML"},
		{"denied.title: *x", "1: denied.title is not a text; put it in quotes"},
	} {
		in, problems := overrule(builtinWordings()["de"](), "de", []byte(tt.yaml))
		if got := strings.Join(problems, "|"); !strings.HasPrefix(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%.30q: %q, want %q", tt.yaml, got, tt.want)
		}
		if in.texts["closed.title"] != "Kein Zugriff" {
			t.Errorf("%.30q: other texts are gone", tt.yaml)
		}
	}
}

// FuzzTextsNeverPanic: a file of texts is an operator's, but it may be any file.
func FuzzTextsNeverPanic(f *testing.F) {
	f.Add("a: b\nc: |\n  d\n")
	f.Add("&a a: *a")
	f.Add("? a\n: b")
	f.Fuzz(func(t *testing.T, data string) {
		_, problems := overrule(builtinWordings()["en"](), "en", []byte(data))
		for _, p := range problems {
			if line, _, ok := strings.Cut(p, ":"); !ok || strings.Trim(line, "0123456789") != "" {
				t.Errorf("%q has no line", p)
			}
		}
	})
}
