package agent

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is where the groups are joined.
type Link struct {
	Address  netip.Addr   // the requester's
	Address6 netip.Addr   // where its connections of IPv6 can live; zero: nowhere
	Prefix   netip.Prefix // connected
	MTU      int          // bytes
}

// FindLink returns the interface's link; an address of "" means its first global one of that family. IPv6 there need not be, and is none that
// will go (temporary, deprecated) or may not come (tentative).
func FindLink(ifname, address, address6 string) (Link, error) {
	ifi, err := netlink.LinkByName(ifname)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", ifname, err)
	}
	addresses, err := netlink.AddrList(ifi, netlink.FAMILY_ALL)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: addresses: %w", ifname, err)
	}
	l := Link{MTU: ifi.Attrs().MTU}
	for _, a := range addresses {
		ip, _ := netip.AddrFromSlice(a.IP)
		ip = ip.Unmap()
		length, _ := a.Mask.Size()
		switch {
		case ip.Is4() && !l.Address.IsValid() && isWanted(ip, address):
			l.Address, l.Prefix = ip, netip.PrefixFrom(ip, length).Masked()
		case ip.Is6() && !l.Address6.IsValid() && a.Flags&passing == 0 && isWanted(ip, address6):
			l.Address6 = ip
		}
	}
	switch {
	case address6 != "" && !l.Address6.IsValid():
		return Link{}, fmt.Errorf("interface %s does not have address %s, or not for good: add it, or change `address6`", ifname, address6)
	case l.Address.IsValid():
		return l, nil
	case address != "":
		return Link{}, fmt.Errorf("interface %s does not have address %s: add it, or change `address`", ifname, address)
	}
	return Link{}, fmt.Errorf("interface %s has no IPv4 address: give it one, or name another interface", ifname)
}

// passing are the flags of addresses that connections cannot live at.
const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED

func isWanted(is netip.Addr, address string) bool {
	return address == is.String() || address == "" && is.IsGlobalUnicast()
}
