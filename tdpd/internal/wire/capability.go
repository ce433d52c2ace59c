package wire

// Capability is the Capability message: what changed since the Initialization message (RFC 5561 section 4).
type Capability struct {
	Head
	Capabilities []CapabilityParameter
}

// Type implements Message.
func (Capability) Type() MessageType { return TypeCapability }

func (Capability) kind() uint16 { return uint16(TypeCapability) }

func (m Capability) appendParameters(b []byte) ([]byte, error) {
	for _, c := range m.Capabilities {
		if c.Type == TLVDynamicCapability { // RFC 5561 section 9
			return b, invalid("%v in a Capability message", c.Type)
		}
	}
	return appendCapabilities(b, m.Capabilities)
}

func (m Capability) withID(id uint32) Message {
	m.ID = id
	return m
}

// decodeCapability takes every TLV for a capability, which makes one that is not known an unsupported one (RFC 5561 section 6).
func decodeCapability(h header, b []byte) (Message, error) {
	m := Capability{Head: Head{ID: h.id}}
	p := newParameters(h)
	p.once, p.unknownStatus = capabilityOnce, StatusUnsupportedCapability
	err := p.read(b, &m.Head, m.take)
	return m, err
}

func (m *Capability) take(t TLV) error {
	switch {
	case t.Type == TLVFTSession, t.Type == TLVDynamicCapability: // RFC 5561 sections 4 and 9: ignored
		return nil
	case !isCapability(t.Type):
		return errNotOurs
	}
	c, err := parseCapability(t)
	if err == nil {
		m.Capabilities = append(m.Capabilities, c)
	}
	return err
}
