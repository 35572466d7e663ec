// Package tracingtest is a collector of OpenTelemetry spans for tests: it takes OTLP/HTTP and tells what arrived.
package tracingtest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector takes spans at POST /v1/traces.
type Collector struct {
	// URL is its address, without a path.
	URL *url.URL

	mu       sync.Mutex
	raw      []byte
	batches  []*tracepb.TracesData
	problems []string
}

// New starts a collector that ends with the test.
func New(t testing.TB) *Collector {
	t.Helper()
	c := &Collector{}
	server := httptest.NewServer(http.HandlerFunc(c.take))
	t.Cleanup(server.Close)
	t.Cleanup(func() {
		for _, p := range c.problems {
			t.Errorf("collector: %s", p)
		}
	})
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	c.URL = at
	return c
}

func (c *Collector) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed
	}
	batch := &tracepb.TracesData{}
	err = proto.Unmarshal(body, batch)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.problems = append(c.problems, err.Error())
	case r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf":
		c.problems = append(c.problems, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
	}
	c.raw = append(c.raw, body...)
	for name, values := range r.Header {
		c.raw = append(append(c.raw, name...), values[0]...)
	}
	c.batches = append(c.batches, batch)
}

// Holds tells whether a text arrived anywhere, headers included.
func (c *Collector) Holds(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.raw, []byte(text))
}

// Dump is all that arrived, headers included, to search for what must not be there.
func (c *Collector) Dump() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.raw)
}

// Resource is what the sender says of itself.
func (c *Collector) Resource(t testing.TB) map[string]any {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.batches) == 0 {
		t.Fatal("nothing arrived at the collector")
	}
	return values(c.batches[0].ResourceSpans[0].Resource.Attributes)
}

// Span is a span that arrived.
type Span struct {
	*tracepb.Span
	Attributes map[string]any
}

// Spans are all that arrived so far, in the order in which they began.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []Span
	for _, batch := range c.batches {
		for _, r := range batch.ResourceSpans {
			for _, scope := range r.ScopeSpans {
				for _, s := range scope.Spans {
					all = append(all, Span{s, values(s.Attributes)})
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Span) int { return int(int64(a.StartTimeUnixNano) - int64(b.StartTimeUnixNano)) })
	return all
}

// One is the only span with that name.
func (c *Collector) One(t testing.TB, name string) Span {
	t.Helper()
	var found []Span
	var names []string
	for _, s := range c.Spans() {
		names = append(names, s.Name)
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans are named %q; there are %q", len(found), name, names)
	}
	return found[0]
}

// Below are the names of the spans whose parent is s, in the order in which they began.
func (c *Collector) Below(s Span) []string {
	var names []string
	for _, other := range c.Spans() {
		if bytes.Equal(other.ParentSpanId, s.SpanId) && bytes.Equal(other.TraceId, s.TraceId) {
			names = append(names, other.Name)
		}
	}
	return names
}

func values(attributes []*commonpb.KeyValue) map[string]any {
	all := map[string]any{}
	for _, kv := range attributes {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			all[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			all[kv.Key] = v.IntValue
		case *commonpb.AnyValue_BoolValue:
			all[kv.Key] = v.BoolValue
		default:
			all[kv.Key] = kv.Value.String()
		}
	}
	return all
}
