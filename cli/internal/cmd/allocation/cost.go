package allocation

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/manycast/manycast/cli/internal/live"
	"github.com/manycast/manycast/cli/internal/pool"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
)

// strategies are what --handover may be.
func strategies() []string {
	return []string{string(service.Reset), string(service.Forward), string(service.Transfer), string(service.Pin)}
}

// cost is what becomes of live connections, as `-o json` writes it.
type cost struct {
	Handover    string   `json:"handover"`
	Connections uint64   `json:"connections"`
	Users       uint64   `json:"users"`
	StateBytes  uint64   `json:"state_bytes,omitempty"` // about, with transfer, where connections have been given away before
	Kept        uint64   `json:"kept"`                  // connections of others' users that stay where they are
	Pairs       []pair   `json:"pairs"`
	Silent      []string `json:"silent,omitempty"` // servers that do not answer: theirs are not in it
	Note        string   `json:"note,omitempty"`
}

// pair is what goes from one server to another.
type pair struct {
	From        string `json:"from"`
	To          string `json:"to"`
	Connections uint64 `json:"connections"`
	Users       uint64 `json:"users"` // addresses
}

// costOf asks each server what it would lose by an allocation.
func costOf(ctx context.Context, b live.Bus, svc *pool.Service, next alloc.Allocation, handover string) cost {
	c := cost{Handover: handover, Pairs: []pair{}}
	var states, bytes uint64
	for _, m := range svc.Servers {
		if !m.Alive() {
			continue
		}
		p, err := live.Cost(ctx, b, m.Name, svc.Spec.Name, next)
		if err != nil {
			c.Silent = append(c.Silent, err.Error())
			continue
		}
		c.Kept += p.GetKept()
		states, bytes = states+p.GetStates(), bytes+p.GetStateBytes()
		for _, to := range p.GetTo() {
			c.Pairs = append(c.Pairs, pair{m.Name, to.GetServer(), to.GetConnections(), to.GetUsers()})
			c.Connections += to.GetConnections()
			c.Users += to.GetUsers()
		}
	}
	slices.SortFunc(c.Pairs, func(x, y pair) int { return cmp.Or(cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To)) })
	if handover == string(service.Transfer) && states > 0 {
		c.StateBytes = uint64(float64(bytes) / float64(states) * float64(c.Connections))
	}
	if !svc.Spec.Handover.Has(service.Strategy(handover)) && handover != string(service.Reset) {
		c.Note = fmt.Sprintf("the service's handover is %s: add %s to it first", svc.Spec.Handover, handover)
	}
	return c
}

// lines say it to people.
func (c cost) lines() []string {
	becomes := map[string]string{
		string(service.Reset):    "would be closed",
		string(service.Forward):  "would stay, and their packets be sent on to where they are",
		string(service.Transfer): "would be handed over",
		string(service.Pin):      "would stay, each user's by a path of its own",
	}
	out := []string{fmt.Sprintf("%d connections of %d users %s", c.Connections, c.Users, becomes[c.Handover])}
	switch {
	case c.StateBytes > 0:
		out[0] += fmt.Sprintf("; about %d bytes of states", c.StateBytes)
	case c.Handover == string(service.Transfer) && c.Connections > 0:
		out[0] += "; how large their states are is not known before one has moved"
	}
	if c.Kept > 0 {
		out = append(out, fmt.Sprintf("%d connections stay that servers keep of others' users", c.Kept))
	}
	for _, p := range c.Pairs {
		out = append(out, fmt.Sprintf("%s -> %s: %d connections of %d users", p.From, p.To, p.Connections, p.Users))
	}
	for _, s := range c.Silent {
		out = append(out, "warning: not in it: "+s)
	}
	if c.Note != "" {
		out = append(out, "warning: "+c.Note)
	}
	return out
}

// fetch has each server ask for what others keep of its users' connections, now.
func fetch(ctx context.Context, b live.Bus, services []*pool.Service) (asked []string, err error) {
	for _, svc := range services {
		if !svc.Spec.Handover.Has(service.Transfer) {
			return asked, fmt.Errorf("service %s: no connections are transferred: its handover is %s; add transfer to it", svc.Spec.Name, svc.Spec.Handover)
		}
		for _, m := range svc.Servers {
			if !m.Alive() {
				continue
			}
			if err := live.Fetch(ctx, b, m.Name, svc.Spec.Name); err != nil {
				return asked, fmt.Errorf("%w (%d servers were asked)", err, len(asked))
			}
			asked = append(asked, svc.Spec.Name+"/"+m.Name)
		}
	}
	return asked, nil
}
