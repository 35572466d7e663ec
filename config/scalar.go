package config

import (
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Size is a number of bytes, written as 64MiB.
type Size int64

// String writes the size as a file would.
func (s Size) String() string {
	for _, u := range slices.Backward(units()) {
		if s != 0 && s%Size(u.bytes) == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0"
}

// mistake is a text that is not what its type wants. Neither part holds the text.
type mistake struct{ what, mend string }

func (m *mistake) Error() string { return m.what + ". " + m.mend }

// isText tells whether a type is written as one YAML value.
func isText(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[time.Duration](), reflect.TypeFor[Size](), reflect.TypeFor[*url.URL](), reflect.TypeFor[netip.Prefix](),
		reflect.TypeFor[string](), reflect.TypeFor[bool](), reflect.TypeFor[int](), reflect.TypeFor[float64]():
		return true
	}
	return false
}

// setText types a text: what it means depends on the key alone, never on how YAML would have read it. A text that is wrong changes nothing.
func setText(v reflect.Value, text string) error {
	switch to := v.Addr().Interface().(type) {
	case *string:
		*to = text
	case *bool:
		return assign(to, text, parseBool)
	case *int:
		return assign(to, text, parseInt)
	case *float64:
		return assign(to, text, parseFloat)
	case *time.Duration:
		return assign(to, text, parseDuration)
	case *Size:
		return assign(to, text, parseSize)
	case **url.URL:
		return assign(to, text, parseURL)
	case *netip.Prefix:
		return assign(to, text, parsePrefix)
	}
	return nil
}

func assign[T any](to *T, text string, parse func(string) (T, error)) error {
	value, err := parse(text)
	if err == nil {
		*to = value
	}
	return err
}

// text decodes a single value.
func (d *decoder) text(path string, n ast.Node, v reflect.Value, f field) {
	isURL := v.Type() == reflect.TypeFor[*url.URL]()
	text, ok := d.scalar(path, n, example(v, f), !isURL) // a URL can hold a password
	if !ok {
		return
	}
	if f.script {
		written, _, _ := rawText(n)
		s := newScript(n, written)
		d.src.scripts[path] = s
		d.src.excerpts.showBlock(s, written)
	}
	isString := v.Kind() == reflect.String
	if isString && !f.multiline && strings.ContainsFunc(text, unicode.IsControl) {
		d.fail(path, n, "holds a line break or another control character", "Write it in one line; look for a stray newline in the variable's value")
		return
	}
	if len(f.oneOf) > 0 && !slices.Contains(f.oneOf, text) {
		mend := "Write one of: " + strings.Join(f.oneOf, ", ")
		if f.forms != "" {
			mend = "Write " + f.forms
		}
		if near := nearest(text, f.oneOf); near != "" && !strings.Contains(d.src.marks[path].text, "${") {
			mend = "Did you mean " + near + "?"
		}
		d.fail(path, n, d.src.show(path)+" is not one of the words that it can be", mend)
		return
	}
	if err := setText(v, text); err != nil {
		what, mend := err.Error(), ""
		if m, ok := err.(*mistake); ok {
			what, mend = m.what, m.mend
		}
		shown := d.src.show(path)
		if isURL {
			shown = "the value"
		}
		d.fail(path, n, shown+" "+what, mend)
	}
}

// scalar is the text of a single value with its variables replaced. keep remembers what the file says, for messages.
func (d *decoder) scalar(path string, n ast.Node, want string, keep bool) (string, bool) {
	text, plain, ok := rawText(n)
	if !ok {
		d.fail(path, n, "must be "+want+", but is "+kind(n), "Write a single value after the key")
		return "", false
	}
	if plain && n.Type() == ast.BoolType && !strings.Contains(want, "true or false") && !strings.Contains(want, "one of") {
		d.fail(path, n, "must be "+want+", but is true or false", "Put it in quotes if you mean the word")
		return "", false
	}
	if d.fill != nil {
		filled, m := d.fill(text)
		if m != nil {
			d.lacks(path)
			d.fail(path, n, m.what, m.mend)
			return "", false
		}
		text = filled
	}
	delete(d.src.raw, path)
	if strings.Contains(text, "${") {
		d.src.raw[path] = text
	}
	if keep {
		m := d.src.marks[path]
		m.text = text
		d.src.marks[path] = m
		if !strings.Contains(path, ".token_params.") {
			d.src.excerpts.show(n)
		}
	}
	text, err := d.expand(text)
	if err != nil {
		d.fail(path, n, err.what, err.mend)
		return "", false
	}
	if text == "" {
		d.fail(path, n, "is empty", "Give it a value, or leave the key out")
		return "", false
	}
	return text, true
}

// rawText is what the file says, whatever type YAML would give it.
func rawText(n ast.Node) (text string, plain, ok bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		t := n.GetToken()
		return n.Value, t == nil || t.Type != token.SingleQuoteType && t.Type != token.DoubleQuoteType, true
	case *ast.LiteralNode:
		return n.Value.Value, false, true
	case *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return strings.TrimSpace(n.GetToken().Value), true, true
	}
	return "", false, false
}

