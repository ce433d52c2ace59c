// Package repair takes a TCP connection out of the kernel and puts it into another one (TCP_REPAIR): the peer notices nothing.
//
// Whoever moves a connection keeps its packets away from both sockets from before Freeze until after Thaw, because a socket in repair mode still
// answers what reaches it. CAP_NET_ADMIN is needed, and CAP_NET_BIND_SERVICE to restore a connection of a port below 1024.
package repair

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Limits of what is moved, and of what Decode and Restore take from others.
const (
	MaxQueue  = 16 << 20 // bytes that were received and not read; bytes that were sent, with those that were not
	MaxWindow = 1 << 30  // bytes (RFC 7323 section 2.3)
	MaxScale  = 14       // RFC 7323 section 2.3
	MaxBuffer = 1 << 30  // bytes, of SO_RCVBUF and SO_SNDBUF as getsockopt tells them
	minMSS    = 48       // bytes; TCP_MIN_SND_MSS of the kernel
	maxMSS    = 65535    // bytes
	maxName   = 15       // bytes of a congestion control's name (TCP_CA_NAME_MAX)
)

// ErrInvalid is in every error about a State that no connection has.
var ErrInvalid = errors.New("invalid state of a TCP connection")

// State is all that a connection is to the kernel, so that it can go on elsewhere.
type State struct {
	// Both are IPv4, both IPv6, or both mapped: those are of an IPv6 socket that serves a user of IPv4.
	Local, Remote netip.AddrPort

	SendUnacknowledged uint32 // SND.UNA (RFC 9293 section 3.3.1), the number of the first byte of Sent; of a FIN alone, which may have been acknowledged, the FIN's
	ReceiveNext        uint32 // RCV.NXT, after the last byte of Received, and after the peer's FIN
	SendClosed         bool   // the application has sent its last byte: a FIN follows Unsent
	ReceiveClosed      bool   // the application reads the end after Received, which is empty where the peer has sent a FIN

	Received []byte // not read by the application
	Sent     []byte // not acknowledged
	Unsent   []byte // never sent

	MSS              uint16 // bytes; the peer's option, or what the system made of it
	Scaling          bool   // RFC 7323 section 2
	SendScale        uint8  // Snd.Wind.Shift, 0 to MaxScale
	ReceiveScale     uint8  // Rcv.Wind.Shift
	SACK             bool   // RFC 2018
	Timestamps       bool   // RFC 7323 section 3
	Microseconds     bool   // the timestamps' unit, else milliseconds
	Timestamp        uint32 // TSval at the freeze
	Window           Window
	SendBuffer       int  // bytes, SO_SNDBUF
	ReceiveBuffer    int  // bytes, SO_RCVBUF
	SendBufferSet    bool // by the application: the system does not tune it
	ReceiveBufferSet bool

	Options Options
}

// Window is both directions' windows in bytes, not scaled; its layout is the kernel's (struct tcp_repair_window).
type Window struct {
	SendUpdate  uint32 // SND.WL1
	Send        uint32 // SND.WND
	SendMax     uint32 // the largest that the peer has offered
	Receive     uint32 // RCV.WND
	ReceiveFrom uint32 // RCV.NXT when Receive was told to the peer
}

// Options are the application's socket options that go along.
type Options struct {
	NoDelay     bool
	KeepAlive   bool
	Idle        time.Duration // TCP_KEEPIDLE, seconds; as the others, where KeepAlive is on
	Interval    time.Duration // TCP_KEEPINTVL
	Count       uint8         // TCP_KEEPCNT
	UserTimeout time.Duration // TCP_USER_TIMEOUT, milliseconds; 0: the system's
	Linger      int32         // SO_LINGER in seconds; -1: off
	TOS         uint8         // IP_TOS, of IPv6 IPV6_TCLASS
	Congestion  string        // TCP_CONGESTION; the system's where it has none of that name
}

// Limits of the kernel (MAX_TCP_KEEPIDLE and others).
const (
	maxKeepAlive = 32767 * time.Second
	maxCount     = 127
	maxTimeout   = (1<<31 - 1) * time.Millisecond
)

// Validate tells what is wrong with a state: it may be another machine's word.
func (s *State) Validate() error {
	for _, check := range []func() error{s.checkAddresses, s.checkQueues, s.checkOptions} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	return nil
}

