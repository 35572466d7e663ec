package access

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"postern/proxy/expr"
	"postern/session"
)

// set is a list of which any will do. Nil is no condition; one without members is never compiled, since nobody meets it.
type set map[string]struct{}

func (s set) has(v string) bool {
	_, ok := s[v]
	return ok
}

// conditions must all hold. A nil member is none.
type conditions struct {
	groups, emails, domains, users set
	claims                         []claim
	rule                           *expression
	demand                         *Demand
}

// claim is a claim of which one value will do.
type claim struct {
	path string
	any  set
}

// failed names the first condition that s does not meet, the cheapest ones first; "" where all hold. detail says why an expression could
// not be evaluated.
func (c *conditions) failed(ctx context.Context, s *session.Session, q *Request) (name, detail string) {
	id := &s.Identity
	switch {
	case c.groups != nil && !c.inGroup(id.Groups):
		return "groups", ""
	case c.emails != nil && !c.emails.has(foldEmail(id.Email)):
		return "emails", ""
	case c.domains != nil && !c.domains.has(domainOf(id.Email)):
		return "email_domains", ""
	case c.users != nil && (id.User == "" || !c.users.has(id.User)):
		return "users", ""
	}
	for _, want := range c.claims {
		if !want.holds(s) {
			return "claims", want.path
		}
	}
	if c.rule == nil {
		return "", ""
	}
	holds, err := c.rule.holds(ctx, s, q)
	switch {
	case err != nil:
		return "rule", err.Error()
	case !holds:
		return "rule", ""
	}
	return "", ""
}

// inGroup compares exactly: a group is not a word.
func (c *conditions) inGroup(groups []string) bool {
	for _, g := range groups {
		if c.groups.has(g) {
			return true
		}
	}
	return false
}

// foldEmail is an address with ASCII letters in lower case, "" where it is none: exactly one "@" with something on both sides. Other
// letters are left alone, since folding them would make one address of two ("K", the sign of Kelvin, is no "k").
func foldEmail(email string) string {
	local, domain, _ := strings.Cut(email, "@")
	if local == "" || domain == "" || strings.Contains(domain, "@") {
		return ""
	}
	return foldASCII(email)
}

// domainOf is what stands behind the one "@" of an address (A82), "" where there is no such thing.
func domainOf(email string) string {
	_, domain, _ := strings.Cut(foldEmail(email), "@")
	return domain
}

func foldASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for i, c := range b {
				if 'A' <= c && c <= 'Z' {
					b[i] = c | 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

// holds tells whether one of the claim's values is listed.
func (c *claim) holds(s *session.Session) bool {
	v := any(nil)
	if text, ok := s.Extra[c.path]; ok {
		v = text
	} else {
		v = expr.Lookup(s.Claims, c.path)
	}
	list, ok := v.([]any)
	if !ok {
		return c.is(v)
	}
	for _, e := range list {
		if c.is(e) {
			return true
		}
	}
	return false
}

// is tells whether one value is listed. Objects and lists are no values.
func (c *claim) is(v any) bool {
	text, ok := textOf(v)
	return ok && text != "" && c.any.has(text)
}

// textOf writes a text, a number or a truth as a file would.
func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		if s := v.String(); !strings.ContainsAny(s, ".eE") {
			return s, true
		}
		f, err := v.Float64()
		switch {
		case err != nil:
			return "", false
		case f == math.Trunc(f) && math.Abs(f) < 1<<53: // 3 and 3.0 are one number in JSON
			return strconv.FormatInt(int64(f), 10), true
		}
		return strconv.FormatFloat(f, 'g', -1, 64), true
	}
	return "", false
}

// firstNames are the names with which a path can begin: a.b.c is the claim a, or a.b, or all of it.
func firstNames(path string) []string {
	names := []string{path}
	for i := strings.LastIndexByte(path, '.'); i > 0; i = strings.LastIndexByte(path[:i], '.') {
		names = append(names, path[:i])
	}
	return names
}
