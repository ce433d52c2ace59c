package kernel

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/bpfnet"
)

// hooks are the programs of a side where they run. Pins are named by direction and interface index: names on a bpffs hold no dots, those
// of VLAN interfaces do.
type hooks struct {
	dir  string
	held []*bpfnet.Attachment
}

// programs are those of a side.
type programs struct{ connections, ingress, egress *ebpf.Program }

const (
	pinConnections = "connections-link"
	pinIngress     = "ingress-"
	pinEgress      = "egress-"
)

// attach puts the programs where they run: what rewrites packets is there before any connection agrees to be moved. What a former
// process has attached elsewhere it takes off.
func (h *hooks) attach(c Config, p programs, o bpfnet.Options) error {
	pins := make(map[string]bool)
	for _, name := range c.Interfaces {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("interface %s: %w (see `ip link`)", name, err)
		}
		if kind := link.Attrs().EncapType; kind != "ether" {
			return fmt.Errorf("interface %s is of type %s: frames with an Ethernet header are needed", name, kind)
		}
		for prefix, to := range map[string]struct {
			dir     bpfnet.Direction
			program *ebpf.Program
		}{pinIngress: {bpfnet.Ingress, p.ingress}, pinEgress: {bpfnet.Egress, p.egress}} {
			pin := fmt.Sprintf("%s%d", prefix, link.Attrs().Index)
			pins[pin], o.Pin = true, filepath.Join(h.dir, pin)
			a, err := bpfnet.Attach(to.program, link.Attrs().Index, to.dir, o)
			if err != nil {
				return fmt.Errorf("interface %s: %w", name, err)
			}
			h.held = append(h.held, a)
		}
	}
	a, err := bpfnet.AttachCgroup(p.connections, c.Cgroup, filepath.Join(h.dir, pinConnections))
	if err != nil {
		return err
	}
	h.held = append(h.held, a)
	wanted := func(name string) bool { return pins[name] }
	return errors.Join(bpfnet.RemovePins(h.dir, pinIngress, wanted), bpfnet.RemovePins(h.dir, pinEgress, wanted))
}

// noBridgePorts: what the programs have refused as another host's frame a bridge would take for its own host's again.
func noBridgePorts(interfaces []string) error {
	for _, name := range interfaces {
		port, err := netlink.LinkByName(name)
		if err != nil || port.Attrs().MasterIndex == 0 {
			continue // attach says what is wrong
		}
		master, err := netlink.LinkByIndex(port.Attrs().MasterIndex)
		if err == nil && master.Type() == "bridge" {
			return fmt.Errorf("interface %s is a port of bridge %s: name the bridge instead", name, master.Attrs().Name)
		}
	}
	return nil
}

// close lets go of the attachments, or takes them off, that at the control group first.
func (h *hooks) close(keep bool) error {
	var errs []error
	for i := len(h.held) - 1; i >= 0; i-- {
		if keep {
			errs = append(errs, h.held[i].Close())
		} else {
			errs = append(errs, h.held[i].Detach())
		}
	}
	h.held = nil
	return errors.Join(errs...)
}

// netnsCookie is what the kernel knows the caller's network namespace by.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cookie of the network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("cookie of the network namespace: %w", err)
	}
	return cookie, nil
}
