package wire

import (
	"net/netip"
	"testing"
)

var addresses = []example{
	{"address_v4", Address{Head{ID: 42}, AddressList{IPv4, []netip.Addr{addr("10.0.0.1"), addr("192.0.2.1")}}}},
	{"address_v6", Address{Head{ID: 42}, AddressList{IPv6, []netip.Addr{addr("2001:db8::1")}}}},
	{"address_none", Address{Head{ID: 42}, AddressList{Family: IPv4}}},
}

func TestAddress(t *testing.T) { both(t, addresses) }

func FuzzAddress(f *testing.F) { fuzz(f, TypeAddress, addresses) }
