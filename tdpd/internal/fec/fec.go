// Package fec says what is to have labels: the routes of the kernel's tables, what BGP has told, this router's own addresses, and servers. It
// is pure.
//
// A server's address is a FEC of its own, whatever route leads to it. The last router, the one on whose link the server is, or tdpd on
// the server's own host, is its egress; others follow the longest prefix that holds it, as RFC 5283 has it.
package fec

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/tdpd/internal/labels"
	"github.com/manycast/manycast/tdpd/internal/routes"
)

// FECs is the state. Not safe for concurrent use.
type FECs struct {
	runs    func(iface string) bool
	tunnels bool
	table   routes.Table
	own     map[netip.Addr]int    // addresses of this router, with their interface
	links   map[netip.Prefix]bool // of its interfaces
	servers map[netip.Addr]bool
	sorted  []netip.Addr // servers
	known   map[netip.Prefix]bool
	learned map[netip.Prefix]Learned
	vias    map[netip.Addr]*via
}

// New returns FECs without any. runs says which interfaces LDP runs on: routes that leave by others lead out of where labels are.
// tunnels: those of servers do not, for there may be a tunnel.
func New(runs func(iface string) bool, tunnels bool) *FECs {
	return &FECs{runs: runs, tunnels: tunnels, own: map[netip.Addr]int{}, links: map[netip.Prefix]bool{}, servers: map[netip.Addr]bool{}, known: map[netip.Prefix]bool{},
		learned: map[netip.Prefix]Learned{}, vias: map[netip.Addr]*via{}}
}

// Table is what the kernel's tables are known to have. It must not be changed.
func (f *FECs) Table() *routes.Table { return &f.table }

// Apply takes a change of the tables, and returns FECs that may have changed and prefixes that are none any more.
func (f *FECs) Apply(c routes.Change) (changed []labels.Route, gone []netip.Prefix) {
	about := map[netip.Prefix]bool{}
	for p := range c.Routes {
		about[p] = true
	}
	if len(c.Interfaces) > 0 && !c.Full {
		f.touched(c.Interfaces, about)
	}
	f.table.Apply(c)
	if c.Full {
		f.readInterfaces()
		f.resolve(about)
		return f.all()
	}
	if len(c.Interfaces) > 0 {
		f.readInterfaces()
		f.touched(c.Interfaces, about)
	}
	f.resolve(about)
	f.serversIn(about)
	return f.some(maps.Keys(about))
}

// touched adds what has to do with interfaces: their networks and addresses, and what routes lead to by them.
func (f *FECs) touched(interfaces map[int]*routes.Interface, about map[netip.Prefix]bool) {
	for index := range interfaces {
		i := f.table.Interfaces[index]
		if i == nil {
			continue
		}
		for _, p := range i.Addresses {
			about[p.Masked()], about[host(p.Addr())] = true, true
		}
		if i.Loopback { // this host's own servers are behind it
			for a := range f.own {
				about[host(a)] = true
			}
		}
	}
	for p, r := range f.table.Routes {
		if slices.ContainsFunc(r.Hops, func(h routes.Hop) bool { _, touched := interfaces[h.Interface]; return touched }) {
			about[p] = true
		}
	}
}

