package access

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"postern/config"
	"postern/proxy/expr"
)

// Compiler compiles the rules and header values of a configuration: what is written several times only once, since thousands of routes take long. The
// zero Compiler is ready for use, by one goroutine at a time.
type Compiler struct {
	// Hidden tells the request headers, by their names in lower case, that expressions may not read. Nil hides none.
	Hidden func(header string) bool
	// Before is the Compiler of the configuration until now, with the same Hidden: what it has compiled is not compiled again. Set it to nil in the end,
	// so that what only that configuration has can go.
	Before *Compiler

	languages [3]*expr.Language
	compiled  map[source]*expression
}

// source is the text of an expression, and what kind it is.
type source struct {
	dialect dialect
	text    string
}

// dialect is a kind of expression.
type dialect int

const (
	inRule     dialect = iota
	inResponse         // header values for the client: no tokens
	inRequest          // header values for the application
)

// names are the variables of a dialect.
func (d dialect) names() map[string]*cel.Type {
	names := variables()
	if d == inRequest {
		names["access_token"], names["id_token"] = cel.StringType, cel.StringType
	}
	return names
}

func (c *Compiler) expression(d dialect, text string) (*expression, error) {
	if c.compiled == nil {
		c.compiled = map[source]*expression{}
		if c.Before != nil {
			c.languages = c.Before.languages
		}
	}
	s := source{d, text}
	e := c.compiled[s]
	if e == nil && c.Before != nil {
		e = c.Before.compiled[s]
	}
	if e == nil {
		var err error
		if e, err = c.compile(s); err != nil {
			return nil, err
		}
	}
	c.compiled[s] = e
	return e, nil
}

func (c *Compiler) compile(s source) (*expression, error) {
	d := s.dialect
	if c.languages[d] == nil {
		functions := []cel.EnvOption{ext.Network()}
		if d != inRule {
			functions = append(functions, valueFunctions()...)
		}
		l, err := expr.NewLanguage(expr.Options{Variables: d.names(), Functions: functions, Cost: maxCost})
		if err != nil {
			return nil, err
		}
		c.languages[d] = l
	}
	return newExpression(c.languages[d], d.names(), s.text, c.Hidden)
}

// Rule turns the `access` of a route into a rule. The zero Access means signed_in. Several conditions must all hold. What is wrong with
// `rule` is an [expr.CompileError]; of every error the rule beside it denies.
func (c *Compiler) Rule(a config.Access) (Rule, error) {
	if field := unknownCondition(a); field != "" {
		return Rule{}, fmt.Errorf("access: the condition %s is not supported yet", field)
	}
	switch a.Level {
	case "", config.SignedIn:
		return c.conditions(a)
	case config.Public, config.Optional, config.Deny:
		if bare := (config.Access{Level: a.Level}); !reflect.DeepEqual(a, bare) {
			return Rule{}, fmt.Errorf("access: %s takes no conditions", a.Level)
		}
	default:
		return Rule{}, fmt.Errorf("access: unknown level %q: use public, optional, signed_in, deny or conditions", a.Level)
	}
	switch a.Level {
	case config.Public:
		return Rule{kind: public}, nil
	case config.Optional:
		return Rule{kind: optional}, nil
	}
	return Rule{}, nil
}

// conditions compiles those of a. A list that is present but empty differs from none: nobody meets it, signed in or not.
func (c *Compiler) conditions(a config.Access) (Rule, error) {
	var cs conditions
	empty := false
	for _, l := range []struct {
		name string
		list []string
		fold bool
		to   *set
	}{
		{"groups", a.Groups, false, &cs.groups},
		{"emails", a.Emails, true, &cs.emails},
		{"email_domains", a.EmailDomains, true, &cs.domains},
		{"users", a.Users, false, &cs.users},
	} {
		var err error
		if *l.to, err = newSet(l.name, l.list, l.fold); err != nil {
			return Rule{}, err
		}
		empty = empty || l.list != nil && len(l.list) == 0
	}
	for _, path := range slices.Sorted(maps.Keys(a.Claims)) {
		values, err := newSet("claims."+path, a.Claims[path], false)
		switch {
		case err != nil:
			return Rule{}, err
		case path == "":
			return Rule{}, errors.New("access: claims: a name is empty")
		}
		empty = empty || len(values) == 0
		cs.claims = append(cs.claims, claim{path: path, any: values})
	}
	empty = empty || a.Claims != nil && len(a.Claims) == 0 || a.ACR != nil && len(a.ACR) == 0
	if slices.Contains(a.ACR, "") {
		return Rule{}, errors.New("access: an entry of acr is empty")
	}
	if a.MaxAge < 0 {
		return Rule{}, errors.New("access: max_age is negative")
	}
	if len(a.ACR) > 0 || a.MaxAge > 0 {
		cs.demand = &Demand{ACR: a.ACR, MaxAge: a.MaxAge}
	}
	if a.Rule != "" {
		var err error
		if cs.rule, err = c.expression(inRule, a.Rule); err != nil {
			return Rule{}, fmt.Errorf("access: rule: %w", err)
		}
		switch out := cs.rule.program.Output(); out.Kind() {
		case types.BoolKind, types.DynKind: // dyn is a claim of that type, or an error then
		default:
			return Rule{}, fmt.Errorf("access: rule: %w", &expr.CompileError{Message: fmt.Sprintf("yields a %s: a rule is true or false", out)})
		}
	}
	switch {
	case empty:
		return Rule{}, nil
	case reflect.ValueOf(cs).IsZero():
		return Rule{kind: signedIn}, nil
	}
	return Rule{kind: signedIn, conditions: &cs}, nil
}

// newSet is a list to look up in; nil for a nil list.
func newSet(name string, list []string, fold bool) (set, error) {
	if list == nil {
		return nil, nil
	}
	s := make(set, len(list))
	for _, v := range list {
		if v == "" {
			// An unset variable, most likely. A provider that sends an empty value must not match it.
			return nil, fmt.Errorf("access: an entry of %s is empty", name)
		}
		if fold {
			v = foldASCII(v)
		}
		s[v] = struct{}{}
	}
	return s, nil
}

// unknownCondition names a condition in a that [Compiler.Rule] would pass over. The configuration refuses keys of later versions itself;
// if one came through, a route would be open wider than its file says.
func unknownCondition(a config.Access) string {
	v := reflect.ValueOf(a)
	for f, value := range v.Fields() {
		switch f.Name {
		case "Level", "SignedIn", "Groups", "Emails", "EmailDomains", "Users", "Claims", "Rule", "ACR", "MaxAge":
		case "BearerTokens": // another way to be signed in: the conditions hold for either
		default:
			if !value.IsZero() {
				return f.Name
			}
		}
	}
	return ""
}
