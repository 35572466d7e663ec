package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"postern/proxy/expr"
	"postern/session"
)

// maxCost bounds one evaluation, some milliseconds: it is paid at every request, and by whoever sends requests.
const maxCost = 100_000

// Request is what expressions see of a request.
type Request struct {
	// Method, Host (without port, in lower case) and Path (in the one form that routes are matched on).
	Method, Host, Path string
	// Header is the client's, by canonical names. Which of them may be read is decided when an expression is compiled.
	Header http.Header
	// IP is the client's address, as far as trusted proxies vouch for it.
	IP netip.Addr
	// Time is when the request came.
	Time time.Time
}

// variables are the names that every expression has.
func variables() map[string]*cel.Type {
	return map[string]*cel.Type{
		"user": cel.StringType, "email": cel.StringType, "name": cel.StringType, "preferred_username": cel.StringType,
		"groups": cel.ListType(cel.StringType),
		"claims": cel.MapType(cel.StringType, cel.DynType),

		"session.created": cel.TimestampType, "session.ends": cel.TimestampType, "session.auth_time": cel.TimestampType,
		"session.acr": cel.StringType, "session.provider": cel.StringType, "session.issuer": cel.StringType, "session.subject": cel.StringType,

		"request.method": cel.StringType, "request.host": cel.StringType, "request.path": cel.StringType,
		"request.headers": cel.MapType(cel.StringType, cel.StringType),
		"ip":              cel.StringType, "time": cel.TimestampType,
	}
}

// ofRequest are those variables that are not of the session.
func ofRequest(name string) bool {
	return strings.HasPrefix(name, "request.") || name == "ip" || name == "time"
}

// expression is a compiled expression with what it reads.
type expression struct {
	program        *expr.Program
	request        bool     // something of the request, or the time
	person         bool     // something of the session
	tokens         bool     // one of its tokens
	claims         []string // by name
	headers        []string // in lower case
	canonicalNames []string // of headers
}

// newExpression compiles text. hidden are the headers that expressions may not read. Its errors are [expr.CompileError]s.
func newExpression(l *expr.Language, known map[string]*cel.Type, text string, hidden func(header string) bool) (*expression, error) {
	program, err := l.Compile(text)
	if err != nil {
		return nil, err
	}
	e := &expression{program: program}
	for name := range known {
		switch {
		case !program.Reads(name):
		case ofRequest(name):
			e.request = true
		default:
			e.person = true
			e.tokens = e.tokens || name == "access_token" || name == "id_token"
		}
	}
	if e.claims, err = program.Members("claims"); err != nil {
		return nil, err
	}
	if e.headers, err = program.Members("request.headers"); err != nil {
		return nil, err
	}
	for _, name := range e.headers {
		if strings.ToLower(name) != name {
			return nil, &expr.CompileError{Message: fmt.Sprintf("request.headers[%q]: names of headers are in lower case here", name)}
		}
		if hidden != nil && hidden(name) {
			return nil, &expr.CompileError{Message: fmt.Sprintf("request.headers[%q]: clients must not decide by this header: use user, groups, ip, request.host or another variable", name)}
		}
		e.canonicalNames = append(e.canonicalNames, http.CanonicalHeaderKey(name))
	}
	return e, nil
}

func (e *expression) readsRequest() bool { return e != nil && e.request }

func (e *expression) claimNames() []string {
	if e == nil {
		return nil
	}
	return slices.Clone(e.claims)
}

var errNotBool = errors.New("yields neither true nor false")

// holds evaluates a rule.
func (e *expression) holds(ctx context.Context, s *session.Session, q *Request) (bool, error) {
	out, err := e.program.Eval(ctx, &scope{e: e, s: s, q: q})
	if err != nil {
		return false, err
	}
	yes, ok := out.(types.Bool)
	if !ok {
		return false, errNotBool
	}
	return bool(yes), nil
}

// scope is what an expression sees of a session and a request. What is not known is an error, except for the texts of an identity, which
// are empty then.
type scope struct {
	e *expression
	s *session.Session
	q *Request
}

// Parent implements [interpreter.Activation].
func (*scope) Parent() interpreter.Activation { return nil }

// ResolveName implements [interpreter.Activation].
func (sc *scope) ResolveName(name string) (any, bool) {
	if ofRequest(name) {
		if sc.q == nil {
			return types.NewErr("there is no request"), true
		}
		return sc.ofRequest(name)
	}
	if sc.s == nil {
		return types.NewErr("nobody is signed in"), true
	}
	s := sc.s
	switch name {
	case "user":
		return s.Identity.User, true
	case "email":
		return s.Identity.Email, true
	case "name":
		return s.Identity.Name, true
	case "preferred_username":
		return s.Identity.PreferredUsername, true
	case "groups":
		return s.Identity.Groups, true
	case "claims":
		return claimsOf(s), true
	case "session.created":
		return s.Created, true
	case "session.ends":
		return s.Ends, true
	case "session.auth_time":
		if s.AuthTime.IsZero() {
			return types.NewErr("session.auth_time is not known"), true
		}
		return s.AuthTime, true
	case "session.acr":
		return s.ACR, true
	case "session.provider":
		return s.Provider, true
	case "session.issuer":
		return s.Issuer, true
	case "session.subject":
		return s.Subject, true
	case "access_token":
		return types.String(s.Tokens.Access), true // of any length
	case "id_token":
		return types.String(s.Tokens.ID), true
	}
	return nil, false
}

func (sc *scope) ofRequest(name string) (any, bool) {
	switch q := sc.q; name {
	case "request.method":
		return q.Method, true
	case "request.host":
		return q.Host, true
	case "request.path":
		return q.Path, true
	case "request.headers":
		headers := make(map[string]any, len(sc.e.headers))
		for i, name := range sc.e.headers {
			if lines := q.Header[sc.e.canonicalNames[i]]; len(lines) > 0 {
				headers[name] = strings.Join(lines, ", ") // RFC 9110 section 5.3
			}
		}
		return headers, true
	case "ip":
		if !q.IP.IsValid() {
			return types.NewErr("the client's address is not known"), true
		}
		return q.IP.String(), true
	case "time":
		return q.Time, true
	}
	return nil, false
}

// claimsOf are the claims of a session. What the configuration takes from the provider's under a name of its own stands before a claim of
// that name.
func claimsOf(s *session.Session) map[string]any {
	if len(s.Extra) == 0 {
		return s.Claims
	}
	all := maps.Clone(s.Claims)
	if all == nil {
		all = make(map[string]any, len(s.Extra))
	}
	for name, value := range s.Extra {
		all[name] = value
	}
	return all
}
