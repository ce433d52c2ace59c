package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
)

var (
	vip      = netip.MustParseAddr("198.51.100.1")
	foreign  = netip.MustParseAddr("203.0.113.1") // a VIP that is not announced here
	s1       = netip.MustParseAddr("10.0.0.11")
	s2       = netip.MustParseAddr("10.0.0.12")
	neighbor = netip.MustParseAddr("10.0.0.1")
)

// speaker is one without a network: what it has is what was applied, and its neighbor has all of it at once.
type speaker struct {
	mutex   sync.Mutex
	applied []bgp.Desired
	fails   error
	session bgp.SessionState
	updates uint64
	busy    bool          // sends without end
	anew    bool          // it knows of no neighbor
	counts  time.Duration // takes so long to say how neighbors are
	asked   int           // for that
	// What Underway says.
	underway bool
	unseen   error
	events   chan []bgp.Event
	mute     error // it tells no events
}

func (s *speaker) Apply(_ context.Context, d bgp.Desired) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.fails != nil && !errors.Is(s.fails, bgp.ErrWaits) {
		return s.fails
	}
	s.applied, s.updates, s.anew = append(s.applied, d), s.updates+1, false
	return s.fails
}

func (s *speaker) Watch(context.Context) (<-chan []bgp.Event, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.events, s.mute
}

func (s *speaker) Neighbors(context.Context) ([]bgp.NeighborState, error) {
	s.mutex.Lock()
	counts := s.counts
	s.asked++
	s.mutex.Unlock()
	time.Sleep(counts)
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.busy {
		s.updates++
	}
	if s.anew {
		return nil, nil
	}
	return []bgp.NeighborState{{Address: neighbor, State: s.session, Sent: bgp.Messages{Updates: s.updates}}}, nil
}

func (s *speaker) isUnderway(d bgp.Desired) (bool, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.underway && len(d.Neighbors) == 1 && d.Neighbors[0].Address == neighbor, s.unseen
}

func (s *speaker) Routes(context.Context, bgp.Query, func(bgp.Route) bool) error { return nil }
func (s *speaker) Clear(context.Context, netip.Addr, bool) error                 { return nil }

// set changes how it is.
func (s *speaker) set(f func()) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	f()
}

// rig is a Loop with a speaker, in a bubble of its own time.
type rig struct {
	*testing.T
	loop    *Loop
	speaker *speaker
}

func inBubble(t *testing.T, test func(r *rig), change ...func(*Options)) {
	synctest.Test(t, func(t *testing.T) {
		s := &speaker{session: bgp.Established, events: make(chan []bgp.Event)}
		o := Options{
			Speaker: s, Base: bgp.Desired{AS: 65001, Neighbors: []bgp.Neighbor{{Address: neighbor}}}, VIPs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
			Announcing: announcing.Config{
				Soft: announcing.Soft{Communities: []bgp.Community{bgp.GracefulShutdown}}, Settle: time.Second, Patience: 10 * time.Second,
			},
			FlowSpec: flowspec.Config{Most: 100}, Underway: s.isUnderway,
			Follow: bgppolicy.FollowConfig{Import: bgppolicy.Policy{Rules: []bgppolicy.Rule{{}}}, Restart: 30 * time.Second},
			Log:    slog.New(slog.DiscardHandler),
		}
		for _, f := range change {
			f(&o)
		}
		r := &rig{t, New(o), s}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.loop.Run(ctx) }()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		s.events <- []bgp.Event{{Neighbor: &bgp.NeighborEvent{Address: neighbor, State: bgp.Established}}, {Synced: true}}
		test(r)
	})
}

func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want compares with what the speaker has, such as "198.51.100.1/32+ | 0.0.0.0/1>10.0.0.11"; a plus sign is for soft paths.
func (r *rig) want(want string) {
	r.Helper()
	synctest.Wait()
	r.speaker.mutex.Lock()
	d := r.speaker.applied[len(r.speaker.applied)-1]
	r.speaker.mutex.Unlock()
	if got := text(d); got != want {
		r.Fatalf("the speaker has %q, want %q", got, want)
	}
}

