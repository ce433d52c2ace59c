// Package routing is the loop between tdpd's own and a BGP speaker: what is known here of services, servers and labels goes to announcing and to
// flowspec, which are pure, and what they want to the speaker; what its neighbors tell goes to bgppolicy, and what comes of it back to tdpd's
// loop. Neither side waits for the other.
package routing

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/tdpd/internal/announcing"
	"github.com/manycast/manycast/tdpd/internal/bgp"
	"github.com/manycast/manycast/tdpd/internal/bgppolicy"
	"github.com/manycast/manycast/tdpd/internal/flowspec"
)

// View is what tdpd's loop knows that BGP neighbors may be to know.
type View struct {
	Services []announcing.Service
	Users    []flowspec.Users
	Hosts    []bgp.LabelledPath // servers' trees, by the labels that this router has bound
}

// Options are what a Loop works with.
type Options struct {
	Speaker bgp.Speaker
	// Base is what the configuration wants of the speaker, whatever services there are: the rest is added to it. What the speaker has been told before is withdrawn
	// when Base.Restart.Deferral is over, or it is named and then is not any more: until then this run may have yet to hear of it.
	Base       bgp.Desired
	Announcing announcing.Config
	// VIPs are announced that lie in these; none: none are.
	VIPs []netip.Prefix
	// FlowSpec makes rules of the users of VIPs that are announced. Most 0: there are none.
	FlowSpec flowspec.Config
	Follow   bgppolicy.FollowConfig
	// Out are the neighbors that BFD finds gone, whenever they are others. nil: nobody looks.
	Out <-chan []netip.Addr
	// Underway says whether neighbors' hosts have yet to acknowledge something that the speaker has sent them. nil, or an error: nobody can see that.
	Underway func(bgp.Desired) (bool, error)
	Log      *slog.Logger
}

// Loop is a daemon's task. It owns what is announced, the rules, and what was learned.
type Loop struct {
	Options
	ready   chan struct{}
	asks    chan func()
	learned chan bgppolicy.Changes
	news    chan struct{} // there is a view
	mutex   sync.Mutex
	view    View // the latest one said

	announcing *announcing.Announcing
	rules      *flowspec.Change
	users      []flowspec.Users
	vips       []netip.Prefix          // of services
	own        []netip.Prefix          // that nobody may tell, as follow has them
	result     flowspec.Result         // without Reasons: it has to be compiled
	said       map[flowspec.Reason]int // why users are without rules, as the log has it
	follow     *bgppolicy.Follow
	waiting    bgppolicy.Changes // for tdpd's loop to take
	up         map[netip.Addr]bool
	out        []netip.Addr // neighbors that BFD finds gone
	met        bool         // it is known what the speaker has announced before
	keeps      bool         // what an earlier run has told the speaker
	keepsUntil time.Time
	refused    map[string]uint64 // paths that the speaker's own checks did not take, by why

	applier    applier
	waiters    []waiter
	changed    bool   // what the speaker is to have, but for what announcing says
	version    uint64 // of what it is to have
	pathsAt    uint64 // version of announcing that it has
	compiledAt uint64 // version of announcing that rules are of
}

// New returns a Loop that does nothing before Run.
func New(o Options) *Loop {
	return &Loop{
		Options: o, ready: make(chan struct{}), asks: make(chan func()), learned: make(chan bgppolicy.Changes), news: make(chan struct{}, 1),
		rules: flowspec.NewChange(o.FlowSpec.Most, o.Announcing.Patience), follow: bgppolicy.New(o.Follow),
		up: map[netip.Addr]bool{}, refused: map[string]uint64{}, applier: newApplier(o),
	}
}

// String implements daemon.Task.
func (l *Loop) String() string { return "BGP" }

