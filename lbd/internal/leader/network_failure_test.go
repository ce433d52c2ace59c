package leader_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/store"
)

// inNetworks runs a test on the channel without frames, and on the real one.
func inNetworks(t *testing.T, test func(n *network, d1, d2 store.Buckets)) {
	t.Run("hub", func(t *testing.T) { inNetwork(t, hub, test) })
	t.Run("channel", func(t *testing.T) { inNetwork(t, func(t *testing.T) medium { return newLAN(t) }, test) })
}

func hub(*testing.T) medium { return hubMedium{control.NewHub(netHeartbeat, netSilence)} }

// inNetwork runs a test with four servers and two directors that have settled.
func inNetwork(t *testing.T, on func(*testing.T) medium, test func(n *network, d1, d2 store.Buckets)) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, on(t), "policy: equal")
		d1 := n.director("d1")
		time.Sleep(100 * time.Millisecond) // d1 leads
		d2 := n.director("d2")
		for _, name := range []string{"s1", "s2", "s3", "s4"} {
			n.server(name, false)
		}
		n.wait(5 * time.Second)
		n.wantServed("at the start", "s1", "s2", "s3", "s4")
		n.forget()
		test(n, d1, d2)
		n.end()
	})
}

// within checks how long users were without a server, or had two.
func (n *network) within(what string, nobody, twice time.Duration) {
	n.t.Helper()
	n.t.Logf("%s: users without a server for %v, with two for %v", what, n.nobody, n.twice)
	if n.nobody > nobody {
		n.t.Errorf("%s: a user was served by nobody for %v, want at most %v", what, n.nobody, nobody)
	}
	if n.twice > twice {
		n.t.Errorf("%s: a user was served by two for %v, want at most %v", what, n.twice, twice)
	}
	n.forget()
}

// detection is how long a death may go unnoticed: the silence, and the step of the hub's clock.
const detection = netSilence + netHeartbeat

func TestStandbysServeWithoutLeaderAndBus(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, d1, d2 store.Buckets) {
		for _, b := range []store.Buckets{d1, d2, n.servers["s1"].bus, n.servers["s2"].bus, n.servers["s3"].bus, n.servers["s4"].bus} {
			away(b, true)
		}
		n.wait(5 * time.Second)
		n.within("the bus is away", 0, 0)
		before := len(n.history())
		n.kill("s1")
		n.wait(2 * time.Second)
		n.wantServed("s1 is dead", "s2", "s3", "s4")
		n.within("s1 is dead", detection, 0)
		n.wait(20 * time.Second)
		n.within("standbys serve", 0, 0)
		for _, b := range []store.Buckets{d1, d2, n.servers["s2"].bus, n.servers["s3"].bus, n.servers["s4"].bus} {
			away(b, false)
		}
		n.wait(20 * time.Second)
		n.wantServed("tidied up", "s2", "s3", "s4")
		n.within("tidied up", 0, 10*time.Millisecond)
		if moves := n.history(); len(moves) != before+1 || moves[before] != "s1 is dead" {
			t.Errorf("moves %q, want one more than %d", moves, before)
		}
	})
}

func TestServerThatDiesIsReplacedBySilence(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.kill("s3")
		n.wait(5 * time.Second)
		n.wantServed("s3 is dead", "s1", "s2", "s4")
		n.within("s3 is dead", detection, 10*time.Millisecond)
		n.server("s3", false)
		n.wait(5 * time.Second)
		n.wantServed("s3 is back", "s1", "s2", "s3", "s4")
		n.within("s3 is back", netSettle, 10*time.Millisecond)
	})
}

func TestDeadApplicationYieldsWithoutSilence(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.servers["s2"].health(false, errors.New("connection refused"))
		n.wait(3 * time.Second)
		n.wantServed("the application is dead", "s1", "s3", "s4")
		n.within("the application is dead", 20*time.Millisecond, 10*time.Millisecond)
		n.servers["s2"].health(true, nil)
		n.wait(5 * time.Second)
		n.wantServed("the application is back", "s1", "s2", "s3", "s4")
		n.within("the application is back", netSettle, 10*time.Millisecond)
	})
}

// TestHeartbeatsCannotLeave: the data plane ceases before others take over, and the server stays out when it can send again.
func TestHeartbeatsCannotLeave(t *testing.T) {
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.servers["s1"].member.Mute(true)
		n.wait(time.Second)
		n.wantServed("s1 cannot send", "s2", "s3", "s4")
		n.within("s1 cannot send", 2*netHeartbeat+netSettle, 0)
		n.servers["s1"].member.Mute(false)
		n.wait(4 * time.Second)
		n.wantServed("s1 is fenced", "s2", "s3", "s4")
		n.wait(5 * time.Second)
		n.wantServed("s1 is back", "s1", "s2", "s3", "s4")
		n.within("s1 is back", netSettle, 10*time.Millisecond)
	})
}

