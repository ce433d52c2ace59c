package edge

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/routing"
)

// Metrics are a router's about BGP, for ListenMetrics.
func (p *Peering) Metrics() prometheus.Collector { return bgpCollector{p} }

type bgpCollector struct{ peering *Peering }

// Describe says nothing: the metrics come unchecked.
func (bgpCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A speaker that does not answer has no sessions to tell of.
func (c bgpCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	st, err := c.peering.Routing.Status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(desc("bgp_up", "BGP's loop answers."), err)
		return
	}
	m := writer{out}
	m.count("bgp_speaker_restarts_total", "Times that the router's own speaker has ended by itself.", c.peering.Restarts())
	neighbors, err := c.peering.Speaker.Neighbors(ctx)
	m.gauge("bgp_speaker_answers", "1: the speaker answers.", flag(err == nil))
	for _, n := range neighbors {
		m.bgpNeighbor(n)
	}
	m.announcing(st.Announcing)
	m.flowRules(st)
	m.gauge("bgp_learned", "Prefixes of neighbors' that are taken.", uint64(st.Learned))
	for why, n := range refusals(st) {
		m.count("bgp_refused_total", "Paths of neighbors' that were not taken, of those that the speaker's policies have let pass.", n, "reason", why)
	}
}

func (m writer) bgpNeighbor(n bgp.NeighborState) {
	address := n.Address.String()
	m.gauge("bgp_session_established", "1: the session with the neighbor is established.", flag(n.State == bgp.Established), "neighbor", address)
	m.gauge("bgp_neighbor_out", "1: BFD has found the neighbor gone.", flag(n.Down), "neighbor", address)
	m.count("bgp_updates_sent_total", "Updates to the neighbor.", n.Sent.Updates, "neighbor", address)
	m.count("bgp_updates_received_total", "Updates of the neighbor's.", n.Received.Updates, "neighbor", address)
}

func (m writer) announcing(p announcing.Progress) {
	var announced, damped, unreached uint64
	for _, v := range p.VIPs {
		switch {
		case v.Announced:
			announced++
		case !v.Damped.IsZero():
			damped++
		case v.Reach != announcing.Reached:
			unreached++
		}
	}
	m.gauge("bgp_vips", "VIPs that may be announced here.", uint64(len(p.VIPs)))
	m.gauge("bgp_vips_announced", "VIPs that are announced.", announced)
	m.gauge("bgp_vips_damped", "VIPs that are out, as they have come and gone.", damped)
	m.gauge("bgp_vips_unreached", "VIPs that are out, as no server is reached.", unreached)
	m.gauge("bgp_hosts", "Servers' host routes with labels, announced or not.", uint64(len(p.Hosts)))
	for _, phase := range []announcing.Phase{announcing.Entering, announcing.In, announcing.Leaving, announcing.Withdrawn, announcing.Out} {
		m.gauge("bgp_phase", "1: of coming and going it is this phase.", flag(p.Phase == phase), "phase", phase.String())
	}
	m.count("bgp_announced_total", "Prefixes announced: VIPs and what covers them.", p.Counts.Announced)
	m.count("bgp_withdrawn_total", "Prefixes withdrawn: VIPs and what covers them.", p.Counts.Withdrawn)
	m.count("bgp_damped_total", "Times that a VIP ceased to be reached, and stays out for that.", p.Counts.Damped)
}

func (m writer) flowRules(st routing.Status) {
	m.gauge("flowspec_rules_wanted", "Rules that there are to be.", uint64(len(st.Wanted.Rules)))
	m.gauge("flowspec_rules_told", "Rules that the speaker has.", uint64(len(st.Rules)))
	m.gauge("flowspec_rules_moving", "1: those that it has are on their way to those that there are to be.", flag(st.Moving))
	m.count("flowspec_steps_skipped_total", "Steps of rules that were not at all neighbors in time.", uint64(st.Skipped))
	for why, n := range st.Wanted.Reasons {
		m.gauge("flowspec_portions_left", "Portions whose users go by the director, as rules cannot say where.", uint64(n), "reason", why.String())
	}
}
