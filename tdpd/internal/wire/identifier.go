package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// LSRID names an LSR: the first four bytes of its LDP Identifiers, written like an IPv4 address (RFC 5036 section 2.2.2).
type LSRID [4]byte

// String writes the four bytes with dots.
func (id LSRID) String() string { return netip.AddrFrom4(id).String() }

// Identifier is an LDP Identifier: an LSR and one of its label spaces, 0 for the platform-wide one (RFC 5036 section 2.2.2).
type Identifier struct {
	LSR   LSRID
	Space uint16
}

const identifierSize = 6

// String writes the identifier as RFC 5036 section 2.2.2 does: 1.1.1.1:0.
func (id Identifier) String() string { return fmt.Sprintf("%v:%d", id.LSR, id.Space) }

// Compare orders identifiers by LSR, then by label space.
func (id Identifier) Compare(o Identifier) int {
	return cmp.Or(bytes.Compare(id.LSR[:], o.LSR[:]), cmp.Compare(id.Space, o.Space))
}

func (id Identifier) append(b []byte) []byte {
	return binary.BigEndian.AppendUint16(append(b, id.LSR[:]...), id.Space)
}

// parseIdentifier decodes the first identifierSize bytes of b.
func parseIdentifier(b []byte) Identifier {
	return Identifier{LSR: LSRID(b[:4]), Space: binary.BigEndian.Uint16(b[4:])}
}
