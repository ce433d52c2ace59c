package dataplane

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host changes addresses and sysctls of the agent's host and undoes exactly that. What to undo is written into a pinned map
// before each change: the map outlives the process as the change does, and ends with the boot as the change does.
type host struct {
	undo *ebpf.Map // change -> [16]byte, what was there before
}

// change names one: "vip lo 192.0.2.80", "vxlan manycast0" or "arp_ignore eth0". Interface names have no spaces.
type change [64]byte

func newChange(words ...string) (c change, err error) {
	name := strings.Join(words, " ")
	if len(name) > len(c) {
		return c, fmt.Errorf("%q is longer than %d bytes", name, len(c))
	}
	copy(c[:], name)
	return c, nil
}

func (c change) words() []string { return strings.Fields(text(c[:])) }

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// addVIP adds the address to the device unless it is there already, by an operator's hand or ours.
func (h *host) addVIP(device string, vip netip.Addr) (change, error) {
	c, err := newChange("vip", device, vip.String())
	if err != nil {
		return c, err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return c, fmt.Errorf("VIP %s: device %s: %w", vip, device, err)
	}
	has, err := hasAddress(link, vip)
	if err != nil || has {
		return c, err
	}
	if err := h.undo.Put(c, [16]byte{}); err != nil {
		return c, fmt.Errorf("VIP %s: note what to undo: %w", vip, err)
	}
	if err := netlink.AddrAdd(link, hostAddress(vip)); err != nil && !errors.Is(err, unix.EEXIST) {
		return c, fmt.Errorf("add VIP %s to %s: %w", vip, device, err)
	}
	return c, nil
}

func hasAddress(link netlink.Link, a netip.Addr) (bool, error) {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, have := range addrs {
		if ip, ok := netip.AddrFromSlice(have.IP); ok && ip.Unmap() == a {
			return true, nil
		}
	}
	return false, nil
}

// hostAddress is for who shares the address with others by design: it does not look for them (RFC 4862 section 5.4), and is there at once.
func hostAddress(a netip.Addr) *netlink.Addr {
	address := &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice())}
	if a.Is6() {
		address.Flags = unix.IFA_F_NODAD
	}
	return address
}

func (h *host) removeVIP(device, vip string) error {
	a, err := netip.ParseAddr(vip)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(link, hostAddress(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	return nil
}

// deviceMTU lets all pass that the interfaces below let.
const deviceMTU = 65000

// addVXLAN makes a VXLAN device in flow-based mode, up, unless it is there as we made it, and returns its index.
func (h *host) addVXLAN(name string, port uint16) (c change, index int, err error) {
	if c, err = newChange("vxlan", name); err != nil {
		return c, 0, err
	}
	link, err := netlink.LinkByName(name)
	if v, ok := link.(*netlink.Vxlan); err == nil && ok && v.FlowBased && v.Port == int(port) {
		return c, v.Index, netlink.LinkSetUp(link)
	}
	var before [16]byte
	if err == nil && h.undo.Lookup(c, &before) == nil { // ours, of another port
		err = netlink.LinkDel(link)
	} else if err == nil {
		err = errors.New("is there, and is not ours: remove it, or choose another name")
	}
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) {
		return c, 0, fmt.Errorf("device %s: %w", name, err)
	}
	if err := h.undo.Put(c, [16]byte{}); err != nil {
		return c, 0, fmt.Errorf("device %s: note what to undo: %w", name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, deviceMTU
	v := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: int(port)}
	if err := netlink.LinkAdd(v); err != nil {
		return c, 0, fmt.Errorf("make VXLAN device %s on UDP port %d: %w", name, port, err)
	}
	if err := netlink.LinkSetUp(v); err != nil {
		return c, 0, fmt.Errorf("device %s: %w", name, err)
	}
	return c, v.Index, nil
}

func removeVXLAN(name string) error {
	link, err := netlink.LinkByName(name)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// setSysctl sets a key of an interface below net.ipv4.conf and notes what was there.
func (h *host) setSysctl(ifname, key, value string) (change, error) {
	c, err := newChange(key, ifname)
	if err != nil {
		return c, err
	}
	was, err := os.ReadFile(sysctlPath(ifname, key))
	if err != nil {
		return c, err
	}
	if strings.TrimSpace(string(was)) == value {
		return c, nil
	}
	var before [16]byte
	copy(before[:], bytes.TrimSpace(was))
	// Ours already, and changed by another hand since: what was there first is still what to go back to.
	if err := h.undo.Update(c, before, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return c, fmt.Errorf("%s of %s: note what to undo: %w", key, ifname, err)
	}
	return c, os.WriteFile(sysctlPath(ifname, key), []byte(value), 0)
}

func sysctlPath(ifname, key string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", ifname, key)
}

// undoExcept undoes all changes that are not in keep.
func (h *host) undoExcept(keep map[change]bool) error {
	var (
		c      change
		before [16]byte
		errs   []error
	)
	done := make(map[change][16]byte)
	entries := h.undo.Iterate()
	for entries.Next(&c, &before) {
		if !keep[c] {
			done[c] = before
		}
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read what to undo: %w", err)
	}
	for c, before := range done {
		err := h.revert(c.words(), text(before[:]))
		if err == nil {
			err = h.undo.Delete(c)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %q: %w", text(c[:]), err))
		}
	}
	return errors.Join(errs...)
}

func (h *host) revert(words []string, before string) error {
	switch {
	case len(words) == 3 && words[0] == "vip":
		return h.removeVIP(words[1], words[2])
	case len(words) == 2 && words[0] == "vxlan":
		return removeVXLAN(words[1])
	case len(words) == 2:
		err := os.WriteFile(sysctlPath(words[1], words[0]), []byte(before), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // the interface is gone
		}
		return err
	}
	return errors.New("not a change of ours")
}
