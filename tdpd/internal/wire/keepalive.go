package wire

// KeepAlive is the KeepAlive message (RFC 5036 section 3.5.4).
type KeepAlive struct{ Head }

// Type implements Message.
func (KeepAlive) Type() MessageType { return TypeKeepAlive }

func (KeepAlive) kind() uint16 { return uint16(TypeKeepAlive) }

func (KeepAlive) appendParameters(b []byte) ([]byte, error) { return b, nil }

func decodeKeepAlive(h header, b []byte) (Message, error) {
	m := KeepAlive{Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, func(TLV) error { return errNotOurs })
	return m, err
}

func (m KeepAlive) withID(id uint32) Message {
	m.ID = id
	return m
}
