package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Sockets is what the socket table says of one address and port.
type Sockets struct {
	Connections int // established, those that wait to be accepted among them
	Waiting     int // to be accepted, at listeners of the address or of all addresses
	Backlog     int // so many may wait there
}

// CountSockets returns the TCP sockets of each local address and port, both families: a server that listens on [::] has its IPv4
// users as mapped addresses. A listener of all addresses counts for each address of its port.
//
// It sees the sockets of the caller's network namespace and needs no privilege. The kernel walks its whole table: see
// BenchmarkNetCountSockets.
func CountSockets(ctx context.Context, local []netip.AddrPort) ([]Sockets, error) {
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	at := make(map[netip.AddrPort]int, len(local))
	for i, l := range local {
		at[l] = i
	}
	counts := make([]Sockets, len(local))
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := d.countConnections(family, local, at, counts); err != nil {
			return nil, fmt.Errorf("count connections: %w", err)
		}
		if err := d.countWaiting(family, local, counts); err != nil {
			return nil, fmt.Errorf("count connections that wait: %w", err)
		}
	}
	return counts, nil
}

// States of sockets, include/net/tcp_states.h.
const (
	stateEstablished = 1 << 1
	stateListen      = 1 << 10
)

func (d *diag) countConnections(family uint8, local []netip.AddrPort, at map[netip.AddrPort]int, counts []Sockets) error {
	filter := localFilter(local)
	if err := d.send(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, stateEstablished, [sockIDLen]byte{}, filter...); err != nil {
		return err
	}
	return d.receive(func(body []byte) {
		if _, l, ok := parseSock(body); ok {
			if i, ours := at[l]; ours {
				counts[i].Connections++
			}
		}
	})
}

// countWaiting reads the listeners. Theirs are the queues of connections that nobody has accepted yet.
func (d *diag) countWaiting(family uint8, local []netip.AddrPort, counts []Sockets) error {
	if err := d.send(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, family, stateListen, [sockIDLen]byte{}); err != nil {
		return err
	}
	return d.receive(func(body []byte) {
		_, listens, ok := parseSock(body)
		if !ok {
			return
		}
		queues := body[4+sockIDLen+4:] // behind idiag_expires: idiag_rqueue, idiag_wqueue
		waiting, backlog := binary.NativeEndian.Uint32(queues), binary.NativeEndian.Uint32(queues[4:])
		for i, l := range local {
			if l.Port() == listens.Port() && (l.Addr() == listens.Addr() || listens.Addr().IsUnspecified()) {
				counts[i].Waiting += int(waiting)
				counts[i].Backlog += int(backlog)
			}
		}
	})
}

// Filters of sock_diag, include/uapi/linux/inet_diag.h: a program of operations, each with the way to go on where it holds and
// where it does not. To end exactly behind the last one is to accept.
const (
	reqBytecode = 1 // INET_DIAG_REQ_BYTECODE
	opJump      = 1 // INET_DIAG_BC_JMP
	opLocal     = 7 // INET_DIAG_BC_S_COND
	jumpLen     = 4
	localLen    = 4 + 8 + 4 // struct inet_diag_bc_op, inet_diag_hostcond, the address
)

// maxFilter is how many addresses a program of 64 KiB has room for; with more all sockets come, and are told apart here.
const maxFilter = 1024

// localFilter is the attribute that lets only sockets of these IPv4 addresses and ports through, mapped ones too.
func localFilter(local []netip.AddrPort) []byte {
	n := len(local)
	if n == 0 || n > maxFilter {
		return nil
	}
	program := make([]byte, n*localLen+(n-1)*jumpLen)
	for i, l := range local {
		op := program[i*(localLen+jumpLen):]
		op[0], op[1] = opLocal, localLen
		binary.NativeEndian.PutUint16(op[2:], localLen+jumpLen)
		op[4], op[5] = unix.AF_INET, 32
		binary.NativeEndian.PutUint32(op[8:], uint32(l.Port()))
		copy(op[12:], l.Addr().AsSlice())
		if i < n-1 {
			jump := op[localLen:]
			jump[0], jump[1] = opJump, jumpLen
			binary.NativeEndian.PutUint16(jump[2:], uint16(len(jump)))
		}
	}
	attr := make([]byte, unix.SizeofNlAttr, unix.SizeofNlAttr+len(program))
	binary.NativeEndian.PutUint16(attr, uint16(cap(attr)))
	binary.NativeEndian.PutUint16(attr[2:], reqBytecode)
	return slices.Concat(attr, program)
}
