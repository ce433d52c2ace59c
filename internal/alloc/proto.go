package alloc

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	servicev1 "github.com/manycast/manycast/proto/service/v1"
)

// ToProto converts a service's allocation for the bus; nil for the zero one.
func ToProto(service string, a Allocation) *allocv1.Allocation {
	if a.Zero() {
		return nil
	}
	p := &allocv1.Allocation{
		Service: service,
		Epoch:   EpochToProto(a.Epoch),
		Slots:   &servicev1.Slots{By: string(a.Slots.By), Bits: uint32(a.Slots.Bits)},
		Servers: a.Servers,
		Owner:   make([]uint32, len(a.Owner)),
		Standby: make([]uint32, len(a.Standby)),
	}
	for i := range a.Owner {
		p.Owner[i], p.Standby[i] = uint32(a.Owner[i]), uint32(a.Standby[i])
	}
	for _, f := range a.Fixed {
		p.Fixed = append(p.Fixed, f.String())
	}
	for _, addr := range a.Addresses {
		text := ""
		if addr.IsValid() {
			text = addr.String()
		}
		p.Addresses = append(p.Addresses, text)
	}
	p.Trail = trailToProto(a.Trail)
	return p
}

// FromProto converts an allocation from the bus and checks it; nil is the zero one.
func FromProto(p *allocv1.Allocation) (Allocation, error) {
	if p == nil {
		return Allocation{}, nil
	}
	a := Allocation{
		Epoch:   EpochFromProto(p.GetEpoch()),
		Slots:   Slots{By: By(p.GetSlots().GetBy()), Bits: int(p.GetSlots().GetBits())},
		Servers: p.GetServers(),
	}
	var err error
	if a.Owner, err = narrow(p.GetOwner()); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: owner: %w", p.GetService(), err)
	}
	if a.Standby, err = narrow(p.GetStandby()); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: standby: %w", p.GetService(), err)
	}
	if a.Fixed, err = parseFixed(p.GetFixed()); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: %w", p.GetService(), err)
	}
	if a.Addresses, err = parseAddresses(p.GetAddresses()); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: %w", p.GetService(), err)
	}
	if a.Trail, err = trailFromProto(p.GetTrail()); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: trail: %w", p.GetService(), err)
	}
	if err := a.Check(); err != nil {
		return Allocation{}, fmt.Errorf("allocation of %q: %w", p.GetService(), err)
	}
	return a, nil
}

// EpochToProto converts an epoch for the bus.
func EpochToProto(e epoch.Epoch) *allocv1.Epoch {
	return &allocv1.Epoch{Term: e.Term, Number: e.Number}
}

// EpochFromProto converts an epoch from the bus.
func EpochFromProto(p *allocv1.Epoch) epoch.Epoch {
	return epoch.Epoch{Term: p.GetTerm(), Number: p.GetNumber()}
}

func parseFixed(texts []string) ([]portion.Portion, error) {
	if len(texts) > MaxFixed {
		return nil, tooManyFixed(len(texts))
	}
	var out []portion.Portion
	for _, text := range texts {
		p, err := portion.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("fixed: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

func parseAddresses(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range texts {
		var addr netip.Addr
		if text != "" {
			var err error
			if addr, err = netip.ParseAddr(text); err != nil {
				return nil, fmt.Errorf("server's address: %w", err)
			}
		}
		out = append(out, addr)
	}
	return out, nil
}

func narrow(wide []uint32) ([]uint16, error) {
	if len(wide) > 1<<MaxBits+MaxFixed {
		return nil, fmt.Errorf("%d slots and fixed portions", len(wide))
	}
	out := make([]uint16, len(wide))
	for i, v := range wide {
		if v > None {
			return nil, errors.New("server number too large")
		}
		out[i] = uint16(v)
	}
	return out, nil
}
