package fastpath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/tdpd/internal/vips"
)

// serviceTell is SERVICE_TELL.
const serviceTell = 1

// SetServices makes these what becomes of VIPs' users whom nobody serves, and the VIPs of which packets without a tag are told of. Users of
// other VIPs are dropped, and not told of. What can be done is done even where a part fails.
func (f *Fastpath) SetServices(refuse map[netip.Addr]vips.Refusal, tell map[netip.Addr]bool) error {
	want := map[netip.Addr]fastpathFastService{}
	for vip, how := range refuse {
		if how != vips.Drop {
			want[vip] = fastpathFastService{Refuse: uint8(how)}
		}
	}
	for vip, is := range tell {
		if s := want[vip]; is {
			s.Flags |= serviceTell
			want[vip] = s
		}
	}
	var errs []error
	for vip := range f.services {
		if _, wanted := want[vip]; wanted {
			continue
		}
		if err := f.objects.FastServices.Delete(vip.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("service of VIP %v: %w", vip, err))
			continue
		}
		delete(f.services, vip)
	}
	for vip, s := range want {
		if is, known := f.services[vip]; known && is == s {
			continue
		}
		if err := f.objects.FastServices.Put(vip.As16(), s); err != nil {
			errs = append(errs, fmt.Errorf("service of VIP %v: %w", vip, err))
			continue
		}
		f.services[vip] = s
	}
	return errors.Join(append(errs, f.settleTells())...)
}

// settleTells has the programs look whether a VIP is told of, where any is.
func (f *Fastpath) settleTells() error {
	tells := uint32(0)
	for _, s := range f.services {
		tells |= uint32(s.Flags & serviceTell)
	}
	if err := f.objects.FastTells.Set(tells); err != nil {
		return fmt.Errorf("services that are told of: %w", err)
	}
	return nil
}

// takeOverServices learns what a process before has left.
func (f *Fastpath) takeOverServices() error {
	var vip [16]byte
	var s fastpathFastService
	it := f.objects.FastServices.Iterate()
	for it.Next(&vip, &s) {
		f.services[netip.AddrFrom16(vip).Unmap()] = s
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("take over services: %w", err)
	}
	return f.settleTells()
}
