package leader_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestartOfAnAgentMovesNobody: an agent that is back within dead_after, though its keys and its first probe take their
// time, keeps its users and their connections.
func TestRestartOfAnAgentMovesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		before := c.shares("s1", "s2", "s3")
		c.connect()
		users := len(c.agents["s2"].conns.users)

		c.agents["s2"].stop() // it keeps all as it is, like kill -9
		c.wait(300 * time.Millisecond)
		c.late = 500 * time.Millisecond
		c.server("s2", 1, true)
		c.wait(10 * time.Second)

		if after := c.shares("s1", "s2", "s3"); !maps.Equal(before, after) {
			t.Errorf("shares were %v and are %v", before, after)
		}
		if left := len(c.agents["s2"].conns.users); users == 0 || left != users {
			t.Errorf("s2 had %d users connected and has %d", users, left)
		}
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

// TestAgentThatIsNeverJudgedIsDead: to wait for the first verdict is not to be in the pool for ever.
func TestAgentThatIsNeverJudgedIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.agents["s2"].stop()
		c.late = time.Minute
		c.server("s2", 1, true)
		c.wait(10 * time.Second)
		c.shares("s1", "s3")
		c.wantMoves("first allocation", "s2 is dead")
		c.end(stop)
	})
}
