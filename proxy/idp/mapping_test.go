package idp

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// object parses claims as they come from a provider.
func object(t testing.TB, text string) claims {
	t.Helper()
	c, err := parseObject([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c
}

// rules compiles a mapping that must be right.
func rules(t testing.TB, claims map[string]string) mapping {
	t.Helper()
	m, err := newMapping(claims)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// github is what its three addresses answer, in short.
const github = `{
	"login": "octocat", "id": 583231, "email": null, "name": "The Octocat",
	"emails": [
		{"email": "old@example.com", "primary": false, "verified": true},
		{"email": "octo@example.com", "primary": true, "verified": true}],
	"teams": [
		{"slug": "core", "organization": {"login": "corp"}},
		{"slug": "ops", "organization": {"login": "corp"}},
		{"slug": null}, 7, [{"slug": "nested"}]]}`

func TestRules(t *testing.T) {
	tests := []struct {
		name, claims, rule string
		want               any // nil: nothing
	}{
		{"plain", `{"a":"x"}`, `a`, "x"},
		{"missing", `{"a":"x"}`, `b`, nil},
		{"null", `{"a":null}`, `a`, nil},
		{"nested", `{"a":{"b":{"c":"x"}}}`, `a.b.c`, "x"},
		{"nested in nothing", `{"a":"x"}`, `a.b`, nil},
		{"a list in an object", `{"realm_access":{"roles":["r1","r2"]}}`, `realm_access.roles`, []any{"r1", "r2"}},
		{"through a list of objects", github, `teams.slug`, []any{"core", "ops"}},
		{"deeper through a list", github, `teams.organization.login`, []any{"corp", "corp"}},
		{"lists in a list of objects", `{"a":[{"b":["x","y"]},{"b":"z"},{"c":1}]}`, `a.b`, []any{"x", "y", "z"}},
		{"nowhere in a list", `{"a":[{"c":1}]}`, `a.b`, nil},
		{"a whole list", `{"a":["x"]}`, `a`, []any{"x"}},
		{"a URL as a name", `{"https://example.com/groups":["g"]}`, `https://example.com/groups`, []any{"g"}},
		{"a URL and below", `{"https://example.com/app":{"roles":["g"]}}`, `https://example.com/app.roles`, []any{"g"}},
		{"a name with dots comes first", `{"a.b":"exact","a":{"b":"nested"}}`, `a.b`, "exact"},
		{"the longest name counts", `{"a":{"b.c":{"d":"long"},"b":{"c":{"d":"short"}}}}`, `a.b.c.d`, "long"},
		{"a client's name with dots", `{"resource_access":{"my.app":{"roles":["r"]}}}`, `resource_access.my.app.roles`, []any{"r"}},
		{"a null with dots is not there", `{"a.b":null,"a":{"b":"nested"}}`, `a.b`, "nested"},
		{"claims is everything", `{"a":{"b":"x"}}`, `claims.a.b`, "x"},
		{"a claim named claims", `{"claims":{"a":"x"}}`, `claims.claims.a`, "x"},
		{"colons", `{"cognito:groups":["g"]}`, `cognito:groups`, []any{"g"}},
		{"a dash is no minus", `{"a-b":"x"}`, `a-b`, "x"},
		{"a big number keeps its digits", `{"id":12345678901234567890123}`, `id`, json.Number("12345678901234567890123")},

		{"CEL: the issue's example", github, `emails.filter(e, e.primary && e.verified)[0].email`, "octo@example.com"},
		{"CEL: an index", github, `emails[0].email`, "old@example.com"},
		{"CEL: a number", github, `id + 1`, json.Number("583232")},
		{"CEL: has", `{"b":"y"}`, `has(claims.a) ? claims.a : claims.b`, "y"},
		{"CEL: or else", `{"b":"y"}`, `claims.?a.orValue(b)`, "y"},
		{"CEL: optional that is there", `{"a":"x"}`, `claims.?a`, "x"},
		{"CEL: optional that is not", `{}`, `claims.?a`, nil},
		{"CEL: any name", `{"a b":"x"}`, `claims["a b"]`, "x"},
		{"CEL: keys of an object", `{"urn:roles":{"admin":{"1":"x"}}}`, `claims["urn:roles"].map(k, k)`, []any{"admin"}},
		{"CEL: a list and a text", `{"g":["a"],"r":"b"}`, `g + [r]`, []any{"a", "b"}},
		{"CEL: lists within a list name nothing", `{"g":["a",["b"],{"c":1},null]}`, `g + []`, []any{"a", false, false, nil}},
		{"CEL: strings", `{"upn":"Alice@CORP"}`, `upn.lowerAscii().split("@")[0]`, "alice"},
		{"CEL: join", `{"g":["a","b"]}`, `g.join(",")`, "a,b"},
		{"CEL: a big number keeps its digits", `{"id":12345678901234567890123}`, `first(id, "")`, "12345678901234567890123"},
		{"CEL: an unsigned number", `{"id":18446744073709551615}`, `first(id, "")`, json.Number("18446744073709551615")},
		{"CEL: a fraction", `{"id":1.5}`, `first(id, "")`, json.Number("1.5")},
		{"CEL: a claim named like a type", `{"type":"x","string":"y"}`, `claims.type + claims.string`, "xy"},
		{"CEL: a claim named like a local name", `{"e":"x","l":["y"]}`, `l.map(e, e + "!")[0] + e`, "y!x"},
		{"CEL: no claims named claims", `{"claims":"x","a":"y"}`, `claims.a + claims.claims`, "yx"},
		{"CEL: over lines", `{"a":"x"}`, "has(claims.a) ?\n  claims.a :\n  \"none\"", "x"},

		{"first: the first", `{"a":"x","b":"y"}`, `first(a, b)`, "x"},
		{"first: missing", `{"b":"y"}`, `first(a, b)`, "y"},
		{"first: null", `{"a":null,"b":"y"}`, `first(a, b)`, "y"},
		{"first: empty", `{"a":"","b":"y"}`, `first(a, b)`, "y"},
		{"first: fails", `{"a":[],"b":"y"}`, `first(a[0].x, b)`, "y"},
		{"first: optional", `{"b":"y"}`, `first(claims.?a.c, claims.?b)`, "y"},
		{"first: a list, also an empty one", `{"a":[],"b":["y"]}`, `first(a, b)`, []any(nil)},
		{"first: none", `{}`, `first(a, b, c, d, e, f, g, h)`, nil},
		{"first: the eighth", `{"h":"x"}`, `first(a, b, c, d, e, f, g, h)`, "x"},
		{"first: the third", `{"c":"x"}`, `first(a, b, c)`, "x"},
		{"first: within", `{"c":"x"}`, `first(first(a, b), c) + "!"`, "x!"},
		{"CEL's own first", `{"a":["x"]}`, `a.first()`, "x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rules(t, map[string]string{"groups": tt.rule}).groups.value(t.Context(), object(t, tt.claims))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.rule, diff)
			}
		})
	}
}

// TestRulesThatFail: errors are told apart, and hold nothing of what was computed with.
func TestRulesThatFail(t *testing.T) {
	tests := []struct{ name, claims, rule, why string }{
		{"a missing claim", `{}`, `a + "x"`, "missing"},
		{"an index too far", github, `emails[7].email`, "missing"},
		{"another type", `{"a":{"hush":"hush"}}`, `a + "x"`, "another type"},
		{"a conversion", `{"a":"hush"}`, `string(int(a))`, "another type"},
		{"an object", `{"a":{"hush":1}}`, `a.b`, ""},
		{"an object as it is", `{"a":{"b":{}}}`, `claims["a"]`, "neither a text nor a list"},
		{"bytes", `{"a":"x"}`, `first(b"hush", a)`, "neither a text nor a list"},
		{"not a number", `{"a":0.0}`, `first(a/a, 1.0)`, "neither a text nor a list"},
		{"a time", `{"a":"2020-01-01T00:00:00Z"}`, `first(timestamp(a), "")`, "neither a text nor a list"},
		{"too much work", `{"l":` + bigList(200) + `}`, `l.all(a, l.all(b, l.all(c, a + b + c >= 0))) ? "x" : ""`, "costs too much"},
		{"too much work without a cost", `{"l":` + bigList(4000) + `}`, `first(l.map(a, l + l + l + l).map(a, a == a)[0] ? "x" : "", "y")`, "costs too much"},
		{"first does not hide that", `{"l":` + bigList(200) + `,"a":"x"}`, `first(l.all(a, l.all(b, l.all(c, a + b + c >= 0))) ? "x" : "", "y")`, "costs too much"},
		{"strings that grow", `{"a":"` + strings.Repeat("hush", 1000) + `"}`, `a.replace("", a).replace("", a).replace("", a)`, "costs too much"},
		{"a string too long to name anything", `{"a":"` + strings.Repeat("hush", 1100) + `"}`, `a.replace("", a)`, "another type"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rules(t, map[string]string{"extra": tt.rule}).extra[0]
			begun := time.Now()
			v, err := r.value(t.Context(), object(t, tt.claims))
			if tt.why == "" {
				if v != nil || err != nil {
					t.Errorf("got %v, %v", v, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.why) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %v, %v, want an error of %q", v, err, tt.why)
			}
			if d := time.Since(begun); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

func bigList(n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]"
}

// TestNewMappingRefuses: what cannot work is said before anybody signs in, all of it, each with its key.
func TestNewMappingRefuses(t *testing.T) {
	many := map[string]string{}
	for i := range 17 {
		many[fmt.Sprintf("claim%d", i)] = "a"
	}
	tests := []struct {
		name   string
		claims map[string]string
		words  []string
	}{
		{"empty", map[string]string{"user": ""}, []string{"claims.user", "empty"}},
		{"space", map[string]string{"user": " \n"}, []string{"claims.user", "empty"}},
		{"path with a hole", map[string]string{"user": "a..b"}, []string{"claims.user", "path"}},
		{"path that begins with a dot", map[string]string{"user": ".a"}, []string{"claims.user", "path"}},
		{"path too long", map[string]string{"user": strings.Repeat("a", 300)}, []string{"claims.user", "path"}},
		{"or is no operator for texts", map[string]string{"user": "a || b"}, []string{"claims.user", "yields a bool"}},
		{"syntax", map[string]string{"user": "emails["}, []string{"claims.user", "line 1, column"}},
		{"unknown function", map[string]string{"user": "fetch(a)"}, []string{"claims.user", "column 6", "fetch"}},
		{"unknown method", map[string]string{"user": "a.readFile()"}, []string{"claims.user", "readFile"}},
		{"type", map[string]string{"user": `"a" + 1`}, []string{"claims.user", "line 1, column"}},
		{"user is a list", map[string]string{"user": `["a"]`}, []string{"claims.user", "yields a list"}},
		{"e-mail is true or false", map[string]string{"email": `emails.exists(e, e.primary)`}, []string{"claims.email", "yields a bool"}},
		{"groups is an object", map[string]string{"groups": `{"a": 1}`}, []string{"claims.groups", "yields a map"}},
		{"an optional object", map[string]string{"user": `optional.of({"a": 1})`}, []string{"claims.user", "yields a"}},
		{"first with one", map[string]string{"user": `first(a)`}, []string{"claims.user", "first"}},
		{"first with nine", map[string]string{"user": `first(a,a,a,a,a,a,a,a,a)`}, []string{"claims.user", "first"}},
		{"too long", map[string]string{"user": `a + "` + strings.Repeat("x", 5000) + `"`}, []string{"claims.user", "size"}},
		{"too deep", map[string]string{"user": strings.Repeat("(", 500) + "a" + strings.Repeat(")", 500)}, []string{"claims.user"}},
		{"sub", map[string]string{"sub": "id"}, []string{"claims.sub", "user"}},
		{"email_verified", map[string]string{"email_verified": "verified"}, []string{"claims.email_verified", "email:"}},
		{"name with a line break", map[string]string{"x\ny": "a"}, []string{"not a name"}},
		{"too many", many, []string{"more than 16"}},
		{"all at once", map[string]string{"user": "a b", "email": "("}, []string{"claims.user", "claims.email"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newMapping(tt.claims)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not speak of %q", err, w)
				}
			}
		})
	}
}

// TestText: the same number is the same name, however it is written.
func TestText(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
		ok   bool
	}{
		{"x", "x", true},
		{json.Number("583231"), "583231", true},
		{json.Number("583231.0"), "583231", true},
		{json.Number("5.83231e5"), "583231", true},
		{json.Number("12345678.0"), "12345678", true},
		{json.Number("1.5e300"), "1.5e+300", true},
		{json.Number("-7"), "-7", true},
		{json.Number("1.25"), "1.25", true},
		{json.Number("12345678901234567890"), "12345678901234567890", true},
		{json.Number("1e999"), "", false},
		{true, "", false},
		{nil, "", false},
		{[]any{"x"}, "", false},
		{map[string]any{"x": 1}, "", false},
	} {
		if got, ok := text(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("%v: got %q, %v, want %q, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzRulesNeverPanic: whatever a provider says and an operator writes, a rule yields a value, nothing or an error, in bounded time.
func FuzzRulesNeverPanic(f *testing.F) {
	for _, rule := range []string{
		"a", "a.b", "https://x/y.z", "first(a, b)", "claims.?a.orValue('x')", "a.map(x, x.b)", "a + [b]", "a[0].b", "a.join(',')", "a.matches(b)",
		"a.filter(e, e.primary && e.verified)[0].email", "string(a)", "a.format([b])", "a.split(b)", "claims.map(k, k)", "..", "claims.claims", "[[a]]", "{a: b}.x",
	} {
		for _, c := range []string{
			`{}`, `{"a":{"b":["x",1,null,{"c":[]}]},"b":"y"}`, `{"a":[{"b":1e999},{"b":"\u0000"},[[]]],"b":1.5}`, `{"a.b":true,"claims":{}}`, github,
		} {
			f.Add(rule, []byte(c))
		}
	}
	f.Fuzz(func(t *testing.T, rule string, body []byte) {
		c, err := parseObject(body)
		if err != nil || len(body) > 1<<16 {
			return
		}
		m, err := newMapping(map[string]string{"user": rule, "email": rule, "groups": rule, "picture": rule})
		if err != nil {
			return
		}
		p := &Provider{mapping: m, log: discard(), assumeEmail: true}
		w, absent, err := p.describe(t.Context(), c, "")
		if err != nil {
			return
		}
		if (w.User == "") == (absent == "") {
			t.Errorf("user %q, and it is absent because %q", w.User, absent)
		}
		all := append([]string{w.User, w.Email, w.extra["picture"]}, w.Groups...)
		for _, s := range all {
			if strings.ContainsFunc(s, unicode.IsControl) || len(s) > maxClaim {
				t.Errorf("%q cannot be in a header", s)
			}
		}
	})
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
