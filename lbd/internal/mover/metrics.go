package mover

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/lbd/internal/handover"
)

var _ prometheus.Collector = (*Mover)(nil)

// Describe says nothing: the metrics come unchecked.
func (m *Mover) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *Mover) Collect(metrics chan<- prometheus.Metric) {
	c := m.Counters()
	show := func(kind prometheus.ValueType, name, help string, value float64, labels, values []string) {
		desc := prometheus.NewDesc(prometheus.BuildFQName("manycast", "agent", name), help, labels, nil)
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, values...)
	}
	count := func(name, help string, value uint64) {
		show(prometheus.CounterValue, name, help, float64(value), nil, nil)
	}
	reasons := func(name, help string, of map[handover.Reason]uint64) {
		for reason, n := range of {
			show(prometheus.CounterValue, name, help, float64(n), []string{"reason"}, []string{reason.String()})
		}
	}
	count("transfers_given_total", "Connections that other servers have taken.", c.Given)
	count("transfers_taken_total", "Connections taken from other servers.", c.Taken)
	metrics <- prometheus.MustNewConstHistogram(
		prometheus.NewDesc("manycast_agent_transfer_state_bytes", "Sizes of states that were sent.", nil, nil), c.Sizes.Count(), float64(c.Bytes), c.Sizes.Octaves(),
	)
	reasons("transfers_stayed_total", "Connections that were to be given, and go on here.", c.Stayed)
	reasons("transfers_lost_total", "Connections that were to be given, and were closed.", c.Lost)
	reasons("transfers_not_taken_total", "Connections that were to come, and did not.", c.NotTaken)
	show(prometheus.GaugeValue, "transfer_longest_seconds", "From an offer that was taken up to the live connection.", c.Longest.Seconds(), nil, nil)
}
