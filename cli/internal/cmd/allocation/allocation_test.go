package allocation_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/portion"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

const fixed = "name: fixed\nvip: 192.0.2.90\ngroup: 239.80.80.90\nports: [udp/53]\nservers:\n" +
	"- {name: s1, address: 10.0.1.1, portions: [0.0.0.0/0.0.0.1]}\n- {name: s2, address: 10.0.2.1, portions: [0.0.0.1/0.0.0.1]}\n"

func TestShow(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	b.Service(fixed + "---\nname: api\nvip: 192.0.2.80\ngroup: 239.80.80.81\nports: [tcp/8080]\n")
	cmdtest.Golden(t, "show", b.OK("allocation", "show"))
	cmdtest.Golden(t, "bars", b.OK("allocation", "show", "--bars"))
	cmdtest.Golden(t, "portions", b.OK("allocation", "show", "web", "--portions"))
	b.Allocate("web", a, b.Next(a, 2, cmdtest.Alive("s1", 1)))
	cmdtest.Golden(t, "show-prepared", b.OK("allocation", "show", "web"))
	b.Refused([]string{"api, fixed, web"}, "allocation", "show", "wbe")
	b.Refused([]string{"bars", "portions"}, "allocation", "show", "--bars", "--portions")
}

func TestPortionsAreAPartition(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	b.Service(fixed)
	var all []struct {
		Service, Epoch, Slots string
		Servers               []struct {
			Name            string
			Slots           int
			Fraction        float64
			Portions        []portion.Portion
			StandbyPortions []portion.Portion `json:"standby_portions"`
		}
	}
	if err := json.Unmarshal([]byte(b.OK("allocation", "show", "--portions", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 || all[1].Epoch != "5.1" || all[1].Slots != "suffix/4" {
		t.Fatalf("%+v", all)
	}
	for _, a := range all {
		sets, sum := map[string]portion.Set{}, 0.0
		for _, s := range a.Servers {
			sets[s.Name] = portion.Set{Permit: s.Portions}
			sum += s.Fraction
		}
		if err := portion.CheckPartition(sets); err != nil || sum != 1 {
			t.Fatalf("%s: %v, fractions sum up to %v", a.Service, err, sum)
		}
	}
}

func TestDryRun(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	cmdtest.Golden(t, "rebalance-nothing", b.OK("allocation", "rebalance", "--dry-run"))

	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true})
	b.Register("web", "s3", "10.0.3.1", 1, false)
	b.Register("web", "s4", "10.0.4.1", 1, true)
	b.Service(fixed)
	cmdtest.Golden(t, "rebalance", b.OK("allocation", "rebalance", "--dry-run"))

	var all []struct {
		Service, Note string
		Moved, Needed int
		Fraction      float64 `json:"fraction_moved"`
	}
	if err := json.Unmarshal([]byte(b.OK("allocation", "rebalance", "web", "--dry-run", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	if r := all[0]; r.Moved != r.Needed || r.Moved == 0 || r.Fraction != float64(r.Moved)/16 {
		t.Fatalf("%+v", r)
	}
	var state allocv1.State
	if !b.Get(bus.BucketAllocations, "web", &state) || state.GetCommitted().GetEpoch().GetNumber() != 1 || state.GetPrepared() != nil {
		t.Fatalf("the dry run changed something: %v", &state)
	}

	b.Register("web", "s1", "10.0.1.1", 2, false)
	b.Register("web", "s4", "10.0.4.1", 1, false)
	if out := b.OK("allocation", "rebalance", "web", "--dry-run"); !strings.Contains(out, "the last allocation stays") {
		t.Fatal(out)
	}
}

// TestDryRunSaysWhyReportsMoveUsers: by loads, by what servers ask for, and for prefixes of the operator.
func TestDryRunSaysWhyReportsMoveUsers(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	web := "name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/4\n"
	b.Service(web + "policy: load\nprefixes: [{prefix: 10.9.0.0/16, servers: [s2]}]\n")
	b.RegisterLoad("web", "s1", "10.0.1.1", 2, alloc.Load{CPU: 0.9})
	b.RegisterLoad("web", "s2", "10.0.2.1", 1, alloc.Load{CPU: 0.3, Wanted: []portion.Portion{portion.MustParse("10.1.0.0/16")}})
	b.RegisterLoad("web", "s3", "10.0.3.1", 1, alloc.Load{CPU: 0.3, Wanted: []portion.Portion{portion.MustParse("10.1.0.0/16")}})
	cmdtest.Golden(t, "rebalance-load", b.OK("allocation", "rebalance", "--dry-run"))
	b.Service(web + "prefixes: [{prefix: 10.9.0.0/16, servers: [s8, s9]}]\n")
	absent := "web: portion 10.9.0.0/16: stays with its slots; s8 may own nothing now, nor may the others that it was given to; shared out with the rest\n"
	if out := b.OK("allocation", "rebalance", "--dry-run"); !strings.Contains(out, absent) {
		t.Errorf("%s does not say %q", out, absent)
	}
	b.Service(web + "policy: wanted\n")
	cmdtest.Golden(t, "rebalance-wanted", b.OK("allocation", "rebalance", "--dry-run"))
}

func TestDryRunWarnsOfJoinsThatNobodyTakes(t *testing.T) {
	b := cmdtest.Start(t)
	b.Service("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/16\n")
	for i, name := range []string{"s1", "s2", "s3"} {
		b.Register("web", name, fmt.Sprintf("10.0.%d.1", i+1), 1, true)
	}
	warning := "web: warning: joins of too many portions: with 65536 slots s1 needs "
	if out := b.OK("allocation", "rebalance", "--dry-run"); !strings.Contains(out, warning) || !strings.Contains(out, "have slots: suffix/14, or more servers") {
		t.Errorf("%s does not say %q", out, warning)
	}
	if out := b.OK("allocation", "rebalance", "--dry-run", "-o", "json"); !strings.Contains(out, `"warning": "joins of too many portions`) {
		t.Errorf("JSON: %s", out)
	}
	b.Service("name: web\nvip: 192.0.2.80\ngroup: 239.80.80.80\nports: [tcp/80]\nslots: suffix/14\n")
	if out := b.OK("allocation", "rebalance", "--dry-run"); strings.Contains(out, "warning") {
		t.Errorf("routers take this, and yet: %s", out)
	}
}

func TestRebalanceWaitsForTheLeader(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	cmdtest.Golden(t, "rebalance-wait", b.OK("allocation", "rebalance", "web"))
	b.Put(bus.BucketOperator, "web.s2", &allocv1.Operator{Drained: true})
	b.Refused([]string{"the leader's own work", "director d1", "--timeout"}, "allocation", "rebalance", "--timeout", "2s")
	b.Allocate("web", b.Next(a, 2, cmdtest.Alive("s1", 2), cmdtest.Alive("s3", 1)), alloc.Allocation{})
	b.OK("allocation", "rebalance")
}

func TestMoves(t *testing.T) {
	b := cmdtest.Start(t)
	cmdtest.World(b)
	cmdtest.Golden(t, "moves-none", b.OK("allocation", "moves"))
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b.Put(bus.BucketMoves, "web", &allocv1.Moves{Moves: []*allocv1.Move{
		{Service: "web", Epoch: &allocv1.Epoch{Term: 5, Number: 1}, FractionMoved: 1, FractionNeeded: 1, Ms: 12.3, Reason: "first allocation", AtUnixNano: at.UnixNano()},
		{Service: "web", Epoch: &allocv1.Epoch{Term: 5, Number: 2}, FractionMoved: 0.25, FractionNeeded: 0.25, ConnectionsAffected: 17, Ms: 151, Reason: "s2 is dead, s4 joined", AtUnixNano: at.Add(time.Hour).UnixNano(), Missing: []string{"s3", "s4"}},
	}})
	cmdtest.Golden(t, "moves", b.OK("allocation", "moves"))
	cmdtest.Golden(t, "moves-json", b.OK("allocation", "moves", "web", "--last", "1", "-o", "json"))
	b.Refused([]string{"--last"}, "allocation", "moves", "--last", "0")
	b.PutRaw(bus.BucketMoves, "web", []byte("\xff"))
	b.Refused([]string{"moves of web"}, "allocation", "moves", "web")
}

func TestDamagedAllocationIsTold(t *testing.T) {
	b := cmdtest.Start(t)
	a := cmdtest.World(b)
	p := alloc.ToProto("web", a)
	p.Owner[0] = 77
	b.Put(bus.BucketAllocations, "web", &allocv1.State{Committed: p})
	r := b.Run("allocation", "show")
	if r.Error != nil || !strings.Contains(r.Err, "slot 0 belongs to nobody") {
		t.Fatal(r)
	}
}
