package leader_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

// TestChaos lets servers, directors and prefixes come and go, messages get lost and the bus go away. At any time the agents that are at
// the newest epoch share no user; when it is quiet again all users are served, and all moves moved what they had to.
func TestChaos(t *testing.T) {
	t.Parallel()
	for seed := range runs(10, 2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

// runs is how many runs a test makes; few of them under the race detector, which makes each ten times as long.
func runs(all, few uint64) uint64 {
	if testing.Short() {
		return few
	}
	return all
}

func chaos(t *testing.T, r *rand.Rand) {
	c := newCluster(t)
	c.apply("policy: weighted")
	directors := []func(){c.director("d0")}
	up, fixed := map[string]bool{}, 0
	for step := range 30 {
		name := fmt.Sprintf("s%d", 1+r.IntN(5))
		switch r.IntN(9) {
		case 0, 1, 2:
			if up[name] {
				c.agents[name].stop()
			} else {
				c.server(name, 1+r.IntN(3), r.IntN(2) == 0)
			}
			up[name] = !up[name]
		case 3:
			put(t, c.buckets.Operator, "web."+name, &allocv1.Operator{Drained: r.IntN(2) == 0, Weight: proto.Uint32(uint32(r.IntN(4)))})
		case 4:
			directors[len(directors)-1]()
			directors = append(directors, c.director(fmt.Sprintf("d%d", step)))
		case 5:
			c.channel.Lose(one(4, r.Uint64()))
		case 6:
			c.away(true)
			c.wait(time.Duration(r.IntN(6000)) * time.Millisecond)
			c.away(false)
		case 7, 8:
			c.apply("policy: weighted\n" + somePrefixes(r, 5))
		}
		c.wait(time.Duration(r.IntN(3000)) * time.Millisecond)
		c.exclusive()
		fixed += len(c.committed().Fixed)
	}
	if fixed == 0 {
		t.Error("no prefix was ever given away")
	}
	c.channel.Lose(nil)
	c.apply("policy: weighted")
	var all []string
	for i := range 5 {
		name := fmt.Sprintf("s%d", i+1)
		if !up[name] {
			c.server(name, 1, true)
		}
		put(t, c.buckets.Operator, "web."+name, &allocv1.Operator{Weight: proto.Uint32(1)})
		all = append(all, name)
	}
	c.wait(6 * time.Minute) // longer than anybody is kept out
	for name, n := range c.shares(all...) {
		if n < 51 || n > 52 {
			t.Errorf("%s has %d of 256 users", name, n)
		}
	}
	history := c.history()
	if len(history) < 5 {
		t.Errorf("only %d moves: nothing was tried", len(history))
	}
	for _, m := range history {
		if m.FractionMoved != m.FractionNeeded {
			t.Errorf("moved too much: %v", m)
		}
	}
	c.end(directors...)
}

// somePrefixes are a few of the users' address space, or none; they cut across slots.
func somePrefixes(r *rand.Rand, servers int) string {
	var out []string
	for _, prefix := range []string{"10.1.0.0/30", "10.1.0.4/30", "10.1.0.8/31", "10.1.0.0/24", "10.1.0.64/26"} {
		if r.IntN(3) == 0 {
			first := r.IntN(servers)
			out = append(out, fmt.Sprintf("{prefix: %s, servers: [s%d, s%d]}", prefix, first+1, (first+1)%servers+1))
		}
	}
	return "prefixes: [" + strings.Join(out, ", ") + "]"
}

// one loses one message in n; it is called by several goroutines, one at a time.
func one(n int, seed uint64) func(announce.Message) bool {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(announce.Message) bool { return r.IntN(n) == 0 }
}

// committed is the allocation of "web".
func (c *cluster) committed() alloc.Allocation {
	c.t.Helper()
	e, err := c.buckets.Allocations.Get(c.t.Context(), "web")
	if err != nil {
		return alloc.Allocation{}
	}
	s, err := store.DecodeState(e.Value)
	if err != nil {
		c.t.Fatal(err)
	}
	return s.Committed
}

// exclusive checks that no user has two servers at the newest epoch.
func (c *cluster) exclusive() {
	c.t.Helper()
	var newest epoch.Epoch
	for _, s := range c.agents {
		for _, m := range s.joiner.current() {
			if newest.Less(m.Epoch) {
				newest = m.Epoch
			}
		}
	}
	for i := range 256 {
		var owners []string
		for name, s := range c.agents {
			for _, m := range s.joiner.current() {
				if m.Epoch == newest && m.Owner.Contains(userOf(i)) {
					owners = append(owners, name)
				}
			}
		}
		if len(owners) > 1 {
			c.t.Fatalf("at epoch %v user %d is served by %v", newest, i, owners)
		}
	}
}
