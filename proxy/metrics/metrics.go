// Package metrics counts what Postern does, for Prometheus. Labels are bounded: names from the configuration and words of our own,
// never anything that a request, a provider or an application says.
//
// Start at [New]. All methods of a nil [Metrics] do nothing, so callers need not ask. One Metrics lasts as long as the process, and counts for every
// [postern/proxy.Proxy] that serves meanwhile.
package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts. Any number of goroutines may use it.
type Metrics struct {
	registry      *prometheus.Registry
	requests      *prometheus.CounterVec
	added         *prometheus.HistogramVec
	signIns       *prometheus.CounterVec
	refreshes     *prometheus.CounterVec
	refreshWaits  *prometheus.HistogramVec
	storeOps      *prometheus.CounterVec
	storeTimes    *prometheus.HistogramVec
	lookups       map[string]prometheus.Counter
	ended         *prometheus.CounterVec
	providerCalls *prometheus.CounterVec
	providerTimes *prometheus.HistogramVec
	streams       prometheus.Gauge
	forwardAuth   *prometheus.CounterVec
	rejected      *prometheus.CounterVec
	droppedLines  prometheus.Counter
	reloads       reloads
}

// Buckets, in seconds.
var (
	addedBuckets    = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, .5, 2.5, 10}
	storeBuckets    = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5}
	providerBuckets = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
)

// The results of a lookup in the session cache.
var lookupResults = []string{"hit", "miss", "unconfirmed", "kept"}

// New makes the metrics of one process that runs that version of Postern.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), reloads: newReloads()}
	m.requests = m.counters("postern_requests_total",
		"Requests on the public listener. route is its host and path in the configuration, empty where none was reached. verdict is allow, sign_in, deny, "+
			"unavailable (a session could not be checked), or own (an endpoint of Postern, or refused before any decision). code is the status that was answered; "+
			"499: the client left first; 0: nothing was answered; a status that HTTP does not define counts as 2xx, 4xx and so on.",
		"route", "verdict", "code")
	m.added = m.histograms("postern_added_latency_seconds",
		"What Postern added to a request: from its header having arrived to the answer's header being written, without the time in which the application was waited for "+
			"(its request sent, up to its answer's header). Waiting for the session store, for a refresh or for a provider is in it; the copying of bodies is not.",
		addedBuckets, "verdict")
	m.signIns = m.counters("postern_sign_ins_total",
		"Sign-ins that came back from a provider. outcome is signed_in, wrong_password, provider_unavailable, bad_provider_answer, store_unavailable, "+
			"insufficient_authentication, or the provider's refusal: access_denied, denied, login_required, interaction_required, consent_required, "+
			"account_selection_required.",
		"provider", "outcome")
	m.refreshes = m.counters("postern_refreshes_total",
		"Refresh tokens sent to a provider. outcome is refreshed, rejected (invalid_grant: the session ends), invalid (the answer's ID token is wrong), again (certainly not "+
			"processed: 429, 503, no connection), or unknown (time-out, cut connection, 5xx).",
		"provider", "outcome")
	m.refreshWaits = m.histograms("postern_refresh_wait_seconds",
		"How long a request waited for a refresh, its own or another's, because the token had run out. Requests that went on with a token that is still valid are not in it.",
		providerBuckets, "provider")
	m.storeOps = m.counters("postern_store_operations_total",
		"Operations of the session store. outcome is ok, none (no such record), conflict (another version, or over), full, timeout, canceled (its request ended first) or error. "+
			"A touch tells of all sessions in use at that moment. The store is asked for a ping each second.",
		"operation", "outcome")
	m.storeTimes = m.histograms("postern_store_operation_duration_seconds", "How long operations of the session store took, whatever their outcome.", storeBuckets, "operation")
	lookups := m.counters("postern_session_cache_lookups_total",
		"Sessions looked for in the local cache. result is hit, miss, unconfirmed (there, but read from the store again) or kept (the store did not answer, and on_store_error let the "+
			"copy be used).",
		"result")
	m.lookups = map[string]prometheus.Counter{}
	for _, result := range lookupResults {
		m.lookups[result] = lookups.WithLabelValues(result)
	}
	m.ended = m.counters("postern_sessions_ended_total",
		"Sessions that ended through this process, or that it was the first here to see ended, by provider and reason.", "provider", "reason")
	m.providerCalls = m.counters("postern_provider_calls_total",
		"Calls to a provider. endpoint is discovery, jwks, token, userinfo, userinfo_call, introspection or revocation. outcome is the class of the status (2xx), or "+
			"timeout, canceled or error.",
		"provider", "endpoint", "outcome")
	m.providerTimes = m.histograms("postern_provider_call_duration_seconds", "How long calls to a provider took, whatever their outcome.", providerBuckets, "provider", "endpoint")
	m.streams = prometheus.NewGauge(prometheus.GaugeOpts{Name: "postern_open_streams", Help: "Open WebSockets and responses of unknown length."})
	m.forwardAuth = m.counters("postern_forward_auth_answers_total",
		"Answers to another proxy that asks whether a request may pass; they are in postern_requests_total, too. verdict is as there; own: the question itself was refused.", "verdict")
	m.rejected = m.counters("postern_rejected_total",
		"What was refused because of a limit of Postern: header, body, slow_body (a body that stood still), password (guesses), logout (tokens and frames that end nothing), "+
			"kept_request, connections (of one client).",
		"limit")
	m.droppedLines = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "postern_log_lines_dropped_total", Help: "Lines of the log that are lost: its reader was too slow, or could not take them.",
	})
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "postern_build_info", Help: "1; version is Postern's, goversion that of the Go that built it.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(m.streams, m.droppedLines, m.reloads.total, m.reloads.good, m.reloads.lastGoodAt, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(v)
	return v
}

