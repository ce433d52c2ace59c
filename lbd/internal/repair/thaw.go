package repair

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A full queue of an interface has drained by then.
const (
	tries        = 5
	betweenTries = time.Millisecond
)

// again says whether the last of what was sent is sent anew as the socket is thawed: the FIN, or a byte, where nothing follows. A restored socket has no round
// trip time, and would take the loss of all that was sent for one only after 4 s, by its timer (RFC 6298 section 5.7); the answer to something new tells it at
// once (RFC 8985). Where all were new, an answer that waits already would be taken for the round trip.
func again(s *State) bool {
	return len(s.Unsent) == 0 && len(s.Sent) > 1 && len(s.Sent) < int(s.Window.Send) && (s.SACK || s.SendClosed)
}

// lastByte is how many bytes of Sent are yet to be sent: one, or none.
func (r *Restored) lastByte() int {
	if r.again && !r.state.SendClosed {
		return 1
	}
	return 0
}

// Thaw lets the connection live: the peer hears of it, and what was never sent is. After an error only Close is of use.
func (r *Restored) Thaw() error {
	if err := r.thaw(); err != nil {
		return fmt.Errorf("thaw the connection of %v to %v: %w", r.state.Remote, r.state.Local, err)
	}
	return nil
}

func (r *Restored) thaw() error {
	f := &fault{fd: r.fd}
	anew := r.again && f.sendsAtOnce()
	if r.again && !anew {
		r.last(f) // counts as sent
	}
	if f.err != nil {
		return f.err
	}
	if err := r.revive(); err != nil {
		return err
	}
	if anew {
		r.sendAnew(f)
	}
	r.sendUnsent(f)
	r.tuned(f)
	if f.err != nil { // Close is to say nothing
		back := &fault{fd: r.fd}
		back.setTCP(unix.TCP_REPAIR, unix.TCP_REPAIR_ON, "TCP_REPAIR")
		r.thawed = back.err != nil
	}
	return f.err
}

// sendsAtOnce says whether the socket sends what is new: no timer has told it of a loss meanwhile, and the window of congestion has room.
func (f *fault) sendsAtOnce() bool {
	if f.err != nil {
		return false
	}
	i, err := unix.GetsockoptTCPInfo(f.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	f.fail("getsockopt TCP_INFO", err)
	return err == nil && i.Ca_state == 0 && i.Lost == 0 && i.Retrans == 0 && i.Unacked < i.Snd_cwnd
}

// last is the last of what was sent.
func (r *Restored) last(f *fault) {
	f.push(r.state.Sent[len(r.state.Sent)-r.lastByte():])
	if r.state.SendClosed {
		f.closeWrite()
	}
}

// sendAnew sends it though few bytes are on their way (RFC 896). The peer may have acknowledged it: the socket may hear nothing before it has sent it, for it
// would take that for the acknowledgement of what was never sent. So it counts as sent where the interface does not take it.
func (r *Restored) sendAnew(f *fault) {
	noDelay := f.tcpInt(unix.TCP_NODELAY, "TCP_NODELAY")
	f.setTCP(unix.TCP_NODELAY, 1, "TCP_NODELAY")
	r.last(f)
	for range tries {
		if f.unsent() == 0 {
			break
		}
		time.Sleep(betweenTries)
		f.setTCP(unix.TCP_NODELAY, 1, "TCP_NODELAY") // sends what waits
	}
	if f.unsent() > 0 {
		f.setTCP(unix.TCP_REPAIR, unix.TCP_REPAIR_ON, "TCP_REPAIR")
		f.queue(sendQueue)
		f.setTCP(unix.TCP_NODELAY, 1, "TCP_NODELAY")
		if f.err == nil {
			f.err = r.revive()
		}
	}
	f.setTCP(unix.TCP_NODELAY, noDelay, "TCP_NODELAY")
}

func (r *Restored) sendUnsent(f *fault) {
	f.push(r.state.Unsent)
	if r.state.SendClosed && len(r.state.Unsent) > 0 {
		f.closeWrite()
	}
}

// tuned gives the buffers their sizes, and back to the system what it tunes.
func (r *Restored) tuned(f *fault) {
	s, lock := &r.state, 0
	if r.force {
		f.setInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, s.SendBuffer/2, "SO_SNDBUFFORCE")
		f.setInt(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, s.ReceiveBuffer/2, "SO_RCVBUFFORCE")
	}
	if s.SendBufferSet {
		lock |= sendLock
	}
	if s.ReceiveBufferSet {
		lock |= recvLock
	}
	f.setInt(unix.SOL_SOCKET, unix.SO_BUF_LOCK, lock, "SO_BUF_LOCK")
}
