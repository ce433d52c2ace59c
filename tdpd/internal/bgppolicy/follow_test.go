package bgppolicy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

var start = time.Unix(1_800_000_000, 0)

func learned(prefix string, from netip.Addr, communities ...bgp.Community) bgp.Event {
	p := pathTo(prefix, communities...).Path
	p.From, p.NextHop = from, from
	return bgp.Event{Learned: &bgp.Learned{Unicast: &p}}
}

func labelled(prefix string, from netip.Addr, label uint32) bgp.Event {
	p := pathTo(prefix).Path
	p.From, p.NextHop = from, from
	return bgp.Event{Learned: &bgp.Learned{Labelled: &bgp.LabelledPath{Path: p, Label: label}}}
}

func lost(prefix string, withLabel bool) bgp.Event {
	p := netip.MustParsePrefix(prefix)
	family := bgp.UnicastOf(p)
	if withLabel {
		family = bgp.LabelledOf(p)
	}
	return bgp.Event{Lost: &bgp.Lost{Family: family, Prefix: p}}
}

func neighbor(a netip.Addr, s bgp.SessionState) bgp.Event {
	return bgp.Event{Neighbor: &bgp.NeighborEvent{Address: a, State: s}}
}

// rig drives a Follow.
type rig struct {
	*testing.T
	f   *Follow
	now time.Time
}

func newRig(t *testing.T, c FollowConfig) *rig {
	c.Import = all
	return &rig{t, New(c), start}
}

func (r *rig) take(events ...bgp.Event) {
	for _, e := range events {
		r.f.Take(r.now, e)
	}
}

func (r *rig) pass(d time.Duration) {
	r.now = r.now.Add(d)
	r.f.Tick(r.now)
}

// want compares with changes such as "+10.1.0.0/16 ~10.2.0.0/16@7 -10.3.0.0/16 stale:10.4.0.0/16 fresh:10.5.0.0/16".
func (r *rig) want(want string) {
	r.Helper()
	if got := text(r.f.Changes()); got != want {
		r.Fatalf("after %v: changes %q, want %q", r.now.Sub(start), got, want)
	}
}

func text(c Changes) string {
	var words []string
	for _, l := range []struct {
		mark string
		all  []Route
	}{{"+", c.Added}, {"~", c.Changed}, {"stale:", c.Stale}, {"fresh:", c.Fresh}} {
		for _, one := range l.all {
			word := l.mark + one.Prefix.String()
			if one.Label != NoLabel {
				word += fmt.Sprintf("@%d", one.Label)
			}
			words = append(words, word)
		}
	}
	for _, p := range c.Gone {
		words = append(words, "-"+p.String())
	}
	return strings.Join(words, " ")
}

func TestManyEventsAreOneChange(t *testing.T) {
	r := newRig(t, FollowConfig{})
	r.take(learned("10.1.0.0/16", n1), learned("10.1.0.0/16", n2), learned("10.2.0.0/16", n1), lost("10.2.0.0/16", false), lost("10.3.0.0/16", false))
	r.want("+10.1.0.0/16")
	r.take(learned("10.1.0.0/16", n1), learned("10.1.0.0/16", n2))
	r.want("") // as it was
	r.take(lost("10.1.0.0/16", false), learned("10.1.0.0/16", n1))
	r.want("~10.1.0.0/16")
	r.take(labelled("10.1.0.0/16", n2, 7))
	r.want("~10.1.0.0/16@7")
	r.take(learned("10.1.0.0/16", n2))
	r.want("") // the one with a label counts
	r.take(lost("10.1.0.0/16", true))
	r.want("~10.1.0.0/16")
	r.take(lost("10.1.0.0/16", false))
	r.want("-10.1.0.0/16")
	if r.f.Len() != 0 || len(r.f.of) != 0 {
		t.Errorf("%d prefixes are left, of neighbors %v", r.f.Len(), r.f.of)
	}
}

func TestWhatIsRefusedIsNotKept(t *testing.T) {
	r := newRig(t, FollowConfig{})
	noHop := learned("10.1.0.0/16", n1)
	noHop.Learned.Unicast.NextHop = netip.Addr{}
	r.take(noHop, learned("0.0.0.0/0", n1), learned("127.0.0.0/8", n1), labelled("10.1.0.0/16", n1, 1<<20+1), learned("10.2.0.0/16", n1))
	r.want("+10.2.0.0/16")
	if got := r.f.Counts(); got != (Counts{Passes: 1, Malformed: 2, DefaultRoute: 1, Martian: 1}) {
		t.Errorf("counts %v", got)
	}
	r.f.SetVIPs([]netip.Prefix{netip.MustParsePrefix("10.2.0.0/15")})
	r.want("-10.2.0.0/16")
	r.take(learned("10.2.0.0/16", n1))
	r.want("")
	r.f.config.Import.Rules = []Rule{{PolicyRule: bgp.PolicyRule{Communities: []bgp.Community{7}}}}
	r.take(learned("10.4.0.0/16", n1, 7))
	r.want("+10.4.0.0/16")
	r.take(learned("10.4.0.0/16", n1)) // the path has changed, and passes no more
	r.want("-10.4.0.0/16")
}

