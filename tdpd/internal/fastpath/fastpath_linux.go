package fastpath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/manycast/manycast/internal/steer"
)

// Fastpath is the loaded programs with their maps. One goroutine at a time may use it.
type Fastpath struct {
	objects fastpathObjects
	plans   *steer.Maps
	hops    *hopTable
	vips6   map[netip.Addr]netip.Addr // VIP of IPv6 -> its group in the plans
	trees   paths[steer.Owner]
	labels  paths[uint32]

	attached map[int]link.Link // by the interface's index
}

// Sizes are how much there is room for; 0 is the most.
type Sizes struct{ Owners, Labels, Hops uint32 }

// Open loads the programs. It needs CAP_BPF and CAP_NET_ADMIN.
func Open(sizes Sizes) (*Fastpath, error) {
	spec, err := loadFastpath()
	if err != nil {
		return nil, fmt.Errorf("tdpd's fast path: %w", err)
	}
	or := func(n, most uint32) uint32 {
		if n == 0 {
			return most
		}
		return n
	}
	owners, labels, hops := or(sizes.Owners, MaxOwners), or(sizes.Labels, MaxLabels), or(sizes.Hops, MaxHops)
	spec.Maps["fast_trees"].MaxEntries = owners
	spec.Maps["fast_owners"].MaxEntries = owners
	spec.Maps["fast_labels"].MaxEntries = labels
	spec.Maps["fast_hops"].MaxEntries = hops
	f := &Fastpath{vips6: map[netip.Addr]netip.Addr{}, attached: map[int]link.Link{}}
	if err := spec.LoadAndAssign(&f.objects, nil); err != nil {
		return nil, fmt.Errorf("load tdpd's fast path (needs CAP_BPF, CAP_NET_ADMIN and Linux 6.1): %w", err)
	}
	o := f.objects.fastpathMaps
	if f.plans, err = steer.NewMaps(map[string]*ebpf.Map{
		"steer_groups": o.SteerGroups, "steer_current": o.SteerCurrent, "steer_plans": o.SteerPlans,
		"steer_slots": o.SteerSlots, "steer_entries": o.SteerEntries, "steer_users": o.SteerUsers,
	}); err != nil {
		f.objects.Close()
		return nil, err
	}
	f.hops = newHopTable(hops, f.putHops)
	f.trees = paths[steer.Owner]{kind: "tree of owner", hops: f.hops, has: map[steer.Owner][]fastpathFastHop{}, put: f.putTree, drop: f.dropTree}
	f.labels = paths[uint32]{kind: "label", hops: f.hops, has: map[uint32][]fastpathFastHop{}, put: f.putLabel, drop: f.dropLabel}
	return f, nil
}

// Close takes the programs off all interfaces, and removes them and their maps.
func (f *Fastpath) Close() error {
	var errs []error
	for ifindex := range f.attached {
		errs = append(errs, f.Detach(ifindex))
	}
	return errors.Join(append(errs, f.objects.Close())...)
}

// Set makes s the state. Trees and labels are there before a plan names them, and go after it; a path is changed in one step, a VIP's
// users are in another. What can be done is done even where a part fails.
func (f *Fastpath) Set(s State) error {
	f.hops.settle()
	errs := []error{f.trees.add(s.Trees), f.labels.add(s.Labels), f.setVIPs(s.VIPs)}
	return errors.Join(append(errs, f.trees.prune(s.Trees), f.labels.prune(s.Labels))...)
}

// setVIPs brings the plans in. A VIP of IPv6 has a group while it is there.
func (f *Fastpath) setVIPs(vips map[netip.Addr]*steer.Plan) error {
	plans := make(map[netip.Addr]*steer.Plan, len(vips))
	for vip, g := range f.vips6 {
		if vips[vip] == nil {
			if err := f.objects.FastVips6.Delete(vip.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("VIP %v: %w", vip, err)
			}
			delete(f.vips6, vip)
			continue
		}
		plans[g] = vips[vip]
	}
	fresh := map[netip.Addr]netip.Addr{}
	for n, vip := range slices.SortedFunc(maps.Keys(vips), netip.Addr.Compare) {
		g := vip
		if vip.Is6() && !f.vips6[vip].IsValid() {
			for g = group(n); plans[g] != nil; g = g.Next() {
			}
			fresh[vip] = g
		} else if vip.Is6() {
			continue
		}
		plans[g] = vips[vip]
	}
	err := f.plans.Set(plans)
	for vip, g := range fresh {
		if putErr := f.objects.FastVips6.Put(vip.As16(), g.As4()); putErr != nil {
			err = errors.Join(err, fmt.Errorf("VIP %v: %w", vip, putErr))
			continue
		}
		f.vips6[vip] = g
	}
	return err
}

