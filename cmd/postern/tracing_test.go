package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"postern/proxy/tracing/tracingtest"
)

// The spans of the last requests are sent before the process ends.
func TestSpansAreSentBeforeTheEnd(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Traceparent")) }))
	defer app.Close()
	c := tracingtest.New(t)
	r := start(t, "tracing: {endpoint: \""+c.URL.String()+"\", sample: 1}", "  - {upstream: \""+app.URL+"\", access: public}")
	if code, traceparent := get(r.url + "/"); code != http.StatusOK || traceparent == "" {
		t.Fatalf("/ is %d, the application got traceparent %q", code, traceparent)
	}
	r.terminate()
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	if got := c.Below(c.One(t, "GET /")); len(got) != 1 || got[0] != "upstream GET" {
		t.Errorf("below the request are %q", got)
	}
	if v := c.Resource(t)["service.version"]; v != version {
		t.Errorf("service.version is %v", v)
	}
}
