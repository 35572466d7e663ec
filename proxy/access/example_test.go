package access_test

import (
	"fmt"

	"postern/config"
	"postern/proxy/access"
	"postern/session"
)

func ExampleCompile() {
	rule, err := access.Compile(config.Access{Groups: []string{"wiki-users", "staff"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	alice := &session.Session{Grant: session.Grant{Identity: session.Identity{User: "alice", Groups: []string{"staff"}}}}
	bob := &session.Session{Grant: session.Grant{Identity: session.Identity{User: "bob"}}}
	for _, s := range []*session.Session{alice, bob, nil} {
		d := rule.Decide(s)
		fmt.Println(d.Allow, d.Reason, d.Need)
	}

	// Output:
	// true group none
	// false not_in_group none
	// false no_session sign_in
}
