package mover

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/lbd/internal/apps"
	"github.com/manycast/manycast/lbd/internal/handover"
)

const users = 500

func TestConnectionsOfMovedUsersGoToTheirNewServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.wait(100 * time.Millisecond)
		b.connect("s1", 0, users)
		b.commit("s1", "s2")
		b.wait(1900 * time.Millisecond)
		for i := range users {
			gave, took := b.servers["s1"].history(i), b.servers["s2"].history(i)
			wantGave, wantTook := ": ", ""
			if i%2 == 1 {
				wantGave = "exported gone: frozen ended"
				wantTook = fmt.Sprintf("imported live: restored fd %d thawed", i)
			}
			if gave != wantGave || took != wantTook {
				t.Fatalf("connection %d at s1: %q, want %q; at s2: %q, want %q", i, gave, wantGave, took, wantTook)
			}
			if i%2 == 1 && string(b.servers["s2"].apps.Conn(appFlow(i)).State) != fmt.Sprintf("session %d", i) {
				t.Fatalf("connection %d has another's session", i)
			}
			for name, s := range b.servers {
				if g := s.plane.Gate(planeFlow(i)); g.Held || g.Armed || g.Pass.IsValid() {
					t.Fatalf("the gate of connection %d at %s is shut: %+v", i, name, g)
				}
			}
		}
		if g, tk := b.servers["s1"].Counters(), b.servers["s2"].Counters(); g.Given != users/2 || tk.Taken != users/2 || g.Bytes == 0 {
			t.Errorf("s1 counts %+v, s2 %+v", g, tk)
		}
	})
}

// TestWhatDoesNotMoveStays: an application that declines, one that does not answer, and a kernel that refuses.
func TestWhatDoesNotMoveStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.connect("s1", 0, 6)
		s1, s2 := b.servers["s1"], b.servers["s2"]
		s1.apps.Conn(appFlow(1)).Fail = &apps.StaysError{Reason: "in the midst of an answer"}
		s1.apps.Conn(appFlow(3)).Wait = true
		b.wait(100 * time.Millisecond)
		b.commit("s1", "s2")
		b.wait(3 * time.Second)
		for i, want := range map[int]string{1: ": ", 3: ": ", 5: "exported gone: frozen ended"} {
			if got := s1.history(i); got != want {
				t.Errorf("connection %d at s1: %q, want %q", i, got, want)
			}
		}
		s1.hands.mu.Lock()
		if n := len(s1.hands.held); n != 0 {
			t.Errorf("%d transfers are remembered that are over", n)
		}
		s1.hands.mu.Unlock()
		if stayed := s1.Counters().Stayed; stayed[handover.Application] != 1 || stayed[handover.Late] != 1 {
			t.Errorf("stayed: %v, want one for the application and one that was late", stayed)
		}
		s2.sockets.fail = errors.New("no memory")
		b.connect("s1", 6, 10)
		b.commit("s2", "s1") // connection 5 goes back, and 6 and 8 go to s2, which cannot
		b.wait(3 * time.Second)
		for _, i := range []int{6, 8} {
			if got := s1.history(i); got != "exported back: frozen thawed" {
				t.Errorf("connection %d, which s2 could not restore: %q", i, got)
			}
		}
		if got := s2.Counters().NotTaken[handover.Kernel]; got != 5 { // 0, 2, 4 too
			t.Errorf("s2 has not taken %d, want 5", got)
		}
	})
}

// TestServerThatDiesWhileItTakes leaves nobody with half a connection: what it was sent is lost with it, the rest stays.
func TestServerThatDiesWhileItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.connect("s1", 0, users)
		b.wait(100 * time.Millisecond)
		b.commit("s2", "s2")
		time.Sleep(time.Microsecond)
		for _, w := range b.wires.all {
			_ = w.Close()
		}
		b.servers["s2"].stop()
		delete(b.servers, "s2")
		b.wires.mu.Lock()
		delete(b.wires.serving, linkOf("s2"))
		b.wires.mu.Unlock()
		b.wait(10 * time.Second)
		c := b.servers["s1"].Counters()
		var stayed, lost uint64
		for _, n := range c.Stayed {
			stayed += n
		}
		for _, n := range c.Lost {
			lost += n
		}
		if c.Given+stayed+lost > users {
			t.Errorf("given %d, stayed %d, lost %d: more than there were", c.Given, stayed, lost)
		}
		for i := range users {
			switch got := b.servers["s1"].history(i); got {
			case ": ", "exported back: dropped", "exported back: frozen thawed", "exported gone: frozen ended":
			default:
				t.Fatalf("connection %d: %q", i, got)
			}
		}
	})
}