func TestLimits(t *testing.T) {
	r := newRig(t, FollowConfig{Most: 3, MostOf: 2})
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n1), learned("10.3.0.0/16", n1), learned("10.4.0.0/16", n2), learned("10.5.0.0/16", n2))
	r.want("+10.1.0.0/16 +10.2.0.0/16 +10.4.0.0/16")
	r.take(labelled("10.4.0.0/16", n2, 5), learned("10.1.0.0/16", n1)) // of what is there
	r.want("~10.4.0.0/16@5")
	r.take(lost("10.1.0.0/16", false))
	r.want("-10.1.0.0/16")
	r.take(learned("10.3.0.0/16", n1))
	r.want("+10.3.0.0/16")
	if got := r.f.Counts()[OverLimit]; got != 2 {
		t.Errorf("%d over the limit, want 2", got)
	}
}

// TestLostTakesNoPlace: who replaces all that it has told while nobody asks for changes is not over the limit, and of what comes and goes meanwhile nothing is left.
func TestLostTakesNoPlace(t *testing.T) {
	r := newRig(t, FollowConfig{Most: 2})
	r.take(learned("10.0.0.0/16", n1), learned("10.1.0.0/16", n1))
	r.want("+10.0.0.0/16 +10.1.0.0/16")
	r.take(lost("10.0.0.0/16", false), lost("10.1.0.0/16", false))
	for i := range 100 {
		p := fmt.Sprintf("10.2.%d.0/24", i)
		r.take(learned(p, n1), lost(p, false))
	}
	r.take(learned("10.3.0.0/16", n1), learned("10.1.0.0/16", n2), learned("10.4.0.0/16", n1))
	if n, over := r.f.Len(), r.f.Counts()[OverLimit]; n != 2 || over != 1 || len(r.f.entries) != 3 {
		t.Errorf("%d prefixes in %d entries, %d over the limit", n, len(r.f.entries), over)
	}
	r.want("+10.3.0.0/16 ~10.1.0.0/16 -10.0.0.0/16")
	if len(r.f.entries) != 2 {
		t.Errorf("%d entries", len(r.f.entries))
	}
}

// restarts keeps for 120 s, and for 1000 s longer.
var restarts = FollowConfig{Restart: 120 * time.Second, LongLived: 1000 * time.Second}

func TestGracefulRestart(t *testing.T) {
	r := newRig(t, restarts)
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n1), learned("10.3.0.0/16", n2), labelled("10.4.0.0/16", n1, 9))
	r.f.Changes()
	r.take(neighbor(n1, bgp.Idle))
	r.want("stale:10.1.0.0/16 stale:10.2.0.0/16 stale:10.4.0.0/16@9")
	r.pass(100 * time.Second)
	r.take(neighbor(n1, bgp.Active), neighbor(n1, bgp.Established))
	r.want("")
	r.take(learned("10.1.0.0/16", n1), labelled("10.4.0.0/16", n1, 10))
	r.want("~10.4.0.0/16@10 fresh:10.1.0.0/16")
	r.pass(120*time.Second - 1)
	r.want("")
	r.pass(1)
	r.want("-10.2.0.0/16")
	if !r.f.Next(r.now).IsZero() {
		t.Error("time is waited for when nothing is stale")
	}
}

func TestLongLivedGracefulRestart(t *testing.T) {
	r := newRig(t, restarts)
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n1, bgp.NoLLGR))
	r.f.Changes()
	r.take(neighbor(n1, bgp.Idle))
	r.want("stale:10.1.0.0/16 stale:10.2.0.0/16")
	if got := r.f.Next(r.now).Sub(r.now); got != 120*time.Second {
		t.Errorf("the next thing happens after %v", got)
	}
	r.pass(120 * time.Second)
	r.want("-10.2.0.0/16") // RFC 9494 section 4.2: it says so itself
	r.take(neighbor(n1, bgp.Connect))
	r.pass(1000*time.Second - 1)
	r.want("")
	r.pass(1)
	r.want("-10.1.0.0/16")
}

func TestAnotherRestartBeforeAllWasToldAgain(t *testing.T) {
	r := newRig(t, restarts)
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n1))
	r.take(neighbor(n1, bgp.Idle), neighbor(n1, bgp.Established), learned("10.1.0.0/16", n1))
	r.want("+10.1.0.0/16 +10.2.0.0/16")
	r.take(neighbor(n1, bgp.Idle))
	r.want("stale:10.1.0.0/16 -10.2.0.0/16")
}

func TestWithoutGracefulRestartAllGoes(t *testing.T) {
	r := newRig(t, FollowConfig{})
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n2))
	r.f.Changes()
	r.take(neighbor(n1, bgp.Idle))
	r.want("-10.1.0.0/16")
}

