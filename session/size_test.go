package session_test

import (
	"fmt"
	"testing"
	"time"

	"postern/session"
	"postern/session/redistest"
)

// What one session needs in Redis, in all its keys (performance.md, section 4: an access token of 1.2 KiB, an ID token of 1 KiB, 20
// groups). Every session of one person is one entry more under the same name, so the first is the dearest.
func TestRedisBytesOfOneSession(t *testing.T) {
	for name, change := range map[string]func(*session.Grant){
		"found by subject and sid":       func(*session.Grant) {},
		"by subject, user and sid":       func(g *session.Grant) { g.Identity.User = "alice@corp.example" },
		"by subject and sign-in, no sid": func(g *session.Grant) { g.SID = "" },
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{Forgetful: true})
			f := replica(t, redisStore(t, server), nil)
			g := f.typical()
			change(&g)
			s, _ := f.signIn(g, session.CreateOptions{Browser: "Firefox"})
			sum := int64(0)
			for _, key := range server.Client().Keys(t.Context(), "*").Val() {
				n, err := server.Client().MemoryUsage(t.Context(), key).Result()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%5d bytes  %s", n, key)
				sum += n
			}
			rec, err := f.store.Get(t.Context(), s.Key())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%5d bytes in all; value %d bytes", sum, len(rec.Sealed))
			if sum > 2048 {
				t.Errorf("one session needs %d bytes of Redis, want at most 2048", sum)
			}
		})
	}
}

// typical is the grant of performance.md, section 4.
func (f *fixture) typical() session.Grant {
	g := f.grant(5 * time.Minute)
	g.Subject, g.SID, g.Issued = hex("sub", 16), hex("sid", 16), f.clock.now()
	g.Identity.User = g.Subject
	g.Tokens.Access, g.Tokens.ID, g.Tokens.Refresh = jwt(1193, "at"), jwt(950, "id"), hex("refresh", 32)+hex("r2", 8)
	g.Identity.Groups = nil
	for i := range 20 {
		g.Identity.Groups = append(g.Identity.Groups, fmt.Sprintf("corp-team-%d-%s", i, hex(fmt.Sprint("at", i), 3)))
	}
	return g
}
