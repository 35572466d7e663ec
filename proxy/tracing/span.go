package tracing

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Span is one part of a trace, from its beginning to [Span.End]. One goroutine uses it.
type Span struct {
	span trace.Span
}

// Result is what became of a request.
type Result struct {
	// Method is the request's; any that HTTP does not define is recorded as _OTHER.
	Method string
	// Scheme is http or https.
	Scheme string
	// Route is the name of the route, or of the endpoint of ours; "" when there was none.
	Route string
	// Status is what was answered; 0 when nothing was.
	Status int
	// Verdict and Reason are the words that the log has.
	Verdict, Reason string
	// Asked says that another proxy asked about the request.
	Asked bool
}

// TraceID names the trace when it is recorded, else it is "".
func (s *Span) TraceID() string {
	if s == nil || !s.span.IsRecording() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// EndRequest ends the span of a request.
func (s *Span) EndRequest(r Result) {
	if s == nil || !s.span.IsRecording() {
		return
	}
	name := knownMethod(r.Method)
	attributes := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(name),
		semconv.URLScheme(r.Scheme),
		attribute.String("postern.verdict", r.Verdict),
		attribute.String("postern.reason", r.Reason),
	}
	if r.Route != "" {
		name += " " + r.Route
		attributes = append(attributes, semconv.HTTPRoute(r.Route))
	}
	if r.Asked {
		attributes = append(attributes, attribute.Bool("postern.forward_auth", true))
	}
	if r.Status != 0 {
		attributes = append(attributes, semconv.HTTPResponseStatusCode(r.Status))
	}
	s.span.SetName(name)
	s.span.SetAttributes(attributes...)
	if r.Status >= 500 {
		s.Fail(strconv.Itoa(r.Status))
	}
	s.span.End()
}

// Send tells an application which trace its request is part of, in place of what the client said. The client's baggage goes along
// only when the client is trusted.
func (s *Span) Send(out *http.Request, trusted bool) {
	if s == nil {
		return
	}
	delete(out.Header, "Tracestate")
	if !trusted {
		delete(out.Header, "Baggage")
	}
	propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), s.span), propagation.HeaderCarrier(out.Header))
	if s.span.IsRecording() {
		s.span.SetAttributes(semconv.ServerAddress(out.URL.Hostname()))
	}
}

// Answered notes the answer that came.
func (s *Span) Answered(res *http.Response) {
	if s == nil || !s.span.IsRecording() {
		return
	}
	s.span.SetAttributes(semconv.HTTPResponseStatusCode(res.StatusCode))
	if res.StatusCode >= 400 {
		s.Fail(strconv.Itoa(res.StatusCode))
	}
}

// Fail notes that the part failed, by a word out of few.
func (s *Span) Fail(errorType string) {
	if s == nil || !s.span.IsRecording() {
		return
	}
	s.span.SetAttributes(semconv.ErrorTypeKey.String(errorType))
	s.span.SetStatus(codes.Error, "")
}

// End ends the span.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// ErrorType is the word for an error, whose text is not for collectors: it may hold addresses and what others sent.
func ErrorType(err error) string {
	var slow net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	}
	return semconv.ErrorTypeOther.Value.AsString()
}

// knownMethod keeps what strangers make up out of names.
func knownMethod(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY":
		return method
	}
	return semconv.HTTPRequestMethodOther.Value.AsString()
}