func TestTheSpeakerIsLost(t *testing.T) {
	r := newRig(t, restarts)
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n2))
	r.f.Changes()
	r.f.SpeakerLost(r.now)
	r.f.SpeakerLost(r.now.Add(time.Second))
	r.want("stale:10.1.0.0/16 stale:10.2.0.0/16")
	r.take(learned("10.1.0.0/16", n1), learned("10.2.0.0/16", n2))
	r.want("fresh:10.1.0.0/16 fresh:10.2.0.0/16")
}

// Whatever comes in which order: changes lead from what was told to what is kept, and what is kept is what passed last.
func TestChangesLeadToWhatIsKept(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 9494))
		f, now := New(FollowConfig{Import: all, Restart: 10 * time.Second, LongLived: 20 * time.Second, Most: 12}), start
		told := map[netip.Prefix]Route{}
		for range 300 {
			prefix, from := fmt.Sprintf("10.%d.0.0/16", rnd.IntN(16)), []netip.Addr{n1, n2}[rnd.IntN(2)]
			switch rnd.IntN(8) {
			case 0, 1:
				f.Take(now, learned(prefix, from))
			case 2:
				f.Take(now, labelled(prefix, from, uint32(rnd.IntN(3))))
			case 3:
				f.Take(now, lost(prefix, rnd.IntN(2) == 0))
			case 4:
				f.Take(now, neighbor(from, []bgp.SessionState{bgp.Idle, bgp.Established}[rnd.IntN(2)]))
			case 5:
				now = now.Add(time.Duration(rnd.IntN(8)) * time.Second)
				f.Tick(now)
			default:
				apply(t, told, f.Changes())
			}
		}
		apply(t, told, f.Changes())
		n := 0
		f.Routes(func(r Route) bool {
			if n++; told[r.Prefix] != r {
				t.Fatalf("seed %d: %+v is kept, %+v was told", seed, r, told[r.Prefix])
			}
			return true
		})
		if n != len(told) || n != f.Len() || n > 12 {
			t.Fatalf("seed %d: %d routes, %d told, %d prefixes", seed, n, len(told), f.Len())
		}
		sum := 0
		for _, of := range f.of {
			sum += of
		}
		paths := 0
		for _, e := range f.entries {
			for _, k := range []*kept{e.plain, e.labelled} {
				if k != nil {
					paths++
				}
			}
		}
		if sum != paths {
			t.Fatalf("seed %d: %d paths, counted %d", seed, paths, sum)
		}
	}
}

func apply(t *testing.T, told map[netip.Prefix]Route, c Changes) {
	t.Helper()
	for _, r := range c.Added {
		if _, known := told[r.Prefix]; known {
			t.Fatalf("%v is added twice", r.Prefix)
		}
		told[r.Prefix] = r
	}
	for _, r := range slices.Concat(c.Changed, c.Stale, c.Fresh) {
		if was, known := told[r.Prefix]; !known || was == r {
			t.Fatalf("%+v changes into %+v", was, r)
		}
		told[r.Prefix] = r
	}
	for _, p := range c.Gone {
		if _, known := told[p]; !known {
			t.Fatalf("%v goes and was not there", p)
		}
		delete(told, p)
	}
}

// flood are events about n prefixes, of which a filter wants ten.
func flood(n int) []bgp.Event {
	out := make([]bgp.Event, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte{11 + byte(i>>16), byte(i >> 8), byte(i), 0})
		out[i] = bgp.Event{Learned: &bgp.Learned{Unicast: &bgp.Path{Prefix: netip.PrefixFrom(a, 24), From: n1, Attributes: bgp.Attributes{NextHop: n1, ASPath: []uint32{65001, 65002}}}}}
	}
	return out
}

func wantsTen(t testing.TB) FollowConfig {
	p := Policy{}
	for i := range 10 {
		p.Rules = append(p.Rules, Rule{PolicyRule: bgp.PolicyRule{Prefixes: []bgp.PrefixRange{ranged(t, fmt.Sprintf("11.%d.7.0/24", i), 0, 0)}}})
	}
	return FollowConfig{Import: p}
}

func TestAFloodOfRoutesTakesNoMemory(t *testing.T) {
	events := flood(500_000)
	f := New(wantsTen(t))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, e := range events {
		f.Take(start, e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if c := f.Changes(); len(c.Added) != 10 || f.Len() != 10 || f.Counts()[NoRule] != 499_990 {
		t.Errorf("%d added, %d kept, counts %v", len(c.Added), f.Len(), f.Counts())
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d bytes are held for ten routes", grown)
	}
	runtime.KeepAlive(events)
}

func BenchmarkFollow(b *testing.B) {
	events := flood(500_000)
	for _, c := range []struct {
		name   string
		config FollowConfig
	}{{"ten-of-500000", wantsTen(b)}, {"all-of-500000", FollowConfig{Import: all}}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				f := New(c.config)
				for i, e := range events {
					if f.Take(start, e); i%bgp.EventsMost == 0 {
						f.Changes()
					}
				}
			}
			b.ReportMetric(float64(len(events))*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
