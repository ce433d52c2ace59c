// Package vips puts the plans of VIPs of both families into the maps of bpf/vips.h, which is steer.h's lookup for packets: what tdpd's
// programs share. A VIP of IPv6 is a group of steer.h's by an address that stands in for it.
package vips

import (
	"encoding/binary"
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
	// Refuse says what becomes of a VIP's users whom nobody serves.
	Refuse map[netip.Addr]Refusal
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

// Maps are the maps of one program. One goroutine at a time may use them.
type Maps struct {
	plans *steer.Maps
	map6  *ebpf.Map
	six   map[netip.Addr]netip.Addr // VIP of IPv6 -> its group in the plans
}

// New takes the maps by their names in bpf/vips.h and bpf/steer.h. What a process before has left in them holds until others are set.
func New(byName map[string]*ebpf.Map) (*Maps, error) {
	m := &Maps{map6: byName["vips6"], six: map[netip.Addr]netip.Addr{}}
	if m.map6 == nil {
		return nil, errors.New("map vips6 is missing; the program must include vips.h")
	}
	var err error
	if m.plans, err = steer.NewMaps(byName); err != nil {
		return nil, err
	}
	var vip [16]byte
	var g [4]byte
	it := m.map6.Iterate()
	for it.Next(&vip, &g) {
		m.six[netip.AddrFrom16(vip)] = netip.AddrFrom4(g)
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("take over VIPs: %w", err)
	}
	return m, nil
}

// Set makes these the plans of all VIPs; those of IPv6 have plans of stand-ins (steer.Standin). Each VIP's users are switched in one step. A
// VIP of IPv6 has a group while it is there.
func (m *Maps) Set(vips map[netip.Addr]*steer.Plan) error {
	plans := make(map[netip.Addr]*steer.Plan, len(vips))
	for vip, g := range m.six {
		if vips[vip] == nil {
			if err := m.map6.Delete(vip.As16()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("VIP %v: %w", vip, err)
			}
			delete(m.six, vip)
			continue
		}
		plans[g] = vips[vip]
	}
	fresh := map[netip.Addr]netip.Addr{}
	for n, vip := range slices.SortedFunc(maps.Keys(vips), netip.Addr.Compare) {
		g := vip
		if vip.Is6() && !m.six[vip].IsValid() {
			for g = group(n); plans[g] != nil; g = g.Next() {
			}
			fresh[vip] = g
		} else if vip.Is6() {
			continue
		}
		plans[g] = vips[vip]
	}
	err := m.plans.Set(plans)
	for vip, g := range fresh {
		if putErr := m.map6.Put(vip.As16(), g.As4()); putErr != nil {
			err = errors.Join(err, fmt.Errorf("VIP %v: %w", vip, putErr))
			continue
		}
		m.six[vip] = g
	}
	return errors.Join(err, m.plans.Spare()) // users of a server that fails are not to wait for room
}

// group is what stands for a VIP of IPv6 in the steering maps: the n-th address that is no VIP.
func group(n int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], uint32(n+1)) // of 0.0.0.0/8
	return netip.AddrFrom4(a)
}
