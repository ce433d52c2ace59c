package channel

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/control"
)

var _ prometheus.Collector = (*Channel)(nil)

// Describe says nothing: the metrics come unchecked.
func (c *Channel) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *Channel) Collect(metrics chan<- prometheus.Metric) {
	n := c.Counters()
	count := func(name, help string, value uint64, labels, values []string) {
		desc := prometheus.NewDesc(prometheus.BuildFQName("manycast", "control", name), help, labels, nil)
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), values...)
	}
	count("frames_sent_total", "Frames that left.", n.Sent, nil, nil)
	count("frames_unsent_total", "Times that frames left by no interface.", n.Unsent, nil, nil)
	count("heartbeats_total", "Heartbeats taken.", n.Heartbeats, nil, nil)
	count("heartbeat_copies_total", "Heartbeats that came by another way as well.", n.Copies, nil, nil)
	count("messages_total", "Messages taken.", n.Messages, nil, nil)
	count("stalls_total", "Times that this process stood still too long to tell who is silent.", n.Stalls, nil, nil)
	for reason, refused := range n.Refused {
		count("frames_refused_total", "Frames refused.", refused, []string{"reason"}, []string{string(reason)})
	}
	by := make(map[control.Health]int)
	for _, m := range c.Members() {
		by[m.Health]++
	}
	for health := control.Unknown; health <= control.Silent; health++ {
		desc := prometheus.NewDesc("manycast_control_members", "Other members known.", []string{"health"}, nil)
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(by[health]), health.String())
	}
}
