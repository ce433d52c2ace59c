package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nameMax is the kernel's limit of an interface name, in bytes.
const nameMax = 15

// Veth makes a pair of interfaces, a in namespace n and b in peer, both down. It carries at most one segment at a time, as a
// wire does: the kernel's multicast forwarding drops what is larger than the MTU.
func (n *Namespace) Veth(a string, peer *Namespace, b string) error {
	for _, name := range []string{a, b} {
		if name == "" || len(name) > nameMax {
			return fmt.Errorf("interface name %q: 1 to %d bytes are allowed", name, nameMax)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: b, PeerNamespace: netlink.NsFd(peer.fd)}
	if err := n.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s:%s - %s:%s: %w", n.name, a, peer.name, b, err)
	}
	return errors.Join(n.oneSegment(a), peer.oneSegment(b))
}

func (n *Namespace) oneSegment(ifname string) error {
	return n.change(ifname, "gso_max_segs", func(l netlink.Link) error { return n.nl.LinkSetGSOMaxSegs(l, 1) })
}

// Bridge makes a bridge that is up, with IGMP snooping or without.
func (n *Namespace) Bridge(name string, snooping bool) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := n.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("bridge %s in %s: %w", name, n.name, err)
	}
	return n.Up(name)
}

// Port puts an interface into a bridge.
func (n *Namespace) Port(bridge, ifname string) error {
	master, err := n.nl.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge %s in %s: %w", bridge, n.name, err)
	}
	return n.change(ifname, "master", func(l netlink.Link) error { return n.nl.LinkSetMaster(l, master) })
}

// Up sets an interface up.
func (n *Namespace) Up(ifname string) error { return n.change(ifname, "up", n.nl.LinkSetUp) }

// Down sets an interface down.
func (n *Namespace) Down(ifname string) error { return n.change(ifname, "down", n.nl.LinkSetDown) }

// MTU sets an interface's MTU in bytes.
func (n *Namespace) MTU(ifname string, mtu int) error {
	return n.change(ifname, "mtu", func(l netlink.Link) error { return n.nl.LinkSetMTU(l, mtu) })
}

// Address adds an address with its prefix length.
func (n *Namespace) Address(ifname string, p netip.Prefix) error {
	return n.change(ifname, "address "+p.String(), func(l netlink.Link) error {
		addr, err := netlink.ParseAddr(p.String())
		if err != nil {
			return err
		}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		return n.nl.AddrAdd(l, addr)
	})
}

// Route adds or replaces a route: by a gateway, by an interface, or both. Invalid via or empty ifname mean none.
func (n *Namespace) Route(dst netip.Prefix, via netip.Addr, ifname string) error {
	route := &netlink.Route{}
	var err error
	if route.Dst, err = netlink.ParseIPNet(dst.String()); err != nil {
		return err
	}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	}
	if ifname != "" {
		l, err := n.nl.LinkByName(ifname)
		if err != nil {
			return fmt.Errorf("interface %s in %s: %w", ifname, n.name, err)
		}
		route.LinkIndex = l.Attrs().Index
	}
	if err := n.nl.RouteReplace(route); err != nil {
		return fmt.Errorf("route %s via %s dev %q in %s: %w", dst, via, ifname, n.name, err)
	}
	return nil
}

// Sysctl sets a key under net, "net.ipv4.ip_forward" or with slashes where a name has dots in it.
func (n *Namespace) Sysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	return n.Do(func() error {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
			return fmt.Errorf("sysctl %s=%s in %s: %w", key, value, n.name, err)
		}
		return nil
	})
}

func (n *Namespace) change(ifname, what string, f func(netlink.Link) error) error {
	l, err := n.nl.LinkByName(ifname)
	if err == nil {
		err = f(l)
	}
	if err != nil {
		return fmt.Errorf("interface %s in %s: %s: %w", ifname, n.name, what, err)
	}
	return nil
}

// Netlink is a handle inside, for what this package has no call for.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

func (n *Namespace) deleteLinks() {
	links, err := n.nl.LinkList()
	if err != nil {
		return
	}
	for _, l := range links {
		switch l.Type() {
		case "veth", "bridge", "vxlan":
			_ = n.nl.LinkDel(l) // the kernel deletes what is left with the namespace
		}
	}
}
