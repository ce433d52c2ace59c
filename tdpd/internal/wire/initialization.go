package wire

// Initialization is the Initialization message (RFC 5036 section 3.5.3).
type Initialization struct {
	Head
	SessionParameters
	ATM          LinkParameters // nil: none
	FrameRelay   LinkParameters // nil: none
	FTSession    *FTSession     // nil: none
	Capabilities []CapabilityParameter
}

// Type implements Message.
func (Initialization) Type() MessageType { return TypeInitialization }

func (Initialization) kind() uint16 { return uint16(TypeInitialization) }

func (m Initialization) appendParameters(b []byte) ([]byte, error) {
	b, err := m.appendSessionParameters(b)
	if err != nil {
		return b, err
	}
	if b, err = m.ATM.append(b, TLVATMSessionParameters); err != nil {
		return b, err
	}
	if b, err = m.FrameRelay.append(b, TLVFrameRelaySession); err != nil {
		return b, err
	}
	for _, c := range m.Capabilities {
		if !c.Enabled { // RFC 5561 section 6
			return b, invalid("%v withdrawn in an Initialization message", c.Type)
		}
	}
	return appendCapabilities(m.FTSession.append(b), m.Capabilities)
}

func (m Initialization) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeInitialization(h header, b []byte) (Message, error) {
	m := Initialization{Head: Head{ID: h.id}}
	p := newParameters(h)
	p.once = capabilityOnce
	err := p.read(b, &m.Head, m.take, TLVCommonSessionParameters)
	return m, err
}

func (m *Initialization) take(t TLV) (err error) {
	switch {
	case t.Type == TLVCommonSessionParameters:
		m.SessionParameters, err = parseSessionParameters(t)
	case t.Type == TLVATMSessionParameters:
		m.ATM, err = parseLinkParameters(t)
	case t.Type == TLVFrameRelaySession:
		m.FrameRelay, err = parseLinkParameters(t)
	case t.Type == TLVFTSession:
		m.FTSession, err = parseFTSession(t)
	case isCapability(t.Type):
		err = m.takeCapability(t)
	default:
		err = errNotOurs
	}
	return err
}

func (m *Initialization) takeCapability(t TLV) error {
	c, err := parseCapability(t)
	if err != nil {
		return err
	}
	c.Enabled = true // RFC 5561 section 6: the S bit counts for nothing here
	m.Capabilities = append(m.Capabilities, c)
	return nil
}
