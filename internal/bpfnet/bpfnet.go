// Package bpfnet attaches BPF programs to an interface's hooks: tcx where the kernel has it (Linux 6.6), else clsact.
package bpfnet

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Direction is the hook of an interface.
type Direction uint8

// Hooks.
const (
	Ingress Direction = iota
	Egress
)

// String returns "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Options say how a program is attached.
type Options struct {
	Name   string // of the attachment, unique on the hook: "manycast-igmpd"
	Pin    string // file on a bpffs that keeps a tcx link beyond the process; empty: attached until Close
	First  bool   // before all that are not First (the director)
	Clsact bool   // use clsact although the kernel has tcx
}

// Attachment is a program on a hook. Hold it: a tcx link that is not pinned goes with its last holder.
type Attachment struct {
	hook interface {
		close() error
		detach() error
	}
}

// Attach puts the program on the hook. An attachment of the same name (clsact) or pin (tcx) that a former process left is taken
// over by replacing its program, without a gap. The calling thread has to be in the interface's network namespace.
func Attach(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*Attachment, error) {
	if !o.Clsact {
		hook, err := attachTCX(prog, ifindex, dir, o)
		if err == nil {
			return &Attachment{hook}, nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("attach %s to interface %d %s: %w", o.Name, ifindex, dir, err)
		}
	}
	hook, err := attachClsact(prog, ifindex, dir, o)
	if err != nil {
		return nil, fmt.Errorf("attach %s to interface %d %s by clsact: %w", o.Name, ifindex, dir, err)
	}
	return &Attachment{hook}, nil
}

// Close lets go of the attachment: the program stays on the hook if it was pinned.
func (a *Attachment) Close() error { return a.hook.close() }

// Detach takes the program off the hook and removes the pin.
func (a *Attachment) Detach() error { return a.hook.detach() }

// PinDir makes the directory (0700) for pins and checks that it is on a bpffs.
func PinDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("bpffs directory: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("bpffs directory %s: %w", path, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a bpffs: mount one (mount -t bpf bpf /sys/fs/bpf) or set bpffs to a directory on one", path)
	}
	return nil
}
