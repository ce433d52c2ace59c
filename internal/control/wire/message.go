package wire

import (
	"crypto"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
)

// Bounds of messages.
const (
	MaxMessage = 1 << 20 // bytes, all in all
	MaxParts   = 4096
)

// ErrTooLarge says that a message is longer than MaxMessage or needs more than MaxParts frames.
var ErrTooLarge = errors.New("message is too large")

// Origin is who says a message, and in which of its lives; the signature covers it.
type Origin struct {
	Group  netip.Addr // the control group
	Sender identity.ID
	Boot   uint64
	Number uint64 // counts the sender's messages of this boot, from 1
}

// Message is what parts carry: kind, the certificate of a report's sender, body, signature.
type Message struct {
	Kind        control.Kind
	Certificate []byte // of a KindReport alone
	Body        []byte
	signed      []byte
	signature   []byte
}

// signOptions selects Ed25519ctx (RFC 8032 section 5.1): the signature under a message is good for nothing else.
var signOptions = &ed25519.Options{Hash: crypto.Hash(0), Context: "manycast control message 1"}

// Sign encodes and signs a message. The error wraps ErrTooLarge.
func (m Message) Sign(o Origin, private ed25519.PrivateKey) ([]byte, error) {
	size := 3 + len(m.Certificate) + len(m.Body) + ed25519.SignatureSize
	if size > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes of kind %d, at most %d", ErrTooLarge, size, m.Kind, MaxMessage)
	}
	b := make([]byte, 0, size)
	b = append(b, byte(m.Kind))
	if m.Kind == control.KindReport {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m.Certificate)))
		b = append(b, m.Certificate...)
	}
	b = append(b, m.Body...)
	signature, err := private.Sign(nil, o.covered(b), signOptions)
	if err != nil {
		return nil, fmt.Errorf("sign message of kind %d: %w", m.Kind, err)
	}
	return append(b, signature...), nil
}

// ParseMessage decodes a message without asking who signed it: Verify does. Its fields are parts of raw.
func ParseMessage(raw []byte) (Message, error) {
	end := len(raw) - ed25519.SignatureSize
	if end < 1 || len(raw) > MaxMessage {
		return Message{}, fmt.Errorf("%w: message of %d bytes", ErrMalformed, len(raw))
	}
	m := Message{Kind: control.Kind(raw[0]), Body: raw[1:end], signed: raw[:end], signature: raw[end:]}
	if m.Kind != control.KindReport {
		return m, nil
	}
	if len(m.Body) < 2 {
		return Message{}, fmt.Errorf("%w: report of %d bytes", ErrMalformed, len(raw))
	}
	n := int(binary.BigEndian.Uint16(m.Body))
	if n > identity.MaxSize || len(m.Body) < 2+n {
		return Message{}, fmt.Errorf("%w: certificate of %d bytes in a report of %d", ErrMalformed, n, len(raw))
	}
	m.Certificate, m.Body = m.Body[2:2+n], m.Body[2+n:]
	return m, nil
}

// Verify says whether the message is its origin's, who has public.
func (m Message) Verify(o Origin, public ed25519.PublicKey) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.VerifyWithOptions(public, o.covered(m.signed), m.signature, signOptions) == nil
}

// covered is what a signature is made over.
func (o Origin) covered(message []byte) []byte {
	group := o.Group.As16()
	b := make([]byte, 0, len(group)+len(o.Sender)+16+len(message))
	b = append(b, group[:]...)
	b = append(b, o.Sender[:]...)
	b = binary.BigEndian.AppendUint64(b, o.Boot)
	b = binary.BigEndian.AppendUint64(b, o.Number)
	return append(b, message...)
}

// Split cuts a signed message into frames of at most frameMax bytes. The error wraps ErrTooLarge.
func Split(o Origin, message []byte, frameMax int, key *Key) ([][]byte, error) {
	size := frameMax - Overhead
	parts := (len(message) + size - 1) / size
	if parts > MaxParts {
		return nil, fmt.Errorf("%w: %d frames, at most %d", ErrTooLarge, parts, MaxParts)
	}
	frames := make([][]byte, 0, parts)
	for i := range parts {
		bytes := message[i*size : min((i+1)*size, len(message))]
		f := Frame{Type: Part, Sender: o.Sender, Boot: o.Boot, Sequence: o.Number, Part: uint16(i), Parts: uint16(parts), Bytes: bytes}
		frames = append(frames, f.Seal(make([]byte, 0, len(bytes)+Overhead), key))
	}
	return frames, nil
}
