package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"postern/config"
	"postern/proxy/access"
	"postern/proxy/expr"
)

// routePrograms are what of a route is compiled.
type routePrograms struct {
	rule access.Rule
}

// claims are the provider's claims that the route reads.
func (r routePrograms) claims() []string {
	return r.rule.Claims()
}

// placer says where in the file a problem is: [config.Config.Problem].
type placer func(path string, line, column int, what, mend string) config.Problem

// compileRoutes compiles the rules of all routes, each at its index, and tells what is wrong with them.
func compileRoutes(routes []config.Route, place placer) ([]routePrograms, config.Problems) {
	compiler := access.Compiler{Hidden: hiddenHeader}
	var problems config.Problems
	all := make([]routePrograms, len(routes))
	for i, c := range routes {
		at := fmt.Sprintf("routes[%d]", i)
		var err error
		if all[i].rule, err = compiler.Rule(c.Access); err != nil {
			problems = append(problems, problemOf(place, at+".access", at+".access.rule", err))
		}
	}
	return all, problems
}

// problemOf places an error at a path: what is wrong with an expression at that of the expression.
func problemOf(place placer, path, expression string, err error) config.Problem {
	if bad, ok := errors.AsType[*expr.CompileError](err); ok {
		return place(expression, bad.Line, bad.Column, bad.Message, "Mend the expression; README lists the names and functions that it has")
	}
	return place(path, 0, 0, strings.TrimPrefix(err.Error(), "access: "), "")
}

// hiddenHeader tells the request headers that expressions do not see: those that an application does not see either, since clients make
// them up, and cookies, ours among them.
func hiddenHeader(name string) bool { return name == "cookie" || claims(name) }

// keptClaims are the claims of a provider that its routes read: its sessions keep them.
func keptClaims(routes []config.Route, all []routePrograms, provider string) []string {
	var names []string
	for i, c := range routes {
		if len(c.Provider) == 0 || slices.Contains(c.Provider, provider) {
			names = append(names, all[i].claims()...)
		}
	}
	return names
}
