package wire

import "net/netip"

// Hello is the Hello message (RFC 5036 section 3.5.2).
type Hello struct {
	Head
	HelloParameters
	IPv4Transport  netip.Addr          // zero: the datagram's source
	IPv6Transport  netip.Addr          // zero: the datagram's source
	ConfigSequence *uint32             // Configuration Sequence Number; nil: none
	Preference     TransportPreference // Dual-Stack capability
}

// Type implements Message.
func (Hello) Type() MessageType { return TypeHello }

func (Hello) kind() uint16 { return uint16(TypeHello) }

func (m Hello) appendParameters(b []byte) ([]byte, error) {
	b, err := m.appendHelloParameters(b)
	if err != nil {
		return b, err
	}
	if b, err = appendTransportAddress(b, IPv4, m.IPv4Transport); err != nil {
		return b, err
	}
	if b, err = appendTransportAddress(b, IPv6, m.IPv6Transport); err != nil {
		return b, err
	}
	return m.Preference.append(appendUint32TLV(b, TLVConfigurationSequence, m.ConfigSequence))
}

func (m Hello) withID(id uint32) Message {
	m.ID = id
	return m
}

// ParseHello decodes a datagram of LDP discovery. RFC 5036 section 3.5.1.2 has whatever is wrong discarded in silence; of a message that
// an error is about the sender is given all the same, since RFC 7552 section 6.1.1 ends a session because of a Hello.
func ParseHello(datagram []byte) (Identifier, Hello, error) {
	pdu, err := ParsePDU(datagram)
	if err != nil {
		return Identifier{}, Hello{}, err
	}
	for m, err := range pdu.Messages() {
		if err != nil {
			return pdu.ID, Hello{}, err
		}
		if hello, ok := m.(Hello); ok {
			return pdu.ID, hello, nil
		}
	}
	return pdu.ID, Hello{}, refuse(StatusUnknownMessageType, "datagram without a Hello")
}

func decodeHello(h header, b []byte) (Message, error) {
	m := Hello{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVCommonHelloParameters)
	return m, err
}

func (m *Hello) take(t TLV) (err error) {
	switch t.Type {
	case TLVCommonHelloParameters:
		m.HelloParameters, err = parseHelloParameters(t)
	case TLVIPv4TransportAddress:
		m.IPv4Transport, err = parseTransportAddress(t, IPv4)
	case TLVIPv6TransportAddress:
		m.IPv6Transport, err = parseTransportAddress(t, IPv6)
	case TLVConfigurationSequence:
		m.ConfigSequence, err = parseUint32TLV(t)
	case TLVDualStackCapability:
		m.Preference, err = parseTransportPreference(t)
	default:
		err = errNotOurs
	}
	return err
}
