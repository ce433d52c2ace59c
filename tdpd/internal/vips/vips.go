// Package vips puts the plans of VIPs of both families into the maps of bpf/vips.h, which is steer.h's lookup for packets: what tdpd's
// programs share. A VIP of IPv6 is a group of steer.h's by an address that stands in for it.
package vips

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
)

// Users are what services' users are steered by.
type Users struct {
	VIPs  map[netip.Addr]*steer.Plan   // of both families; of IPv6 the plan is one of stand-ins (steer.Standin)
	Trees map[steer.Owner][]kernel.Hop // by the owners of the plans; a hop without labels and Via is the kernel's matter
	// Tell says of which VIPs packets that come without a tag from a router, and are sent along a tree here, are told of: see Tagless.
	Tell map[netip.Addr]bool
	// Split says whose users are told apart by port, too, by VIP.
	Split map[netip.Addr]Split
	// Refuse says what becomes of a VIP's users whom nobody serves.
	Refuse map[netip.Addr]Refusal
}

// Split are users of a VIP who are told apart by port, too.
type Split struct {
	Prefixes steer.Split // whose they are; those of the other family are left out
	Plan     *steer.Plan // what they go by, as stand-ins (steer.Flow); it may be the VIP's
}

// Refusal is what is done to packets of users whom nobody serves.
type Refusal uint8

// What may be done. The values are those of the programs. What must not be answered is dropped whatever is said, and so is, by its errors'
// limit, what comes when many were told already.
const (
	Drop        Refusal = iota
	Unreachable         // an ICMP error: connection attempts end, connections outlive it
	Reset               // of TCP a reset, of the rest an ICMP error
)

// Tagless is a packet for a VIP that came without a tag from another router, and was sent along a tree here.
type Tagless struct {
	VIP, User netip.Addr
	Interface int          // index of the one that it came by
	From      []netip.Addr // addresses there of the neighbor that sent it; none: it is not known
}

// of is the part of it that the VIP's family has.
func (s Split) of(vip netip.Addr) Split {
	s.Prefixes = slices.DeleteFunc(slices.Clone(s.Prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() != vip.Is4() })
	return s
}

// Maps are the maps of one program. One goroutine at a time may use them.
type Maps struct {
	plans       *steer.Maps
	map6, split *ebpf.Map
	groups      map[role]netip.Addr // in the plans
	prefixes    map[splitKey]bool   // in split
	led         map[netip.Addr]led  // by group: plans that lead on to others
}

// role is what a group is for.
type role struct {
	vip   netip.Addr
	flows bool // of split users, where they have a plan of their own
}

// led is a plan with the group that it leads on to.
type led struct {
	from, to *steer.Plan
	group    netip.Addr
}

// splitKey is struct vip_split.
type splitKey struct {
	Len   uint32 // group included
	Group [4]byte
	Addr  [16]byte // of IPv4 the first bytes
}

func newSplitKey(group netip.Addr, p netip.Prefix) splitKey {
	k := splitKey{Len: uint32(32 + p.Bits()), Group: group.As4()}
	copy(k.Addr[:], p.Masked().Addr().AsSlice())
	return k
}

// New takes the maps by their names in bpf/vips.h and bpf/steer.h. What a process before has left in them holds until others are set.
func New(byName map[string]*ebpf.Map) (*Maps, error) {
	m := &Maps{
		map6: byName["vips6"], split: byName["vips_split"],
		groups: map[role]netip.Addr{}, prefixes: map[splitKey]bool{}, led: map[netip.Addr]led{},
	}
	if m.map6 == nil || m.split == nil {
		return nil, errors.New("maps vips6 and vips_split are missing; the program must include vips.h")
	}
	var err error
	if m.plans, err = steer.NewMaps(byName); err != nil {
		return nil, err
	}
	if err := m.takeOver(); err != nil {
		return nil, fmt.Errorf("take over VIPs: %w", err)
	}
	return m, nil
}

