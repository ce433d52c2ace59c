package gobgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// has is what the speaker of one generation is known to have of ours.
type has struct {
	generation uint64
	restarted  bool // neighbors are added as by one that has restarted, until all are there
	turns      turns
	neighbors  map[netip.Addr]neighborAs
	paths      map[pathKey]*api.Path
}

// neighborAs is a neighbor as it was told to the speaker.
type neighborAs struct {
	bgp.Neighbor
	restart bgp.Restart
	as      uint32 // ours
	limited bool   // it was over MaxPrefixes: see keepLimits
}

// Apply implements bgp.Speaker. Paths are there before neighbors are, so that who is told all at first misses none; what goes, goes in the order of the reverse.
func (c *Client) Apply(ctx context.Context, d bgp.Desired) error {
	c.applying.Lock()
	defer c.applying.Unlock()
	c.neighbors.set(d.Neighbors)
	if err := known(d); err != nil {
		return err
	}
	if err := c.begin(ctx, d); err != nil {
		return err
	}
	errs := []error{
		c.removeNeighbors(ctx, d),
		c.applyPolicies(ctx, d),
		c.applyPaths(ctx, d),
	}
	if err := errors.Join(errs...); err != nil {
		return err // with half of the policies or paths nobody is to be spoken to
	}
	if d.Silent && c.has.restarted {
		return nil
	}
	return c.applyNeighbors(ctx, d)
}

// begin starts the speaker where it is not, and learns what it has of ours where that is not known.
func (c *Client) begin(ctx context.Context, d bgp.Desired) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.api.GetBgp(ctx, &api.GetBgpRequest{})
	if err != nil {
		return c.failed("ask the speaker for its AS", err)
	}
	generation := c.generation.Load()
	started := answer.GetGlobal().GetAsn() != 0
	if started && !c.runsAs(answer.GetGlobal(), d) {
		if c.Foreign {
			return fmt.Errorf("the speaker at %s has AS %d and router id %s, not %d and %v: say the same in bgp.as and bgp.router_id", c.Target,
				answer.GetGlobal().GetAsn(), answer.GetGlobal().GetRouterId(), d.AS, d.RouterID)
		}
		if _, err := c.api.StopBgp(ctx, &api.StopBgpRequest{}); err != nil {
			return c.failed("stop BGP", err)
		}
		started = false
	}
	if !started {
		if d.AS == 0 {
			return nil
		}
		if _, err := c.api.StartBgp(ctx, &api.StartBgpRequest{Global: global(d)}); err != nil {
			return c.failed("start BGP", err)
		}
		c.has = has{generation: generation, neighbors: map[netip.Addr]neighborAs{}, paths: map[pathKey]*api.Path{}, restarted: c.Restarted != nil && c.Restarted()}
		c.inherited = map[pathKey]bool{}
		return nil
	}
	if c.has.generation == generation && c.has.paths != nil {
		return nil
	}
	return c.learn(ctx, generation)
}

// learn asks a speaker that had been started before for what is ours in it.
func (c *Client) learn(ctx context.Context, generation uint64) error {
	c.has = has{generation: generation, neighbors: map[netip.Addr]neighborAs{}}
	stream, err := c.api.ListPeer(ctx, &api.ListPeerRequest{})
	if err == nil {
		err = each(stream, func(r *api.ListPeerResponse) bool {
			if a, e := netip.ParseAddr(r.GetPeer().GetConf().GetNeighborAddress()); e == nil && r.GetPeer().GetConf().GetDescription() == mark {
				c.has.neighbors[a] = neighborAs{}
			}
			return true
		})
	}
	if err != nil {
		return c.failed("neighbors that the speaker has", err)
	}
	paths, err := c.pathsOfOurs(ctx)
	if err != nil {
		return err
	}
	c.has.paths = paths
	if c.inherited == nil {
		c.inherited = map[pathKey]bool{}
		for k := range paths {
			c.inherited[k] = true
		}
	}
	return nil
}

func global(d bgp.Desired) *api.Global {
	g := &api.Global{Asn: d.AS, RouterId: d.RouterID.String(), ListenPort: int32(d.Port)}
	if d.Port == 0 {
		g.ListenPort = -1
	}
	for _, a := range d.Listen {
		g.ListenAddresses = append(g.ListenAddresses, a.String())
	}
	return g
}

// anywhere is what the speaker makes of no addresses to listen at.
var anywhere = []string{"0.0.0.0", "::"}

// runsAs says whether the speaker runs as it is to. Where one of somebody else's listens is not for us to say.
func (c *Client) runsAs(g *api.Global, d bgp.Desired) bool {
	want := global(d)
	if len(want.ListenAddresses) == 0 {
		want.ListenAddresses = anywhere
	}
	listens := c.Foreign || g.GetListenPort() == want.ListenPort && slices.Equal(g.GetListenAddresses(), want.ListenAddresses)
	return listens && g.GetAsn() == want.Asn && g.GetRouterId() == want.RouterId
}

// removeNeighbors takes away those that are not to be there.
func (c *Client) removeNeighbors(ctx context.Context, d bgp.Desired) error {
	var errs []error
	for _, a := range slices.SortedFunc(maps.Keys(c.has.neighbors), netip.Addr.Compare) {
		if slices.ContainsFunc(d.Neighbors, func(n bgp.Neighbor) bool { return n.Address == a }) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := c.api.DeletePeer(ctx, &api.DeletePeerRequest{Address: a.String()})
		cancel()
		if err != nil {
			errs = append(errs, c.failed(fmt.Sprintf("remove neighbor %v", a), err))
			continue
		}
		delete(c.has.neighbors, a)
	}
	return errors.Join(errs...)
}

// applyNeighbors adds those that are missing, and changes those that are otherwise.
func (c *Client) applyNeighbors(ctx context.Context, d bgp.Desired) error {
	var errs []error
	var missing []neighborAs
	for _, one := range d.Neighbors {
		now, there := c.has.neighbors[one.Address]
		n := neighborAs{one, d.Restart, d.AS, now.limited}
		switch {
		case !there:
			missing = append(missing, n)
		case !reflect.DeepEqual(now, n):
			errs = append(errs, c.changeNeighbor(ctx, n))
		}
	}
	over := true
	if c.has.restarted && d.Restart.Time > 0 {
		var err error
		over, err = c.restart(ctx, missing)
		errs = append(errs, err)
	} else {
		for _, n := range missing {
			errs = append(errs, c.addNeighbor(ctx, n, false))
		}
	}
	switch err := errors.Join(errs...); {
	case err != nil:
		return err
	case !over:
		return bgp.ErrWaits
	}
	c.has.restarted, c.has.turns = false, turns{}
	return nil
}

func (c *Client) changeNeighbor(ctx context.Context, n neighborAs) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.api.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: encodeNeighbor(n, false)}); err != nil {
		return c.failed(fmt.Sprintf("change neighbor %v", n.Address), err)
	}
	c.has.neighbors[n.Address] = n
	return nil
}

func (c *Client) addNeighbor(ctx context.Context, n neighborAs, restarted bool) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.api.AddPeer(ctx, &api.AddPeerRequest{Peer: encodeNeighbor(n, restarted)}); err != nil {
		return c.failed(fmt.Sprintf("add neighbor %v", n.Address), err)
	}
	c.has.neighbors[n.Address] = n
	return nil
}
