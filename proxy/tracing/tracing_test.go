package tracing_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern/proxy/tracing"
	"postern/proxy/tracing/tracingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	strangersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	strangersSpan  = "00f067aa0ba902b7"
	sampled        = "00-" + strangersTrace + "-" + strangersSpan + "-01"
	notSampled     = "00-" + strangersTrace + "-" + strangersSpan + "-00"
)

func newTracer(t *testing.T, at *url.URL, sample float64) *tracing.Tracer {
	t.Helper()
	tracer := tracing.New(tracing.Options{Endpoint: at, Sample: sample, Version: "1.2.3", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(tracer.Close)
	return tracer
}

// ask makes one request that an application has part in, and returns what the application was sent.
func ask(tracer *tracing.Tracer, trusted bool, header http.Header) http.Header {
	in := httptest.NewRequest(http.MethodGet, "/canary-path?q=canary-query", nil)
	in.Header = header
	r, span := tracer.Request(in, trusted)
	out := httptest.NewRequest(http.MethodGet, "http://app.internal:8080/", nil)
	out.Header = r.Header.Clone()
	part := tracer.Upstream(r.Context(), r.Method)
	part.Send(out, trusted)
	part.Answered(&http.Response{StatusCode: http.StatusOK})
	part.End()
	span.EndRequest(tracing.Result{Method: r.Method, Scheme: "https", Route: "wiki.example.com/", Status: 200, Verdict: "allow", Reason: "signed_in"})
	return out.Header
}

func from(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	return h
}

func TestARequestAndItsPartsAreOneTrace(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	sent := ask(tracer, false, from())
	tracer.Close()

	request, upstream := c.One(t, "GET wiki.example.com/"), c.One(t, "upstream GET")
	if got := c.Below(request); !slices.Equal(got, []string{"upstream GET"}) {
		t.Errorf("below the request are %q", got)
	}
	if len(request.ParentSpanId) != 0 {
		t.Error("the request has a parent")
	}
	want := "00-" + hex.EncodeToString(request.TraceId) + "-" + hex.EncodeToString(upstream.SpanId) + "-01"
	if got := sent.Get("Traceparent"); got != want {
		t.Errorf("the application got traceparent %q, want %q", got, want)
	}
	for name, want := range map[string]any{
		"http.request.method": "GET", "http.route": "wiki.example.com/", "http.response.status_code": int64(200), "url.scheme": "https",
		"postern.verdict": "allow", "postern.reason": "signed_in",
	} {
		if got := request.Attributes[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := upstream.Attributes["server.address"]; got != "app.internal" {
		t.Errorf("server.address is %v", got)
	}
	if r := c.Resource(t); r["service.name"] != "postern" || r["service.version"] != "1.2.3" {
		t.Errorf("the resource is %v", r)
	}
	if c.Holds("canary") {
		t.Error("a canary was exported")
	}
}

// A traceparent from the internet must neither make us record nor write into a trace of ours.
func TestAStrangersTraceIsOnlyLinkedTo(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	sent := ask(tracer, false, from("Traceparent: "+sampled, "Tracestate: vendor=canary", "Baggage: user=canary"))
	tracer.Close()

	request := c.One(t, "GET wiki.example.com/")
	if hex.EncodeToString(request.TraceId) == strangersTrace || len(request.ParentSpanId) != 0 {
		t.Error("the stranger's trace was continued")
	}
	if len(request.Links) != 1 || hex.EncodeToString(request.Links[0].TraceId) != strangersTrace {
		t.Errorf("links are %v", request.Links)
	}
	if got := sent.Get("Traceparent"); !strings.HasPrefix(got, "00-"+hex.EncodeToString(request.TraceId)) {
		t.Errorf("the application got traceparent %q", got)
	}
	if sent.Get("Tracestate") != "" || sent.Get("Baggage") != "" {
		t.Errorf("the application got the stranger's headers: %v", sent)
	}
	if c.Holds("canary") {
		t.Error("a canary was exported")
	}
}

func TestStrangersCannotForceRecording(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 0)
	for range 50 {
		sent := ask(tracer, false, from("Traceparent: "+sampled))
		if got := sent.Get("Traceparent"); !strings.HasSuffix(got, "-00") || strings.Contains(got, strangersTrace) {
			t.Fatalf("the application got traceparent %q", got)
		}
	}
	tracer.Close()
	if got := c.Spans(); len(got) != 0 {
		t.Errorf("%d spans were recorded", len(got))
	}
}

func TestATrustedProxysTraceIsContinued(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 0)
	sent := ask(tracer, true, from("Traceparent: "+sampled, "Tracestate: vendor=1", "Baggage: shop=7"))
	tracer.Close()
	request := c.One(t, "GET wiki.example.com/")
	if hex.EncodeToString(request.TraceId) != strangersTrace || hex.EncodeToString(request.ParentSpanId) != strangersSpan {
		t.Errorf("trace %x, parent %x", request.TraceId, request.ParentSpanId)
	}
	if sent.Get("Tracestate") != "vendor=1" || sent.Get("Baggage") != "shop=7" || !strings.HasPrefix(sent.Get("Traceparent"), "00-"+strangersTrace) {
		t.Errorf("the application got %v", sent)
	}
}

func TestATrustedProxyMayDecideNotToRecord(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	sent := ask(tracer, true, from("Traceparent: "+notSampled))
	tracer.Close()
	if len(c.Spans()) != 0 || !strings.HasPrefix(sent.Get("Traceparent"), "00-"+strangersTrace) || !strings.HasSuffix(sent.Get("Traceparent"), "-00") {
		t.Errorf("%d spans; the application got %v", len(c.Spans()), sent)
	}
}

func TestATraceparentThatIsNoneBeginsANewTrace(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	for _, h := range []http.Header{
		from("Traceparent: "+sampled, "Traceparent: "+sampled),
		from("Traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
		from("Traceparent: canary", "Tracestate: canary=1"),
		from("Tracestate: canary=1"),
	} {
		sent := ask(tracer, true, h)
		if got := sent["Traceparent"]; len(got) != 1 || strings.Contains(got[0], strangersTrace) || sent.Get("Tracestate") != "" {
			t.Errorf("from %v the application got %v", h, sent)
		}
	}
	tracer.Close()
	for _, s := range c.Spans() {
		if len(s.Links) != 0 || hex.EncodeToString(s.TraceId) == strangersTrace {
			t.Errorf("%s is of trace %x with links %v", s.Name, s.TraceId, s.Links)
		}
	}
}

func TestSampleIsTheShareThatIsRecorded(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 0.25)
	for range 1000 {
		_, span := tracer.Request(httptest.NewRequest(http.MethodGet, "/", nil), false)
		span.EndRequest(tracing.Result{Method: "GET"})
	}
	tracer.Close()
	if n := len(c.Spans()); n < 150 || n > 350 {
		t.Errorf("%d of 1000 requests were recorded, want about 250", n)
	}
}

func TestNamesAreBounded(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	_, span := tracer.Request(httptest.NewRequest("CANARY", "/", nil), false)
	span.EndRequest(tracing.Result{Method: "CANARY", Status: http.StatusNotFound})
	tracer.Close()
	request := c.One(t, "_OTHER")
	if request.Attributes["http.request.method"] != "_OTHER" || c.Holds("CANARY") {
		t.Errorf("attributes are %v", request.Attributes)
	}
}

func TestPartsOutsideOfARecordedRequestAreNotRecorded(t *testing.T) {
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 0)
	r, span := tracer.Request(httptest.NewRequest(http.MethodGet, "/", nil), false)
	call := httptest.NewRequest(http.MethodPost, "https://id.example.com/token", nil)
	for _, ctx := range []context.Context{r.Context(), context.Background()} {
		if s := tracer.Store(ctx, "redis", "get"); s != nil {
			t.Error("a store operation was recorded")
		}
		if s := tracer.Provider(ctx, "corp", "token endpoint", call); s != nil {
			t.Error("a call was recorded")
		}
	}
	if span.TraceID() != "" {
		t.Error("the trace has a name for the log although it is not recorded")
	}
}

func TestOffCostsNothing(t *testing.T) {
	var tracer *tracing.Tracer
	in := httptest.NewRequest(http.MethodGet, "/", nil)
	in.Header.Set("Traceparent", sampled)
	answer := &http.Response{StatusCode: http.StatusBadGateway}
	n := testing.AllocsPerRun(100, func() {
		r, span := tracer.Request(in, true)
		tracer.Store(r.Context(), "redis", "get").End()
		call := tracer.Provider(r.Context(), "corp", "token endpoint", in)
		call.Fail("timeout")
		call.End()
		part := tracer.Upstream(r.Context(), r.Method)
		part.Send(r, true)
		part.Answered(answer)
		part.End()
		if span.TraceID() != "" {
			t.Error("there is a trace")
		}
		span.EndRequest(tracing.Result{Method: "GET", Route: "/"})
		if r != in {
			t.Error("the request was copied")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := in.Header.Get("Traceparent"); got != sampled {
		t.Errorf("traceparent became %q", got)
	}
	tracer.Close()
}

func TestEndpointMayHaveAPath(t *testing.T) {
	paths := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths <- r.URL.Path }))
	defer server.Close()
	at, _ := url.Parse(server.URL + "/otlp/own/")
	tracer := newTracer(t, at, 1)
	ask(tracer, false, from())
	tracer.Close()
	if got := <-paths; got != "/otlp/own/" {
		t.Errorf("spans went to %s", got)
	}
}

// One YAML file drives Postern.
func TestEnvironmentChangesNothing(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("spans went where the environment says") }))
	defer elsewhere.Close()
	for name, value := range map[string]string{
		"OTEL_SERVICE_NAME": "canary", "OTEL_RESOURCE_ATTRIBUTES": "canary=1,service.version=canary", "OTEL_TRACES_SAMPLER": "always_off",
		"OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere.URL, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": elsewhere.URL, "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1", "OTEL_SPAN_LINK_COUNT_LIMIT": "0", "OTEL_BSP_MAX_QUEUE_SIZE": "1",
		"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none", "HTTP_PROXY": elsewhere.URL,
	} {
		t.Setenv(name, value)
	}
	c := tracingtest.New(t)
	tracer := newTracer(t, c.URL, 1)
	for range 20 {
		ask(tracer, false, from("Traceparent: "+sampled))
	}
	tracer.Close()
	spans := c.Spans()
	if len(spans) != 40 || c.Holds("canary") {
		t.Errorf("%d spans arrived, want 40; resource %v", len(spans), c.Resource(t))
	}
	if got := spans[0]; len(got.Attributes) < 6 || len(got.Links) != 1 {
		t.Errorf("the request has %v, links %v", got.Attributes, got.Links)
	}
}

