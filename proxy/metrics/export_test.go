package metrics

import "github.com/prometheus/client_golang/prometheus"

// Registry is what a scrape reads.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }
