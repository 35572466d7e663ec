// Package session remembers who is signed in: a [Manager] makes, finds, refreshes and ends the sessions of one provider.
//
// The browser holds a cookie with a random id and a random key, sealed under the deployment's keys. The [Store] holds, under a hash
// of that id, the session sealed under that key. So the cookies alone open nothing, the store alone opens nothing, and the store
// together with the deployment's keys opens no token either, except those of shared grants. Values name their place and are refused in
// any other.
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
//     store's notices of changes do not arrive.
//   - A refresh token is exchanged once: one flight per session (or shared grant) in a process, one lease across them, and a write that
//     succeeds only on the version that was read. What ended stays ended.
//   - Ends are told by time (idle, lifetime, a token that ran out) or leave a tombstone with their [Reason].
//
// It knows nothing of HTTP flow and nothing of protocols: the caller hands in a [RefreshFunc]. It never logs a token, a name, an
// address or a cookie; sessions appear by their [Session.Handle].
//
// Start at [NewManager]; then load.go is the way of a request, refresh.go and flight.go the way of a token, end.go the ways
// out, and grant.go what is different for shared grants.
package session
