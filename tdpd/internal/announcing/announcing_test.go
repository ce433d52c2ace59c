package announcing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

var (
	start = time.Unix(1_800_000_000, 0)
	web   = netip.MustParseAddr("198.51.100.1")
	mail  = netip.MustParseAddr("2001:db8::25")
	med   = uint32(100)
	host  = bgp.LabelledPath{Path: bgp.Path{Prefix: netip.MustParsePrefix("10.0.0.5/32")}, Label: 1005}
)

func config() Config {
	return Config{
		Soft:   Soft{Prepend: 3, Communities: []bgp.Community{bgp.GracefulShutdown}},
		Settle: 2 * time.Second, Patience: 10 * time.Second,
		Flaps: Flaps{First: time.Second, Max: 8 * time.Second, Forget: time.Minute},
	}
}

// rig drives an Announcing; times are since start.
type rig struct {
	t   *testing.T
	a   *Announcing
	now time.Time
}

func newRig(t *testing.T, c Config) *rig {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	return &rig{t, New(start, c), start}
}

func (r *rig) services(reach Reach, vips ...netip.Addr) {
	r.a.Services(r.now, []Service{{"web", vips, reach}})
}

func (r *rig) told() { r.a.Told(r.now, r.a.Version()) }

func (r *rig) pass(d time.Duration) {
	r.now = r.now.Add(d)
	r.a.Tick(r.now)
}

// want compares with what is announced, such as "in 198.51.100.1/32 2001:db8::25/128+3"; a plus sign is for soft paths.
func (r *rig) want(want string) {
	r.t.Helper()
	words := []string{r.a.phase.String()}
	mark := func(p bgp.Path) string {
		if p.Prepend > 0 || p.MED != nil || len(p.Communities) > 0 {
			return "+"
		}
		return ""
	}
	for _, p := range r.a.Paths() {
		words = append(words, p.Prefix.String()+mark(p))
	}
	for _, h := range r.a.Hosts() {
		words = append(words, fmt.Sprintf("%v@%d%s", h.Prefix, h.Label, mark(h.Path)))
	}
	if got := strings.Join(words, " "); got != want {
		r.t.Fatalf("at %v: %s\nwant %s", r.now.Sub(start), got, want)
	}
}

func (r *rig) waits(want Wait) {
	r.t.Helper()
	if p := r.a.Progress(r.now); p.Waits != want {
		r.t.Fatalf("at %v, %v: waits for %v, want %v", r.now.Sub(start), p.Phase, p.Waits, want)
	}
}

func TestComingIn(t *testing.T) {
	r := newRig(t, config())
	r.waits(ForService)
	r.pass(time.Hour)
	r.services(NoTree, web)
	r.want("entering")
	r.services(Reached, web)
	r.want("entering 198.51.100.1/32+")
	r.waits(ForSpeaker)
	r.a.Speaks(true)
	r.waits(ForTelling)
	r.told()
	r.waits(ForSettling)
	r.pass(1999 * time.Millisecond)
	r.want("entering 198.51.100.1/32+")
	r.pass(time.Millisecond)
	r.want("in 198.51.100.1/32")
	r.waits(ForNothing)
}

// VIPs that were announced all the time do not come in anew, whenever that becomes known; who is drained stays so.
func TestGoingOn(t *testing.T) {
	for _, reachedBefore := range []bool{false, true} {
		r := newRig(t, config())
		if reachedBefore {
			r.services(Reached, web)
			r.want("entering 198.51.100.1/32+")
		}
		if r.a.Resume(r.now) != reachedBefore {
			t.Error("what is announced has changed, or not")
		}
		if !reachedBefore {
			r.want("in")
			r.services(Reached, web)
		}
		r.want("in 198.51.100.1/32")
		r.a.Drain(r.now)
		r.a.Resume(r.now)
		r.want("leaving 198.51.100.1/32+")
	}
}

// in is a router that announces.
func in(t *testing.T, c Config) *rig {
	r := newRig(t, c)
	r.a.Speaks(true)
	r.services(Reached, web)
	r.told()
	r.pass(c.Settle)
	r.told()
	return r
}