// takeOver learns what a process before has left.
func (m *Maps) takeOver() error {
	var vip [16]byte
	var g [4]byte
	it := m.map6.Iterate()
	for it.Next(&vip, &g) {
		m.groups[role{vip: netip.AddrFrom16(vip)}] = netip.AddrFrom4(g)
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, g := range m.plans.Groups() {
		if !reserved.Contains(g) {
			m.groups[role{vip: g}] = g
		}
	}
	for r, g := range maps.Clone(m.groups) {
		if flows, leads := m.plans.ByPort(g); leads && flows != g {
			m.groups[role{r.vip, true}] = flows
		}
	}
	var key splitKey
	var none uint32
	it = m.split.Iterate()
	for it.Next(&key, &none) {
		m.prefixes[key] = true
	}
	return it.Err()
}

// Set makes these the plans of all VIPs; those of IPv6 have plans of stand-ins (steer.Standin). Each VIP's users are switched in one step,
// those that are split in another. A VIP of IPv6 has a group while it is there, and so have split users with a plan of their own.
func (m *Maps) Set(vips map[netip.Addr]*steer.Plan, split map[netip.Addr]Split) error {
	if err := m.removeVIPs(vips); err != nil {
		return err
	}
	had := maps.Clone(m.groups)
	plans, prefixes := m.want(vips, split)
	errs := []error{m.addPrefixes(prefixes), m.plans.Set(plans), m.removePrefixes(prefixes)}
	for r, g := range m.groups {
		if had[r].IsValid() || r.vip.Is4() || r.flows {
			continue
		}
		if err := m.map6.Put(r.vip.As16(), g.As4()); err != nil {
			delete(m.groups, r)
			errs = append(errs, fmt.Errorf("VIP %v: %w", r.vip, err))
		}
	}
	return errors.Join(append(errs, m.plans.Spare())...) // users of a server that fails are not to wait for room
}

// removeVIPs removes VIPs of IPv6 that are not wanted.
func (m *Maps) removeVIPs(vips map[netip.Addr]*steer.Plan) error {
	for r := range m.groups {
		if _, wanted := vips[r.vip]; wanted || r.vip.Is4() || r.flows {
			continue
		}
		if err := m.map6.Delete(r.vip.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("VIP %v: %w", r.vip, err)
		}
		delete(m.groups, r)
	}
	return nil
}

// want gives VIPs their groups, and returns the plans of these and the prefixes of users that are split.
func (m *Maps) want(vips map[netip.Addr]*steer.Plan, split map[netip.Addr]Split) (map[netip.Addr]*steer.Plan, map[splitKey]bool) {
	groups, used := map[role]netip.Addr{}, map[netip.Addr]bool{}
	for _, g := range m.groups {
		used[g] = true
	}
	group := func(r role) netip.Addr {
		g := m.groups[r]
		if r.vip.Is4() && !r.flows {
			g = r.vip
		}
		for next := reserved.Addr().Next(); !g.IsValid(); next = next.Next() {
			if !used[next] {
				g = next
			}
		}
		groups[r], used[g] = g, true
		return g
	}
	plans, prefixes, all := map[netip.Addr]*steer.Plan{}, map[splitKey]bool{}, map[netip.Addr]led{}
	for _, vip := range slices.SortedFunc(maps.Keys(vips), netip.Addr.Compare) {
		plan, g := vips[vip], group(role{vip: vip})
		plans[g] = plan
		of := split[vip].of(vip)
		if len(of.Prefixes) == 0 {
			continue
		}
		to := g
		if of.Plan != plan {
			to = group(role{vip, true})
			plans[to] = of.Plan
		}
		for _, p := range of.Prefixes {
			prefixes[newSplitKey(to, p)] = true
		}
		if all[g] = m.led[g]; all[g].from != plan || all[g].group != to {
			all[g] = led{plan, plan.WithByPort(to), to}
		}
		plans[g] = all[g].to
	}
	m.groups, m.led = groups, all
	return plans, prefixes
}

func (m *Maps) addPrefixes(want map[splitKey]bool) error {
	for k := range want {
		if m.prefixes[k] {
			continue
		}
		if err := m.split.Put(k, uint32(0)); err != nil {
			return fmt.Errorf("prefixes of split users, of which there is room for %d: %w", m.split.MaxEntries(), err)
		}
		m.prefixes[k] = true
	}
	return nil
}

func (m *Maps) removePrefixes(want map[splitKey]bool) error {
	for k := range m.prefixes {
		if want[k] {
			continue
		}
		if err := m.split.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("prefix of split users: %w", err)
		}
		delete(m.prefixes, k)
	}
	return nil
}

// reserved has the groups that are no VIPs (RFC 1122 section 3.2.1.3).
var reserved = netip.MustParsePrefix("0.0.0.0/8")
