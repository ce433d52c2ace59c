package scenario

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/probe"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// bgp is one run of the scenario of that name.
type bgp struct {
	stage
	asker  *probe.Asker
	routes map[string]*probe.Routes // to the VIP, by neighbor of the directors
	there  []string                 // directors that are to be announcing
	found  report.BGP
	unlike []string // what neighbors had that was not what directors tell
	looked int      // times that this was compared
}

// Neighbors of the directors in the topology.
var neighbors = []string{"f1", "f2"}

// The phases' names, as the report has them.
const (
	phaseSteady     = "steady"
	phaseMoved      = "users moved"
	phaseOut        = "one director drained"
	phaseIn         = "the drained director back"
	phaseDead       = "one director without power"
	phaseAlive      = "the dead director back"
	phaseMore       = "one director added"
	phaseSpeaker    = "one speaker killed"
	phaseTDPAlone   = "tdpd killed and restarted, speakers not"
	phaseServerOut  = "one server drained, waited for"
	phaseServerBack = "the drained server back"
)

// expectedBGP are the moves that each phase has to bring, by words of the leader's reasons.
var expectedBGP = map[string][]string{
	phaseMoved:      {"shares changed"},
	phaseServerOut:  {"s1 is drained"},
	phaseServerBack: {"s1 joined"},
}

// BGP brings the lab of that name up, runs all phases and takes it down again. The report is there whenever the users worked; the
// error says what kept the scenario from its end.
func BGP(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	if bfd, ok := o.Set["bfd"]; ok && bfd != "true" && bfd != "false" {
		return nil, fmt.Errorf("bfd=%s: want true or false", bfd)
	}
	b := &bgp{stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3"}}, routes: map[string]*probe.Routes{}, there: []string{"d1", "d2"}}
	if err := b.prepare(ctx, "bgp", o.Set); err != nil {
		return nil, err
	}
	defer b.lab.Close()
	err := errors.Join(b.run(ctx), b.down(ctx))
	if b.began.IsZero() {
		return nil, err
	}
	return b.report(), err
}

func (b *bgp) run(ctx context.Context) (err error) {
	if err := b.admitUsers(); err != nil {
		return err
	}
	watcher, err := b.watch(b.web)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.stop()) }()
	b.o.Progress.Phase("ready")
	if _, err := b.web.await(ctx, "all servers serve", b.everybody); err != nil {
		return err
	}
	if err := b.awaitIn(ctx, b.there...); err != nil {
		return err
	}
	if err := b.awaitHost(ctx); err != nil {
		return err
	}
	if err := b.waitServed(ctx); err != nil {
		return err
	}
	sniffed, err := b.sniff(ctx, "a", "users")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sniffed()) }()
	stop, err := b.watchNeighbors()
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	return b.work(ctx, func(ctx context.Context) error { return b.runPhases(ctx, b.plan(), b.compare) }, b.client(nodeUsers))
}

// watchNeighbors hears what the kernels of the directors' neighbors say of their ways to the VIP, and has users ask all the time. The result ends both.
func (b *bgp) watchNeighbors() (stop func() error, err error) {
	stop = func() (err error) {
		for _, r := range b.routes {
			err = errors.Join(err, r.Stop())
		}
		if b.asker != nil {
			b.asker.Stop()
		}
		return err
	}
	vip, err := netip.ParseAddr(b.vars["vip"])
	if err != nil {
		return stop, err
	}
	for _, f := range neighbors {
		ns, err := b.lab.Namespace(f)
		if err != nil {
			return stop, err
		}
		r, err := probe.WatchRoutes(ns, vip)
		if err != nil {
			return stop, fmt.Errorf("%s: %w", f, err)
		}
		b.routes[f] = r
	}
	users, err := b.lab.Namespace("users")
	if err != nil {
		return stop, err
	}
	b.asker, err = probe.Ask(users, b.users, netip.AddrPortFrom(vip, 80), askEvery)
	return stop, err
}