func text(d bgp.Desired) string {
	var parts []string
	for _, p := range d.Unicast {
		parts = append(parts, p.Prefix.String()+strings.Repeat("+", len(p.Communities)))
	}
	for _, p := range d.Labelled {
		parts = append(parts, fmt.Sprintf("%v@%d", p.Prefix, p.Label))
	}
	for _, rule := range d.Rules {
		parts = append(parts, fmt.Sprintf("%v>%v", rule.Source, rule.RedirectIP))
	}
	return strings.Join(parts, " ")
}

func halves(first, second netip.Addr) []flowspec.Bound {
	return []flowspec.Bound{{Portion: portion.MustParse("0.0.0.0/1"), Server: first}, {Portion: portion.MustParse("128.0.0.0/1"), Server: second}}
}

func view(reach announcing.Reach, bounds []flowspec.Bound) View {
	return View{
		Services: []announcing.Service{{Name: "web", VIPs: []netip.Addr{vip, foreign}, Reach: reach}},
		Users:    []flowspec.Users{{Service: "web", VIPs: []netip.Addr{vip, foreign}, Four: bounds}},
		Hosts:    []bgp.LabelledPath{{Path: bgp.Path{Prefix: netip.PrefixFrom(s1, 32)}, Label: 1011}},
	}
}

func TestVIPsAndTheirRulesComeAndGo(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.want("")
		r.loop.Say(view(announcing.NoTree, halves(s1, s2)))
		r.want("10.0.0.11/32@1011")
		r.loop.Say(view(announcing.Reached, halves(s1, s2)))
		rules := " 0.0.0.0/1>10.0.0.11 128.0.0.0/1>10.0.0.12"
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011" + rules)
		r.pass(2 * time.Second)
		r.want("198.51.100.1/32 10.0.0.11/32@1011" + rules)
		if err := r.loop.Drain(r.Context(), false); err != nil {
			r.Fatal(err)
		}
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011" + rules)
		r.pass(2 * time.Second)
		r.want("10.0.0.11/32@1011")
		r.pass(2 * time.Second)
		r.want("")
		if s, err := r.loop.Status(r.Context()); err != nil || s.Announcing.Phase != announcing.Out || s.Moving {
			r.Errorf("%+v, %v", s, err)
		}
		if err := r.loop.Drain(r.Context(), true); err != nil {
			r.Fatal(err)
		}
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011" + rules)
		r.loop.Say(view(announcing.NoServer, nil))
		r.want("10.0.0.11/32@1011" + rules) // which nobody takes without the VIP; they go in their turn
		r.pass(time.Second)
		r.want("10.0.0.11/32@1011")
	})
}

// A step of rules waits until the neighbors have the one before.
func TestRulesChangeInSteps(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.loop.Say(view(announcing.Reached, []flowspec.Bound{{Portion: portion.All4(), Server: s1}}))
		r.pass(2 * time.Second)
		r.want("198.51.100.1/32 10.0.0.11/32@1011 invalid Prefix>10.0.0.11")
		r.speaker.set(func() { r.speaker.busy = true })
		r.loop.Say(view(announcing.Reached, halves(s1, s2)))
		both := "198.51.100.1/32 10.0.0.11/32@1011 invalid Prefix>10.0.0.11 0.0.0.0/1>10.0.0.11 128.0.0.0/1>10.0.0.12"
		r.want(both)
		r.pass(9 * time.Second)
		r.want(both)
		r.speaker.set(func() { r.speaker.busy = false })
		r.pass(500 * time.Millisecond)
		r.want("198.51.100.1/32 10.0.0.11/32@1011 0.0.0.0/1>10.0.0.11 128.0.0.0/1>10.0.0.12")
	})
}

