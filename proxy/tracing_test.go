package proxy_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"postern/proxy/proxytest"
	"postern/proxy/tracing"
	"postern/proxy/tracing/tracingtest"
)

// tracedStack is a stack that records every request; Close of the tracer has everything arrive.
func tracedStack(t *testing.T, o proxytest.Options) (*proxytest.Stack, *tracingtest.Collector, *tracing.Tracer) {
	t.Helper()
	c := tracingtest.New(t)
	o.Tracer = tracing.New(tracing.Options{Endpoint: c.URL, Sample: 1, Version: "test"})
	t.Cleanup(o.Tracer.Close)
	return proxytest.New(t, o), c, o.Tracer
}

// told is a transport that keeps the headers of what it carries.
type told struct {
	mu      sync.Mutex
	headers []http.Header
}

func (c *told) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.headers = append(c.headers, r.Header.Clone())
	c.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

func TestASignInIsTraced(t *testing.T) {
	calls := &told{}
	s, c, tracer := tracedStack(t, proxytest.Options{Transport: calls})
	b := s.Browser()
	got := b.Go("/deep/canary-path?q=canary-query").Received(t)
	b.Go("/again")
	tracer.Close()

	callback := c.One(t, "GET /oauth2/callback")
	if got := c.Below(callback); !slices.Contains(got, "provider token endpoint") || !slices.Contains(got, "store create") {
		t.Errorf("below the callback are %q", got)
	}
	if a := callback.Attributes; a["postern.verdict"] != "own" || a["postern.reason"] != "signed_in" || a["http.response.status_code"] != int64(303) {
		t.Errorf("the callback has %v", a)
	}
	call := c.One(t, "provider token endpoint")
	if a := call.Attributes; a["postern.provider"] != "corp" || a["server.address"] != "127.0.0.1" || a["http.request.method"] != "POST" || a["http.response.status_code"] != int64(200) {
		t.Errorf("the call has %v", a)
	}
	if a := c.One(t, "store create").Attributes; a["db.system.name"] != "memory" || a["db.operation.name"] != "create" || a["error.type"] != nil {
		t.Errorf("the store operation has %v", a)
	}
	application := got.Header.Get("Traceparent")
	var parents []string
	for _, span := range c.Spans() {
		if span.Name == "upstream GET" {
			parents = append(parents, "00-"+hex.EncodeToString(span.TraceId)+"-"+hex.EncodeToString(span.SpanId)+"-01")
		}
	}
	if len(parents) != 2 || parents[0] != application {
		t.Errorf("the application got traceparent %q of %q", application, parents)
	}
	for _, h := range calls.headers {
		if h.Get("Traceparent") != "" || h.Get("Tracestate") != "" {
			t.Errorf("the provider was told of the trace: %v", h)
		}
	}
	if !strings.Contains(s.Log.String(), `"trace_id":"`+hex.EncodeToString(callback.TraceId)+`"`) {
		t.Error("the log line of the callback does not name its trace")
	}

	// Nothing that a request says, and nothing secret, is exported.
	u, _ := url.Parse(s.URL)
	secrets := []string{"canary", "alice", "Alice", "wiki-users", got.Header.Get("Authorization"), strings.TrimPrefix(got.Header.Get("Authorization"), "Bearer "), u.Port()}
	for _, cookie := range b.Cookies() {
		secrets = append(secrets, cookie.Value)
	}
	for _, r := range s.Provider.TokenRequests() {
		secrets = append(secrets, r.Form.Get("code"), r.Form.Get("code_verifier"))
	}
	for _, secret := range secrets {
		if secret == "" {
			t.Error("a secret to look for is empty")
		} else if c.Holds(secret) {
			t.Errorf("%q was exported", secret)
		}
	}
}

