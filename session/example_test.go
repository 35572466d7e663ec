package session_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"postern/session"
	"postern/session/memstore"
	"postern/session/seal"
)

func ExampleNewManager() {
	key, _ := seal.ParseKey(seal.NewKey()) // in production: session.keys
	ring, _ := seal.NewRing(key)
	m, err := session.NewManager(session.Options{
		Provider: "corp", Issuer: "https://idp.example", ClientID: "postern",
		Ring: ring, Store: memstore.New(memstore.Options{}),
		Cookie:      session.Cookie{Name: "__Host-postern", Secure: true, Persistent: true},
		IdleTimeout: time.Hour, Lifetime: 12 * time.Hour, RefreshBefore: time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	defer m.Close(ctx)

	// At the callback:
	grant := session.Grant{Issuer: "https://idp.example", Subject: "alice", Tokens: session.Tokens{Access: "an access token"}}
	_, cookie, err := m.Create(ctx, grant, session.CreateOptions{Browser: session.BrowserFamily("curl/8")})
	if err != nil {
		fmt.Println(err)
		return
	}

	// At each request:
	r, _ := http.NewRequest("GET", "https://wiki.example/", nil)
	r.AddCookie(cookie)
	s, err := m.Load(ctx, r.Header)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err = m.Fresh(ctx, s, func(context.Context, *session.Session) (session.Grant, error) {
		return session.Grant{}, fmt.Errorf("not called: the token is not due")
	})
	fmt.Println(s.Subject, err)
	m.Touch(s)

	// At sign-out:
	fmt.Println(m.End(ctx, s, session.ReasonSignedOut))
	_, err = m.Load(ctx, r.Header)
	fmt.Println(err)
	// Output:
	// alice <nil>
	// <nil>
	// session ended: signed_out
}
