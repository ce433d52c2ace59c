package leader_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// twiceAtMost is how long two servers of one link may both take a user, whoever is cut off from whom and thinks that he leads: until
// the silent owner hears from its standby, or, where it hears nobody either, from the leader by the bus. It does not hold for a
// server that has neither channel nor bus, and gets its users' packets all the same. Each message that is lost on top adds the
// time to its repetition: twiceLossy is ten rounds.
const (
	twiceAtMost = netSilence/4 + 2*netHeartbeat + netSilence/2 + 500*time.Millisecond // the last: agents that do not prepare
	twiceLossy  = twiceAtMost + 10*500*time.Millisecond
)

// TestPartitions cuts everything off from everything: leaders from servers, both from the bus, servers from each other; and
// prefixes come and go.
func TestPartitions(t *testing.T) {
	t.Parallel()
	for seed := range runs(7, 2) {
		on := hub
		if seed == 6 {
			on = func(t *testing.T) medium { return newLAN(t) }
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inNetwork(t, on, func(n *network, d1, d2 store.Buckets) {
				p := partitioner{network: n, r: rand.New(rand.NewPCG(seed, 3)), leaders: map[string]store.Buckets{"d1": d1, "d2": d2}}
				bound := twiceAtMost
				if p.lossy = seed%2 == 1; p.lossy {
					bound = twiceLossy
				}
				for range 25 {
					p.fail()
					n.wait(time.Duration(p.r.IntN(2500)) * time.Millisecond)
				}
				p.heal()
				n.within("partitions", time.Hour, bound)
				time.Sleep(6 * time.Minute) // the longest that anybody is kept out
				n.wantServed("healed", "s1", "s2", "s3", "s4")
				n.wait(10 * time.Second)
				n.within("quiet again", time.Hour, twiceAtMost)
			})
		})
	}
}

// partitioner makes failures, of the servers' side of the channel one at a time.
type partitioner struct {
	*network
	r       *rand.Rand
	leaders map[string]store.Buckets
	busless map[string]bool
	cut     func() // heals the server that is cut off; nil: none is
	deaf    bool   // it hears nobody
	lossy   bool   // messages are lost, too
}

func (p *partitioner) fail() {
	server, director := fmt.Sprintf("s%d", 1+p.r.IntN(4)), fmt.Sprintf("d%d", 1+p.r.IntN(2))
	switch p.r.IntN(11) {
	case 0:
		p.endCut()
		p.kill(server)
		p.wait(time.Duration(p.r.IntN(2000)) * time.Millisecond)
		p.server(server, false)
	case 1:
		p.endCut()
		p.isolate(server, true, false)
		p.cut = func() { p.isolate(server, false, false) }
	case 2:
		p.endCut()
		if !p.hasBus() {
			return
		}
		p.isolate(server, true, true)
		p.cut, p.deaf = func() { p.isolate(server, false, false) }, true
	case 3:
		p.endCut()
		p.servers[server].member.Mute(true)
		p.cut = func() { p.servers[server].member.Mute(false) }
	case 4:
		p.isolate(director, p.r.IntN(2) == 0, p.r.IntN(2) == 0)
	case 5:
		if p.deaf {
			p.endCut()
		}
		p.away(director, p.r.IntN(2) == 0)
	case 6:
		if p.deaf {
			p.endCut()
		}
		p.away(server, p.r.IntN(2) == 0)
	case 7:
		if !p.lossy {
			return
		}
		loss := rand.New(rand.NewPCG(p.r.Uint64(), 1))
		p.hub.(hubMedium).Lose(func(string, string, control.Kind) bool { return loss.IntN(8) == 0 })
	case 8:
		p.servers[server].health(false, errors.New("connection refused"))
		p.wait(time.Duration(p.r.IntN(500)) * time.Millisecond)
		p.servers[server].health(true, nil)
	case 9, 10:
		p.apply("policy: equal\n" + somePrefixes(p.r, 4))
	}
}

func (p *partitioner) endCut() {
	if p.cut != nil {
		p.cut()
	}
	p.cut, p.deaf = nil, false
}

func (p *partitioner) away(name string, isAway bool) {
	b, ok := p.leaders[name]
	if !ok {
		b = p.servers[name].bus
	}
	if p.busless == nil {
		p.busless = map[string]bool{}
	}
	p.busless[name] = isAway
	away(b, isAway)
}

func (p *partitioner) hasBus() bool {
	for _, isAway := range p.busless {
		if isAway {
			return false
		}
	}
	return true
}

func (p *partitioner) heal() {
	p.endCut()
	p.apply("policy: equal")
	if h, ok := p.hub.(hubMedium); ok {
		h.Lose(nil)
	}
	for _, name := range allNames {
		p.isolate(name, false, false)
		if name != "r1" {
			p.away(name, false)
		}
	}
}

// TestOldLeaderIsRefused: whoever led before, and does not know that it leads no more, moves nobody.
func TestOldLeaderIsRefused(t *testing.T) {
	inNetwork(t, hub, func(n *network, d1, _ store.Buckets) {
		old, err := n.buckets.Allocations.Get(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		first, err := store.DecodeState(old.Value)
		if err != nil {
			t.Fatal(err)
		}
		away(d1, true)
		n.wait(5 * time.Second) // d2 leads
		n.kill("s4")
		n.wait(2 * time.Second)
		n.wantServed("under d2", "s1", "s2", "s3")
		before := slices.Clone(n.servers["s1"].joiner.current())
		if before[0].Epoch.Term <= first.Committed.Epoch.Term {
			t.Fatalf("epoch %v follows %v: d2 does not lead", before[0].Epoch, first.Committed.Epoch)
		}

		stale := n.hub.join(control.Member{Name: "d1", Role: control.Director, Leader: true}, nil)
		synctest.Wait()
		n.wait(time.Second)
		answers := 0
		announcer := announce.NewControl(stale, n.log)
		stop, err := announcer.Listen(func(m announce.Message) {
			if _, ok := m.(announce.Prepared); ok {
				answers++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		stolen := first.Committed
		stolen.Epoch.Number += 1000
		for _, m := range []announce.Message{
			announce.Announce{Service: "web", Allocation: stolen, Previous: first.Committed}, announce.Commit{Service: "web", Allocation: stolen},
		} {
			if err := announcer.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		n.wait(time.Second)
		stop()
		if after := n.servers["s1"].joiner.current(); after[0].Epoch != before[0].Epoch || answers > 0 {
			t.Errorf("epoch %v after %v, and %d servers are prepared", after[0].Epoch, before[0].Epoch, answers)
		}
		n.wantServed("after the old leader's word", "s1", "s2", "s3")
		stale.Leave()
	})
}
