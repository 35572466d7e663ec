package access_test

import (
	"reflect"
	"strings"
	"testing"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

// who is a person of a test; nobody is a request without a session.
type who struct {
	name    string
	session *session.Session
}

var (
	nobody   = who{name: "nobody"}
	alone    = person("alone")                        // signed in, in no group
	alice    = person("alice", "wiki-users", "staff") // in several
	bob      = person("bob", "accounts")              // in another
	nameless = person("nameless", "")                 // the provider sent an empty group
	shouter  = person("shouter", "WIKI-USERS", " wiki-users", "wiki-users ", "wiki", "wiki-users/x")
)

func person(name string, groups ...string) who {
	return who{name, &session.Session{Grant: session.Grant{Identity: session.Identity{User: name, Groups: groups}}}}
}

func compile(a config.Access) (access.Rule, error) { return new(access.Compiler).Rule(a) }

func level(l string) config.Access { return config.Access{Level: l} }

func groups(g ...string) config.Access { return config.Access{Groups: append([]string{}, g...)} }

type want struct {
	rule     config.Access
	who      who
	decision access.Decision
}

func allow(rule config.Access, w who, reason string) want {
	return want{rule, w, access.Decision{Allow: true, Reason: reason}}
}

func deny(rule config.Access, w who, reason string) want {
	return want{rule, w, access.Decision{Reason: reason}}
}

func signIn(rule config.Access, w who) want {
	return want{rule, w, access.Decision{Reason: "no_session", Need: access.SignIn}}
}

func TestDecide(t *testing.T) {
	both := config.Access{Level: "signed_in", Groups: []string{"staff"}}
	for _, tt := range []want{
		allow(level("public"), nobody, "public"),
		allow(level("public"), alice, "public"),

		signIn(level("signed_in"), nobody),
		allow(level("signed_in"), alone, "signed_in"),
		allow(level("signed_in"), alice, "signed_in"),

		// No access in the file means signed_in, not public.
		signIn(config.Access{}, nobody),
		allow(config.Access{}, alone, "signed_in"),

		signIn(config.Access{Level: "signed_in", SignedIn: true}, nobody),
		allow(config.Access{Level: "signed_in", SignedIn: true}, alone, "signed_in"),
		deny(config.Access{Level: "signed_in", SignedIn: true, Groups: []string{"staff"}}, alone, "groups"),

		allow(level("optional"), nobody, "optional"),
		allow(level("optional"), alice, "optional"),

		deny(level("deny"), nobody, "denied"),
		deny(level("deny"), alice, "denied"),

		signIn(groups("wiki-users"), nobody),
		allow(groups("wiki-users"), alice, "conditions"),
		allow(groups("accounts", "wiki-users"), alice, "conditions"),
		allow(groups("accounts", "wiki-users"), bob, "conditions"),
		deny(groups("wiki-users"), bob, "groups"),
		deny(groups("wiki-users"), alone, "groups"),
		deny(groups("wiki-users"), nameless, "groups"),
		deny(groups("wiki-users"), shouter, "groups"),
		allow(groups("a,b"), person("comma", "a,b"), "conditions"),
		deny(groups("a", "b"), person("comma", "a,b"), "groups"),

		// An empty list denies everyone, and signing in would not help.
		deny(groups(), nobody, "denied"),
		deny(groups(), alone, "denied"),
		deny(groups(), alice, "denied"),
		deny(groups(), nameless, "denied"),

		signIn(both, nobody),
		allow(both, alice, "conditions"),
		deny(both, bob, "groups"),
	} {
		rule, err := compile(tt.rule)
		if err != nil {
			t.Errorf("Compile(%+v): %v", tt.rule, err)
			continue
		}
		if got := rule.Decide(t.Context(), tt.who.session, nil); got != tt.decision {
			t.Errorf("%+v, %s: got %+v, want %+v", tt.rule, tt.who.name, got, tt.decision)
		}
	}
}

func TestZeroValuesDeny(t *testing.T) {
	var rule access.Rule
	for _, w := range []who{nobody, alone, alice} {
		if got, want := rule.Decide(t.Context(), w.session, nil), (access.Decision{Reason: "denied"}); got != want {
			t.Errorf("zero Rule, %s: got %+v, want %+v", w.name, got, want)
		}
	}
	if rule.Public() {
		t.Error("the zero Rule is public")
	}
	var d access.Decision
	if d.Allow || d.Need != access.None {
		t.Errorf("zero Decision: %+v", d)
	}
}

func TestPublicIsPublicAlone(t *testing.T) {
	for _, tt := range []struct {
		rule config.Access
		want bool
	}{
		{level("public"), true},
		{level("signed_in"), false},
		{level("deny"), false},
		{config.Access{}, false},
		{groups(), false},
		{groups("x"), false},
	} {
		rule, err := compile(tt.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := rule.Public(); got != tt.want {
			t.Errorf("%+v: Public() = %v", tt.rule, got)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, tt := range []struct {
		rule config.Access
		want string
	}{
		{level("Public"), `unknown level "Public"`},
		{level("anyone"), `unknown level "anyone"`},
		{level(" "), "unknown level"},
		{config.Access{Level: "optional", Groups: []string{"staff"}}, "takes no conditions"},
		{groups(""), "entry of groups is empty"},
		{groups("staff", ""), "entry of groups is empty"},
		{config.Access{Level: "public", Groups: []string{"staff"}}, "takes no conditions"},
		{config.Access{Level: "public", Groups: []string{}}, "takes no conditions"},
		{config.Access{Level: "public", SignedIn: true}, "takes no conditions"},
		{config.Access{Level: "deny", Groups: []string{"staff"}}, "takes no conditions"},
		{config.Access{Level: "deny", SignedIn: true}, "takes no conditions"},
		{config.Access{Level: "nonsense", Groups: []string{"staff"}}, "unknown level"},
	} {
		rule, err := compile(tt.rule)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Compile(%+v): error %v, want one with %q", tt.rule, err, tt.want)
		}
		// Who overlooks the error has a rule that denies.
		if rule.Decide(t.Context(), alice.session, nil).Allow || rule.Public() {
			t.Errorf("Compile(%+v): the rule beside the error allows", tt.rule)
		}
	}
}

// A condition that the configuration knows and Compile does not would leave a route open to more people than its file says.
func TestCompileRefusesEveryConditionItDoesNotKnow(t *testing.T) {
	known := map[string]bool{"Level": true, "SignedIn": true, "Groups": true, "Emails": true, "EmailDomains": true, "Users": true, "Claims": true, "Rule": true, "ACR": true, "MaxAge": true,
		"BearerTokens": true} // no condition: another way to be signed in
	for f := range reflect.TypeFor[config.Access]().Fields() {
		if known[f.Name] {
			continue
		}
		var a config.Access
		fill(t, reflect.ValueOf(&a).Elem().FieldByName(f.Name))
		rule, err := compile(a)
		if err == nil || !strings.Contains(err.Error(), f.Name) {
			t.Errorf("%s: Compile error %v, want one that names it", f.Name, err)
		}
		if rule.Decide(t.Context(), alice.session, nil).Allow {
			t.Errorf("%s: allows", f.Name)
		}
	}
}

// fill sets v to some value that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 0, 0)) // present but empty, the hardest to see
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Struct:
		fill(t, v.Field(0))
	default:
		t.Fatalf("%s: teach this test the kind %s", v.Type(), v.Kind())
	}
}

// What the file says must arrive here as it was meant: an empty list is not the same as none.
func TestRulesFromAFile(t *testing.T) {
	for _, tt := range []struct {
		yaml string
		who  who
		want access.Decision
	}{
		{"", nobody, access.Decision{Reason: "no_session", Need: access.SignIn}},
		{"", alone, access.Decision{Allow: true, Reason: "signed_in"}},
		{"access: public", nobody, access.Decision{Allow: true, Reason: "public"}},
		{"access: deny", alice, access.Decision{Reason: "denied"}},
		{"access: {signed_in: true}", alone, access.Decision{Allow: true, Reason: "signed_in"}},
		{"access: {groups: [wiki-users]}", alice, access.Decision{Allow: true, Reason: "conditions"}},
		{"access: {groups: [wiki-users]}", bob, access.Decision{Reason: "groups"}},
		{"access: {groups: []}", alice, access.Decision{Reason: "denied"}},
		{"access: {groups: []}", nobody, access.Decision{Reason: "denied"}},
	} {
		rule, err := compileYAML(tt.yaml)
		if err != nil {
			t.Errorf("%q: %v", tt.yaml, err)
			continue
		}
		if got := rule.Decide(t.Context(), tt.who.session, nil); got != tt.want {
			t.Errorf("%q, %s: got %+v, want %+v", tt.yaml, tt.who.name, got, tt.want)
		}
	}
	// Written without a value, a list must never mean "no condition".
	for _, yaml := range []string{"access: {groups: }", "access: {groups: ~}", "access:", "access: {}", "access: {groups: [\"\"]}"} {
		// Refused by either is well, too.
		if rule, err := compileYAML(yaml); err == nil && rule.Decide(t.Context(), alice.session, nil).Allow {
			t.Errorf("%q lets someone in", yaml)
		}
	}
}

func compileYAML(line string) (access.Rule, error) {
	file := "providers: {main: {issuer: \"https://id.example.com\", client_id: x}}\n" +
		"routes:\n  - host: wiki.example.com\n    upstream: \"http://127.0.0.1:8080\"\n    " + line + "\n"
	c, err := config.Parse("postern.yaml", []byte(file), config.LoadOptions{})
	if err != nil {
		return access.Rule{}, err
	}
	return compile(c.Routes[0].Access)
}

// A rule must not change when the configuration that it came from does.
func TestRuleKeepsNoReferenceToTheConfiguration(t *testing.T) {
	a := config.Access{Groups: []string{"wiki-users"}}
	rule, err := compile(a)
	if err != nil {
		t.Fatal(err)
	}
	a.Groups[0] = "accounts"
	if rule.Decide(t.Context(), bob.session, nil).Allow || !rule.Decide(t.Context(), alice.session, nil).Allow {
		t.Error("changing the configuration changed the rule")
	}
}
