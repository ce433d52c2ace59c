package fastpath

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/neighbors"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

// recorder is programs that keep what they are given.
type recorder struct {
	state   State
	sets    int
	users   int
	failure error
	left    map[uint32][]kernel.Hop
	closed  []bool
	on      map[int]Side
	tells   told
	pruned  int
	macs    map[int]net.HardwareAddr
}

func (r *recorder) SetMACs(macs map[int]net.HardwareAddr) error {
	r.macs = macs
	return nil
}

func (r *recorder) Attach(ifindex int, side Side) error {
	r.on[ifindex] = side
	return nil
}

func (r *recorder) Detach(ifindex int) error {
	delete(r.on, ifindex)
	return nil
}

func (r *recorder) Prune() error {
	r.pruned++
	return nil
}

func (r *recorder) SetLabels(labels map[uint32][]Hop) error {
	r.state.Labels = labels
	r.sets++
	return r.failure
}

func (r *recorder) UpdateLabels(labels map[uint32][]Hop) error {
	for label, hops := range labels {
		if r.state.Labels[label] = hops; len(hops) == 0 {
			delete(r.state.Labels, label)
		}
	}
	return r.failure
}

func (r *recorder) Counters() (Counters, error) {
	return Counters{Pushed: 7, NoTables: 8}, r.failure
}

func (r *recorder) SetServices(refuse map[netip.Addr]vips.Refusal, tell map[netip.Addr]bool) error {
	r.state.Refuse, r.state.Tell = refuse, tell
	return r.failure
}

func (r *recorder) SetUsers(plans map[netip.Addr]*steer.Plan, split map[netip.Addr]vips.Split, trees map[steer.Owner][]Hop) error {
	r.state.VIPs, r.state.Split, r.state.Trees = plans, split, trees
	r.users++
	return r.failure
}

func (r *recorder) Labels() map[uint32][]kernel.Hop { return r.left }

// told is what a test has the programs tell of.
type told chan []Tagless

func (t told) Read() ([]Tagless, error) {
	some, ok := <-t
	if !ok {
		return nil, os.ErrClosed
	}
	return some, nil
}

func (t told) Close() error {
	close(t)
	return nil
}

func (r *recorder) Listen() (Listener, error) {
	r.tells = make(told)
	return r.tells, nil
}

func (r *recorder) Close(keep bool) error {
	r.closed = append(r.closed, keep)
	return nil
}

var (
	via4 = netip.MustParseAddr("10.0.1.2")
	via6 = netip.MustParseAddr("2001:db8::2")
	eth0 = neighbors.Link{Name: "eth0", MAC: here, MTU: 1500, Up: true}
)

// What goes into a tunnel is the programs' matter alone: the tables hear of the rest, and a process before has it in the programs.
func TestBackendKeepsTunnelsFromTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := kernel.Hop{Labels: []uint32{300}, Via: via4, Interface: 7, Tunnel: far4}
		near := kernel.Hop{Labels: []uint32{200}, Via: via4, Interface: 7}
		fast, n := &recorder{on: map[int]Side{}, left: map[uint32][]kernel.Hop{100: {far}, 101: {near}}}, neighbors.NewFake()
		tables := kernel.NewFake(kernel.State{Labels: map[uint32][]kernel.Hop{102: {near}}})
		b, err := NewBackend(tables, fast, n, nil, 1400, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		equal := func(what string, got, want any) {
			t.Helper()
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Errorf("%s: -want +got:\n%s", what, diff)
			}
		}
		entries, err := b.Entries()
		if err != nil {
			t.Fatal(err)
		}
		equal("of a process before", entries.Labels, map[uint32][]kernel.Hop{100: {far}, 102: {near}})
		server := netip.MustParsePrefix("10.9.0.80/32")
		if err := b.Set(kernel.State{Labels: map[uint32][]kernel.Hop{100: {far}, 101: {near, far}}, Prefixes: map[netip.Prefix][]kernel.Hop{server: {far}}}); err != nil {
			t.Fatal(err)
		}
		equal("the tables", tables.State().Labels, map[uint32][]kernel.Hop{101: {near}})
		n.Send(known(map[netip.Addr]net.HardwareAddr{via4: next}, eth0))
		synctest.Wait()
		in, out := Hop{Interface: 7, How: UDP, Label: 300, To: next, From: here, MTU: 1400, Tunnel: far4, Next: far}, Hop{Interface: 7, How: Label, Label: 200, To: next, From: here, MTU: 1500, Next: near}
		equal("the programs", fast.state.Labels, map[uint32][]Hop{100: {in}, 101: {out, in}})
		if err := b.Update(kernel.Changes{Labels: map[uint32][]kernel.Hop{101: {far}}, Prefixes: map[netip.Prefix][]kernel.Hop{server: nil}}); err != nil {
			t.Fatal(err)
		}
		equal("the tables, changed", tables.State().Labels, map[uint32][]kernel.Hop{})
		if err := b.Close(true); err != nil {
			t.Fatal(err)
		}
	})
}

func known(macs map[netip.Addr]net.HardwareAddr, l neighbors.Link) neighbors.Table {
	t := neighbors.Table{Links: map[int]neighbors.Link{7: l}, Neighbors: map[neighbors.Key]net.HardwareAddr{}}
	for a, m := range macs {
		t.Neighbors[neighbors.Key{Interface: 7, Address: a}] = m
	}
	return t
}

