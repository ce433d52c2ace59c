package binder

import "github.com/prometheus/client_golang/prometheus"

var _ prometheus.Collector = (*Binder)(nil)

// Describe says nothing: the metrics come unchecked.
func (b *Binder) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector: what comes of servers' pins.
func (b *Binder) Collect(metrics chan<- prometheus.Metric) {
	const help = "Users whom servers pin: told to routers, or refused, for the server did not have them or another one had them later."
	desc := prometheus.NewDesc("manycast_director_pins", help, []string{"service", "what"}, nil)
	b.words.mu.Lock()
	defer b.words.mu.Unlock()
	for service, n := range b.words.counted {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n.told), service, "told")
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n.refused), service, "refused")
	}
}

// pinCount is what has come of a service's pins.
type pinCount struct{ told, refused int }
