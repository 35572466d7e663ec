// Package simtest simulates five real providers that are not OpenID Connect, as strictly as their documentation allows: Metamaps, BreakOut,
// GearCode, Metafy and LikeCoin. Each constructor's comment tells one provider's contract.
//
// A documented parameter that is missing, stands in the wrong place or in the wrong encoding, a client that authenticates in another way than
// the documented one or in two, a spent code or refresh token, a redirect URI that is not registered, a path that is not documented:
// all are refused and counted, and [Server.Errors] tells them, so that a test can want none. Standard parameters that a provider's
// documentation does not name (state, PKCE, response_type …) pass, as RFC 6749 section 3.1 asks of servers; state comes back. What can
// go wrong without the client's fault, a wrong password or a person who refuses, is no error here.
//
// In a test:
//
//	s := simtest.NewMetafy(t, simtest.Options{})
//	s.AddClient(simtest.Client{ID: "coach", Secret: "secret", RedirectURIs: []string{callback}, Scopes: []string{"profile"}})
//	s.AddUser(simtest.User{Name: "ada"})
//
// The first person added is signed in and agrees at every authorization request; [Server.SignInAs] and [Server.Refuse] change that.
// [Server.Whose] tells whose an access token is, for tests that look at what reached an application; over HTTP /api/whoami does, which is
// nobody's documented address.
package simtest
