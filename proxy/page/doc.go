// Package page renders the few pages that Postern itself shows to people: notices and errors, the question before signing out, the form of a
// provider that takes passwords from us, the page about one's session, and the pages that go on by themselves.
//
// Every method of [Pages] writes one whole response: status, headers and body. Pages need no script and load nothing: style, icon and logo
// are inline, the style is allowed by its hash, everything else is forbidden by the Content-Security-Policy. They are never cached.
//
// What pages say stands in texts/, one file a language; the language is the browser's (language.go). Callers name a text, they do not hand in
// sentences. How pages look stands in templates/ and page.css. An operator gives a title, a logo, colours and a link for help (brand.go), and may
// replace templates, style and texts by own ones (own.go), which are tried out before they are used (check.go); one that fails all the same
// gives way to ours.
//
// Callers may hand in what strangers wrote, such as a path, a host or a claim: text is escaped for the place where it stands and cut to
// a length that a person may read, and only addresses that are relative or http(s) become links. What must not be seen (an
// upstream's address, the text of an internal error) must not be handed in: this package cannot know it.
//
// Headers that belong to the answer and not to the page (Retry-After, WWW-Authenticate, Allow, Set-Cookie) are set by the caller before.
//
// Start at [New] and [Pages.Notice].
package page
