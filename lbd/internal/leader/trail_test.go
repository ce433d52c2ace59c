package leader

import (
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/service"
)

// formers are the servers that the committed allocation's trail names.
func (b *bench) formers() []string {
	var names []string
	for _, c := range b.core.pools["web"].state.Committed.Trail.Chains {
		for _, h := range c.Hops {
			names = append(names, h.Server)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (b *bench) keeps(server string, k alloc.Kept) {
	loads := map[string]alloc.Load{"web": {Kept: &k}}
	b.do(b.core.Heard(b.now, []control.Member{{Name: server, Health: control.Available, Loads: loads}}))
}

func (b *bench) weigh(server string, weight int) {
	b.do(b.core.SetOperator(b.now, "web", server, Operator{Weight: &weight}))
	b.pass(time.Second)
}

func TestTrailNamesWhoMayHoldConnections(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	spec := service.Service{
		Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: alloc.Weighted,
		Handover: service.Handover{Strategies: []service.Strategy{service.Forward}},
	}
	b.do(b.core.SetServices(b.now, []service.Service{spec}))
	b.hear(control.Available, "s1", "s2", "s3")
	for _, name := range []string{"s1", "s2", "s3"} {
		b.weigh(name, 4)
	}
	b.pass(5 * time.Second)
	b.wantOwners("at first", "s1", "s2", "s3")
	for _, name := range []string{"s1", "s2", "s3"} {
		b.keeps(name, alloc.Kept{Epoch: b.core.pools["web"].state.Committed.Epoch})
	}
	b.weigh("s1", 0)
	if got := b.formers(); !slices.Equal(got, []string{"s1"}) {
		t.Fatalf("s1's users moved: the trail names %v", got)
	}
	first := b.core.pools["web"].state.Committed.Epoch
	b.weigh("s2", 8)
	if got := b.formers(); !slices.Equal(got, []string{"s1", "s3"}) {
		t.Errorf("nothing is known of s1 since, and s3 has lost users: the trail names %v", got)
	}
	b.keeps("s1", alloc.Kept{Epoch: first})
	b.keeps("s3", alloc.Kept{Epoch: first, Connections: 1, Since: epoch.Epoch{Term: 1}})
	b.weigh("s2", 4)
	if got := b.formers(); !slices.Equal(got, []string{"s2", "s3"}) {
		t.Errorf("s1 holds nothing, s3 does: the trail names %v", got)
	}
	spec.Handover = service.DefaultHandover()
	b.do(b.core.SetServices(b.now, []service.Service{spec}))
	b.weigh("s1", 4)
	if got := b.formers(); got != nil {
		t.Errorf("with handover reset the trail names %v", got)
	}
}

func TestTrailLeavesOutTheDead(t *testing.T) {
	b := newBench(t, "s1", "s2", "s3")
	spec := service.Service{
		Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: alloc.Equal,
		Handover: service.Handover{Strategies: []service.Strategy{service.Forward}},
	}
	b.do(b.core.SetServices(b.now, []service.Service{spec}))
	b.hear(control.Available, "s1", "s2", "s3")
	b.pass(5 * time.Second)
	b.do(b.core.SetOperator(b.now, "web", "s1", Operator{Drained: true}))
	b.pass(time.Second)
	if got := b.formers(); !slices.Equal(got, []string{"s1"}) {
		t.Fatalf("s1 is drained: the trail names %v", got)
	}
	delete(b.up, "s1")
	b.hear(control.Silent, "s1")
	b.pass(time.Second)
	b.do(b.core.SetOperator(b.now, "web", "s2", Operator{Drained: true}))
	b.pass(time.Second)
	if got := b.formers(); !slices.Equal(got, []string{"s1", "s2"}) {
		t.Errorf("s1 has been silent for a moment: the trail names %v", got)
	}
	b.pass(3 * time.Second)
	b.do(b.core.SetOperator(b.now, "web", "s2", Operator{}))
	b.pass(time.Second)
	if got := b.formers(); slices.Contains(got, "s1") || len(got) == 0 {
		t.Errorf("s1 is dead: the trail names %v", got)
	}
}
