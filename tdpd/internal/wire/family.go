package wire

import (
	"fmt"
	"net/netip"
)

// AddressFamily is an IANA address family number.
type AddressFamily uint16

// Address families that LDP defines encodings for (RFC 5036 section 3.4.3).
const (
	IPv4 AddressFamily = 1
	IPv6 AddressFamily = 2

	familySize = 2
)

// FamilyOf gives the family of an address; that of an IPv4 address in IPv6 clothes (RFC 4291 section 2.5.5.2) is IPv6.
func FamilyOf(a netip.Addr) AddressFamily {
	switch {
	case a.Is4():
		return IPv4
	case a.Is6():
		return IPv6
	}
	return 0
}

// String is the family's name.
func (f AddressFamily) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return fmt.Sprintf("address family %d", uint16(f))
}

// addressSize is in bytes, 0 for families that are not supported.
func (f AddressFamily) addressSize() int {
	switch f {
	case IPv4:
		return 4
	case IPv6:
		return 16
	}
	return 0
}

// check refuses a family that is not supported, as RFC 5036 sections 3.4.1.1 and 3.5.5.1 have it.
func (f AddressFamily) check(where TLVType) error {
	if f.addressSize() == 0 {
		return refuse(StatusUnsupportedAddressFamily, "%v of %v", where, f)
	}
	return nil
}

// appendAddress appends an address of the family, without a zone.
func (f AddressFamily) appendAddress(b []byte, a netip.Addr) ([]byte, error) {
	if f.addressSize() == 0 || FamilyOf(a) != f || a.Zone() != "" {
		return b, invalid("address %v where %v is wanted, without a zone", a, f)
	}
	return append(b, a.AsSlice()...), nil
}

// parseAddress is for as many bytes as an address has.
func parseAddress(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
