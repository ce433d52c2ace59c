// Package bpfnet attaches BPF programs to an interface's hooks: tcx where the kernel has it (Linux 6.6), else clsact. It keeps attachments
// and maps beyond the process, for the next one.
package bpfnet

import (
	"errors"
	"fmt"
	"io/fs"
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
	Name   string // of the attachment, unique on the hook, as `tc filter show` has it: "manycast-igmpd"
	Pin    string // file on a bpffs that keeps the attachment beyond the process; empty: attached until Close
	First  bool   // before all that are not First (the director)
	Clsact bool   // use clsact although the kernel has tcx
}

// Attachment is a program on a hook. Hold it: without a pin the program goes when the Attachment is collected.
type Attachment struct {
	pin string
	on  hook
}

// hook is what holds a program in the kernel.
type hook interface {
	detach() error // what is gone already is no error
	close() error  // with a pin, the program stays
}

// Attach puts the program on the hook. Programs return TCX_NEXT (-1) to let those behind run. An attachment that a former
// process left under the pin is taken over: its program is replaced in its place, and no packet passes in between. The calling
// thread has to be in the interface's network namespace, here and to detach.
func Attach(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*Attachment, error) {
	a, err := attachTCX(prog, ifindex, dir, o)
	if errors.Is(err, ebpf.ErrNotSupported) {
		a, err = attachClsact(prog, ifindex, dir, o)
	}
	if err != nil {
		return nil, fmt.Errorf("attach %s to %s of interface %d: %w", o.Name, dir, ifindex, err)
	}
	return a, nil
}

// Close lets go of the attachment: the program stays on the hook if it was pinned.
func (a *Attachment) Close() error { return a.on.close() }

// Detach takes the program off the hook and removes the pin. That the interface is gone is no error.
func (a *Attachment) Detach() error {
	errs := []error{a.on.detach()}
	if a.pin != "" {
		errs = append(errs, remove(a.pin))
	}
	return errors.Join(append(errs, a.on.close())...)
}

// RemovePin takes the program off that a former process attached under the pin, and removes the pin. A pin that is not there
// is no error. Removing the file is not enough: a tcx link goes a little later then, and a filter of clsact stays.
func RemovePin(pin string) error {
	err := detachLink(pin)
	if p, ok := pinnedPlace(pin); ok {
		err = p.removeNamed()
	}
	if err != nil {
		return fmt.Errorf("detach what %s keeps: %w", pin, err)
	}
	return remove(pin)
}

func remove(pin string) error {
	if err := os.Remove(pin); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// isGone reports whether the kernel says that what was to be removed is not there: the interface, its qdisc, or the program.
func isGone(err error) bool {
	for _, gone := range []error{unix.ENODEV, unix.ENOENT, unix.ENOLINK, unix.EINVAL} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}