func (b *bgp) plan() []phase {
	return []phase{
		{name: phaseSteady, weight: 2, act: b.steady},
		{name: phaseMoved, weight: 2, act: b.changeWeights},
		{name: phaseOut, weight: 3, act: b.drainDirector},
		{name: phaseIn, weight: 3, act: b.undrainDirector},
		{name: phaseDead, weight: 5, act: b.killDirector},
		{name: phaseAlive, weight: 4, act: b.reviveDirector},
		{name: phaseMore, weight: 4, act: b.addDirector},
		{name: phaseSpeaker, weight: 5, act: b.killSpeaker},
		{name: phaseTDPAlone, weight: 4, act: b.restartTDP},
		{name: phaseServerOut, weight: 3, act: b.drainServer},
		{name: phaseServerBack, weight: 3, act: b.undrainServer},
	}
}

// silences are how long a director may be silent for its neighbors, as the topology configures both: the hold time, and the detection time of BFD, 0
// without it.
func (b *bgp) silences() (hold, byBFD time.Duration, err error) {
	if hold, err = time.ParseDuration(b.vars["hold"] + "s"); err != nil || b.vars["bfd"] == "false" {
		return hold, 0, err
	}
	interval, err := time.ParseDuration(b.vars["interval"] + "ms")
	if err != nil {
		return 0, 0, err
	}
	multiplier, err := strconv.Atoi(b.vars["multiplier"])
	return hold, interval * time.Duration(multiplier), err
}

// lost are the ways to the VIP that neighbors' kernels have lost in a time.
func (b *bgp) lost(from, to time.Time) (all []probe.Lost) {
	for _, f := range neighbors {
		all = append(all, b.routes[f].Lost(from, to)...)
	}
	return all
}

// report judges everything, once it is over.
func (b *bgp) report() *report.Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &report.Report{Scenario: "bgp", BGP: &b.found}
	b.judge(r, b.mayWait())
	b.checkMoves(b.plan(), expectedBGP)
	ended := map[string]bool{}
	var drains []traffic.Event
	for _, s := range b.tally.Spans {
		ended[s.Name] = true
		failed, _, _ := b.tally.Between(s.Start, s.End)
		lost := b.lost(s.Start, s.End)
		gap := b.asker.Gap(s.Start, s.End.Add(-answering))
		b.found.Phases = append(b.found.Phases, report.BGPPhase{
			Name: s.Name, RequestsFailed: len(failed), OutageMS: report.Milliseconds(gap.Longest), RoutesWithdrawn: len(lost),
		})
		switch s.Name {
		case phaseOut, phaseIn, phaseServerOut, phaseServerBack:
			drains = append(drains, failed...)
		case phaseDead:
			b.found.DirectorDeathFailedRequests = len(failed)
		case phaseSpeaker:
			b.found.RoutesWithdrawnOnSpeakerRestart = len(lost)
			b.checkKept("no route is withdrawn when a speaker restarts", lost)
		case phaseTDPAlone:
			b.checkKept("no route is withdrawn when tdpd restarts", lost)
		}
		if s.Name != phaseDead {
			late := b.starvation.longest(s.Start, s.End, "")
			b.check("users are answered: "+s.Name, gap.Asked > 0 && gap.Longest <= unnoticed+late, "%d of %d questions lost, nobody without answers for longer than %.0f ms%s, %v are allowed",
				gap.Lost, gap.Asked, report.Milliseconds(gap.Longest), whose(gap, s.Start), unnoticed+late)
		}
	}
	b.found.DrainFailedRequests = len(drains)
	b.check("no request failed on drains", ended[phaseServerBack] && len(drains) == 0, "%d%s", len(drains), b.examples(drains, b.tally.Timeline))
	b.check("neighbors have the rules and labels that directors tell", b.looked > 0 && len(b.unlike) == 0 && b.found.FlowSpecSeenAtPeer > 0 && b.found.LabelledRoutesSeenAtPeer > 0,
		"compared %d times; %d rules and %d labelled routes in the end%s", b.looked, b.found.FlowSpecSeenAtPeer, b.found.LabelledRoutesSeenAtPeer, some(b.unlike))
	r.Checks = b.checks
	return r
}

func (b *bgp) checkKept(name string, lost []probe.Lost) {
	var which []string
	for _, l := range lost {
		which = append(which, fmt.Sprintf("by %v at %.3f s", l.Via, l.At.Sub(b.began).Seconds()))
	}
	b.check(name, len(lost) == 0, "%d ways to the VIP went out of the kernels of %s%s", len(lost), strings.Join(neighbors, " and "), some(which))
}
