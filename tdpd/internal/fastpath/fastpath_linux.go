package fastpath

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/manycast/manycast/internal/bpfnet"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// Fastpath is the loaded programs with their maps. One goroutine at a time may use it.
type Fastpath struct {
	objects  fastpathObjects
	vips     *vips.Maps
	hops     *hopTable
	trees    paths[steer.Owner]
	labels   paths[uint32]
	services map[netip.Addr]fastpathFastService // by VIP; those that have something to say

	pins     string
	attached map[int]link.Link // by the interface's index
	macs     map[int][8]byte   // as they are in the map
}

// Options of a Fastpath. Sizes are how much there is room for; 0 is the most.
type Options struct {
	Owners, Labels, Hops uint32
	// Self are this router's addresses, by which senders are told what is too long and that nobody serves, and where tunnels begin and end;
	// without one of a family they are not, and do not.
	Self4, Self6 netip.Addr
	// Alone: there are no tables behind. What has a label and would be left to them is dropped, and counted.
	Alone bool
	// Sources are from whom labels in UDP (RFC 7510) to Self4 and Self6 are taken, at most MaxSources: from nobody else.
	Sources []netip.Prefix
	// Pins is a directory on a bpffs that keeps maps and attachments beyond the process: the next one takes them over; empty: they
	// end with it.
	Pins string
}

// Open loads the programs, over the maps that a process before has pinned, if any: what is in them holds until others are set. It
// needs CAP_BPF and CAP_NET_ADMIN.
func Open(o Options) (*Fastpath, error) {
	f := &Fastpath{pins: o.Pins, attached: map[int]link.Link{}, macs: map[int][8]byte{}, services: map[netip.Addr]fastpathFastService{}}
	if err := f.load(o); err != nil {
		return nil, err
	}
	m := f.objects.fastpathMaps
	var err error
	if f.vips, err = vips.New(map[string]*ebpf.Map{
		"steer_groups": m.SteerGroups, "steer_current": m.SteerCurrent, "steer_plans": m.SteerPlans,
		"steer_slots": m.SteerSlots, "steer_entries": m.SteerEntries, "steer_users": m.SteerUsers, "vips6": m.Vips6, "vips_split": m.VipsSplit,
	}); err == nil {
		f.hops = newHopTable(m.FastHops.MaxEntries(), f.putHops)
		f.trees = paths[steer.Owner]{kind: "tree of owner", hops: f.hops, has: map[steer.Owner][]fastpathFastHop{}, put: f.putTree, drop: f.dropTree}
		f.labels = paths[uint32]{kind: "label", hops: f.hops, has: map[uint32][]fastpathFastHop{}, put: f.putLabel, drop: f.dropLabel}
		err = errors.Join(f.takeOver(), f.setSources(o.Sources))
	}
	if err != nil {
		f.objects.Close()
		return nil, err
	}
	return f, nil
}

func (f *Fastpath) load(o Options) error {
	spec, err := loadFastpath()
	if err != nil {
		return fmt.Errorf("tdpd's fast path: %w", err)
	}
	owners := cmp.Or(o.Owners, MaxOwners)
	for name, n := range map[string]uint32{
		"fast_trees": owners, "fast_owners": owners, "fast_labels": cmp.Or(o.Labels, MaxLabels), "fast_hops": cmp.Or(o.Hops, MaxHops),
	} {
		spec.Maps[name].MaxEntries = n
	}
	if o.Self4.Is4() {
		err = spec.Variables["fast_self4"].Set(o.Self4.As4())
	}
	if o.Self6.Is6() && err == nil {
		err = spec.Variables["fast_self6"].Set(o.Self6.As16())
	}
	if o.Alone && err == nil {
		err = spec.Variables["fast_alone"].Set(uint32(1))
	}
	if err != nil {
		return fmt.Errorf("tdpd's fast path: its constants: %w", err)
	}
	if o.Pins == "" {
		err = spec.LoadAndAssign(&f.objects, nil)
	} else {
		if err := bpfnet.PinDir(o.Pins); err != nil {
			return err
		}
		_, err = bpfnet.LoadPinned(spec, o.Pins, &f.objects)
	}
	if err != nil {
		return fmt.Errorf("load tdpd's fast path (needs CAP_BPF, CAP_NET_ADMIN and Linux 6.1): %w", err)
	}
	return nil
}

// takeOver learns what a process before has left in the maps.
func (f *Fastpath) takeOver() error {
	hop := func(at uint32) (h fastpathFastHop, err error) { return h, f.objects.FastHops.Lookup(at, &h) }
	if err := errors.Join(f.takeOverServices(), f.trees.takeOver(f.objects.FastTrees, hop)); err != nil {
		return err
	}
	return f.labels.takeOver(f.objects.FastLabels, hop)
}

