package scenario

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
)

// failures is one run of the scenario of that name.
type failures struct {
	stage
	topology *lab.Topology
	asker    *probe.Asker          // the users who ask now
	askers   []*probe.Asker        // all who have
	taps     map[string]*probe.Tap // by server: its link, all the time
	failures []outcome
	noQuorum bool // of the bus

	planned span // agents are started anew meanwhile
}

// span is a time; the zero one is none.
type span struct{ from, to time.Time }

func (s span) overlaps(from, to time.Time) bool { return to.After(s.from) && from.Before(s.to) }

// outcome is a failure that was, and its time.
type outcome struct {
	report.Failure
	bounds
	start, end time.Time
	acted      time.Time // when the act had its way
	victims    []string
	refused    bool          // its users were refused: their requests fail
	sheds      bool          // some of them were, and only these
	late       time.Duration // the longest that the machine kept a daemon from running meanwhile
	stalled    []string      // servers that were silent meanwhile by the machine's doing
}

// bounds are what a failure may cost; 0: anything.
type bounds struct {
	detect time.Duration // until no packet goes to what has failed
	outage time.Duration // that a user is not answered
	lost   bool          // connections may be lost with a server
}

const (
	// detectWithin is how long packets may still go to a dead server after its last heartbeat.
	detectWithin = 300 * time.Millisecond
	// excused is how long after a server's failure a request of its users may begin that fails, and users may be without answers.
	excused = detectWithin + 100*time.Millisecond
	// rerouted is how long users may be without answers where a link between routers is cut.
	rerouted = 300 * time.Millisecond
	// unnoticed is how long they may be where nothing of theirs fails: a few questions.
	unnoticed = 100 * time.Millisecond
)

// askEvery is how often each user asks.
const askEvery = 20 * time.Millisecond

// Failures brings the lab of that name up, lets one thing fail after the other under its users and takes it down again. The report
// is there whenever the users worked; the error says what kept the scenario from its end.
func Failures(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	for _, kind := range o.Only {
		if !slices.Contains(report.Kinds, kind) {
			return nil, fmt.Errorf("kind of failure %q: there are %s", kind, strings.Join(report.Kinds, ", "))
		}
	}
	f := &failures{stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3", "s4"}}, taps: map[string]*probe.Tap{}}
	if err := f.prepare(ctx, "failures", o.Set); err != nil {
		return nil, err
	}
	defer f.lab.Close()
	f.topology = f.lab.Topology()
	err := f.run(ctx)
	f.starvation.end()
	err = errors.Join(err, f.readStalls(), f.down(ctx))
	if f.began.IsZero() {
		return nil, err
	}
	return f.report(), err
}

func (f *failures) run(ctx context.Context) (err error) {
	if err := f.admitUsers(); err != nil {
		return err
	}
	watcher, err := f.watch(f.web)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.stop()) }()
	f.o.Progress.Phase("ready")
	if err := f.awaitServers(ctx, f.servers, 20*time.Second); err != nil {
		return err
	}
	if err := f.waitServed(ctx); err != nil {
		return err
	}
	sniffed, err := f.sniff(ctx, "u", "users")
	if err != nil {
		return err
	}
	if err := f.tapAll(); err != nil {
		return errors.Join(err, sniffed())
	}
	plan := f.plan()
	err = f.work(ctx, func(ctx context.Context) error { return f.underWay(ctx, plan) }, f.client(nodeUsers))
	if err == nil {
		err = f.aside(ctx, plan)
	}
	for _, t := range f.taps {
		err = errors.Join(err, t.Stop())
	}
	return errors.Join(err, sniffed())
}

// underWay lets the users ask at the VIP, and everything fail in turn.
func (f *failures) underWay(ctx context.Context, plan []failure) error {
	return f.asking(ctx, "users", f.users, "vip", func() error {
		return f.inTurn(ctx, slices.DeleteFunc(slices.Clone(plan), func(x failure) bool { return x.alone }))
	})
}

// aside is what fails when the users of the VIP have gone: there are others then, who need no director.
func (f *failures) aside(ctx context.Context, plan []failure) error {
	plan = slices.DeleteFunc(slices.Clone(plan), func(x failure) bool { return !x.alone })
	if len(plan) == 0 {
		return nil
	}
	var near []netip.Addr
	for _, a := range f.topology.Node("near").Addresses["eth0"] {
		near = append(near, a.Addr())
	}
	f.planned.from = time.Now()
	if err := f.letAgentsLead(ctx); err != nil {
		return err
	}
	f.planned.to = time.Now().Add(report.Settle)
	return f.asking(ctx, "near", near, "group", func() error { return f.inTurn(ctx, plan) })
}