// SignIn counts a sign-in that came back.
func (m *Metrics) SignIn(provider, outcome string) {
	if m != nil {
		m.signIns.WithLabelValues(provider, outcome).Inc()
	}
}

// Refresh counts a refresh token that was sent.
func (m *Metrics) Refresh(provider, outcome string) {
	if m != nil {
		m.refreshes.WithLabelValues(provider, outcome).Inc()
	}
}

// RefreshWait counts a request that waited for a refresh.
func (m *Metrics) RefreshWait(provider string, took time.Duration) {
	if m != nil {
		m.refreshWaits.WithLabelValues(provider).Observe(took.Seconds())
	}
}

// StoreOperation counts an operation of the session store.
func (m *Metrics) StoreOperation(operation, outcome string, took time.Duration) {
	if m != nil {
		m.storeOps.WithLabelValues(operation, outcome).Inc()
		m.storeTimes.WithLabelValues(operation).Observe(took.Seconds())
	}
}

// StoreStatus makes status, which must be quick, what is told of a store that breaks its circuit (closed, half-open or open) and counts the writes that too few replicas
// confirmed. Call it at most once.
func (m *Metrics) StoreStatus(status func() (breaker string, unconfirmed uint64)) {
	if m == nil {
		return
	}
	for _, state := range []string{"closed", "half-open", "open"} {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postern_store_breaker_state", ConstLabels: prometheus.Labels{"state": state},
			Help: "With Redis: 1 for the state of the circuit breaker, closed, half-open or open, else 0. While it is open, operations fail at once.",
		}, func() float64 {
			if now, _ := status(); now == state {
				return 1
			}
			return 0
		}))
	}
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "postern_store_unconfirmed_writes_total",
		Help: "With Redis: writes that fewer replicas had confirmed in time than session.store.redis.wait asks for.",
	}, func() float64 {
		_, unconfirmed := status()
		return float64(unconfirmed)
	}))
}

// CacheLookup counts a session that was looked for: hit, miss, unconfirmed or kept.
func (m *Metrics) CacheLookup(result string) {
	if m != nil {
		m.lookups[result].Inc()
	}
}

// SessionEnded counts the end of a session for one of the reasons of package session.
func (m *Metrics) SessionEnded(provider, reason string) {
	if m != nil {
		m.ended.WithLabelValues(provider, reason).Inc()
	}
}

// ProviderCall counts a call to an endpoint of a provider.
func (m *Metrics) ProviderCall(provider, endpoint, outcome string, took time.Duration) {
	if m != nil {
		m.providerCalls.WithLabelValues(provider, endpoint, outcome).Inc()
		m.providerTimes.WithLabelValues(provider, endpoint).Observe(took.Seconds())
	}
}

// StreamOpened counts a stream until StreamClosed.
func (m *Metrics) StreamOpened() {
	if m != nil {
		m.streams.Inc()
	}
}

// StreamClosed is called once for each StreamOpened.
func (m *Metrics) StreamClosed() {
	if m != nil {
		m.streams.Dec()
	}
}

// ForwardAuth counts an answer to another proxy.
func (m *Metrics) ForwardAuth(verdict string) {
	if m != nil {
		m.forwardAuth.WithLabelValues(verdict).Inc()
	}
}

// Rejected counts what a limit refused.
func (m *Metrics) Rejected(limit string) {
	if m != nil {
		m.rejected.WithLabelValues(limit).Inc()
	}
}

// LogLinesDropped counts lines of the log that are lost.
func (m *Metrics) LogLinesDropped(n int) {
	if m != nil {
		m.droppedLines.Add(float64(n))
	}
}

// Failure is the outcome of what got no answer: timeout, canceled or error.
func Failure(err error) string {
	var slow net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return "timeout"
	}
	return "error"
}

// Handler answers a scrape (GET /metrics). A nil *Metrics has none.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
