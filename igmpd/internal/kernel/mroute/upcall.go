package mroute

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// Kinds of upcalls, <linux/mroute.h>.
const (
	NoCache        = 1 // a packet has no entry
	WrongInterface = 2 // a packet for an entry came in by another VIF than its parent
)

// Upcall is a question of the kernel (struct igmpmsg).
type Upcall struct {
	Kind   uint8
	VIF    int // that the packet came in by
	Source netip.Addr
	Group  netip.Addr
}

var errNoUpcall = errors.New("not a multicast routing upcall")

// ParseUpcall decodes a message that was read from a table's socket. VIFs are in range, Group is a multicast address.
func ParseUpcall(b []byte) (Upcall, error) {
	if len(b) < 20 || b[9] != 0 { // im_mbz: the protocol of an IP header
		return Upcall{}, errNoUpcall
	}
	u := Upcall{
		Kind:   b[8],
		VIF:    int(binary.LittleEndian.Uint16(b[10:])), // im_vif, im_vif_hi
		Source: netip.AddrFrom4([4]byte(b[12:16])),
		Group:  netip.AddrFrom4([4]byte(b[16:20])),
	}
	if u.VIF >= VIFsMax || !u.Group.IsMulticast() {
		return Upcall{}, errNoUpcall
	}
	return u, nil
}

// Interrupt ends a ReadUpcall that waits, and all later ones.
func (s *Socket) Interrupt() error { return s.file.SetReadDeadline(time.Unix(1, 0)) }

// ReadUpcall waits for the next upcall and skips whatever else is in the socket. os.ErrDeadlineExceeded after Interrupt.
func (s *Socket) ReadUpcall() (Upcall, error) {
	var buf [128]byte // the header is all that is looked at
	for {
		n, err := s.file.Read(buf[:])
		if err != nil {
			return Upcall{}, err
		}
		if u, err := ParseUpcall(buf[:n]); err == nil {
			return u, nil
		}
	}
}