// A collector that is down, slow or hostile costs a line in the log: nothing waits for it.
func TestBadCollectors(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	redirected := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	t.Cleanup(redirected.Close)
	for name, handler := range map[string]http.HandlerFunc{
		"down": nil,
		"never answers": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
		"answers for ever": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("canary "), 1<<10)); err != nil {
					return
				}
			}
		},
		"header without end": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("canary", 100<<10))
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, redirected.URL, http.StatusTemporaryRedirect)
		},
		"refuses": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canary", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(handler)
			t.Cleanup(server.Close)
			t.Cleanup(server.CloseClientConnections)
			at, _ := url.Parse(server.URL)
			if handler == nil {
				server.Close()
			}
			log := &logged{}
			tracer := tracing.New(tracing.Options{Endpoint: at, Sample: 1, Log: slog.New(slog.NewTextHandler(log, nil))})
			began := time.Now()
			for range 2000 { // two spans each: more than the queue holds
				ask(tracer, false, from())
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("requests took %v", took)
			}
			began = time.Now()
			tracer.Close()
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("closing took %v", took)
			}
			tracer.Close() // again does nothing
			ask(tracer, false, from())
			if lines := strings.Count(log.wait(t), "traces lost"); lines != 1 {
				t.Errorf("%d lines were logged, want one a minute:\n%s", lines, log)
			}
			if strings.Contains(log.String(), "canary") {
				t.Errorf("the log holds what the collector said: %s", log)
			}
		})
	}
}

