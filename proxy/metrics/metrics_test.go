package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"postern/proxy/metrics"
)

func scrape(t *testing.T, m *metrics.Metrics) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Code, w.Body.String()
}

// countAll counts something in every metric.
func countAll(m *metrics.Metrics) {
	m.Route("wiki.example.com/").Answered("allow", 200, 300*time.Microsecond)
	m.SignIn("corp", "signed_in")
	m.Refresh("corp", "refreshed")
	m.RefreshWait("corp", time.Second)
	m.StoreOperation("get", "ok", time.Millisecond)
	m.StoreStatus(func() (string, uint64) { return "half-open", 3 })
	m.CacheLookup("hit")
	m.SessionEnded("corp", "idle")
	m.ProviderCall("corp", "token", "2xx", time.Second)
	m.StreamOpened()
	m.ForwardAuth("deny")
	m.Rejected("header")
	m.LogLinesDropped(5)
	m.ConfigReloaded(true)
}

func TestScrapeTellsWhatWasCounted(t *testing.T) {
	m := metrics.New("1.2.3")
	countAll(m)
	m.SessionEnded("corp", "idle")
	m.StreamOpened()
	m.StreamClosed()
	m.ConfigReloaded(false)
	_, body := scrape(t, m)
	for _, want := range []string{
		`postern_requests_total{code="200",route="wiki.example.com/",verdict="allow"} 1`,
		`postern_added_latency_seconds_bucket{verdict="allow",le="0.00025"} 0`,
		`postern_added_latency_seconds_bucket{verdict="allow",le="0.0005"} 1`,
		`postern_sign_ins_total{outcome="signed_in",provider="corp"} 1`,
		`postern_refreshes_total{outcome="refreshed",provider="corp"} 1`,
		`postern_refresh_wait_seconds_sum{provider="corp"} 1`,
		`postern_store_operations_total{operation="get",outcome="ok"} 1`,
		`postern_store_operation_duration_seconds_sum{operation="get"} 0.001`,
		`postern_store_breaker_state{state="closed"} 0`,
		`postern_store_breaker_state{state="half-open"} 1`,
		`postern_store_unconfirmed_writes_total 3`,
		`postern_session_cache_lookups_total{result="hit"} 1`,
		`postern_session_cache_lookups_total{result="miss"} 0`,
		`postern_sessions_ended_total{provider="corp",reason="idle"} 2`,
		`postern_provider_calls_total{endpoint="token",outcome="2xx",provider="corp"} 1`,
		`postern_provider_call_duration_seconds_sum{endpoint="token",provider="corp"} 1`,
		`postern_open_streams 1`,
		`postern_forward_auth_answers_total{verdict="deny"} 1`,
		`postern_rejected_total{limit="header"} 1`,
		`postern_log_lines_dropped_total 5`,
		`,version="1.2.3"} 1`,
		`postern_config_reloads_total{outcome="ok"} 1`,
		`postern_config_reloads_total{outcome="failed"} 1`,
		"postern_config_last_reload_successful 0",
		"postern_config_last_reload_success_timestamp_seconds ",
		"go_goroutines ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(body)
	}
}

func TestNilCountsNothing(t *testing.T) {
	var m *metrics.Metrics
	countAll(m)
	m.StreamClosed()
	if code, _ := scrape(t, m); code != 404 {
		t.Errorf("a scrape of nothing is %d, want 404", code)
	}
}

// An application may answer with any number, and each would be another series.
func TestStatusesThatHTTPDoesNotDefineCountTogether(t *testing.T) {
	m := metrics.New("1")
	r := m.Route("/")
	for status := range 1000 {
		r.Answered("allow", status, 0)
	}
	_, body := scrape(t, m)
	if n := strings.Count(body, "postern_requests_total{"); n > 80 {
		t.Errorf("%d series for 1000 statuses", n)
	}
	for _, want := range []string{`code="2xx"`, `code="9xx"`, `code="499"`, `code="404"`, `code="0"`} {
		if !strings.Contains(body, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

// After a reload the new routes count on where the old ones were.
func TestRoutesOfOneNameCountTogether(t *testing.T) {
	m := metrics.New("1")
	var all sync.WaitGroup
	for range 4 {
		r := m.Route("/wiki/")
		for i := range 100 {
			all.Go(func() { r.Answered("allow", 200+i%5, -time.Second) }) // a clock that was set back
		}
	}
	all.Wait()
	_, body := scrape(t, m)
	if want := `postern_requests_total{code="204",route="/wiki/",verdict="allow"} 80`; !strings.Contains(body, want) {
		t.Errorf("the scrape lacks %s:\n%s", want, body)
	}
	if want := `postern_added_latency_seconds_sum{verdict="allow"} 0`; !strings.Contains(body, want) {
		t.Errorf("the scrape lacks %s:\n%s", want, body)
	}
}

func TestFailure(t *testing.T) {
	for want, err := range map[string]error{
		"canceled": fmt.Errorf("get: %w", context.Canceled),
		"timeout":  fmt.Errorf("get: %w", os.ErrDeadlineExceeded),
		"error":    errors.New("connection refused"),
	} {
		if got := metrics.Failure(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// What is on the way of every request allocates nothing.
func TestCountingARequestAllocatesNothing(t *testing.T) {
	m := metrics.New("1")
	r := m.Route("/")
	n := testing.AllocsPerRun(1000, func() {
		r.Answered("allow", 200, time.Millisecond)
		m.CacheLookup("hit")
		m.StreamOpened()
		m.StreamClosed()
	})
	if n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCountingARequest(b *testing.B) {
	m := metrics.New("1")
	routes := make([]*metrics.Route, 8)
	for i := range routes {
		routes[i] = m.Route("/" + strconv.Itoa(i))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		routes[i&7].Answered("allow", 200, time.Duration(i&0xfffff))
		m.CacheLookup("hit")
	}
}
