package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of shape. The parser recurses, and a stack that overflows cannot be recovered from, so they are checked on
// the tokens, before it runs. The deepest key there is stands at depth 6.
const (
	maxDepth   = 32
	maxEntries = 4      // "- - - -" on one line
	maxKeys    = 10_000 // of one mapping: the parser's time grows with their square
)

// parse turns the file into a tree, or notes why it cannot and returns nil.
func (d *decoder) parse(data []byte) (root ast.Node) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if line, what := unreadable(data); what != "" {
		d.add(mark{line: line, col: 1}, "", what, "Postern reads UTF-8 text of at most 1 MiB")
		return nil
	}
	defer func() { // the parser is not ours: whatever it meets, the answer is a problem
		if v := recover(); v != nil {
			d.add(mark{line: 1, col: 1}, "", "is not YAML that can be read", "Write it in plain block style, without unusual constructs")
			root = nil
		}
	}()
	tokens := lexer.Tokenize(string(data))
	d.src.excerpts.read(tokens)
	d.src.marks = make(map[string]mark, len(tokens)/4) // about as many as there will be
	before := len(d.problems)
	d.refuseTokens(tokens)
	if len(d.problems) > before {
		return nil
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return nil
	}
	var body ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil && body == nil {
			body = doc.Body
		}
	}
	if body == nil || body.Type() == ast.NullType {
		d.add(mark{line: 1, col: 1}, "", "the file is empty", "The smallest useful file names one provider and one route")
		return nil
	}
	if !isMapping(body) {
		d.add(mark{line: 1, col: 1}, "", "the file must be a mapping, but is "+kind(body), "Begin with providers: and routes:")
		return nil
	}
	return body
}

// unreadable finds what no configuration holds.
func unreadable(data []byte) (line int, what string) {
	if len(data) > maxFile {
		return 1, "the file is larger than 1 MiB"
	}
	lines := func(at int) int { return 1 + bytes.Count(data[:at], []byte("\n")) }
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return lines(i), "the file is not UTF-8"
		}
		if r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f || r == '\ufeff' {
			return lines(i), fmt.Sprintf("holds the control character U+%04X", r)
		}
		i += size
	}
	return 0, ""
}

// refuseTokens notes what is YAML but has no place in a configuration: references (they can grow without bound), tags,
// further documents, and nesting without end.
func (d *decoder) refuseTokens(tokens token.Tokens) {
	var (
		flow      int     // depth of [ and {
		blocks    []block // that enclose this line, from the outside in
		line      int
		entries   int // "-" on this line
		begun     bool
		ended     bool
		deepAlert bool
	)
	deep := func(t *token.Token) {
		if !deepAlert {
			deepAlert = true
			d.refuse(t, "is nested too deeply", "No key of Postern's stands this deep")
		}
	}
	for _, t := range tokens {
		if t.Type == token.CommentType || t.Position == nil {
			continue
		}
		if len(d.problems) >= maxProblems {
			return
		}
		if ended {
			d.refuse(t, "the file holds more than one document", "Keep one document in a file")
			return
		}
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
			if flow == 0 {
				if blocks = enter(blocks, t); len(blocks) > maxDepth {
					deep(t)
				}
				if blocks[len(blocks)-1].keys > maxKeys {
					d.refuse(t, "is key 10,001 of one mapping", "No section of Postern's is this long")
					return
				}
			}
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			if flow++; flow > maxDepth {
				deep(t)
			}
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType:
			if entries++; entries > maxEntries {
				deep(t)
			}
		case token.AnchorType:
			d.refuse(t, "YAML anchors (&name) are not used here", "Write the value out; quote a text that begins with &")
		case token.AliasType:
			d.refuse(t, "YAML aliases (*name) are not used here", `Write the value out; quote a text that begins with *, such as "*.example.com"`)
		case token.MergeKeyType:
			d.refuse(t, "YAML merge keys (<<) are not used here", "Write the keys out")
		case token.TagType:
			d.refuse(t, "YAML tags (!name) are not used here", "Leave the tag out; quote a text that begins with !")
		case token.DirectiveType:
			d.refuse(t, "YAML directives (%NAME) are not used here", "Leave the line out; quote a text that begins with %")
		case token.MappingKeyType:
			d.refuse(t, "YAML's long form of keys (? key) is not used here", "Write key: value; quote a text that begins with ?")
		case token.DocumentHeaderType:
			if begun {
				d.refuse(t, "the file holds more than one document", "Keep one document in a file")
				return
			}
		case token.DocumentEndType:
			ended = true
		}
		begun = true
	}
}

// block is the lines that begin in one column.
type block struct{ column, keys int }

// enter finds the block of a line by its first token.
func enter(blocks []block, t *token.Token) []block {
	for len(blocks) > 0 && blocks[len(blocks)-1].column > t.Position.Column {
		blocks = blocks[:len(blocks)-1]
	}
	if len(blocks) == 0 || blocks[len(blocks)-1].column < t.Position.Column {
		blocks = append(blocks, block{column: t.Position.Column})
	}
	if t.Type != token.SequenceEntryType {
		blocks[len(blocks)-1].keys++
	}
	return blocks
}

// refuse notes a problem at a token.
func (d *decoder) refuse(t *token.Token, what, mend string) { d.add(markOf(t), "", what, mend) }

// syntax notes the parser's error: its message and place only, since its own rendering quotes lines of the file, which
// may hold secrets.
func (d *decoder) syntax(err error) {
	m := mark{line: 1, col: 1}
	what := "is not valid YAML"
	var ye yaml.Error
	if errors.As(err, &ye) {
		m = markOf(ye.GetToken())
		if msg, _, _ := strings.Cut(ye.GetMessage(), `"`); msg != "" { // what it quotes may be a secret's first line
			what += ": " + strings.TrimRight(strings.ReplaceAll(msg, "\t", `\t`), ":. ")
		}
	}
	d.add(m, "", what, "Look at indentation and quotes here and in the line above; inside { } and [ ] quote values such as \"${NAME}\"")
}

// markOf is where a token stands. The parser makes tokens without a place for values that are not written.
func markOf(t *token.Token) mark {
	if t == nil || t.Position == nil {
		return mark{line: 1, col: 1}
	}
	return mark{line: max(1, t.Position.Line), col: max(1, t.Position.Column)}
}
