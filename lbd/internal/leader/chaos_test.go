package leader_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/announce"
)

// TestChaos lets servers and directors come and go, messages get lost and the bus go away. At any time the agents that are at
// the newest epoch share no user; when it is quiet again all users are served, and all moves moved what they had to.
func TestChaos(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { chaos(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func chaos(t *testing.T, r *rand.Rand) {
	c := newCluster(t)
	c.apply("policy: weighted")
	directors := []func(){c.director("d0")}
	up := map[string]bool{}
	for step := range 30 {
		name := fmt.Sprintf("s%d", 1+r.IntN(5))
		switch r.IntN(7) {
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
		}
		c.wait(time.Duration(r.IntN(3000)) * time.Millisecond)
		c.exclusive()
	}
	c.channel.Lose(nil)
	var all []string
	for i := range 5 {
		name := fmt.Sprintf("s%d", i+1)
		if !up[name] {
			c.server(name, 1, true)
		}
		put(t, c.buckets.Operator, "web."+name, &allocv1.Operator{Weight: proto.Uint32(1)})
		all = append(all, name)
	}
	c.wait(30 * time.Second)
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

// one loses one message in n; it is called by several goroutines, one at a time.
func one(n int, seed uint64) func(announce.Message) bool {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(announce.Message) bool { return r.IntN(n) == 0 }
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
