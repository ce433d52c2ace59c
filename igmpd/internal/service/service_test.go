package service

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/record"
)

const evenUsers, oddUsers = "0.0.0.0/0.0.0.1", "0.0.0.1/0.0.0.1"

// owner returns the interface that a user's packets for the private group leave by in the newest state.
func (r *router) owner(user string) string {
	p := r.fwd.Last().Private[private]
	if p.Plan == nil {
		return ""
	}
	return p.Owners[p.Plan.Lookup(netip.MustParseAddr(user))]
}

// relayedJoins counts the joins that went up.
func relayedJoins(t *testing.T, all []sent) (n int) {
	t.Helper()
	for _, s := range all {
		report, ok := s.msg.(igmp.Report)
		if !ok {
			continue
		}
		joins, err := join.FromReport(report)
		if err != nil {
			t.Fatal(err)
		}
		if len(joins) > 0 && (s.port != "up" || s.to != allRouters) {
			t.Fatalf("relayed to %v on %s", s.to, s.port)
		}
		n += len(joins)
	}
	return n
}

func TestJoinIsAdmittedForwardedAndRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		if q := r.net.take(); len(q) != 1 || q[0].port != "lan" || q[0].to != allSystems {
			t.Fatalf("sent at the start: %+v", q)
		}
		first := signedJoin(t, server, 1, evenUsers)
		time.Sleep(time.Nanosecond)
		r.receiveMessage(server, join.Report(first, signedJoin(t, server, 2, oddUsers)))
		time.Sleep(relayDelay)
		synctest.Wait()
		if got := relayedJoins(t, r.net.take()); got != 2 {
			t.Fatalf("%d joins relayed, want both", got)
		}
		time.Sleep(time.Second) // what the second join takes back is retired for that long
		synctest.Wait()
		if r.owner("192.0.2.3") != "lan" || r.owner("192.0.2.2") != "" {
			t.Fatalf("odd user to %q, even user to %q", r.owner("192.0.2.3"), r.owner("192.0.2.2"))
		}
		if in := r.fwd.Last().Private[private].In; len(in) != 1 || in[0] != "up" {
			t.Fatalf("packets come in by %v", in)
		}
		st := r.status()
		if st.Admitted != 2 || len(st.Joins) != 1 || st.Joins[0].Epoch != "1.2" || st.Relayed != 2 || r.keys.asked != 1 {
			t.Fatalf("status %v, keys asked for %d times", st, r.keys.asked)
		}
		time.Sleep(300 * time.Second)
		if r.owner("192.0.2.3") != "" {
			t.Fatal("a silent member stays")
		}
	})
}

func TestRelayIsBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, "10.0.0.1"))) // the key is there now
		time.Sleep(relayDelay)
		synctest.Wait()
		r.net.take()
		for i := range 5 {
			requester := netip.AddrFrom4([4]byte{10, 3, 0, byte(20 + i)})
			payload, err := igmp.Marshal(join.Report(signedJoin(t, requester, 1, fmt.Sprintf("10.0.1.%d", i))))
			if err != nil {
				t.Fatal(err)
			}
			r.net.packets <- Packet{Port: "lan", Source: requester, Destination: allRouters, TTL: 1, RouterAlert: true, Payload: payload, At: time.Now()}
		}
		time.Sleep(relayDelay)
		synctest.Wait()
		out := r.net.take()
		if relayedJoins(t, out) != 5 || len(out) != 1 {
			t.Fatalf("%d joins in %d reports, want 5 in one", relayedJoins(t, out), len(out))
		}
	})
}

