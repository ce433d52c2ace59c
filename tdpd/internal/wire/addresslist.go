package wire

import (
	"encoding/binary"
	"net/netip"
)

// AddressList is the Address List TLV: addresses of one family (RFC 5036 section 3.4.3).
type AddressList struct {
	Family    AddressFamily
	Addresses []netip.Addr
}

func (l AddressList) appendAddressList(b []byte) ([]byte, error) {
	if l.Family.addressSize() == 0 {
		return b, invalid("address list of %v", l.Family)
	}
	b, at := openTLV(b, TLVAddressList, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(l.Family))
	for _, a := range l.Addresses {
		var err error
		if b, err = l.Family.appendAddress(b, a); err != nil {
			return b, err
		}
	}
	return closeTLV(b, at)
}

func parseAddressList(t TLV) (AddressList, error) {
	if len(t.Value) < familySize {
		return AddressList{}, t.malformed("%d bytes", len(t.Value))
	}
	l := AddressList{Family: AddressFamily(binary.BigEndian.Uint16(t.Value))}
	if err := l.Family.check(TLVAddressList); err != nil {
		return AddressList{}, err
	}
	b, size := t.Value[familySize:], l.Family.addressSize()
	if len(b)%size != 0 {
		return AddressList{}, t.malformed("%d bytes of %v addresses", len(b), l.Family)
	}
	if len(b) == 0 {
		return l, nil
	}
	l.Addresses = make([]netip.Addr, 0, len(b)/size)
	for ; len(b) > 0; b = b[size:] {
		l.Addresses = append(l.Addresses, parseAddress(b[:size]))
	}
	return l, nil
}
