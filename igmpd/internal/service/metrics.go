package service

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manycast_igmpd_"+name, help, labels, nil)
}

// collector turns a status into metrics when it is asked.
type collector struct {
	r Reporter
}

// Describe says nothing: the metrics come unchecked.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	st, err := c.r.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(desc("up", "The router answers."), err)
		return
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(desc("joins_admitted_total", "Extended joins accepted, part by part."), st.Admitted)
	counter(desc("joins_relayed_total", "Extended joins passed on toward roots."), st.Relayed)
	for reason, n := range st.Refused {
		counter(desc("joins_refused_total", "Joins refused.", "reason"), n, reason)
	}
	counter(desc("packets_no_owner_total", "Packets of private groups that nobody owns."), st.Forwarding.NoOwner)
	counter(desc("packets_accelerated_total", "Packets forwarded by the accelerator."), st.Forwarding.Accelerated)
	counter(desc("packets_tables_total", "Packets left to the kernel's tables."), st.Forwarding.Tables)
	for _, g := range st.Groups {
		if g.Private {
			out <- prometheus.MustNewConstMetric(desc("members", "Requesters with a set of a private group.", "group"),
				prometheus.GaugeValue, float64(g.Members), g.Group)
		}
	}
	for _, j := range st.Joins {
		counter(desc("owner_packets_total", "Packets for a requester, of all its groups.", "group", "requester", "port"), j.Packets, j.Group, j.Requester, j.Port)
	}
}
