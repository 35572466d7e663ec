package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"postern/proxy/expr"
	"postern/session"
)

// MaxList bounds the members of one list in a header value.
const MaxList = 10_000

// ErrAbsent says that a header has no value: what it is made of is not there, or is nothing that can be a text.
var ErrAbsent = errors.New("no value")

// Value is the value of a header, compiled. It is immutable and safe for concurrent use.
type Value struct{ e *expression }

// RequestHeader compiles the value of a header for the application. Beside what rules see it has access_token and id_token. Its errors
// are [expr.CompileError]s.
func (c *Compiler) RequestHeader(text string) (Value, error) { return c.value(inRequest, text) }

// ResponseHeader compiles the value of a header for the client. It has no tokens: a page's scripts could read them.
func (c *Compiler) ResponseHeader(text string) (Value, error) { return c.value(inResponse, text) }

func (c *Compiler) value(d dialect, text string) (Value, error) {
	e, err := c.expression(d, text)
	if err != nil {
		return Value{}, err
	}
	if out := e.program.Output(); !isHeaderType(out) {
		return Value{}, &expr.CompileError{Message: fmt.Sprintf("yields a %s: a header is a text or a list of texts; write string(…) or json(…)", out)}
	}
	return Value{e}, nil
}

// isHeaderType tells whether a value of type t can be a header: a text, a list of texts, what is not known before, or an optional one of these.
func isHeaderType(t *cel.Type) bool {
	switch t.Kind() {
	case types.StringKind, types.DynKind, types.NullTypeKind, types.TypeParamKind:
		return true
	case types.ListKind:
		switch t.Parameters()[0].Kind() {
		case types.StringKind, types.DynKind, types.TypeParamKind:
			return true
		}
	case types.OpaqueKind:
		return t.TypeName() == "optional_type" && isHeaderType(t.Parameters()[0])
	}
	return false
}

// Claims returns the provider's claims that the value reads, by their own names.
func (v Value) Claims() []string { return v.e.claimNames() }

// ReadsRequest reports whether the value depends on the request or the time.
func (v Value) ReadsRequest() bool { return v.e.readsRequest() }

// Eval returns the texts that the value is made of, and whether it is a list of them. s and q may be nil: a value that reads what is not
// there is [ErrAbsent], as are null, an empty text and an empty list. So is an evaluation that fails; the error then tells why.
func (v Value) Eval(ctx context.Context, s *session.Session, q *Request) (texts []string, list bool, err error) {
	if v.e == nil || v.e.person && s == nil {
		return nil, false, ErrAbsent
	}
	out, err := v.e.program.Eval(ctx, &scope{e: v.e, s: s, q: q})
	if err != nil {
		if v.e.tokens { // CEL's words could hold a part of one
			return nil, false, fmt.Errorf("%w: the expression cannot be evaluated", ErrAbsent)
		}
		return nil, false, fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return textsOf(out)
}

// textsOf makes texts of what an expression yields.
func textsOf(v ref.Val) (texts []string, list bool, err error) {
	if o, ok := v.(*types.Optional); ok {
		if !o.HasValue() {
			return nil, false, ErrAbsent
		}
		return textsOf(o.GetValue())
	}
	if l, ok := v.(traits.Lister); ok {
		for it := l.Iterator(); it.HasNext() == types.True; {
			text, ok := celText(it.Next())
			if !ok || len(texts) == MaxList {
				return nil, false, fmt.Errorf("%w: a list of something else than texts, or of more than %d", ErrAbsent, MaxList)
			}
			if text != "" {
				texts = append(texts, text)
			}
		}
		if len(texts) == 0 {
			return nil, false, ErrAbsent
		}
		return texts, true, nil
	}
	text, ok := celText(v)
	switch {
	case !ok:
		return nil, false, fmt.Errorf("%w: neither a text nor a list of texts", ErrAbsent)
	case text == "":
		return nil, false, ErrAbsent
	}
	return []string{text}, false, nil
}

// celText writes one value. Null is an empty text.
func celText(v ref.Val) (string, bool) {
	switch v := v.(type) {
	case types.String:
		return string(v), true
	case types.Null:
		return "", true
	case types.Bool, types.Int, types.Uint, types.Double:
		s, ok := v.ConvertToType(types.StringType).(types.String)
		return string(s), ok
	}
	return "", false
}

// valueFunctions are those of header values alone: basic(user, password), base64(x), json(x).
func valueFunctions() []cel.EnvOption {
	return []cel.EnvOption{
		cel.Function("basic", cel.Overload("postern_basic", []*cel.Type{cel.StringType, cel.StringType}, cel.StringType, cel.BinaryBinding(basic))),
		cel.Function("base64",
			cel.Overload("postern_base64_string", []*cel.Type{cel.StringType}, cel.StringType, cel.UnaryBinding(encodeBase64)),
			cel.Overload("postern_base64_bytes", []*cel.Type{cel.BytesType}, cel.StringType, cel.UnaryBinding(encodeBase64))),
		cel.Function("json", cel.Overload("postern_json", []*cel.Type{cel.DynType}, cel.StringType, cel.UnaryBinding(encodeJSON))),
	}
}

// basic is the value of an Authorization header (RFC 7617). A user's name with a colon would be another name with another password.
func basic(user, password ref.Val) ref.Val {
	u, ok1 := user.(types.String)
	p, ok2 := password.(types.String)
	switch {
	case !ok1 || !ok2:
		return types.NewErr("basic: takes two texts")
	case u == "":
		return types.NewErr("basic: the user's name is empty")
	case strings.Contains(string(u), ":"):
		return types.NewErr("basic: the user's name holds a colon")
	case strings.ContainsFunc(string(u+p), func(r rune) bool { return r < ' ' || r == 0x7f }):
		return types.NewErr("basic: a control character")
	}
	return types.String("Basic " + base64.StdEncoding.EncodeToString([]byte(string(u+":"+p))))
}

func encodeBase64(v ref.Val) ref.Val {
	switch v := v.(type) {
	case types.String:
		return types.String(base64.StdEncoding.EncodeToString([]byte(v)))
	case types.Bytes:
		return types.String(base64.StdEncoding.EncodeToString(v))
	}
	return types.NewErr("base64: takes a text or bytes")
}

// encodeJSON writes a value as JSON in ASCII, without a percent sign: nothing on the way to the application encodes it again.
func encodeJSON(v ref.Val) ref.Val {
	native, err := v.ConvertToNative(types.JSONValueType)
	if err != nil {
		return types.NewErr("json: this value has no JSON")
	}
	message, ok := native.(*structpb.Value)
	if !ok {
		return types.NewErr("json: this value has no JSON")
	}
	text, err := protojson.Marshal(message)
	if err != nil {
		return types.NewErr("json: this value has no JSON")
	}
	var compact any // protojson's spaces are random on purpose
	if err := json.Unmarshal(text, &compact); err != nil {
		return types.NewErr("json: this value has no JSON")
	}
	if text, err = json.Marshal(compact); err != nil {
		return types.NewErr("json: this value has no JSON")
	}
	return types.String(asciiJSON(string(text)))
}

// asciiJSON escapes what is not plain ASCII in JSON, where only strings can hold it.
func asciiJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '%' || r >= 0x7f && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r >= utf8.RuneSelf:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
