package page

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"golang.org/x/text/language"
)

// Bounds on what is read of Accept-Language: matching costs time for each entry. Browsers send some 50 bytes with a handful of them.
const (
	maxAcceptLanguage = 1 << 10 // bytes
	maxWishes         = 20
)

// languages are those that pages are offered in, the first to whoever asks for none of them.
type languages struct {
	all     []func() *wording
	matcher language.Matcher
}

// builtinWordings are the languages of this program, by their tags. Each is read when it is first spoken: all of them would be a good part of the start.
var builtinWordings = sync.OnceValue(func() map[string]func() *wording {
	names, err := files.ReadDir("texts")
	if err != nil {
		panic(err) // embedded: cannot be missing
	}
	all := map[string]func() *wording{}
	for _, name := range names {
		tag := strings.TrimSuffix(name.Name(), ".yaml")
		all[tag] = sync.OnceValue(func() *wording { return readBuiltin(tag) })
	}
	return all
})

func readBuiltin(tag string) *wording {
	data, err := files.ReadFile("texts/" + tag + ".yaml")
	entries, problem := parseTexts(data)
	if err != nil || problem != "" {
		panic("page: texts/" + tag + ".yaml: " + problem) // embedded: a test reads each
	}
	in := &wording{Lang: tag, texts: map[string]string{}}
	for _, e := range entries {
		in.texts[e.key] = e.text
	}
	in.Dir = in.texts["dir"]
	return in
}

// newLanguages offers the named languages, or all. own are an operator's files, by their tags: over ours, or of a language of their own, which
// says in English what they do not.
func newLanguages(own map[string][]byte, names []string) (*languages, Problems) {
	all := maps.Clone(builtinWordings())
	var problems Problems
	for _, tag := range slices.Sorted(maps.Keys(own)) {
		base, known := all[tag]
		if !known {
			base = all["en"]
		}
		in, wrong := overrule(base(), tag, own[tag])
		for _, what := range wrong {
			problems = append(problems, Problem{"templates", "texts/" + tag + ".yaml:" + what, "See the texts of proxy/page/texts/en.yaml"})
		}
		all[tag] = func() *wording { return in }
	}
	if len(names) == 0 {
		isEnglish := func(tag string) bool { return tag == "en" }
		names = append([]string{"en"}, slices.DeleteFunc(slices.Sorted(maps.Keys(all)), isEnglish)...)
	}
	ls := &languages{}
	var tags []language.Tag
	for i, name := range names {
		in := all[name]
		if in == nil {
			problems = append(problems, Problem{fmt.Sprintf("languages[%d]", i), fmt.Sprintf("there are no texts in %q", name),
				"Known: " + strings.Join(slices.Sorted(maps.Keys(all)), ", ") + "; another needs texts/" + name + ".yaml in templates"})
			continue
		}
		ls.all = append(ls.all, in)
		tags = append(tags, language.Make(name))
	}
	ls.matcher = language.NewMatcher(tags)
	return ls, problems
}

// to is the language in which a browser is answered (RFC 9110 section 12.5.4). What no browser sends counts as no wish.
func (ls *languages) to(r *http.Request) *wording {
	wishes := r.Header["Accept-Language"]
	if len(wishes) != 1 || len(wishes[0]) > maxAcceptLanguage || strings.Count(wishes[0], ",") >= maxWishes {
		return ls.all[0]()
	}
	tags, _, err := language.ParseAcceptLanguage(wishes[0])
	if err != nil {
		return ls.all[0]()
	}
	_, i, _ := ls.matcher.Match(tags...)
	return ls.all[i]()
}
