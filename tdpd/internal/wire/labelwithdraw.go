package wire

// LabelWithdraw is the Label Withdraw message: the receiver is to use the label no longer, and to release it (RFC 5036 section 3.5.10).
type LabelWithdraw struct {
	Head
	FEC   FEC
	Label *Label // nil: all labels of the FEC
}

// Type implements Message.
func (LabelWithdraw) Type() MessageType { return TypeLabelWithdraw }

func (LabelWithdraw) kind() uint16 { return uint16(TypeLabelWithdraw) }

func (m LabelWithdraw) appendParameters(b []byte) ([]byte, error) {
	b, err := appendFEC(b, m.FEC, TypeLabelWithdraw)
	if err != nil {
		return b, err
	}
	return appendOptionalLabel(b, m.Label)
}

func (m LabelWithdraw) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeLabelWithdraw(h header, b []byte) (Message, error) {
	m := LabelWithdraw{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVFEC)
	return m, err
}

func (m *LabelWithdraw) take(t TLV) (err error) {
	switch t.Type {
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeLabelWithdraw)
	case TLVGenericLabel:
		m.Label, err = parseOptionalLabel(t)
	default:
		err = errNotOurs
	}
	return err
}
