package dataplane

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

// Chains have one number as long as a plan leads to them, and it is another one's only two changes after.
func TestNetChainsAreNumberedByWhatTheySay(t *testing.T) {
	services := func(until uint32) []AgentService {
		s := agentServices(odd, even)[:1]
		s[0].Keeps, s[0].Chains = true, []Chain{
			{Users: portion.Union{odd}, Hops: []Hop{{addr("10.0.0.1"), until}}},
			{Users: portion.Union{even}, Hops: []Hop{{addr("10.0.0.2"), 7}}, Ask: true, Owner: addr("10.0.0.3")},
		}
		return s
	}
	a := newAgent(t, 0, nil)
	a.config.Forward.Port = sitePort
	number := func(until uint32) uint32 { return a.chains.numbers[newChainMapValue(services(until)[0].Chains[0])] }
	write := func(until uint32) {
		t.Helper()
		s := services(until)
		plans, err := compile(s, false)
		if err == nil {
			err = a.write(s, plans)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	first := number(1)
	write(2)
	second := number(2)
	if first == 0 || second == 0 || first == second {
		t.Fatalf("numbers %d and %d", first, second)
	}
	write(1)
	if third := number(1); third == second {
		t.Errorf("number %d is used again at once", third)
	}
	if got := len(a.chains.used); got != 8192 {
		t.Errorf("room for %d", got)
	}
	var chain chainMapValue
	if err := a.coll.Maps[agentMapChains].Lookup(number(1), &chain); err != nil || chain != newChainMapValue(services(1)[0].Chains[0]) {
		t.Errorf("chain %+v, error %v", chain, err)
	}

	taken, err := openChains(a.coll.Maps[agentMapChains], a.coll.Maps[agentMapGroups])
	if err != nil {
		t.Fatal(err)
	}
	if key := taken.keys[addr(webGroup).As4()]; key == [4]byte{} || key != a.chains.keys[addr(webGroup).As4()] {
		t.Errorf("key %v is taken over as %v", a.chains.keys, taken.keys)
	}
	if got := taken.numbers[chain]; got != number(1) {
		t.Errorf("number %d is taken over as %d", number(1), got)
	}
}

func TestChainMapValue(t *testing.T) {
	v := newChainMapValue(Chain{Hops: []Hop{{addr("10.0.0.1"), 1 << 20}, {addr("10.0.0.2"), 1<<20 - 1}, {addr("10.0.0.3"), 5}}, Ask: true, Takes: true, Owns: true})
	want := chainMapValue{Flags: 7, Hops: [MaxHops]hopMapValue{{0x0a000001, 6}, {0x0a000002, 5}, {0x0a000003, 7}}}
	if v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
	if hostOrder(netip.MustParseAddr("10.0.0.1")) != 0x0a000001 {
		t.Error("address in another order")
	}
}

// TestEpochsFallWhereNumbersTurn: what stands in packets falls from hop to hop wherever the epochs of a chain lie, and is never one of the two that
// mean something else.
func TestEpochsFallWhereNumbersTurn(t *testing.T) {
	for first := uint32(2); first < 3<<epochBits; first += 1<<epochBits - 7 {
		for until := first; until < first+16; until++ {
			c := newChainMapValue(Chain{Hops: []Hop{{addr("10.3.0.1"), until + 1}, {addr("10.3.0.2"), until}}})
			later, earlier := c.Hops[0].Until, c.Hops[1].Until
			if !isBefore(earlier, later) || earlier == 0 || later+1 >= epochMask || (until^earlier)&1 != 0 {
				t.Errorf("epoch %d is %#x, the next %#x", until, earlier, later)
			}
		}
	}
}
