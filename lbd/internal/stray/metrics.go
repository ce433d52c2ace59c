package stray

import "github.com/prometheus/client_golang/prometheus"

var _ prometheus.Collector = (*Loop)(nil)

// Describe says nothing: the metrics come unchecked.
func (l *Loop) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (l *Loop) Collect(metrics chan<- prometheus.Metric) {
	c := l.Counters()
	show := func(kind prometheus.ValueType, name, help string, value float64, labels, values []string) {
		desc := prometheus.NewDesc(prometheus.BuildFQName("manycast", "agent", name), help, labels, nil)
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, values...)
	}
	for name, n := range c.Asker() {
		show(prometheus.CounterValue, "stray_flows_total", "Flows whose server was looked for, and what became of them.", float64(n), []string{"what"}, []string{name})
	}
	for name, n := range c.Answers() {
		show(prometheus.CounterValue, "stray_answers_total", "What others look for.", float64(n), []string{"what"}, []string{name})
	}
	show(prometheus.GaugeValue, "stray_flows_led", "Flows that are led to the server that has them.", float64(c.Led), nil, nil)
	show(prometheus.GaugeValue, "stray_flows_held", "Flows that others lead here.", float64(c.Held), nil, nil)
}

// Asker are the totals of what was looked for here, by name.
func (c Counters) Asker() map[string]uint64 {
	return map[string]uint64{
		"asked": c.Asked, "found": c.Found, "given_up": c.GivenUp, "again": c.Again, "ended": c.Ended, "waiting": c.Waiting, "nobody": c.Nobody,
		"limited": c.Limited, "full": c.Full, "foreign": c.Foreign, "late": c.Late, "doubled": c.Doubled,
	}
}

// Answers are the totals of what others look for, by name.
func (c Counters) Answers() map[string]uint64 {
	h := c.Holder
	return map[string]uint64{
		"heard": h.Heard, "served": h.Served, "found": h.Found, "ended": h.Ended, "foreign": h.Foreign, "limited": h.Limited,
		"malformed": c.Malformed, "lost": c.Lost, "failed": c.Failed,
	}
}
