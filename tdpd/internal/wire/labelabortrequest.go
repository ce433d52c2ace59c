package wire

// LabelAbortRequest is the Label Abort Request message (RFC 5036 section 3.5.9).
type LabelAbortRequest struct {
	Head
	FEC       FEC
	RequestID uint32 // Label Request Message ID: the request that is to be aborted
}

// Type implements Message.
func (LabelAbortRequest) Type() MessageType { return TypeLabelAbortRequest }

func (LabelAbortRequest) kind() uint16 { return uint16(TypeLabelAbortRequest) }

func (m LabelAbortRequest) appendParameters(b []byte) ([]byte, error) {
	b, err := appendFEC(b, m.FEC, TypeLabelAbortRequest)
	if err != nil {
		return b, err
	}
	return appendUint32TLV(b, TLVLabelRequestMessageID, &m.RequestID), nil
}

func (m LabelAbortRequest) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeLabelAbortRequest(h header, b []byte) (Message, error) {
	m := LabelAbortRequest{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVFEC, TLVLabelRequestMessageID)
	return m, err
}

func (m *LabelAbortRequest) take(t TLV) (err error) {
	switch t.Type {
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeLabelAbortRequest)
	case TLVLabelRequestMessageID:
		var id *uint32
		if id, err = parseUint32TLV(t); err == nil {
			m.RequestID = *id
		}
	default:
		err = errNotOurs
	}
	return err
}
