package metrics

import "github.com/prometheus/client_golang/prometheus"

// reloads counts changes of the configuration.
type reloads struct {
	total            *prometheus.CounterVec
	good, lastGoodAt prometheus.Gauge
}

// newReloads begins with the configuration of the start, which was good.
func newReloads() reloads {
	r := reloads{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_config_reloads_total",
			Help: "Times that the configuration was read again while Postern ran, by outcome: ok, or failed and the old one stayed.",
		}, []string{"outcome"}),
		good: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_config_last_reload_successful", Help: "1 if the configuration as it was last read is in use, 0 if it was bad and an older one is.",
		}),
		lastGoodAt: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "postern_config_last_reload_success_timestamp_seconds", Help: "When the configuration in use was read, the one of the start included.",
		}),
	}
	r.total.WithLabelValues("ok")
	r.total.WithLabelValues("failed")
	r.good.Set(1)
	r.lastGoodAt.SetToCurrentTime()
	return r
}

// ConfigReloaded counts that the configuration was read again, and whether it was taken.
func (m *Metrics) ConfigReloaded(taken bool) {
	switch {
	case m == nil:
	case taken:
		m.reloads.total.WithLabelValues("ok").Inc()
		m.reloads.good.Set(1)
		m.reloads.lastGoodAt.SetToCurrentTime()
	default:
		m.reloads.total.WithLabelValues("failed").Inc()
		m.reloads.good.Set(0)
	}
}
