// Package bpfnet attaches BPF programs to an interface's hooks: tcx where the kernel has it (Linux 6.6), else clsact.
package bpfnet

import (
	"errors"

	"github.com/cilium/ebpf"
)

// Direction is the hook of an interface.
type Direction uint8

// Hooks.
const (
	Ingress Direction = iota
	Egress
)

// Options say how a program is attached.
type Options struct {
	Name   string // of the attachment, unique on the hook: "manycast-igmpd"
	Pin    string // file on a bpffs that keeps a tcx link beyond the process; empty: attached until Close
	First  bool   // before all that are not First (the director)
	Clsact bool   // use clsact although the kernel has tcx
}

// Attachment is a program on a hook. Hold it.
type Attachment struct{}

// Attach puts the program on the hook. An attachment of the same name that a former process left is taken over without a gap.
func Attach(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*Attachment, error) {
	return nil, errors.ErrUnsupported
}

// Close lets go of the attachment: the program stays on the hook if it was pinned.
func (a *Attachment) Close() error { return nil }

// Detach takes the program off the hook and removes the pin.
func (a *Attachment) Detach() error { return nil }

// PinDir makes the directory (0700) for pins and checks that it is on a bpffs.
func PinDir(path string) error { return errors.ErrUnsupported }