// serversIn adds the servers of prefixes, which may follow their routes.
func (f *FECs) serversIn(about map[netip.Prefix]bool) {
	var in []netip.Prefix
	for p := range about {
		at, _ := slices.BinarySearchFunc(f.sorted, p.Masked().Addr(), netip.Addr.Compare)
		for ; at < len(f.sorted) && p.Contains(f.sorted[at]); at++ {
			in = append(in, host(f.sorted[at]))
		}
	}
	for _, p := range in {
		about[p] = true
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// SetServers makes these all the servers.
func (f *FECs) SetServers(all []netip.Addr) (changed []labels.Route, gone []netip.Prefix) {
	before := f.servers
	f.servers = map[netip.Addr]bool{}
	for _, a := range all {
		f.servers[a.Unmap().WithZone("")] = true
	}
	f.sorted = slices.SortedFunc(maps.Keys(f.servers), netip.Addr.Compare)
	return f.some(func(yield func(netip.Prefix) bool) {
		for _, one := range []struct{ some, without map[netip.Addr]bool }{{before, f.servers}, {f.servers, before}} {
			for a := range one.some {
				if !one.without[a] && !yield(host(a)) {
					return
				}
			}
		}
	})
}

// IsServer says whether the prefix is a server's FEC.
func (f *FECs) IsServer(p netip.Prefix) bool { return p.IsSingleIP() && f.servers[p.Addr()] }

// Servers yields the FECs of all servers.
func (f *FECs) Servers(yield func(netip.Prefix) bool) {
	for a := range f.servers {
		if !yield(host(a)) {
			return
		}
	}
}

func (f *FECs) readInterfaces() {
	clear(f.own)
	clear(f.links)
	for index, i := range f.table.Interfaces {
		for _, p := range i.Addresses {
			if a := p.Addr(); !a.IsLinkLocalUnicast() && !a.IsLoopback() {
				f.own[a] = index
				f.links[p.Masked()] = f.links[p.Masked()] || i.Up
			}
		}
	}
	maps.DeleteFunc(f.links, func(_ netip.Prefix, up bool) bool { return !up })
}

func (f *FECs) all() ([]labels.Route, []netip.Prefix) {
	every := map[netip.Prefix]bool{}
	for _, keys := range []func(func(netip.Prefix) bool){maps.Keys(f.table.Routes), maps.Keys(f.links), maps.Keys(f.known), maps.Keys(f.learned), f.Servers} {
		for p := range keys {
			every[p] = true
		}
	}
	return f.some(maps.Keys(every))
}

func (f *FECs) some(prefixes func(func(netip.Prefix) bool)) (changed []labels.Route, gone []netip.Prefix) {
	for p := range prefixes {
		r, ok := f.route(p)
		switch {
		case ok:
			f.known[p] = true
			changed = append(changed, r)
		case f.known[p]:
			delete(f.known, p)
			gone = append(gone, p)
		}
	}
	slices.SortFunc(changed, func(a, b labels.Route) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(gone, netip.Prefix.Compare)
	return changed, gone
}

// route finds what a prefix is to this router; false: nothing.
func (f *FECs) route(p netip.Prefix) (labels.Route, bool) {
	r := f.table.Routes[p]
	if f.IsServer(p) {
		if hop, ok := f.egress(p.Addr()); ok {
			return labels.Route{Prefix: p, Kind: labels.Server, NextHops: []labels.NextHop{hop}}, true
		}
	}
	if r == nil {
		if hops := f.learnedHops(p); len(hops) > 0 && !f.Own(p.Addr()) && !f.links[p] {
			return labels.Route{Prefix: p, Kind: labels.Transit, NextHops: hops}, true
		}
	}
	if r == nil && f.IsServer(p) {
		_, r = f.table.Lookup(p.Addr())
	}
	switch {
	case p.IsSingleIP() && f.Own(p.Addr()) && (r != nil || f.IsServer(p)), f.links[p]:
		return labels.Route{Prefix: p, Kind: labels.Attached}, true
	case r == nil || r.Drops:
		return labels.Route{}, false
	}
	hops, tunneled := f.hops(r), f.tunnels && f.IsServer(p)
	if len(hops) == 0 && !tunneled {
		return labels.Route{Prefix: p, Kind: labels.Attached}, true
	}
	return labels.Route{Prefix: p, Kind: labels.Transit, NextHops: hops, Tunneled: tunneled}, true
}

// Own says whether the address is one of this router's.
func (f *FECs) Own(a netip.Addr) bool {
	_, own := f.own[a]
	return own
}

// egress is where packets of a server's tree leave it: here, or on a link of this router.
func (f *FECs) egress(server netip.Addr) (labels.NextHop, bool) {
	if f.Own(server) {
		for index, i := range f.table.Interfaces {
			if i.Loopback && i.Up { // the packet inside is for the service's address, which this host has, too
				return labels.NextHop{Interface: i.Name, Index: index}, true
			}
		}
		return labels.NextHop{}, false
	}
	index, ok := f.table.OnLink(server)
	if !ok {
		return labels.NextHop{}, false
	}
	return labels.NextHop{Address: server, Interface: f.table.Interfaces[index].Name, Index: index}, true
}

// NextHops are those of packets to an address, whether they speak LDP or not; none: it is this router's, or there is no route to it.
func (f *FECs) NextHops(to netip.Addr) (out []labels.NextHop) {
	_, r := f.table.Lookup(to)
	if r == nil || r.Drops || f.Own(to) {
		return nil
	}
	for _, h := range r.Hops {
		if i := f.table.Interfaces[h.Interface]; i != nil && i.Up && !i.Loopback {
			via := h.Via
			if !via.IsValid() {
				via = to
			}
			out = append(out, labels.NextHop{Address: via.WithZone(""), Interface: i.Name, Index: h.Interface})
		}
	}
	return out
}

// hops are the next hops that speak LDP, or may; none where the route is a link's. Of several those are left out whose link is down: the
// kernel passes over them, too, and takes no entry with one.
func (f *FECs) hops(r *routes.Route) []labels.NextHop {
	out, down := make([]labels.NextHop, 0, len(r.Hops)), 0
	for _, h := range r.Hops {
		i := f.table.Interfaces[h.Interface]
		if !h.Via.IsValid() {
			return nil
		}
		if i != nil && f.runs(i.Name) {
			out = append(out, labels.NextHop{Address: h.Via, Interface: i.Name, Index: h.Interface})
			if !i.Up {
				down++
			}
		}
	}
	if down == 0 || down == len(out) {
		return out
	}
	return slices.DeleteFunc(out, func(n labels.NextHop) bool { return !f.table.Interfaces[n.Index].Up })
}
