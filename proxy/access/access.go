// Package access decides who may do what, and computes the header values that tell an application who asks. It is pure: a [Rule] is
// compiled from a route's configuration once, and [Rule.Decide] looks at nothing but the session and the request that it is given.
//
// What is not allowed by a rule is denied. The zero [Rule] denies everyone, the zero [Decision] denies, an empty list lets in nobody, an
// expression that cannot be evaluated denies, and a condition that this package does not know is an error of [Compiler.Rule], never one
// condition less.
//
// Start at [Compiler]. Rules are in this file, what they compare in conditions.go, how and when somebody must have signed in in stepup.go, what expressions see in scope.go, header values in
// value.go.
package access

import (
	"context"

	"postern/session"
)

// The reasons of decisions, as they stand in the log. Of a condition that does not hold it is the condition's name in the configuration.
const (
	ReasonPublic     = "public"     // anyone may
	ReasonOptional   = "optional"   // anyone may; the application is told who it is, where somebody is signed in
	ReasonSignedIn   = "signed_in"  // whoever is signed in may, and is
	ReasonConditions = "conditions" // every condition holds
	ReasonNoSession  = "no_session" // nobody is signed in
	ReasonDenied     = "denied"     // nobody may
)

// Need says what a person who was denied can do about it.
type Need int

// What can be needed.
const (
	None   Need = iota // nothing: the answer stays no
	SignIn             // sign in, then ask again
	StepUp             // sign in again, more strongly or more recently, then ask again
)

// String returns the need as it stands in the log.
func (n Need) String() string {
	switch n {
	case SignIn:
		return "sign_in"
	case StepUp:
		return "step_up"
	}
	return "none"
}

// Decision is what a rule says about one request. The zero Decision denies.
type Decision struct {
	// Allow lets the request pass.
	Allow bool
	// Reason is short and stable, for logs.
	Reason string
	// Detail says, in the log, why an expression could not be evaluated: "no such key: level". Empty otherwise.
	Detail string
	// Need says, when Allow is false, whether signing in can change it.
	Need Need
	// Demand is, with [StepUp], what the new sign-in must be. It is the rule's own: nobody changes it.
	Demand *Demand
}

// Rule is the compiled `access` of a route. It is immutable and safe for concurrent use. The zero Rule denies everyone.
type Rule struct {
	kind       kind
	conditions *conditions // of signedIn; nil without any
}

type kind int

const (
	deny kind = iota // the zero Rule
	public
	optional
	signedIn
)

// Public reports whether anyone may, so that no session needs to be looked up at all.
func (r Rule) Public() bool { return r.kind == public }

// Optional reports whether anyone may, while a session is used where there is one.
func (r Rule) Optional() bool { return r.kind == optional }

// ReadsRequest reports whether the decision depends on the request or the time, so that Decide needs them. Else it is the same for
// as long as the session is, and may be remembered with it.
func (r Rule) ReadsRequest() bool {
	return r.conditions != nil && (r.conditions.rule.readsRequest() || r.conditions.demand != nil && r.conditions.demand.MaxAge > 0)
}

// Demand is what a sign-in must be for the rule to let anybody in; nil where any will do. Nobody changes it.
func (r Rule) Demand() *Demand {
	if r.conditions == nil {
		return nil
	}
	return r.conditions.demand
}

// Claims returns the provider's claims that the rule reads, by their own names: those that a session must keep. A path of several names
// is returned with all that could be the first of them.
func (r Rule) Claims() []string {
	if r.conditions == nil {
		return nil
	}
	names := r.conditions.rule.claimNames()
	for _, c := range r.conditions.claims {
		names = append(names, firstNames(c.path)...)
	}
	return names
}

// Decide says whether a request with session s may pass; a nil s is a request without one. q is looked at only where
// [Rule.ReadsRequest] says so, and may be nil otherwise.
func (r Rule) Decide(ctx context.Context, s *session.Session, q *Request) Decision {
	switch {
	case r.kind == public:
		return Decision{Allow: true, Reason: ReasonPublic}
	case r.kind == optional:
		return Decision{Allow: true, Reason: ReasonOptional}
	case r.kind != signedIn:
		return Decision{Reason: ReasonDenied}
	case s == nil:
		return Decision{Reason: ReasonNoSession, Need: SignIn}
	case r.conditions == nil:
		return Decision{Allow: true, Reason: ReasonSignedIn}
	}
	if failed, detail := r.conditions.failed(ctx, s, q); failed != "" {
		return Decision{Reason: failed, Detail: detail}
	}
	if d := r.conditions.demand; d != nil { // last: whom the rest keeps out is not sent to the provider in vain
		if failed := d.unmet(s, q); failed != "" {
			return Decision{Reason: failed, Need: StepUp, Demand: d}
		}
	}
	return Decision{Allow: true, Reason: ReasonConditions}
}
