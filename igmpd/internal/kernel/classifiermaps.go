package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/steer"
	"github.com/vishvananda/netlink"
)

func newPort(group netip.Addr, ifindex int) igmpdPort {
	b := group.As4()
	return igmpdPort{Group: binary.NativeEndian.Uint32(b[:]), Ifindex: uint32(ifindex)}
}

// exitOf is the exit by an interface; where there is none, or the accelerator cannot write its frames, the tables decide.
func exitOf(link *netlink.LinkAttrs) igmpdExit {
	e := igmpdExit{Known: 1}
	if link != nil && link.EncapType == "ether" && len(link.HardwareAddr) == len(e.Mac) {
		e.Ifindex = uint32(link.Index)
		copy(e.Mac[:], link.HardwareAddr)
	}
	return e
}

// readExits returns the exits that the map holds.
func (c *classifier) readExits() (map[steer.Owner]igmpdExit, error) {
	exits := map[steer.Owner]igmpdExit{}
	var owner uint32
	var e igmpdExit
	entries := c.objects.IgmpdExits.Iterate()
	for entries.Next(&owner, &e) {
		if e.Known != 0 {
			exits[steer.Owner(owner)] = e
		}
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read the owners' exits: %w", err)
	}
	return exits, nil
}

func (c *classifier) putExits(want map[steer.Owner]igmpdExit) error {
	var errs []error
	for owner, e := range want {
		if have, ok := c.exits[owner]; ok && have == e {
			continue
		}
		if err := c.objects.IgmpdExits.Put(uint32(owner), e); err != nil {
			errs = append(errs, fmt.Errorf("exit of owner %d: %w", owner, err))
			continue
		}
		c.exits[owner] = e
	}
	return errors.Join(errs...)
}

// pruneExits clears the exits of owners that are no more, and their counters: a number may come to another member.
func (c *classifier) pruneExits(want map[steer.Owner]igmpdExit) error {
	zeros := make([]igmpdTraffic, ebpf.MustPossibleCPU())
	var errs []error
	for owner := range c.exits {
		if _, ok := want[owner]; ok {
			continue
		}
		err := errors.Join(c.objects.IgmpdExits.Put(uint32(owner), igmpdExit{}), c.objects.IgmpdOwners.Put(uint32(owner), zeros))
		if err != nil {
			errs = append(errs, fmt.Errorf("exit of owner %d: %w", owner, err))
			continue
		}
		delete(c.exits, owner)
	}
	return errors.Join(errs...)
}

// setPorts adds the ports that are new, then deletes the others.
func (c *classifier) setPorts(want map[igmpdPort]uint32) error {
	var errs []error
	var have []igmpdPort
	var p igmpdPort
	var value uint32
	entries := c.objects.IgmpdPorts.Iterate()
	for entries.Next(&p, &value) {
		have = append(have, p)
	}
	if err := entries.Err(); err != nil {
		return fmt.Errorf("read the groups' interfaces: %w", err)
	}
	for p := range want {
		if err := c.objects.IgmpdPorts.Put(p, uint32(1)); err != nil {
			errs = append(errs, fmt.Errorf("accept a group on interface index %d: %w", p.Ifindex, err))
		}
	}
	for _, p := range have {
		if _, ok := want[p]; ok {
			continue
		}
		if err := c.objects.IgmpdPorts.Delete(p); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, fmt.Errorf("refuse a group on interface index %d: %w", p.Ifindex, err))
		}
	}
	return errors.Join(errs...)
}

func (c *classifier) counters(to *Counters) error {
	for number, value := range map[uint32]*uint64{countNoOwner: &to.NoOwner, countAccelerated: &to.Accelerated, countTables: &to.Tables} {
		var perCPU []uint64
		if err := c.objects.IgmpdCounts.Lookup(number, &perCPU); err != nil {
			return fmt.Errorf("read counters: %w", err)
		}
		for _, n := range perCPU {
			*value += n
		}
	}
	to.Owners = map[steer.Owner]Traffic{}
	for owner := range c.exits {
		var perCPU []igmpdTraffic
		if err := c.objects.IgmpdOwners.Lookup(uint32(owner), &perCPU); err != nil {
			return fmt.Errorf("read counters of owner %d: %w", owner, err)
		}
		var t Traffic
		for _, n := range perCPU {
			t.Packets += n.Packets
			t.Bytes += n.Bytes
		}
		to.Owners[owner] = t
	}
	return nil
}
