// Package forger has the lab's attackers of dynamic TCP: hosts that send changes of destination that no user's host may believe, and segments that no
// connection may take. What they send they make by what docs/wire-formats.md says, and by nothing of the suite's own code.
package forger

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Port is where users' hosts take changes of destination.
const Port = 8466

// Bytes is the size of a change of destination.
const Bytes = 172

// Where the fields of a change of destination are.
const (
	offMagic     = 0
	offVersion   = 4
	offTag       = 6
	offCookie    = 8
	offUserPort  = 16
	offVIPPort   = 18
	offOldPort   = 20
	offNewPort   = 22
	offUser      = 24
	offVIP       = 40
	offOld       = 56
	offNew       = 72
	offSequence  = 88
	offTime      = 96
	offKeyID     = 104
	offSignature = 108

	magic   = 0x4d434344
	context = "manycast change destination 1"
)

// Message is a change of destination.
type Message [Bytes]byte

// Captured reads what was seen on the way.
func Captured(payload []byte) (m Message, err error) {
	if len(payload) != Bytes || binary.BigEndian.Uint32(payload) != magic {
		return m, errors.New("no change of destination")
	}
	return Message(payload), nil
}

// New is a message about a connection that claims a move from one place to another, unsigned and with sequence 1.
func New(user, vip, from, to netip.AddrPort, now time.Time) (m Message) {
	binary.BigEndian.PutUint32(m[offMagic:], magic)
	m[offVersion] = 1
	m.put(offUser, offUserPort, user)
	m.put(offVIP, offVIPPort, vip)
	m.put(offOld, offOldPort, from)
	m.put(offNew, offNewPort, to)
	binary.BigEndian.PutUint64(m[offSequence:], 1)
	return m.At(now)
}

func (m *Message) put(at, port int, a netip.AddrPort) {
	b := a.Addr().As16()
	copy(m[at:], b[:])
	binary.BigEndian.PutUint16(m[port:], a.Port())
}

func (m *Message) get(at, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m[at:at+16])).Unmap(), binary.BigEndian.Uint16(m[port:]))
}

// User is the user's end of the connection.
func (m Message) User() netip.AddrPort { return m.get(offUser, offUserPort) }

// VIP is what the connection was made to.
func (m Message) VIP() netip.AddrPort { return m.get(offVIP, offVIPPort) }

// Destination is where it goes.
func (m Message) Destination() netip.AddrPort { return m.get(offNew, offNewPort) }

// Known has another tag and another cookie.
func (m Message) Known(tag uint16, cookie uint64) Message {
	binary.BigEndian.PutUint16(m[offTag:], tag)
	binary.BigEndian.PutUint64(m[offCookie:], cookie)
	return m
}

// Tag is the connection's.
func (m Message) Tag() uint16 { return binary.BigEndian.Uint16(m[offTag:]) }

// Cookie is the connection's.
func (m Message) Cookie() uint64 { return binary.BigEndian.Uint64(m[offCookie:]) }

// Origin is where it was.
func (m Message) Origin() netip.AddrPort { return m.get(offOld, offOldPort) }

// From is of a connection that is where it says.
func (m Message) From(from netip.AddrPort) Message {
	m.put(offOld, offOldPort, from)
	return m
}

// Sequence is the move's.
func (m Message) Sequence() uint64 { return binary.BigEndian.Uint64(m[offSequence:]) }

// To leads elsewhere.
func (m Message) To(to netip.AddrPort) Message {
	m.put(offNew, offNewPort, to)
	return m
}

// About is of another VIP.
func (m Message) About(vip netip.AddrPort) Message {
	m.put(offVIP, offVIPPort, vip)
	return m
}

// Later has so much a higher sequence.
func (m Message) Later(by uint64) Message {
	binary.BigEndian.PutUint64(m[offSequence:], m.Sequence()+by)
	return m
}

// At is signed at another time.
func (m Message) At(when time.Time) Message {
	binary.BigEndian.PutUint64(m[offTime:], uint64(when.UnixMilli()))
	return m
}

// Signed has a signature by a key that nobody has published: under the name of the true one, or under its own.
func (m Message) Signed(key ed25519.PrivateKey, underItsOwn bool) (Message, error) {
	if underItsOwn {
		id := sha256.Sum256(key.Public().(ed25519.PublicKey))
		copy(m[offKeyID:offSignature], id[:4])
	}
	signature, err := key.Sign(rand.Reader, m[:offSignature], &ed25519.Options{Context: context})
	if err != nil {
		return m, fmt.Errorf("sign: %w", err)
	}
	copy(m[offSignature:], signature)
	return m, nil
}
