package idp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"

	"postern/proxy/expr"
)

const (
	maxPath  = 256
	maxCost  = 1_000_000 // of one evaluation: about a tenth of a second
	maxExtra = 16        // claims beside those of an identity
)

// The members of an identity, by their names in the configuration.
const (
	memberUser      = "user"
	memberEmail     = "email"
	memberName      = "name"
	memberPreferred = "preferred_username"
	memberGroups    = "groups"
)

// mapping says what the members of an identity are made of. It never changes.
type mapping struct {
	user, email, name, preferred, groups rule
	extra                                []rule // by name
}

// rule yields one member. The zero rule yields nothing.
type rule struct {
	member  string        // its name in the configuration
	path    string        // where it is, unless there is a program
	program *expr.Program // what computes it
	written bool          // by the operator: no default
}

// newMapping compiles what the configuration says about claims, and fills in the defaults. It reports everything that is wrong.
func newMapping(claims map[string]string) (mapping, error) {
	m := mapping{
		user:      rule{member: memberUser, path: "sub"},
		email:     rule{member: memberEmail, path: "email"},
		name:      rule{member: memberName, path: "name"},
		preferred: rule{member: memberPreferred, path: "preferred_username"},
		groups:    rule{member: memberGroups, path: "groups"},
	}
	members := map[string]*rule{memberUser: &m.user, memberEmail: &m.email, memberName: &m.name, memberPreferred: &m.preferred, memberGroups: &m.groups}
	var ps problems
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		if err := checkMember(name); err != nil {
			ps.add("claims.%s: %w", brief(name), err)
			continue
		}
		r, err := newRule(name, claims[name])
		if err != nil {
			ps.add("claims.%s: %w", name, err)
			continue
		}
		if to := members[name]; to != nil {
			*to = r
		} else if m.extra = append(m.extra, r); len(m.extra) == maxExtra+1 {
			ps.add("claims: more than %d beside user, email, name, preferred_username and groups", maxExtra)
		}
	}
	return m, errors.Join(ps...)
}

// checkMember refuses names that would promise something else than they do.
func checkMember(name string) error {
	switch name {
	case "sub":
		return errors.New("is not to be mapped: user is the name of the person")
	case "email_verified":
		return errors.New(`is not to be mapped: write  email: 'verified ? email : ""'  with the provider's own claim`)
	}
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != "" {
		return errors.New("is not a name: up to 64 letters, digits, _, . and -")
	}
	return nil
}

// newRule compiles one rule. What could be a path is one; anything else is a CEL expression.
func newRule(member, text string) (rule, error) {
	r := rule{member: member, written: true}
	if isPath(text) {
		// As in an expression, claims is everything.
		r.path = strings.TrimPrefix(text, "claims.")
		if len(text) > maxPath || strings.Contains("."+r.path+".", "..") && !strings.Contains(r.path, "/") {
			return rule{}, fmt.Errorf("is not a path: names with dots between them, at most %d characters", maxPath)
		}
		return r, nil
	}
	if strings.TrimSpace(text) == "" {
		return rule{}, errors.New("is empty")
	}
	var err error
	r.program, err = compile(text, member)
	return r, err
}

// isPath reports whether text is a path rather than an expression.
func isPath(text string) bool {
	return text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/-") == ""
}

// compile makes a program of an expression that yields what the member can be. What it may use: claims, and every claim by its own name.
func compile(text, member string) (*expr.Program, error) {
	// Which claims there will be is not known now: every name may be one.
	language, err := expr.NewLanguage(expr.Options{
		Variables: map[string]*cel.Type{"claims": cel.MapType(cel.StringType, cel.DynType)}, AnyName: true, Cost: maxCost,
	})
	if err != nil {
		return nil, err
	}
	program, err := language.Compile(text)
	if err != nil {
		return nil, err
	}
	if out := program.Output(); !yields(out, member) {
		return nil, fmt.Errorf("yields a %s: a text is needed", out)
	}
	return program, nil
}

// yields reports whether a value of type t can become the member.
func yields(t *cel.Type, member string) bool {
	switch t.Kind() {
	case types.DynKind, types.AnyKind, types.StringKind, types.IntKind, types.UintKind, types.DoubleKind, types.NullTypeKind, types.TypeParamKind:
		return true
	case types.ListKind:
		return member == memberGroups
	case types.BoolKind:
		return !isIdentityMember(member)
	case types.OpaqueKind:
		return t.TypeName() == "optional_type" && yields(t.Parameters()[0], member)
	}
	return false
}

// isIdentityMember reports whether a member is one of the identity itself.
func isIdentityMember(member string) bool {
	return slices.Contains([]string{memberUser, memberEmail, memberName, memberPreferred, memberGroups}, member)
}

// scope is what an expression sees of claims.
type scope claims

// ResolveName finds a claim.
func (s scope) ResolveName(name string) (any, bool) {
	if name == "claims" {
		return map[string]any(s), true
	}
	v, ok := s[name]
	return v, ok
}

// Parent is none.
func (scope) Parent() interpreter.Activation { return nil }

// value applies a rule: nil where there is nothing. Its errors do not hold what was computed with.
func (r rule) value(ctx context.Context, c claims) (any, error) {
	if r.program == nil {
		return expr.Lookup(c, r.path), nil
	}
	out, err := r.program.Eval(ctx, scope(c))
	if errors.Is(err, expr.ErrCost) {
		return nil, errors.New("its expression costs too much")
	}
	if err != nil {
		return nil, errors.New("its expression failed: something that it uses is missing, or of another type")
	}
	return native(out)
}

// native makes what an expression yields into what JSON would hold. What cannot name anything is false within a list, and an error
// elsewhere.
func native(v ref.Val) (any, error) {
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.String:
		return string(v), nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return json.Number(strconv.FormatInt(int64(v), 10)), nil
	case types.Uint:
		return json.Number(strconv.FormatUint(uint64(v), 10)), nil
	case types.Double:
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
		}
	case *types.Optional:
		if v.HasValue() {
			return native(v.GetValue())
		}
		return nil, nil
	case traits.Lister:
		var list []any
		for it := v.Iterator(); it.HasNext() == types.True && len(list) <= maxGroups; { // one more, so that it is seen
			e, err := native(it.Next())
			if _, ok := e.([]any); ok || err != nil {
				e = false
			}
			list = append(list, e)
		}
		return list, nil
	}
	return nil, errors.New("its expression yields neither a text nor a list")
}

// text makes a claim into the text that names somebody or something. Numbers are written in one way, however the provider writes them.
func text(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		s := v.String()
		if !strings.ContainsAny(s, ".eE") {
			return s, true
		}
		f, err := v.Float64()
		if err != nil {
			return "", false
		}
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return strconv.FormatInt(int64(f), 10), true
		}
		return strconv.FormatFloat(f, 'g', -1, 64), true
	}
	return "", false
}