// Ready implements daemon.Task: closed when the speaker has had all that was wanted once.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Say takes tdpd's view. It does not wait; of several the latest counts. View's slices must not be changed any more.
func (l *Loop) Say(v View) {
	l.mutex.Lock()
	l.view = v
	l.mutex.Unlock()
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// Learned are changes of what neighbors tell: who reads them late gets more of them at once.
func (l *Loop) Learned() <-chan bgppolicy.Changes { return l.learned }

// Do runs f in the loop.
func (l *Loop) Do(ctx context.Context, f func(now time.Time)) error {
	done := make(chan struct{})
	ask := func() {
		defer close(done)
		f(time.Now())
	}
	select {
	case l.asks <- ask:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchAgain is when a watch that could not begin is tried again.
const watchAgain = time.Second

// Run works until ctx ends. The speaker keeps what it has: whoever started it ends it.
func (l *Loop) Run(ctx context.Context) error {
	l.announcing = announcing.New(time.Now(), l.Announcing)
	applied := make(chan struct{})
	go func() {
		defer close(applied)
		l.applier.run(ctx)
	}()
	defer func() { <-applied }()
	l.changed, l.keeps, l.keepsUntil = true, true, time.Now().Add(l.Base.Restart.Deferral)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var events <-chan []bgp.Event
	for {
		if events == nil {
			events = l.watch(ctx)
		}
		var out chan<- bgppolicy.Changes
		if !l.waiting.Empty() {
			out = l.learned
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.news:
			l.take(time.Now())
		case some, ok := <-events:
			if ok {
				l.heard(time.Now(), some)
			} else {
				events = nil
				l.follow.SpeakerLost(time.Now())
			}
		case out <- l.waiting:
			l.waiting = bgppolicy.Changes{}
		case l.out = <-l.Out:
			l.changed = true
		case r := <-l.applier.results:
			l.applied(time.Now(), r)
		case f := <-l.asks:
			f()
		case <-timer.C:
		}
		l.settle(time.Now())
		timer.Reset(l.wait(time.Now(), events == nil))
	}
}

func (l *Loop) watch(ctx context.Context) <-chan []bgp.Event {
	events, err := l.Speaker.Watch(ctx)
	if err != nil {
		l.Log.Warn("BGP: cannot hear the speaker, trying again", "err", err, "after", watchAgain)
		return nil
	}
	return events
}

// settle lets time pass, and tells the speaker and tdpd's loop what has come of all.
func (l *Loop) settle(now time.Time) {
	if l.keeps && !now.Before(l.keepsUntil) {
		l.keeps, l.changed = false, true
	}
	if own := slices.Concat(l.Base.VIPs, l.vips); !slices.Equal(own, l.own) {
		l.own = own
		l.follow.SetVIPs(own)
	}
	l.announcing.Tick(now)
	if l.rules.Tick(now) {
		l.changed = true
		l.Log.Warn("BGP: neighbors have not taken FlowSpec rules in time, going on", "skipped", l.rules.Skipped())
	}
	l.follow.Tick(now)
	if l.waiting.Empty() {
		l.waiting = l.follow.Changes()
	}
	l.compile(now)
	l.push()
}

func (l *Loop) wait(now time.Time, deaf bool) time.Duration {
	wait := time.Hour
	next := []time.Time{l.announcing.Next(now), l.rules.Next(), l.follow.Next(now)}
	if l.keeps {
		next = append(next, l.keepsUntil)
	}
	for _, at := range next {
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(now), 0))
		}
	}
	if deaf {
		wait = min(wait, watchAgain)
	}
	return wait
}

// take takes the view that was said last.
func (l *Loop) take(now time.Time) {
	l.mutex.Lock()
	v := l.view
	l.mutex.Unlock()
	if vips := vipsOf(v.Services); !slices.Equal(vips, l.vips) {
		l.vips, l.changed = vips, true
	}
	l.announcing.Services(now, l.announced(v.Services))
	l.announcing.SetHosts(now, v.Hosts)
	l.users = v.Users
	l.result = flowspec.Result{} // to be compiled anew
}

// announced are services with those of their VIPs that may be announced here.
func (l *Loop) announced(all []announcing.Service) []announcing.Service {
	out := slices.Clone(all)
	for i := range out {
		out[i].VIPs = slices.DeleteFunc(slices.Clone(out[i].VIPs), func(a netip.Addr) bool { return !l.mayAnnounce(a) })
	}
	return out
}

func (l *Loop) mayAnnounce(a netip.Addr) bool {
	return slices.ContainsFunc(l.VIPs, func(p netip.Prefix) bool { return p.Contains(a) })
}

func vipsOf(services []announcing.Service) (out []netip.Prefix) {
	for _, s := range services {
		for _, a := range s.VIPs {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// heard takes what the speaker tells.
func (l *Loop) heard(now time.Time, events []bgp.Event) {
	for _, e := range events {
		l.follow.Take(now, e)
		switch {
		case e.Neighbor != nil:
			if is := e.Neighbor.State == bgp.Established; is != l.up[e.Neighbor.Address] {
				l.Log.Info("BGP session", "neighbor", e.Neighbor.Address, "state", e.Neighbor.State)
				l.up[e.Neighbor.Address] = is
			}
			if !l.up[e.Neighbor.Address] {
				delete(l.up, e.Neighbor.Address)
			}
			l.announcing.Speaks(len(l.up) > 0)
		case e.Refused != nil:
			l.refused[e.Refused.Why] += e.Refused.Count
		case e.Began:
			l.changed = true
		}
	}
}
