package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// senderMapKey is struct sender_key of bpf/agent.bpf.c.
type senderMapKey struct {
	Group [4]byte
	User  [4]byte
}

// sendersBatch is how many users one system call reads.
const sendersBatch = 4096

// setCounted makes the groups those that are counted. What was counted of one that stays is kept; one that is gone refuses nobody
// when it comes back.
func (a *agent) setCounted(groups map[[4]byte]bool) error {
	totals, err := a.totals()
	if err != nil {
		return err
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for group := range groups {
		if _, ok := totals[group]; ok {
			continue
		}
		if err := a.coll.Maps[agentMapTraffic].Put(group, make([]Traffic, cpus)); err != nil {
			return fmt.Errorf("count traffic of group %s: %w", netip.AddrFrom4(group), err)
		}
	}
	var errs []error
	for group := range totals {
		if _, ok := groups[group]; !ok {
			errs = append(errs, forget(a.coll.Maps[agentMapTraffic], group), forget(a.coll.Maps[agentMapSheds], group),
				forget(a.coll.Maps[agentMapRedirections], group))
		}
	}
	return errors.Join(errs...)
}

// forget deletes an entry that need not be there.
func forget(m *ebpf.Map, group [4]byte) error {
	if err := m.Delete(group); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete from BPF map %s: %w", m, err)
	}
	return nil
}

// totals adds up what the CPUs counted of each group.
func (a *agent) totals() (map[[4]byte]Traffic, error) {
	var (
		group [4]byte
		cpus  []Traffic
	)
	totals := make(map[[4]byte]Traffic)
	entries := a.coll.Maps[agentMapTraffic].Iterate()
	for entries.Next(&group, &cpus) {
		var t Traffic
		for _, c := range cpus {
			t.Packets += c.Packets
			t.Bytes += c.Bytes
			t.Opened += c.Opened
			t.Refused += c.Refused
		}
		totals[group] = t
	}
	if err := entries.Err(); err != nil {
		return nil, fmt.Errorf("read traffic of groups: %w", err)
	}
	return totals, nil
}

// Traffic adds up what the CPUs counted.
func (a *agent) Traffic() (map[netip.Addr]Traffic, error) {
	totals, err := a.totals()
	if err != nil {
		return nil, err
	}
	traffic := make(map[netip.Addr]Traffic, len(totals))
	for group, t := range totals {
		traffic[netip.AddrFrom4(group)] = t
	}
	return traffic, nil
}

// Senders takes the sample out of the map.
func (a *agent) Senders() (map[netip.Addr][]Sender, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	var (
		m       = a.coll.Maps[agentMapSenders]
		cursor  ebpf.MapBatchCursor
		keys    = make([]senderMapKey, sendersBatch)
		packets = make([]uint64, sendersBatch*cpus)
		senders = make(map[netip.Addr][]Sender)
	)
	for {
		n, err := m.BatchLookupAndDelete(&cursor, keys, packets, nil)
		for i, k := range keys[:n] {
			s := Sender{User: netip.AddrFrom4(k.User)}
			for _, p := range packets[i*cpus : (i+1)*cpus] {
				s.Packets += p
			}
			group := netip.AddrFrom4(k.Group)
			senders[group] = append(senders[group], s)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return senders, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read senders: %w", err)
		}
	}
}

// Shed writes the share, or takes it away.
func (a *agent) Shed(group netip.Addr, share int) error {
	if err := checkShed(group, share); err != nil {
		return err
	}
	if share == 0 {
		return forget(a.coll.Maps[agentMapSheds], group.As4())
	}
	if err := a.coll.Maps[agentMapSheds].Put(group.As4(), uint32(share)); err != nil {
		return fmt.Errorf("shed users of group %s: %w", group, err)
	}
	return nil
}

// Shedding reads the share.
func (a *agent) Shedding(group netip.Addr) (int, error) {
	if err := checkShed(group, 0); err != nil {
		return 0, err
	}
	var share uint32
	err := a.coll.Maps[agentMapSheds].Lookup(group.As4(), &share)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("read whom of group %s to shed: %w", group, err)
	}
	return int(share), nil
}

// redirectionMapValue is struct redirection of bpf/redirect.h.
type redirectionMapValue struct{ Share, To uint32 }

// Redirect writes share and server, or takes them away.
func (a *agent) Redirect(group netip.Addr, share int, to netip.Addr) error {
	if err := checkRedirect(group, share, to); err != nil {
		return err
	}
	if share == 0 {
		return forget(a.coll.Maps[agentMapRedirections], group.As4())
	}
	if a.config.Forward.Port == 0 {
		return errNotForwarding
	}
	if err := a.coll.Maps[agentMapRedirections].Put(group.As4(), redirectionMapValue{uint32(share), hostOrder(to)}); err != nil {
		return fmt.Errorf("redirect users of group %s to %s: %w", group, to, err)
	}
	return nil
}

// Redirecting reads them.
func (a *agent) Redirecting(group netip.Addr) (int, netip.Addr, error) {
	if err := checkRedirect(group, 0, netip.Addr{}); err != nil {
		return 0, netip.Addr{}, err
	}
	var r redirectionMapValue
	err := a.coll.Maps[agentMapRedirections].Lookup(group.As4(), &r)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, netip.Addr{}, nil
	}
	if err != nil {
		return 0, netip.Addr{}, fmt.Errorf("read whom of group %s to redirect: %w", group, err)
	}
	return int(r.Share), fromHostOrder(r.To), nil
}
