package agent

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/service"
	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// TestPacketsFindTheirConnection: wherever a router brings a packet of a user, it comes to the server that has its connection, whatever each server
// has executed of the newest allocation, whatever was applied since it was announced, and though some servers have not heard of it.
func TestPacketsFindTheirConnection(t *testing.T) {
	for _, mode := range []string{service.Multicast, service.Tags} {
		for seed := range uint64(1500) {
			f := newFinding(mode, seed)
			for number := uint64(2); number < 7; number++ {
				f.follow(t, number)
			}
		}
	}
}

// finding are three servers and one connection of a user of even addresses.
type finding struct {
	mode   string
	seed   uint64
	r      *rand.Rand
	now    time.Time
	names  []string
	cores  map[string]*Core
	inData map[string]dataplane.AgentService // the accepted users of the last Apply, the chains of that or of the last Prepare
	at     alloc.Allocation
	holder string
	stood  [2]string // the holder took it in the stead of an owner: standby and owner
}

func newFinding(mode string, seed uint64) *finding {
	f := &finding{
		mode: mode, seed: seed, r: rand.New(rand.NewPCG(seed, 8)), now: start, names: []string{"s1", "s2", "s3"},
		cores: map[string]*Core{}, inData: map[string]dataplane.AgentService{},
	}
	f.at = f.random(1)
	f.holder = f.at.OwnerOf(0)
	if f.r.IntN(2) == 0 {
		f.stood = [2]string{f.at.StandbyOf(0), f.holder}
		f.holder = f.stood[0]
	}
	for i, name := range f.names {
		c := NewCore(name, []string{"web"}, netip.MustParsePrefix([]string{"10.3.1.0/24", "10.3.2.0/24", "10.3.2.0/24"}[i]), settle)
		c.Channel(silence, true)
		c.SetServices(start, []service.Service{keeping(mode)})
		c.SetHealthy(start, true)
		f.cores[name] = c
		f.do(name, c.Committed(start, "web", f.at))
	}
	f.hear()
	return f
}

// random is an allocation in which a user's owner and standby are any two.
func (f *finding) random(number uint64) alloc.Allocation {
	even, odd := f.r.IntN(3), f.r.IntN(3)
	a := allocation(number, uint16(even), uint16(odd))
	return withStandbys(a, uint16((even+1+f.r.IntN(2))%3), uint16((odd+1+f.r.IntN(2))%3))
}

// hear has all servers know what the others hold.
func (f *finding) hear() {
	for _, name := range f.names {
		for _, other := range f.names {
			k := alloc.Kept{Connections: 1, Stood: other == f.stood[0]}
			f.do(name, f.cores[name].Heard(f.now, []control.Member{{
				Name: other, Health: control.Available, Boot: 1, Loads: map[string]alloc.Load{"web": {Kept: &k}},
			}}))
		}
	}
}

// do is what a data plane does of actions.
func (f *finding) do(name string, actions []Action) {
	for _, action := range actions {
		switch a := action.(type) {
		case Apply:
			f.inData[name] = a.Accept[0]
		case Prepare:
			s := f.inData[name]
			s.Chains = a.Accept[0].Chains
			f.inData[name] = s
		}
	}
}

// follow lets the servers execute the next allocation, each in its time.
func (f *finding) follow(t *testing.T, number uint64) {
	next := f.random(number)
	holders := alloc.Holders{"s1": {}, "s2": {}, "s3": {}}
	next.Trail = alloc.Follow(f.at, next, holders, func(owner, standby string) bool { return standby == f.stood[0] && owner == f.stood[1] })
	f.now = f.now.Add(100 * time.Millisecond)
	for _, name := range f.names {
		if f.r.IntN(4) > 0 || next.OwnerOf(0) == name { // a leader waits for those who win
			f.do(name, f.cores[name].Announced(f.now, "web", next, f.at))
		}
		f.look(t, next)
		if f.r.IntN(2) == 0 {
			f.do(name, []Action{f.cores[name].apply()})
			f.look(t, next)
		}
	}
	f.r.Shuffle(len(f.names), func(i, j int) { f.names[i], f.names[j] = f.names[j], f.names[i] })
	for _, name := range f.names {
		f.do(name, f.cores[name].Committed(f.now, "web", next))
		f.look(t, next)
	}
	f.at = next
	f.now = f.now.Add(settle + runOn)
	for _, name := range f.names {
		f.do(name, f.cores[name].Tick(f.now))
	}
	f.look(t, next)
}

// look sends a packet by each server to which routers may bring it.
func (f *finding) look(t *testing.T, next alloc.Allocation) {
	t.Helper()
	for _, at := range []string{f.at.OwnerOf(0), next.OwnerOf(0)} {
		if how := f.send(at); how != "" {
			t.Fatalf("%s, seed %d: %s's connection, a packet to %s: %s", f.mode, f.seed, f.holder, at, how)
		}
	}
}

// send follows a packet from a router as bpf/forward.h does, and says what is wrong; empty: it came to the holder, or will come again.
func (f *finding) send(at string) string {
	const straight = math.MaxUint32
	mark, way := uint32(straight), at
	for steps := 0; at != f.holder; steps++ {
		s := f.inData[at]
		isMine := s.Accept.Contains(even)
		var chain dataplane.Chain
		for _, c := range s.Chains {
			if c.Users.Contains(even) {
				chain = c
			}
		}
		to := netip.Addr{}
		switch {
		case steps > 15:
			return way + " and on"
		case steps == 0 && f.mode == service.Multicast && !isMine:
			return "" // it is not taken
		case chain.Owner.IsValid() && (steps == 0 || mark == straight && steps == 1 && !isMine && !chain.Takes):
			to = chain.Owner
		default:
			for _, h := range chain.Hops {
				if h.Until < mark {
					to, mark = h.Address, (h.Until+1)&^1
					break
				}
			}
			if !to.IsValid() && steps > 0 && !isMine && mark == straight {
				return "" // it is lost
			}
		}
		if !to.IsValid() {
			return way + " resets it"
		}
		for i, address := range f.at.Addresses {
			if address == to {
				at = f.at.Servers[i]
			}
		}
		way += fmt.Sprintf(" -> %s (%d)", at, mark)
	}
	return ""
}
