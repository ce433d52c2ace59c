package client

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manycast_client_"+name, help, labels, nil)
}

var (
	descFollowed = desc("moves_followed_total", "Changes of destination that were believed.")
	descChecked  = desc("signatures_checked_total", "Signatures of changes of destination that were checked.")
	descRefused  = desc("moves_refused_total", "Changes of destination that passed the programs and were not believed, by reason.", "reason")
)

// noRoom is why a change is refused of a connection beyond the limit.
const noRoom = "no_room"

// Describe implements prometheus.Collector.
func (l *Loop) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descFollowed, descChecked, descRefused} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (l *Loop) Collect(metrics chan<- prometheus.Metric) {
	var n movement.FollowerCounters
	var beyond uint64
	if !l.ask(func() { n, beyond = l.follower.Counters(), l.noRoom }) {
		return
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(descFollowed, n.Followed)
	count(descChecked, n.Checked)
	for _, why := range movement.Reasons() {
		count(descRefused, n.Refused[why], why.String())
	}
	count(descRefused, beyond, noRoom)
}
