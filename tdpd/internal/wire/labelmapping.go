package wire

// LabelMapping is the Label Mapping message: the label that the sender bound to a FEC (RFC 5036 section 3.5.7).
type LabelMapping struct {
	Head
	FEC        FEC
	Label      Label
	RequestID  *uint32 // Label Request Message ID: what it answers; nil: nothing
	HopCount   *uint8  // nil: none
	PathVector []LSRID
}

// Type implements Message.
func (LabelMapping) Type() MessageType { return TypeLabelMapping }

func (LabelMapping) kind() uint16 { return uint16(TypeLabelMapping) }

func (m LabelMapping) appendParameters(b []byte) ([]byte, error) {
	b, err := appendFEC(b, m.FEC, TypeLabelMapping)
	if err != nil {
		return b, err
	}
	if b, err = m.Label.append(b); err != nil {
		return b, err
	}
	b = appendUint32TLV(b, TLVLabelRequestMessageID, m.RequestID)
	return appendPathVector(appendHopCount(b, m.HopCount), m.PathVector)
}

func (m LabelMapping) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeLabelMapping(h header, b []byte) (Message, error) {
	m := LabelMapping{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVFEC, TLVGenericLabel)
	return m, err
}

func (m *LabelMapping) take(t TLV) (err error) {
	switch t.Type {
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeLabelMapping)
	case TLVGenericLabel:
		m.Label, err = parseLabel(t)
	case TLVLabelRequestMessageID:
		m.RequestID, err = parseUint32TLV(t)
	case TLVHopCount:
		m.HopCount, err = parseHopCount(t)
	case TLVPathVector:
		m.PathVector, err = parsePathVector(t)
	default:
		err = errNotOurs
	}
	return err
}
