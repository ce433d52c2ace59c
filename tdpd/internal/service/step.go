package service

import (
	"errors"
	"net/netip"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/forwarding"
	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// What a router does with a packet, beside the operations on labels.
const (
	actForward = "forward" // as its address says, without a label
	actDeliver = "deliver" // it is for this router
	actDrop    = "drop"
)

// askStep says what this router does with a packet.
func (s *Service) askStep(r *tdpdv1.StepRequest, answer *tdpdv1.Answer) (func(time.Time) error, error) {
	to, err := parseAddress(r.GetAddress())
	if err != nil {
		return nil, err
	}
	in := wire.Label(r.GetLabel())
	byLabel := r.Label != nil && in != wire.LabelExplicitNullIPv4 && in != wire.LabelExplicitNullIPv6 // those say: look at the address
	if !byLabel && !to.IsValid() {
		return nil, errors.New("a packet without a label: to which address?")
	}
	return func(time.Time) error {
		step := &tdpdv1.Step{RouterId: s.Config.RouterID.String()}
		if byLabel {
			s.stepByLabel(step, in)
		} else {
			s.stepByAddress(step, to)
		}
		answer.About = &tdpdv1.Answer_Step{Step: step}
		return nil
	}, nil
}

func (s *Service) stepByLabel(step *tdpdv1.Step, in wire.Label) {
	m, ok := s.tables.Incoming(in)
	if !ok && s.kernel.left.Labels[uint32(in)] != nil {
		step.Action, step.Why = forwarding.Swap.String(), "as before the restart: what it is of is not known again"
		return
	}
	if !ok {
		step.Action, step.Why = actDrop, "nobody was given this label"
		return
	}
	step.Fec, step.Kind, step.Hops = m.FEC.String(), m.Kind.String(), nhlfes(m.NHLFEs)
	if len(m.NHLFEs) == 0 {
		step.Action, step.Why = actDrop, "no next hop has bound a label"
		return
	}
	step.Action = m.NHLFEs[0].Operation.String()
}

func (s *Service) stepByAddress(step *tdpdv1.Step, to netip.Addr) {
	v, ok := s.follows(to)
	if ok {
		step.Fec, step.Kind = v.FEC.String(), v.Kind.String()
	}
	if s.fecs.Own(to) {
		step.Action = actDeliver
		return
	}
	own, r := s.fecs.Table().Lookup(to)
	if m, labelled := s.tables.Outgoing(v.FEC); ok && labelled && !s.outdoes(v.FEC, m) {
		step.Action, step.Hops = actOf(m), nhlfes(m.NHLFEs)
		return
	}
	switch {
	case r == nil:
		step.Action, step.Why = actDrop, "no route"
		return
	case r.Drops:
		step.Action, step.Why = actDrop, "its route drops packets (blackhole or unreachable)"
		return
	}
	step.Action = actForward
	if !ok {
		step.Fec = own.String()
	}
	for _, h := range r.Hops {
		step.Hops = append(step.Hops, s.plainHop(to, h, v))
	}
}

// actOf is what is done to packets without a label: some of several next hops may want none.
func actOf(m forwarding.FTN) string {
	for _, n := range m.NHLFEs {
		if n.Operation == forwarding.Push {
			return forwarding.Push.String()
		}
	}
	return actForward
}

// plainHop is a next hop of a route, by which packets leave without a label.
func (s *Service) plainHop(to netip.Addr, h routes.Hop, v labels.View) *tdpdv1.NextHop {
	out := &tdpdv1.NextHop{Via: text(h.Via)}
	if !h.Via.IsValid() {
		out.Via = to.String()
	}
	if i := s.fecs.Table().Interfaces[h.Interface]; i != nil {
		out.Interface = i.Name
	}
	for _, known := range v.Hops {
		if known.Address == h.Via && known.Index == h.Interface {
			out.Neighbor = name(known.Peer)
		}
	}
	return out
}