func TestRefreshIsPartOfTheTraceThatNeedsIt(t *testing.T) {
	s, c, tracer := tracedStack(t, proxytest.Options{})
	s.Provider.SetTokenTTL(time.Minute)
	b := s.Browser()
	b.Go("/")
	s.Clock.Add(2 * time.Minute)
	b.Go("/after")
	tracer.Close()
	var below []string
	for _, span := range c.Spans() {
		if span.Name == "GET /" {
			below = c.Below(span)
		}
	}
	for _, want := range []string{"store acquire", "provider token endpoint", "store swap", "upstream GET"} {
		if !slices.Contains(below, want) {
			t.Errorf("below the request that refreshes are %q, without %q", below, want)
		}
	}
}

func TestFailuresOfPartsAreTold(t *testing.T) {
	store := newCountingStore()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	s, c, tracer := tracedStack(t, proxytest.Options{
		Store: store, Env: map[string]string{"GONE": gone.URL},
		Config: proxytest.Minimal + "  - {path: /gone, access: public, upstream: \"${GONE}\"}\n",
	})
	b := s.Browser()
	if a := b.Fetch("/gone"); a.StatusCode != http.StatusBadGateway {
		t.Fatalf("/gone is %s", a.Status)
	}
	b.Go("/")
	s.Clock.Add(10 * time.Second) // the copy in memory is too old to be used unasked
	store.down.Store(true)
	if a := b.Fetch("/"); a.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("without the store / is %s", a.Status)
	}
	tracer.Close()
	if a := c.One(t, "GET /gone").Attributes; a["error.type"] != "502" || a["postern.reason"] != "upstream_refused" || a["postern.verdict"] != "allow" {
		t.Errorf("the request has %v", a)
	}
	var refused, down bool
	for _, span := range c.Spans() {
		switch a := span.Attributes; {
		case span.Name == "upstream GET" && a["error.type"] == "upstream_refused":
			refused = a["http.response.status_code"] == nil
		case span.Name == "store get" && a["error.type"] == "_OTHER":
			down = true
		}
	}
	if !refused || !down {
		t.Errorf("upstream refused: %v, store down: %v", refused, down)
	}
	if c.Holds("test: down") || c.Holds("connection refused") {
		t.Error("an error's text was exported")
	}
}

// What an application gets of a client's own trace headers.
func TestTraceHeadersThatClientsSend(t *testing.T) {
	const theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	public := func(server string) string {
		return strings.Replace(proxytest.Minimal, `server: {`, `server: {`+server, 1) + "    access: public\n"
	}
	for _, test := range []struct {
		name, server           string
		on                     bool
		parent, state, baggage string // the beginning of the first
	}{
		{"off", "", false, theirs, "vendor=1", "shop=7"},
		{"a stranger's", "", true, "00-", "", ""},
		{"a trusted proxy's", "trusted_proxies: [127.0.0.0/8], ", true, theirs[:35], "vendor=1", "shop=7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := proxytest.Options{Config: public(test.server)}
			var s *proxytest.Stack
			if test.on {
				s, _, _ = tracedStack(t, o)
			} else {
				s = proxytest.New(t, o)
			}
			h := s.Browser().Do(http.MethodGet, "/", nil, map[string]string{"Traceparent": theirs, "Tracestate": "vendor=1", "Baggage": "shop=7"}).Received(t).Header
			if got := h["Traceparent"]; len(got) != 1 || !strings.HasPrefix(got[0], test.parent) || test.on == (got[0] == theirs) || test.server == "" && test.on && strings.Contains(got[0], theirs[3:35]) {
				t.Errorf("traceparent %q", got)
			}
			if h.Get("Tracestate") != test.state || h.Get("Baggage") != test.baggage {
				t.Errorf("tracestate %q, baggage %q", h.Get("Tracestate"), h.Get("Baggage"))
			}
		})
	}
}

// A client cannot keep what Postern says of the trace from the application by naming it in Connection.
func TestConnectionHeaderCannotDropTheTrace(t *testing.T) {
	s, _, _ := tracedStack(t, proxytest.Options{Config: proxytest.Minimal + "    access: public\n"})
	h := s.Browser().Do(http.MethodGet, "/", nil, map[string]string{"Connection": "Traceparent"}).Received(t).Header
	if h.Get("Traceparent") == "" {
		t.Error("the application got no traceparent")
	}
}

