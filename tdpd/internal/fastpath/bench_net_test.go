package fastpath

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

const (
	benchUsers = 1 << 20
	benchFirst = 0x64400000 // 100.64.0.0
	benchTrees = 1000
)

// benchNATs have all users behind them.
var benchNATs = steer.Split{netip.MustParsePrefix("100.64.0.0/10")}

// rig is the programs of bpf/bench.bpf.c over a fast path's maps.
type rig struct {
	*Fastpath
	bench benchObjects
}

func newRig(b *testing.B) *rig {
	f, err := Open(Options{Owners: 1 << 12, Labels: 1 << 10, Hops: 1 << 12})
	if err != nil {
		b.Fatal(err)
	}
	r := &rig{Fastpath: f}
	b.Cleanup(func() { r.Close(false) })
	o := f.objects.fastpathMaps
	spec, err := loadBench()
	if err != nil {
		b.Fatal(err)
	}
	for name, m := range map[string]*ebpf.Map{"fast_trees": o.FastTrees, "fast_owners": o.FastOwners, "fast_labels": o.FastLabels, "fast_hops": o.FastHops} {
		spec.Maps[name].MaxEntries = m.MaxEntries()
	}
	if err := spec.LoadAndAssign(&r.bench, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"steer_groups": o.SteerGroups, "steer_current": o.SteerCurrent, "steer_plans": o.SteerPlans, "steer_slots": o.SteerSlots,
		"steer_entries": o.SteerEntries, "steer_users": o.SteerUsers, "fast_trees": o.FastTrees, "fast_owners": o.FastOwners,
		"fast_labels": o.FastLabels, "fast_hops": o.FastHops, "fast_counts": o.FastCounts,
		"fast_services": o.FastServices, "fast_seen": o.FastSeen, "fast_tagless": o.FastTagless, "vips6": o.Vips6, "vips_split": o.VipsSplit, "fast_sources": o.FastSources,
	}}); err != nil {
		b.Fatalf("%+v", err)
	}
	b.Cleanup(func() { r.bench.Close() })
	for i, p := range []*ebpf.Program{r.bench.BenchNothing, r.bench.BenchPush, r.bench.FastEdge, r.bench.BenchConnections, r.bench.FastCore} {
		if err := r.bench.BenchPrograms.Put(uint32(i), p); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

// What is run, by its place in bench_programs.
const (
	nothing = iota
	constantPush
	steering
	connections
	fromRouter
)

// once is how long one packet took of n, from users of that number.
func (r *rig) once(b *testing.B, what, users, n int) float64 {
	b.Helper()
	config := benchBench{Users: uint32(users - 1), Run: uint32(what), First: benchFirst, At: rand.Uint32()}
	if err := r.bench.BenchConfig.Put(uint32(0), config); err != nil {
		b.Fatal(err)
	}
	in := frame(packet{src: "100.64.0.1", dst: vip4.String(), proto: 6, ttl: 64, payload: append(ports(40000, 80), make([]byte, 6)...)}.ip())
	verdict, took, err := r.bench.BenchDrive.Benchmark(in, n, nil)
	if err != nil {
		b.Fatal(err)
	}
	want := uint32(3) // XDP_TX
	if what >= steering {
		want = redirect
	}
	if verdict != want {
		b.Fatalf("program %d: verdict %d, want %d", what, verdict, want)
	}
	return float64(took)
}

// slotPlan gives 65,536 slots, by a hash of the address' own bits, to benchTrees servers.
func slotPlan(b *testing.B) *steer.Plan {
	claims := make([]steer.Claim, benchTrees)
	for i := range claims {
		claims[i] = steer.Claim{Owner: steer.Owner(i + 1)}
	}
	for s := range uint32(1 << 16) {
		var addr [4]byte
		binary.BigEndian.PutUint32(addr[:], s)
		p, err := portion.New(netip.AddrFrom4(addr), netip.AddrFrom4([4]byte{0, 0, 255, 255}))
		if err != nil {
			b.Fatal(err)
		}
		set := &claims[(s*2654435761>>16)%benchTrees].Set
		set.Permit = append(set.Permit, p)
	}
	p, err := steer.Compile(claims)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func overrides(n int) []steer.User {
	r := rand.New(rand.NewPCG(1, 2))
	users := make([]steer.User, n)
	for i, at := range r.Perm(benchUsers)[:n] {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], benchFirst+uint32(at))
		users[i] = steer.User{Addr: netip.AddrFrom4(a), Owner: steer.Owner(1 + r.IntN(benchTrees))}
	}
	return users
}

