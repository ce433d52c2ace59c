package repair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// version is of the layout, which a newer one changes in whole: agents of two versions do not move connections to each other.
const version = 1

// ErrVersion is in Decode's error where the other end speaks another version.
var ErrVersion = errors.New("another version of a connection's state")

// fixed is how many bytes there are before the name of the congestion control and the queues.
const fixed = 1 + 1 + 2*(16+2) + 2 + 2*4 + 2 + 2 + 4 + 5*4 + 2*4 + 2*2 + 1 + 4 + 4 + 1 + 1 + 3*4

// MaxEncoded is the longest encoding in bytes.
const MaxEncoded = fixed + maxName + 2*MaxQueue

// kinds of both addresses.
const (
	kindIPv4 = iota
	kindIPv6 // mapped ones, too
)

// Append appends the encoding, which Decode reads, to b. All is in network byte order, the queues come last.
func (s *State) Append(b []byte) []byte {
	be := binary.BigEndian
	kind := byte(kindIPv6)
	if s.Local.Addr().Is4() {
		kind = kindIPv4
	}
	b = append(b, version, kind)
	for _, a := range []netip.AddrPort{s.Local, s.Remote} {
		ip := a.Addr().As16()
		b = append(b, ip[:]...)
		b = be.AppendUint16(b, a.Port())
	}
	b = be.AppendUint16(b, s.flags())
	b = be.AppendUint32(b, s.SendUnacknowledged)
	b = be.AppendUint32(b, s.ReceiveNext)
	b = be.AppendUint16(b, s.MSS)
	b = append(b, s.SendScale, s.ReceiveScale)
	w := s.Window
	for _, v := range []uint32{s.Timestamp, w.SendUpdate, w.Send, w.SendMax, w.Receive, w.ReceiveFrom, uint32(s.SendBuffer), uint32(s.ReceiveBuffer)} {
		b = be.AppendUint32(b, v)
	}
	o := s.Options
	b = be.AppendUint16(b, uint16(o.Idle/time.Second))
	b = be.AppendUint16(b, uint16(o.Interval/time.Second))
	b = append(b, o.Count)
	b = be.AppendUint32(b, uint32(o.UserTimeout/time.Millisecond))
	b = be.AppendUint32(b, uint32(o.Linger))
	b = append(b, o.TOS, byte(len(o.Congestion)))
	for _, queue := range [][]byte{s.Received, s.Sent, s.Unsent} {
		b = be.AppendUint32(b, uint32(len(queue)))
	}
	b = append(b, o.Congestion...)
	b = append(b, s.Received...)
	b = append(b, s.Sent...)
	return append(b, s.Unsent...)
}

// Size is how many bytes Append appends.
func (s *State) Size() int {
	return fixed + len(s.Options.Congestion) + len(s.Received) + len(s.Sent) + len(s.Unsent)
}

func (s *State) flags() (bits uint16) {
	for i, on := range s.switches() {
		if *on {
			bits |= 1 << i
		}
	}
	return bits
}

// switches are in the order of the flags' bits, the lowest first.
func (s *State) switches() []*bool {
	return []*bool{
		&s.SendClosed, &s.ReceiveClosed, &s.Scaling, &s.SACK, &s.Timestamps, &s.Microseconds, &s.SendBufferSet, &s.ReceiveBufferSet,
		&s.Options.NoDelay, &s.Options.KeepAlive,
	}
}

// Decode reads what Append wrote, and validates it. The state's queues are parts of b.
func Decode(b []byte) (State, error) {
	s, err := decode(b)
	if err != nil {
		return State{}, fmt.Errorf("decode the state of a connection: %w", err)
	}
	return s, nil
}

func decode(b []byte) (s State, err error) {
	if len(b) == 0 {
		return s, fmt.Errorf("%w: empty", ErrInvalid)
	}
	if b[0] != version {
		return s, fmt.Errorf("%w: %d, here it is %d: both servers need the same release", ErrVersion, b[0], version)
	}
	if len(b) < fixed {
		return s, fmt.Errorf("%w: %d bytes, at least %d", ErrInvalid, len(b), fixed)
	}
	r := reader(b[1:])
	kind := r.uint8()
	s.Local, s.Remote = r.addrPort(kind), r.addrPort(kind)
	bits := r.uint16()
	for i, on := range s.switches() {
		*on = bits&(1<<i) != 0
	}
	s.SendUnacknowledged, s.ReceiveNext = r.uint32(), r.uint32()
	s.MSS, s.SendScale, s.ReceiveScale = r.uint16(), r.uint8(), r.uint8()
	s.Timestamp = r.uint32()
	s.Window = Window{SendUpdate: r.uint32(), Send: r.uint32(), SendMax: r.uint32(), Receive: r.uint32(), ReceiveFrom: r.uint32()}
	s.SendBuffer, s.ReceiveBuffer = int(r.uint32()), int(r.uint32())
	o := &s.Options
	o.Idle, o.Interval = time.Duration(r.uint16())*time.Second, time.Duration(r.uint16())*time.Second
	o.Count = r.uint8()
	o.UserTimeout = time.Duration(r.uint32()) * time.Millisecond
	o.Linger = int32(r.uint32())
	o.TOS = r.uint8()
	name, received, sent, unsent := int(r.uint8()), int(r.uint32()), int(r.uint32()), int(r.uint32())
	if kind > kindIPv6 || bits>>len(s.switches()) != 0 {
		return s, fmt.Errorf("%w: kind of addresses %d, flags %#x", ErrInvalid, kind, bits)
	}
	if name+received+sent+unsent != len(r) {
		return s, fmt.Errorf("%w: %d bytes of queues, which are to be %d", ErrInvalid, len(r), name+received+sent+unsent)
	}
	o.Congestion = string(r.next(name))
	s.Received, s.Sent, s.Unsent = r.next(received), r.next(sent), r.next(unsent)
	return s, s.Validate()
}

// reader takes fields off bytes that are long enough.
type reader []byte

// next returns the next n bytes without room to append; none are nil.
func (r *reader) next(n int) []byte {
	if n == 0 {
		return nil
	}
	b := (*r)[:n:n]
	*r = (*r)[n:]
	return b
}

func (r *reader) uint8() uint8   { return r.next(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.next(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.next(4)) }

func (r *reader) addrPort(kind uint8) netip.AddrPort {
	ip, port := netip.AddrFrom16([16]byte(r.next(16))), r.uint16()
	if kind == kindIPv4 {
		if ip = ip.Unmap(); !ip.Is4() {
			ip = netip.Addr{}
		}
	}
	return netip.AddrPortFrom(ip, port)
}