func (s *State) checkAddresses() error {
	for _, a := range []netip.AddrPort{s.Local, s.Remote} {
		if !unicast(a.Addr()) || a.Addr().Zone() != "" {
			return fmt.Errorf("address %v is not one host's", a.Addr())
		}
		if a.Port() == 0 {
			return fmt.Errorf("address %v has no port", a)
		}
	}
	if l, r := s.Local.Addr(), s.Remote.Addr(); l.BitLen() != r.BitLen() || l.Is4In6() != r.Is4In6() {
		return fmt.Errorf("addresses %v and %v are of two kinds", l, r)
	}
	if s.Local == s.Remote {
		return fmt.Errorf("%v is at both ends", s.Local)
	}
	return nil
}

func unicast(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) { // RFC 1122 section 3.2.1.3, RFC 1112 section 4
		return false
	}
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast()
}

// within ends what the window was learned by where the receive window ends, which begins at next. A socket that had no memory for what came shuts its
// window at once (Linux 6.6), and may have learned the peer's by bytes that are beyond it now: no socket takes that.
func (w *Window) within(next uint32) {
	if end := next + w.Receive; after(w.SendUpdate, end) {
		w.SendUpdate = end
	}
}

func (s *State) checkQueues() error {
	w := s.Window
	switch {
	case len(s.Received) > MaxQueue:
		return fmt.Errorf("%d bytes that were received, at most %d", len(s.Received), MaxQueue)
	case len(s.Sent)+len(s.Unsent) > MaxQueue:
		return fmt.Errorf("%d bytes to send, at most %d", len(s.Sent)+len(s.Unsent), MaxQueue)
	case s.MSS < minMSS:
		return fmt.Errorf("MSS %d, at least %d", s.MSS, minMSS)
	case s.SendScale > MaxScale || s.ReceiveScale > MaxScale:
		return fmt.Errorf("window scales %d and %d, at most %d", s.SendScale, s.ReceiveScale, MaxScale)
	case !s.Scaling && s.SendScale|s.ReceiveScale != 0:
		return errors.New("window scales without scaling")
	case s.Microseconds && !s.Timestamps:
		return errors.New("a unit of timestamps without timestamps")
	case w.SendMax > MaxWindow || w.Receive > MaxWindow:
		return fmt.Errorf("windows of %d and %d bytes, at most %d", w.SendMax, w.Receive, MaxWindow)
	case w.Send > w.SendMax:
		return fmt.Errorf("a window of %d bytes, the largest ever being %d", w.Send, w.SendMax)
	case after(w.SendUpdate, s.ReceiveNext+w.Receive), after(w.ReceiveFrom, s.ReceiveNext):
		return fmt.Errorf("windows of bytes that have not come: %+v, the next is %d", w, s.ReceiveNext)
	case max(s.SendBuffer, s.ReceiveBuffer) > MaxBuffer || min(s.SendBuffer, s.ReceiveBuffer) < 0:
		return fmt.Errorf("buffers of %d and %d bytes, 0 to %d", s.SendBuffer, s.ReceiveBuffer, MaxBuffer)
	}
	return nil
}

// after compares sequence numbers (RFC 9293 section 3.4).
func after(a, b uint32) bool { return int32(a-b) > 0 }

func (s *State) checkOptions() error {
	o := s.Options
	if o.KeepAlive && (!whole(o.Idle, time.Second, maxKeepAlive) || !whole(o.Interval, time.Second, maxKeepAlive) || o.Count < 1 || o.Count > maxCount) {
		return fmt.Errorf("keepalive after %v, every %v, %d times", o.Idle, o.Interval, o.Count)
	}
	if o.UserTimeout != 0 && !whole(o.UserTimeout, time.Millisecond, maxTimeout) {
		return fmt.Errorf("TCP_USER_TIMEOUT %v", o.UserTimeout)
	}
	if o.Linger < -1 {
		return fmt.Errorf("SO_LINGER %d", o.Linger)
	}
	if len(o.Congestion) > maxName {
		return fmt.Errorf("name of congestion control of %d bytes, at most %d", len(o.Congestion), maxName)
	}
	for _, c := range []byte(o.Congestion) {
		if c <= ' ' || c > '~' || c == '/' { // it names a kernel module
			return fmt.Errorf("name of congestion control %q", o.Congestion)
		}
	}
	return nil
}

func whole(d, unit, most time.Duration) bool { return d >= unit && d <= most && d%unit == 0 }

// OnIPv6 has an IPv4 connection restored to an IPv6 socket with mapped addresses, or back, as the listener's sockets are that it is to be one of.
// One of IPv6 stays as it is.
func (s *State) OnIPv6(yes bool) {
	convert := func(a netip.AddrPort) netip.AddrPort {
		plain := a.Addr().Unmap()
		if yes && plain.Is4() {
			plain = netip.AddrFrom16(plain.As16())
		}
		return netip.AddrPortFrom(plain, a.Port())
	}
	s.Local, s.Remote = convert(s.Local), convert(s.Remote)
}