func TestDrain(t *testing.T) {
	r := in(t, config())
	r.a.SetHosts(r.now, []bgp.LabelledPath{host})
	r.want("in 198.51.100.1/32 10.0.0.5/32@1005")
	if !r.a.Drain(r.now) || r.a.Drain(r.now) {
		t.Error("draining changes what is announced, once")
	}
	r.want("leaving 198.51.100.1/32+ 10.0.0.5/32@1005")
	r.waits(ForTelling)
	r.pass(time.Second)
	r.told()
	r.pass(time.Second)
	r.want("leaving 198.51.100.1/32+ 10.0.0.5/32@1005")
	r.pass(time.Second)
	r.want("withdrawn 10.0.0.5/32@1005")
	r.told()
	r.pass(2 * time.Second)
	r.want("out")
	r.waits(ForNothing)
	if p := r.a.Progress(r.now); !p.Drained || p.Forced || !p.Until.IsZero() {
		t.Errorf("progress %+v", p)
	}
	if !r.a.Next(r.now).IsZero() {
		t.Error("time is waited for when all is over")
	}
	r.services(Reached, web, mail)
	r.want("out")
	r.a.Return(r.now)
	r.want("entering 198.51.100.1/32+ 2001:db8::25/128+ 10.0.0.5/32@1005")
}

func TestReturnInTheMiddle(t *testing.T) {
	r := in(t, config())
	r.a.Drain(r.now)
	r.told()
	r.pass(time.Second)
	r.a.Return(r.now)
	r.want("entering 198.51.100.1/32+")
	r.waits(ForSettling) // they have been told these paths
	r.pass(2 * time.Second)
	r.want("in 198.51.100.1/32")
}

func TestPatience(t *testing.T) {
	r := in(t, config())
	r.a.Drain(r.now)
	r.pass(10*time.Second - 1)
	r.want("leaving 198.51.100.1/32+")
	r.pass(1)
	r.want("withdrawn")
	if !r.a.Progress(r.now).Forced {
		t.Error("nothing says that neighbors were not waited for")
	}
	r.a.Speaks(false)
	r.waits(ForSpeaker)
	r.pass(10 * time.Second)
	r.want("out")
}

func TestWithoutSoftPathsNothingIsWaitedFor(t *testing.T) {
	c := config()
	c.Soft = Soft{}
	r := newRig(t, c)
	r.services(Reached, web)
	r.want("in 198.51.100.1/32")
	r.a.Drain(r.now)
	r.want("withdrawn")
}

func TestWhatIsNotReachedIsWithdrawnAtOnce(t *testing.T) {
	r := in(t, config())
	r.services(NoServer, web)
	r.want("in")
	r.services(Reached, web)
	r.want("in") // damped: 1 s
	r.pass(time.Second)
	r.want("in 198.51.100.1/32")
	for i, out := range []time.Duration{2, 4, 8, 8} {
		r.services(NoServer, web)
		r.services(Reached, web)
		if next := r.a.Next(r.now); !next.Equal(r.now.Add(out * time.Second)) {
			t.Errorf("flap %d: out for %v, want %v", i, next.Sub(r.now), out*time.Second)
		}
		r.pass(out*time.Second - 1)
		r.want("in")
		r.pass(1)
		r.want("in 198.51.100.1/32")
	}
	r.services(NoServer)
	r.services(Reached, web) // to take a service away and bring it back is no way around
	r.want("in")
	p := r.a.Progress(r.now)
	if len(p.VIPs) != 1 || p.VIPs[0].Announced || p.VIPs[0].Flaps != 6 || !p.VIPs[0].Damped.Equal(r.now.Add(8*time.Second)) {
		t.Errorf("progress %+v", p)
	}
}

func TestOneServiceOfAVIPIsEnough(t *testing.T) {
	r := in(t, config())
	both := func(a, b Reach) {
		r.a.Services(r.now, []Service{{"http", []netip.Addr{web}, a}, {"https", []netip.Addr{web, mail}, b}})
	}
	both(NoBinding, Reached)
	r.want("in 198.51.100.1/32 2001:db8::25/128")
	both(Reached, NoTree)
	r.want("in 198.51.100.1/32")
	both(NoServer, NoTree)
	r.want("in")
	if p := r.a.Progress(r.now); p.VIPs[0].Reach != NoServer || p.VIPs[1].Reach != NoTree {
		t.Errorf("progress %+v", p)
	}
}

func TestCovers(t *testing.T) {
	c := config()
	c.Covers = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/48"), netip.MustParsePrefix("192.0.2.0/24")}
	c.Soft = Soft{MED: &med}
	r := in(t, c)
	r.want("in 198.51.100.0/24 198.51.100.1/32")
	r.services(Reached, web, mail)
	r.want("in 198.51.100.0/24 198.51.100.1/32 2001:db8::/48 2001:db8::25/128")
	r.a.Drain(r.now)
	r.want("leaving 198.51.100.0/24+ 198.51.100.1/32+ 2001:db8::/48+ 2001:db8::25/128+")
	r.services(NoServer, web, mail)
	r.want("withdrawn")
	if c := r.a.Progress(r.now).Counts; c != (Counts{Announced: 4, Withdrawn: 4, Damped: 2}) {
		t.Errorf("%+v", c)
	}
}

