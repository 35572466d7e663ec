// Package metrics counts what Postern does, for Prometheus. Labels are bounded: names from the configuration and words of our own,
// never anything that a request says.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts. A nil *Metrics counts nothing, so callers need not ask. Any number of goroutines may use it.
type Metrics struct {
	registry *prometheus.Registry
	ended    *prometheus.CounterVec
}

// New makes the metrics of one process that runs that version of Postern.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_sessions_ended_total",
			Help: "Sessions that ended through this process, or that it was the first here to see ended, by provider and reason.",
		}, []string{"provider", "reason"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "postern_build_info", Help: "1; the version is the label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(m.ended, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// SessionEnded counts the end of a session for one of the reasons of package session.
func (m *Metrics) SessionEnded(provider, reason string) {
	if m != nil {
		m.ended.WithLabelValues(provider, reason).Inc()
	}
}

// OpenStreams makes count, which must be quick, the number of open WebSockets and long responses. Call it at most once.
func (m *Metrics) OpenStreams(count func() int) {
	if m != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "postern_open_streams", Help: "Open WebSockets and responses of unknown length.",
		}, func() float64 { return float64(count()) }))
	}
}

// Handler answers a scrape (GET /metrics). A nil *Metrics has none.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}
