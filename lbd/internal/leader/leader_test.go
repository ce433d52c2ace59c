package leader_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	allocv1 "github.com/manycast/manycast/proto/alloc/v1"

	"github.com/manycast/manycast/lbd/internal/announce"
	"github.com/manycast/manycast/lbd/internal/store"
)

func TestServersThatStartTogetherAreOneMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		for name, n := range c.shares("s1", "s2", "s3") {
			if n < 85 || n > 86 {
				t.Errorf("%s has %d of 256 users", name, n)
			}
		}
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

func TestWeightsMoveOnlyWhatMustMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.apply("policy: weighted")
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.connect()
		put(t, c.buckets.Operator, "web.s1", &allocv1.Operator{Weight: proto.Uint32(2)})
		c.wait(time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s1"] != 128 || got["s2"] != 64 {
			t.Errorf("shares %v, want 128, 64, 64", got)
		}
		m := c.wantMoves("first allocation", "shares changed")[1]
		if want := float64(m.ConnectionsAffected) / 256; m.FractionMoved != want {
			t.Errorf("moved %v of the space and %d of 256 connections", m.FractionMoved, m.ConnectionsAffected)
		}
		if m.Ms >= 100 {
			t.Errorf("the move took %v ms: on one link nobody has to wait for routers, for settle (100 ms)", m.Ms)
		}
		c.end(stop)
	})
}

func TestDrainedServerKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.connect()
		put(t, c.buckets.Operator, "web.s2", &allocv1.Operator{Drained: true})
		c.wait(time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s2"] != 0 {
			t.Errorf("drained s2 has %d users", got["s2"])
		}
		if n := len(c.agents["s2"].conns.users); n != 0 {
			t.Errorf("%d connections are left at s2", n)
		}
		if m := c.agents["s2"].joiner.current(); len(m) != 1 || !m[0].Owner.Empty() {
			t.Errorf("drained s2 joins %+v, want to be a member without users", m)
		}
		put(t, c.buckets.Operator, "web.s2", &allocv1.Operator{})
		c.wait(time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s2"] < 85 {
			t.Errorf("undrained s2 has %d users", got["s2"])
		}
		c.wantMoves("first allocation", "s2 is drained", "s2 joined")
		c.end(stop)
	})
}

func TestDeadServerIsReplacedWithin3s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.connect()
		c.agents["s3"].stop() // keeps everything, as after kill -9
		c.wait(2 * time.Second)
		c.wantMoves("first allocation")
		c.wait(time.Second)
		c.shares("s1", "s2")
		m := c.wantMoves("first allocation", "s3 is dead")[1]
		if m.ConnectionsAffected != 0 {
			t.Errorf("%d connections of living servers were closed", m.ConnectionsAffected)
		}

		c.server("s3", 1, true) // comes back with its old allocation on disk, which is not its any more
		c.wait(500 * time.Millisecond)
		c.shares("s1", "s2", "s3")
		c.wait(3 * time.Second)
		c.shares("s1", "s2", "s3")
		c.wantMoves("first allocation", "s3 is dead", "s3 joined")
		c.end(stop)
	})
}

func TestUnhealthyServerLeavesThePool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1)
		c.wait(3 * time.Second)
		c.agents["s2"].health(false, errors.New("connection refused"))
		c.wait(time.Second)
		if got := c.shares("s1", "s2"); got["s1"] != 256 {
			t.Errorf("shares %v", got)
		}
		c.agents["s2"].health(true, nil)
		c.wait(3 * time.Second)
		if got := c.shares("s1", "s2"); got["s2"] != 128 {
			t.Errorf("shares %v", got)
		}
		c.wantMoves("first allocation", "s2 is unhealthy", "s2 joined")
		c.end(stop)
	})
}

