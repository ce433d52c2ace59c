package binding

import (
	"encoding/binary"
	"fmt"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Vendor is the vendor ID of the messages and of the capability: a locally administered one (IEEE 802, U/L bit), "MC".
const Vendor = 0x024d43

// Types of vendor-private messages, and of the capability's TLV in Initialization messages. All carry the U bit: who does not know them
// goes on without.
const (
	TypeTold      wire.MessageType = 0x3e4d // a part of a binding, or of a withdrawal
	TypeRefreshed wire.MessageType = 0x3e4e // a part of a binding without its allocation: what was told holds for longer
	TypeActive    wire.MessageType = 0x3e4f // a part of a word of who is active
	TypeOffered   wire.TLVType     = 0x3e4d
)

// version is that of the messages, the capability's only byte.
const version = 1

// partHeader is before the body of each part: version, one byte of zero, this part's number from 1 on, and how many there are, in 4 bytes each.
const partHeader = 10

// Capability is what a router that takes bindings offers in its Initialization messages.
func Capability() wire.TLV { return wire.VendorTLV(TypeOffered, Vendor, []byte{version}) }

// Offered says whether TLVs of an Initialization message hold the capability, in a version that is known here.
func Offered(tlvs []wire.TLV) bool {
	for _, t := range tlvs {
		if vendor, data, ok := t.Vendor(); ok && t.Type == TypeOffered && vendor == Vendor && len(data) > 0 && data[0] == version {
			return true
		}
	}
	return false
}

// Messages cuts an encoded binding, or word of who is active, into messages for PDUs of that PDU Length, 256 at least.
func Messages(t wire.MessageType, raw []byte, maxPDU int) []wire.VendorPrivate {
	room := wire.VendorData(maxPDU) - partHeader
	count := max(1, (len(raw)+room-1)/room)
	out := make([]wire.VendorPrivate, count)
	for i := range out {
		body := raw[i*room : min((i+1)*room, len(raw))]
		data := make([]byte, 2, partHeader+len(body))
		data[0] = version
		data = binary.BigEndian.AppendUint32(data, uint32(i+1))
		data = binary.BigEndian.AppendUint32(data, uint32(count))
		out[i] = wire.VendorPrivate{MessageType: t, Unknown: true, Vendor: Vendor, Data: append(data, body...)}
	}
	return out
}

// Assembler puts the parts that one neighbor sends together; TCP keeps their order. The zero value is ready. It keeps at most MaxSize bytes.
type Assembler struct {
	of    wire.MessageType
	count uint32
	have  uint32
	raw   []byte
}

// Add takes a message of this package's types and vendor. It returns the whole when the last part is there, else nil. After an error, which
// wraps ErrInvalid, the next whole begins anew.
func (a *Assembler) Add(m wire.VendorPrivate) ([]byte, error) {
	raw, err := a.add(m)
	if err != nil || raw != nil {
		*a = Assembler{}
	}
	return raw, err
}

func (a *Assembler) add(m wire.VendorPrivate) ([]byte, error) {
	if len(m.Data) < partHeader || m.Data[0] != version {
		return nil, fmt.Errorf("%w: a part of %d bytes, or of another version", ErrInvalid, len(m.Data))
	}
	part, count := binary.BigEndian.Uint32(m.Data[2:]), binary.BigEndian.Uint32(m.Data[6:])
	body := m.Data[partHeader:]
	switch {
	case part == 1:
		*a = Assembler{of: m.MessageType, count: count}
	case a.count == 0 || a.of != m.MessageType || a.count != count || part != a.have+1:
		return nil, fmt.Errorf("%w: part %d of %d after %d of %d", ErrInvalid, part, count, a.have, a.count)
	}
	if part > count || len(a.raw)+len(body) > MaxSize {
		return nil, fmt.Errorf("%w: part %d of %d, %d bytes so far", ErrInvalid, part, count, len(a.raw)+len(body))
	}
	a.have = part
	a.raw = append(a.raw, body...)
	if part < count {
		return nil, nil
	}
	return append([]byte{}, a.raw...), nil
}

// Ours says whether a message is one for an Assembler.
func Ours(m wire.VendorPrivate) bool {
	return m.Vendor == Vendor && (m.MessageType == TypeTold || m.MessageType == TypeRefreshed || m.MessageType == TypeActive)
}
