package alloc

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/epoch"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

func TestProtoRoundTrip(t *testing.T) {
	want, _ := next(t, Allocation{}, Want{Servers: pool(1, 2, 3), Epoch: epoch.Epoch{Term: 7, Number: 9}})
	got, err := FromProto(ToProto("web", want))
	if err != nil || got.Epoch != want.Epoch || !got.Same(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	with, _ := next(t, want, Want{Servers: pool(1, 2, 3), Fixed: fixed("s2", "", "10.0.0.0/8", "11.0.7.7/255.0.255.255")})
	if got, err := FromProto(ToProto("web", with)); err != nil || !got.Same(with) || len(got.Fixed) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if none, err := FromProto(ToProto("web", Allocation{})); err != nil || !none.Zero() {
		t.Fatalf("%+v, %v", none, err)
	}
}

func TestBadAllocationsAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*allocv1.Allocation){
		"no slots":        func(p *allocv1.Allocation) { p.Slots = nil },
		"owner missing":   func(p *allocv1.Allocation) { p.Owner = p.Owner[1:] },
		"nobody's slot":   func(p *allocv1.Allocation) { p.Owner[3] = None },
		"owner too large": func(p *allocv1.Allocation) { p.Owner[3] = 1 << 20 },
		"unknown standby": func(p *allocv1.Allocation) { p.Standby[3] = 17 },
		"own standby":     func(p *allocv1.Allocation) { p.Standby[3] = p.Owner[3] },
		"not sorted":      func(p *allocv1.Allocation) { p.Servers[0], p.Servers[1] = p.Servers[1], p.Servers[0] },
		"no servers":      func(p *allocv1.Allocation) { p.Servers = nil },
		"fixed twice":     func(p *allocv1.Allocation) { p.Fixed[1] = p.Fixed[0] },
		"fixed overlap":   func(p *allocv1.Allocation) { p.Fixed[1] = "0.0.0.0/0" },
		"fixed missing":   func(p *allocv1.Allocation) { p.Fixed = p.Fixed[1:] },
		"fixed by nobody": func(p *allocv1.Allocation) { p.Fixed = append(p.Fixed, "1.2.3.4") },
		"fixed IPv6":      func(p *allocv1.Allocation) { p.Fixed[1] = "2001:db8::/32" },
		"fixed nonsense":  func(p *allocv1.Allocation) { p.Fixed[1] = "10.0.0.1/8" },
		"fixed unsorted":  func(p *allocv1.Allocation) { p.Fixed[0], p.Fixed[1] = p.Fixed[1], p.Fixed[0] },
		"fixed without end": func(p *allocv1.Allocation) {
			for i := range 1 << 20 {
				p.Fixed = append(p.Fixed, addr4(uint32(i)).String())
			}
		},
		"own standby of fixed": func(p *allocv1.Allocation) { p.Standby[256] = p.Owner[256] },
	} {
		a, _ := next(t, Allocation{}, Want{Servers: pool(1, 1), Fixed: fixed("s1", "", "10.0.0.0/8", "11.0.0.0/8")})
		p := ToProto("web", a)
		spoil(p)
		if got, err := FromProto(p); err == nil {
			t.Errorf("%s: accepted %+v", name, got)
		}
	}
}

func FuzzFromProto(f *testing.F) {
	a, _, err := Next(Allocation{}, Want{Slots: Slots{Suffix, 2}, Servers: pool(1, 1), Fixed: fixed("s1", "", "10.0.0.0/8")})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := proto.Marshal(ToProto("web", a))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p allocv1.Allocation
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		a, err := FromProto(&p)
		if err != nil || a.Zero() {
			return
		}
		owned := 0
		for _, n := range a.Counts() {
			owned += n
		}
		if owned != a.Slots.Count() {
			t.Fatalf("%d of %d slots are owned", owned, a.Slots.Count())
		}
		size := uint64(0)
		for _, n := range a.Sizes() {
			size += n
		}
		if size != Space {
			t.Fatalf("%d addresses are owned", size)
		}
	})
}
