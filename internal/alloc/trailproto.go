package alloc

import (
	"fmt"
	"net/netip"

	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func trailToProto(t Trail) *allocv1.Trail {
	if len(t.Chains) == 0 {
		return nil
	}
	p := &allocv1.Trail{Of: t.Of}
	for _, c := range t.Chains {
		chain := &allocv1.Chain{Cut: EpochToProto(c.Cut)}
		for _, h := range c.Hops {
			hop := &allocv1.Hop{Server: h.Server, Until: EpochToProto(h.Until)}
			if h.Address.IsValid() {
				hop.Address = h.Address.String()
			}
			chain.Hops = append(chain.Hops, hop)
		}
		p.Chains = append(p.Chains, chain)
	}
	return p
}

func trailFromProto(p *allocv1.Trail) (Trail, error) {
	if len(p.GetChains()) > 1<<MaxBits+MaxFixed {
		return Trail{}, fmt.Errorf("%d chains", len(p.GetChains()))
	}
	t := Trail{Of: p.GetOf()}
	for _, chain := range p.GetChains() {
		c := Chain{Cut: EpochFromProto(chain.GetCut())}
		for _, hop := range chain.GetHops() {
			h := Hop{Server: hop.GetServer(), Until: EpochFromProto(hop.GetUntil())}
			var err error
			if text := hop.GetAddress(); text != "" {
				if h.Address, err = netip.ParseAddr(text); err != nil {
					return Trail{}, fmt.Errorf("server %s: address: %w", h.Server, err)
				}
			}
			c.Hops = append(c.Hops, h)
		}
		t.Chains = append(t.Chains, c)
	}
	return t, nil
}

func keptToProto(k *Kept) *allocv1.Kept {
	if k == nil {
		return nil
	}
	return &allocv1.Kept{Epoch: EpochToProto(k.Epoch), Connections: uint32(min(max(k.Connections, 0), 1<<32-1)), Since: EpochToProto(k.Since), Stood: k.Stood}
}

func keptFromProto(p *allocv1.Kept) *Kept {
	if p == nil {
		return nil
	}
	return &Kept{Epoch: EpochFromProto(p.GetEpoch()), Connections: int(p.GetConnections()), Since: EpochFromProto(p.GetSince()), Stood: p.GetStood()}
}