// Each reason, provoked by a packet.
func TestRefusals(t *testing.T) {
	reports := func(s ...join.Signed) igmp.Message { return join.Report(s...) }
	unsigned := func(t *testing.T) igmp.Message {
		s, err := join.Unsigned(signedJoin(t, server, 1, evenUsers).Join)
		if err != nil {
			t.Fatal(err)
		}
		return reports(s)
	}
	tests := []struct {
		reason string
		send   func(t *testing.T, r *router)
	}{
		{"unsigned", func(t *testing.T, r *router) { r.receiveMessage(server, unsigned(t)) }},
		{"unsigned", func(t *testing.T, r *router) { r.receiveMessage(server, igmp.V2Report{Group: private}) }},
		{"unsigned", func(t *testing.T, r *router) { r.receiveMessage(server, igmp.Leave{Group: private}) }},
		{"unsigned", func(t *testing.T, r *router) {
			r.receiveMessage(server, igmp.Report{Records: []igmp.Record{{Type: igmp.ChangeToInclude, Group: private}}})
		}},
		{"duplicate", func(t *testing.T, r *router) {
			s := signedJoin(t, server, 3, evenUsers)
			r.receiveMessage(server, reports(s))
			r.receiveMessage(server, reports(s))
		}},
		{"not_timely", func(t *testing.T, r *router) {
			s := signedJoin(t, server, 3, evenUsers)
			time.Sleep(6 * time.Second)
			r.receiveMessage(server, reports(s))
		}},
		{"wrong_link", func(t *testing.T, r *router) { r.receiveMessage(other, reports(signedJoin(t, server, 3, evenUsers))) }},
		{"no_key", func(t *testing.T, r *router) {
			j := signedJoin(t, server, 3, evenUsers).Join
			j.KeyID++
			s, err := join.Sign(j, groupKey)
			if err != nil {
				t.Fatal(err)
			}
			r.receiveMessage(server, reports(s))
		}},
		{"bad_signature", func(t *testing.T, r *router) {
			s := signedJoin(t, server, 3, evenUsers)
			s.Raw[len(s.Raw)-1] ^= 1
			r.receiveMessage(server, reports(s))
		}},
		{"overlap", func(t *testing.T, r *router) { r.receiveMessage(other, reports(signedJoin(t, other, 2, "10.0.0.1"))) }},
		{"stale_epoch", func(t *testing.T, r *router) { r.receiveMessage(server, reports(signedJoin(t, server, 1, evenUsers))) }},
		{"rate_limited", func(t *testing.T, r *router) {
			s := unsigned(t)
			for range 2001 {
				r.receiveMessage(server, s)
			}
		}},
		{"malformed", func(t *testing.T, r *router) {
			payload, _ := igmp.Marshal(reports(signedJoin(t, server, 3, evenUsers)))
			payload[2] ^= 1 // the checksum
			r.receive(Packet{Port: "lan", Source: server, Payload: payload})
		}},
		{"malformed", func(t *testing.T, r *router) {
			payload, _ := igmp.Marshal(reports(signedJoin(t, server, 3, evenUsers)))
			r.receive(Packet{Port: "lan", Source: server, Destination: allRouters, TTL: 64, RouterAlert: true, Payload: payload})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := startRouter(t, t.TempDir(), nil)
				defer r.stop()
				r.receiveMessage(server, join.Report(signedJoin(t, server, 2, "10.0.0.1")))
				before := r.status()
				time.Sleep(time.Second)
				tt.send(t, r)
				st := r.status()
				if st.Refused[tt.reason] == before.Refused[tt.reason] {
					t.Fatalf("refused: %v, last %v", st.Refused, st.LastRefusals)
				}
				if tt.reason != "rate_limited" && st.LastRefusals[0].Reason != tt.reason {
					t.Fatalf("last refusal %v", st.LastRefusals[0])
				}
				if tt.reason != "duplicate" && r.owner("10.0.0.1") != "lan" {
					t.Fatal("the refused join changed the forwarding")
				}
			})
		})
	}
}

func TestFirstJoinWaitsForItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.keys.set(errors.New("server is away"))
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		if st := r.status(); st.Refused["no_key"] != 0 {
			t.Fatalf("refused at once: %v", st.Refused)
		}
		time.Sleep(3 * time.Second)
		if st := r.status(); st.Refused["no_key"] != 1 {
			t.Fatalf("not refused in the end: %v", st.Refused)
		}
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		r.keys.set(nil)
		time.Sleep(1500 * time.Millisecond)
		if r.owner("192.0.2.2") != "lan" {
			t.Fatalf("the server came back in time: %v", r.status().Refused)
		}
	})
}

func TestGroupWithoutRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.keys.set(record.ErrNone)
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		if st := r.status(); st.Refused["no_key"] != 1 {
			t.Fatalf("no such group: %v", st.Refused)
		}
		r.keys.set(nil)
		time.Sleep(6 * time.Second)
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		if r.owner("192.0.2.2") != "lan" {
			t.Fatal("not admitted though the key is there")
		}
	})
}

func TestRelayedByANeighbor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		far := netip.MustParseAddr("10.4.0.7")
		s := signedJoin(t, far, 1, evenUsers)
		r.receiveMessage(downRoute, join.Report(s))
		if r.owner("192.0.2.2") != "lan" {
			t.Fatalf("not admitted: %v", r.status().LastRefusals)
		}
	})
}

func TestPublicGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.net.take()
		r.receiveMessage(netip.MustParseAddr("172.16.0.1"), igmp.V2Report{Group: public})
		if len(r.fwd.Last().Public) != 0 {
			t.Fatal("a report of another subnet is taken")
		}
		r.receiveMessage(server, igmp.V2Report{Group: public})
		routes := r.fwd.Last().Public
		if len(routes) != 1 || routes[0].Group != public || strings.Join(routes[0].In, ",") != "up" || strings.Join(routes[0].Out, ",") != "lan" {
			t.Fatalf("routes %+v", routes)
		}
		out := r.net.take()
		if len(out) != 1 || out[0].port != "up" {
			t.Fatalf("sent %+v, want a report toward the root", out)
		}
		r.receiveMessage(server, igmp.Leave{Group: public})
		if out := r.net.take(); len(out) != 1 || out[0].to != public {
			t.Fatalf("sent %+v, want a query to the group", out)
		}
		time.Sleep(3 * time.Second)
		if routes := r.fwd.Last().Public; len(routes) != 0 {
			t.Fatalf("routes after the leave: %+v", routes)
		}
	})
}

func TestRestartWantsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := startRouter(t, dir, nil)
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		r.receiveMessage(other, join.Report(signedJoin(t, other, 1, oddUsers)))
		r.receiveMessage(server, igmp.V2Report{Group: public})
		time.Sleep(time.Second)
		data, err := os.ReadFile(filepath.Join(dir, "snapshot.json")) // as kill -9 would leave it
		if err != nil {
			t.Fatal(err)
		}
		before := r.fwd.Last()
		r.stop()
		if c := r.fwd.Closed(); len(c) != 1 || c[0] {
			t.Fatalf("closed %v", c)
		}

		if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		next := startRouter(t, dir, nil)
		defer next.stop()
		after := next.fwd.States()[0]
		if fmt.Sprint(after.Public) != fmt.Sprint(before.Public) || fmt.Sprint(after.Private[private].Owners) != fmt.Sprint(before.Private[private].Owners) {
			t.Fatalf("first state %+v, last of the run before %+v", after, before)
		}
		for _, user := range []string{"192.0.2.2", "192.0.2.3"} {
			a := netip.MustParseAddr(user)
			if after.Private[private].Plan.Lookup(a) != before.Private[private].Plan.Lookup(a) {
				t.Fatalf("another owner of %s", user)
			}
		}
	})
}

func TestCorruptSnapshotLeavesTheKernelAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "snapshot.json"), []byte(`{"version":1,"membership`), 0o600); err != nil {
			t.Fatal(err)
		}
		r := startRouter(t, dir, nil)
		defer r.stop()
		time.Sleep(5 * time.Second)
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		if n := len(r.fwd.States()); n != 0 {
			t.Fatalf("%d states set before the members could answer", n)
		}
		time.Sleep(10 * time.Second)
		if r.owner("192.0.2.2") != "lan" {
			t.Fatal("nothing set after the first round of answers")
		}
		if _, err := os.Stat(filepath.Join(dir, "snapshot.json.bad")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestForwardingIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRouter(t, t.TempDir(), nil)
		defer r.stop()
		r.fwd.Fail(errors.New("no buffer space"))
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		if st := r.status(); st.Forwarding.Error != "no buffer space" {
			t.Fatalf("status %v", st.Forwarding)
		}
		r.fwd.Fail(nil)
		time.Sleep(2 * time.Second)
		if r.owner("192.0.2.2") != "lan" || r.status().Forwarding.Error != "" {
			t.Fatal("not tried again")
		}
	})
}
