package fastpath

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// setSources makes these all from whom labels in UDP are taken.
func (f *Fastpath) setSources(all []netip.Prefix) error {
	m, wanted := f.objects.FastSources, map[fastpathFastSource]bool{}
	for _, p := range all {
		wanted[sourceKey(p)] = true
	}
	var key fastpathFastSource
	var one uint32
	var gone []fastpathFastSource
	it := m.Iterate()
	for it.Next(&key, &one) {
		if !wanted[key] {
			gone = append(gone, key)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("sources of labels in UDP: %w", err)
	}
	for _, key := range gone {
		if err := m.Delete(key); err != nil {
			return fmt.Errorf("sources of labels in UDP: %w", err)
		}
	}
	for key := range wanted {
		if err := m.Update(key, uint32(1), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("%w: sources of labels in UDP: room for %d: %w", ErrFull, MaxSources, err)
		}
	}
	return nil
}

// sourceKey is a prefix as the programs look for it.
func sourceKey(p netip.Prefix) (k fastpathFastSource) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	k.Bits, k.Address.In6U.U6Addr8 = uint32(32+bits), p.Masked().Addr().As16()
	return k
}
