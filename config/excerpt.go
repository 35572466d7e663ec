package config

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// piece is a part of a line of the file.
type piece struct {
	col, width int    // in the file
	text       string // as an excerpt shows it
	value      bool   // neither a key nor punctuation
}

// hiddenValue stands in an excerpt for a value that the problem is not about, or that must not be seen.
const hiddenValue = "…"

// longLine is how many bytes of a line nobody reads any more.
const longLine = 1 << 10

// excerpts shows lines of the file. It holds no value but those that may be shown.
type excerpts struct {
	lines map[int][]piece
	open  map[[2]int]string // line and column of the values that may be shown, as the file has them
}

// read takes the file apart.
func (e *excerpts) read(tokens token.Tokens) {
	e.lines, e.open = map[int][]piece{}, map[[2]int]string{}
	var before *token.Token
	for i, t := range tokens {
		if t.Position == nil || t.Type == token.CommentType || t.Type == token.InvalidType { // a comment may hold what was a secret
			continue
		}
		written := strings.Trim(t.Origin, " \t\r\n")
		p := piece{col: t.Position.Column, width: utf8.RuneCountInString(written), text: written}
		if isValue(t) && !isKey(before, tokens[i:]) {
			p.text, p.value = hiddenValue, true
		}
		if strings.Contains(written, "\n") || utf8.RuneCountInString(written) > 200 {
			p.text = hiddenValue
		}
		e.lines[t.Position.Line] = append(e.lines[t.Position.Line], p)
		before = t
	}
}

// isValue tells a token that holds text of the file's writer from punctuation.
func isValue(t *token.Token) bool {
	return t.CharacterType == token.CharacterTypeMiscellaneous || t.Type == token.StringType || t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType
}

// isKey tells whether the first token is one: a colon follows. What stands behind the colon of a key in its line is a value, whatever follows.
func isKey(before *token.Token, tokens token.Tokens) bool {
	if before != nil && before.Type == token.MappingValueType && before.Position.Line == tokens[0].Position.Line {
		return false
	}
	return len(tokens) > 1 && tokens[1].Type == token.MappingValueType
}

// showBlock lets the lines of an expression be seen that is written as a block.
func (e *excerpts) showBlock(s script, text string) {
	if !s.block || e.lines == nil {
		return
	}
	number := s.start.line
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		e.lines[number] = []piece{{col: s.indent + 1, width: utf8.RuneCountInString(line), text: line}}
	}
}

// show lets the value n be seen in the excerpt of a problem with it.
func (e *excerpts) show(n ast.Node) {
	t := first(n)
	if t == nil || t.Position == nil || e.open == nil {
		return
	}
	if written := strings.Trim(t.Origin, " \t\r\n"); !strings.Contains(written, "\n") {
		e.open[[2]int{t.Position.Line, t.Position.Column}] = written
	}
}

// of is the line of a problem with a mark below its column, each line ended; empty where there is none. Of the values in that line it shows at most
// the one that the problem is about.
func (e *excerpts) of(line, column int) string {
	pieces := e.lines[line]
	if len(pieces) == 0 {
		return ""
	}
	var text strings.Builder
	end, caret, about := 1, 0, false
	for _, p := range pieces {
		text.WriteString(strings.Repeat(" ", max(0, p.col-end)))
		about = about || p.col <= column && column < p.col+p.width
		if written, may := e.open[[2]int{line, p.col}]; may && p.value && about {
			p.text = written
		}
		if p.col <= column {
			caret = utf8.RuneCountInString(text.String())
			if p.text != hiddenValue {
				caret += min(column-p.col, p.width)
			}
		}
		about = about && !p.value
		text.WriteString(p.text)
		end = p.col + p.width
	}
	if text.Len() > longLine {
		return ""
	}
	number := fmt.Sprint(line)
	margin := strings.Repeat(" ", len(number))
	return fmt.Sprintf("  %s | %s\n  %s | %s^\n", number, strings.TrimRight(text.String(), " "), margin, strings.Repeat(" ", caret))
}
