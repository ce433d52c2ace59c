package kernel

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

var (
	group     = netip.MustParseAddr("239.1.1.1")
	publicGrp = netip.MustParseAddr("224.5.5.5")
	source    = netip.MustParseAddr("10.0.1.9")
	compare   = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func ownerConfig() Config {
	return Config{Mode: ModeOwner, Mark: 0x4d000000, MarkMask: 0xff000fff, TableBase: 10000, SourceEntriesMax: 8, BPFFS: "/x"}
}

// vifs numbers u, v, a, b 0 to 3.
func vifs() map[string]int { return map[string]int{"u": 0, "v": 1, "a": 2, "b": 3} }

func interfaces(names ...string) []Interface {
	var list []Interface
	for _, n := range names {
		list = append(list, Interface{Name: n})
	}
	return list
}

// quarters is owned by owners[n] where the address ends in the bits n; the rest is nobody's.
func quarters(t testing.TB, owners ...steer.Owner) *steer.Plan {
	t.Helper()
	plan, err := steer.Compile(quarterClaims(owners...))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func quarterClaims(owners ...steer.Owner) []steer.Claim {
	var claims []steer.Claim
	for i, o := range owners {
		if o == 0 {
			continue
		}
		p := portion.Portion{Addr: netip.AddrFrom4([4]byte{3: byte(i)}), Mask: netip.AddrFrom4([4]byte{3: 3})}
		claims = append(claims, steer.Claim{Owner: o, Set: portion.Set{Permit: []portion.Portion{p}}})
	}
	return claims
}

func TestCompileOwnersTables(t *testing.T) {
	other := netip.MustParseAddr("239.2.2.2")
	want, err := compile(State{
		Interfaces: interfaces("u", "v", "a", "b"),
		Private: map[netip.Addr]Private{
			group: {Owners: map[steer.Owner]string{1: "a", 2: "v"}, In: []string{"u", "v"}},
			other: {Owners: map[steer.Owner]string{1: "b"}, In: []string{"u"}},
		},
	}, ownerConfig(), vifs())
	if err != nil {
		t.Fatal(err)
	}
	tables := map[uint32][]mroute.Entry{
		253: nil,
		10001: {
			{Group: group, Parent: 0, Out: 0b0101},
			{Group: group, Parent: 1, Out: 0b0110},
			{Group: other, Parent: 0, Out: 0b1001},
		},
		10002: {{Group: group, Parent: 0, Out: 0b0011}}, // nothing goes back by v
	}
	if d := cmp.Diff(tables, want.tables, compare); d != "" {
		t.Error(d)
	}
	// Owner 1 leaves by another interface for each group: its table decides.
	if want.exits[1] != (exit{}) || want.exits[2] != (exit{"v"}) {
		t.Errorf("exits %+v", want.exits)
	}
	if len(want.ports) != 3 || !want.ports[port{other, "u"}] || want.ports[port{other, "v"}] {
		t.Errorf("ports %v", want.ports)
	}
}

func TestCompilePublicRoutes(t *testing.T) {
	for _, c := range []struct {
		name    string
		route   Route
		entries []mroute.Entry
		demand  bool
	}{
		{"any source, members elsewhere", Route{Group: publicGrp, In: []string{"u", "v"}, Out: []string{"a"}}, []mroute.Entry{
			{Group: publicGrp, Parent: 0, Out: 0b0101},
			{Group: publicGrp, Parent: 1, Out: 0b0110},
			{Group: publicGrp, Parent: 3, Out: 0b1000}, // b: dropped
		}, false},
		{"any source, one way in that has members", Route{Group: publicGrp, In: []string{"u"}, Out: []string{"u", "v", "a", "b"}}, []mroute.Entry{
			{Group: publicGrp, Parent: 0, Out: 0b1111},
		}, false},
		{"any source, several ways in with members", Route{Group: publicGrp, In: []string{"u", "v"}, Out: []string{"u", "a"}}, nil, true},
		{"one source", Route{Group: publicGrp, Source: source, In: []string{"v"}, Out: []string{"v", "b"}}, []mroute.Entry{
			{Group: publicGrp, Source: source, Parent: 1, Out: 0b1000},
		}, false},
		{"one source by several ways", Route{Group: publicGrp, Source: source, In: []string{"u", "v"}, Out: []string{"b"}}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := compile(State{Interfaces: interfaces("u", "v", "a", "b"), Public: []Route{c.route}}, ownerConfig(), vifs())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.entries, want.tables[253], compare); d != "" {
				t.Error(d)
			}
			if _, demand := want.demand.routes[sg{c.route.Source, c.route.Group}]; demand != c.demand {
				t.Errorf("on demand: %v", demand)
			}
		})
	}
}

func TestCompileTellsWhatCannotBeAndDoesTheRest(t *testing.T) {
	want, err := compile(State{
		Interfaces: interfaces("u", "a", "gone"),
		Private: map[netip.Addr]Private{
			group:  {Owners: map[steer.Owner]string{1: "a", 2: "nowhere", 0: "a", 4096: "a", 3: "gone"}, In: []string{"u", "gone"}},
			source: {},
		},
		Public: []Route{{Group: publicGrp, In: []string{"u"}}, {Group: publicGrp}},
	}, ownerConfig(), map[string]int{"u": 0, "a": 1})
	for _, text := range []string{`"nowhere"`, "owner 0", "owner 4096", "10.0.1.9", "two routes"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error lacks %s: %v", text, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "gone") {
		t.Errorf("an interface that is away for a moment is told elsewhere: %v", err)
	}
	if got := want.tables[10001]; len(got) != 1 || got[0] != (mroute.Entry{Group: group, Parent: 0, Out: 0b11}) {
		t.Errorf("owner 1: %v", got)
	}
}

func TestConfigCheck(t *testing.T) {
	if err := ownerConfig().Check(); err != nil {
		t.Error(err)
	}
	if got := ownerConfig().OwnersMax(); got != 4095 {
		t.Errorf("OwnersMax = %d", got)
	}
	for text, change := range map[string]func(*Config){
		"source_entries_max": func(c *Config) { c.SourceEntriesMax = 0 },
		"neither":            func(c *Config) { c.Mode = "both" },
		"mark 0x0":           func(c *Config) { c.Mark = 0 },
		"within mark_mask":   func(c *Config) { c.Mark = 0x100000 },
		"no low bits":        func(c *Config) { c.Mark |= 1 },
		"table_base":         func(c *Config) { c.TableBase = 99_999_000 },
		"public_table":       func(c *Config) { c.PublicTable = 10007 },
		"bpffs":              func(c *Config) { c.BPFFS = "" },
	} {
		c := ownerConfig()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
