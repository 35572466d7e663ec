package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
)

// failure is why a request got no answer from its application.
type failure struct {
	// Status is 502 or 504 for the application, 499 (nobody reads the answer), 408, 413 or 400 for the client, 401 when the verdict
	// was revised before the application answered, and 404 or 405 for a folder of files.
	Status int
	// Reason is a stable word for the log.
	Reason string
	// Err is for the log alone: it names the application's address.
	Err error
}

// errUnaskedSwitch is an application that answers 101 to what was no WebSocket handshake.
var errUnaskedSwitch = errors.New("application switched to a protocol that was not asked for")

// errTimeout is why an exchange was ended.
var errTimeout = errors.New("the application took longer than the timeout of the route")

// fail answers in place of the application.
func (l *leg) fail(f failure) {
	l.f.Span.Fail(f.Reason)
	l.u.o.Fail(l.w, l.in, f)
}

// answerFailure answers for an application that did not.
func answerFailure(_ http.ResponseWriter, out *http.Request, err error) {
	l := legOf(out)
	if l.tunnel != nil {
		return
	}
	if l.hijacked { // a client that left between handshake and answer
		l.u.o.Log.DebugContext(l, "websocket not opened", "error", err)
		return
	}
	l.fail(l.classify(err))
}

// classify tells whose fault it was.
func (l *leg) classify(err error) failure {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	if errors.Is(err, errSessionOver) || context.Cause(l) == errSessionOver {
		return failure{http.StatusUnauthorized, "session_over", nil}
	}
	if context.Cause(l) == errTimeout {
		return failure{http.StatusGatewayTimeout, "upstream_timeout", errTimeout}
	}
	if cause := l.upload.failure(); cause != nil {
		switch {
		case errors.As(cause, &tooLarge):
			return failure{http.StatusRequestEntityTooLarge, "body_too_large", cause}
		case errors.As(cause, &timeout) && timeout.Timeout():
			return failure{http.StatusRequestTimeout, "client_too_slow", cause}
		case l.Err() == nil && timeout == nil && !errors.Is(cause, io.ErrUnexpectedEOF): // it is there, and what it sends is no body
			return failure{http.StatusBadRequest, "bad_body", cause}
		}
		return failure{statusClientClosed, "client_left", cause}
	}
	var notFound *net.DNSError
	switch {
	case errors.Is(l.Err(), context.Canceled):
		return failure{statusClientClosed, "client_left", err}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return failure{http.StatusGatewayTimeout, "upstream_timeout", err}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return failure{http.StatusBadGateway, "upstream_refused", err}
	case errors.As(err, &notFound):
		return failure{http.StatusBadGateway, "upstream_unknown_host", err}
	case isTLSError(err):
		return failure{http.StatusBadGateway, "upstream_tls", err}
	case errors.Is(err, errUnaskedSwitch):
		return failure{http.StatusBadGateway, "upstream_switched_protocol", err}
	}
	return failure{http.StatusBadGateway, "upstream_broken", err}
}

func isTLSError(err error) bool {
	var (
		unverified *tls.CertificateVerificationError
		notTLS     tls.RecordHeaderError
		alert      tls.AlertError
		authority  x509.UnknownAuthorityError
	)
	return errors.As(err, &unverified) || errors.As(err, &notTLS) || errors.As(err, &alert) || errors.As(err, &authority)
}
