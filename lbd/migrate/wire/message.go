// Package wire is the protocol between an application, which uses package migrate, and the agent beside it: messages over a unix
// socket of type SOCK_SEQPACKET, descriptors of TCP connections with them (SCM_RIGHTS).
//
// Each link is one listener's. The application says Hello with the addresses on which it listens, the agent answers with its own Hello;
// from then on the agent begins everything, under an ID of its choice:
//
//	agent                      application
//	Ask ID flow           ──►                            may this connection leave?
//	[Cancel ID            ──►]                           not any more
//	                      ◄──  Given ID state, descriptor | Stays ID reason | Unknown ID
//	Gone ID | Back ID     ──►                            it is elsewhere: close it | it stayed here: go on
//
//	Arrive ID flow state, descriptor  ──►                a connection from elsewhere, not alive yet
//	                      ◄──  Taken ID | Refused ID reason
//	Live ID | Drop ID     ──►                            it is yours | close it
//
// An application that has Given a connection leaves it alone until it hears Gone or Back, or the end of the link, which the agent
// keeps open until all that it was given is settled. At that end the kernel knows where the connection is: one in repair mode (TCP_REPAIR) may live
// elsewhere, and is closed, which in that mode nobody hears; any other one never left. One that has arrived and is not Live by then is closed.
//
// A later version may add message types, which are ignored by who does not know them, and fields at the end of Hello.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Version is the highest version that this package speaks. Of two versions the lower one holds.
const Version = 1

// Bounds of what a message carries.
const (
	MaxState   = 1 << 20 // bytes of an application for one connection
	MaxPacket  = 32 << 10
	MaxText    = 255 // bytes of a name or a reason
	MaxListens = 8   // addresses of one listener
)

// Type says what a message is, and which fields it has.
type Type uint8

// The types of version 1. In brackets: the fields beside ID.
const (
	Hello   Type = 1  // both: [Version, Text: the listener's name, Listens: where it listens, none: nowhere any more]
	Ask     Type = 2  // agent: [Local, Remote]
	Cancel  Type = 3  // agent
	Given   Type = 4  // application: [State], with the connection's descriptor
	Stays   Type = 5  // application: [Text: why]
	Unknown Type = 6  // application: it has no such connection
	Gone    Type = 7  // agent
	Back    Type = 8  // agent
	Arrive  Type = 9  // agent: [Local, Remote, State], with the connection's descriptor
	Taken   Type = 10 // application
	Refused Type = 11 // application: [Text: why]
	Live    Type = 12 // agent
	Drop    Type = 13 // agent
	more    Type = 14 // both: the next part of the State of the message before it
)

func (t Type) String() string {
	names := [...]string{"", "Hello", "Ask", "Cancel", "Given", "Stays", "Unknown", "Gone", "Back", "Arrive", "Taken", "Refused", "Live", "Drop", "more"}
	if t == 0 || int(t) >= len(names) {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return names[t]
}

// Message is one message; see Type for the fields that it has.
type Message struct {
	Type    Type
	ID      uint64
	Version uint16
	Local   netip.AddrPort // the connection's address here
	Remote  netip.AddrPort // and its user's
	Listens []netip.AddrPort
	State   []byte // the application's own, at most MaxState bytes
	Text    string // at most MaxText bytes; longer ones are cut
}

// ErrMalformed is wrapped by all errors of a Decoder but ErrType.
var ErrMalformed = errors.New("malformed message")

// ErrType says that a packet is a message of a type that this version does not know: to be ignored.
var ErrType = errors.New("unknown type of message")

const headerSize = 1 + 8 // type, ID

// Encode makes the packets of a message: one, unless its State needs more.
func Encode(m Message) ([][]byte, error) {
	p := append(make([]byte, 0, 128), byte(m.Type))
	p = binary.BigEndian.AppendUint64(p, m.ID)
	var err error
	switch m.Type {
	case Hello:
		p = appendText(binary.BigEndian.AppendUint16(p, m.Version), m.Text)
		p, err = appendListens(p, m.Listens)
	case Ask, Arrive:
		if p, err = appendAddrPort(p, m.Local); err == nil {
			p, err = appendAddrPort(p, m.Remote)
		}
	case Stays, Refused:
		p = appendText(p, m.Text)
	case Cancel, Given, Unknown, Gone, Back, Taken, Live, Drop:
	default:
		err = fmt.Errorf("%v cannot be sent", m.Type)
	}
	if err != nil {
		return nil, err
	}
	if !m.Type.hasState() {
		return [][]byte{p}, nil
	}
	return appendState(p, m)
}

func (t Type) hasState() bool { return t == Given || t == Arrive }

// appendState ends the packet p with the state's length and its first part, and makes packets of the rest.
func appendState(p []byte, m Message) ([][]byte, error) {
	if len(m.State) > MaxState {
		return nil, fmt.Errorf("state of %d bytes: at most %d can move", len(m.State), MaxState)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(m.State)))
	n := min(len(m.State), MaxPacket-len(p))
	packets := [][]byte{append(p, m.State[:n]...)}
	for rest := m.State[n:]; len(rest) > 0; rest = rest[n:] {
		n = min(len(rest), MaxPacket-headerSize)
		p := append(make([]byte, 0, headerSize+n), byte(more))
		packets = append(packets, append(binary.BigEndian.AppendUint64(p, m.ID), rest[:n]...))
	}
	return packets, nil
}