// paths are the hops that trees or labels have in the maps.
type paths[K steer.Owner | uint32] struct {
	kind string
	hops *hopTable
	has  map[K][]fastpathFastHop
	put  func(K, fastpathFastPath) error
	drop func(K) error
}

// add brings in what is new or has changed.
func (p *paths[K]) add(want map[K][]Hop) error {
	var errs []error
	for key, list := range want {
		if err := p.set(key, list); err != nil {
			errs = append(errs, fmt.Errorf("%s %d: %w", p.kind, key, err))
		}
	}
	return errors.Join(errs...)
}

func (p *paths[K]) set(key K, list []Hop) error {
	hops := make([]fastpathFastHop, len(list))
	for i, h := range list {
		if err := h.check(); err != nil {
			return err
		}
		hops[i] = h.encode()
	}
	had, known := p.has[key]
	if known && slices.Equal(had, hops) {
		return nil
	}
	var path fastpathFastPath
	if len(hops) > 0 {
		var err error
		if path, err = p.hops.take(hops); err != nil {
			return err
		}
	}
	if err := p.put(key, path); err != nil {
		if len(hops) > 0 {
			p.hops.give(hops)
		}
		return err
	}
	if len(had) > 0 {
		p.hops.give(had)
	}
	p.has[key] = hops
	return nil
}

// prune removes what is not wanted.
func (p *paths[K]) prune(want map[K][]Hop) error {
	var errs []error
	for key, had := range p.has {
		if _, wanted := want[key]; wanted {
			continue
		}
		if err := p.drop(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("%s %d: %w", p.kind, key, err))
			continue
		}
		if len(had) > 0 {
			p.hops.give(had)
		}
		delete(p.has, key)
	}
	return errors.Join(errs...)
}

func (f *Fastpath) putHops(at uint32, hops []fastpathFastHop) error {
	for i, h := range hops {
		if err := f.objects.FastHops.Put(at+uint32(i), h); err != nil {
			return fmt.Errorf("hop: %w", err)
		}
	}
	return nil
}

func (f *Fastpath) putTree(o steer.Owner, path fastpathFastPath) error {
	if o == 0 || uint32(o) >= f.objects.FastTrees.MaxEntries() {
		return fmt.Errorf("%w: owners are numbered 1..%d", ErrFull, f.objects.FastTrees.MaxEntries()-1)
	}
	return f.objects.FastTrees.Put(uint32(o), path)
}

func (f *Fastpath) dropTree(o steer.Owner) error {
	return f.objects.FastTrees.Put(uint32(o), fastpathFastPath{})
}

func (f *Fastpath) putLabel(label uint32, path fastpathFastPath) error {
	return f.objects.FastLabels.Put(label, path)
}

func (f *Fastpath) dropLabel(label uint32) error { return f.objects.FastLabels.Delete(label) }

// Counters reads what has been done, over all CPUs.
func (f *Fastpath) Counters() (Counters, error) {
	var c Counters
	for i, to := range []*uint64{
		&c.Pushed, &c.Swapped, &c.Popped, &c.Bare, &c.Kernel, &c.TooLong, &c.Expiring, &c.Nobody, &c.Outsider, &c.Malformed,
	} {
		var each []uint64
		if err := f.objects.FastCounts.Lookup(uint32(i), &each); err != nil {
			return Counters{}, fmt.Errorf("counters: %w", err)
		}
		for _, n := range each {
			*to += n
		}
	}
	return c, nil
}

// Traffic reads what went to an owner, over all CPUs.
func (f *Fastpath) Traffic(o steer.Owner) (Traffic, error) {
	var each []fastpathFastTraffic
	if err := f.objects.FastOwners.Lookup(uint32(o), &each); err != nil {
		return Traffic{}, fmt.Errorf("traffic of owner %d: %w", o, err)
	}
	var t Traffic
	for _, n := range each {
		t.Packets, t.Bytes = t.Packets+n.Packets, t.Bytes+n.Bytes
	}
	return t, nil
}