// TestApplicationsThatStartTogetherAreOneMove: being there counts from when a server could be used.
func TestApplicationsThatStartTogetherAreOneMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.hasKey = func() bool { return time.Since(start) > 20*time.Second }
		c.servers(1, 1, 1)
		c.wait(5 * time.Second)
		for _, s := range c.agents {
			s.health(false, errors.New("connection refused"))
		}
		c.wait(5 * time.Second)
		for _, s := range c.agents {
			s.health(true, nil)
			c.wait(200 * time.Millisecond)
		}
		c.wait(5 * time.Second)
		c.wantMoves() // no key yet: joins would not be sent
		c.wait(10 * time.Second)
		c.shares("s1", "s2", "s3")
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

// start is when the clock of synctest starts.
var start = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// TestLastServerKeepsItsUsers: the last allocation is better than none.
func TestLastServerKeepsItsUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1)
		c.wait(3 * time.Second)
		put(t, c.buckets.Operator, "web.s1", &allocv1.Operator{Drained: true})
		c.wait(3 * time.Second)
		c.shares("s1")
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

// TestOldRegistrationIsNoServer: registrations outlive their agents by an hour on the bus.
func TestOldRegistrationIsNoServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		put(t, c.buckets.Servers, "web.s9", &allocv1.Registration{Service: "web", Name: "s9", Healthy: true, Weight: 1})
		stop := c.director("d1")
		c.servers(1)
		c.wait(3 * time.Second)
		c.shares("s1")
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

// TestRefusedByTheDataPlane: what the kernel refuses is tried again.
func TestRefusedByTheDataPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		s1 := c.server("s1", 1, true)
		s1.plane.Fail(errors.New("no such device"))
		c.wait(3 * time.Second)
		if s1.plane.Current() != nil {
			t.Error("set although it fails")
		}
		s1.plane.Fail(nil)
		c.wait(2 * time.Second)
		c.shares("s1")
		c.end(stop)
	})
}

func TestCleanStopHandsOverFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.server("s1", 1, true)
		s2 := c.server("s2", 1, false)
		c.wait(3 * time.Second)
		began := time.Now()
		s2.stop()
		synctest.Wait()
		c.shares("s1")
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("stopped after %v", took)
		}
		if closed, kept := s2.plane.Closed(); !closed || kept {
			t.Errorf("data plane closed %v, kept %v", closed, kept)
		}
		c.wantMoves("first allocation", "s2 left")
		c.end(stop)
	})
}

func TestAgentThatDoesNotPrepareIsTreatedAsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1, 1)
		c.wait(3 * time.Second)
		c.channel.Lose(func(m announce.Message) bool {
			p, ok := m.(announce.Prepared)
			return ok && p.Server == "s2"
		})
		put(t, c.buckets.Operator, "web.s3", &allocv1.Operator{Drained: true})
		c.wait(2 * time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s1"] != 256 {
			t.Errorf("shares %v: s1 alone can serve", got)
		}
		moves := c.moves()
		if r := moves[len(moves)-1].Reason; !strings.Contains(r, "s2 did not prepare") || !strings.Contains(r, "s3 is drained") {
			t.Errorf("last move for: %s", r)
		}
		c.channel.Lose(nil)
		c.wait(15 * time.Second)
		if got := c.shares("s1", "s2", "s3"); got["s2"] != 128 {
			t.Errorf("shares %v: s2 answers again", got)
		}
		c.end(stop)
	})
}

// stalling is an Announcer whose user is not run for a while after each announcement.
type stalling struct {
	announce.Announcer
	stall time.Duration
}

func (s stalling) Send(m announce.Message) error {
	err := s.Announcer.Send(m)
	if _, is := m.(announce.Announce); is {
		time.Sleep(s.stall)
	}
	return err
}

// TestLateLeaderDoesNotCountItAgainstServers: they have prepared long before the leader comes to read it.
func TestLateLeaderDoesNotCountItAgainstServers(t *testing.T) {
	for range 20 { // what a select takes first is by chance
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			c.stall = 700 * time.Millisecond
			stop := c.director("d1")
			c.servers(1, 1, 1)
			c.wait(10 * time.Second)
			c.shares("s1", "s2", "s3")
			c.wantMoves("first allocation")
			c.end(stop)
		})
	}
}