// TestOneWayLoss: nobody hears s1, which hears all: it learns from its standby that it is replaced.
func TestOneWayLoss(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.isolate("s1", true, false)
		n.wait(5 * time.Second)
		n.wantServed("s1 is not heard", "s2", "s3", "s4")
		n.within("s1 is not heard", 20*time.Millisecond, netSilence/4+2*netHeartbeat)
	})
}

// TestCutOffServer hears nobody and is heard by nobody, but has the bus and gets users' packets: the leader's epoch ends it.
func TestCutOffServer(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.isolate("s1", true, true)
		n.wait(5 * time.Second)
		n.wantServed("s1 is cut off", "s2", "s3", "s4")
		n.within("s1 is cut off", 20*time.Millisecond, netSilence+2*netHeartbeat)
	})
}

// TestNeighboursThatDoNotHearEachOther, while all others hear both: the leader decides.
func TestNeighboursThatDoNotHearEachOther(t *testing.T) {
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.hub.Cut("s1", "s2", true)
		n.hub.Cut("s2", "s1", true)
		n.wait(3 * time.Second)
		n.within("s1 and s2 do not hear each other", netSettle, netSilence/4+netHeartbeat+600*time.Millisecond)
	})
}

// TestDeafServerGoesOn until the leader has given its users to others, for it says that it hears nobody.
func TestDeafServerGoesOn(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		before := len(n.history())
		n.isolate("s1", false, true)
		n.wait(10 * time.Second)
		n.wantServed("s1 hears nobody", "s2", "s3", "s4")
		n.within("s1 hears nobody", 0, 2*netHeartbeat)
		if moves := n.history(); len(moves) != before+1 || moves[before] != "s1 is unhealthy" {
			t.Errorf("moves %q", moves[before:])
		}
	})
}

// TestPlannedRestart takes nothing from anybody.
func TestPlannedRestart(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		before := len(n.history())
		n.servers["s1"].stop()
		n.wait(2 * time.Second)
		n.server("s1", false)
		n.wait(5 * time.Second)
		n.wantServed("after the restart", "s1", "s2", "s3", "s4")
		n.within("planned restart", 0, 0)
		if moves := n.history(); len(moves) != before {
			t.Errorf("moves %q", moves[before:])
		}
	})
}

// TestCleanStop: others have the users of a server as soon as it says that it stops, and it has not any more.
func TestCleanStop(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, d1, d2 store.Buckets) {
		stop := func(name string) {
			s := n.servers[name]
			s.stop()
			s.leaves = true
			n.server(name, false)
			n.wait(5 * time.Second)
			n.forget()
			go s.stop()
		}
		stop("s1")
		n.wait(20 * time.Millisecond)
		n.wantServed("s1 has been told to stop", "s2", "s3", "s4")
		n.wait(5 * time.Second)
		n.within("s1 stops", 20*time.Millisecond, 0)

		for _, b := range []store.Buckets{d1, d2, n.servers["s2"].bus, n.servers["s3"].bus, n.servers["s4"].bus} {
			away(b, true)
		}
		stop("s3")
		n.wait(900 * time.Millisecond)
		n.wantServed("s3 waits for others to take over", "s2", "s3", "s4")
		n.wait(200 * time.Millisecond)
		n.wantServed("nobody has, and it leaves", "s2", "s4")
		n.wait(5 * time.Second)
		n.within("s3 stops", 20*time.Millisecond, 0)
	})
}

// TestServersAloneAllocate: no director, the leader runs beside an agent; when its server dies another one leads.
func TestServersAloneAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t, hub(t), "policy: equal")
		for _, name := range []string{"s1", "s2", "s3"} {
			n.server(name, true)
		}
		n.wait(6 * time.Second)
		n.wantServed("at the start", "s1", "s2", "s3")
		n.forget()
		n.kill("s1")
		n.wait(6 * time.Second)
		n.wantServed("s1 is dead", "s2", "s3")
		n.within("s1 is dead", detection, 10*time.Millisecond)
		n.end()
	})
}

// TestStandbyKnowsTheDeadOverItsRestart: nobody would serve their users else, while there is neither leader nor bus.
func TestStandbyKnowsTheDeadOverItsRestart(t *testing.T) {
	t.Parallel()
	inNetwork(t, func(t *testing.T) medium { return newLAN(t) }, func(n *network, d1, d2 store.Buckets) {
		for _, b := range []store.Buckets{d1, d2, n.servers["s1"].bus, n.servers["s2"].bus, n.servers["s3"].bus, n.servers["s4"].bus} {
			away(b, true)
		}
		n.kill("s1")
		n.wait(2 * time.Second)
		n.wantServed("s1 is dead", "s2", "s3", "s4")
		n.servers["s2"].stop()
		n.wait(500 * time.Millisecond)
		n.server("s2", false)
		n.wait(5 * time.Second)
		n.wantServed("s2 has restarted", "s2", "s3", "s4")
		n.within("s2 has restarted", 2500*time.Millisecond, 0) // those who live have time to be heard

		n.kill("s2")
		n.server("s1", false)
		n.wait(2 * time.Second)
		n.forget()
		n.server("s2", false)
		n.wait(5 * time.Second)
		n.wantServed("s1 has come back meanwhile", "s1", "s2", "s3", "s4")
		n.within("s1 has come back meanwhile", netSettle, 0)
	})
}

