package agent

import (
	"fmt"
	"net"
	"net/netip"
)

// Link is where the groups are joined.
type Link struct {
	Address  netip.Addr   // the requester's
	Address6 netip.Addr   // where its connections of IPv6 can live; zero: nowhere
	Prefix   netip.Prefix // connected
	MTU      int          // bytes
}

// FindLink returns the interface's link; an address of "" means its first global one of that family. IPv6 there need not be.
func FindLink(ifname, address, address6 string) (Link, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", ifname, err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: addresses: %w", ifname, err)
	}
	l := Link{MTU: ifi.MTU}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil:
		case p.Addr().Is4() && !l.Address.IsValid() && isWanted(p.Addr(), address):
			l.Address, l.Prefix = p.Addr(), p.Masked()
		case p.Addr().Is6() && !l.Address6.IsValid() && isWanted(p.Addr(), address6):
			l.Address6 = p.Addr()
		}
	}
	switch {
	case address6 != "" && !l.Address6.IsValid():
		return Link{}, fmt.Errorf("interface %s does not have address %s: add it, or change `address6`", ifname, address6)
	case l.Address.IsValid():
		return l, nil
	case address != "":
		return Link{}, fmt.Errorf("interface %s does not have address %s: add it, or change `address`", ifname, address)
	}
	return Link{}, fmt.Errorf("interface %s has no IPv4 address: give it one, or name another interface", ifname)
}

func isWanted(is netip.Addr, address string) bool {
	return address == is.String() || address == "" && is.IsGlobalUnicast()
}
