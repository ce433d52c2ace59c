package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestCounters(t *testing.T) {
	type counters struct{ NotMine, ICMPErrors uint64 }
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(NewCounters("agent", func() (counters, error) { return counters{7, 9}, nil }))
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range all {
		got[family.GetName()] = family.GetMetric()[0].GetCounter().GetValue()
	}
	if len(got) != 2 || got["manycast_agent_not_mine_total"] != 7 || got["manycast_agent_icmp_errors_total"] != 9 {
		t.Errorf("%v", got)
	}
}