// Close takes the programs off all interfaces, and removes them and their maps. With keep, what is pinned stays and goes on.
func (f *Fastpath) Close(keep bool) error {
	var errs []error
	for ifindex, l := range f.attached {
		if keep {
			errs = append(errs, l.Close())
		} else {
			errs = append(errs, f.Detach(ifindex))
		}
	}
	errs = append(errs, f.objects.Close())
	if !keep && f.pins != "" {
		errs = append(errs, Remove(f.pins))
	}
	return errors.Join(errs...)
}

// SetUsers makes these the plans and the trees of their owners: by VIPs of both families, those of IPv6 with plans of stand-ins
// (steer.Standin); several hops of a tree share the flows. Trees are there before a plan names them, and go after it; a tree is changed
// in one step, a VIP's users are in another. What can be done is done even where a part fails.
func (f *Fastpath) SetUsers(plans map[netip.Addr]*steer.Plan, split map[netip.Addr]vips.Split, trees map[steer.Owner][]Hop) error {
	f.hops.settle(time.Now())
	return errors.Join(f.trees.add(trees), f.vips.Set(plans, split), f.trees.prune(trees))
}

// SetLabels makes these what is done to labels that come in, 16 to 1,048,575, each changed in one step.
func (f *Fastpath) SetLabels(labels map[uint32][]Hop) error {
	f.hops.settle(time.Now())
	return errors.Join(f.labels.add(labels), f.labels.prune(labels))
}

// UpdateLabels changes what is done to some labels, each in one step; one without hops goes.
func (f *Fastpath) UpdateLabels(labels map[uint32][]Hop) error {
	f.hops.settle(time.Now())
	var errs []error
	for label, hops := range labels {
		if len(hops) > 0 {
			errs = append(errs, f.labels.set(label, hops))
		} else {
			errs = append(errs, f.labels.remove(label))
		}
	}
	return errors.Join(errs...)
}

// Labels are what a process before, or this one, has put in, of which the neighbors are known.
func (f *Fastpath) Labels() map[uint32][]kernel.Hop {
	out := make(map[uint32][]kernel.Hop, len(f.labels.has))
	for label, hops := range f.labels.has {
		for _, h := range hops {
			if next, ok := h.next(); ok {
				out[label] = append(out[label], next)
			}
		}
	}
	return out
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
		errs = append(errs, p.set(key, list))
	}
	return errors.Join(errs...)
}

// takeOver learns what a map holds. An owner without hops has no tree, whether it had one or not.
func (p *paths[K]) takeOver(m *ebpf.Map, hop func(at uint32) (fastpathFastHop, error)) error {
	var key K
	var path fastpathFastPath
	it := m.Iterate()
	for it.Next(&key, &path) {
		hops := make([]fastpathFastHop, path.Count)
		for i := range hops {
			var err error
			if hops[i], err = hop(path.First + uint32(i)); err != nil {
				return fmt.Errorf("take over %s %d: hop %d: %w", p.kind, key, path.First+uint32(i), err)
			}
		}
		if m.Type() == ebpf.Array && len(hops) == 0 {
			continue
		}
		p.has[key] = hops
		p.hops.adopt(path.First, hops)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("take over %ss: %w", p.kind, err)
	}
	return nil
}

// set brings one in, unless it is there as it is.
func (p *paths[K]) set(key K, list []Hop) error {
	hops := make([]fastpathFastHop, len(list))
	for i, h := range list {
		if err := h.check(); err != nil {
			return p.failed(key, err)
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
			return p.failed(key, err)
		}
	}
	if err := p.put(key, path); err != nil {
		if len(hops) > 0 {
			p.hops.give(hops)
		}
		return p.failed(key, err)
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
	for key := range p.has {
		if _, wanted := want[key]; !wanted {
			errs = append(errs, p.remove(key))
		}
	}
	return errors.Join(errs...)
}

// remove removes one, if it is there.
func (p *paths[K]) remove(key K) error {
	had, known := p.has[key]
	if !known {
		return nil
	}
	if err := p.drop(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return p.failed(key, err)
	}
	if len(had) > 0 {
		p.hops.give(had)
	}
	delete(p.has, key)
	return nil
}

func (p *paths[K]) failed(key K, err error) error { return fmt.Errorf("%s %d: %w", p.kind, key, err) }

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
	if label < 16 || label >= 1<<20 {
		return errors.New("want 16 to 1048575: others are reserved (RFC 3032), or none")
	}
	return f.objects.FastLabels.Put(label, path)
}

func (f *Fastpath) dropLabel(label uint32) error { return f.objects.FastLabels.Delete(label) }

// Counters reads what has been done, over all CPUs.
func (f *Fastpath) Counters() (Counters, error) {
	var c Counters
	for i, to := range []*uint64{
		&c.Pushed, &c.Swapped, &c.Popped, &c.Bare, &c.Kernel, &c.Expiring, &c.TooLong, &c.Told, &c.Nobody, &c.Reset, &c.Unreachable, &c.Outsider, &c.NoLabel, &c.NoTables, &c.Malformed,
		&c.Tunneled, &c.Untunneled, &c.Stranger, &c.Congested, &c.Local,
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
