package access_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

// mustRule compiles a rule that must be right.
func mustRule(t testing.TB, a config.Access) access.Rule {
	t.Helper()
	rule, err := compile(a)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func withEmail(email string) *session.Session {
	return &session.Session{Grant: session.Grant{Identity: session.Identity{User: "u", Email: email}}}
}

// A82: the domain is what stands behind the one @, nothing else.
func TestA82_EmailDomainsAreExact(t *testing.T) {
	rule := mustRule(t, config.Access{EmailDomains: []string{"corp.example.com"}})
	for email, want := range map[string]bool{
		"a@corp.example.com":               true,
		"a+tag@corp.example.com":           true,
		"A@CORP.Example.com":               true,
		"a@sub.corp.example.com":           false,
		"a@evilcorp.example.com":           false,
		"a@corp.example.com.evil.com":      false,
		"a@corp.example.com.":              false,
		"a@evil.com@corp.example.com":      false,
		`"a@evil.com"@corp.example.com`:    false,
		"@corp.example.com":                false,
		"a@":                               false,
		"corp.example.com":                 false,
		"a@corp.example.com ":              false,
		"a@\u212Aorp.example.com":          false, // the sign of Kelvin folds to k elsewhere
		"a@corp.ex\u0430mple.com":          false, // Cyrillic
		"a@corp.example.com\nX: y":         false,
		"":                                 false,
		"a@xn--corp-example-com.evil.test": false,
	} {
		d := rule.Decide(t.Context(), withEmail(email), nil)
		if d.Allow != want || !want && d.Reason != "email_domains" {
			t.Errorf("%q: %+v, want %v", email, d, want)
		}
	}
}

func TestA82_EmailsAreWholeAddresses(t *testing.T) {
	rule := mustRule(t, config.Access{Emails: []string{"Alice@Example.com"}})
	for email, want := range map[string]bool{
		"alice@example.com": true, "ALICE@example.COM": true, "alice@example.com.": false, "malice@example.com": false, "alice@example.co": false,
		"alice@x@example.com": false, "alice+a@example.com": false, "": false, "a\u0142ice@example.com": false,
	} {
		if d := rule.Decide(t.Context(), withEmail(email), nil); d.Allow != want || !want && d.Reason != "emails" {
			t.Errorf("%q: %+v, want %v", email, d, want)
		}
	}
}

func TestUsersAreExact(t *testing.T) {
	rule := mustRule(t, config.Access{Users: []string{"alice", "bob"}})
	for user, want := range map[string]bool{"alice": true, "bob": true, "Alice": false, "alice ": false, "": false, "al": false} {
		d := rule.Decide(t.Context(), &session.Session{Grant: session.Grant{Identity: session.Identity{User: user}}}, nil)
		if d.Allow != want || !want && d.Reason != "users" {
			t.Errorf("%q: %+v, want %v", user, d, want)
		}
	}
}

// claimsFrom parses claims as a session has them.
func claimsFrom(t testing.TB, text string) map[string]any {
	t.Helper()
	var c map[string]any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func withClaims(t testing.TB, text string) *session.Session {
	return &session.Session{Grant: session.Grant{Identity: session.Identity{User: "u"}, Claims: claimsFrom(t, text)}}
}

// A83: texts, numbers and lists of them are compared as what they are; nothing is split or searched in.
func TestA83_ClaimsOfEveryShape(t *testing.T) {
	for _, tt := range []struct {
		path, claims string
		want         bool
	}{
		{"role", `{"role":"admin"}`, true},
		{"role", `{"role":["x","admin"]}`, true},
		{"role", `{"role":"admin,x"}`, false},
		{"role", `{"role":"administrator"}`, false},
		{"role", `{"role":{"admin":true}}`, false},
		{"role", `{"role":[["admin"]]}`, false},
		{"role", `{"role":null}`, false},
		{"role", `{}`, false},
		{"realm_access.roles", `{"realm_access":{"roles":["admin"]}}`, true},
		{"realm_access.roles", `{"realm_access.roles":["admin"]}`, true},
		{"realm_access.roles", `{"realm_access":["admin"]}`, false},
		{"teams.slug", `{"teams":[{"slug":"x"},{"slug":"admin"}]}`, true},
		{"https://example.com/groups", `{"https://example.com/groups":["admin"]}`, true},
	} {
		rule := mustRule(t, config.Access{Claims: map[string][]string{tt.path: {"admin", "3"}}})
		d := rule.Decide(t.Context(), withClaims(t, tt.claims), nil)
		if d.Allow != tt.want || !tt.want && (d.Reason != "claims" || d.Detail != tt.path) {
			t.Errorf("%s of %s: %+v, want %v", tt.path, tt.claims, d, tt.want)
		}
	}
	three := mustRule(t, config.Access{Claims: map[string][]string{"level": {"3", "true"}}})
	for text, want := range map[string]bool{`3`: true, `3.0`: true, `"3"`: true, `3.5`: false, `true`: true, `[1,3]`: true, `33`: false, `1e999`: false} {
		if d := three.Decide(t.Context(), withClaims(t, `{"level":`+text+`}`), nil); d.Allow != want {
			t.Errorf("level %s: %+v, want %v", text, d, want)
		}
	}
	mapped := withClaims(t, `{"level":"1"}`)
	mapped.Extra = map[string]string{"level": "3"}
	if d := three.Decide(t.Context(), mapped, nil); !d.Allow {
		t.Errorf("what the configuration calls level does not stand before the provider's: %+v", d)
	}
}

func TestEveryConditionMustHold(t *testing.T) {
	s := withClaims(t, `{"level":3}`)
	s.Identity = session.Identity{User: "alice", Email: "alice@example.com", Groups: []string{"erp"}}
	all := func() config.Access {
		return config.Access{
			SignedIn: true, Groups: []string{"erp"}, Emails: []string{"alice@example.com"}, EmailDomains: []string{"example.com"},
			Users: []string{"alice"}, Claims: map[string][]string{"level": {"3"}}, Rule: `claims.level >= 3 && user == "alice"`,
		}
	}
	if d := mustRule(t, all()).Decide(t.Context(), s, nil); d != (access.Decision{Allow: true, Reason: "conditions"}) {
		t.Fatalf("all hold: %+v", d)
	}
	for reason, change := range map[string]func(*config.Access){
		"groups":        func(a *config.Access) { a.Groups = []string{"x"} },
		"emails":        func(a *config.Access) { a.Emails = []string{"x@example.com"} },
		"email_domains": func(a *config.Access) { a.EmailDomains = []string{"example.org"} },
		"users":         func(a *config.Access) { a.Users = []string{"x"} },
		"claims":        func(a *config.Access) { a.Claims = map[string][]string{"level": {"4"}} },
		"rule":          func(a *config.Access) { a.Rule = "claims.level > 3" },
	} {
		a := all()
		change(&a)
		if d := mustRule(t, a).Decide(t.Context(), s, nil); d.Allow || d.Reason != reason {
			t.Errorf("without %s: %+v", reason, d)
		}
		if d := mustRule(t, a).Decide(t.Context(), nil, nil); d.Need != access.SignIn {
			t.Errorf("%s: nobody is not asked to sign in: %+v", reason, d)
		}
	}
	for name, a := range map[string]config.Access{
		"groups": {Groups: []string{}}, "emails": {Emails: []string{}}, "email_domains": {EmailDomains: []string{}}, "users": {Users: []string{}},
		"claims": {Claims: map[string][]string{}}, "a claim": {Claims: map[string][]string{"level": {}}},
		"one of two": {Groups: []string{"erp"}, Users: []string{}},
	} {
		if d := mustRule(t, a).Decide(t.Context(), s, nil); d != (access.Decision{Reason: "denied"}) {
			t.Errorf("an empty list (%s): %+v", name, d)
		}
	}
}

// asked is a request for rules to look at.
func asked() *access.Request {
	return &access.Request{
		Method: "GET", Host: "erp.example.com", Path: "/orders", IP: netip.MustParseAddr("10.1.2.3"),
		Time:   time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC),
		Header: http.Header{"X-Tenant": {"blue", "green"}, "X-Long": {strings.Repeat("a", 5000)}},
	}
}

func TestRules(t *testing.T) {
	s := withClaims(t, `{"level":3,"admin":true,"realm_access":{"roles":["r1"]},"https://x/y":"z","long":"`+strings.Repeat("a", 5000)+`"}`)
	s.Identity = session.Identity{User: "alice", Email: "alice@example.com", Name: "Alice", PreferredUsername: "al", Groups: []string{"erp", "staff"}}
	s.Provider, s.Issuer, s.Subject, s.ACR = "corp", "https://id.example.com", "sub-1", "mfa"
	s.Created = time.Date(2026, 11, 21, 21, 0, 0, 0, time.UTC)
	s.Ends = s.Created.Add(10 * time.Hour)
	for _, tt := range []struct {
		rule string
		want string // the detail of a denial; "no" for one without, "" for none
	}{
		{`claims.level >= 3 || request.method == "GET"`, ""},
		{`claims.level >= 4`, "no"},
		{`claims.admin`, ""},
		{`claims.level`, "yields neither true nor false"},
		{`claims.missing >= 3`, "no such key: missing"},
		{`claims.missing >= 3 || true`, ""},
		{`has(claims.missing) && claims.missing == 1`, "no"},
		{`claims.?missing.orValue(0) == 0`, ""},
		{`"missing" in claims`, "no"},
		{`"r1" in claims.realm_access.roles`, ""},
		{`claims["https://x/y"] == "z"`, ""},
		{`claims.long == "a"`, "a string of more than 4096 bytes"},
		{`user == "alice" && email.endsWith("@example.com") && name == "Alice" && preferred_username == "al"`, ""},
		{`groups.exists(g, g == "erp") && "staff" in groups && size(groups) == 2`, ""},
		{`session.provider == "corp" && session.acr == "mfa" && session.issuer != "" && session.subject == "sub-1"`, ""},
		{`time - session.created < duration("2h") && session.ends > time`, ""},
		{`session.auth_time < time`, "session.auth_time is not known"},
		{`request.host == "erp.example.com" && request.path.startsWith("/orders")`, ""},
		{`request.headers["x-tenant"] == "blue, green"`, ""},
		{`request.headers["x-other"] == "blue"`, "no such key: x-other"},
		{`request.headers["x-long"] == "blue"`, "a string of more than 4096 bytes"},
		{`!("x-long" in request.headers)`, "no"},
		{`ip == "10.1.2.3" && cidr("10.0.0.0/8").containsIP(ip)`, ""},
		{`cidr("192.168.0.0/16").containsIP(ip)`, "no"},
		{`time.getHours("UTC") < 6`, "no"},
		{`first(claims.a, claims.b, user) == "alice"`, ""},
	} {
		rule := mustRule(t, config.Access{Rule: tt.rule})
		d := rule.Decide(t.Context(), s, asked())
		want := access.Decision{Allow: true, Reason: "conditions"}
		switch tt.want {
		case "":
		case "no":
			want = access.Decision{Reason: "rule"}
		default:
			want = access.Decision{Reason: "rule", Detail: tt.want}
		}
		if d != want {
			t.Errorf("%s: %+v, want %+v", tt.rule, d, want)
		}
	}
}

// The request log names nobody (A115): what a rule could not make sense of is not quoted in it.
func TestRuleErrorsQuoteNoValues(t *testing.T) {
	const canary = `can"ary@example.com` + "`x`" // as the library quotes it, and as it could break out of that
	s := withClaims(t, `{"level":"can\"ary`+"`x`"+`","list":["a"],"map":{}}`)
	s.Identity = session.Identity{User: canary, Email: canary, Groups: []string{canary}}
	q := asked()
	q.Header = http.Header{"X-Key": {canary}}
	for _, text := range []string{
		`int(claims.level) > 3`, `uint(claims.level) > 3u`, `double(user) > 3.0`, `bool(request.headers["x-key"])`, `duration(user) > duration("1s")`, `timestamp(user) > time`,
		`ip(request.headers["x-key"]).isLoopback()`, `cidr(user).containsIP(ip)`, `"x".matches("[" + user)`, `claims.map[user] == 1`, `claims.list[int(user)] == ""`,
		`{user: 1}[groups[0] + "x"] == 1`, `user.charAt(99) == ""`, `user.charAt(99) == "x" || user.replace("a", "b", int(user)) == ""`, `user.split(user, 1)[3] == ""`, `strings.quote(user) == user.substring(77)`, `user.substring(99) == ""`, `claims.map[request.headers["x-key"]].x == 1`,
		`optional.none().value() == user`, `groups[7] == ""`, `claims.level.x == 1`, `dyn(user) + 1 == 2`,
	} {
		d := mustRule(t, config.Access{Rule: text}).Decide(t.Context(), s, q)
		if d.Allow || strings.Contains(d.Detail, "can") || strings.Contains(d.Detail, "ary") {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

// Without a request, a rule that looks at one denies.
func TestRuleWithoutRequestDenies(t *testing.T) {
	for _, text := range []string{`request.method == "GET"`, `ip == ""`, `time > timestamp("2020-01-01T00:00:00Z")`, `!(ip == "1.1.1.1")`} {
		rule := mustRule(t, config.Access{Rule: text})
		if d := rule.Decide(t.Context(), alice.session, nil); d.Allow || !rule.ReadsRequest() {
			t.Errorf("%s: %+v", text, d)
		}
	}
	unknown := asked()
	unknown.IP = netip.Addr{}
	if d := mustRule(t, config.Access{Rule: `ip != "10.0.0.1"`}).Decide(t.Context(), alice.session, unknown); d.Allow {
		t.Errorf("an address that is not known: %+v", d)
	}
	for _, a := range []config.Access{{Rule: `user == "alice"`}, {Groups: []string{"x"}}, {}} {
		if mustRule(t, a).ReadsRequest() {
			t.Errorf("%+v reads no request", a)
		}
	}
}

// What an evaluation may cost is bounded, whatever a session or a request holds.
func TestRuleCostIsBounded(t *testing.T) {
	s := &session.Session{}
	for range 10_000 {
		s.Identity.Groups = append(s.Identity.Groups, strings.Repeat("g", 20))
	}
	rule := mustRule(t, config.Access{Rule: `groups.all(a, groups.all(b, groups.all(c, a == c)))`})
	began := time.Now()
	d := rule.Decide(t.Context(), s, nil)
	if d.Allow || d.Detail != "the expression costs too much" {
		t.Errorf("%+v", d)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if d := mustRule(t, config.Access{Rule: `groups.exists(g, g.startsWith("h")) || "x" in groups`}).Decide(t.Context(), s, nil); d.Detail != "" {
		t.Errorf("10,000 groups are too many for a plain rule: %+v", d)
	}
}

// Of thousands of routes many say the same, and a changed file says mostly what it said before.
func TestWhatIsKnownIsNotCompiledAgain(t *testing.T) {
	const known = `"staff" in groups && user != "bob"`
	var before access.Compiler
	allocs := func(new func() *access.Compiler) int {
		return int(testing.AllocsPerRun(3, func() {
			rule, err := new().Rule(config.Access{Rule: known})
			if err != nil || !rule.Decide(t.Context(), alice.session, nil).Allow {
				t.Error("the rule does not let alice in", err)
			}
		}))
	}
	again := allocs(func() *access.Compiler { return &before })
	if after := allocs(func() *access.Compiler { return &access.Compiler{Before: &before} }); after > again+10 {
		t.Errorf("the next configuration: %d allocations, a second route of this one: %d", after, again)
	}
	if first := allocs(func() *access.Compiler { return &access.Compiler{} }); first < again+1000 {
		t.Errorf("the first route: %d allocations, a second: %d", first, again)
	}
	// Names belong to one kind of expression.
	if _, err := before.RequestHeader(`access_token`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*access.Compiler{&before, {Before: &before}} {
		if _, err := c.ResponseHeader(`access_token`); err == nil {
			t.Error("a response's header reads the access token")
		}
	}
}

func TestRulesThatDoNotCompile(t *testing.T) {
	hides := access.Compiler{Hidden: func(name string) bool { return name == "cookie" }}
	for text, want := range map[string]string{
		`usr == "x"`:                             "line 1, column 1: undeclared reference to 'usr'",
		"user == \"x\" &&\n  email = \"y\"":      "line 2, column 9: Syntax error",
		`user`:                                   "yields a string: a rule is true or false",
		`user == 3`:                              "line 1, column 6: found no matching overload",
		`request.metod == "GET"`:                 "undeclared reference",
		`request.headers["X-Tenant"] == "x"`:     "in lower case",
		`request.headers["cookie"] == "x"`:       "must not decide by this header",
		`request.headers.cookie == "x"`:          "must not decide by this header",
		`request.headers.exists(h, h == "x")`:    "uses request.headers as a whole",
		`request.headers[user] == "x"`:           "uses request.headers as a whole",
		`claims.exists(c, c == "x")`:             "uses claims as a whole",
		`claims == {"a": 1}`:                     "uses claims as a whole",
		`claims[user] == "x"`:                    "uses claims as a whole",
		`access_token == "x"`:                    "undeclared reference to 'access_token'",
		`basic("a", "b") == "x"`:                 "undeclared reference to 'basic'",
		`"` + strings.Repeat("a", 5000) + `"==1`: "",
	} {
		rule, err := hides.Rule(config.Access{Rule: text})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
		if rule.Decide(t.Context(), alice.session, nil).Allow {
			t.Errorf("%.60s: the rule beside the error allows", text)
		}
	}
}

// What a session must keep is exactly what rules read.
func TestRuleTellsItsClaims(t *testing.T) {
	rule := mustRule(t, config.Access{
		Claims: map[string][]string{"a.b.c": {"x"}},
		Rule:   `claims.d.e == "x" && claims["f g"] == 1 && has(claims.h) && claims.?i.j.hasValue() && "k" in claims && claims[?"l"].hasValue()`,
	})
	got := strings.Join(rule.Claims(), " ")
	for _, name := range []string{"a", "a.b", "a.b.c", "d", "f g", "h", "i", "k", "l"} {
		if !strings.Contains(" "+got+" ", " "+name+" ") {
			t.Errorf("%q is not among %s", name, got)
		}
	}
	if n := len(rule.Claims()); n != 9 {
		t.Errorf("%d names: %s", n, got)
	}
}

func TestGroupsAreDecidedWithoutAllocation(t *testing.T) {
	rule := mustRule(t, config.Access{Groups: []string{"staff"}, EmailDomains: []string{"example.com"}})
	s := &session.Session{Grant: session.Grant{Identity: session.Identity{Email: "a@example.com", Groups: []string{"a", "staff"}}}}
	if n := testing.AllocsPerRun(100, func() {
		if !rule.Decide(t.Context(), s, nil).Allow {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	s := withClaims(b, `{"level":3}`)
	s.Identity = session.Identity{User: "alice", Email: "alice@example.com", Groups: []string{"a", "b", "c", "staff"}}
	for name, a := range map[string]config.Access{
		"signed_in":       {},
		"groups":          {Groups: []string{"staff"}},
		"all lists":       {Groups: []string{"staff"}, EmailDomains: []string{"example.com"}, Users: []string{"alice"}},
		"rule on claims":  {Rule: `claims.level >= 3`},
		"rule on request": {Rule: `claims.level >= 4 || request.method == "GET"`},
		"rule on groups":  {Rule: `groups.exists(g, g == "staff")`},
	} {
		rule := mustRule(b, a)
		q := asked()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !rule.Decide(b.Context(), s, q).Allow {
					b.Fatal("denied")
				}
			}
		})
	}
}

// Whatever an operator writes and whatever is asked: a rule that fails lets nobody in, reads no hidden header, and what is said of the failure quotes nobody.
func FuzzRulesFailClosed(f *testing.F) {
	for _, rule := range []string{
		`user == "alice"`, `claims.a`, `claims.a.b[0].c > 3`, `int(claims.a) > 3`, `claims.?a.orValue(true)`, `groups.all(a, groups.all(b, groups.all(c, a == c)))`, `user.matches("(a+)+$")`,
		`request.headers["x-key"] == user`, `request.headers["cookie"] != ""`, `request.headers.exists(h, h != "")`, `cidr("10.0.0.0/8").containsIP(ip)`, `time.getHours("UTC") < 6`, `first(claims.a, user) == "x"`,
		`"x".matches(user)`, `user.split("", 9999999)[1] == ""`, `"%s".format([user]) != ""`, `true`, `!false || claims.a.b`, `session.auth_time < time`, `[user] + groups == []`, `{user: 1}["x"] == 1`, `user.charAt(99) == ""`, `((((`, "user\x00", `"\u2028" == user`,
	} {
		for _, c := range []string{`{}`, `{"a":true}`, `{"a":{"b":[{"c":4}]}}`, `{"a":[null,1e999,"x"]}`, `{"a":"\u0000"}`} {
			f.Add(rule, []byte(c), "x")
		}
		f.Add(rule, []byte(`{"a":"7"}`), strings.Repeat("a", 5000))
	}
	const canary = "cAnArY"
	hides := access.Compiler{Hidden: func(name string) bool { return name == "cookie" || name == "authorization" }}
	f.Fuzz(func(t *testing.T, text string, claims []byte, header string) {
		if len(text) > 1<<10 || strings.Contains(strings.ToLower(text), strings.ToLower(canary)) {
			return
		}
		rule, err := hides.Rule(config.Access{Rule: text})
		if err != nil && rule.Decide(t.Context(), alice.session, asked()).Allow {
			t.Fatalf("%q does not compile, and allows", text)
		}
		if err != nil || text == "" {
			return
		}
		var c map[string]any
		d := json.NewDecoder(bytes.NewReader(claims))
		d.UseNumber()
		if d.Decode(&c) != nil {
			return
		}
		s := &session.Session{Grant: session.Grant{Identity: session.Identity{User: canary, Email: canary, Groups: []string{canary}}, Claims: c}}
		q := asked()
		q.Header = http.Header{"X-Key": {canary, header}, "Cookie": {"a=1"}, "Authorization": {"Bearer 1"}}
		got := rule.Decide(t.Context(), s, q)
		if got.Allow && got.Detail != "" || strings.Contains(got.Detail, canary) {
			t.Errorf("%q: %+v", text, got)
		}
		if rule.Decide(t.Context(), nil, q).Allow {
			t.Errorf("%q allows nobody", text)
		}
		if got.Detail != "" { // it failed
			return
		}
		q.Header = http.Header{"X-Key": {canary, header}, "Cookie": {"b=2"}, "Authorization": {"Basic 2"}}
		if again := rule.Decide(t.Context(), s, q); again != got {
			t.Errorf("%q depends on a header that is hidden from it: %+v, and then %+v", text, got, again)
		}
	})
}
