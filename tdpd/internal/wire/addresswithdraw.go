package wire

// AddressWithdraw is the Address Withdraw message: the sender has these addresses no longer (RFC 5036 section 3.5.6).
type AddressWithdraw struct {
	Head
	AddressList
}

// Type implements Message.
func (AddressWithdraw) Type() MessageType { return TypeAddressWithdraw }

func (AddressWithdraw) kind() uint16 { return uint16(TypeAddressWithdraw) }

func (m AddressWithdraw) appendParameters(b []byte) ([]byte, error) { return m.appendAddressList(b) }

func decodeAddressWithdraw(h header, b []byte) (Message, error) {
	m := AddressWithdraw{Head: Head{ID: h.id}}
	err := newParameters(h).read(b, &m.Head, m.take, TLVAddressList)
	return m, err
}

func (m AddressWithdraw) withID(id uint32) Message {
	m.ID = id
	return m
}
