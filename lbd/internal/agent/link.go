package agent

import (
	"fmt"
	"net"
	"net/netip"
)

// Link is where the groups are joined.
type Link struct {
	Address netip.Addr   // the requester's
	Prefix  netip.Prefix // connected
	MTU     int          // bytes
}

// FindLink returns the interface's link; address "" means its first global IPv4 address.
func FindLink(ifname, address string) (Link, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", ifname, err)
	}
	addrs, err := ifi.Addrs()
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: addresses: %w", ifname, err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || !p.Addr().Is4() {
			continue
		}
		if address == p.Addr().String() || address == "" && p.Addr().IsGlobalUnicast() {
			return Link{Address: p.Addr(), Prefix: p.Masked(), MTU: ifi.MTU}, nil
		}
	}
	if address != "" {
		return Link{}, fmt.Errorf("interface %s does not have address %s: add it, or change `address`", ifname, address)
	}
	return Link{}, fmt.Errorf("interface %s has no IPv4 address: give it one, or name another interface", ifname)
}
