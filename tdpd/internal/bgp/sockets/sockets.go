// Package sockets looks at the TCP connections of BGP sessions, whichever process has them.
package sockets

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// established is TCP_ESTABLISHED of the kernel.
const established = 1

// port is BGP's.
const port = 179

// Underway says whether something that was sent to a neighbor has not been acknowledged by its host. It lists all TCP sockets of the caller's network namespace.
func Underway(d bgp.Desired) (bool, error) {
	ports := map[netip.Addr]uint16{}
	for _, n := range d.Neighbors {
		ports[n.Address.WithZone("")] = orBGP(n.Port)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return false, err
		}
		for _, s := range all {
			far, _ := netip.AddrFromSlice(s.ID.Destination)
			at, isNeighbor := ports[far.Unmap()]
			isBGP := s.ID.DestinationPort == at || s.ID.SourcePort == orBGP(d.Port)
			if isNeighbor && isBGP && s.State == established && s.WQueue > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}

func orBGP(p uint16) uint16 {
	if p == 0 {
		return port
	}
	return p
}