func isScalar(n ast.Node) bool {
	_, _, ok := rawText(n)
	return ok
}

// example says what a value of this type looks like.
func example(v reflect.Value, f field) string {
	if len(f.oneOf) > 0 {
		return "one of " + strings.Join(f.oneOf, ", ")
	}
	switch v.Interface().(type) {
	case bool:
		return "true or false"
	case int:
		return "a number, such as 1000"
	case float64:
		return "a number, such as 0.05"
	case time.Duration:
		return "a duration, such as 15m"
	case Size:
		return "a size, such as 64MiB"
	case *url.URL:
		return "a URL, such as https://id.example.com"
	case netip.Prefix:
		return "a network, such as 10.0.0.0/8"
	}
	return "a text"
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true", "false":
		return s == "true", nil
	}
	return false, &mistake{"is neither true nor false", "Write true or false"}
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || s[0] == '+' {
		return 0, &mistake{"is not a whole number", "Write digits only, such as 1000"}
	}
	return n, nil
}

func parseFloat(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, &mistake{"is not a number", "Write a number such as 0.05"}
	}
	return n, nil
}

func parseDuration(s string) (time.Duration, error) {
	if strings.HasSuffix(s, "d") || strings.HasSuffix(s, "w") {
		return 0, &mistake{"is not a duration: days and weeks are not known", "Write hours, such as 24h"}
	}
	t, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, &mistake{"is not a duration", "Write a number with its unit, such as 500ms, 30s, 15m or 12h"}
	case t < 0 || s[0] == '-' || s[0] == '+':
		return 0, &mistake{"has a sign", "Write a duration such as 15m"}
	}
	return t, nil
}

// unit is one that a Size can be written in.
type unit struct {
	name  string
	bytes int64
}

// units are in ascending order.
func units() []unit {
	return []unit{{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}
}

func parseSize(s string) (Size, error) {
	if s == "0" {
		return 0, nil
	}
	wrong := &mistake{"is not a size", "Write a whole number with B, KiB, MiB or GiB, such as 64MiB"}
	digits := strings.TrimRight(s, "BKMGTikb")
	for _, u := range units() {
		if s[len(digits):] != u.name {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return 0, wrong
		}
		if int64(n) > math.MaxInt64/u.bytes {
			return 0, &mistake{"is too large", wrong.mend}
		}
		return Size(int64(n) * u.bytes), nil
	}
	return 0, wrong
}

// parseURL accepts absolute URLs in the form in which they are printed again, so that what is compared and sent is
// what the file says. Its mistakes say nothing of the text, which can hold a password.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || strings.ContainsFunc(s, unicode.IsSpace) || strings.Contains(s, `\`) {
		return nil, &mistake{"is not a URL", "Write one such as https://id.example.com"}
	}
	if u.Scheme == "" || u.Opaque != "" {
		return nil, &mistake{"is not a whole URL", "Write it with its scheme, such as https://id.example.com"}
	}
	if u.String() != s {
		return nil, &mistake{"is a URL, but not in its usual form", "Write the scheme in lower case, and escape characters that URLs cannot hold"}
	}
	return u, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, &mistake{"is not a network", "Write an address or a network, such as 10.1.2.3 or 10.0.0.0/8"}
	case p.Addr().Is4In6():
		return p, &mistake{"is an IPv4 network in IPv6 form", "Write it as IPv4, such as 10.0.0.0/8"}
	case p.Masked() != p:
		return p, &mistake{"is an address within a network", fmt.Sprintf("Write the address alone, or the network itself: the bits after /%d must be 0", p.Bits())}
	}
	return p, nil
}
