package expr

import (
	"testing"

	"cel.dev/cel-go/cel"
)

func TestOnlyLoopsAndFunctionsThatGrowAreCounted(t *testing.T) {
	l, err := NewLanguage(Options{Cost: 1000, Variables: map[string]*cel.Type{
		"user": cel.StringType, "groups": cel.ListType(cel.StringType), "claims": cel.MapType(cel.StringType, cel.DynType),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for text, small := range map[string]bool{
		`true`: true,
		`user == "alice" && !("guests" in groups) || claims.level >= 3`:     true,
		`claims["a"].b.c[0] == "x" ? user.startsWith("a") : size(user) > 1`: true,
		`has(claims.a) && claims.?b.c != optional.none()`:                   false,
		`groups.exists(g, g == "staff")`:                                    false,
		`user.matches("(a+)+$")`:                                            false,
		`user + user == "x"`:                                                false,
		`groups + groups == []`:                                             false,
		`[1, 2].map(n, n * 2) == [2]`:                                       false,
		`user == "alice" && groups.all(g, g == user)`:                       false,
	} {
		p, err := l.Compile(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if p.small != small {
			t.Errorf("%s: small is %t", text, p.small)
		}
	}
}
