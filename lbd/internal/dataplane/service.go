package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/service"
)

// Port is one port of a service.
type Port = service.Port

// portKey is the identity of a port under a VIP.
type portKey struct {
	vip  netip.Addr
	port Port
}

func checkDirector(services []DirectorService) error {
	taken := make(map[portKey]netip.Addr)
	var errs []error
	for _, s := range services {
		errs = append(errs, checkService(taken, s.VIP, s.Group, s.Ports))
	}
	return errors.Join(errs...)
}

func checkAgent(services []AgentService) error {
	taken := make(map[portKey]netip.Addr)
	groups := make(map[netip.Addr]netip.Addr)
	var errs []error
	for _, s := range services {
		errs = append(errs, checkTagged(s), checkChains(s), checkService(taken, s.VIP, s.name(), s.Ports))
		if vip, ok := groups[s.name()]; ok {
			errs = append(errs, fmt.Errorf("group %s stands for %s and for %s: give each service its own group", s.name(), vip, s.VIP))
		}
		groups[s.name()] = s.VIP
	}
	return errors.Join(errs...)
}

// name is what the service is known by: its group, or without one its VIP.
func (s AgentService) name() netip.Addr {
	if s.Group.IsValid() {
		return s.Group
	}
	return s.VIP
}

func checkTagged(s AgentService) error {
	switch {
	case s.VIP6.IsValid() && (!s.VIP6.Is6() || s.VIP6.Is4In6()):
		return fmt.Errorf("VIP %s: not an IPv6 address", s.VIP6)
	case !s.Tagged && !s.Group.IsValid():
		return fmt.Errorf("VIP %s: neither a group nor a tree leads here", s.VIP)
	}
	return nil
}

// checkService finds what is wrong with one service, and with its ports beside those already taken (which it adds to).
func checkService(taken map[portKey]netip.Addr, vip, group netip.Addr, ports []Port) error {
	switch {
	case !isHost(vip):
		return fmt.Errorf("VIP %s: not an IPv4 unicast address", vip)
	case group != vip && (!group.Is4() || !group.IsMulticast()):
		return fmt.Errorf("VIP %s: group %s is not an IPv4 multicast address", vip, group)
	case len(ports) == 0:
		return fmt.Errorf("VIP %s, group %s: no ports", vip, group)
	}
	for _, p := range ports {
		if p.Number == 0 || (p.Proto != "tcp" && p.Proto != "udp") {
			return fmt.Errorf("VIP %s: port %s: want a number from 1 and tcp or udp", vip, p)
		}
		key := portKey{vip, p}
		if other, ok := taken[key]; ok && other != group {
			return fmt.Errorf("VIP %s: port %s goes to group %s and to %s", vip, p, other, group)
		}
		taken[key] = group
	}
	return nil
}

// isHost reports whether a is an address that one host of IPv4 can have.
func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsMulticast() && !a.IsUnspecified() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func checkShed(group netip.Addr, share int) error {
	if !group.Is4() || share < 0 || share > ShedAll {
		return fmt.Errorf("shed %d of %d users of group %s: want an IPv4 group, and 0 to %d", share, ShedAll, group, ShedAll)
	}
	return nil
}

func checkRedirect(group netip.Addr, share int, to netip.Addr) error {
	if !group.Is4() || share < 0 || share > ShedAll {
		return fmt.Errorf("redirect %d of %d users of group %s: want an IPv4 group, and 0 to %d", share, ShedAll, group, ShedAll)
	}
	if share > 0 && !isHost(to) {
		return fmt.Errorf("redirect users of group %s to %s: not an IPv4 unicast address", group, to)
	}
	return nil
}
