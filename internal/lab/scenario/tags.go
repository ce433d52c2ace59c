package scenario

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
)

// tags is one run of the scenario of that name.
type tags struct {
	stage
	taps     map[string]*probe.Tap // by server: its link, all the time
	counted  map[string]tagCounts  // by router: what its tdpd has done since its maps were made
	tagged   report.Tagged
	detected time.Duration // from the killed server's last heartbeat to the last packet toward it
}

// Routers of the topology.
var (
	upstreams = []string{"u1", "u2"}
	cores     = []string{"c1", "c2"}
	directors = []string{"d1", "d2"}
)

// The phases' names, as the report has them.
const (
	phaseThrough  = "through directors"
	phaseTagged   = "tagged upstream"
	phaseAdded    = "one server added"
	phaseMended   = "the killed server back"
	phaseDirector = "one director killed"
	phaseUpstream = "one upstream router restarted"
	phaseTDP      = "tdpd killed and restarted"
	phaseModes    = "to mode multicast and back"
	phaseOutsider = "labelled by a user"
)

// expectedTags are the moves that each phase has to bring, by words of the leader's reasons. No others may move anybody.
var expectedTags = map[string][]string{
	phaseWeights: {"shares changed"},
	phaseDrained: {"s1 is drained"},
	phaseAdded:   {"s1 joined"},
	phaseKilled:  {"s2 is dead"},
	phaseMended:  {"s2 joined"},
}

// Tags brings the lab of that name up, runs all phases and takes it down again. The report is there whenever the users worked; the
// error says what kept the scenario from its end.
func Tags(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	t := &tags{stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3", "s4"}}, taps: map[string]*probe.Tap{}, counted: map[string]tagCounts{}}
	if err := t.prepare(ctx, "tags", o.Set); err != nil {
		return nil, err
	}
	defer t.lab.Close()
	err := errors.Join(t.run(ctx), t.down(ctx))
	if t.began.IsZero() {
		return nil, err
	}
	return t.report(), err
}

func (t *tags) run(ctx context.Context) (err error) {
	if err := t.admitUsers(); err != nil {
		return err
	}
	watcher, err := t.watch(t.web)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.stop()) }()
	t.o.Progress.Phase("ready")
	if _, err := t.web.await(ctx, "all servers serve", t.everybody); err != nil {
		return err
	}
	if err := t.waitServed(ctx); err != nil {
		return err
	}
	sniffed, err := t.sniff(ctx, "a", "users")
	if err != nil {
		return err
	}
	if err := t.tapAll(); err != nil {
		return errors.Join(err, sniffed())
	}
	if _, err := t.count(ctx); err != nil {
		return errors.Join(err, sniffed())
	}
	err = t.work(ctx, func(ctx context.Context) error { return t.runPhases(ctx, t.plan(), t.countPhase) }, t.client(nodeUsers))
	err = errors.Join(err, t.checkForeign(context.WithoutCancel(ctx)))
	for _, tap := range t.taps {
		err = errors.Join(err, tap.Stop())
	}
	return errors.Join(err, sniffed())
}

// tapAll watches the links of all servers, from where they meet the router's: what XDP sends no packet socket sees at its own end.
func (t *tags) tapAll() error {
	vip, err := netip.ParseAddr(t.vars["vip"])
	if err != nil {
		return err
	}
	control, err := netip.ParseAddr(t.vars["control"])
	if err != nil {
		return err
	}
	for i, s := range t.servers {
		ns, err := t.lab.Namespace(fmt.Sprintf("lan%d", i+1))
		if err != nil {
			return err
		}
		if t.taps[s], err = probe.WatchFar(ns, "p1", vip, control); err != nil {
			return err
		}
	}
	return nil
}

func (t *tags) plan() []phase {
	return []phase{
		{name: phaseThrough, weight: 2, act: t.through},
		{name: phaseTagged, weight: 3, act: t.tagUpstream},
		{name: phaseWeights, weight: 3, act: t.changeWeights},
		{name: phaseDrained, weight: 3, act: t.drain},
		{name: phaseAdded, weight: 3, act: t.add},
		{name: phaseKilled, weight: 3, act: t.killServer},
		{name: phaseMended, weight: 3, act: t.mend},
		{name: phaseDirector, weight: 4, act: t.killDirector},
		{name: phaseUpstream, weight: 4, act: t.restartUpstream},
		{name: phaseTDP, weight: 4, act: t.restartTDP},
		{name: phaseModes, weight: 4, act: t.changeModes},
		{name: phaseOutsider, weight: 2, act: t.intrude},
	}
}

// report judges everything, once it is over.
func (t *tags) report() *report.Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &report.Report{Scenario: "tags", Tagged: &t.tagged}
	t.judge(r, t.mayWait())
	t.checkMoves(t.plan(), expectedTags)
	t.check("users' packets are tagged", t.tagged.PacketsTagged > 0 && t.tagged.FirstPacketsViaDirector > 0 && t.tagged.PacketsViaDirector == 0,
		"%d by a director before upstream routers were told, %d by a director since, %d by an upstream router",
		t.tagged.FirstPacketsViaDirector, t.tagged.PacketsViaDirector, t.tagged.PacketsTagged)
	t.check("a dead server gets no packets", t.detected > 0 && t.detected <= detectWithin, "the last one %.0f ms after its last heartbeat, %v are allowed",
		report.Milliseconds(t.detected), detectWithin)
	r.DetectMS = math.Round(report.Milliseconds(t.detected))
	r.Checks = t.checks
	return r
}
