package wire

import "encoding/binary"

// Status is the Status TLV (RFC 5036 section 3.4.6).
type Status struct {
	Code        StatusCode
	Fatal       bool        // E bit: the session ends
	Forward     bool        // F bit: to be forwarded along the LSP
	MessageID   uint32      // of the message that it is about, 0 for none
	MessageType MessageType // likewise, with the U bit
}

const (
	statusSize = 10
	statusE    = 1 << 31
	statusF    = 1 << 30
)

// NewStatus is a status with the E bit that its code requires.
func NewStatus(c StatusCode) Status { return Status{Code: c, Fatal: c.Fatal()} }

// append appends the TLV; u is whether receivers that do not expect it may ignore it, as outside of notifications.
func (s Status) append(b []byte, u bool) ([]byte, error) {
	if s.Code > maxStatusCode {
		return b, invalid("status code %#x, above %#x", uint32(s.Code), uint32(maxStatusCode))
	}
	kind := uint32(TLVStatus) | flag(tlvU, u) | flag(tlvF, s.Forward)
	code := uint32(s.Code) | flag(statusE, s.Fatal) | flag(statusF, s.Forward)
	b = append(binary.BigEndian.AppendUint16(b, uint16(kind)), 0, statusSize)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, s.MessageID)
	return binary.BigEndian.AppendUint16(b, uint16(s.MessageType)), nil
}

func parseStatus(t TLV) (Status, error) {
	if err := t.wantLength(statusSize); err != nil {
		return Status{}, err
	}
	code := binary.BigEndian.Uint32(t.Value)
	return Status{
		Code:        StatusCode(code & maxStatusCode),
		Fatal:       code&statusE != 0,
		Forward:     code&statusF != 0,
		MessageID:   binary.BigEndian.Uint32(t.Value[4:]),
		MessageType: MessageType(binary.BigEndian.Uint16(t.Value[8:])),
	}, nil
}
