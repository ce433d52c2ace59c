package wire

// LabelRequest is the Label Request message; its ID names the transaction (RFC 5036 section 3.5.8).
type LabelRequest struct {
	Head
	FEC        FEC
	HopCount   *uint8 // nil: none
	PathVector []LSRID
}

// Type implements Message.
func (LabelRequest) Type() MessageType { return TypeLabelRequest }

func (LabelRequest) kind() uint16 { return uint16(TypeLabelRequest) }

func (m LabelRequest) appendParameters(b []byte) ([]byte, error) {
	b, err := appendFEC(b, m.FEC, TypeLabelRequest)
	if err != nil {
		return b, err
	}
	return appendPathVector(appendHopCount(b, m.HopCount), m.PathVector)
}

func (m LabelRequest) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeLabelRequest(h header, b []byte) (Message, error) {
	m := LabelRequest{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVFEC)
	return m, err
}

func (m *LabelRequest) take(t TLV) (err error) {
	switch t.Type {
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeLabelRequest)
	case TLVHopCount:
		m.HopCount, err = parseHopCount(t)
	case TLVPathVector:
		m.PathVector, err = parsePathVector(t)
	default:
		err = errNotOurs
	}
	return err
}
