package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Port is the UDP port of users' hosts to which changes of destination go.
const Port = 8466

// The message is the whole payload of a UDP datagram. What a program compares before anything else is in front; multi-byte fields
// lie at multiples of their size, addresses at multiples of 8. Offsets and sizes in bytes.
const (
	ChangeMagic   = 0x4d434344 // "MCCD"
	ChangeVersion = 1

	ChangeOffMagic    = 0  // 4
	ChangeOffVersion  = 4  // 1
	ChangeOffReserved = 5  // 1, 0
	ChangeOffTag      = 6  // 2
	ChangeOffCookie   = 8  // 8
	ChangeOffUserPort = 16 // 2
	ChangeOffVIPPort  = 18 // 2
	ChangeOffOldPort  = 20 // 2
	ChangeOffNewPort  = 22 // 2
	ChangeOffUser     = 24 // 16; IPv4 as ::ffff:0:0/96, here and below
	ChangeOffVIP      = 40 // 16
	ChangeOffOld      = 56 // 16
	ChangeOffNew      = 72 // 16
	ChangeOffSequence = 88 // 8
	ChangeOffTime     = 96 // 8; milliseconds since 1970-01-01 UTC, top bit 0

	ChangeOffKeyID     = 104 // 4
	ChangeOffSignature = 108 // 64

	ChangeSize = ChangeOffSignature + ed25519.SignatureSize
)

// Change says that a connection goes on at another server. Everything is under the signature, so it is good for one connection,
// one move of it, and nothing else.
type Change struct {
	Tag      uint16
	Cookie   Cookie
	User     netip.AddrPort // as the servers see it
	VIP      netip.AddrPort // what the application connected to
	Old      netip.AddrPort // where the connection was
	New      netip.AddrPort // where it goes on
	Sequence uint64         // of the move among those of the connection, from 1
	Time     time.Time      // when the message was signed, of whole milliseconds on the wire
	KeyID    uint32         // which of the service's keys signed (record.KeyID)
}

// Signed is a message as it travels.
type Signed struct {
	Change
	Raw []byte // ChangeSize bytes
}

// Decode reads a message without asking who signed it: Verify does. The result keeps a copy of raw. Errors wrap ErrMalformed or
// ErrVersion.
func Decode(raw []byte) (Signed, error) {
	if len(raw) < ChangeOffReserved || binary.BigEndian.Uint32(raw) != ChangeMagic {
		return Signed{}, malformed("change of destination of %d bytes, or without its magic", len(raw))
	}
	if v := raw[ChangeOffVersion]; v != ChangeVersion {
		return Signed{}, fmt.Errorf("%w: %d, this is %d", ErrVersion, v, ChangeVersion)
	}
	if len(raw) != ChangeSize {
		return Signed{}, malformed("change of destination of %d bytes, want %d", len(raw), ChangeSize)
	}
	if raw[ChangeOffReserved] != 0 {
		return Signed{}, malformed("reserved byte %#x", raw[ChangeOffReserved])
	}
	stamp := binary.BigEndian.Uint64(raw[ChangeOffTime:])
	if stamp > math.MaxInt64 {
		return Signed{}, malformed("time %#x", stamp)
	}
	c := Change{
		Tag:      binary.BigEndian.Uint16(raw[ChangeOffTag:]),
		Cookie:   Cookie(raw[ChangeOffCookie:ChangeOffUserPort]),
		User:     addrPort(raw, ChangeOffUser, ChangeOffUserPort),
		VIP:      addrPort(raw, ChangeOffVIP, ChangeOffVIPPort),
		Old:      addrPort(raw, ChangeOffOld, ChangeOffOldPort),
		New:      addrPort(raw, ChangeOffNew, ChangeOffNewPort),
		Sequence: binary.BigEndian.Uint64(raw[ChangeOffSequence:]),
		Time:     time.UnixMilli(int64(stamp)).UTC(),
		KeyID:    binary.BigEndian.Uint32(raw[ChangeOffKeyID:]),
	}
	if err := c.check(); err != nil {
		return Signed{}, err
	}
	return Signed{Change: c, Raw: append([]byte(nil), raw...)}, nil
}

// check holds for every message that is sent or taken.
func (c Change) check() error {
	for _, end := range []struct {
		what string
		at   netip.AddrPort
	}{{"user", c.User}, {"VIP", c.VIP}, {"old destination", c.Old}, {"new destination", c.New}} {
		if err := unicast(end.what, end.at); err != nil {
			return err
		}
		if end.at.Addr().Is4() != c.VIP.Addr().Is4() {
			return malformed("%s %v is of another family than VIP %v", end.what, end.at, c.VIP)
		}
	}
	switch {
	case c.Old == c.New:
		return malformed("a move from %v to itself", c.Old)
	case c.Sequence == 0:
		return malformed("sequence 0")
	case c.Time.UnixMilli() < 0:
		return malformed("time %v is before 1970", c.Time)
	}
	return nil
}

// encode is all but the signature, with room for it.
func (c Change) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b := make([]byte, ChangeOffSignature, ChangeSize)
	binary.BigEndian.PutUint32(b, ChangeMagic)
	b[ChangeOffVersion] = ChangeVersion
	binary.BigEndian.PutUint16(b[ChangeOffTag:], c.Tag)
	copy(b[ChangeOffCookie:], c.Cookie[:])
	putAddrPort(b, ChangeOffUser, ChangeOffUserPort, c.User)
	putAddrPort(b, ChangeOffVIP, ChangeOffVIPPort, c.VIP)
	putAddrPort(b, ChangeOffOld, ChangeOffOldPort, c.Old)
	putAddrPort(b, ChangeOffNew, ChangeOffNewPort, c.New)
	binary.BigEndian.PutUint64(b[ChangeOffSequence:], c.Sequence)
	binary.BigEndian.PutUint64(b[ChangeOffTime:], uint64(c.Time.UnixMilli()))
	binary.BigEndian.PutUint32(b[ChangeOffKeyID:], c.KeyID)
	return b, nil
}

func addrPort(raw []byte, addr, port int) netip.AddrPort {
	a := netip.AddrFrom16([16]byte(raw[addr : addr+16])).Unmap()
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(raw[port:]))
}

func putAddrPort(b []byte, addr, port int, a netip.AddrPort) {
	bytes := a.Addr().As16()
	copy(b[addr:], bytes[:])
	binary.BigEndian.PutUint16(b[port:], a.Port())
}
