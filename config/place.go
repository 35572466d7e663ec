package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// script remembers where the text of an expression stands in the file, so that a mistake in the middle of it has a place there.
type script struct {
	start   mark
	columns []int // of a text in one line: the column of each character, and of the end
	indent  int   // of a block after "|": its lines begin after so many spaces
	block   bool
}

// newScript finds out how n is written. Where its characters stand in no simple relation to the file, as in a folded text, it knows the
// beginning alone.
func newScript(n ast.Node, text string) script {
	s := script{start: markOf(first(n))}
	if strings.Contains(text, "${") { // what stands there now is of another length
		return s
	}
	switch n := n.(type) {
	case *ast.LiteralNode:
		if !strings.HasPrefix(n.Start.Value, "|") {
			return s
		}
		s.block = true
		raw := firstLine(n.Value.GetToken().Origin)
		s.indent = max(0, len(raw)-len(firstLine(text)))
	case *ast.StringNode:
		s.columns = columnsOf(n.GetToken(), s.start.col)
		if len(s.columns) != utf8.RuneCountInString(text)+1 {
			s.columns = nil
		}
	}
	return s
}

// firstLine is the first line with something in it.
func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" {
			return strings.TrimRight(line, "\r\n")
		}
	}
	return ""
}

// columnsOf are the columns of the characters of a text in one line that begins in column col.
func columnsOf(t *token.Token, col int) (columns []int) {
	raw := []rune(strings.TrimSpace(t.Origin))
	i, end := 0, len(raw)
	quoted := t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
	if quoted {
		i, end = 1, end-1
	}
	for i < end {
		columns = append(columns, col+i)
		switch {
		case raw[i] == '\n':
			return nil
		case t.Type == token.SingleQuoteType && raw[i] == '\'':
			i++
		case t.Type == token.DoubleQuoteType && raw[i] == '\\' && i+1 < end:
			i += 1 + map[rune]int{'x': 2, 'u': 4, 'U': 8}[raw[i+1]]
		}
		i++
	}
	return append(columns, col+i)
}

// at is where a line and column of the text stand; ok is false where only the beginning of the text is known.
func (s script) at(line, column int) (m mark, ok bool) {
	switch {
	case line < 1 || column < 1:
	case s.block:
		return mark{line: s.start.line + line, col: s.indent + column}, true
	case line == 1 && column <= len(s.columns):
		return mark{line: s.start.line, col: s.columns[column-1]}, true
	}
	return s.start, line < 1
}

// Problem places what another package found wrong with the value at a path: with an expression, at that line and column of it, which
// count from 1 and are 0 where the whole value is meant.
func (c *Config) Problem(path string, line, column int, what, mend string) Problem {
	p := Problem{Path: path, What: strings.TrimFunc(what, unicode.IsSpace), Mend: mend}
	m := c.src.at(path)
	if c.src != nil {
		p.File = c.src.file
		if s, ok := c.src.scripts[path]; ok {
			exact := false
			if m, exact = s.at(line, column); !exact {
				p.What = fmt.Sprintf("line %d, column %d of the expression: %s", line, column, p.What)
			}
		}
	}
	p.Line, p.Column = m.line, m.col
	if c.src != nil {
		p.Excerpt = c.src.excerpts.of(m.line, m.col)
	}
	return p
}
