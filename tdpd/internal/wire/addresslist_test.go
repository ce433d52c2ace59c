package wire

import (
	"net/netip"
	"testing"
)

func TestAddressListRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"no family":           Address{},
		"family 3":            Address{AddressList: AddressList{Family: 3}},
		"IPv6 in IPv4":        Address{AddressList: AddressList{IPv4, []netip.Addr{addr("2001:db8::1")}}},
		"IPv4 in IPv6":        AddressWithdraw{AddressList: AddressList{IPv6, []netip.Addr{addr("10.0.0.1")}}},
		"mapped IPv4 in IPv4": Address{AddressList: AddressList{IPv4, []netip.Addr{addr("::ffff:10.0.0.1")}}},
		"with a zone":         Address{AddressList: AddressList{IPv6, []netip.Addr{addr("fe80::1%eth0")}}},
		"no address":          Address{AddressList: AddressList{IPv4, []netip.Addr{{}}}},
	})
}
