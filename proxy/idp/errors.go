package idp

import (
	"errors"
	"fmt"
	"time"
)

// ErrNotDiscovered says that the provider's metadata is not known yet: nobody can sign in for now. Errors that wrap it are
// [UnavailableError]s.
var ErrNotDiscovered = errors.New("provider metadata is not known yet")

// AuthorizationError is the provider's answer that it did not authorize: error=… in the authorization response, or a password that it
// does not accept.
type AuthorizationError struct {
	// Code is one of the error codes of RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6 or an extension.
	Code string
	// Description came through the browser: anyone can have written it. It is bounded and free of control characters,
	// not of markup.
	Description string
}

// Error names the code alone.
func (e *AuthorizationError) Error() string { return fmt.Sprintf("provider answered error %q", e.Code) }

// ProtocolError says that an answer is wrong: a check failed. It is for the log and not for people who sign in.
type ProtocolError struct {
	// What is a sentence without tokens, codes or bodies.
	What string
	// Code is the OAuth error code when the token endpoint answered one.
	Code string
	// Response says that it is the authorization response, which the browser brought. The provider was not asked anything.
	Response bool
}

// Error is What.
func (e *ProtocolError) Error() string { return e.What }

// InsufficientError says that the provider signed the person in, but not as strongly or as recently as [Begin] asked for.
type InsufficientError struct {
	// What is a sentence for the log.
	What string
	// Stale says that the sign-in is too old: another one, now, may do.
	Stale bool
}

// Error is What.
func (e *InsufficientError) Error() string { return e.What }

// UnavailableError says that the provider did not answer, or that it could not. Nothing is known about the person: try again later.
type UnavailableError struct {
	// What says which part did not answer.
	What string
	// RetryAfter is how long the provider asked to wait; 0 when it did not say.
	RetryAfter time.Duration
	// Err is the cause, if it is known.
	Err error
	// sent is false only when the request certainly did not reach the provider.
	sent bool
}

// Error says what did not answer, and why.
func (e *UnavailableError) Error() string {
	if e.Err == nil {
		return e.What
	}
	return e.What + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// badAnswer makes a [ProtocolError].
func badAnswer(format string, args ...any) error {
	return &ProtocolError{What: fmt.Sprintf(format, args...)}
}
