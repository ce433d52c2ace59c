package fastpath

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/bpfnet"
)

// Side is what is behind an interface.
type Side uint8

// Sides.
const (
	Edge Side = iota // users: what they send with a label is dropped
	Core             // other routers of the domain
)

// pinPrefix is how the pin of an attachment begins; the interface's index follows, for names may hold dots.
const pinPrefix = "xdp-"

// SetMACs says the Ethernet addresses of interfaces, by their index: frames to others are left to the kernel. Of an interface with an index
// that there is no room for all frames to hosts are taken.
func (f *Fastpath) SetMACs(macs map[int]net.HardwareAddr) error {
	var errs []error
	for index, mac := range macs {
		var value [8]byte
		if copy(value[:6], mac); uint32(index) >= f.objects.FastMacs.MaxEntries() || f.macs[index] == value {
			continue
		}
		if err := f.objects.FastMacs.Put(uint32(index), value); err != nil {
			errs = append(errs, fmt.Errorf("address of interface %d: %w", index, err))
			continue
		}
		f.macs[index] = value
	}
	return errors.Join(errs...)
}

// Attach puts the programs on an interface, by its index, until Detach or Close: in the driver (native XDP), and where that has none in
// front of the stack (generic XDP), slowly. What a process before has left there is replaced in one step. The calling thread has to be in the
// interface's network namespace.
func (f *Fastpath) Attach(ifindex int, side Side) error {
	prog := f.objects.FastEdge
	if side == Core {
		prog = f.objects.FastCore
	}
	l := f.attached[ifindex]
	if l == nil {
		l = f.left(ifindex)
	}
	if l != nil {
		f.attached[ifindex] = l
		if err := l.Update(prog); err != nil {
			return fmt.Errorf("replace the fast path on interface %d: %w", ifindex, err)
		}
		return nil
	}
	l, err := attachXDP(prog, ifindex, link.XDPDriverMode)
	if errors.Is(err, ebpf.ErrNotSupported) {
		l, err = attachXDP(prog, ifindex, link.XDPGenericMode)
	}
	if err == nil && f.pins != "" {
		if err = l.Pin(f.pin(ifindex)); err != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("attach the fast path to interface %d: %w", ifindex, err)
	}
	f.attached[ifindex] = l
	return nil
}

// IsNative says whether an interface runs XDP in its driver.
func IsNative(ifindex int) bool {
	l, err := netlink.LinkByIndex(ifindex)
	return err == nil && l.Attrs().Xdp != nil && l.Attrs().Xdp.AttachMode == nl.XDP_ATTACHED_DRV
}

func attachXDP(prog *ebpf.Program, ifindex int, mode link.XDPAttachFlags) (link.Link, error) {
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: mode})
}

// left is what a process before has left on an interface; nil: nothing, or of one that is gone.
func (f *Fastpath) left(ifindex int) link.Link {
	if f.pins == "" {
		return nil
	}
	l, err := link.LoadPinnedLink(f.pin(ifindex), nil)
	if err != nil {
		return nil
	}
	if info, err := l.Info(); err != nil || info.XDP() == nil || int(info.XDP().Ifindex) != ifindex {
		l.Unpin() //nolint:errcheck // one that stays is in nobody's way but its successor's, who says so
		l.Close()
		return nil
	}
	return l
}

func (f *Fastpath) pin(ifindex int) string {
	return filepath.Join(f.pins, pinPrefix+strconv.Itoa(ifindex))
}

// Detach takes the programs off an interface.
func (f *Fastpath) Detach(ifindex int) error {
	l := f.attached[ifindex]
	if l == nil {
		return nil
	}
	delete(f.attached, ifindex)
	err := l.Detach() // at once: with its last reference it would go a little later
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.EINVAL) {
		err = nil // the interface has gone, and it with it
	}
	if f.pins != "" {
		err = errors.Join(err, l.Unpin())
	}
	return errors.Join(err, l.Close())
}

// Prune takes off what a process before has left on interfaces that this one is not on.
func (f *Fastpath) Prune() error {
	if f.pins == "" {
		return nil
	}
	return bpfnet.RemovePins(f.pins, pinPrefix, func(name string) bool {
		index, err := strconv.Atoi(name[len(pinPrefix):])
		return err == nil && f.attached[index] != nil
	})
}

// Remove takes off and removes what a process has left under pins.
func Remove(pins string) error {
	spec, err := loadFastpath()
	if err != nil {
		return fmt.Errorf("tdpd's fast path: %w", err)
	}
	return errors.Join(bpfnet.RemovePins(pins, pinPrefix, nil), bpfnet.RemoveMaps(spec, pins), bpfnet.RemovePinDir(pins))
}
