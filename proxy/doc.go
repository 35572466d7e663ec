// Package proxy is the front door: it turns each request into a verdict and renders that verdict.
//
// # The map
//
//	every request   proxy.go        method, path and host are checked, our endpoints told from routes; path.go has the rules of paths
//	                toolarge.go     headers that are too large, and the way out for a browser with too many cookies; clientbody.go bodies that stand still
//	                exchange.go     what is known of one request on its way, and its span; requestlog.go writes its line in the log
//	                forwarded.go    who asks, at which host: what trusted proxies say of that
//	  our endpoints endpoints.go    start callback logout session … each to its file
//	  a route       routes.go       the most specific route wins; none is 404
//	  a question    forwardauth.go  another proxy asks about a request that it carries itself
//	the verdict     gate.go         session → refresh → rule = allow, sign in, deny, unavailable
//	                presented.go    the same for an access token that a client brings
//	  allow         upstream.go     strip (hops.go knows what is between neighbours alone), set Bearer and identity headers, forward
//	                balance.go      which address gets it; transport.go connects (wire/ carries what has no body), upload.go watches bodies on their way, failure.go says why there is no answer
//	                prefix.go       strip_prefix; rewrite.go puts it back in answers
//	                renew.go        once more with another token where the application calls one invalid; challenge.go reads its 401
//	                files.go        a folder in place of an application
//	                headers.go      which headers clients may not send, and how identity is written; cookies.go the same for cookies
//	                headervalues.go a route's own headers, computed; assertion.go a signed one, and the keys for it
//	                bearer.go       which token the application gets: the person's, one that it is exchanged for (exchanged.go) or that is
//	                                for the application's resource (resource.go), or one of Postern's own client (appbearer.go)
//	                via.go          how a route names itself, and knows a request that came back
//	                streams.go      WebSockets and long answers, for shutting down; tunnel.go carries the former (source.go, source_unix.go, source_other.go read them);
//	                tether.go ends both with their session
//	  sign in       login.go        a navigation goes to the provider; everything else gets 401
//	                keep.go         what a person sends after the own session has ended is kept (keptrequest.go), sealed, until they are back
//	                keptpage.go     the page that says what would be sent (formfields.go); replay.go sends it, as the request that it was
//	                fragment.go     the page by which a navigation keeps what stands after # in its address
//	                stepup.go       who is signed in, but too weakly or too long ago, goes there again; challenge.go reads what an application says of that
//	  otherwise     respond.go      one ladder: page for people, problem JSON (RFC 9457) for programs
//
//	sign-in         login.go        Begin → sealed cookie for this attempt (attempt.go) → provider
//	                callback.go     attempt by state → Finish → session → back to the wanted page (returnto.go)
//	                choose.go       which provider, where a route takes several
//	                password.go     the form, where a provider has grant: password
//	sign-out        logout.go       end the session → provider's end_session_endpoint → "signed out"; revoke.go gives tokens back
//	                backchannel.go  the provider's own order, by a signed token: sessions found by the index
//	                frontchannel.go the same in a frame of the provider's page; limit.go bounds what strangers send to both
//	your session    account.go      JSON and page about the session, refresh on demand; the list of one's sessions, and their end
//
//	wiring          build.go        the only place that sees the whole configuration
//	                compile.go      rules and header values of routes; lasting.go what one configuration hands to the next
//	operators       admin.go        health, readiness, profiles, on the admin listener; adminsessions.go lists and ends sessions
//	                explain.go      what would become of a request, for postern explain
//	                watchstore.go   a span and a count for each operation of the session store; count.go counts requests
//	                audit.go        who did what, by name, in a log of its own
//
// Decide once, render many ways: decide (gate.go) is the only function that lets a request pass, so that two ways in can
// never get different security. "No session", "the store did not answer" and "the provider did not answer" are three
// results everywhere and end in three different answers.
//
// Nothing is stored on the server before a callback has succeeded: a sign-in under way lives in the browser, sealed. The one exception is the request
// that is kept for a person whose session is just over.
package proxy
