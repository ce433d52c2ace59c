package bpfnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

type tcx struct {
	link   link.Link
	pinned bool
}

func attachTCX(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*tcx, error) {
	if o.Pin != "" {
		l, err := takeOver(prog, ifindex, dir, o.Pin)
		if err != nil || l != nil {
			return &tcx{l, true}, err
		}
	}
	anchor := link.Tail()
	if o.First {
		anchor = link.Head()
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: attachType(dir), Anchor: anchor})
	if err != nil {
		return nil, err
	}
	if o.Pin == "" {
		return &tcx{l, false}, nil
	}
	if err := l.Pin(o.Pin); err != nil {
		return nil, errors.Join(fmt.Errorf("pin %s: %w", o.Pin, err), l.Close())
	}
	return &tcx{l, true}, nil
}

// takeOver replaces the program of the link that a former process pinned; nil without error: there is none that is still of use.
func takeOver(prog *ebpf.Program, ifindex int, dir Direction, pin string) (link.Link, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pinned link %s: %w", pin, err)
	}
	if !attachedTo(l, ifindex, dir) { // the interface was deleted, perhaps made again
		return nil, errors.Join(l.Close(), os.Remove(pin))
	}
	if err := l.Update(prog); err != nil {
		return nil, errors.Join(fmt.Errorf("take over link %s: %w", pin, err), l.Close())
	}
	return l, nil
}

func attachedTo(l link.Link, ifindex int, dir Direction) bool {
	info, err := l.Info()
	if err != nil {
		return false
	}
	t := info.TCX()
	return t != nil && int(t.Ifindex) == ifindex && ebpf.AttachType(t.AttachType) == attachType(dir)
}

func attachType(dir Direction) ebpf.AttachType {
	if dir == Egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (t *tcx) close() error { return t.link.Close() }

func (t *tcx) detach() error {
	var unpin error
	if t.pinned {
		unpin = t.link.Unpin()
	}
	return errors.Join(unpin, t.link.Close())
}
