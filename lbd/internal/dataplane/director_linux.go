package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/bpfnet"
)

// director is the DirectorPlane of the kernel.
type director struct {
	config DirectorConfig
	spec   *ebpf.CollectionSpec
	coll   *ebpf.Collection
	hooks  hooks
}

// OpenDirector loads the director's program in the caller's network namespace. Nothing on the interfaces changes before the
// first Set: what a former director left there goes on until then.
func OpenDirector(c DirectorConfig) (DirectorPlane, error) {
	for _, ifname := range c.Interfaces {
		if _, err := ethernet(ifname); err != nil {
			return nil, fmt.Errorf("director: %w", err)
		}
	}
	d, err := loadDirectorPlane(c)
	if err != nil {
		return nil, fmt.Errorf("director: %w", err)
	}
	return d, nil
}

func loadDirectorPlane(c DirectorConfig) (*director, error) {
	if c.FragmentsMax < 0 || c.FragmentsMax > math.MaxInt32 {
		return nil, fmt.Errorf("%d fragmented datagrams followed: want 0 to %d", c.FragmentsMax, math.MaxInt32)
	}
	if err := bpfnet.PinDir(c.Bpffs); err != nil {
		return nil, err
	}
	spec, err := loadDirector()
	if err != nil {
		return nil, err
	}
	if c.FragmentsMax > 0 {
		spec.Maps[directorMapFragments].MaxEntries = uint32(c.FragmentsMax)
	}
	coll, err := loadPinned(spec, c.Bpffs, "", logger(c.Log))
	if err != nil {
		return nil, err
	}
	options := bpfnet.Options{Name: "manycast-director", First: true}
	return &director{config: c, spec: spec, coll: coll, hooks: hooks{dir: c.Bpffs, options: options}}, nil
}

// Set writes the maps, then sees to it that the program is on all interfaces, also on one that was made anew meanwhile.
func (d *director) Set(services []DirectorService) error {
	if err := checkDirector(services); err != nil {
		return err
	}
	if err := d.write(services); err != nil {
		return fmt.Errorf("director: %w", err)
	}
	if err := d.attach(); err != nil {
		return fmt.Errorf("director: %w", err)
	}
	return nil
}

func (d *director) attach() error {
	var want []hook
	for _, ifname := range d.config.Interfaces {
		want = append(want, hook{ifname, bpfnet.Ingress, d.coll.Programs[directorProgDirector]})
	}
	return d.hooks.set(want)
}

// write makes the maps match: ports before VIPs, so that a VIP is not ours before its services are known.
func (d *director) write(services []DirectorService) error {
	ports := make(map[portMapKey]target)
	for _, s := range services {
		for _, p := range s.Ports {
			ports[newPortMapKey(s.VIP, p)] = newTarget(s)
		}
	}
	return errors.Join(
		bpfnet.SyncMap(d.coll.Maps[directorMapServices], ports),
		bpfnet.SyncMap(d.coll.Maps[directorMapVips], firstServices(services)))
}

// target is struct target of bpf/director.bpf.c.
type target struct {
	Group     [4]byte
	IsRefused uint32
}

func newTarget(s DirectorService) target {
	t := target{Group: s.Group.As4()}
	if s.Refuse {
		t.IsRefused = 1
	}
	return t
}

// firstServices gives each VIP the group of its lowest port; tcp comes before udp.
func firstServices(services []DirectorService) map[[4]byte][4]byte {
	type first struct {
		port  Port
		group netip.Addr
	}
	lowest := make(map[netip.Addr]first)
	for _, s := range services {
		p := slices.MinFunc(s.Ports, comparePorts)
		if f, ok := lowest[s.VIP]; !ok || comparePorts(p, f.port) < 0 {
			lowest[s.VIP] = first{p, s.Group}
		}
	}
	groups := make(map[[4]byte][4]byte, len(lowest))
	for vip, f := range lowest {
		groups[vip.As4()] = f.group.As4()
	}
	return groups
}

func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Proto, b.Proto))
}

// Counters adds up what the CPUs counted.
func (d *director) Counters() (DirectorCounters, error) {
	var total DirectorCounters
	err := bpfnet.AddCounters(d.coll.Maps[directorMapCounters], func(c DirectorCounters) {
		total.Rewritten += c.Rewritten
		total.Bytes += c.Bytes
		total.Fragments += c.Fragments
		total.ICMPErrors += c.ICMPErrors
		total.FragmentsLost += c.FragmentsLost
		total.NoService += c.NoService
		total.Malformed += c.Malformed
		total.Refused += c.Refused
		total.Unanswered += c.Unanswered
	})
	return total, err
}

// Close keeps all in place or takes all of it away.
func (d *director) Close(keep bool) error {
	defer d.coll.Close()
	if keep {
		return d.hooks.close()
	}
	_ = d.attach() // only so does it hold what a former process left; an interface that is gone has no program to take off
	return errors.Join(d.hooks.set(nil), removePins(d.spec, d.config.Bpffs))
}
