package agent

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/pins"
)

// Pin has routers bring users here who are about to be others', and then, or when that takes too long, says that the server is prepared.
type Pin struct {
	Service service.Service
	Of      func(connected iter.Seq[netip.AddrPort]) pins.Pins
	Then    announce.Prepared
}

func (Pin) action() {}

// pinsUsers reports whether the network is to bring packets of kept connections straight here.
func pinsUsers(s service.Service) bool { return s.Handover.Has(service.Pin) && !s.Static() }

// pinAhead pins the users that this server loses by an announced allocation, and may have connections with, before they go. Where connections
// are to go with them, it is pinned what is left.
func (c *Core) pinAhead(s service.Service, a alloc.Allocation, then announce.Prepared) Action {
	if !pinsUsers(s) || s.Handover.Has(service.Transfer) || !c.loses(c.effective(c.current(s.Name)), a) {
		return Send{then}
	}
	c.ahead[s.Name] = a
	return Pin{s, c.pinned(s), then}
}

// pinned are, of the users who are connected here, those who are others' by what is executed, or, where they are to be, by what is announced.
// Nil: nobody is pinned of that service.
func (c *Core) pinned(s service.Service) func(connected iter.Seq[netip.AddrPort]) pins.Pins {
	if !pinsUsers(s) {
		return nil
	}
	a, isAhead := c.ahead[s.Name]
	if !isAhead {
		a = c.current(s.Name)
	}
	me := c.name
	return func(connected iter.Seq[netip.AddrPort]) pins.Pins {
		p := pins.Pins{Service: s.Name, Server: me, Epoch: a.Epoch}
		known := map[netip.Addr]bool{}
		for from := range connected {
			user := from.Addr().Unmap()
			if a.Zero() || known[user] {
				continue
			}
			cell := cellOf(a, s.Split, from)
			if a.OwnerOf(cell) == me || !a.ChainOf(cell).Has(me) {
				continue
			}
			known[user] = true
			if _, standin := s.Split.User(from); standin {
				p.Apart++
			} else {
				p.Users = append(p.Users, user)
			}
		}
		slices.SortFunc(p.Users, netip.Addr.Compare)
		if p.Over = max(len(p.Users)-pins.Max, 0); p.Over > 0 {
			p.Users = p.Users[:pins.Max]
		}
		return p
	}
}
