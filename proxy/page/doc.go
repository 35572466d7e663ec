// Package page renders the few pages that Postern itself shows to people: notices and errors, the question before signing out, the
// page about one's session, and the page that goes on by itself.
//
// Every method of [Pages] writes one whole response: status, headers and body. Pages need no script and load nothing: the style is
// inline and allowed by its hash, everything else is forbidden by the Content-Security-Policy. They are never cached.
//
// Callers may hand in what strangers wrote, such as a path, a host or a claim: text is escaped for the place where it stands and cut to
// a length that a person may read, and only addresses that are relative or http(s) become links. What must not be seen (an
// upstream's address, the text of an internal error) must not be handed in: this package cannot know it.
//
// Headers that belong to the answer and not to the page (Retry-After, WWW-Authenticate, Allow, Set-Cookie) are set by the caller before.
//
// Start at [New] and [Pages.Notice].
package page