// TestOffersOfOthersUsersAreRefused: a server that turns cannot plant connections.
func TestOffersOfOthersUsersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s2")
		b.wait(100 * time.Millisecond)
		link, _, err := fakeNetwork{b.wires, "s3", bootOf("s3")}.Dial(t.Context(), linkOf("s2"), "s2")
		if err != nil {
			t.Fatal(err)
		}
		id := handover.ID{Giver: "s3", Boot: bootOf("s3")}
		for _, test := range []struct {
			service string
			epoch   uint64
			flow    handover.Flow
			want    handover.Reason
		}{
			{"web", 1, flowOf(2), handover.Foreign}, // s1's user
			{"mail", 1, flowOf(1), handover.Foreign},
			{"web", 2, flowOf(1), handover.Stale},
			{"web", 1, handover.Flow{Local: userOf(9), Remote: userOf(1)}, handover.Foreign},
		} {
			id.Number++
			e := b.last.Epoch
			e.Number = test.epoch
			if err := link.Send(handover.Offer{Transfer: handover.Transfer{ID: id, Flow: test.flow}, Service: test.service, Epoch: e}); err != nil {
				t.Fatal(err)
			}
			m, err := link.Receive()
			refused, is := m.(handover.Refused)
			if err != nil || !is || refused.ID != id || refused.Why.Reason != test.want {
				t.Errorf("%+v: answered %+v, %v", test, m, err)
			}
		}
	})
}

// TestNothingIsHeldAtTheEnd: an agent that stops in the midst of a batch leaves no application with half a connection.
func TestNothingIsHeldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s1")
		b.connect("s1", 0, users)
		for i := range users {
			b.servers["s1"].apps.Conn(appFlow(i)).Wait = i%3 == 0
		}
		b.wait(100 * time.Millisecond)
		b.commit("s2", "s2")
		time.Sleep(30 * time.Millisecond)
		b.servers["s1"].stop()
		b.servers["s2"].stop()
		for i := range users {
			if got := b.servers["s1"].history(i); got != ": " && got != "exported back: dropped" && got != "exported back: frozen thawed" && got != "exported gone: frozen ended" {
				t.Fatalf("connection %d at s1: %q", i, got)
			}
			if c := b.servers["s2"].apps.Conn(appFlow(i)); c != nil && len(c.History()) < 2 {
				t.Fatalf("connection %d at s2: %q", i, c.History())
			}
		}
	})
}

// TestReadyIsSaidWhenPacketsAreHeld: what the giver sends on from then on must not find an open gate.
func TestReadyIsSaidWhenPacketsAreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.end()
		b.commit("s1", "s2")
		b.wait(100 * time.Millisecond)
		link, _, err := fakeNetwork{b.wires, "s3", bootOf("s3")}.Dial(t.Context(), linkOf("s2"), "s2")
		if err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 200; i += 2 {
			o := handover.Offer{Transfer: handover.Transfer{ID: handover.ID{Giver: "s3", Boot: bootOf("s3"), Number: uint64(i)}, Flow: flowOf(i)}, Service: "web", Epoch: b.last.Epoch}
			if err := link.Send(o); err != nil {
				t.Fatal(err)
			}
			m, err := link.Receive()
			if ready, is := m.(handover.Ready); err != nil || !is || ready.ID != o.ID || !b.servers["s2"].plane.Gate(planeFlow(i)).Armed {
				t.Fatalf("answered %+v, %v, and the gate is %+v", m, err, b.servers["s2"].plane.Gate(planeFlow(i)))
			}
		}
	})
}