func TestLossesAreLoggedOnceAMinute(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }))
	defer server.Close()
	at, _ := url.Parse(server.URL)
	log := &logged{}
	var mu sync.Mutex
	now := time.Now()
	tracer := tracing.New(tracing.Options{Endpoint: at, Sample: 1, Log: slog.New(slog.NewTextHandler(log, nil)), Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(20 * time.Second) // between batches
		return now
	}})
	for range 4 * 256 { // two spans each: four batches of 512
		ask(tracer, false, from())
	}
	tracer.Close()
	if got := strings.Count(log.String(), "traces lost"); got != 2 {
		t.Errorf("%d lines for four batches in 80 s, want 2:\n%s", got, log)
	}
	if !strings.Contains(log.String(), "spans=1536") {
		t.Errorf("the second line does not tell what was lost since the first:\n%s", log)
	}
}

func TestErrorsBecomeWords(t *testing.T) {
	for want, err := range map[string]error{
		"timeout": context.DeadlineExceeded, "canceled": context.Canceled, "_OTHER": errors.New("dial tcp: canary.internal refused"),
	} {
		if got := tracing.ErrorType(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}

// logged is a log that tests read while it is written.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits for the first line.
func (l *logged) wait(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); l.String() == ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was logged")
		}
	}
	return l.String()
}
