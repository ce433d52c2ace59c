package dataplane

import (
	"net/netip"
	"testing"

	"github.com/manycast/manycast/internal/portion"
)

func TestChainsAreChecked(t *testing.T) {
	hop := func(address string, until uint32) Hop { return Hop{addr(address), until} }
	service := AgentService{VIP: addr(testVIP), Group: addr(webGroup), Ports: []Port{tcp(80)}, Keeps: true}
	long := make([]Hop, MaxHops+1)
	for i := range long {
		long[i] = hop("10.0.0.1", uint32(100-i))
	}
	for name, tt := range map[string]struct {
		chain Chain
		ok    bool
	}{
		"none":                 {Chain{}, true},
		"latest first":         {Chain{Hops: []Hop{hop("10.0.0.1", 8), hop("10.0.0.2", 5)}, Owner: addr("10.0.0.3"), Ask: true}, true},
		"over the end":         {Chain{Hops: []Hop{hop("10.0.0.1", 1<<20+3), hop("10.0.0.2", 1<<20-3)}}, true},
		"earliest first":       {Chain{Hops: []Hop{hop("10.0.0.1", 5), hop("10.0.0.2", 8)}}, false},
		"same epoch":           {Chain{Hops: []Hop{hop("10.0.0.1", 5), hop("10.0.0.2", 5)}}, true},
		"as many as there may": {Chain{Hops: long[:MaxHops]}, true},
		"too many":             {Chain{Hops: long}, false},
		"hop by IPv6":          {Chain{Hops: []Hop{hop("2001:db8::1", 5)}}, false},
		"hop to a group":       {Chain{Hops: []Hop{hop(webGroup, 5)}}, false},
		"owner by IPv6":        {Chain{Owner: addr("2001:db8::1")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := service
			tt.chain.Users = portion.Union{odd}
			s.Chains = []Chain{tt.chain}
			if err := NewFakeAgent().Set([]AgentService{s}); (err == nil) != tt.ok {
				t.Errorf("error %v, want ok %t", err, tt.ok)
			}
		})
	}
	service.Keeps, service.Chains = false, []Chain{{Users: portion.Union{odd}}}
	wantError(t, checkAgent([]AgentService{service}), "keeps no connections")
}

func TestFlowsAreChecked(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, wrong := range []Flow{{}, {at("10.0.0.1:1"), at("[2001:db8::1]:80")}, {at("[::ffff:10.0.0.1]:1"), at("[::ffff:10.0.0.2]:80")}, {at("[fe80::1%eth0]:1"), at("[2001:db8::1]:80")}} {
		if err := NewFakeAgent().Hold([]Flow{wrong}); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}

func TestFakeRecordsGates(t *testing.T) {
	f := NewFakeAgent()
	flow := Flow{netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("192.0.2.80:80")}
	other := Flow{netip.MustParseAddrPort("10.0.0.1:1001"), flow.VIP}
	to := addr("10.0.0.2")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.Hold([]Flow{flow}))
	must(f.SetFlows(map[Flow]netip.Addr{other: to}))
	if f.Gate(flow) != (Gate{Held: true}) || f.Gate(other) != (Gate{Lead: to}) {
		t.Errorf("gates %+v and %+v", f.Gate(flow), f.Gate(other))
	}
	must(f.Pass([]Flow{flow}, to))
	if f.Gate(flow) != (Gate{Pass: to}) {
		t.Errorf("gate %+v", f.Gate(flow))
	}
	must(f.Release([]Flow{flow, other}))
	if f.Gates() != 1 {
		t.Errorf("%d gates, want the owner of a flow to stay", f.Gates())
	}
	must(f.DropFlows([]Flow{other}))
	f.Stray(Stray{Flow: flow})
	if s := <-f.Strays(); s.Flow != flow || f.Gates() != 0 {
		t.Errorf("stray %v, %d gates", s.Flow, f.Gates())
	}
	must(f.Close(true))
	if _, open := <-f.Strays(); open {
		t.Error("Strays goes on after Close")
	}
	wantError(t, f.Hold([]Flow{flow}), "closed")
}