func TestStrangersPathsAreNotNames(t *testing.T) {
	s, c, tracer := tracedStack(t, proxytest.Options{Config: strings.Replace(proxytest.Minimal, "- upstream", "- path: /wiki\n    upstream", 1)})
	b := s.Browser()
	for i := range 5 {
		b.Fetch(fmt.Sprintf("/canary-%d", i))
		b.Fetch(fmt.Sprintf("/oauth2/canary-%d", i))
		b.Fetch(fmt.Sprintf("/wiki/canary-%d", i))
	}
	b.Fetch("/wiki/%2e%2e/canary")
	tracer.Close()
	var names []string
	for _, span := range c.Spans() {
		names = append(names, span.Name)
	}
	slices.Sort(names)
	if got := slices.Compact(names); !slices.Equal(got, []string{"GET", "GET /wiki"}) || c.Holds("canary") {
		t.Errorf("names are %q", got)
	}
}

func TestForwardAuthIsTraced(t *testing.T) {
	s, c, tracer := tracedStack(t, proxytest.Options{Config: `
server: {listen: "${LISTEN}", trusted_proxies: [127.0.0.1/32]}
forward_auth: {dialect: nginx}
providers:
  corp: {issuer: "${ISSUER}", client_id: wiki, client_secret: canary-client-secret}
routes:
  - {path: /open, access: public}
`})
	s.Browser().Do(http.MethodGet, "/oauth2/auth", nil, map[string]string{
		"X-Original-Url": s.URL + "/open/canary?q=canary", "X-Original-Method": "DELETE", "X-Forwarded-For": "192.0.2.1",
	})
	tracer.Close()
	if a := c.One(t, "DELETE /open").Attributes; a["postern.forward_auth"] != true || a["postern.reason"] != "public" {
		t.Errorf("the question has %v", a)
	}
	if c.Holds("canary") || c.Holds("192.0.2.1") {
		t.Error("what the client sent was exported")
	}
}

// A collector that does not answer delays nobody.
func TestRequestsDoNotWaitForTheCollector(t *testing.T) {
	held, release := make(chan struct{}, 100), make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		held <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer collector.Close()
	defer close(release)
	at, _ := url.Parse(collector.URL)
	tracer := tracing.New(tracing.Options{Endpoint: at, Sample: 1})
	defer tracer.Close()
	s := proxytest.New(t, proxytest.Options{Config: proxytest.Minimal + "    access: public\n", Tracer: tracer})
	b := s.Browser()
	for range 300 { // two spans each: a batch is under way, and stays so
		b.Fetch("/")
	}
	<-held
	if a := b.Fetch("/"); a.StatusCode != http.StatusOK {
		t.Errorf("while the collector hangs / is %s", a.Status)
	}
}

func TestAWebSocketIsTracedToItsEnd(t *testing.T) {
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			_, _, _ = c.Read(r.Context())
			_ = c.CloseNow()
		}
	})
	s, c, tracer := tracedStack(t, proxytest.Options{App: app, Config: proxytest.Minimal + "    access: public\n"})
	_ = dial(t, s, s.Browser(), "/").CloseNow()
	proxytest.Eventually(t, func() bool { return strings.Contains(s.Log.String(), `"msg":"request"`) })
	s.Stop() // the log line comes before the end of the span
	tracer.Close()
	request := c.One(t, "GET /")
	if got := c.Below(request); !slices.Equal(got, []string{"upstream GET"}) {
		t.Errorf("below the handshake are %q", got)
	}
	for _, span := range []tracingtest.Span{request, c.One(t, "upstream GET")} {
		if a := span.Attributes; a["http.response.status_code"] != int64(101) || a["error.type"] != nil {
			t.Errorf("%s has %v", span.Name, a)
		}
	}
}
