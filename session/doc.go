// Package session remembers who is signed in: a [Manager] makes, finds, refreshes and ends the sessions of one provider.
//
// The browser holds a cookie with a random id and a random key, sealed under the deployment's keys. The [Store] holds, under a hash
// of that id, the session sealed under that key. So the cookies alone open nothing, the store alone opens nothing, and the store
// together with the deployment's keys opens no token either. Values name their place and are refused in any other.
//
// What it guarantees:
//
//   - Absent is not broken. [ErrNone] and [*EndedError] mean: sign in. [ErrUnavailable] means that the store did not answer, and
//     [*RetryError] that the provider did not: 503, and the cookie stays.
//   - A copy in this process is used for CacheOptions.MaxStale after the store was asked, not longer; and not at all while the
//     store's notices of changes do not arrive.
//   - A refresh token is exchanged once: one flight per session in a process, one lease per session across them, and a write that
//     succeeds only on the version that was read. What ended stays ended.
//   - Ends are told by time (idle, lifetime, a token that ran out) or leave a tombstone with their [Reason].
//
// It knows nothing of HTTP flow and nothing of protocols: the caller hands in a [RefreshFunc]. It never logs a token, a name, an
// address or a cookie; sessions appear by their [Session.Handle].
//
// Start at [NewManager]; then load.go is the way of a request, refresh.go and flight.go the way of a token, end.go the ways out.
package session
