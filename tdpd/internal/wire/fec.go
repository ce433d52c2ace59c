package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// FEC is a list of elements, what a label is bound to (RFC 5036 section 3.4.1). Only a Label Mapping may have more than one.
type FEC []FECElement

// FECElement is Wildcard, Prefix or TypedWildcard, by value; elements can be compared.
type FECElement interface {
	append(b []byte) ([]byte, error)
	String() string
}

// Wildcard stands for all FECs (RFC 5036 section 3.4.1). It is for Label Withdraw and Label Release alone.
type Wildcard struct{}

// Prefix is an address prefix; a host is a prefix of full length.
type Prefix struct{ netip.Prefix }

// TypedWildcard stands for all prefixes of a family (RFC 5918 section 6). It is for Label Request, Label Withdraw, Label Release and,
// at the end of a LIB, Notification.
type TypedWildcard struct{ Family AddressFamily }

// Types of elements (RFC 5036 section 3.4.1, RFC 5918 section 3).
const (
	fecWildcard      = 1
	fecPrefix        = 2
	fecTypedWildcard = 5
	fecPWid          = 0x80 // RFC 8077: not supported
	fecGeneralPWid   = 0x81 // likewise
)

const (
	prefixHeaderSize  = 1 + familySize + 1 // type, family, length
	typedWildcardSize = 3 + familySize     // type, type of the element, length of the family, family
)

// String names the element.
func (Wildcard) String() string { return "wildcard" }

// String names the element.
func (w TypedWildcard) String() string { return "wildcard of " + w.Family.String() }

func (Wildcard) append(b []byte) ([]byte, error) { return append(b, fecWildcard), nil }

func (w TypedWildcard) append(b []byte) ([]byte, error) {
	if w.Family.addressSize() == 0 {
		return b, invalid("FEC %v", w)
	}
	return binary.BigEndian.AppendUint16(append(b, fecTypedWildcard, fecPrefix, familySize), uint16(w.Family)), nil
}

// append sends no bits outside the length.
func (p Prefix) append(b []byte) ([]byte, error) {
	if !p.IsValid() {
		return b, invalid("FEC without a prefix")
	}
	b = binary.BigEndian.AppendUint16(append(b, fecPrefix), uint16(FamilyOf(p.Addr())))
	b = append(b, byte(p.Bits()))
	return append(b, p.Masked().Addr().AsSlice()[:prefixSize(p.Bits())]...), nil
}

// prefixSize is in bytes.
func prefixSize(bits int) int { return (bits + 7) / 8 }

func (f FEC) append(b []byte) ([]byte, error) {
	if len(f) == 0 {
		return b, invalid("FEC without an element")
	}
	b, at := openTLV(b, TLVFEC, 0)
	for _, e := range f {
		if e == nil {
			return b, invalid("FEC with an empty element")
		}
		if _, prefix := e.(Prefix); !prefix && len(f) > 1 {
			return b, invalid("FEC with a %v beside other elements", e)
		}
		var err error
		if b, err = e.append(b); err != nil {
			return b, err
		}
	}
	return closeTLV(b, at)
}

// allowed says whether a message of the type may carry the FEC; what it is not, it is unknown to that message.
func (f FEC) allowed(t MessageType) error {
	if len(f) > 1 && t != TypeLabelMapping {
		return refuse(StatusMalformedTLVValue, "%v with %d elements, more than one is for Label Mapping alone", TLVFEC, len(f))
	}
	var ok bool
	switch f[0].(type) {
	case Wildcard:
		ok = t == TypeLabelWithdraw || t == TypeLabelRelease
	case TypedWildcard:
		ok = t != TypeLabelMapping && t != TypeLabelAbortRequest
	default:
		ok = true
	}
	if !ok {
		return refuse(StatusUnknownFEC, "%v is not for this message", f[0])
	}
	return nil
}

// appendFEC appends the FEC of a message of the type.
func appendFEC(b []byte, f FEC, t MessageType) ([]byte, error) {
	if len(f) > 0 {
		if err := f.allowed(t); err != nil {
			return b, invalid("%v", err)
		}
	}
	return f.append(b)
}

// parseFEC decodes the FEC TLV of a message of the type.
func parseFEC(t TLV, in MessageType) (FEC, error) {
	if len(t.Value) == 0 {
		return nil, t.malformed("no element")
	}
	var f FEC
	for b := t.Value; len(b) > 0; {
		e, n, err := parseElement(t, b)
		if err != nil {
			return nil, err
		}
		f, b = append(f, e), b[n:]
	}
	f, err := lonely(t, f)
	if err != nil {
		return nil, err
	}
	return f, f.allowed(in)
}

// lonely sees to it that wildcards stand alone: other elements beside a typed one are ignored (RFC 5918 section 4), while there are
// to be none beside an untyped one (RFC 5036 section 3.4.1).
func lonely(t TLV, f FEC) (FEC, error) {
	if len(f) == 1 {
		return f, nil
	}
	for _, e := range f {
		if w, ok := e.(TypedWildcard); ok {
			return FEC{w}, nil
		}
	}
	for _, e := range f {
		if _, ok := e.(Wildcard); ok {
			return nil, t.malformed("wildcard beside %d other elements", len(f)-1)
		}
	}
	return f, nil
}

// parseElement decodes the first element of b and says how long it is.
func parseElement(t TLV, b []byte) (FECElement, int, error) {
	switch b[0] {
	case fecWildcard:
		return Wildcard{}, 1, nil
	case fecPrefix:
		return parsePrefix(t, b)
	case fecTypedWildcard:
		return parseTypedWildcard(t, b)
	}
	return nil, 0, unknownFEC(b[0], "element")
}

// unknownFEC stops the message (RFC 5036 section 3.4.1.1).
func unknownFEC(kind byte, what string) error {
	if kind == fecPWid || kind == fecGeneralPWid {
		what = "pseudowire " + what
	}
	return refuse(StatusUnknownFEC, "%s of type %#02x is not known here", what, kind)
}

func parsePrefix(t TLV, b []byte) (FECElement, int, error) {
	if len(b) < prefixHeaderSize {
		return nil, 0, t.malformed("prefix of %d bytes", len(b))
	}
	family, bits := AddressFamily(binary.BigEndian.Uint16(b[1:])), int(b[1+familySize])
	if err := family.check(TLVFEC); err != nil {
		return nil, 0, err
	}
	size := prefixHeaderSize + prefixSize(bits)
	if bits > 8*family.addressSize() || size > len(b) {
		return nil, 0, t.malformed("%v prefix of %d bits in %d bytes", family, bits, len(b)-prefixHeaderSize)
	}
	address := make([]byte, 16)[:family.addressSize()]
	copy(address, b[prefixHeaderSize:size])
	return Prefix{netip.PrefixFrom(parseAddress(address), bits).Masked()}, size, nil
}

func parseTypedWildcard(t TLV, b []byte) (FECElement, int, error) {
	if len(b) < 3 || len(b) < 3+int(b[2]) {
		return nil, 0, t.malformed("typed wildcard of %d bytes", len(b))
	}
	if b[1] != fecPrefix {
		return nil, 0, unknownFEC(b[1], "wildcard")
	}
	if b[2] != familySize {
		return nil, 0, t.malformed("wildcard of prefixes with %d bytes of family", b[2])
	}
	family := AddressFamily(binary.BigEndian.Uint16(b[3:]))
	if err := family.check(TLVFEC); err != nil {
		return nil, 0, err
	}
	return TypedWildcard{family}, typedWildcardSize, nil
}

// String lists the elements.
func (f FEC) String() string { return fmt.Sprint([]FECElement(f)) }
