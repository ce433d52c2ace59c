package routes

import "net/netip"

// Table is what Changes add up to.
type Table struct {
	Routes     map[netip.Prefix]*Route
	Interfaces map[int]*Interface
}

// Apply makes a change.
func (t *Table) Apply(c Change) {
	if c.Full || t.Routes == nil {
		t.Routes, t.Interfaces = map[netip.Prefix]*Route{}, map[int]*Interface{}
	}
	for p, r := range c.Routes {
		if r == nil {
			delete(t.Routes, p)
		} else {
			t.Routes[p] = r
		}
	}
	for n, i := range c.Interfaces {
		if i == nil {
			delete(t.Interfaces, n)
		} else {
			t.Interfaces[n] = i
		}
	}
}

// Lookup returns the route of the longest prefix that holds addr.
func (t *Table) Lookup(addr netip.Addr) (netip.Prefix, *Route) {
	addr = addr.Unmap().WithZone("")
	for bits := addr.BitLen(); bits >= 0; bits-- {
		p, err := addr.Prefix(bits)
		if err != nil {
			break
		}
		if r := t.Routes[p]; r != nil {
			return p, r
		}
	}
	return netip.Prefix{}, nil
}

// OnLink returns the interface by which a host is a neighbour: the kernel finds its link's address by itself.
func (t *Table) OnLink(host netip.Addr) (ifindex int, ok bool) {
	_, r := t.Lookup(host)
	if r == nil {
		return 0, false
	}
	for _, h := range r.Hops {
		if i := t.Interfaces[h.Interface]; !h.Via.IsValid() && i != nil && i.Up && !i.Loopback {
			return h.Interface, true
		}
	}
	return 0, false
}
