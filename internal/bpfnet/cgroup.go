package bpfnet

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// AttachCgroup puts a program of sockops at a control group, a directory on a cgroup2 file system, beside others that are there. As at a hook,
// one that a former process left under the pin is taken over. With Close it stays where it is pinned.
func AttachCgroup(prog *ebpf.Program, cgroup, pin string) (*Attachment, error) {
	a, err := attachCgroup(prog, cgroup, pin)
	if err != nil {
		return nil, fmt.Errorf("attach to control group %s: %w", cgroup, err)
	}
	return a, nil
}

func attachCgroup(prog *ebpf.Program, cgroup, pin string) (*Attachment, error) {
	var at unix.Stat_t
	if err := unix.Stat(cgroup, &at); err != nil {
		return nil, err
	}
	if l := takeOverCgroup(prog, at.Ino, pin); l != nil {
		return &Attachment{pin, bpfLink{l}}, nil
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: ebpf.AttachCGroupSockOps, Program: prog})
	if err != nil {
		return nil, err
	}
	if pin != "" {
		// What is pinned is of no use: of another control group, or of one that is gone.
		if err = RemovePin(pin); err == nil {
			err = l.Pin(pin)
		}
		if err != nil {
			l.Close()
			return nil, err
		}
	}
	return &Attachment{pin, bpfLink{l}}, nil
}

// takeOverCgroup puts the program into the pinned link, if that is at the wanted control group, whose number is that of its directory.
func takeOverCgroup(prog *ebpf.Program, cgroup uint64, pin string) link.Link {
	if pin == "" {
		return nil
	}
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil
	}
	if info, err := l.Info(); err == nil && info.Type == link.CgroupType {
		if is := info.Cgroup(); is != nil && is.CgroupId == cgroup && l.Update(prog) == nil {
			return l
		}
	}
	l.Close()
	return nil
}
