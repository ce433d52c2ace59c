package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// receiver reads an interface's packets by a packet socket, each with the kernel's time.
type receiver struct {
	take func(packet []byte, at time.Time, leaves bool) // in the receiver's goroutine
	file *os.File
	done chan struct{}
	err  error
}

// receiveBuffer holds some seconds of a flow, whatever else the machine does.
const receiveBuffer = 32 << 20

// receive starts to read an interface's packets, from the IP header on: those that come in, or all, and those alone that a filter takes.
func receive(ns *netns.Namespace, ifname string, incoming bool, take func([]byte, time.Time, bool), only ...bpf.Instruction) (*receiver, error) {
	r := &receiver{take: take, done: make(chan struct{})}
	if err := ns.Do(func() error { return r.open(ifname, incoming, only) }); err != nil {
		return nil, fmt.Errorf("capture on %s: %w", ifname, err)
	}
	go r.run()
	return r, nil
}

func (r *receiver) open(ifname string, incoming bool, only []bpf.Instruction) error {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.file = os.NewFile(uintptr(fd), "capture")
	ignore := 0
	if incoming {
		ignore = 1
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, ignore),
		attach(fd, only),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: ifi.Index}), // network order; ETH_P_IP would come behind tc
	)
	if err != nil {
		r.file.Close()
	}
	return err
}

// attach has a socket take what a filter takes; none: all.
func attach(fd int, filter []bpf.Instruction) error {
	if len(filter) == 0 {
		return nil
	}
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// run reads until the deadline that stop sets, and then what is still there.
func (r *receiver) run() {
	defer close(r.done)
	raw, err := r.file.SyscallConn()
	if err != nil {
		r.err = err
		return
	}
	packet, control := make([]byte, 256), make([]byte, unix.CmsgSpace(16))
	read := func(fd uintptr) (done bool) {
		n, oobn, _, from, err := unix.Recvmsg(int(fd), packet, control, 0)
		if errors.Is(err, unix.ENETDOWN) {
			err = nil // said once; the interface may be up again
			n = 0
		}
		if err != nil {
			r.err = err
			return !errors.Is(err, unix.EAGAIN)
		}
		r.err = nil
		if at, ok := stamp(control[:oobn]); ok && n > 0 {
			link, isLink := from.(*unix.SockaddrLinklayer)
			r.take(packet[:n], at, isLink && link.Pkttype == unix.PACKET_OUTGOING)
		}
		return true
	}
	for err == nil && r.err == nil {
		err = raw.Read(read)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		r.err = errors.Join(r.err, err)
		return
	}
	err = raw.Control(func(fd uintptr) {
		for read(fd) && r.err == nil {
		}
	})
	if errors.Is(r.err, unix.EAGAIN) {
		r.err = nil
	}
	r.err = errors.Join(r.err, err)
}

// stamp is the kernel's time of a packet.
func stamp(control []byte) (at time.Time, ok bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return at, false
	}
	for _, m := range messages {
		if m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:]))), true
		}
	}
	return at, false
}

// stop ends the reading. What the kernel had to drop makes it an error.
func (r *receiver) stop() error {
	defer r.file.Close()
	if err := r.file.SetReadDeadline(time.Now()); err != nil {
		return err
	}
	<-r.done
	if r.err != nil {
		return r.err
	}
	raw, err := r.file.SyscallConn()
	if err != nil {
		return err
	}
	var stats *unix.TpacketStats
	if e := raw.Control(func(fd uintptr) {
		stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); e != nil || err != nil {
		return errors.Join(e, err)
	}
	if stats.Drops > 0 {
		return fmt.Errorf("%d packets were not seen", stats.Drops)
	}
	return nil
}
