package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"postern/config"
	"postern/proxy/access"
	"postern/proxy/expr"
)

// routePrograms are what of a route is compiled.
type routePrograms struct {
	rule access.Rule
	// headers replace the default identity headers where they are not nil; response goes to the client.
	headers, response []headerValue
	assertion         *assertion
}

// claims are the provider's claims that the route reads.
func (r routePrograms) claims() []string {
	names := r.rule.Claims()
	for _, v := range slices.Concat(r.headers, r.response) {
		names = append(names, v.value.Claims()...)
	}
	return names
}

// placer says where in the file a problem is: [config.Config.Problem].
type placer func(path string, line, column int, what, mend string) config.Problem

// newCompiler compiles for the configuration that takes the place of before's; nil: none.
func newCompiler(before *Proxy) *access.Compiler {
	c := &access.Compiler{Hidden: hiddenHeader}
	if before != nil {
		c.Before = before.compiler
	}
	return c
}

// compileRoutes compiles the rules of all routes, each at its index, and tells what is wrong with them.
func compileRoutes(compiler *access.Compiler, routes []config.Route, place placer) ([]routePrograms, config.Problems) {
	var problems config.Problems
	all := make([]routePrograms, len(routes))
	for i, c := range routes {
		at := fmt.Sprintf("routes[%d]", i)
		var err error
		if all[i].rule, err = compiler.Rule(c.Access); err != nil {
			problems = append(problems, problemOf(place, at+".access", at+".access.rule", err))
		}
		values := func(key string, texts map[string]string, compile func(string) (access.Value, error)) []headerValue {
			if texts == nil {
				return nil
			}
			values := []headerValue{}
			for _, name := range slices.Sorted(maps.Keys(texts)) {
				v, err := compile(texts[name])
				if err != nil {
					path := at + "." + key + "." + name // names of headers are plain
					problems = append(problems, problemOf(place, path, path, err))
				}
				values = append(values, headerValue{http.CanonicalHeaderKey(name), v})
			}
			return values
		}
		if a := c.Assertion; a != nil {
			all[i].assertion = &assertion{http.CanonicalHeaderKey(a.Header), a.Audience}
		}
		all[i].headers = values("headers", c.Headers, compiler.RequestHeader)
		all[i].response = values("headers_response", c.HeadersResponse, compiler.ResponseHeader)
	}
	compiler.Before = nil
	return all, problems
}

// headerNames are the headers that some route sets itself. Clients may not send them on any route: the application behind two routes
// would believe them on both.
func headerNames(all []routePrograms) []string {
	names := map[string]bool{}
	for _, r := range all {
		if r.assertion != nil {
			names[r.assertion.header] = true
		}
		for _, v := range r.headers {
			if v.name != "Authorization" { // which passes where the application has credentials of its own
				names[v.name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
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
		tokens := c.Access.BearerTokens
		if c.Takes(provider) || tokens != nil && tokens.Provider == provider {
			names = append(names, all[i].claims()...)
		}
	}
	return names
}
