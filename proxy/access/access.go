// Package access decides who may do what. It is pure: a [Rule] is compiled from a route's configuration once, and [Rule.Decide] looks at
// nothing but the session that it is given.
//
// What is not allowed by a rule is denied. The zero [Rule] denies everyone, the zero [Decision] denies, an empty list of groups lets in
// nobody, and a condition that this package does not know is an error of [Compile], never one condition less.
//
// Start at [Compile].
package access

import (
	"errors"
	"fmt"
	"reflect"

	"postern/config"
	"postern/session"
)

// The reasons of decisions, as they stand in the log.
const (
	ReasonPublic     = "public"       // anyone may
	ReasonSignedIn   = "signed_in"    // whoever is signed in may, and is
	ReasonGroup      = "group"        // in one of the groups
	ReasonNoSession  = "no_session"   // nobody is signed in
	ReasonNotInGroup = "not_in_group" // signed in, but in none of the groups
	ReasonDenied     = "denied"       // nobody may
)

// Need says what a person who was denied can do about it.
type Need int

// What can be needed.
const (
	None   Need = iota // nothing: the answer stays no
	SignIn             // sign in, then ask again
)

// String returns the need as it stands in the log.
func (n Need) String() string {
	if n == SignIn {
		return "sign_in"
	}
	return "none"
}

// Decision is what a rule says about one request. The zero Decision denies.
type Decision struct {
	// Allow lets the request pass.
	Allow bool
	// Reason is short and stable, for logs.
	Reason string
	// Need says, when Allow is false, whether signing in can change it.
	Need Need
}

// Rule is the compiled `access` of a route. It is immutable and safe for concurrent use. The zero Rule denies everyone.
type Rule struct {
	kind   kind
	groups map[string]struct{}
}

type kind int

const (
	deny kind = iota // the zero Rule
	public
	signedIn
	inGroups
)

// Compile turns the `access` of a route into a rule. The zero Access means signed_in. Several conditions must all hold.
func Compile(a config.Access) (Rule, error) {
	if field := unknownCondition(a); field != "" {
		return Rule{}, fmt.Errorf("access: the condition %s is not supported yet", field)
	}
	switch a.Level {
	case "", config.SignedIn:
		if a.Groups != nil {
			return compileGroups(a.Groups)
		}
		return Rule{kind: signedIn}, nil
	case config.Public, config.Deny:
		if a.SignedIn || a.Groups != nil {
			return Rule{}, fmt.Errorf("access: %s takes no conditions", a.Level)
		}
		if a.Level == config.Public {
			return Rule{kind: public}, nil
		}
		return Rule{}, nil
	case config.Optional:
		return Rule{}, errors.New("access: optional is not supported yet")
	}
	return Rule{}, fmt.Errorf("access: unknown level %q: use public, signed_in, deny or a list of groups", a.Level)
}

// compileGroups takes a list that is present; an empty one differs from none.
func compileGroups(list []string) (Rule, error) {
	if len(list) == 0 {
		return Rule{}, nil // nobody is in one of no groups, signed in or not
	}
	groups := make(map[string]struct{}, len(list))
	for _, g := range list {
		if g == "" {
			// An unset variable, most likely. A provider that sends an empty group must not match it.
			return Rule{}, errors.New("access: a group is empty")
		}
		groups[g] = struct{}{}
	}
	return Rule{kind: inGroups, groups: groups}, nil
}

// unknownCondition names a condition in a that [Compile] would pass over. The configuration refuses keys of later versions itself;
// if one came through, a route would be open wider than its file says.
func unknownCondition(a config.Access) string {
	v := reflect.ValueOf(a)
	for f, value := range v.Fields() {
		switch f.Name {
		case "Level", "SignedIn", "Groups":
		default:
			if !value.IsZero() {
				return f.Name
			}
		}
	}
	return ""
}

// Public reports whether anyone may, so that no session needs to be looked up at all.
func (r Rule) Public() bool {
	return r.kind == public
}

// Decide says whether a request with session s may pass; a nil s is a request without one. Names of groups are compared exactly.
func (r Rule) Decide(s *session.Session) Decision {
	switch {
	case r.kind == public:
		return Decision{Allow: true, Reason: ReasonPublic}
	case r.kind == deny:
		return Decision{Reason: ReasonDenied}
	case s == nil:
		return Decision{Reason: ReasonNoSession, Need: SignIn}
	case r.kind == signedIn:
		return Decision{Allow: true, Reason: ReasonSignedIn}
	case r.kind == inGroups:
		for _, g := range s.Identity.Groups {
			if _, ok := r.groups[g]; ok {
				return Decision{Allow: true, Reason: ReasonGroup}
			}
		}
		return Decision{Reason: ReasonNotInGroup}
	}
	return Decision{Reason: ReasonDenied}
}
