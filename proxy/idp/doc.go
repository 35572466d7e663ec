// Package idp speaks to identity providers. It holds every check of the OAuth 2.0 and OpenID Connect protocols, in the one right
// order, so that callers cannot get it wrong: they see [Provider.Begin], [Provider.Finish], [Provider.Password] and [Provider.Refresh],
// not the steps.
//
// What it guarantees: no token leaves Finish or Refresh unless everything about the answer was checked; client credentials, codes and
// refresh tokens are sent to the one endpoint they are for, once, and never along a redirect; every call ends within its time limit,
// every answer is bounded; no error holds a token, a code, a secret or a body.
//
// What it never does: keep anything about a person. State, cookies and sessions are the callers' business.
//
// The map:
//
//	options.go      Options and what is wrong with them
//	provider.go     New, Run: the life of one provider
//	metadata.go     discovery document, or what the configuration says → endpoints, client authentication, keys
//	begin.go        the authorization request
//	finish.go       the authorization response → tokens → identity
//	password.go     user name and password → tokens → identity
//	credentials.go  tokens of the client's own
//	exchange.go     a person's token → one for another application
//	resource.go     … by the refresh token, for a resource
//	presented.go    access tokens that clients bring: whose are they?
//	token.go        token request and token answer: one pair of functions for every grant
//	clientauth.go   how the client proves who it is
//	idtoken.go      the ID token
//	keys.go         the keys that sign ID tokens
//	identity.go     who the person is: where claims come from
//	userinfo.go     … from userinfo, and from calls that the configuration names
//	introspect.go   … from introspection
//	mapping.go      claims → members of an identity: paths and expressions
//	claims.go       what a claim must be to be used
//	refresh.go      new tokens for old
//	revoke.go       tokens that are not needed any more
//	logout.go       the end-session URL
//	network.go      the way to the provider: proxies, authorities, certificates, internal addresses
//	client.go       how calls are made
//	examine.go      harmless questions, for whoever looks for a mistake
//	errors.go       what can go wrong
//
// A provider that is not OpenID Connect differs from one that is in where endpoints and identity come from, and in nothing else.
package idp
