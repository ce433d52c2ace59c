package load

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

var _ prometheus.Collector = (*Task)(nil)

// state is what metrics show, and what a Task itself writes.
type state struct {
	mu       sync.Mutex
	loads    map[string]alloc.Load
	traffic  map[string]dataplane.Traffic
	refusing map[string]refusing
	failures map[sourceOf]uint64
	failing  map[sourceOf]bool
}

func newState() state {
	return state{refusing: make(map[string]refusing), failures: make(map[sourceOf]uint64), failing: make(map[sourceOf]bool)}
}

func (s *state) tell(loads map[string]alloc.Load, r Reading) {
	traffic := make(map[string]dataplane.Traffic, len(r.Services))
	for name, of := range r.Services {
		traffic[name] = of.Traffic
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads, s.traffic = loads, traffic
}

func (s *state) refuse(r refusing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusing[r.service.Name] = r
}

// count reports whether a source's state is another now.
func (s *state) count(source sourceOf, failed bool) (isNews bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed {
		s.failures[source]++
	}
	isNews = s.failing[source] != failed
	s.failing[source] = failed
	return isNews
}

// Describe says nothing: the metrics come unchecked.
func (t *Task) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (t *Task) Collect(metrics chan<- prometheus.Metric) {
	show := func(kind prometheus.ValueType, name, help string, value float64, label, of string) {
		desc := prometheus.NewDesc(prometheus.BuildFQName("manycast", "agent", name), help, []string{label}, nil)
		metrics <- prometheus.MustNewConstMetric(desc, kind, value, of)
	}
	t.state.mu.Lock()
	defer t.state.mu.Unlock()
	for service, l := range t.state.loads {
		gauge := func(name, help string, value float64) {
			show(prometheus.GaugeValue, name, help, value, "service", service)
		}
		gauge("load_ratio", "Load in one number; 1 is as much as the server can bear.", Figure(l))
		gauge("load_connections", "Established TCP connections.", float64(l.Connections))
		gauge("load_accepts_per_second", "New TCP connections.", l.Accepts)
		gauge("load_bytes_per_second", "Both directions, with link-layer headers.", l.Bytes)
		gauge("load_queue", "Connections that wait to be accepted.", float64(l.Queue))
		gauge("load_cpu_ratio", "Of the whole machine.", l.CPU)
		gauge("load_memory_pressure_ratio", "Part of the time in which tasks wait for memory.", l.Memory)
		gauge("load_hot_portions", "Portions with a large part of the packets.", float64(len(l.Hot)))
		gauge("load_wanted_portions", "Portions that the application asks for.", float64(len(l.Wanted)))
		if l.Application != nil {
			gauge("load_application_ratio", "What the application says; 1 is as much as it can bear.", *l.Application)
		}
	}
	for service, r := range t.state.refusing {
		show(prometheus.GaugeValue, "shed_ratio", "Part of the users whose new connections are refused.", r.Refused, "service", service)
	}
	for service, of := range t.state.traffic {
		show(prometheus.CounterValue, "service_refused_total", "New connections refused.", float64(of.Refused), "service", service)
	}
	t.state.failures[application] = t.application.Failures()
	for source, n := range t.state.failures {
		show(prometheus.CounterValue, "load_failures_total", "Times that a source of load could not be read.", float64(n), "source", string(source))
	}
}
