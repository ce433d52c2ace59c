package wire

import "bytes"

// UnknownMessage is a message that nobody here knows and whose U bit says that it is to be ignored in silence (RFC 5036 section 3.5).
// One without U bit is an Error instead.
type UnknownMessage struct {
	Head                    // Others stays empty
	MessageType MessageType // 15 bits
	Body        []byte      // what follows the message ID
}

// Type implements Message.
func (m UnknownMessage) Type() MessageType { return m.MessageType }

func (m UnknownMessage) kind() uint16 { return uint16(m.MessageType) | messageU }

func (m UnknownMessage) appendParameters(b []byte) ([]byte, error) {
	if m.MessageType > messageTypeMask {
		return b, invalid("type %#x", uint16(m.MessageType))
	}
	return append(b, m.Body...), nil
}

func (m UnknownMessage) withID(id uint32) Message {
	m.ID = id
	return m
}

func decodeUnknown(h header, b []byte) (Message, error) {
	if h.kind&messageU == 0 {
		return nil, inMessage(refuse(StatusUnknownMessageType, "a type that is not known here"), h)
	}
	return UnknownMessage{Head: Head{ID: h.id}, MessageType: h.kind & messageTypeMask, Body: bytes.Clone(b)}, nil
}
