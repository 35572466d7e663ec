// Package tracing records what a request spends its time on, as OpenTelemetry spans, and sends them to a collector by OTLP/HTTP.
//
// Attributes are bounded: names from the configuration, words of our own and numbers, never a path, query, header, address or name
// that a request brings. Requests wait for nothing here: a span that has ended goes into a queue of fixed size, and into none when
// that is full. What the collector does, or fails to do, changes nothing but a line in the log.
//
// Start at [New]. A nil [Tracer] and a nil [Span] do nothing, at no cost, so callers need not ask whether tracing is on.
package tracing

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	queueSize    = 2048 // spans that wait to be sent; a span is about 2 KiB
	batchSize    = 512
	batchEvery   = 5 * time.Second
	sendTimeout  = 10 * time.Second // of one batch
	flushTimeout = 3 * time.Second  // of what is left at the end
)

// Options say where spans go.
type Options struct {
	// Endpoint is the collector's http or https address. Without a path it gets that of OTLP, /v1/traces.
	Endpoint *url.URL
	// Sample is the share of traces that are recorded, 0 to 1, where it is decided here.
	Sample float64
	// Version is Postern's.
	Version string
	// Log is told, at most once a minute, that spans were lost. Nil discards.
	Log *slog.Logger
	// Now is the clock of that minute; nil means time.Now.
	Now func() time.Time
}

// Tracer makes spans. Any number of goroutines may use it.
type Tracer struct {
	provider  *sdk.TracerProvider
	tracer    trace.Tracer
	collector *collector
}

// New starts sending spans; [Tracer.Close] ends that. It opens no connection: the collector may come up later. What the OpenTelemetry libraries read
// from OTEL_ variables is set here, so that they change nothing.
func New(o Options) *Tracer {
	c := newCollector(o)
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(o.Sample))),
		sdk.WithResource(resource.Empty()), // the collector writes its own
		sdk.WithRawSpanLimits(sdk.SpanLimits{
			AttributeValueLengthLimit: 256, AttributeCountLimit: 16, LinkCountLimit: 1,
		}),
		sdk.WithBatcher(otlptrace.NewUnstarted(c),
			sdk.WithMaxQueueSize(queueSize), sdk.WithMaxExportBatchSize(batchSize),
			sdk.WithBatchTimeout(batchEvery), sdk.WithExportTimeout(sendTimeout)),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("postern"), collector: c}
}

// Close sends what is left, for a few seconds at most.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the collector has said what was lost
	t.collector.close()
}

// Request begins the span of a request, and returns the request with it in its context. The trace that the client names (W3C Trace Context) is
// continued, with its decision whether to record, only when the client is trusted. Anyone else's is no more than a link: a stranger neither
// makes us record nor writes into a trace of ours.
func (t *Tracer) Request(r *http.Request, trusted bool) (*http.Request, *Span) {
	if t == nil {
		return r, nil
	}
	ctx, options := r.Context(), []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}
	switch named := traceNamedBy(r.Header); {
	case !named.IsValid():
	case trusted:
		ctx = trace.ContextWithRemoteSpanContext(ctx, named)
	default:
		options = append(options, trace.WithLinks(trace.Link{SpanContext: named.WithTraceState(trace.TraceState{})}))
	}
	ctx, span := t.tracer.Start(ctx, "request", options...)
	return r.WithContext(ctx), &Span{span}
}

// traceNamedBy is the span that a request says it belongs to; not valid without one.
func traceNamedBy(h http.Header) trace.SpanContext {
	if len(h["Traceparent"]) != 1 { // Trace Context section 3.2: with several, none counts
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(h))
	return trace.SpanContextFromContext(ctx)
}

// Upstream begins the span of an application's part in the request of ctx. Where that is not recorded it is the request's own, so that the application is told
// so all the same.
func (t *Tracer) Upstream(ctx context.Context, method string) *Span {
	switch {
	case t == nil:
		return nil
	case !t.records(ctx):
		return &Span{trace.SpanFromContext(ctx)}
	}
	method = knownMethod(method)
	return t.part(ctx, "upstream "+method, semconv.HTTPRequestMethodKey.String(method))
}

// Provider begins the span of a call to an identity provider's endpoint, which what names. Nothing of the trace is sent along: the provider is
// somebody else's.
func (t *Tracer) Provider(ctx context.Context, provider, what string, r *http.Request) *Span {
	if !t.records(ctx) {
		return nil
	}
	return t.part(ctx, "provider "+what,
		attribute.String("postern.provider", provider),
		semconv.HTTPRequestMethodKey.String(r.Method),
		semconv.ServerAddress(r.URL.Hostname()))
}

// Store begins the span of one operation of the session store, which is of that system: redis or memory.
func (t *Tracer) Store(ctx context.Context, system, operation string) *Span {
	if !t.records(ctx) {
		return nil
	}
	return t.part(ctx, "store "+operation, semconv.DBSystemNameKey.String(system), semconv.DBOperationName(operation))
}

// records tells whether ctx is of a request that is recorded. What Postern does by itself is not.
func (t *Tracer) records(ctx context.Context) bool {
	return t != nil && trace.SpanContextFromContext(ctx).IsSampled()
}

func (t *Tracer) part(ctx context.Context, name string, attributes ...attribute.KeyValue) *Span {
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return &Span{span}
}