func TestServersAnnounceNoVIP(t *testing.T) {
	c := config()
	c.Server = true
	r := newRig(t, c)
	r.a.Speaks(true)
	r.services(Reached, web)
	r.told()
	r.pass(time.Hour)
	if p := r.a.Progress(r.now); p.Waits != ForHost || !p.Server || len(p.Hosts) != 0 {
		t.Errorf("progress %+v", p)
	}
	r.want("entering")
	r.a.SetHosts(r.now, []bgp.LabelledPath{host})
	r.want("entering 10.0.0.5/32@1005+")
	r.pass(c.Settle)
	r.want("entering 10.0.0.5/32@1005+") // nobody was told
	r.told()
	r.pass(c.Settle)
	r.want("in 10.0.0.5/32@1005")
	r.a.Drain(r.now)
	r.want("leaving 10.0.0.5/32@1005+")
	r.told()
	r.pass(c.Settle - 1)
	r.want("leaving 10.0.0.5/32@1005+")
	r.pass(1)
	r.want("withdrawn")
	if p := r.a.Progress(r.now); p.Waits != ForTelling || len(p.Hosts) != 1 || p.Hosts[0] != host.Prefix {
		t.Errorf("progress %+v", p)
	}
	r.told()
	r.pass(c.Settle)
	r.want("out")
	r.a.Return(r.now)
	r.want("entering 10.0.0.5/32@1005+")
	r.pass(c.Patience)
	r.want("in 10.0.0.5/32@1005")
	r.a.SetHosts(r.now, nil)
	r.want("in")
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"too long a path":     func(c *Config) { c.Soft.Prepend = bgp.PrependMost + 1 },
		"no patience":         func(c *Config) { c.Patience = 0 },
		"a default route":     func(c *Config) { c.Covers = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")} },
		"bits behind":         func(c *Config) { c.Covers = []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")} },
		"shorter and shorter": func(c *Config) { c.Flaps.Max = c.Flaps.First - 1 },
		"never forgotten":     func(c *Config) { c.Flaps.Forget = 0 },
	} {
		c := config()
		spoil(&c)
		if c.Check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Whatever comes in which order: what is announced is reached, nothing is withdrawn by a drain before all were told and had time, or patience was
// over, and every change has a number.
func TestWhateverComes(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		c := config()
		c.Covers = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
		a, now := New(start, c), start
		reach := map[netip.Addr]Reach{}
		var softSince, toldSince time.Time // of the drain under way
		for range 200 {
			before, version, phase := a.Paths(), a.Version(), a.phase
			switch r.IntN(7) {
			case 0, 1:
				reach[web], reach[mail] = Reach(r.IntN(2))*NoServer, Reach(r.IntN(2))*NoTree
				a.Services(now, []Service{{"web", []netip.Addr{web}, reach[web]}, {"mail", []netip.Addr{mail}, reach[mail]}})
			case 2:
				a.Drain(now)
			case 3:
				if r.IntN(3) == 0 {
					a.Return(now)
				}
			case 4:
				a.Told(now, a.Version())
			default:
				now = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
				a.Tick(now)
			}
			if a.phase != phase && a.phase == Leaving {
				softSince, toldSince = now, time.Time{}
			}
			if a.phase == Leaving && toldSince.IsZero() && a.told >= a.step.version {
				toldSince = now
			}
			changed := !slices.EqualFunc(before, a.Paths(), samePath)
			if changed != (a.Version() != version) && len(a.hosts) == 0 {
				t.Fatalf("seed %d: changed %v, version %d after %d", seed, changed, a.Version(), version)
			}
			for _, p := range a.Paths() {
				if p.Prefix.IsSingleIP() && reach[p.Prefix.Addr()] != Reached {
					t.Fatalf("seed %d: %v is announced and %v", seed, p.Prefix, reach[p.Prefix.Addr()])
				}
				if soft := p.Prepend > 0; soft == (a.phase == In) || a.phase >= Withdrawn {
					t.Fatalf("seed %d: %v: path %+v", seed, a.phase, p)
				}
			}
			if phase == Leaving && a.phase == Withdrawn && len(before) > 0 && reachedAny(before, reach) {
				waited := !toldSince.IsZero() && now.Sub(toldSince) >= c.Settle || now.Sub(softSince) >= c.Patience
				if !waited {
					t.Fatalf("seed %d: withdrawn %v after the drain", seed, now.Sub(softSince))
				}
			}
		}
	}
}

func reachedAny(paths []bgp.Path, reach map[netip.Addr]Reach) bool {
	return slices.ContainsFunc(paths, func(p bgp.Path) bool { return p.Prefix.IsSingleIP() && reach[p.Prefix.Addr()] == Reached })
}