// TestLostAnnouncementIsRepeated: one message on the way to nobody makes no server dead.
func TestLostAnnouncementIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1)
		c.wait(3 * time.Second)
		lost := false
		c.channel.Lose(func(m announce.Message) bool {
			_, is := m.(announce.Announce)
			is, lost = is && !lost, lost || is
			return is
		})
		c.server("s3", 1, true)
		c.wait(3 * time.Second)
		c.shares("s1", "s2", "s3")
		c.wantMoves("first allocation", "s3 joined")
		if !lost {
			t.Error("no announcement was lost")
		}
		c.end(stop)
	})
}

func TestLeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop1 := c.director("d1")
		c.wait(time.Second)
		stop2 := c.director("d2")
		c.servers(1, 1)
		c.wait(3 * time.Second)
		term := c.wantMoves("first allocation")[0].Epoch.Term

		stop1()
		c.wait(time.Second)
		c.wantMoves("first allocation") // a new leader alone moves nothing
		c.server("s3", 1, true)
		c.wait(3 * time.Second)
		c.shares("s1", "s2", "s3")
		m := c.wantMoves("first allocation", "s3 joined")[1]
		if m.Epoch.Term <= term || m.Epoch.Number != 2 {
			t.Errorf("epoch %d.%d after term %d", m.Epoch.Term, m.Epoch.Number, term)
		}
		c.end(stop2)
	})
}

// TestNewLeaderTakesBackWhatWasPrepared: the old leader died between prepare and commit.
func TestNewLeaderTakesBackWhatWasPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.servers(1, 1)
		c.wait(3 * time.Second)
		stop()
		e, err := c.buckets.Allocations.Get(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.DecodeState(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		s.Prepared = s.Committed
		s.Prepared.Epoch.Number++
		data, err := store.EncodeState("web", s)
		if err == nil {
			_, err = c.buckets.Allocations.Put(t.Context(), "web", data)
		}
		if err != nil {
			t.Fatal(err)
		}
		stop = c.director("d2")
		c.wait(5 * time.Second)
		if e, err = c.buckets.Allocations.Get(t.Context(), "web"); err != nil {
			t.Fatal(err)
		}
		after, err := store.DecodeState(e.Value)
		if err != nil || !after.Prepared.Zero() || after.Committed.Epoch != s.Committed.Epoch {
			t.Errorf("prepared %v, committed %v, %v", after.Prepared.Epoch, after.Committed.Epoch, err)
		}
		c.end(stop)
	})
}

// TestLostCommitIsFoundInTheBucket: the bus only persists, but that it does.
func TestLostCommitIsFoundInTheBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stop := c.director("d1")
		c.channel.Lose(func(m announce.Message) bool { _, ok := m.(announce.Commit); return ok })
		c.servers(1, 1)
		c.wait(3 * time.Second)
		c.shares("s1", "s2")
		c.wantMoves("first allocation")
		c.end(stop)
	})
}

// TestEpochsDoNotGoBack: agents and routers would refuse a lower epoch, whatever happened to the bucket.
func TestEpochsDoNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, lose := range map[string]func(b store.Bucket) error{
			"damaged": func(b store.Bucket) error { _, err := b.Put(t.Context(), "web", []byte{0xff}); return err },
			"deleted": func(b store.Bucket) error { return b.Delete(t.Context(), "web") },
		} {
			c := newCluster(t)
			stop := c.director("d1")
			c.servers(1, 1)
			c.wait(3 * time.Second)
			for _, server := range []string{"s3", "s4", "s5"} {
				c.server(server, 1, true)
				c.wait(3 * time.Second)
			}
			if err := lose(c.buckets.Allocations); err != nil {
				t.Fatal(err)
			}
			c.server("s6", 1, true)
			c.wait(5 * time.Second)
			t.Log(name)
			c.shares("s1", "s2", "s3", "s4", "s5", "s6")
			c.end(stop)
		}
	})
}
