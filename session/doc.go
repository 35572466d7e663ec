// Package session remembers who is signed in: a [Manager] makes, finds, refreshes and ends the sessions of one provider.
//
// The browser holds a cookie with a random id and a random key, sealed under the deployment's keys. The [Store] holds, under a hash
// of that id, the session sealed under that key. So the cookies alone open nothing, the store alone opens nothing, and the store
// together with the deployment's keys opens no token either, except those of shared grants and, with Options.RevokeWithoutCookie, refresh
// tokens. What it does open is a small part of each record that says whose session it is (about.go), so that logout tokens, owners and
// operators find and end sessions without their cookies. Values name their place and are refused in any other.
//
// Where a new refresh token of a person makes the older ones void (Options.SharedGrant), the tokens are not in the sessions. All
// sessions of one person at one provider share the newest grant: a record under a keyed hash of the person, with tokens and identity,
// that each sign-in and each refresh replaces by compare-and-set, and that Load puts together with the session. So a second sign-in
// serves the first browser, one refresh serves all, and the lease is the grant's. How and when the person signed in stays with the
// session. Since sessions do not share a data key the grant is sealed under a key derived from the deployment's keys (purpose
// "grant"): the store together with the keys opens these tokens, alone it does not, and neither do the keys. The grant is cached like
// a session, obeys the same notices and the same MaxStale, and lives as long as its longest session. A refused refresh token ends nothing
// while the access token is valid, nor before a newer grant was looked for during 10 s, because a sign-in elsewhere makes a token void
// before its own is stored. Signing out leaves the other sessions; the last one takes the tokens out of the store, and only then
// [Manager.Revocable] allows to revoke them.
//
// What it guarantees:
//
//   - Absent is not broken. [ErrNone] and [*EndedError] mean: sign in. [ErrUnavailable] means that the store did not answer, and
//     [*RetryError] that the provider did not: 503, and the cookie stays.
//   - A copy in this process is used for CacheOptions.MaxStale after the store was asked, not longer; and not at all while the
//     store's notices of changes do not arrive. Only when the store does not answer it may be used for Options.KeepFor, unless this process
//     was told of a change since.
//   - A refresh token is exchanged once: one flight per session (or shared grant) in a process, one lease across them, and a write that
//     succeeds only on the version that was read. Where nobody knows what became of an exchange, because the answer was lost or the process
//     died, the token is sent once more at most, and only when the access token has expired: each time is noted in the store before.
//   - What ended stays ended, and a rotated token stays rotated, also when the store fails over to a copy that had neither: each process
//     remembers for some minutes what it ended, saw ended or refreshed, believes that more than the store, and puts it back after each gap in
//     the notices.
//   - Ends are told by time (idle, lifetime, a token that ran out) or leave a tombstone with their [Reason]. Each is told once by a process
//     (Options.Ended), and tokens that nobody uses any more go to Options.Discarded.
//   - An open stream hears of the end of its session: see [Manager.Follow].
//
// It knows nothing of HTTP flow and nothing of protocols: the caller hands in a [RefreshFunc]. It never logs a token, a name, an
// address or a cookie; sessions appear by their [Session.Handle].
//
// # The map
//
//	a request     load.go     cookie → ticket (cookie.go) → copy or store (cache.go) → time limits → Touch (touch.go)
//	a token       refresh.go  due? → flight.go: lease → read again → note (lease.go) → exchange → write
//	the ways in   create.go   index entries (index.go), the record (codec.go, about.go), the cookie
//	the ways out  end.go      by cookie, by index, by id; ending.go tells them, discard.go hands on the tokens
//	streams       follow.go   one watch for each session that streams need
//	lists         list.go     the sessions of a person
//	shared grants grant.go    what is different for them
//	other keys    rekey.go    what is in use moves under the first key of the ring
//	failovers     mend.go     what the store has lost is put back
//
// Start at [NewManager], which [Manager.Run] keeps up to date.
package session
