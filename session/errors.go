package session

import (
	"fmt"
	"time"
)

// EndedError says that the session is over and why: sign in again. A page may tell the reason as a plain sentence, except that
// [ReasonKeyUnknown] and [ReasonTampered] must look to the browser as if there had been no cookie.
type EndedError struct {
	Reason Reason
}

// Error names the reason.
func (e *EndedError) Error() string { return "session ended: " + string(e.Reason) }

// RetryError says that the access token has run out and that its refresh cannot succeed before After: answer 503 with
// Retry-After and keep the cookie.
type RetryError struct {
	// After is how long to wait, at least a second.
	After time.Duration
	Err   error
}

// Error says what went wrong with the last attempt.
func (e *RetryError) Error() string {
	return fmt.Sprintf("refresh again in %v: %v", e.After.Round(time.Second), e.Err)
}

// Unwrap returns what went wrong with the last attempt.
func (e *RetryError) Unwrap() error { return e.Err }

// RefreshKind says what a failed refresh means for the refresh token. The zero value is the careful one.
type RefreshKind int

// A failed refresh is one of these.
const (
	// Unknown: nobody can say whether the provider has spent the refresh token: a time-out, a cut connection, a 5xx.
	Unknown RefreshKind = iota
	// Again: the provider has certainly not processed it: 429, 503 with Retry-After, connection refused.
	Again
	// Rejected: invalid_grant.
	Rejected
	// Invalid: the answer's ID token does not verify or names another issuer, subject or audience.
	Invalid
)

// String returns the kind's name as it stands in logs.
func (k RefreshKind) String() string {
	switch k {
	case Again:
		return "again"
	case Rejected:
		return "rejected"
	case Invalid:
		return "invalid"
	}
	return "unknown"
}

// RefreshError is what a [RefreshFunc] fails with. Every other error counts as [Unknown].
type RefreshError struct {
	Kind RefreshKind
	// RetryAfter is how long the provider wants to be left alone; 0 when it did not say.
	RetryAfter time.Duration
	// Err is logged: it must hold no token and no body of an answer.
	Err error
}

// Error says what happened.
func (e *RefreshError) Error() string { return fmt.Sprintf("refresh (%v): %v", e.Kind, e.Err) }

// Unwrap returns the cause.
func (e *RefreshError) Unwrap() error { return e.Err }