// TestOwnerComesBackWhileItsStandbyRestarts: the standby's next agent hears of it when the owner has served for long.
func TestOwnerComesBackWhileItsStandbyRestarts(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, d1, d2 store.Buckets) {
		for _, b := range []store.Buckets{d1, d2, n.servers["s1"].bus, n.servers["s2"].bus, n.servers["s3"].bus, n.servers["s4"].bus} {
			away(b, true)
		}
		n.kill("s1")
		n.wait(2 * time.Second)
		n.wantServed("s1 is dead", "s2", "s3", "s4")
		n.forget()
		const restart, boot = 2 * time.Second, 100 * time.Millisecond
		n.servers["s2"].stop()
		n.wait(boot)
		n.server("s1", false)
		n.wait(restart - boot)
		n.server("s2", false)
		n.wait(5 * time.Second)
		n.wantServed("both are back", "s1", "s2", "s3", "s4")
		const forBus = time.Second // that long a start waits for it
		n.within("s1 has come back while s2 restarts", boot+forBus+netSettle, 0)
	})
}

// TestLateLoserIsWaitedFor: a server that has prepared, and to which the commit comes late by both ways, has its users until then, and nobody else on its
// link takes them.
func TestLateLoserIsWaitedFor(t *testing.T) {
	t.Parallel()
	inNetwork(t, hub, func(n *network, d1, d2 store.Buckets) {
		to := func(server string) {
			n.apply("policy: equal\nprefixes: [{prefix: 10.0.0.0/8, servers: [" + server + "]}]")
		}
		for _, late := range []time.Duration{netSettle, 3 * netSettle, time.Second} {
			to("s1")
			n.wait(3 * time.Second)
			n.wantServed("before", "s1")
			n.forget()
			n.hub.(hubMedium).Lose(func(_, to string, k control.Kind) bool { return k == control.KindCommit && to == "s1" })
			away(n.servers["s1"].bus, true)
			to("s2")
			n.wait(late)
			away(n.servers["s1"].bus, false)
			n.hub.(hubMedium).Lose(nil)
			n.wait(3 * time.Second)
			n.within(late.String(), 10*time.Millisecond, 0)
		}
		n.wantServed("in the end", "s2")
	})
}

// TestLoserThatRestartsIsWaitedFor: one that has prepared and restarts before it executes the commit leaves a program behind that takes its users for as
// long as it has said; the next one comes to know of the commit from the bus.
func TestLoserThatRestartsIsWaitedFor(t *testing.T) {
	t.Parallel()
	inNetwork(t, hub, func(n *network, _, _ store.Buckets) {
		to := func(server string) {
			n.apply("policy: equal\nprefixes: [{prefix: 10.0.0.0/8, servers: [" + server + "]}]")
		}
		for _, restart := range []time.Duration{time.Second, 4500 * time.Millisecond, time.Minute} {
			to("s1")
			n.wait(3 * time.Second)
			n.wantServed("before", "s1")
			n.forget()
			n.hub.(hubMedium).Lose(func(_, to string, k control.Kind) bool { return k == control.KindCommit && to == "s1" })
			away(n.servers["s1"].bus, true)
			to("s2")
			n.wait(netSettle / 2)
			n.servers["s1"].stop()
			away(n.servers["s1"].bus, false)
			n.hub.(hubMedium).Lose(nil)
			n.wait(restart)
			n.server("s1", false)
			n.wait(5 * time.Second)
			n.wantServed("after", "s2")
			n.within(restart.String(), detection, 0)
		}
	})
}

// TestPlannedRestartBesideTheUnwell: what a server hears before it knows its own allocation again takes nothing from its users.
func TestPlannedRestartBesideTheUnwell(t *testing.T) {
	t.Parallel()
	inNetworks(t, func(n *network, _, _ store.Buckets) {
		n.servers["s3"].health(false, errors.New("connection refused"))
		n.wait(5 * time.Second)
		n.wantServed("s3 is unwell", "s1", "s2", "s4")
		n.forget()
		away(n.servers["s1"].bus, true)
		n.servers["s1"].stop()
		n.wait(500 * time.Millisecond)
		n.server("s1", false)
		n.wait(3 * time.Second)
		n.within("restart", 0, 0)
	})
}
