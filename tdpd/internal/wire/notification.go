package wire

import "bytes"

// Notification is the Notification message (RFC 5036 section 3.5.1).
type Notification struct {
	Head
	Status         Status
	ExtendedStatus *uint32 // nil: none
	// What is returned to its sender, as it came, whole or the beginning of it; nil: none.
	ReturnedPDU     []byte
	ReturnedMessage []byte
	ReturnedTLVs    []byte  // RFC 5561 section 8
	FEC             FEC     // with End-of-LIB, a TypedWildcard (RFC 5919 section 4); nil: none
	RequestID       *uint32 // Label Request Message ID, with Label Request Aborted (RFC 5036 section 3.5.9.1); nil: none
}

// Type implements Message.
func (Notification) Type() MessageType { return TypeNotification }

func (Notification) kind() uint16 { return uint16(TypeNotification) }

func (m Notification) appendParameters(b []byte) ([]byte, error) {
	b, err := m.Status.append(b, false)
	if err != nil {
		return b, err
	}
	b = appendUint32TLV(b, TLVExtendedStatus, m.ExtendedStatus)
	for _, t := range []TLV{
		{Type: TLVReturnedPDU, Value: m.ReturnedPDU},
		{Type: TLVReturnedMessage, Value: m.ReturnedMessage},
		{Type: TLVReturnedTLVs, Value: m.ReturnedTLVs, Unknown: true},
	} {
		if t.Value == nil {
			continue
		}
		if b, err = t.append(b); err != nil {
			return b, err
		}
	}
	if m.FEC != nil {
		if b, err = appendFEC(b, m.FEC, TypeNotification); err != nil {
			return b, err
		}
	}
	return appendUint32TLV(b, TLVLabelRequestMessageID, m.RequestID), nil
}

func (m Notification) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeNotification(h header, b []byte) (Message, error) {
	m := Notification{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVStatus)
	return m, err
}

func (m *Notification) take(t TLV) (err error) {
	switch t.Type {
	case TLVStatus:
		m.Status, err = parseStatus(t)
	case TLVExtendedStatus:
		m.ExtendedStatus, err = parseUint32TLV(t)
	case TLVReturnedPDU:
		m.ReturnedPDU = bytes.Clone(t.Value)
	case TLVReturnedMessage:
		m.ReturnedMessage = bytes.Clone(t.Value)
	case TLVReturnedTLVs:
		m.ReturnedTLVs = bytes.Clone(t.Value)
	case TLVFEC:
		m.FEC, err = parseFEC(t, TypeNotification)
	case TLVLabelRequestMessageID:
		m.RequestID, err = parseUint32TLV(t)
	default:
		err = errNotOurs
	}
	return err
}