// TestToldIsAcknowledged: silence is no sign that neighbors have been told while something is under way to them; where that cannot be seen it is.
func TestToldIsAcknowledged(t *testing.T) {
	log := newLines()
	inBubble(t, func(r *rig) {
		r.speaker.set(func() { r.speaker.underway = true })
		r.loop.Say(view(announcing.Reached, nil))
		r.pass(5 * time.Second)
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011")
		r.speaker.set(func() { r.speaker.underway = false })
		r.pass(1400 * time.Millisecond) // silence anew, and then to settle
		r.want("198.51.100.1/32 10.0.0.11/32@1011")
		r.speaker.set(func() { r.speaker.underway, r.speaker.unseen = true, errors.New("no sock_diag here") })
		if err := r.loop.Drain(r.Context(), false); err != nil {
			r.Fatal(err)
		}
		r.pass(1400 * time.Millisecond)
		r.want("10.0.0.11/32@1011")
		const line = "BGP: cannot see what neighbors have yet to acknowledge: they count as told when the speaker is silent"
		if n := log.count(line); n != 1 {
			r.Errorf("logged %d times, want once", n)
		}
	}, func(o *Options) { o.Log = slog.New(log) })
}

// TestNeighborsWithManyRoutes: a speaker that takes long to say how its neighbors are is asked less often, so that it has time for them; who waits for a drain waits little longer, and one
// in its place is found.
func TestNeighborsWithManyRoutes(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.loop.Say(view(announcing.Reached, nil))
		r.pass(2 * time.Second)
		r.want("198.51.100.1/32 10.0.0.11/32@1011")
		asked := func(during time.Duration) (n int) {
			r.speaker.set(func() { r.speaker.asked = 0 })
			r.pass(during)
			r.speaker.set(func() { n = r.speaker.asked })
			return n
		}
		if n := asked(time.Minute); n < 200 {
			r.Errorf("a fast one was asked %d times in a minute", n)
		}
		r.speaker.set(func() { r.speaker.counts = 50 * time.Millisecond })
		if n := asked(time.Minute); n < 50 || n > 60 {
			r.Errorf("a slow one was asked %d times in a minute: want a twentieth of its time", n)
		}
		if err := r.loop.Drain(r.Context(), false); err != nil {
			r.Fatal(err)
		}
		if n := asked(2 * time.Second); n > 8+2 {
			r.Errorf("a slow one was asked %d times in 2 s of a drain: want a fifth of its time", n)
		}
		r.want("10.0.0.11/32@1011")
		r.speaker.set(func() { r.speaker.applied, r.speaker.anew = nil, true })
		r.pass(2 * time.Second)
		if len(r.speaker.applied) == 0 {
			r.Error("another one in its place was told nothing")
		}
	})
}

// lines counts what is logged.
type lines struct {
	slog.Handler
	mutex sync.Mutex
	of    map[string]int
}

func newLines() *lines { return &lines{Handler: slog.DiscardHandler, of: map[string]int{}} }

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.of[r.Message]++
	return nil
}

func (l *lines) count(message string) int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.of[message]
}

// Why users are without rules is logged when it has changed, not with each view.
func TestWhyThereAreNoRulesIsLoggedOnce(t *testing.T) {
	inBubble(t, func(r *rig) {
		log := newLines()
		if err := r.loop.Do(r.Context(), func(time.Time) { r.loop.Log = slog.New(log) }); err != nil {
			r.Fatal(err)
		}
		const line = "BGP: users go by the director, for FlowSpec rules cannot say where"
		for i, bounds := range [][]flowspec.Bound{
			{{Portion: portion.MustParse("0.0.0.0/0.0.0.1"), Server: s1}},
			{{Portion: portion.MustParse("0.0.0.0/0.0.0.1"), Server: s2}},
			{{Portion: portion.MustParse("0.0.0.0/0.0.0.1"), Server: s1}, {Portion: portion.MustParse("0.0.0.1/0.0.0.1"), Server: s2}},
		} {
			r.loop.Say(view(announcing.Reached, bounds))
			synctest.Wait()
			if want := []int{1, 1, 2}[i]; log.count(line) != want {
				r.Errorf("view %d: logged %d times, want %d", i, log.count(line), want)
			}
		}
	})
}

func TestASpeakerThatFailsIsAskedAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.speaker.set(func() { r.speaker.fails = errors.New("no such neighbor") })
		r.loop.Say(view(announcing.Reached, nil))
		r.pass(5 * time.Second)
		r.speaker.set(func() { r.speaker.fails = nil })
		r.pass(applyAgain)
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011")
		r.speaker.set(func() { r.speaker.applied = nil }) // another one, which has nothing
		r.speaker.events <- []bgp.Event{{Began: true}}
		r.pass(time.Second)
		if len(r.speaker.applied) == 0 {
			r.Error("a speaker that is new was told nothing")
		}
	})
}

// TestAWatchThatBreaks: it is begun anew, though that fails at first, and what was learned is stale meanwhile.
func TestAWatchThatBreaks(t *testing.T) {
	inBubble(t, func(r *rig) {
		far := netip.MustParsePrefix("10.70.0.0/16")
		path := bgp.Path{Prefix: far, From: neighbor, Attributes: bgp.Attributes{NextHop: neighbor}}
		learned := func(what string, got func(bgppolicy.Changes) []bgppolicy.Route) {
			r.Helper()
			select {
			case c := <-r.loop.Learned():
				if all := got(c); len(all) != 1 || all[0].Prefix != far {
					r.Errorf("%s: %+v", what, c)
				}
			case <-time.After(2 * time.Second):
				r.Errorf("%s: nothing", what)
			}
		}
		r.speaker.events <- []bgp.Event{{Learned: &bgp.Learned{Unicast: &path}}}
		learned("told", func(c bgppolicy.Changes) []bgppolicy.Route { return c.Added })
		r.pass(time.Minute) // nothing else goes on
		old := r.speaker.events
		r.speaker.set(func() { r.speaker.events, r.speaker.mute = nil, errors.New("no speaker") })
		close(old)
		learned("away", func(c bgppolicy.Changes) []bgppolicy.Route { return c.Stale })
		events := make(chan []bgp.Event)
		r.speaker.set(func() { r.speaker.events, r.speaker.mute = events, nil })
		select {
		case events <- []bgp.Event{{Neighbor: &bgp.NeighborEvent{Address: neighbor, State: bgp.Established}}, {Learned: &bgp.Learned{Unicast: &path}}}:
		case <-time.After(2 * watchAgain):
			r.Fatal("nobody listens")
		}
		learned("back", func(c bgppolicy.Changes) []bgppolicy.Route { return c.Fresh })
	})
}

// TestNeighborsThatBFDFindsGone: they are to be down, and only they, until BFD finds them again.
func TestNeighborsThatBFDFindsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, out := bgp.NewFake(), make(chan []netip.Addr)
		base := bgp.Desired{Neighbors: []bgp.Neighbor{{Address: neighbor}, {Address: s1}}}
		l := New(Options{Speaker: f, Base: base, Announcing: announcing.Config{Patience: time.Second}, Out: out, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		for _, want := range [][]netip.Addr{nil, {s1}, {neighbor, s1}, nil} {
			out <- want
			synctest.Wait()
			var down []netip.Addr
			d, _ := f.Desired()
			for _, n := range d.Neighbors {
				if n.Down {
					down = append(down, n.Address)
				}
			}
			if !slices.Equal(down, want) {
				t.Errorf("down are %v, want %v", down, want)
			}
		}
		if base.Neighbors[0].Down || base.Neighbors[1].Down {
			t.Error("the configuration was changed")
		}
	})
}

