package wire

import (
	"encoding/binary"
	"strconv"
)

// Label is an MPLS label, 20 bits (RFC 5036 section 3.4.2.1).
type Label uint32

// Labels with a meaning of their own (RFC 3032 section 2.1), and the range of those that are free to be given out.
const (
	LabelExplicitNullIPv4 Label = 0
	LabelExplicitNullIPv6 Label = 2
	LabelImplicitNull     Label = 3
	LabelFirst            Label = 16
	LabelLast             Label = 1<<20 - 1
)

// Valid says whether the label can be bound to a FEC: it is a null label or none of the reserved. Router alert (1) and 4 to 15 mean
// something else wherever they stand in a stack (RFC 3032 section 2.1, RFC 7274 section 3), never a FEC.
func (l Label) Valid() bool {
	switch l {
	case LabelExplicitNullIPv4, LabelExplicitNullIPv6, LabelImplicitNull:
		return true
	}
	return l >= LabelFirst && l <= LabelLast
}

// String is the number, or the null label's name.
func (l Label) String() string {
	switch l {
	case LabelExplicitNullIPv4:
		return "explicit-null"
	case LabelExplicitNullIPv6:
		return "ipv6-explicit-null"
	case LabelImplicitNull:
		return "implicit-null"
	}
	return strconv.FormatUint(uint64(l), 10)
}

const labelSize = 4

func (l Label) append(b []byte) ([]byte, error) {
	if !l.Valid() {
		return b, invalid("label %d, which is reserved or above %d", uint32(l), uint32(LabelLast))
	}
	b = binary.BigEndian.AppendUint16(b, uint16(TLVGenericLabel))
	return binary.BigEndian.AppendUint32(append(b, 0, labelSize), uint32(l)), nil
}

func parseLabel(t TLV) (Label, error) {
	if err := t.wantLength(labelSize); err != nil {
		return 0, err
	}
	l := Label(binary.BigEndian.Uint32(t.Value))
	if !l.Valid() {
		return 0, t.malformed("label %d is reserved or above %d", uint32(l), uint32(LabelLast))
	}
	return l, nil
}

// appendOptionalLabel appends nothing where l is nil.
func appendOptionalLabel(b []byte, l *Label) ([]byte, error) {
	if l == nil {
		return b, nil
	}
	return l.append(b)
}

func parseOptionalLabel(t TLV) (*Label, error) {
	l, err := parseLabel(t)
	if err != nil {
		return nil, err
	}
	return &l, nil
}