// asking lets users of a node ask while what happens goes by.
func (f *failures) asking(ctx context.Context, node string, users []netip.Addr, to string, happens func() error) error {
	ns, err := f.lab.Namespace(node)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddr(f.vars[to])
	if err != nil {
		return err
	}
	if f.asker, err = probe.Ask(ns, users, netip.AddrPortFrom(at, 80), askEvery); err != nil {
		return err
	}
	f.askers = append(f.askers, f.asker)
	defer f.asker.Stop()
	if err := f.calm(ctx); err != nil {
		return err
	}
	return happens()
}

// inTurn lets one thing fail after the other.
func (f *failures) inTurn(ctx context.Context, plan []failure) error {
	var deaths []int
	for i, x := range plan {
		deaths = append(deaths, f.bury(x, time.Now())...)
		if err := f.fail(ctx, x); err != nil {
			return fmt.Errorf("%s: %w", x.what, err)
		}
		if i+1 == len(plan) || !plan[i+1].goesOn {
			f.raise(deaths, time.Now())
			deaths = nil
		}
	}
	return nil
}

// failure is one thing that is made to fail.
type failure struct {
	what   string
	victim string // the server whose users go elsewhere; empty: nobody's do
	act    func(ctx context.Context) error
	lasts  time.Duration                   // from the act on
	while  func(ctx context.Context) error // more that is looked at before it is mended; may be nil
	mend   func(ctx context.Context) error // nil: the next one goes on from here
	after  func(ctx context.Context) error // looked at when all is well again; may be nil

	goesOn  bool // it goes on from where the one before it ended
	byWord  bool // the victim says that it does not serve: it is heard on
	unseen  bool // nothing passes the victim's link: what users lose has to tell
	fading  bool // the act takes a while, and until it has its way the victim is heard
	refused bool // there is no server: users are refused
	sheds   bool // servers refuse new connections of some users
	alone   bool // it takes the users of the VIP their way: it comes when they have gone
	lives   bool // the victim does not die: it need not be found out
	between bool // it is between routers
}

// bounds are what it may cost.
func (x failure) bounds() bounds {
	switch {
	case x.refused:
		return bounds{lost: true}
	case x.lives:
		return bounds{outage: excused, lost: true}
	case x.victim != "":
		return bounds{detect: detectWithin, outage: excused, lost: true}
	case x.between:
		return bounds{outage: rerouted}
	}
	return bounds{outage: unnoticed}
}

// fail lets one thing fail, mends it, waits until all is as before and notes what was seen.
func (f *failures) fail(ctx context.Context, x failure) error {
	f.o.Progress.Phase(x.what)
	start := time.Now()
	err := x.act(ctx)
	acted := time.Now()
	if err == nil {
		err = f.watchUntil(ctx, start.Add(x.lasts))
	}
	if err == nil && x.while != nil {
		err = x.while(ctx)
	}
	mended := time.Now()
	if err == nil && x.mend != nil {
		err = x.mend(ctx)
	}
	if err == nil {
		err = f.whole(ctx, x)
	}
	if err == nil && x.after != nil {
		err = x.after(ctx)
	}
	o := outcome{Failure: report.Failure{What: x.what}, bounds: x.bounds(), start: start, acted: acted, end: time.Now(),
		victims: []string{x.victim}, refused: x.refused, sheds: x.sheds}
	return errors.Join(err, f.measure(x, &o, mended))
}

// tapAll watches the links of all servers.
func (f *failures) tapAll() error {
	group, err := netip.ParseAddr(f.vars["group"])
	if err != nil {
		return err
	}
	control, err := netip.ParseAddr(f.vars["control"])
	if err != nil {
		return err
	}
	for _, s := range f.servers {
		port := f.portOf(s)
		ns, err := f.lab.Namespace(port.Node)
		if err != nil {
			return err
		}
		if f.taps[s], err = probe.Watch(ns, port.Interface, group, control); err != nil {
			return err
		}
	}
	return nil
}

