package fastpath

import (
	"errors"
	"net/netip"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// State is all that a test wants.
type State struct {
	VIPs   map[netip.Addr]*steer.Plan // of both families; of IPv6 the plan is one of stand-ins (steer.Standin)
	Trees  map[steer.Owner][]Hop      // several hops share the flows
	Split  map[netip.Addr]vips.Split
	Refuse map[netip.Addr]vips.Refusal
	Tell   map[netip.Addr]bool
	Labels map[uint32][]Hop // by the label that comes in, 16 to 1,048,575
}

// Set makes s the state.
func (f *Fastpath) Set(s State) error {
	return errors.Join(f.SetServices(s.Refuse, s.Tell), f.SetUsers(s.VIPs, s.Split, s.Trees), f.SetLabels(s.Labels))
}
