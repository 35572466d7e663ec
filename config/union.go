package config

import (
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decodeNode reads a value or {file: PATH}.
func (s *Secret) decodeNode(d *decoder, path string, n ast.Node) {
	const want = "a secret, or {file: PATH}"
	if text, plain, ok := rawText(n); ok {
		if plain && n.Type() == ast.BoolType {
			d.fail(path, n, "must be "+want+", but is true or false", "Put it in quotes if you mean the word")
			return
		}
		text, err := d.expand(text)
		if err != nil {
			d.fail(path, n, err.what, err.mend)
			return
		}
		if strings.TrimSpace(text) == "" {
			d.fail(path, n, "is empty", "Give the secret a value, or leave the key out")
			return
		}
		*s = NewSecret(text)
		return
	}
	if !isMapping(n) {
		d.fail(path, n, "must be "+want+", but is "+kind(n), "Name the file that holds the secret")
		return
	}
	var form struct {
		File string `yaml:"file"`
	}
	d.mapping(path, n, reflect.ValueOf(&form).Elem())
	switch file := join(path, "file"); {
	case form.File != "":
		*s = newSecretFile(form.File, d.src.show(file))
	case d.src.failed[file]:
		d.src.failed[path] = true
	default:
		d.fail(path, n, "must be "+want, "Name the file that holds the secret")
	}
}

// decodeNode reads the providers in the order of the file.
func (ps *Providers) decodeNode(d *decoder, path string, n ast.Node) {
	entries, ok := d.entries(path, n, "a mapping of names to providers")
	if !ok {
		return
	}
	for _, e := range entries {
		at := join(path, e.key)
		d.src.marks[at] = e.at
		var p Provider
		setDefaults(reflect.ValueOf(&p).Elem())
		p.Name = e.key
		f := d.preset(at, e.value, &p)
		d.decode(at, e.value, reflect.ValueOf(&p).Elem(), field{})
		d.settle(at, f)
		*ps = append(*ps, p)
	}
}

// decodeNode reads the word deny, or keep: DURATION.
func (o *OnStoreError) decodeNode(d *decoder, path string, n ast.Node) {
	if isMapping(n) {
		d.mapping(path, n, reflect.ValueOf(o).Elem())
		if keep := join(path, "keep"); !d.src.given(keep) && !d.src.failed[keep] {
			d.fail(path, n, "names nothing", "Write the word deny, or {keep: 5m}")
		}
		return
	}
	d.word(path, n, field{key: "on_store_error", oneOf: []string{"deny"}}, "the word deny, or a mapping such as {keep: 5m}")
}

// decodeNode reads one of the words, or conditions.
func (a *Access) decodeNode(d *decoder, path string, n ast.Node) {
	if !isMapping(n) {
		f := field{key: "access", oneOf: []string{Public, Optional, SignedIn, Deny}}
		a.Level = d.word(path, n, f, "one of public, optional, signed_in, deny, or a mapping such as {groups: [staff]}")
		return
	}
	a.Level = SignedIn
	d.mapping(path, n, reflect.ValueOf(a).Elem())
	if isEmpty(n) {
		d.fail(path, n, "names no condition", "Write signed_in for whoever is signed in")
	}
}

// decodeNode reads one of the words, or one of two mappings.
func (b *Bearer) decodeNode(d *decoder, path string, n ast.Node) {
	if !isMapping(n) {
		words := []string{"access_token", "id_token", "none"}
		f := field{key: "bearer", oneOf: words}
		b.Kind = d.word(path, n, f, "one of access_token, id_token, none, or a mapping such as {client_credentials: {provider: corp, scope: read}}")
		return
	}
	d.mapping(path, n, reflect.ValueOf(b).Elem())
	switch {
	case b.Exchange != nil && b.ClientCredentials != nil:
		d.fail(path, n, "holds both exchange and client_credentials", "Keep one: they are different tokens")
	case b.Exchange != nil:
		b.Kind = "exchange"
	case b.ClientCredentials != nil:
		b.Kind = "client_credentials"
	case isEmpty(n):
		d.fail(path, n, "names no token", "Write client_credentials: {provider: NAME}, or leave the key out for the person's access token")
	}
}

// word decodes one of a few words; "" with a problem when it is none of them.
func (d *decoder) word(path string, n ast.Node, f field, want string) string {
	if !isScalar(n) {
		d.fail(path, n, "must be "+want+", but is "+kind(n), "Write one of these")
		return ""
	}
	f.forms = want
	var text string
	d.text(path, n, reflect.ValueOf(&text).Elem(), f)
	if d.src.failed[path] || !slices.Contains(f.oneOf, text) {
		return ""
	}
	return text
}

func isMapping(n ast.Node) bool {
	return n.Type() == ast.MappingType || n.Type() == ast.MappingValueType
}

func isEmpty(n ast.Node) bool {
	m, ok := n.(*ast.MappingNode)
	return ok && len(m.Values) == 0
}

// kind says in plain words what a node is.
func kind(n ast.Node) string {
	switch {
	case isMapping(n):
		return "a mapping"
	case n.Type() == ast.SequenceType:
		return "a list"
	case n.Type() == ast.NullType:
		return "nothing"
	case isScalar(n):
		return "a single value"
	}
	return "something else"
}

// first is the token where a node begins: of a mapping its first key, since its own token is the first colon.
func first(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return first(n.Values[0])
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return n.GetToken()
}