// portOf is the router's interface toward a server.
func (f *failures) portOf(server string) lab.Endpoint {
	for _, sw := range f.topology.Switches {
		if sw.Ports[1].Node == server {
			return sw.Ports[0]
		}
	}
	return lab.Endpoint{}
}

// bury notes whose connections may be lost; raise, that all is as before: not before the last of what belongs together.
func (f *failures) bury(x failure, at time.Time) (deaths []int) {
	victims := []string{x.victim}
	if x.refused {
		victims = f.servers
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range victims {
		if v != "" {
			deaths = append(deaths, len(f.tally.Deaths))
			// Until it is found out connections may still be opened to it, or seem to be.
			f.tally.Deaths = append(f.tally.Deaths, report.Death{Server: v, At: at, Gone: at.Add(x.lasts + report.Settle), Found: at.Add(excused)})
		}
	}
	return deaths
}

func (f *failures) raise(deaths []int, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range deaths {
		f.tally.Deaths[d].Back = at.Add(report.Settle)
	}
}

// measure fills in what only the probes tell; the rest waits for the end.
func (f *failures) measure(x failure, o *outcome, mended time.Time) error {
	gap := f.asker.Gap(o.start, o.end.Add(-answering))
	o.OutageMS = report.Milliseconds(gap.Longest)
	if until := f.asker.Gap(o.start, mended.Add(-answering)); until.Lost > 0 {
		o.DetectMS = report.Milliseconds(until.Last.Sub(o.start))
	}
	if x.victim != "" && !x.unseen && !x.lives {
		heard, sent := f.taps[x.victim].Between(o.start.Add(-time.Second), o.end)
		failed := o.start
		if x.fading {
			failed = o.acted
		}
		if x.byWord {
			heard = []time.Time{o.start}
		}
		detected, ok := report.Detected(heard, sent, failed, mended)
		if !ok {
			return fmt.Errorf("nothing was sent to %s, or heard of it: there is no telling when it was found out", x.victim)
		}
		o.DetectMS = report.Milliseconds(detected)
	}
	o.late = f.starvation.longest(o.start, o.end, x.victim)
	f.failures = append(f.failures, *o)
	f.o.Progress.Note("detected after %.0f ms, outage %.0f ms, %d of %d questions lost%s", o.DetectMS, o.OutageMS, gap.Lost, gap.Asked, whose(gap, o.start))
	if late := f.starvation.worst(o.start, o.end); late != "" {
		f.o.Progress.Note("kept from running: %s", late)
	}
	return nil
}

// whose tells the longest outage, and when it began.
func whose(gap probe.Gap, start time.Time) string {
	if gap.Lost == 0 {
		return ""
	}
	return fmt.Sprintf("; %v longest, %.0f ms after the act", gap.User, report.Milliseconds(gap.Since.Sub(start)))
}

// whole waits until the users lose nothing and, where all has been mended, every server has users again.
func (f *failures) whole(ctx context.Context, x failure) error {
	if x.mend != nil && !f.noQuorum {
		if err := f.awaitServers(ctx, f.servers, 60*time.Second); err != nil {
			return err
		}
	}
	if x.refused && x.mend == nil {
		return nil
	}
	return f.calm(ctx)
}

// awaitServers waits until just these servers have users, and no agent is at work on that.
func (f *failures) awaitServers(ctx context.Context, servers []string, within time.Duration) error {
	want := slices.Sorted(slices.Values(servers))
	deadline := time.Now().Add(within)
	for {
		have := slices.Sorted(maps.Keys(f.web.owners()))
		if slices.Equal(have, want) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("users are at %v and not at %v within %v", have, want, within)
		}
		if err := f.watchUntil(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return err
		}
	}
}

const (
	quiet     = 500 * time.Millisecond // for so long nothing may be lost until all counts as well again
	answering = 100 * time.Millisecond // that an answer may take
)

// calm waits until no question is lost for a while.
func (f *failures) calm(ctx context.Context) error {
	for began := time.Now(); ; {
		if err := f.watchUntil(ctx, time.Now().Add(answering)); err != nil {
			return err
		}
		now := time.Now()
		gap := f.asker.Gap(now.Add(-quiet-answering), now.Add(-answering))
		if gap.Lost == 0 && gap.Asked > 0 && now.Sub(began) > quiet+answering {
			return nil
		}
		if now.Sub(began) > 20*time.Second {
			return fmt.Errorf("questions are still lost after 20 s: %d of %d", gap.Lost, gap.Asked)
		}
	}
}
