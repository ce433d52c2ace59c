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

// TestTrailNamesWhoStoodIn: standbys of who was out, if only for a moment, and those that say that they hold something.
func TestTrailNamesWhoStoodIn(t *testing.T) {
	for what, happens := range map[string]func(*bench){
		"nothing":       func(*bench) {},
		"s1 was silent": func(b *bench) { b.hear(control.Silent, "s1"); b.hear(control.Available, "s1") },
		"s2 says so": func(b *bench) {
			e := b.core.pools["web"].state.Committed.Epoch
			b.keeps("s2", alloc.Kept{Epoch: e, Connections: 1, Since: e, Stood: true})
		},
	} {
		b := newBench(t, "s1", "s2", "s3", "s4")
		b.do(b.core.SetServices(b.now, []service.Service{{
			Name: "web", Slots: alloc.Slots{By: alloc.Suffix, Bits: 8}, Policy: alloc.Equal,
			Handover: service.Handover{Strategies: []service.Strategy{service.Forward}},
		}}))
		b.hear(control.Available, "s1", "s2", "s3", "s4")
		b.pass(5 * time.Second)
		happens(b)
		before := b.core.pools["web"].state.Committed
		b.do(b.core.SetOperator(b.now, "web", "s4", Operator{Drained: true}))
		b.pass(time.Second)
		after := b.core.pools["web"].state.Committed
		if before.Epoch == after.Epoch {
			t.Fatalf("%s: nothing is reallocated", what)
		}
		stood := 0
		for was, is := range alloc.Pairs(before, after) {
			owner, standby := before.OwnerOf(was), before.StandbyOf(was)
			var want bool
			switch what {
			case "s1 was silent":
				want = owner == "s1"
			case "s2 says so":
				want = standby == "s2"
			}
			want = want && standby != after.OwnerOf(is)
			chain := after.ChainOf(is)
			if chain.Has(standby) != want || want && chain.Until(standby) != before.Epoch {
				t.Fatalf("%s: %s's users, for whom %s stood by, and who are %s's: %+v", what, owner, standby, after.OwnerOf(is), chain)
			}
			if want {
				stood++
			}
		}
		if (stood == 0) != (what == "nothing") {
			t.Errorf("%s: %d cells of whom somebody stood in", what, stood)
		}
		for _, name := range []string{"s1", "s2", "s3"} {
			b.keeps(name, alloc.Kept{Epoch: after.Epoch})
		}
		b.do(b.core.SetOperator(b.now, "web", "s4", Operator{}))
		b.pass(2 * time.Second)
		last := b.core.pools["web"].state.Committed
		for was, is := range alloc.Pairs(after, last) {
			if chain := last.ChainOf(is); chain.Has(after.StandbyOf(was)) {
				t.Fatalf("%s: nobody holds anything: %+v", what, chain)
			}
		}
	}
}
