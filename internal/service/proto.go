package service

import (
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// ToProto converts a service for the bus.
func ToProto(s Service) *servicev1.Service {
	p := &servicev1.Service{
		Name: s.Name, Vip: s.VIP.String(), Vip6: text(s.VIP6), Group: text(s.Group), Mode: s.Mode, Policy: string(s.Policy), Refuse: string(s.Refuse),
		Steering: string(s.Steering),
		Slots:    &servicev1.Slots{By: string(s.Slots.By), Bits: uint32(s.Slots.Bits)}, Handover: handoverToProto(s.Handover),
		Dynamic: dynamicToProto(s.Dynamic),
	}
	if s.Balance != (policy.Balance{}) {
		p.Balance = balanceToProto(s.Balance)
	}
	for _, prefix := range s.Prefixes {
		p.Prefixes = append(p.Prefixes, &servicev1.Prefix{Portion: prefix.Portion.String(), Servers: prefix.Servers})
	}
	for _, prefix := range s.Split {
		p.Split = append(p.Split, prefix.String())
	}
	for _, port := range s.Ports {
		p.Ports = append(p.Ports, &servicev1.Port{Proto: port.Proto, Number: uint32(port.Number)})
	}
	for _, server := range s.Servers {
		sp := &servicev1.Server{Name: server.Name, Address: server.Address.String(), Weight: uint32(server.Weight)}
		sp.Portions, sp.Deny = portionTexts(server.Portions), portionTexts(server.Deny)
		p.Servers = append(p.Servers, sp)
	}
	return p
}

// FromProto converts a service from the bus and validates it.
func FromProto(p *servicev1.Service) (Service, error) {
	s := Service{
		Name: p.GetName(), Mode: p.GetMode(), Policy: alloc.Policy(p.GetPolicy()), Refuse: Refusal(p.GetRefuse()),
		Steering: Steering(p.GetSteering()),
		Slots:    alloc.Slots{By: alloc.By(p.GetSlots().GetBy()), Bits: int(p.GetSlots().GetBits())},
	}
	if s.Mode == Tags && s.Steering == "" {
		s.Steering = Proactive // of a release before
	}
	var err error
	if s.VIP, err = netip.ParseAddr(p.GetVip()); err != nil {
		return Service{}, fmt.Errorf("service %q: vip: %w", s.Name, err)
	}
	if s.VIP6, err = maybe("vip6", p.GetVip6()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	if s.Group, err = maybe("group", p.GetGroup()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	if s.Split, err = parseSplit(p.GetSplit()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	for _, port := range p.GetPorts() {
		if port.GetNumber() > 65535 {
			return Service{}, fmt.Errorf("service %q: port %d", s.Name, port.GetNumber())
		}
		s.Ports = append(s.Ports, Port{port.GetProto(), uint16(port.GetNumber())})
	}
	if s.Balance, err = balanceFromProto(p.GetBalance()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	if s.Handover, err = handoverFromProto(p.GetHandover()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	if s.Dynamic, err = dynamicFromProto(p.GetDynamic()); err != nil {
		return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
	}
	for _, pp := range p.GetPrefixes() {
		prefix, err := parsePrefix(pp.GetPortion(), pp.GetServers())
		if err != nil {
			return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
		}
		s.Prefixes = append(s.Prefixes, prefix)
	}
	for _, sp := range p.GetServers() {
		server, err := serverFromProto(sp)
		if err != nil {
			return Service{}, fmt.Errorf("service %q: %w", s.Name, err)
		}
		s.Servers = append(s.Servers, server)
	}
	return s, s.Validate()
}

func serverFromProto(p *servicev1.Server) (Server, error) {
	s := Server{Name: p.GetName(), Weight: int(p.GetWeight())}
	var err error
	if s.Address, err = netip.ParseAddr(p.GetAddress()); err != nil {
		return Server{}, fmt.Errorf("server %q: address: %w", s.Name, err)
	}
	if s.Portions, err = parsePortions(p.GetPortions()); err != nil {
		return Server{}, fmt.Errorf("server %q: %w", s.Name, err)
	}
	if s.Deny, err = parsePortions(p.GetDeny()); err != nil {
		return Server{}, fmt.Errorf("server %q: deny: %w", s.Name, err)
	}
	return s, nil
}
