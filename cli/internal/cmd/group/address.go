package group

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/record"
)

// Where addresses without --address come from. Private: the organization-local scope of RFC 2365, halved, so that a permanent group never
// gets the address of a temporary one that routers may still remember; 239.255/16 (link-local scope) and the addresses that share
// their MAC address with 224.0.0.x are outside of it. Public: IANA's block for dynamic assignment.
var (
	permanentPrivate = netip.MustParsePrefix("239.192.0.0/15")
	temporaryPrivate = netip.MustParsePrefix("239.194.0.0/15")
	public           = netip.MustParsePrefix("224.2.128.0/17")
)

func pool(private, temporary bool) netip.Prefix {
	switch {
	case !private:
		return public
	case temporary:
		return temporaryPrivate
	}
	return permanentPrivate
}

// pick is the address of a pool that a random number stands for; network and broadcast look-alikes (.0, .255) are left out.
func pick(p netip.Prefix, random uint32) netip.Addr {
	base := binary.BigEndian.Uint32(p.Addr().AsSlice())
	n := base | random&(1<<(32-p.Bits())-1)
	if low := n & 0xff; low == 0 || low == 0xff {
		n ^= 1
	}
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}

// allowed says whether a user may ask for an address.
func allowed(a netip.Addr, private bool) error {
	if a.Is4() && a.IsMulticast() && private && a.As4()[0] != 239 {
		if record.PrivateGroup(a) {
			return fmt.Errorf("address %s: private groups are given out of 239/8 (232/8 belongs to source-specific multicast)", a)
		}
		return fmt.Errorf("address %s is in the public part of the group space; private groups are in 239/8", a)
	}
	if a.Is4() && a.IsLinkLocalMulticast() {
		return fmt.Errorf("address %s: 224.0.0/24 never leaves its link", a)
	}
	return nil
}
