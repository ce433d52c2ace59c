package leader_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

func TestBusAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		before := c.shares("s1", "s2", "s3")
		c.away(true)
		c.wait(30 * time.Second)
		c.shares("s1", "s2", "s3")

		// An agent that restarts meanwhile serves at once what it served.
		c.agents["s2"].stop()
		c.server("s2", 1, true)
		c.wait(2 * time.Second)
		if after := c.shares("s1", "s2", "s3"); after["s2"] != before["s2"] {
			t.Errorf("s2 had %d users and has %d", before["s2"], after["s2"])
		}

		c.away(false)
		c.wait(10 * time.Second)
		c.wantMoves("first allocation")
		c.server("s4", 1, true)
		c.wait(3 * time.Second)
		c.shares("s1", "s2", "s3", "s4")
		c.wantMoves("first allocation", "s4 joined")
		c.end(stop)
	})
}

// TestServerLostWhileTheBusIsAway is found out when the bus is back.
func TestServerLostWhileTheBusIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.away(true)
		c.wait(5 * time.Second)
		c.agents["s1"].stop()
		c.away(false)
		c.wait(6 * time.Second)
		c.shares("s2", "s3")
		c.wantMoves("first allocation", "s1 is dead")
		c.end(stop)
	})
}

func (c *cluster) away(away bool) {
	b := c.buckets
	for _, bucket := range []store.Bucket{b.Services, b.Servers, b.Operator, b.Allocations, b.Leases, b.Moves, b.Keys} {
		bucket.(*store.Memory).SetAway(away)
	}
	c.channel.Lose(func(announce.Message) bool { return away })
}
