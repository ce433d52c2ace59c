package wire

// LabelRelease is the Label Release message: the sender needs the label no longer (RFC 5036 section 3.5.11).
type LabelRelease struct {
	Head
	FEC    FEC
	Label  *Label  // nil: all labels of the FEC
	Status *Status // why a mapping was rejected, as Loop Detected (RFC 5036 section 3.4.5.1.2); nil: none
}

// Type implements Message.
func (LabelRelease) Type() MessageType { return TypeLabelRelease }

func (LabelRelease) kind() uint16 { return uint16(TypeLabelRelease) }

func (m LabelRelease) appendParameters(b []byte) ([]byte, error) {
	b, err := appendFEC(b, m.FEC, TypeLabelRelease)
	if err != nil {
		return b, err
	}
	if b, err = appendOptionalLabel(b, m.Label); err != nil || m.Status == nil {
		return b, err
	}
	return m.Status.append(b, true)
}

func (m LabelRelease) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeLabelRelease(h header, b []byte) (Message, error) {
	m := LabelRelease{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVFEC)
	return m, err
}

func (m *LabelRelease) take(t TLV) (err error) {
	switch t.Type {
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeLabelRelease)
	case TLVGenericLabel:
		m.Label, err = parseOptionalLabel(t)
	case TLVStatus:
		m.Status, err = parseOptionalStatus(t)
	default:
		err = errNotOurs
	}
	return err
}

func parseOptionalStatus(t TLV) (*Status, error) {
	s, err := parseStatus(t)
	if err != nil {
		return nil, err
	}
	return &s, nil
}
