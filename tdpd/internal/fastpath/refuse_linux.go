package fastpath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/tdpd/internal/vips"
)

// SetRefusals makes these what becomes of VIPs' users whom nobody serves; those of other VIPs are dropped. What can be done is done even where
// a part fails.
func (f *Fastpath) SetRefusals(refuse map[netip.Addr]vips.Refusal) error {
	var errs []error
	for vip := range f.refusals {
		if refuse[vip] != vips.Drop {
			continue
		}
		if err := f.objects.FastServices.Delete(vip.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("refusal of VIP %v: %w", vip, err))
			continue
		}
		delete(f.refusals, vip)
	}
	for vip, how := range refuse {
		if how == f.refusals[vip] {
			continue
		}
		if err := f.objects.FastServices.Put(vip.As16(), fastpathFastService{Refuse: uint8(how)}); err != nil {
			errs = append(errs, fmt.Errorf("refusal of VIP %v: %w", vip, err))
			continue
		}
		f.refusals[vip] = how
	}
	return errors.Join(errs...)
}

// takeOverRefusals learns what a process before has left.
func (f *Fastpath) takeOverRefusals() error {
	var vip [16]byte
	var s fastpathFastService
	it := f.objects.FastServices.Iterate()
	for it.Next(&vip, &s) {
		f.refusals[netip.AddrFrom16(vip).Unmap()] = vips.Refusal(s.Refuse)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("take over refusals: %w", err)
	}
	return nil
}
