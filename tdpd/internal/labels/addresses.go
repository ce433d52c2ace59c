package labels

import (
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// addressBytes is how much of addresses goes into one message, so that it fits into the smallest PDU that peers can agree on (256).
const addressBytes = 192

// Addresses makes these all the addresses of this router's interfaces. Peers are told of those that others can send to: RFC 7552
// section 7 excludes link-local ones.
func (l *Labels) Addresses(now time.Time, all []netip.Addr) []Action {
	l.now = now
	var told []netip.Addr
	for _, a := range all {
		if !a.Is4In6() && !a.IsLoopback() && a.IsGlobalUnicast() {
			told = append(told, a.WithZone(""))
		}
	}
	slices.SortFunc(told, netip.Addr.Compare)
	told = slices.Compact(told)
	added, gone := without(told, l.addresses), without(l.addresses, told)
	l.addresses = told
	for _, p := range l.peers {
		l.sayAddresses(p, p.families, added, false)
		l.sayAddresses(p, p.families, gone, true)
	}
	return l.take()
}

// without gives those of a that are not in b; both are sorted.
func without(a, b []netip.Addr) (out []netip.Addr) {
	for _, x := range a {
		if _, ok := slices.BinarySearchFunc(b, x, netip.Addr.Compare); !ok {
			out = append(out, x)
		}
	}
	return out
}

func (l *Labels) sayAddresses(p *peer, of families, list []netip.Addr, withdraw bool) {
	for _, family := range of.list() {
		var mine []netip.Addr
		for _, a := range list {
			if wire.FamilyOf(a) == family {
				mine = append(mine, a)
			}
		}
		if len(mine) == 0 {
			continue
		}
		for some := range slices.Chunk(mine, addressBytes/len(mine[0].AsSlice())) {
			if some := (wire.AddressList{Family: family, Addresses: some}); withdraw {
				l.say(p, wire.AddressWithdraw{AddressList: some})
			} else {
				l.say(p, wire.Address{AddressList: some})
			}
		}
	}
}

// learnAddresses takes a peer's addresses, by which next hops are told to be its own.
func (l *Labels) learnAddresses(p *peer, list wire.AddressList) {
	news := map[netip.Addr]bool{}
	for _, a := range list.Addresses {
		if a.IsLinkLocalUnicast() || a.Is4In6() { // RFC 7552 section 7
			l.stats.Ignored++
			continue
		}
		if _, known := p.addresses[a]; !known {
			if len(p.addresses) >= l.cfg.MaxAddresses {
				l.complain(p, ofAddresses, "more than %d addresses: the others are not taken for its own", l.cfg.MaxAddresses)
				break
			}
			news[a] = true
		}
		p.addresses[a] = true
	}
	l.resolveAddresses(news)
}

func (l *Labels) loseAddresses(p *peer, list wire.AddressList) {
	gone := map[netip.Addr]bool{}
	for _, a := range list.Addresses {
		if _, known := p.addresses[a]; known {
			gone[a] = true
			delete(p.addresses, a)
		}
	}
	l.resolveAddresses(gone)
}

func (l *Labels) resolveAddresses(some map[netip.Addr]bool) {
	if len(some) > 0 {
		l.resolveAll(func(a netip.Addr) bool { return some[a] })
	}
}

// claim says how well a next hop is told to be the peer's; 0: it is not.
func (p *peer) claim(h NextHop) int {
	rank := 1
	if p.up {
		rank += 2
	}
	if p.links[link{h.Interface, h.Address}] {
		return rank + 8
	}
	if _, ok := p.addresses[h.Address]; !ok {
		return 0
	}
	for at := range p.links {
		if at.iface == h.Interface {
			return rank + 4
		}
	}
	return rank
}
