package edge

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/daemon/metrics"
	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// ListenMetrics makes the task that serves Prometheus metrics on addr, which takes connections when ListenMetrics returns.
func ListenMetrics(addr string, a Asker, more ...prometheus.Collector) (daemon.Task, error) {
	return metrics.Listen(addr, append(more, collector{a})...)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("manycast_tdpd_"+name, help, labels, nil)
}

// collector turns a status into metrics when it is asked.
type collector struct{ a Asker }

// Describe says nothing: the metrics come unchecked.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	answer, err := c.a.Ask(ctx, &tdpdv1.Request{About: &tdpdv1.Request_Status{}})
	if err != nil {
		out <- prometheus.NewInvalidMetric(desc("up", "The router answers."), err)
		return
	}
	st := answer.GetStatus()
	m := writer{out}
	m.count("sessions_up_total", "Sessions that became operational.", st.GetSessionsUp())
	m.count("sessions_down_total", "Operational sessions that ended.", st.GetSessionsDown())
	m.count("strangers_total", "Connections refused: of nobody whose hellos are heard, or begun otherwise than a session.", st.GetStrangers())
	for reason, n := range st.GetHellosRefused() {
		m.count("hellos_refused_total", "Hellos refused.", n, "reason", reason)
	}
	for what, n := range st.GetFastPath() {
		m.count("fast_path_packets_total", "Packets that the fast path took: told are of too_long, reset and unreachable of nobody.", n, "what", what)
	}
	m.labels(st.GetLabels())
	m.users(st)
	m.gauge("ilm_entries", "Labels that may come in.", uint64(st.GetForwarding().GetLabels()))
	m.gauge("ftn_entries", "Prefixes whose packets get labels.", uint64(st.GetForwarding().GetPrefixes()))
	m.gauge("forwarding_failed", "1: the kernel's tables are not as they should be.", flag(st.GetForwarding().GetError() != ""))
	m.gauge("servers", "Servers that trees are made for.", uint64(st.GetServers()))
	for _, n := range st.GetNeighbors() {
		m.neighbor(n)
	}
}

// writer writes them.
type writer struct{ out chan<- prometheus.Metric }

// count writes a counter; with are names and values of its labels in turn.
func (m writer) count(name, help string, v uint64, with ...string) {
	m.write(prometheus.CounterValue, name, help, v, with)
}

func (m writer) gauge(name, help string, v uint64, with ...string) {
	m.write(prometheus.GaugeValue, name, help, v, with)
}

func (m writer) write(kind prometheus.ValueType, name, help string, v uint64, with []string) {
	var names, values []string
	for i := 0; i+1 < len(with); i += 2 {
		names, values = append(names, with[i]), append(values, with[i+1])
	}
	m.out <- prometheus.MustNewConstMetric(desc(name, help, names...), kind, float64(v), values...)
}

func (m writer) labels(l *tdpdv1.Labels) {
	m.gauge("fecs", "FECs with a route.", uint64(l.GetFecs()))
	m.gauge("labels_used", "Labels given out, with those that neighbors have yet to release.", uint64(l.GetUsed()))
	m.gauge("labels_free", "Labels that can be given out.", uint64(l.GetFree()))
	m.gauge("fecs_waiting", "FECs without a label for want of one.", uint64(l.GetWaiting()))
	m.count("bindings_turned_away_total", "Bindings beyond a neighbor's limit.", l.GetTurnedAway())
	m.count("loops_total", "Messages refused because of a loop.", l.GetLoops())
	m.count("ignored_total", "Messages, and parts of them, that make no sense here.", l.GetIgnored())
}

func (m writer) users(st *tdpdv1.Status) {
	m.count("server_failures_total", "Times that a server was found unwell or silent on the control channel.", st.GetServerFailures())
	m.gauge("services_steered", "Services whose users are sent along servers' trees.", uint64(len(st.GetSteered())))
	for reason, n := range st.GetUserBindingsRefused() {
		m.count("user_bindings_refused_total", "Neighbors' bindings of users and words of active ones that were not taken, and parts that make none.", n, "reason", reason)
	}
	for what, n := range st.GetTagless() {
		m.count("tagless_total", "Packets of reactive services that came without a tag from a router, by what came of them.", n, "what", what)
	}
	for _, s := range st.GetSteered() {
		if s.GetReactive() && !s.GetAll() {
			m.gauge("users_active", "Users of a reactive service that are sent along servers' trees.", uint64(s.GetActive()), "service", s.GetService())
		}
	}
}

func (m writer) neighbor(n *tdpdv1.Neighbor) {
	m.gauge("session_operational", "1: the session with the neighbor is operational.", flag(n.GetAgreed() != nil), "neighbor", n.GetId())
	m.gauge("adjacencies", "Ways by which the neighbor's hellos come.", uint64(len(n.GetAdjacencies())), "neighbor", n.GetId())
	m.gauge("bindings", "The neighbor's bindings that are kept.", uint64(n.GetBindings()), "neighbor", n.GetId())
	for kind, v := range n.GetSent() {
		m.count("messages_sent_total", "Messages of sessions.", v, "neighbor", n.GetId(), "type", kind)
	}
	for kind, v := range n.GetReceived() {
		m.count("messages_received_total", "Messages of sessions.", v, "neighbor", n.GetId(), "type", kind)
	}
}

func flag(is bool) uint64 {
	if is {
		return 1
	}
	return 0
}
