package wire

import (
	"encoding/binary"
	"fmt"
)

// MessageType is the type of a message, 15 bits; in a Status TLV and an Error, the U bit is above them as it was received (RFC 5036
// section 3.5).
type MessageType uint16

// Types of messages: RFC 5036 section 3.7, RFC 5561 section 4.
const (
	TypeNotification      MessageType = 0x0001
	TypeHello             MessageType = 0x0100
	TypeInitialization    MessageType = 0x0200
	TypeKeepAlive         MessageType = 0x0201
	TypeCapability        MessageType = 0x0202
	TypeAddress           MessageType = 0x0300
	TypeAddressWithdraw   MessageType = 0x0301
	TypeLabelMapping      MessageType = 0x0400
	TypeLabelRequest      MessageType = 0x0401
	TypeLabelWithdraw     MessageType = 0x0402
	TypeLabelRelease      MessageType = 0x0403
	TypeLabelAbortRequest MessageType = 0x0404

	messageU        = 1 << 15
	messageTypeMask = messageU - 1
)

const (
	messageHeaderSize = 8 // type, length, ID
	messageUncounted  = 4 // type and length, which the length does not count
	messageIDSize     = 4
	maxMessageLength  = 0xffff
)

// String is the type's name in its RFC.
func (t MessageType) String() string {
	switch t {
	case TypeNotification:
		return "Notification"
	case TypeHello:
		return "Hello"
	case TypeInitialization:
		return "Initialization"
	case TypeKeepAlive:
		return "KeepAlive"
	case TypeCapability:
		return "Capability"
	case TypeAddress:
		return "Address"
	case TypeAddressWithdraw:
		return "Address Withdraw"
	case TypeLabelMapping:
		return "Label Mapping"
	case TypeLabelRequest:
		return "Label Request"
	case TypeLabelWithdraw:
		return "Label Withdraw"
	case TypeLabelRelease:
		return "Label Release"
	case TypeLabelAbortRequest:
		return "Label Abort Request"
	}
	return fmt.Sprintf("%#04x", uint16(t))
}

// Message is one of the messages of this package, by value: Notification, Hello, Initialization, KeepAlive, Capability, Address,
// AddressWithdraw, LabelMapping, LabelRequest, LabelWithdraw, LabelRelease, LabelAbortRequest, VendorPrivate, UnknownMessage.
type Message interface {
	Type() MessageType
	MessageID() uint32

	// kind is the type with the U bit.
	kind() uint16
	appendParameters(b []byte) ([]byte, error)
	others() []TLV
	withID(id uint32) Message
}

// Head is what all messages have.
type Head struct {
	ID uint32 // names the message among the sender's; notifications refer to it
	// Others are the TLVs that nobody here knows and that say so by their U bit: kept for those who do, sent behind all others.
	Others []TLV
}

// MessageID implements Message.
func (h Head) MessageID() uint32 { return h.ID }

func (h Head) others() []TLV { return h.Others }

// header is the head of a message as received.
type header struct {
	kind MessageType // with the U bit
	id   uint32
}

// AppendMessage appends m. The error wraps ErrInvalid or ErrTooLarge.
func AppendMessage(b []byte, m Message) ([]byte, error) {
	at := len(b)
	b = append(binary.BigEndian.AppendUint16(b, m.kind()), 0, 0)
	b = binary.BigEndian.AppendUint32(b, m.MessageID())
	b, err := m.appendParameters(b)
	if err != nil {
		return b[:at], fmt.Errorf("ldp: %v message: %w", m.Type(), err)
	}
	for _, t := range m.others() {
		if b, err = t.append(b); err != nil {
			return b[:at], fmt.Errorf("ldp: %v message: %w", m.Type(), err)
		}
	}
	n := len(b) - at - messageUncounted
	if n > maxMessageLength {
		return b[:at], fmt.Errorf("ldp: %w: %v message of %d bytes", ErrTooLarge, m.Type(), n)
	}
	binary.BigEndian.PutUint16(b[at+2:], uint16(n))
	return b, nil
}

// parseMessage decodes the first message of b and says how many bytes it has. They are 0 where the error is fatal.
func parseMessage(b []byte) (Message, int, error) {
	h, size, err := parseHeader(b)
	if err != nil {
		return nil, 0, err
	}
	m, err := decode(h, b[messageHeaderSize:size])
	if err == nil {
		return m, size, nil
	}
	if fatal(err) {
		return nil, 0, err
	}
	return nil, size, err
}

// parseHeader gives the message's head and its size, header included.
func parseHeader(b []byte) (header, int, error) {
	if len(b) < messageUncounted {
		return header{}, 0, refuse(StatusBadPDULength, "%d bytes behind the last message", len(b))
	}
	h := header{kind: MessageType(binary.BigEndian.Uint16(b))}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if len(b) >= messageHeaderSize {
		h.id = binary.BigEndian.Uint32(b[4:])
	}
	if n < messageIDSize {
		return header{}, 0, inMessage(refuse(StatusBadMessageLength, "Message Length %d, shorter than a message ID", n), h)
	}
	if messageUncounted+n > len(b) {
		return header{}, 0, inMessage(refuse(StatusBadMessageLength, "Message Length %d, %d left in the PDU", n, len(b)-messageUncounted), h)
	}
	return h, messageUncounted + n, nil
}

// decode decodes what is behind the message ID.
func decode(h header, b []byte) (Message, error) {
	switch h.kind & messageTypeMask {
	case TypeNotification:
		return decodeNotification(h, b)
	case TypeHello:
		return decodeHello(h, b)
	case TypeInitialization:
		return decodeInitialization(h, b)
	case TypeKeepAlive:
		return decodeKeepAlive(h, b)
	case TypeCapability:
		return decodeCapability(h, b)
	case TypeAddress:
		return decodeAddress(h, b)
	case TypeAddressWithdraw:
		return decodeAddressWithdraw(h, b)
	}
	return decodeOther(h, b)
}

func decodeOther(h header, b []byte) (Message, error) {
	switch t := h.kind & messageTypeMask; {
	case t == TypeLabelMapping:
		return decodeLabelMapping(h, b)
	case t == TypeLabelRequest:
		return decodeLabelRequest(h, b)
	case t == TypeLabelWithdraw:
		return decodeLabelWithdraw(h, b)
	case t == TypeLabelRelease:
		return decodeLabelRelease(h, b)
	case t == TypeLabelAbortRequest:
		return decodeLabelAbortRequest(h, b)
	case isVendorMessage(t):
		return decodeVendorPrivate(h, b)
	}
	return decodeUnknown(h, b)
}

// WithID is m under another message ID.
func WithID(m Message, id uint32) Message { return m.withID(id) }
