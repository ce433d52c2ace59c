package flows

import (
	"context"
	"errors"
	"net/netip"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/mover"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// status is how many connections of which kind there are, and what has become of those that were to move.
func (t *Task) status(ctx context.Context) (*handoverv1.FlowsStatus, error) {
	out := &handoverv1.FlowsStatus{}
	views, err := t.executed("")
	if err != nil {
		return nil, err
	}
	for i := range views {
		v := &views[i]
		s := &handoverv1.ServiceFlows{Service: v.Service.Name, Epoch: alloc.EpochToProto(v.Allocation.Epoch)}
		for _, strategy := range v.Service.Handover.Strategies {
			s.Handover = append(s.Handover, string(strategy))
		}
		if err := t.each(ctx, *v, func(f handover.Flow) {
			if state, _, _ := t.state(row{view: v, flow: f}); state == handoverv1.FlowState_FLOW_STATE_KEPT {
				s.Kept++
			} else {
				s.Own++
			}
		}); err != nil {
			return nil, err
		}
		out.Services = append(out.Services, s)
	}
	for _, totals := range t.cfg.Totals {
		for _, c := range totals() {
			out.Counters = append(out.Counters, c.proto())
		}
	}
	if t.cfg.Mover == nil {
		return out, nil
	}
	totals := t.cfg.Mover.Counters()
	for _, c := range moved(totals) {
		out.Counters = append(out.Counters, c.proto())
	}
	out.StateMax = totals.Sizes.Max
	for _, size := range totals.Sizes.Steps() {
		out.StateSizes = append(out.StateSizes, &handoverv1.StateSize{UpTo: size.UpTo, Count: size.Count})
	}
	s, err := t.cfg.Mover.Status(ctx)
	for _, b := range s.Batches {
		out.Batches = append(out.Batches, &handoverv1.Batch{
			Taker: b.Taker, Service: b.Service, Epoch: alloc.EpochToProto(b.Epoch), Wanted: uint64(b.Wanted), Moving: uint64(b.Moving),
			Given: uint64(b.Given), Stayed: uint64(b.Stayed), Lost: uint64(b.Lost), Bytes: b.Bytes,
		})
	}
	return out, err
}

func (c Counter) proto() *handoverv1.Counter {
	return &handoverv1.Counter{Strategy: c.Strategy, Name: c.Name, Reason: c.Reason, Value: c.Value}
}

// moved are the mover's totals.
func moved(c mover.Counters) []Counter {
	out := []Counter{
		{"transfer", "given", "", c.Given}, {"transfer", "taken", "", c.Taken}, {"transfer", "state_bytes", "", c.Bytes},
	}
	for name, reasons := range map[string]map[handover.Reason]uint64{"stayed": c.Stayed, "lost": c.Lost, "not_taken": c.NotTaken} {
		for reason, n := range reasons {
			out = append(out, Counter{"transfer", name, reason.String(), n})
		}
	}
	return out
}

// cost counts what an allocation would move from here, without moving anything.
func (t *Task) cost(ctx context.Context, request *handoverv1.CostRequest) (*handoverv1.Cost, error) {
	next, err := alloc.FromProto(request.GetNext())
	if err != nil {
		return nil, err
	}
	if next.Zero() {
		return nil, errors.New("the cost of an allocation is asked for, and none is given")
	}
	views, err := t.executed(request.GetNext().GetService())
	if err != nil {
		return nil, err
	}
	v, then := views[0], mover.View{Service: views[0].Service, Allocation: next}
	out, to := &handoverv1.Cost{}, map[string]*handoverv1.CostTo{}
	users := map[string]map[netip.Addr]bool{}
	if err := t.each(ctx, v, func(f handover.Flow) {
		now, goes := v.Owner(f.Remote), then.Owner(f.Remote)
		switch {
		case goes == t.cfg.Name:
			return
		case goes == now:
			out.Kept++
			return
		case to[goes] == nil:
			to[goes], users[goes] = &handoverv1.CostTo{Server: goes}, map[netip.Addr]bool{}
			out.To = append(out.To, to[goes])
		}
		to[goes].Connections++
		users[goes][f.Remote.Addr()] = true
	}); err != nil {
		return nil, err
	}
	for server, c := range to {
		c.Users = uint64(len(users[server]))
	}
	if t.cfg.Mover != nil {
		c := t.cfg.Mover.Counters()
		out.States, out.StateBytes = c.Given, c.Bytes
	}
	return out, nil
}