func appendText(p []byte, s string) []byte {
	s = s[:min(len(s), MaxText)]
	return append(append(p, byte(len(s))), s...)
}

func appendListens(p []byte, listens []netip.AddrPort) ([]byte, error) {
	if len(listens) > MaxListens {
		return nil, fmt.Errorf("%d addresses of one listener: at most %d", len(listens), MaxListens)
	}
	p = append(p, byte(len(listens)))
	for _, a := range listens {
		var err error
		if p, err = appendAddrPort(p, a); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// appendAddrPort: a byte with the address's length (4 or 16), the address, the port. Zones are not sent.
func appendAddrPort(p []byte, a netip.AddrPort) ([]byte, error) {
	if !a.IsValid() {
		return nil, errors.New("no address")
	}
	addr := a.Addr().Unmap().AsSlice()
	p = append(append(p, byte(len(addr))), addr...)
	return binary.BigEndian.AppendUint16(p, a.Port()), nil
}

// Decoder makes messages of packets. It holds at most one message of which parts are missing. The zero Decoder is ready.
type Decoder struct {
	begun   Message
	missing int // bytes of begun.State; 0: nothing has begun
}

// Next takes one packet. It reports false where the message is not whole yet. After ErrMalformed the link is of no use.
func (d *Decoder) Next(packet []byte) (Message, bool, error) {
	r := &reader{rest: packet}
	m := Message{Type: Type(r.uint8()), ID: r.uint64()}
	if r.short {
		return Message{}, false, fmt.Errorf("%w: %d bytes", ErrMalformed, len(packet))
	}
	if d.missing > 0 || m.Type == more {
		return d.more(m, r.rest)
	}
	switch m.Type {
	case Hello:
		m.Version, m.Text, m.Listens = r.uint16(), r.text(), r.listens()
		r.rest = nil // a later version's
	case Ask:
		m.Local, m.Remote = r.addrPort(), r.addrPort()
	case Arrive:
		m.Local, m.Remote = r.addrPort(), r.addrPort()
		return d.begin(m, r)
	case Given:
		return d.begin(m, r)
	case Stays, Refused:
		m.Text = r.text()
	case Cancel, Unknown, Gone, Back, Taken, Live, Drop:
	default:
		return Message{}, false, fmt.Errorf("%w: %v", ErrType, m.Type)
	}
	if r.short || len(r.rest) > 0 {
		return Message{}, false, fmt.Errorf("%w: %v of %d bytes", ErrMalformed, m.Type, len(packet))
	}
	return m, true, nil
}

// begin takes the first part of a state. Room is made for what has come, not for what is announced.
func (d *Decoder) begin(m Message, r *reader) (Message, bool, error) {
	size := r.uint32()
	if r.short || size > MaxState || len(r.rest) > int(size) || (len(r.rest) == 0 && size > 0) {
		return Message{}, false, fmt.Errorf("%w: %v with a state of %d bytes, %d in its first packet", ErrMalformed, m.Type, size, len(r.rest))
	}
	m.State = append([]byte{}, r.rest...)
	if d.missing = int(size) - len(r.rest); d.missing == 0 {
		return m, true, nil
	}
	d.begun = m
	return Message{}, false, nil
}

func (d *Decoder) more(m Message, part []byte) (Message, bool, error) {
	if m.Type != more || d.missing == 0 || m.ID != d.begun.ID || len(part) == 0 || len(part) > d.missing {
		return Message{}, false, fmt.Errorf("%w: %v %d where %d bytes of %v %d are missing", ErrMalformed, m.Type, m.ID, d.missing, d.begun.Type, d.begun.ID)
	}
	d.begun.State = append(d.begun.State, part...)
	if d.missing -= len(part); d.missing > 0 {
		return Message{}, false, nil
	}
	whole := d.begun
	d.begun = Message{}
	return whole, true, nil
}

// reader takes fields off a packet. Once something was missing, short stays set, and zeros come.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if r.short || len(r.rest) < n {
		r.short = true
		return make([]byte, n)
	}
	p := r.rest[:n]
	r.rest = r.rest[n:]
	return p
}

func (r *reader) uint8() uint8   { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *reader) text() string   { return string(r.take(int(r.uint8()))) }

func (r *reader) listens() []netip.AddrPort {
	n := int(r.uint8())
	if n > MaxListens {
		r.short = true
		return nil
	}
	var listens []netip.AddrPort
	for range n {
		listens = append(listens, r.addrPort())
	}
	return listens
}

func (r *reader) addrPort() netip.AddrPort {
	n := int(r.uint8())
	if n != 4 && n != 16 {
		r.short = true
		return netip.AddrPort{}
	}
	addr, _ := netip.AddrFromSlice(r.take(n))
	return netip.AddrPortFrom(addr.Unmap(), r.uint16())
}