func benchState(p *steer.Plan, far netip.Addr) State {
	s := State{VIPs: map[netip.Addr]*steer.Plan{vip4: p}, Trees: map[steer.Owner][]Hop{}}
	for i := range benchTrees {
		to := slices.Clone(next)
		to[4] = byte(i % 8)
		h := Hop{Interface: 1 + i%8, How: Label, Label: uint32(100 + i), To: to, From: here, MTU: 1500}
		if far.IsValid() {
			h.How, h.Tunnel = UDP, far
		}
		s.Trees[steer.Owner(i+1)] = []Hop{h}
	}
	return s
}

// BenchmarkNetSteering measures the whole steering program: parse, look up, push, count, redirect. What the driver costs is measured in
// turns with it and subtracted; figures are the least and the median of the turns.
func BenchmarkNetSteering(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	base := slotPlan(b)
	type setting struct {
		name      string
		overrides int
		far       netip.Addr  // labels leave in UDP
		split     steer.Split // NATs
		tell      bool        // what comes without a tag from a router is told of
	}
	cases := []struct {
		name, in    string // a setting's name
		what, users int
		took        []float64
	}{
		{name: "push", what: constantPush, users: 1 << 20},
		{name: "1", what: steering, users: 1},
		{name: "1k", what: steering, users: 1 << 10},
		{name: "64k", what: steering, users: 1 << 16},
		{name: "1M", what: steering, users: 1 << 20},
		{name: "udp", in: "udp", what: steering, users: 1 << 20},
		{name: "split", in: "split", what: steering, users: 1 << 20},
		{name: "beside-split", in: "beside split", what: steering, users: 1 << 20},
		{name: "lru", what: connections, users: 1 << 20},
		{name: "1M+10k", in: "10k", what: steering, users: 1 << 20},
		{name: "1M+1M", in: "1M", what: steering, users: 1 << 20},
		{name: "router", what: fromRouter, users: 1 << 20},
		{name: "router-1k", what: fromRouter, users: 1 << 10},
		{name: "tell-1k", in: "told", what: fromRouter, users: 1 << 10},
	}
	r := newRig(b)
	var driver []float64
	for _, s := range []setting{
		{}, {name: "udp", far: far4}, {name: "split", split: benchNATs}, {name: "beside split", split: splitNATs}, {name: "told", tell: true},
		{name: "10k", overrides: 10_000}, {name: "1M", overrides: 1_000_000},
	} {
		p := base
		if s.overrides > 0 {
			var err error
			if p, err = base.WithUsers(overrides(s.overrides)); err != nil {
				b.Fatal(err)
			}
		}
		state := benchState(p, s.far)
		state.Split = map[netip.Addr]vips.Split{vip4: {Prefixes: s.split, Plan: p}}
		state.Tell = map[netip.Addr]bool{vip4: s.tell}
		tells := uint32(0)
		if s.tell {
			tells = 1
		}
		if err := errors.Join(r.Set(state), r.bench.FastTells.Set(tells)); err != nil {
			b.Fatal(err)
		}
		for range 9 {
			for i := range cases {
				if c := &cases[i]; c.in == s.name {
					r.once(b, c.what, c.users, 1<<20) // warm
					floor := r.once(b, nothing, c.users, 1<<20)
					driver = append(driver, floor)
					c.took = append(c.took, r.once(b, c.what, c.users, 2<<20)-floor)
				}
			}
		}
	}
	for b.Loop() {
	}
	for _, c := range cases {
		slices.Sort(c.took)
		b.ReportMetric(c.took[0], "ns/"+c.name)
		b.ReportMetric(c.took[len(c.took)/2], "ns-median/"+c.name)
	}
	slices.Sort(driver)
	b.ReportMetric(driver[0], "ns/driver")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkNetMillionOverrides measures how long it takes until a million overrides hold, beside writing as many into a BPF hash at once.
func BenchmarkNetMillionOverrides(b *testing.B) {
	base, users := slotPlan(b), overrides(1_000_000)
	f, err := Open(Options{Owners: 1 << 12, Labels: 1 << 10, Hops: 1 << 12})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close(false)
	var load, hash time.Duration
	for b.Loop() {
		if err := f.Set(benchState(base, netip.Addr{})); err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		p, err := base.WithUsers(users)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Set(benchState(p, netip.Addr{})); err != nil {
			b.Fatal(err)
		}
		load += time.Since(start)
		hash += intoHash(b, users)
	}
	b.ReportMetric(load.Seconds()*1e3/float64(b.N), "ms/load")
	b.ReportMetric(hash.Seconds()*1e3/float64(b.N), "ms/hash")
}

func intoHash(b *testing.B, users []steer.User) time.Duration {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1_200_000, Flags: unix.BPF_F_NO_PREALLOC})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	start := time.Now()
	keys, values := make([][4]byte, len(users)), make([]uint32, len(users))
	for i, u := range users {
		keys[i], values[i] = u.Addr.As4(), uint32(u.Owner)
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
