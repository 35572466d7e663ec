package page

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxText bounds one text, in characters.
const maxText = 2000

// entry is one text of a file.
type entry struct {
	key, text string
	line      int
}

// parseTexts reads a file of texts: one mapping of keys to texts. problem begins with the line.
func parseTexts(data []byte) (entries []entry, problem string) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, "1: is not YAML: " + firstLine(err.Error())
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, "1: is not one mapping of keys to texts"
	}
	var pairs []*ast.MappingValueNode
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		pairs = body.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{body}
	default:
		return nil, "1: is not one mapping of keys to texts"
	}
	for _, p := range pairs {
		e := entry{key: p.Key.GetToken().Value, line: p.Key.GetToken().Position.Line}
		switch value := p.Value.(type) {
		case *ast.StringNode:
			e.text = value.Value
		case *ast.LiteralNode:
			e.text = value.Value.Value
		default:
			return nil, fmt.Sprintf("%d: %s is not a text; put it in quotes", e.line, cut(e.key))
		}
		entries = append(entries, e)
	}
	return entries, ""
}

// overrule returns base, in the language tag, with the texts of an operator's file in place of its own. Each problem begins with the line.
func overrule(base *wording, tag string, data []byte) (in *wording, problems []string) {
	in = &wording{Lang: tag, Dir: base.Dir, texts: maps.Clone(base.texts)}
	entries, problem := parseTexts(data)
	if problem != "" {
		return in, []string{problem}
	}
	english := builtinWordings()["en"]().texts
	for _, e := range entries {
		if what := badText(e, english); what != "" {
			problems = append(problems, fmt.Sprintf("%d: %s %s", e.line, cut(e.key), what))
			continue
		}
		in.texts[e.key] = e.text
	}
	in.Dir = cmp.Or(in.texts["dir"], "ltr")
	return in, problems
}

// badText says why a text of an operator cannot take the place of ours; empty where it can.
func badText(e entry, english map[string]string) string {
	ours, known := english[e.key]
	list := strings.HasSuffix(e.key, ".details")
	switch {
	case !known:
		return "is no text that any page says"
	case e.key == "dir" && e.text != "ltr" && e.text != "rtl":
		return "is neither ltr nor rtl"
	case strings.TrimSpace(e.text) == "":
		return "is empty"
	case utf8.RuneCountInString(e.text) > maxText:
		return fmt.Sprintf("is longer than %d characters", maxText)
	case strings.ContainsFunc(e.text, func(r rune) bool { return unicode.IsControl(r) && (r != '\n' || !list) }):
		return "holds a line break or another control character"
	case !slices.Equal(placeholders(e.text), placeholders(ours)):
		return fmt.Sprintf("must hold the same words in braces as the English text: %s", cmp.Or(strings.Join(placeholders(ours), " "), "none"))
	}
	return ""
}

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// placeholders are the words in braces of a text, each once.
func placeholders(text string) []string {
	return slices.Compact(slices.Sorted(slices.Values(placeholder.FindAllString(text, -1))))
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// cut makes what an operator's file holds fit for a line of the log.
func cut(s string) string { return clip(printable(s, 80), 80) }