// What is sent on is what the tables send, by whom is known; the rest is the tables' matter until it is.
func TestBackendFollowsTablesAndNeighbors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fast, n, tables := &recorder{on: map[int]Side{}}, neighbors.NewFake(), kernel.NewFake(kernel.State{})
		b, err := NewBackend(tables, fast, n, map[string]Side{"eth0": Edge, "eth1": Core}, 0, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		var wanted []neighbors.Key
		ask := func(f func() error) {
			t.Helper()
			if err := f(); err != nil {
				t.Fatal(err)
			}
			wanted = n.Wanted()
		}
		check := func(when string, labels map[uint32][]Hop, trees map[steer.Owner][]Hop) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(State{Labels: labels, Trees: trees}, fast.state, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(State{}, "VIPs"), cmpopts.IgnoreFields(Hop{}, "Next")); diff != "" {
				t.Errorf("%s: -want +got:\n%s", when, diff)
			}
		}
		out := func(how How, label uint32) []Hop {
			return []Hop{{Interface: 7, How: how, Label: label, To: next, From: here, MTU: 1500}}
		}
		left, local := []Hop{{How: Kernel}}, []Hop{{How: Local, Interface: 1}}

		ask(func() error {
			return b.Set(kernel.State{Labels: map[uint32][]kernel.Hop{
				100: {{Labels: []uint32{200}, Via: via4, Interface: 7}}, 101: {{Via: via6, Interface: 7}}, 102: {{Interface: 1}},
				103: {{Labels: []uint32{1, 2}, Via: via4, Interface: 7}},
			}})
		})
		if want := []neighbors.Key{{Interface: 7, Address: via4}, {Interface: 7, Address: via6}}; !slices.Equal(wanted, want) {
			t.Errorf("wanted %v, want %v", wanted, want)
		}
		if synctest.Wait(); fast.sets != 0 {
			t.Error("what a process before left was replaced before anything was known of neighbors")
		}
		n.Send(known(nil, eth0))
		synctest.Wait()
		if side, on := fast.on[7]; !on || side != Edge || len(fast.on) != 1 || fast.pruned != 1 {
			t.Errorf("on %v, pruned %d times", fast.on, fast.pruned)
		}
		check("nobody is known", map[uint32][]Hop{100: left, 101: left, 102: local, 103: left}, nil)
		n.Send(known(map[netip.Addr]net.HardwareAddr{via4: next, via6: next}, eth0))
		check("both are", map[uint32][]Hop{100: out(Label, 200), 101: out(Bare, 0), 102: local, 103: left}, nil)

		sets := fast.sets
		ask(func() error {
			return b.Update(kernel.Changes{Labels: map[uint32][]kernel.Hop{100: nil, 103: {{Labels: []uint32{300}, Via: via6, Interface: 7}}}})
		})
		check("updated", map[uint32][]Hop{101: out(Bare, 0), 102: local, 103: out(Label, 300)}, nil)
		if fast.users != 0 {
			t.Error("users were touched before anybody said what they are steered by")
		}
		ask(func() error {
			return b.Steer(vips.Users{Trees: map[steer.Owner][]kernel.Hop{1: {{Labels: []uint32{400}, Via: via4, Interface: 7}}, 2: nil, 3: {{Interface: 1}}}})
		})
		check("steered", map[uint32][]Hop{101: out(Bare, 0), 102: local, 103: out(Label, 300)}, map[steer.Owner][]Hop{1: out(Label, 400), 2: {}, 3: local})
		if fast.sets != sets || fast.users != 1 {
			t.Errorf("all labels were gone through %d times for a change of some and one of users, those of users %d times", fast.sets-sets, fast.users)
		}
		down := eth0
		down.Up = false
		n.Send(known(map[netip.Addr]net.HardwareAddr{via4: next, via6: next}, down))
		check("the link is down", map[uint32][]Hop{101: left, 102: local, 103: left}, map[steer.Owner][]Hop{1: left, 2: {}, 3: local})
		renamed := eth0
		renamed.Name = "eth9"
		n.Send(known(nil, renamed))
		if synctest.Wait(); len(fast.on) != 0 || fast.pruned != 1 {
			t.Errorf("another name: on %v, pruned %d times", fast.on, fast.pruned)
		}
		if tables.State().Labels[103][0].Labels[0] != 300 {
			t.Errorf("the tables have %v", tables.State())
		}

		if c, err := b.Counters(); err != nil || c["pushed"] != 7 || c["no_tables"] != 8 || len(c) != reflect.TypeFor[Counters]().NumField() {
			t.Errorf("counters %v, %v", c, err)
		}
		fast.failure = errors.New("full")
		if c, err := b.Counters(); err == nil {
			t.Errorf("counters that cannot be read: %v", c)
		}
		if err := b.Update(kernel.Changes{Labels: map[uint32][]kernel.Hop{104: {{Via: via4, Interface: 7}}}}); !errors.Is(err, fast.failure) {
			t.Errorf("a failure of the programs: %v", err)
		}
		if err := b.Close(true); err != nil || !slices.Equal(fast.closed, []bool{true}) {
			t.Errorf("closed %v, %v", fast.closed, err)
		}
		if keep, closed := tables.Closed(); !keep || !closed {
			t.Error("the tables are not kept")
		}
	})
}
