package tracing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	defaultPath = "/v1/traces" // OTLP, section "OTLP/HTTP Request"
	maxAnswer   = 64 << 10     // read of a collector's answer, so that its connection can be used again
	maxHeader   = 16 << 10     // of its header
	complainFor = time.Minute  // to a line in the log
)

// collector sends batches of spans to where they are kept. It is the otlptrace.Client that the batcher calls, for one batch at a time. A batch that
// cannot be sent is dropped.
//
// The one in otlptracehttp would do the same with gRPC linked in and with settings from OTEL_ variables.
type collector struct {
	endpoint  string
	transport *http.Transport
	self      *resource.Resource
	log       *slog.Logger
	now       func() time.Time
	stopped   context.Context // ends every send under way
	stop      context.CancelFunc

	lost  int       // spans, since the last line about it
	quiet time.Time // until then
}

func newCollector(o Options) *collector {
	at := *o.Endpoint
	if at.Path == "" || at.Path == "/" {
		at.Path = defaultPath
	}
	host, _ := os.Hostname()
	c := &collector{
		endpoint: at.String(),
		// The collector stands in one's own network, as applications do: no proxy from the environment leads there.
		transport: &http.Transport{
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           1,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
		},
		self: &resource.Resource{Attributes: []*common.KeyValue{
			text(string(semconv.ServiceNameKey), "postern"),
			text(string(semconv.ServiceVersionKey), o.Version),
			text(string(semconv.HostNameKey), host),
		}},
		log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		now: o.Now,
	}
	if c.now == nil {
		c.now = time.Now
	}
	c.stopped, c.stop = context.WithCancel(context.Background())
	return c
}

func text(key, value string) *common.KeyValue {
	return &common.KeyValue{Key: key, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: value}}}
}

// Start implements otlptrace.Client.
func (c *collector) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *collector) Stop(context.Context) error { return nil }

// UploadTraces sends one batch. It returns no error: the SDK would write it to standard error.
func (c *collector) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	count := 0
	for _, r := range spans {
		r.Resource, r.SchemaUrl = c.self, semconv.SchemaURL // the SDK's has what OTEL_RESOURCE_ATTRIBUTES says
		for _, s := range r.ScopeSpans {
			count += len(s.Spans)
		}
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans}) // on the wire the same as ExportTraceServiceRequest
	if err == nil {
		err = c.post(ctx, body)
	}
	if err != nil {
		c.complain(count, err)
	}
	return nil
}

func (c *collector) post(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.stopped, cancel)()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "postern")
	req.Header["Idempotency-Key"] = nil // is not sent, but lets net/http try again when an idle connection turns out to be closed
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	if resp.StatusCode < 200 || resp.StatusCode > 299 { // a redirect is not followed
		return fmt.Errorf("collector answered status %d", resp.StatusCode)
	}
	return nil
}

// complain says what was lost, but not at each batch.
func (c *collector) complain(count int, err error) {
	c.lost += count
	now := c.now()
	if now.Before(c.quiet) {
		return
	}
	c.log.Warn("traces lost", "endpoint", c.endpoint, "spans", c.lost, "error", err)
	c.lost, c.quiet = 0, now.Add(complainFor)
}

// close breaks off what is under way.
func (c *collector) close() {
	c.stop()
	c.transport.CloseIdleConnections()
}
