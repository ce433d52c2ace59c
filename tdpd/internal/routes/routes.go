// Package routes watches what the kernel's main routing tables say: routes of IPv4 and IPv6 with their next hops, and interfaces with
// their addresses. They come as a stream of Changes that begins with all there is. Table holds what they add up to.
package routes

import (
	"context"
	"net/netip"
	"slices"
)

// Watcher tells of routes and interfaces.
type Watcher interface {
	// Changes has at first a Change that is Full, then what differs. Nobody is held up by a slow reader: what he has not taken
	// becomes one Change, or several with atOnce routes each.
	Changes() <-chan Change
	// Run watches until ctx ends. Returns nil then.
	Run(ctx context.Context) error
}

// Change is what became different since the one before.
type Change struct {
	Full       bool                    // all there is: forget what was before
	Routes     map[netip.Prefix]*Route // nil: none any more
	Interfaces map[int]*Interface      // by index; nil: none any more
}

// Route is the best route to a prefix: the one of the lowest metric. It must not be changed.
type Route struct {
	Metric   uint32 // of IPv4 0, if it has none
	Protocol uint8  // rtm_protocol: who made it
	Drops    bool   // packets are dropped: a blackhole, or unreachable or the like
	Hops     []Hop  // one or more, unless it drops; sorted, each once
}

// Hop is a next hop.
type Hop struct {
	Via       netip.Addr // the zero Addr: the prefix is on the link
	Interface int        // index; 0: nowhere, as of an interface that is going
}

// Interface is a network interface. It must not be changed.
type Interface struct {
	Index     int
	Name      string
	Up        bool // administratively, and with a carrier
	Loopback  bool
	Addresses []netip.Prefix // with the length of the link's prefix; sorted
}

func (r *Route) equal(o *Route) bool {
	return r == o || r != nil && o != nil && r.Metric == o.Metric && r.Protocol == o.Protocol && r.Drops == o.Drops && slices.Equal(r.Hops, o.Hops)
}

func (i *Interface) equal(o *Interface) bool {
	return i == o || i != nil && o != nil && i.Index == o.Index && i.Name == o.Name && i.Up == o.Up && i.Loopback == o.Loopback && slices.Equal(i.Addresses, o.Addresses)
}

// merge adds what came after c.
func (c *Change) merge(later Change) {
	if later.Full || c.Routes == nil {
		*c = later
		return
	}
	for p, r := range later.Routes {
		if c.Full && r == nil {
			delete(c.Routes, p)
			continue
		}
		c.Routes[p] = r
	}
	for n, i := range later.Interfaces {
		if c.Full && i == nil {
			delete(c.Interfaces, n)
			continue
		}
		c.Interfaces[n] = i
	}
}

// atOnce is how many routes a Change has at most, unless it is Full: who follows them has other things to do in between.
const atOnce = 1024

// cut takes a part off that is to be told first; all that there is at first is one.
func (c *Change) cut() (part Change) {
	if c.Full || len(c.Routes) <= atOnce {
		part, *c = *c, Change{}
		return part
	}
	part = newChange(false)
	part.Interfaces, c.Interfaces = c.Interfaces, map[int]*Interface{}
	for p, r := range c.Routes {
		if len(part.Routes) == atOnce {
			break
		}
		part.Routes[p] = r
		delete(c.Routes, p)
	}
	return part
}

func newChange(full bool) Change {
	return Change{Full: full, Routes: map[netip.Prefix]*Route{}, Interfaces: map[int]*Interface{}}
}

func (c *Change) empty() bool { return !c.Full && len(c.Routes) == 0 && len(c.Interfaces) == 0 }
