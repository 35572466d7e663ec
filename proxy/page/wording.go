package page

import (
	"fmt"
	"strings"
)

// wording is everything that pages say in one language.
type wording struct {
	// Lang and Dir are for the attributes lang and dir of html.
	Lang, Dir string
	texts     map[string]string
}

// text is a text with its {words} filled in from pairs of name and value. Templates call it as Say; they escape what it returns.
func (in *wording) text(key string, pairs ...any) (string, error) {
	text, ok := in.texts[key]
	if !ok {
		return "", fmt.Errorf("there is no text %q", key)
	}
	if len(pairs)%2 != 0 {
		return "", fmt.Errorf("text %q: the values are no pairs of name and value", key)
	}
	fill := make([]string, len(pairs))
	for i, v := range pairs {
		fill[i] = fmt.Sprint(v)
		if i%2 == 0 {
			fill[i] = "{" + fill[i] + "}"
		}
	}
	return strings.NewReplacer(fill...).Replace(text), nil // one pass: a value is never filled in itself
}

// say is text for our own code, whose keys are known.
func (in *wording) say(key string, pairs ...any) string {
	text, err := in.text(key, pairs...)
	if err != nil {
		return key
	}
	return text
}

// list is a text whose lines are entries; none is an empty list.
func (in *wording) list(key string) (entries []string) {
	for entry := range strings.Lines(in.texts[key]) {
		entries = append(entries, strings.TrimSpace(entry))
	}
	return entries
}

// English is what the texts of a name say in English: problem JSON is in English, whoever asks.
func English(say string) (title, text string) {
	in := builtinWordings()["en"]()
	return in.say(say + ".title"), in.say(say + ".text")
}
