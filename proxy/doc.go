// Package proxy is the front door: it turns each request into a verdict and renders that verdict.
//
// # The map
//
//	every request   proxy.go        method, path and host are checked, our endpoints told from routes
//	  our endpoints endpoints.go    start callback logout session … each to its file
//	  a route       routes.go       the most specific route wins; none is 404
//	the verdict     gate.go         session → refresh → rule = allow, sign in, deny, unavailable
//	  allow         upstream.go     strip, set Bearer and identity headers, forward
//	  sign in       login.go        a navigation goes to the provider; everything else gets 401
//	  otherwise     respond.go      one ladder: page for people, problem JSON (RFC 9457) for programs
//
//	sign-in         login.go        Begin → sealed cookie for this attempt (attempt.go) → provider
//	                callback.go     attempt by state → Finish → session → back to the wanted page (returnto.go)
//	sign-out        logout.go       end the session → provider's end_session_endpoint → "signed out"
//	                backchannel.go  the provider's own order, by a signed token: sessions found by the index
//	                frontchannel.go the same in a frame of the provider's page
//	your session    account.go      JSON and page about the session, refresh on demand; the list of one's sessions, and their end
//
//	wiring          build.go        the only place that sees the whole configuration
//	operators       admin.go        health, readiness, profiles, on the admin listener; adminsessions.go lists and ends sessions
//	                audit.go        who did what, by name, in a log of its own
//
// Decide once, render many ways: decide (gate.go) is the only function that lets a request pass, so that two ways in can
// never get different security. "No session", "the store did not answer" and "the provider did not answer" are three
// results everywhere and end in three different answers.
//
// Nothing is stored on the server before a callback has succeeded: a sign-in under way lives in the browser, sealed.
package proxy
