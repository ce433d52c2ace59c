// Package wire is the codec of LDP, the Label Distribution Protocol (RFC 5036), with its capabilities (RFC 5561), typed wildcard
// (RFC 5918), end of LIB (RFC 5919), GTSM flag (RFC 6720), IPv6 (RFC 7552) and graceful restart (RFC 3478). It knows bytes only:
// no sockets, no clock, no state of a session.
//
// Whatever is wrong with what a peer sent is an *Error, which bears the status code to answer with and whether the session ends.
// What is decoded keeps nothing of the bytes that it was decoded from, except a PDU's Body.
package wire

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
)

const (
	// Port is LDP's port, in UDP for Hellos and in TCP for sessions (RFC 5036 section 3.10.1).
	Port = 646
	// Version is the protocol's version (RFC 5036 section 3.1).
	Version = 1
	// DefaultMaxPDULength is the largest PDU Length until a session has negotiated one, in bytes (RFC 5036 section 3.1).
	DefaultMaxPDULength = 4096

	pduHeaderSize     = 4 + identifierSize // version, PDU Length, LDP Identifier
	pduUncounted      = 4                  // version and PDU Length, which PDU Length does not count
	minPDULength      = 14                 // RFC 5036 section 3.5.1.2.1: the identifier and an empty message
	leastMaxPDULength = 256                // RFC 5036 section 3.5.3: less stands for the default
)

// VendorData is how many bytes of Data a vendor-private message may have, so that it fits into a PDU of that PDU Length.
func VendorData(maxPDULength int) int {
	return maxPDULength - (pduHeaderSize - pduUncounted) - messageHeaderSize - vendorIDSize
}

// PDU is one LDP PDU as it was received. Body are its messages, still encoded: a part of the bytes that it was decoded from.
type PDU struct {
	ID   Identifier // who sent it, and for which label space
	Body []byte
}

// MaxPDULength is what two proposals in Initialization messages settle on, in bytes: the smaller, where 255 or less stands for 4096
// (RFC 5036 section 3.5.3).
func MaxPDULength(ours, theirs uint16) uint16 { return min(maxPDULength(ours), maxPDULength(theirs)) }

func maxPDULength(proposed uint16) uint16 {
	if proposed < leastMaxPDULength {
		return DefaultMaxPDULength
	}
	return proposed
}

// pduSize gives the bytes of the PDU at the head of b, 0 where b is too short to know. Version and length are checked as soon as
// they are there: nobody waits for the rest of what will be refused.
func pduSize(b []byte, limit uint16) (int, error) {
	if len(b) < pduUncounted {
		return 0, nil
	}
	if v := binary.BigEndian.Uint16(b); v != Version {
		return 0, refuse(StatusBadProtocolVersion, "PDU of version %d, this LSR speaks %d", v, Version)
	}
	n := binary.BigEndian.Uint16(b[2:])
	if n < minPDULength || n > limit {
		return 0, refuse(StatusBadPDULength, "PDU Length %d, not between %d and %d", n, minPDULength, limit)
	}
	return pduUncounted + int(n), nil
}

// ParsePDU decodes the PDU of a datagram, and ignores what is behind it.
func ParsePDU(datagram []byte) (PDU, error) {
	size, err := pduSize(datagram, DefaultMaxPDULength)
	if err != nil {
		return PDU{}, err
	}
	if size == 0 || size > len(datagram) {
		return PDU{}, refuse(StatusBadPDULength, "datagram of %d bytes, shorter than its PDU", len(datagram))
	}
	return cutPDU(datagram[:size]), nil
}

// cutPDU is for a whole PDU whose header pduSize has accepted.
func cutPDU(b []byte) PDU {
	return PDU{ID: parseIdentifier(b[pduUncounted:]), Body: b[pduHeaderSize:len(b):len(b)]}
}

// Messages decodes the messages one after the other. Where a message cannot be used it gives the *Error; after a fatal one, nothing
// more. A caller stops at the first message that ends the session.
func (p PDU) Messages() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for b := p.Body; len(b) > 0; {
			m, n, err := parseMessage(b)
			if !yield(m, err) || n == 0 {
				return
			}
			b = b[n:]
		}
	}
}

// AppendPDU appends messages in as many PDUs as they need, none with a PDU Length above limit, which is as MaxPDULength gives it (255
// or less stands for 4096). Order is kept. The error wraps ErrInvalid or, for a message that fits no PDU, ErrTooLarge; dst is then
// returned as it was.
func AppendPDU(dst []byte, id Identifier, limit uint16, messages ...Message) ([]byte, error) {
	size := pduUncounted + int(maxPDULength(limit))
	begin := len(dst)
	start := begin
	for i, m := range messages {
		if i == 0 {
			dst = appendPDUHeader(dst, id)
		}
		at := len(dst)
		var err error
		if dst, err = AppendMessage(dst, m); err != nil {
			return dst[:begin], err
		}
		if len(dst)-start > size && at > start+pduHeaderSize { // the message opens the next PDU
			sealPDU(dst[start:at])
			dst = slices.Insert(dst, at, appendPDUHeader(nil, id)...)
			start = at
		}
		if n := len(dst) - start; n > size {
			return dst[:begin], fmt.Errorf("ldp: %w: %v message of %d bytes, a PDU carries %d",
				ErrTooLarge, m.Type(), n-pduHeaderSize, size-pduHeaderSize)
		}
	}
	if len(messages) > 0 {
		sealPDU(dst[start:])
	}
	return dst, nil
}

func appendPDUHeader(b []byte, id Identifier) []byte {
	b = binary.BigEndian.AppendUint16(b, Version)
	return id.append(append(b, 0, 0))
}

// sealPDU writes the PDU Length.
func sealPDU(pdu []byte) { binary.BigEndian.PutUint16(pdu[2:], uint16(len(pdu)-pduUncounted)) }
