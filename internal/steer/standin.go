package steer

import (
	"encoding/binary"
	"net/netip"
)

// Standin is the IPv4 address that stands in for a user of IPv6 in plans: it comes of the first 64 bits, so that privacy addresses
// (RFC 8981) move nobody. It is spread evenly, whatever prefixes users come from: slots suit it, portions of IPv4 prefixes do not.
func Standin(user netip.Addr) netip.Addr {
	b := user.As16()
	return mixed(binary.BigEndian.Uint64(b[:8]))
}

// Flow is the IPv4 address that stands in for what a user sends from one port, where users are told apart by port, too: behind a NAT that is
// split. It is spread evenly, as Standin is.
func Flow(user netip.AddrPort) netip.Addr {
	a := user.Addr().Unmap()
	if a.Is6() {
		a = Standin(a)
	}
	return mixed(uint64(toUint32(a))<<16 | uint64(user.Port()))
}

// mixed is steer_standin of steer.h.
func mixed(h uint64) netip.Addr {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(h>>32))
	return netip.AddrFrom4(a)
}
