//go:build attack

package attack_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"postern/proxy/idp/idptest"
)

// decided signs a person in and returns the status of each path.
func (w *world) decided(u idptest.User, paths ...string) (statuses []int) {
	w.t.Helper()
	w.provider.AddUser(u)
	b := w.browser()
	for _, path := range paths {
		statuses = append(statuses, b.open(path).status)
	}
	return statuses
}

func TestA81_AddressesThatNobodyVouchesFor(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: `
  - {path: /domain/, upstream: {app}, access: {email_domains: [example.com]}}
  - {path: /emails/, upstream: {app}, access: {emails: [alice@example.com]}}
  - {path: /rule/, upstream: {app}, access: {rule: 'claims.email.endsWith("@example.com")'}}
  - {path: /, upstream: {app}}
`})
	for name, verified := range map[string]any{"false": false, "null": nil, "text false": "false", "1": 1, "yes": "yes", "list": []bool{true}, "TRUE": "TRUE", "absent": "absent"} {
		t.Run(name, func(t *testing.T) {
			c := map[string]any{"email": "alice@example.com", "email_verified": verified}
			if verified == "absent" {
				delete(c, "email_verified")
			}
			w := w.in(t)
			for i, status := range w.decided(idptest.User{Sub: "alice", Claims: c}, "/domain/", "/emails/", "/rule/") {
				if status != http.StatusForbidden {
					t.Errorf("route %d: %d", i, status)
				}
			}
			w.app.none(t)
			w.browser().open("/")
			if got := w.app.one(t); len(got.folded("X-Forwarded-Email")) > 0 {
				t.Errorf("the application is told %q", got.folded("X-Forwarded-Email"))
			}
		})
	}
	for _, verified := range []any{true, "true"} {
		for i, status := range w.decided(idptest.User{Sub: "alice", Claims: map[string]any{"email": "alice@example.com", "email_verified": verified}}, "/domain/", "/emails/", "/rule/") {
			if status != http.StatusOK {
				t.Errorf("route %d with email_verified %v: %d", i, verified, status)
			}
		}
	}
}

func TestA82_AddressesOfOddShape(t *testing.T) {
	attack(t)
	w := newWorld(t, settings{routes: `
  - {path: /, upstream: {app}, access: {email_domains: [corp.example]}}
`})
	for email, want := range map[string]int{
		"a@evil.example@corp.example": http.StatusForbidden, `"a@evil.example"@corp.example`: http.StatusForbidden, "a@corp.example@evil.example": http.StatusForbidden, "a@corp.example.": http.StatusForbidden,
		"a@sub.corp.example": http.StatusForbidden, "a@evilcorp.example": http.StatusForbidden, "@corp.example": http.StatusForbidden, "corp.example": http.StatusForbidden, "a@": http.StatusForbidden, "": http.StatusForbidden,
		"a@corp.example ": http.StatusForbidden, "a@corp.example\n": http.StatusForbidden, "a@cоrp.example": http.StatusForbidden, "a@corp。example": http.StatusForbidden, "a@corp.example,b@evil.example": http.StatusForbidden,
		"<a@corp.example>": http.StatusForbidden, "a@evil.example\x00@corp.example": http.StatusForbidden,
		"a@corp.example": http.StatusOK, "A+x@corp.example": http.StatusOK, "a@CORP.Example": http.StatusOK,
	} {
		t.Run(fmt.Sprintf("%q", email), func(t *testing.T) {
			w := w.in(t)
			if got := w.decided(idptest.User{Sub: "alice", Claims: map[string]any{"email": email, "email_verified": true}}, "/"); got[0] != want {
				t.Errorf("%d, want %d", got[0], want)
			}
		})
	}
}

func TestA83_GroupsOfOddShape(t *testing.T) {
	attack(t)
	at, calls := trap(t)
	w := newWorld(t, settings{routes: `
  - {path: /admins/, upstream: {app}, access: {groups: [admins]}}
  - {path: /, upstream: {app}}
`})
	var many []string
	for i := range 10_000 {
		many = append(many, fmt.Sprint("g", i))
	}
	for name, tt := range map[string]struct {
		groups any
		more   map[string]any
		want   int
	}{
		"a text": {"admins", nil, http.StatusOK}, "several in a text": {"staff,admins", nil, http.StatusForbidden}, "nested": {[]any{[]string{"admins"}}, nil, http.StatusForbidden}, "an object": {map[string]any{"admins": true}, nil, http.StatusForbidden},
		"objects": {[]any{map[string]any{"name": "admins"}}, nil, http.StatusForbidden}, "null": {nil, nil, http.StatusForbidden}, "other case": {[]string{"Admins"}, nil, http.StatusForbidden}, "with a comma": {[]string{"a,admins"}, nil, http.StatusForbidden},
		"with a line end": {[]string{"x\nadmins", "admins\r\n"}, nil, http.StatusForbidden}, "ten thousand": {many, nil, http.StatusForbidden}, "a number": {7, nil, http.StatusForbidden},
		"overage":     {nil, map[string]any{"_claim_names": map[string]any{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]any{"endpoint": at + "/groups"}}, "hasgroups": true}, http.StatusForbidden},
		"distributed": {nil, map[string]any{"_claim_names": map[string]any{"email": "s", "groups": "s"}, "_claim_sources": map[string]any{"s": map[string]any{"endpoint": at, "access_token": "x"}}}, http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.in(t)
			c := map[string]any{"email": "alice@example.com", "email_verified": true}
			if tt.groups != nil || name == "null" {
				c["groups"] = tt.groups
			}
			for k, v := range tt.more {
				c[k] = v
			}
			if got := w.decided(idptest.User{Sub: "alice", Claims: c}, "/admins/"); got[0] != tt.want && !(name == "ten thousand" && got[0] == http.StatusBadGateway) {
				t.Errorf("%d, want %d", got[0], tt.want)
			}
			w.app.forget()
			w.browser().open("/")
			for _, r := range w.app.received() {
				for _, line := range r.head() {
					if strings.HasPrefix(line, "admins") {
						t.Errorf("a group became a header: %q", r.raw)
					}
				}
				r.canonical(t)
			}
			w.app.forget()
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls to an address in a claim", n)
	}
}
