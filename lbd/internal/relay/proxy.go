package relay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// proxyHeader is the PROXY protocol's header for a user's connection, by the specification of HAProxy, version 2 or 1. Both addresses
// are of one IP version.
func proxyHeader(how string, user, vip netip.AddrPort) []byte {
	switch how {
	case ProxyV2:
		return proxyV2(user, vip)
	case ProxyV1:
		return proxyV1(user, vip)
	}
	return nil
}

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyCommand   = 0x21 // version 2, PROXY
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
)

func proxyV2(user, vip netip.AddrPort) []byte {
	family := byte(proxyTCP6)
	if user.Addr().Is4() {
		family = proxyTCP4
	}
	addresses := append(user.Addr().AsSlice(), vip.Addr().AsSlice()...)
	addresses = binary.BigEndian.AppendUint16(addresses, user.Port())
	addresses = binary.BigEndian.AppendUint16(addresses, vip.Port())
	header := append([]byte(proxySignature), proxyCommand, family)
	header = binary.BigEndian.AppendUint16(header, uint16(len(addresses)))
	return append(header, addresses...)
}

func proxyV1(user, vip netip.AddrPort) []byte {
	family := "TCP6"
	if user.Addr().Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %v %v %d %d\r\n", family, user.Addr(), vip.Addr(), user.Port(), vip.Port())
}
