package relay

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are totals since the start.
type counters struct {
	accepted, arrived, moved, unreachable atomic.Uint64

	mu   sync.Mutex
	stay map[string]uint64 // by reason
}

func (c *counters) stayed(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stay[why]++
}

func (c *counters) stays() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.stay)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manycast_relay_"+name, help, labels, nil)
}

var (
	descConnections = desc("connections", "Users' connections by what they are at: between or in-request, or why they stay.", "mode")
	descAccepted    = desc("accepted_total", "Users' connections that began here.")
	descArrived     = desc("arrived_total", "Users' connections that came from another server.")
	descMoved       = desc("moved_total", "Users' connections that went to another server.")
	descStayed      = desc("stayed_total", "Times that a connection was to leave and declined, by the reason.", "reason")
	descUnreachable = desc("backend_unreachable_total", "Connections to a backend that could not be had.")
)

// Describe implements prometheus.Collector.
func (r *Relay) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descConnections, descAccepted, descArrived, descMoved, descStayed, descUnreachable} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Relay) Collect(metrics chan<- prometheus.Metric) {
	for mode, n := range r.modes() {
		metrics <- prometheus.MustNewConstMetric(descConnections, prometheus.GaugeValue, float64(n), mode)
	}
	for d, n := range map[*prometheus.Desc]*atomic.Uint64{
		descAccepted: &r.counters.accepted, descArrived: &r.counters.arrived, descMoved: &r.counters.moved, descUnreachable: &r.counters.unreachable,
	} {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n.Load()))
	}
	for why, n := range r.counters.stays() {
		metrics <- prometheus.MustNewConstMetric(descStayed, prometheus.CounterValue, float64(n), why)
	}
}
