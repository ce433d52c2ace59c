package service

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/igmpd/internal/config"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
)

// twoWays is a router with one more port toward the root.
func twoWays(t *testing.T) *router {
	return startRouter(t, t.TempDir(), func(o *Options) {
		o.Config.Interfaces = append(o.Config.Interfaces, config.Interface{Name: "aside"})
		n := o.Network.(*fakeNetwork)
		n.ports = append(n.ports, PortState{
			Name: "aside", Index: 4, Up: true, Address: netip.MustParseAddr("10.5.0.2"), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/24")}, MTU: 1500,
		})
	})
}

// sentBy are the joins and the queries that left by a port since the last call.
func (r *router) sentBy(port string) (joins []join.Signed, queries int) {
	r.t.Helper()
	for _, s := range r.net.take() {
		if s.port != port {
			continue
		}
		switch m := s.msg.(type) {
		case igmp.Query:
			queries++
		case igmp.Report:
			j, err := join.FromReport(m)
			if err != nil {
				r.t.Fatal(err)
			}
			joins = append(joins, j...)
		}
	}
	return joins, queries
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// The router that is now the next one toward the root hears at once what this one has admitted, as it was signed.
func TestAnotherWayToTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoWays(t)
		defer r.stop()
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		time.Sleep(time.Nanosecond)
		newest := signedJoin(t, server, 1, evenUsers)
		r.receiveMessage(server, join.Report(newest))
		wait(time.Second)
		r.net.take()
		r.net.reroute("aside")
		wait(relayDelay)
		joins, _ := r.sentBy("aside")
		if len(joins) != 1 || joins[0].Random != newest.Random || string(joins[0].Signature) != string(newest.Signature) {
			t.Fatalf("passed on: %+v, want the newest join alone, unchanged", joins)
		}
		if in := r.fwd.Last().Private[private].In; len(in) != 1 || in[0] != "aside" {
			t.Errorf("packets are taken from %v", in)
		}
		// News of routes that change nothing are no reason.
		r.net.reroute("aside")
		wait(2 * refillGap)
		if joins, _ := r.sentBy("aside"); len(joins) != 0 {
			t.Errorf("passed on again: %+v", joins)
		}
	})
}

// Joins that the next router would find too old are asked for anew.
func TestAnotherWayWhenJoinsAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoWays(t)
		defer r.stop()
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		wait(r.service.Config.Admission.Skew + time.Second)
		r.net.take()
		r.net.reroute("aside")
		wait(relayDelay)
		r.net.mu.Lock()
		out := r.net.out
		r.net.mu.Unlock()
		if joins, _ := r.sentBy("aside"); len(joins) != 0 {
			t.Errorf("passed on: %+v", joins)
		}
		r.net.out = out
		if _, queries := r.sentBy("lan"); queries != 1 {
			t.Errorf("%d queries to the members, want one", queries)
		}
	})
}

// A way that comes and goes all the time costs one refill a second.
func TestFlappingWayToTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := twoWays(t)
		defer r.stop()
		r.receiveMessage(server, join.Report(signedJoin(t, server, 1, evenUsers)))
		wait(relayDelay)
		r.net.take()
		for range 20 {
			r.net.reroute("aside")
			wait(50 * time.Millisecond)
			r.net.reroute("up")
			wait(50 * time.Millisecond)
		}
		r.net.reroute("aside")
		wait(refillGap)
		joins, _ := r.sentBy("aside")
		if len(joins) < 2 || len(joins) > 4 {
			t.Errorf("%d refills in 3 s, want 2 to 4", len(joins))
		}
	})
}