func learned(prefix string) bgp.Event {
	return bgp.Event{Learned: &bgp.Learned{Unicast: &bgp.Path{Prefix: netip.MustParsePrefix(prefix), From: neighbor, Attributes: bgp.Attributes{NextHop: neighbor}}}}
}

func TestWhatIsLearnedWaitsForWhoeverReadsIt(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.loop.Say(view(announcing.Reached, nil))
		synctest.Wait()
		r.speaker.events <- []bgp.Event{learned("10.1.0.0/16")}
		for range 1000 {
			r.speaker.events <- []bgp.Event{learned("10.2.0.0/16"), learned("203.0.113.1/32"), {Refused: &bgp.Refused{Why: "no family", Count: 1}}}
		}
		r.speaker.events <- []bgp.Event{learned("10.3.0.0/16")}
		var got []string
		for len(got) < 3 {
			c := <-r.loop.Learned()
			for _, one := range c.Added {
				got = append(got, one.Prefix.String())
			}
		}
		if !slices.Equal(got, []string{"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"}) {
			r.Errorf("learned %v", got)
		}
		r.speaker.events <- []bgp.Event{{Neighbor: &bgp.NeighborEvent{Address: neighbor, State: bgp.Idle}}}
		if c := <-r.loop.Learned(); len(c.Stale) != 3 {
			r.Errorf("changes %+v, want all stale", c)
		}
		r.pass(30 * time.Second)
		if c := <-r.loop.Learned(); len(c.Gone) != 3 {
			r.Errorf("changes %+v, want all gone", c)
		}
		s, err := r.loop.Status(r.Context())
		if err != nil || s.Counts[bgppolicy.OwnVIP] != 1000 || s.Refused["no family"] != 1000 || s.Announcing.Phase != announcing.In {
			r.Errorf("%+v, %v", s, err)
		}
	})
}

// TestNeighborsInTurn: while neighbors wait for their turn, what is wanted goes to the speaker at once, and who waits for that is answered; that neighbors have been
// told is not said before all have had theirs.
func TestNeighborsInTurn(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.speaker.set(func() { r.speaker.fails = fmt.Errorf("apply: %w", bgp.ErrWaits) })
		r.loop.Say(view(announcing.Reached, nil))
		r.want("198.51.100.1/32+ 10.0.0.11/32@1011")
		begun := time.Now()
		if err := r.loop.Change(r.Context(), func(d *bgp.Desired) { d.Unicast = []bgp.Path{{Prefix: netip.PrefixFrom(s2, 32)}} }); err != nil {
			r.Error(err)
		}
		r.want("10.0.0.12/32 198.51.100.1/32+ 10.0.0.11/32@1011")
		if took := time.Since(begun); took > 0 {
			r.Errorf("a change took %v", took)
		}
		r.pass(5 * time.Second)
		r.want("10.0.0.12/32 198.51.100.1/32+ 10.0.0.11/32@1011") // nobody has been told, and so settles
		r.speaker.mutex.Lock()
		calls := len(r.speaker.applied)
		r.speaker.fails = nil
		r.speaker.mutex.Unlock()
		if calls < 50 || calls > 55 {
			r.Errorf("applied %d times in 5 s", calls)
		}
		r.pass(2 * time.Second)
		r.want("10.0.0.12/32 198.51.100.1/32 10.0.0.11/32@1011")
	})
}

