package wire

import (
	"net/netip"
	"testing"
)

var addressWithdraws = []example{
	{"addresswithdraw", AddressWithdraw{Head{ID: 42}, AddressList{IPv4, []netip.Addr{addr("10.0.0.1")}}}},
}

func TestAddressWithdraw(t *testing.T) { both(t, addressWithdraws) }

func FuzzAddressWithdraw(f *testing.F) { fuzz(f, TypeAddressWithdraw, addressWithdraws) }
