package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/vishvananda/netlink"
)

// hooks keeps programs attached to interfaces. Their pins lie in dir, named by direction and interface index: names on a bpffs
// hold no dots, those of VLAN interfaces do.
type hooks struct {
	dir     string
	options bpfnet.Options // of all; the pin is each one's own
	held    map[string]*bpfnet.Attachment
}

// hook is one place for a program.
type hook struct {
	ifname  string
	dir     bpfnet.Direction
	program *ebpf.Program
}

var pinPrefix = map[bpfnet.Direction]string{bpfnet.Ingress: "ingress-", bpfnet.Egress: "egress-"}

// set attaches what is wanted and not attached, and takes off what is attached and not wanted, be it a former process' work.
func (h *hooks) set(want []hook) error {
	var errs []error
	wanted := make(map[string]bool)
	for _, w := range want {
		index, err := ethernet(w.ifname)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pin := fmt.Sprintf("%s%d", pinPrefix[w.dir], index)
		wanted[pin] = true
		if h.held[pin] == nil {
			errs = append(errs, h.attach(pin, index, w))
		}
	}
	for pin, a := range h.held {
		if !wanted[pin] {
			errs = append(errs, a.Detach())
			delete(h.held, pin)
		}
	}
	return errors.Join(append(errs, h.unpinExcept(wanted))...)
}

func (h *hooks) attach(pin string, index int, w hook) error {
	o := h.options
	o.Pin = filepath.Join(h.dir, pin)
	a, err := bpfnet.Attach(w.program, index, w.dir, o)
	if err != nil {
		return fmt.Errorf("interface %s: %w", w.ifname, err)
	}
	if h.held == nil {
		h.held = make(map[string]*bpfnet.Attachment)
	}
	h.held[pin] = a
	return nil
}

// unpinExcept takes programs off that a former process pinned and that are not wanted any more.
func (h *hooks) unpinExcept(wanted map[string]bool) error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		isPin := strings.HasPrefix(e.Name(), "ingress-") || strings.HasPrefix(e.Name(), "egress-")
		if !isPin || wanted[e.Name()] {
			continue
		}
		errs = append(errs, bpfnet.RemovePin(filepath.Join(h.dir, e.Name())))
	}
	return errors.Join(errs...)
}

// close lets go of the attachments and leaves them in place.
func (h *hooks) close() error {
	var errs []error
	for _, a := range h.held {
		errs = append(errs, a.Close())
	}
	h.held = nil
	return errors.Join(errs...)
}

// ethernet returns the index of an interface whose frames begin with an Ethernet header, as the programs want them.
func ethernet(ifname string) (index int, err error) {
	link, err := ethernetLink(ifname)
	if err != nil {
		return 0, err
	}
	return link.Index, nil
}

func ethernetLink(ifname string) (*netlink.LinkAttrs, error) {
	link, err := netlink.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w (see `ip link`)", ifname, err)
	}
	if kind := link.Attrs().EncapType; kind != "ether" {
		return nil, fmt.Errorf("interface %s is of type %s: frames with an Ethernet header are needed", ifname, kind)
	}
	return link.Attrs(), nil
}
