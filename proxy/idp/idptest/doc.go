// Package idptest is a scriptable OpenID provider for tests, benchmarks and the demo.
//
// It is strict where a good provider is strict: exact redirect URIs, the registered way to authenticate and no other, codes that
// work once, PKCE that must match, refresh tokens that are revoked with their whole family when a spent one arrives. So a client
// that misbehaves is refused here as it would be outside. It misbehaves itself only when a test scripts it: see [Server.On],
// [Server.Gate], [Server.Fail], [Server.Hang], [Server.DropConnectionAfterProcessing], the Mutate methods, [Server.SetSigning] and
// [Server.Down].
//
// In a test:
//
//	s := idptest.NewServer(t)
//	s.AddClient(idptest.Client{ID: "wiki", Secret: "secret", RedirectURIs: []string{callback}})
//	s.AddUser(idptest.User{Sub: "alice", Claims: map[string]any{"name": "Alice", "groups": []string{"admins"}}})
//
// The first person added is signed in at once at every authorization request; [Server.SignInAs] names another. With
// Options.Interactive a page asks who signs in, and a cookie remembers it.
//
// It is no provider for real people: nobody has a password, and everything is forgotten when the process ends.
package idptest
