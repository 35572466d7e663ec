package config_test

import (
	"strings"
	"testing"

	"postern/config"
)

// Files made to exhaust the parser (its stack, or its time by the square) are refused, with a place; one that is not
// refused early runs into the test's time limit.
func TestParseIsBounded(t *testing.T) {
	const size = 1 << 18
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	var stairs strings.Builder
	for i := 0; stairs.Len() < size; i++ {
		stairs.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	for name, data := range map[string]string{
		"too large":         strings.Repeat("#", 1<<20+1),
		"open brackets":     "routes: " + fill("["),
		"open braces":       "routes: " + fill("{a: "),
		"balanced brackets": "routes: " + strings.Repeat("[", size/2) + strings.Repeat("]", size/2),
		"dashes":            "routes:\n" + fill("- "),
		"long keys":         fill("? "),
		"anchors":           fill("&a "),
		"tags":              fill("!a "),
		"aliases":           "routes: [" + fill("*a, ") + "]",
		"stairs":            stairs.String(),
		"billion laughs":    "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nroutes: *c\n",
		"many documents":    fill("---\n"),
		"many keys":         fill("a: b\n"),
		"quote":             `routes: "` + fill("x"),
		"block text":        "routes: |\n" + fill("  x\n"),
		"colons":            fill("a: "),
		"NUL":               "routes: a\x00b",
		"not UTF-8":         "routes: \xff",
		"empty":             "",
		"comment alone":     "# nothing\n",
		"null":              "null",
		"two documents":     "routes: []\n---\nroutes: []\n",
		"directive":         "%YAML 1.2\n---\nroutes: []\n",
		"merge":             "server: {<<: {listen: x}}",
		"list":              "- a\n",
		"text":              "hello",
		"tag":               "server: !!binary aGVsbG8=",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("x.yaml", []byte(data), env())
			problems := problemsOf(t, c, err)
			if err == nil {
				t.Fatal("is accepted")
			}
			for _, p := range problems {
				if p.Line < 1 || p.Column < 1 {
					t.Errorf("has no place: %v", p)
				}
			}
			t.Log(len(problems), problems[0])
		})
	}
}