// TestNobodyTellsWhatTheConfigurationHas: of what the configuration keeps for this router, and what lies inside, nothing is taken, though no service has it, and the
// speaker's own policies have not seen the path; what was taken before goes.
func TestNobodyTellsWhatTheConfigurationHas(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.speaker.events <- []bgp.Event{learned("10.2.1.0/24")}
		if c := <-r.loop.Learned(); len(c.Added) != 1 {
			r.Errorf("changes %+v", c)
		}
		if err := r.loop.Change(r.Context(), func(d *bgp.Desired) { d.VIPs = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")} }); err != nil {
			r.Fatal(err)
		}
		if c := <-r.loop.Learned(); len(c.Gone) != 1 {
			r.Errorf("changes %+v", c)
		}
		r.speaker.events <- []bgp.Event{learned("10.2.1.0/24"), learned("10.2.0.0/16"), learned("10.0.0.0/14")}
		if c := <-r.loop.Learned(); len(c.Added) != 1 || c.Added[0].Prefix != netip.MustParsePrefix("10.0.0.0/14") {
			r.Errorf("changes %+v", c)
		}
	})
}

// TestGoesOn: a tdpd that starts beside a speaker that an earlier one has left lets be what that one announced, until it has heard of all or time is over, and
// does not come in anew.
func TestGoesOn(t *testing.T) {
	for before, want := range map[string]string{"": "198.51.100.1/32", "+": "198.51.100.1/32+", "foreign": "198.51.100.1/32+"} {
		synctest.Test(t, func(t *testing.T) {
			f := bgp.NewFake()
			path := bgp.Path{Prefix: netip.PrefixFrom(vip, 32)}
			switch before {
			case "+":
				path.Communities = []bgp.Community{bgp.GracefulShutdown}
			case "foreign":
				path.Prefix = netip.PrefixFrom(foreign, 32)
			}
			if err := f.Apply(t.Context(), bgp.Desired{Unicast: []bgp.Path{path}}); err != nil {
				t.Fatal(err)
			}
			l := New(Options{
				Speaker: f, Base: bgp.Desired{AS: 65001, Restart: bgp.Restart{Deferral: 10 * time.Second}}, VIPs: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
				Announcing: announcing.Config{Soft: announcing.Soft{Communities: []bgp.Community{bgp.GracefulShutdown}}, Settle: time.Minute, Patience: time.Minute},
				Log:        slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			synctest.Wait()
			if d, _ := f.Desired(); !d.Keep || !d.Silent {
				t.Errorf("%q: what was told before is withdrawn at once", before)
			}
			l.Say(View{Services: []announcing.Service{{Name: "web", VIPs: []netip.Addr{vip}, Reach: announcing.Reached}}})
			synctest.Wait()
			if d, _ := f.Desired(); text(d) != want || !d.Keep || d.Silent {
				t.Errorf("%q: %q, keeps %v; want %q", before, text(d), d.Keep, want)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if d, _ := f.Desired(); d.Keep || d.Silent {
				t.Errorf("%q: what was told before is never withdrawn", before)
			}
		})
	}
}

// TestChange: whoever changes what is wanted beside services hears when the speaker has it, and what it has not taken.
func TestChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgp.NewFake()
		l := New(Options{Speaker: f, Announcing: announcing.Config{Patience: time.Second}, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		path := bgp.Path{Prefix: netip.PrefixFrom(vip, 32)}
		add := func(d *bgp.Desired) { d.Unicast = append(slices.Clone(d.Unicast), path) }
		if err := l.Change(ctx, add); err != nil {
			t.Fatal(err)
		}
		if d, _ := f.Desired(); len(d.Unicast) != 1 || d.Unicast[0].Prefix != path.Prefix {
			t.Errorf("%+v", d)
		}
		f.Fail(errors.New("busy"))
		if err := l.Change(ctx, add); err == nil || err.Error() != "busy" {
			t.Errorf("%v", err)
		}
		f.Fail(nil)
		time.Sleep(2 * applyAgain)
		if d, _ := f.Desired(); len(d.Unicast) != 2 {
			t.Errorf("%+v", d)
		}
		// A speaker that is new is told again.
		_, n := f.Desired()
		f.Tell(bgp.Event{Began: true})
		synctest.Wait()
		if _, now := f.Desired(); now != n+1 {
			t.Errorf("applied %d times, %d before", now, n)
		}
	})
}
