package service

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

// MaxPorts bounds the ports of a service.
const MaxPorts = 64

var nameFormat = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName returns an error for what cannot name a service or a server.
func CheckName(name string) error {
	if !nameFormat.MatchString(name) {
		return fmt.Errorf("name %q: want at most 63 lower-case letters, digits and hyphens inside", name)
	}
	return nil
}

// Validate checks one service by itself.
func (s Service) Validate() error {
	if err := CheckName(s.Name); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	for _, check := range []func() error{s.checkAddresses, s.checkPorts, s.checkWords, s.checkHandover, s.checkDynamic, s.checkSplit, s.checkRules, s.checkServers, s.checkPortions} {
		if err := check(); err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	return nil
}

var private = netip.MustParsePrefix("232.0.0.0/5")

func (s Service) checkAddresses() error {
	switch {
	case !s.VIP.Is4():
		return fmt.Errorf("vip %v: want an IPv4 address", s.VIP)
	case s.VIP.IsMulticast():
		return fmt.Errorf("vip %v is a multicast address: that is what group is for", s.VIP)
	case !s.VIP.IsGlobalUnicast():
		return fmt.Errorf("vip %v is not an address that users can reach", s.VIP)
	case s.VIP6.IsValid() && s.Mode != Tags:
		return fmt.Errorf("vip6 %v: IPv6 goes with mode tags", s.VIP6)
	case s.VIP6.IsValid() && (!s.VIP6.Is6() || s.VIP6.Is4In6() || s.VIP6.Zone() != "" || !s.VIP6.IsGlobalUnicast()):
		return fmt.Errorf("vip6 %v is not an IPv6 address that users can reach", s.VIP6)
	case s.Mode == Tags && !s.Group.IsValid():
		return nil
	case !s.Group.Is4() || !s.Group.IsMulticast():
		return fmt.Errorf("group %v is not an IPv4 multicast address: take one of 239.0.0.0/8", s.Group)
	case !private.Contains(s.Group):
		return fmt.Errorf("group %v is public (224-231), where anybody may join: take one of 239.0.0.0/8", s.Group)
	}
	return nil
}

func (s Service) checkPorts() error {
	if len(s.Ports) == 0 || len(s.Ports) > MaxPorts {
		return fmt.Errorf("%d ports: want 1 to %d, such as ports: [tcp/80]", len(s.Ports), MaxPorts)
	}
	seen := map[Port]bool{}
	for _, p := range s.Ports {
		if _, err := ParsePort(p.String()); err != nil {
			return err
		}
		if seen[p] {
			return fmt.Errorf("port %v is there twice", p)
		}
		seen[p] = true
	}
	return nil
}

func (s Service) checkWords() error {
	switch {
	case s.Mode != Multicast && s.Mode != Tags:
		return fmt.Errorf("mode %q: want multicast or tags", s.Mode)
	case s.Mode == Tags && s.Refuse != RefuseReset && s.Refuse != RefuseUnreachable && s.Refuse != RefuseDrop:
		return fmt.Errorf("refuse %q: want reset, unreachable or drop", s.Refuse)
	case s.Mode != Tags && s.Refuse != "":
		return fmt.Errorf("refuse %q goes with mode tags: with multicast users whom nobody serves get a reset", s.Refuse)
	case s.Mode == Tags && s.Steering != Proactive && s.Steering != Reactive:
		return fmt.Errorf("steering %q: want proactive or reactive", s.Steering)
	case s.Mode != Tags && s.Steering != "":
		return fmt.Errorf("steering %q goes with mode tags: with multicast servers join for all of their users", s.Steering)
	case s.Mode == Tags && s.Static():
		return errors.New("portions of servers with mode tags: it takes a leader, which gives epochs to what routers are told")
	}
	return s.Slots.Check()
}

// checkSplit: by a group all of an address' packets go to one server, and so users would move with the mode.
func (s Service) checkSplit() error {
	switch {
	case len(s.Split) == 0:
		return nil
	case s.Mode != Tags:
		return errors.New("split goes with mode tags: with multicast all packets of an address go to one server")
	case s.Group.IsValid():
		return fmt.Errorf("split beside group %v: by the group all packets of an address go to one server; take one of the two out", s.Group)
	}
	if err := s.Split.Check(); err != nil {
		return fmt.Errorf("split: %w", err)
	}
	return nil
}

func (s Service) checkRules() error {
	if s.Static() && len(s.Prefixes) > 0 {
		return errors.New("prefixes beside portions of servers: a static service says itself who has which portions, prefixes are for services with a leader")
	}
	for _, p := range s.Prefixes {
		for _, name := range p.Servers {
			if err := CheckName(name); err != nil {
				return fmt.Errorf("prefixes: %v: server: %w", p.Portion, err)
			}
		}
	}
	return s.Rules().Check()
}

func (s Service) checkServers() error {
	if len(s.Servers) > alloc.MaxServers {
		return fmt.Errorf("%d servers: at most %d", len(s.Servers), alloc.MaxServers)
	}
	names, addresses := map[string]bool{}, map[netip.Addr]string{}
	for _, server := range s.Servers {
		if err := CheckName(server.Name); err != nil {
			return fmt.Errorf("server: %w", err)
		}
		if names[server.Name] {
			return fmt.Errorf("server %s is there twice", server.Name)
		}
		names[server.Name] = true
		if !server.Address.Is4() || !server.Address.IsGlobalUnicast() {
			return fmt.Errorf("server %s: address %v is not a host's IPv4 address", server.Name, server.Address)
		}
		if other, taken := addresses[server.Address]; taken {
			return fmt.Errorf("servers %s and %s have the same address %v", other, server.Name, server.Address)
		}
		addresses[server.Address] = server.Name
		if server.Weight < 0 || server.Weight > alloc.MaxWeight {
			return fmt.Errorf("server %s: weight %d: want 0 to %d", server.Name, server.Weight, alloc.MaxWeight)
		}
		if len(server.Deny) > 0 && len(server.Portions) == 0 {
			return fmt.Errorf("server %s: deny without portions: it has nobody to leave to others", server.Name)
		}
	}
	return nil
}

// checkPortions holds static portions to what an allocation is: exclusive and complete.
func (s Service) checkPortions() error {
	if !s.Static() {
		return nil
	}
	sets := make(map[string]portion.Set, len(s.Servers))
	for _, server := range s.Servers {
		if len(server.Portions) > 0 {
			sets[server.Name] = server.Users()
		}
	}
	if err := portion.CheckPartition(sets); err != nil {
		return fmt.Errorf("portions of the servers: %w", err)
	}
	return nil
}

// ValidateAll checks services by themselves and against each other: names, groups, and each VIP and port are one service's; each VIP, where
// routers look at nothing else.
func ValidateAll(services []Service) error {
	type frontend struct {
		vip  netip.Addr
		port Port
	}
	names, groups, fronts := map[string]bool{}, map[netip.Addr]string{}, map[frontend]string{}
	whole, shared := map[netip.Addr]string{}, map[netip.Addr]string{} // VIPs that routers know, and all
	places := map[uint16]string{}                                     // ports at servers' own addresses
	var errs []error
	for _, s := range services {
		if err := s.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("service %s is there twice", s.Name))
			continue
		}
		names[s.Name] = true
		if other, taken := groups[s.Group]; taken && s.Group.IsValid() {
			errs = append(errs, fmt.Errorf("services %s and %s have the same group %v", other, s.Name, s.Group))
		}
		groups[s.Group] = s.Name
		for _, vip := range s.VIPs() {
			other := whole[vip]
			if s.WholeVIP() {
				other = cmp.Or(other, shared[vip])
				whole[vip] = s.Name
			}
			if other != "" {
				errs = append(errs, fmt.Errorf("services %s and %s have the same vip %v: with mode tags, handover pin, or dynamic, all of its ports are one service's", other, s.Name, vip))
			}
			shared[vip] = s.Name
		}
		for _, p := range s.Ports {
			if s.Dynamic.On && p.Proto == "tcp" {
				if other, taken := places[p.Number]; taken {
					errs = append(errs, fmt.Errorf("services %s and %s are dynamic and both have port %v: at a server's own address it leads to one of them", other, s.Name, p))
				}
				places[p.Number] = s.Name
			}
			f := frontend{s.VIP, p}
			if other, taken := fronts[f]; taken {
				errs = append(errs, fmt.Errorf("services %s and %s both have vip %v port %v", other, s.Name, s.VIP, p))
			}
			fronts[f] = s.Name
		}
	}
	return errors.Join(errs...)
}
