package bpfnet

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// bpfLink is a program that a link of the kernel holds, on a tcx hook or at a control group.
type bpfLink struct{ link.Link }

func (l bpfLink) close() error { return l.Close() }

func (l bpfLink) detach() error {
	if err := l.Detach(); err != nil && !isGone(err) {
		return err
	}
	return nil
}

// attachTCX fails with ebpf.ErrNotSupported where there is no tcx, or none is wanted.
func attachTCX(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*Attachment, error) {
	if o.Clsact {
		return nil, ebpf.ErrNotSupported
	}
	to, anchor := ebpf.AttachTCXIngress, link.Tail()
	if dir == Egress {
		to = ebpf.AttachTCXEgress
	}
	if o.First {
		anchor = link.Head()
	}
	if l := takeOverTCX(prog, ifindex, to, o.Pin); l != nil {
		return &Attachment{o.Pin, bpfLink{l}}, nil
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: to, Anchor: anchor})
	if err != nil {
		return nil, err
	}
	if o.Pin != "" {
		// What is pinned is of no use: of another interface, of one that is gone, or a filter of clsact.
		if err = RemovePin(o.Pin); err == nil {
			err = l.Pin(o.Pin)
		}
		if err != nil {
			l.Close()
			return nil, err
		}
	}
	return &Attachment{o.Pin, bpfLink{l}}, nil
}

// takeOverTCX puts the program into the pinned link, if that is on the wanted hook.
func takeOverTCX(prog *ebpf.Program, ifindex int, to ebpf.AttachType, pin string) link.Link {
	if pin == "" {
		return nil
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil
	}
	if info, err := l.Info(); err == nil && info.Type == link.TCXType {
		is := info.TCX()
		if is != nil && int(is.Ifindex) == ifindex && ebpf.AttachType(is.AttachType) == to && l.Update(prog) == nil {
			return l
		}
	}
	l.Close()
	return nil
}

// detachLink detaches the pinned link, if the pin is one.
func detachLink(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil //nolint:nilerr // no pin, or not a link's
	}
	return errors.Join(bpfLink{l}.detach(), l.Close())
}
