package wire

import (
	"encoding/binary"
	"net/netip"
)

// appendTransportAddress appends an IPv4 or an IPv6 Transport Address TLV, nothing where a is not valid.
func appendTransportAddress(b []byte, f AddressFamily, a netip.Addr) ([]byte, error) {
	if !a.IsValid() {
		return b, nil
	}
	kind := TLVIPv4TransportAddress
	if f == IPv6 {
		kind = TLVIPv6TransportAddress
	}
	b = append(binary.BigEndian.AppendUint16(b, uint16(kind)), 0, byte(f.addressSize()))
	return f.appendAddress(b, a)
}

func parseTransportAddress(t TLV, f AddressFamily) (netip.Addr, error) {
	if err := t.wantLength(f.addressSize()); err != nil {
		return netip.Addr{}, err
	}
	return parseAddress(t.Value), nil
}
