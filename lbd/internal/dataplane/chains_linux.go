package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/steer"
)

// chainMapValue is struct chain of bpf/forward.h.
type chainMapValue struct {
	Flags, Owner uint32
	Hops         [MaxHops]hopMapValue
}

const (
	chainAsk = 1 << iota
	chainTakes
	chainOwns
)

type hopMapValue struct{ Address, Until uint32 }

const (
	epochBits   = 20
	epochMask   = 1<<epochBits - 1
	epochFirst  = 2             // below are FINAL and PASSED of bpf/forward.h, all ones are STRAIGHT, and odd ones become even
	epochs      = epochMask - 3 // even
	chainsBatch = 1024
)

func newChainMapValue(c Chain) chainMapValue {
	var v chainMapValue
	if c.Ask {
		v.Flags |= chainAsk
	}
	if c.Takes {
		v.Flags |= chainTakes
	}
	if c.Owns {
		v.Flags |= chainOwns
	}
	if c.Owner.IsValid() {
		v.Owner = hostOrder(c.Owner)
	}
	for i, h := range c.Hops {
		v.Hops[i] = hopMapValue{hostOrder(h.Address), epochFirst + h.Until%epochs}
	}
	return v
}

// hostOrder is an IPv4 address as programs have those of servers.
func hostOrder(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// fromHostOrder turns that back.
func fromHostOrder(server uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], server)
	return netip.AddrFrom4(b)
}

// chainTable numbers chains by what they say: a number means the same to the plan that is in force and to the one that comes.
type chainTable struct {
	chains  *ebpf.Map
	numbers map[chainMapValue]uint32
	used    []bool                         // by number; 0 is none
	retired []uint32                       // in no plan since the last change, and so not yet to be used again
	plans   map[netip.Addr]map[uint32]bool // which numbers the plan of a service has
	keys    map[[4]byte][4]byte            // by which group that plan goes: struct service's chains, by name
}

// openChains takes over what a former process has written.
func openChains(chains, groups *ebpf.Map) (*chainTable, error) {
	t := &chainTable{
		chains: chains, numbers: make(map[chainMapValue]uint32), used: make([]bool, chains.MaxEntries()),
		plans: make(map[netip.Addr]map[uint32]bool), keys: make(map[[4]byte][4]byte),
	}
	var (
		cursor ebpf.MapBatchCursor
		keys   = make([]uint32, chainsBatch)
		values = make([]chainMapValue, chainsBatch)
	)
	for done := false; !done; {
		n, err := chains.BatchLookup(&cursor, keys, values, nil)
		if done = errors.Is(err, ebpf.ErrKeyNotExist); err != nil && !done {
			return nil, fmt.Errorf("read chains: %w", err)
		}
		for i, number := range keys[:n] {
			if values[i] != (chainMapValue{}) {
				t.used[number] = true
				t.numbers[values[i]] = number
			}
		}
	}
	t.used[0] = true
	var (
		group   [4]byte
		service serviceMapValue
	)
	entries := groups.Iterate()
	for entries.Next(&group, &service) {
		if service.Chains != [4]byte{} {
			t.keys[service.Name] = service.Chains
		}
	}
	return t, entries.Err()
}

// compile writes the chains that are new, and makes the plan of a service's chains.
func (t *chainTable) compile(s AgentService) (key netip.Addr, plan *steer.Plan, err error) {
	if key, err = t.key(s.name()); err != nil {
		return key, nil, err
	}
	var claims []steer.Claim
	numbers := make(map[uint32]bool)
	for i, c := range s.Chains {
		value := newChainMapValue(c)
		if value == (chainMapValue{}) {
			continue
		}
		number, err := t.number(value)
		if err != nil {
			return key, nil, err
		}
		numbers[number] = true
		for _, set := range c.Users {
			claims = append(claims, steer.Claim{Owner: steer.Owner(number), Rank: -i, Set: set})
		}
	}
	if plan, err = steer.Compile(claims); err != nil {
		return key, nil, fmt.Errorf("chains of %s: %w", s.name(), err)
	}
	t.plans[key] = numbers
	return key, plan, nil
}

// number is the chain's, which is written if it is new.
func (t *chainTable) number(c chainMapValue) (uint32, error) {
	if n, ok := t.numbers[c]; ok {
		return n, nil
	}
	for n, used := range t.used {
		if used {
			continue
		}
		if err := t.chains.Put(uint32(n), c); err != nil {
			return 0, fmt.Errorf("write chain: %w", err)
		}
		t.used[n], t.numbers[c] = true, uint32(n)
		return uint32(n), nil
	}
	return 0, fmt.Errorf("more than %d different chains", len(t.used)-1)
}

// key is the group of a service's plan of chains, 0.0.x.y: no group and no VIP is one of these.
func (t *chainTable) key(service netip.Addr) (netip.Addr, error) {
	name := service.As4()
	if key, ok := t.keys[name]; ok {
		return netip.AddrFrom4(key), nil
	}
	taken := make(map[[4]byte]bool, len(t.keys))
	for _, key := range t.keys {
		taken[key] = true
	}
	for n := 1; n < 1<<16; n++ {
		key := [4]byte{2: byte(n >> 8), 3: byte(n)}
		if !taken[key] {
			t.keys[name] = key
			return netip.AddrFrom4(key), nil
		}
	}
	return netip.Addr{}, errors.New("too many services")
}

// free makes numbers free that were retired before the last change: no packet is on its way any more that has found them.
func (t *chainTable) free() {
	for _, n := range t.retired {
		t.used[n] = false
	}
	for c, n := range t.numbers {
		if !t.used[n] {
			delete(t.numbers, c)
		}
	}
	t.retired = nil
}

// retire notes which numbers no plan has any more, once the plans of services (by name) are in force.
func (t *chainTable) retire(services map[[4]byte]bool) {
	for name, key := range t.keys {
		if !services[name] {
			delete(t.keys, name)
			delete(t.plans, netip.AddrFrom4(key))
		}
	}
	in := make(map[uint32]bool)
	for _, numbers := range t.plans {
		for n := range numbers {
			in[n] = true
		}
	}
	for n, used := range t.used {
		if n > 0 && used && !in[uint32(n)] {
			t.retired = append(t.retired, uint32(n))
		}
	}
}
