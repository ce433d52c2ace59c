package serving

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// State is what travels with a connection that can move, in front of its kernel state.
type State struct {
	Tag         uint16
	Cookie      wire.Cookie
	Sequence    uint64           // of the last change of destination that was said of it; 0: none
	Destination netip.AddrPort   // where the giver had it
	Places      []netip.AddrPort // where its user may be, at most MaxPlaces; none: anywhere
}

// MaxPlaces bounds the places of a State.
const MaxPlaces = 8

// The encoding: version, number of places, tag, cookie, sequence, destination, places; a place is an address of 16 bytes, IPv4 as ::ffff:0:0/96, and
// a port. In network byte order.
const (
	// version is none that a plain state of package repair begins with: releases without dynamic TCP refuse it, and the connection stays with
	// its giver.
	version   = 0xd1
	placeSize = 16 + 2
	fixedSize = 1 + 1 + 2 + wire.CookieSize + 8 + placeSize
)

// ErrMalformed is what errors of Decode wrap.
var ErrMalformed = errors.New("malformed state of a connection that can move")

// Size is how many bytes Append appends.
func (s State) Size() int { return fixedSize + placeSize*len(s.Places) }

// Append appends the encoding to b. The kernel state follows.
func (s State) Append(b []byte) []byte {
	b = append(b, version, byte(len(s.Places)))
	b = binary.BigEndian.AppendUint16(b, s.Tag)
	b = append(b, s.Cookie[:]...)
	b = binary.BigEndian.AppendUint64(b, s.Sequence)
	b = appendPlace(b, s.Destination)
	for _, p := range s.Places {
		b = appendPlace(b, p)
	}
	return b
}

func appendPlace(b []byte, at netip.AddrPort) []byte {
	a := at.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, a[:]...), at.Port())
}

// Decode takes a State from the front of b; the rest is the kernel state. Without one, as of a plain connection or from releases that have none, it is
// false, and all of b is the kernel state. Errors wrap ErrMalformed.
func Decode(b []byte) (s State, rest []byte, ok bool, err error) {
	if len(b) == 0 || b[0] != version {
		return State{}, b, false, nil
	}
	if len(b) < fixedSize {
		return State{}, nil, false, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	n := int(b[1])
	if n > MaxPlaces || len(b) < fixedSize+n*placeSize {
		return State{}, nil, false, fmt.Errorf("%w: %d bytes with %d places, at most %d", ErrMalformed, len(b), n, MaxPlaces)
	}
	s.Tag = binary.BigEndian.Uint16(b[2:])
	b = b[4:]
	s.Cookie = wire.Cookie(b[:wire.CookieSize])
	s.Sequence = binary.BigEndian.Uint64(b[wire.CookieSize:])
	b = b[wire.CookieSize+8:]
	places := make([]netip.AddrPort, 1+n)
	for i := range places {
		if places[i], err = decodePlace(b); err != nil {
			return State{}, nil, false, err
		}
		b = b[placeSize:]
	}
	s.Destination = places[0]
	if n > 0 {
		s.Places = places[1:]
	}
	return s, b, true, nil
}

func decodePlace(b []byte) (netip.AddrPort, error) {
	at := netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])).Unmap(), binary.BigEndian.Uint16(b[16:]))
	if !at.Addr().IsGlobalUnicast() || at.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: %v is no address and port of a host", ErrMalformed, at)
	}
	return at, nil
}
