package wire

import (
	"errors"
	"slices"
)

// errNotOurs is what a message's own function says of a TLV that has no place in the message.
var errNotOurs = errors.New("TLV has no place in this message")

// parameters walks through the TLVs of one message.
type parameters struct {
	head header
	seen []TLVType
	// unknownStatus answers a TLV without U bit that nobody here knows.
	unknownStatus StatusCode
	// once refuses a TLV of which there was one of the same type; nil: the first counts and the others are ignored.
	once func(TLV) error
}

func newParameters(h header) *parameters {
	return &parameters{head: h, seen: make([]TLVType, 0, 8), unknownStatus: StatusUnknownTLV}
}

// read decodes all TLVs of a message: take gets its own, mandatory and optional in any order, head those that are kept. A message that
// lacks one of need is refused (RFC 5036 section 3.5.1.2.1).
func (p *parameters) read(b []byte, head *Head, take func(TLV) error, need ...TLVType) error {
	others, err := p.walk(b, take)
	if err != nil {
		return inMessage(err, p.head)
	}
	for _, t := range need {
		if !slices.Contains(p.seen, t) {
			return inMessage(refuse(StatusMissingMessageParameters, "no %v", t), p.head)
		}
	}
	head.Others = others
	return nil
}

// walk returns copies of the TLVs that are to be ignored because of their U bit (RFC 5036 section 3.3).
func (p *parameters) walk(b []byte, take func(TLV) error) ([]TLV, error) {
	var others []TLV
	for len(b) > 0 {
		t, rest, err := parseTLV(b)
		if err != nil {
			return nil, err
		}
		err = p.one(t, take)
		switch {
		case errors.Is(err, errNotOurs) && t.Unknown:
			others = append(others, t.clone())
		case errors.Is(err, errNotOurs):
			return nil, returning(refuse(p.unknownStatus, "%v is not known here", t.Type), b[:len(b)-len(rest)])
		case err != nil:
			return nil, err
		}
		b = rest
	}
	return others, nil
}

func (p *parameters) one(t TLV, take func(TLV) error) error {
	if !slices.Contains(p.seen, t.Type) {
		err := take(t)
		if err == nil {
			p.seen = append(p.seen, t.Type)
		}
		return err
	}
	if p.once != nil {
		return p.once(t)
	}
	return nil
}

// returning adds to an Error the TLV that is to be returned.
func returning(err error, tlv []byte) error {
	var e *Error
	if errors.As(err, &e) {
		e.TLV = slices.Clone(tlv)
	}
	return err
}
