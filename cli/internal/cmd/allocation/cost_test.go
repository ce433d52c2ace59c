package allocation_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

func costs(kept uint64, to ...*handoverv1.CostTo) func(*handoverv1.FlowsRequest) *handoverv1.FlowsAnswer {
	return func(r *handoverv1.FlowsRequest) *handoverv1.FlowsAnswer {
		if r.GetCost().GetNext().GetService() != "web" {
			return &handoverv1.FlowsAnswer{About: &handoverv1.FlowsAnswer_Fetch{Fetch: &handoverv1.Fetched{}}}
		}
		return &handoverv1.FlowsAnswer{About: &handoverv1.FlowsAnswer_Cost{Cost: &handoverv1.Cost{To: to, Kept: kept, States: 10, StateBytes: 7000}}}
	}
}

// TestRebalanceSaysWhatConnectionsCost: s2 is drained, so that its users go to the others.
func TestRebalanceSaysWhatConnectionsCost(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service(cmdtest.Web + "handover: [transfer, forward]\n")
	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true})
	b.Agent("s1", costs(0))
	b.Agent("s2", costs(5, &handoverv1.CostTo{Server: "s3", Connections: 30, Users: 12}, &handoverv1.CostTo{Server: "s1", Connections: 70, Users: 40}))
	out := b.OK("allocation", "rebalance", "web", "--handover", "transfer", "--dry-run")
	for _, want := range []string{
		"web: 100 connections of 52 users would be handed over; about 70000 bytes of states", "web: s2 -> s1: 70 connections of 40 users",
		"web: 5 connections stay", "not in it: server s3: its agent does not answer",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s\nhas no %q", out, want)
		}
	}
	if out := b.OK("allocation", "rebalance", "web", "--handover", "pin", "--dry-run", "-o", "json"); !strings.Contains(out, `"note": "the service's handover is transfer, forward`) ||
		!strings.Contains(out, `"connections": 70`) {
		t.Errorf("%s", out)
	}
	if out := b.OK("allocation", "rebalance", "web", "--dry-run"); strings.Contains(out, "connections") {
		t.Errorf("%s\ntells of connections that nobody asked for", out)
	}
	b.Refused([]string{"--handover", "want reset, forward"}, "allocation", "rebalance", "--handover", "all")
	b.Refused([]string{"without --dry-run"}, "allocation", "rebalance", "--handover", "forward")
}

func TestRebalanceFetchesWhatWasLeftBehind(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Refused([]string{"its handover is reset"}, "allocation", "rebalance", "web", "--handover", "transfer")
	b.Service(cmdtest.Web + "handover: [transfer, forward]\n")
	var asked atomic.Int32
	for _, name := range []string{"s1", "s2", "s3"} {
		b.Agent(name, func(r *handoverv1.FlowsRequest) *handoverv1.FlowsAnswer {
			if f := r.GetFetch(); f.GetService() == "web" && len(f.GetFlows()) == 0 {
				asked.Add(1)
			}
			return &handoverv1.FlowsAnswer{About: &handoverv1.FlowsAnswer_Fetch{Fetch: &handoverv1.Fetched{}}}
		})
	}
	r := b.Run("allocation", "rebalance", "web", "--handover", "transfer")
	if r.Error != nil || asked.Load() != 3 || !strings.Contains(r.Err, "web/s1, web/s2, web/s3") {
		t.Errorf("%v: %d servers were asked\n%s", r.Error, asked.Load(), r.Err)
	}
}
