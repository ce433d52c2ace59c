package serving

import "github.com/prometheus/client_golang/prometheus"

var _ prometheus.Collector = (*Loop)(nil)

// Describe says nothing: the metrics come unchecked.
func (l *Loop) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (l *Loop) Collect(metrics chan<- prometheus.Metric) {
	c := l.Counters()
	show := func(kind prometheus.ValueType, name, help string, value uint64) {
		desc := prometheus.NewDesc(prometheus.BuildFQName("manycast", "agent", name), help, nil, nil)
		metrics <- prometheus.MustNewConstMetric(desc, kind, float64(value))
	}
	show(prometheus.CounterValue, "dynamic_moves_total", "Connections taken from other servers whose users were told.", c.Moves)
	show(prometheus.CounterValue, "dynamic_arrived_total", "Of these, connections whose users were heard here.", c.Arrived)
	show(prometheus.CounterValue, "dynamic_given_up_total", "Of these, connections whose users were not heard in time.", c.GivenUp)
	show(prometheus.CounterValue, "dynamic_messages_total", "Changes of destination that were sent.", c.Sent)
	show(prometheus.CounterValue, "dynamic_unsigned_total", "Changes of destination for which there was no key.", c.Unsigned)
	show(prometheus.CounterValue, "dynamic_unsent_total", "Changes of destination that the kernel did not take.", c.Unsent)
	show(prometheus.CounterValue, "dynamic_doubted_total", "Segments at this server's own address that are not their connection's next: late or forged.", c.Doubted)
	show(prometheus.GaugeValue, "dynamic_connections", "Connections here that have moved.", uint64(c.Here))
}
