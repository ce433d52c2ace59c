package wire

// Address is the Address message: the sender has these addresses on its interfaces (RFC 5036 section 3.5.5).
type Address struct {
	Head
	AddressList
}

// Type implements Message.
func (Address) Type() MessageType { return TypeAddress }

func (Address) kind() uint16 { return uint16(TypeAddress) }

func (m Address) appendParameters(b []byte) ([]byte, error) { return m.appendAddressList(b) }

func decodeAddress(h header, b []byte) (Message, error) {
	m := Address{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVAddressList)
	return m, err
}

func (m Address) withID(id uint32) Message {
	m.ID = id
	return m
}

// take is for both messages that carry an address list.
func (l *AddressList) take(t TLV) (err error) {
	if t.Type != TLVAddressList {
		return errNotOurs
	}
	*l, err = parseAddressList(t)
	return err
}
