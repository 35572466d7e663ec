package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// piece is a part of a line of the file.
type piece struct {
	line, col, width int32  // in the file
	value            bool   // neither a key nor punctuation
	text             string // as an excerpt shows it; of a value nothing, unless it may be shown
}

// hiddenValue stands in an excerpt for a value that the problem is not about, or that must not be seen.
const hiddenValue = "…"

// longLine is how many bytes of a line nobody reads any more.
const longLine = 1 << 10

// excerpts shows lines of the file. It holds no value but those that may be shown.
type excerpts struct {
	pieces []piece         // by line
	blocks map[int][]piece // by line: of expressions, in place of what pieces has there
}

// read takes the file apart.
func (e *excerpts) read(tokens token.Tokens) {
	e.pieces = make([]piece, 0, len(tokens))
	var before *token.Token
	for i, t := range tokens {
		if t.Position == nil || t.Type == token.CommentType || t.Type == token.InvalidType { // a comment may hold what was a secret
			continue
		}
		written := strings.Trim(t.Origin, " \t\r\n")
		p := piece{line: int32(t.Position.Line), col: int32(t.Position.Column), width: int32(utf8.RuneCountInString(written)), text: written}
		if isValue(t) && !isKey(before, tokens[i:]) {
			p.text, p.value = "", true
		} else if p.width > 200 || strings.Contains(written, "\n") {
			p.text = hiddenValue
		}
		e.pieces = append(e.pieces, p)
		before = t
	}
	slices.SortStableFunc(e.pieces, func(a, b piece) int { return cmp.Compare(a.line, b.line) })
}

// in are the pieces of a line.
func (e *excerpts) in(line int) []piece {
	begin, _ := slices.BinarySearchFunc(e.pieces, line, func(p piece, line int) int { return cmp.Compare(int(p.line), line) })
	end := begin
	for end < len(e.pieces) && int(e.pieces[end].line) == line {
		end++
	}
	return e.pieces[begin:end]
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
	if !s.block || e.pieces == nil {
		return
	}
	if e.blocks == nil {
		e.blocks = map[int][]piece{}
	}
	number := s.start.line
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\r\n")
		e.blocks[number] = []piece{{col: int32(s.indent + 1), width: int32(utf8.RuneCountInString(line)), text: line}}
	}
}

// show lets the value n be seen in the excerpt of a problem with it.
func (e *excerpts) show(n ast.Node) {
	t := first(n)
	if t == nil || t.Position == nil {
		return
	}
	written := strings.Trim(t.Origin, " \t\r\n")
	if strings.Contains(written, "\n") {
		return
	}
	line := e.in(t.Position.Line)
	for i := range line {
		if p := &line[i]; p.value && int(p.col) == t.Position.Column {
			p.text = written
		}
	}
}

// of is the line of a problem with a mark below its column, each line ended; empty where there is none. Of the values in that line it shows at most
// the one that the problem is about.
func (e *excerpts) of(line, column int) string {
	pieces, ok := e.blocks[line]
	if !ok {
		pieces = e.in(line)
	}
	if len(pieces) == 0 {
		return ""
	}
	var text strings.Builder
	end, caret, about := 1, 0, false
	for _, p := range pieces {
		col, width := int(p.col), int(p.width)
		text.WriteString(strings.Repeat(" ", max(0, col-end)))
		about = about || col <= column && column < col+width
		if p.value && (!about || p.text == "") {
			p.text = hiddenValue
		}
		if col <= column {
			caret = utf8.RuneCountInString(text.String())
			if p.text != hiddenValue {
				caret += min(column-col, width)
			}
		}
		about = about && !p.value
		text.WriteString(p.text)
		end = col + width
	}
	if text.Len() > longLine {
		return ""
	}
	number := fmt.Sprint(line)
	margin := strings.Repeat(" ", len(number))
	return fmt.Sprintf("  %s | %s\n  %s | %s^\n", number, strings.TrimRight(text.String(), " "), margin, strings.Repeat(" ", caret))
}
