package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var _ prometheus.Collector = (*Loop)(nil)

// Describe says nothing: the metrics come unchecked.
func (l *Loop) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector: what was closed, and who is pinned.
func (l *Loop) Collect(metrics chan<- prometheus.Metric) {
	show := func(kind prometheus.ValueType, name, help string, value float64, labels []string, of ...string) {
		metrics <- prometheus.MustNewConstMetric(prometheus.NewDesc(prometheus.BuildFQName("manycast", "agent", name), help, labels, nil), kind, value, of...)
	}
	const closed = "Connections of users whom this server lost that it closed: moved, at their deadline, at a break point, or as their owner was back."
	for why, n := range l.Ended() {
		show(prometheus.CounterValue, "closed_total", closed, float64(n), []string{"reason"}, why)
	}
	p := l.pinner
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	const unpinned = "Users of others with connections here, whose packets are forwarded: beyond what a server pins, or of IPv6 or told apart by port."
	for service, s := range p.book {
		if s.nobody(time.Now()) {
			continue
		}
		show(prometheus.GaugeValue, "pinned_users", "Users of others with connections here, whose packets routers bring.", float64(len(s.Users)), []string{"service"}, service)
		show(prometheus.GaugeValue, "unpinned_users", unpinned, float64(s.Over), []string{"service", "why"}, service, "over")
		show(prometheus.GaugeValue, "unpinned_users", unpinned, float64(s.Apart), []string{"service", "why"}, service, "apart")
	}
	const prepared = "Times that users to go were pinned: held by routers, or late, when the server said that it was prepared."
	show(prometheus.CounterValue, "pins_prepared_total", prepared, float64(p.held), []string{"how"}, "held")
	show(prometheus.CounterValue, "pins_prepared_total", prepared, float64(p.late), []string{"how"}, "late")
}
