package access_test

import (
	"context"
	"fmt"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

func ExampleCompiler_Rule() {
	var compiler access.Compiler
	rule, err := compiler.Rule(config.Access{Groups: []string{"wiki-users", "staff"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	alice := &session.Session{Grant: session.Grant{Identity: session.Identity{User: "alice", Groups: []string{"staff"}}}}
	bob := &session.Session{Grant: session.Grant{Identity: session.Identity{User: "bob"}}}
	for _, s := range []*session.Session{alice, bob, nil} {
		d := rule.Decide(context.Background(), s, nil)
		fmt.Println(d.Allow, d.Reason, d.Need)
	}

	// Output:
	// true conditions none
	// false groups none
	// false no_session sign_in
}
