package fastpath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Side is what is behind an interface.
type Side uint8

// Sides.
const (
	Edge Side = iota // users: what they send with a label is dropped
	Core             // other routers of the domain
)

// Attach puts the programs on an interface, by its index, until Detach or Close: in the driver (native XDP), and where that has none in
// front of the stack (generic XDP), slowly. The calling thread has to be in the interface's network namespace.
func (f *Fastpath) Attach(ifindex int, side Side) (native bool, err error) {
	prog := f.objects.FastEdge
	if side == Core {
		prog = f.objects.FastCore
	}
	if l := f.attached[ifindex]; l != nil {
		return true, l.Update(prog)
	}
	l, err := attachXDP(prog, ifindex, link.XDPDriverMode)
	if native = err == nil; errors.Is(err, ebpf.ErrNotSupported) {
		l, err = attachXDP(prog, ifindex, link.XDPGenericMode)
	}
	if err != nil {
		return false, fmt.Errorf("attach the fast path to interface %d: %w", ifindex, err)
	}
	f.attached[ifindex] = l
	return native, nil
}

func attachXDP(prog *ebpf.Program, ifindex int, mode link.XDPAttachFlags) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: mode})
}

// Detach takes the programs off an interface.
func (f *Fastpath) Detach(ifindex int) error {
	l := f.attached[ifindex]
	if l == nil {
		return nil
	}
	delete(f.attached, ifindex)
	return l.Close()
}
