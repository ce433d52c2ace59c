package server

import (
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts answers and updates; it is a prometheus.Collector.
type Metrics struct {
	answers *prometheus.CounterVec
	updates *prometheus.CounterVec
}

func newMetrics() *Metrics {
	return &Metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "manycast_dnsd_answers_total", Help: "Answers sent, by transport and response code.",
		}, []string{"transport", "rcode"}),
		updates: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "manycast_dnsd_updates_total", Help: "Dynamic updates, by response code.",
		}, []string{"rcode"}),
	}
}

func (m *Metrics) answered(r *request, rcode int) {
	transport := "tcp"
	if r.udp {
		transport = "udp"
	}
	m.answers.WithLabelValues(transport, dns.RcodeToString[rcode]).Inc()
}

func (m *Metrics) updated(rcode int) { m.updates.WithLabelValues(dns.RcodeToString[rcode]).Inc() }

// Describe is prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.answers.Describe(ch)
	m.updates.Describe(ch)
}

// Collect is prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.answers.Collect(ch)
	m.updates.Collect(ch)
}
