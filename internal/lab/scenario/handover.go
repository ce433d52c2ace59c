package scenario

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
	"github.com/manycast/manycast/internal/lab/traffic"
	"github.com/manycast/manycast/internal/service"
)

// Strategies are those that the scenario handover runs, in this order, each with what a service says to have it.
var Strategies = []struct{ Name, Says string }{
	{string(service.Reset), "reset"},
	{string(service.Forward), "[forward]"},
	{string(service.Transfer), "[transfer, forward]"},
	{string(service.Pin), "[pin, forward]"},
}

// AllStrategies has all of them run.
const AllStrategies = "all"

// StrategyNames are the names of the strategies.
func StrategyNames() (names []string) {
	for _, s := range Strategies {
		names = append(names, s.Name)
	}
	return names
}

// handover is one run of the scenario of that name.
type handover struct {
	grouped
	sent     report.States
	closings closings
}

// idleEvery is how often something is asked on connections that do nothing else.
const idleEvery = 4 * time.Second

// Handover brings the lab of that name up, has the users' connections go to and fro under one strategy after the other, and takes it down
// again. The report is there whenever the users worked; the error says what kept the scenario from its end.
func Handover(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	if o.Strategy != AllStrategies && !slices.Contains(StrategyNames(), o.Strategy) {
		return nil, fmt.Errorf("strategy %q: want %s or %s", o.Strategy, strings.Join(StrategyNames(), ", "), AllStrategies)
	}
	h := &handover{grouped: grouped{
		stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3"}}, processes: []string{"app", "plain", "relay", "agent"},
	}}
	if err := h.prepare(ctx, "handover", o.Set); err != nil {
		return nil, err
	}
	defer h.lab.Close()
	err := errors.Join(h.run(ctx), h.down(ctx))
	if h.began.IsZero() {
		return nil, err
	}
	return h.report(), err
}

func (h *handover) run(ctx context.Context) (err error) {
	if err := h.admitUsers(); err != nil {
		return err
	}
	watcher, err := h.watch(h.web)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, watcher.stop()) }()
	h.o.Progress.Phase("ready")
	if _, err := h.web.await(ctx, "all servers serve", h.everybody); err != nil {
		return err
	}
	sniffed, err := h.sniff(ctx, "r1", "users")
	if err != nil {
		return err
	}
	for i, s := range Strategies {
		if h.o.Strategy != AllStrategies && h.o.Strategy != s.Name {
			continue
		}
		h.says = s.Says
		h.settle(i)
		if err = h.under(ctx, s.Name); err != nil {
			err = fmt.Errorf("strategy %s: %w", s.Name, err)
			break
		}
	}
	return errors.Join(err, sniffed())
}

// under has users work under one strategy. Their connections begin and end with it.
func (h *handover) under(ctx context.Context, strategy string) error {
	h.o.Progress.Phase("strategy " + strategy)
	if err := h.apply(ctx); err != nil {
		return err
	}
	if _, err := h.awaitGroups(ctx); err != nil {
		return err
	}
	if err := h.waitServed(ctx); err != nil {
		return err
	}
	h.mu.Lock()
	h.tally.Periods = append(h.tally.Periods, report.Period{Strategy: strategy, Start: time.Now()})
	h.mu.Unlock()
	err := h.work(ctx, func(ctx context.Context) error { return h.runPhases(ctx, h.plan(strategy), h.nothing) },
		h.client(nodeUsers, "--idle", idleEvery.String()), h.relayed(), h.streams(nodeUsers), h.flows())
	end := time.Now()
	if h.transfers() {
		err = errors.Join(err, h.readStates(ctx, h.servers...))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.tally.Periods[len(h.tally.Periods)-1]
	p.End, p.States = end, h.sent
	h.sent = report.States{}
	return err
}

func (h *handover) nothing(context.Context, string) error { return nil }

// relayed is the program of users who get pages of a server behind a relay.
func (h *handover) relayed() program {
	url := "http://" + net.JoinHostPort(h.vars["vip"], h.vars["relayed"]) + "/"
	return program{nodeUsers, []string{"manycast", "lab", "client", "--relayed", "--url", url, "--user", h.userList(nodeUsers)}}
}

// flows is the program of users with flows of UDP.
func (h *handover) flows() program {
	return program{nodeUsers, []string{"manycast", "lab", "flows", "--to", net.JoinHostPort(h.vars["vip"], "80"), "--user", h.userList(nodeUsers)}}
}

// report judges everything, once it is over.
func (h *handover) report() *report.Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &report.Report{Scenario: "handover"}
	h.judge(r, h.mayWaitOften())
	var plan []phase
	var ran []string
	for _, p := range h.tally.Periods {
		plan = append(plan, h.plan(p.Strategy)...)
		ran = append(ran, p.Strategy)
	}
	h.checkMoves(plan, expectedHandover(ran))
	var broken map[string][]traffic.Event
	r.Handover, broken = h.tally.Handovers()
	for _, strategy := range ran {
		h.checkStrategy(strategy, r.Handover[strategy], broken[strategy])
		switch service.Strategy(strategy) {
		case service.Reset:
			h.checkOrder()
		case service.Forward:
			h.checkBreaks()
		}
	}
	r.Checks = h.checks
	return r
}

// checkStrategy: what was to be kept was kept, and whole.
func (h *handover) checkStrategy(strategy string, got report.Handover, broken []traffic.Event) {
	left := 0
	if strategy == report.Reset { // the others have to bear it
		broken, left = h.undisturbed(broken, true)
	}
	h.check(strategy+": connections moved and none was broken", got.Moves > 0 && len(broken) == 0,
		"%d moves of %d connections, %d reset, %d broken, %d of them by standbys while the machine kept daemons from running, %d lost with their server%s",
		got.Moves, got.Connections, got.Reset, got.Broken, left, got.LostWithServer, h.examples(broken, h.tally.Timeline))
	h.check(strategy+": streams are whole", got.StreamsEnded > 0 && got.Whole(), "of %d bytes %d lost, %d doubled, %d reordered, %d garbled; %d streams told at their end what came",
		got.BytesReceived, got.BytesLost, got.BytesDoubled, got.BytesReordered, got.BytesGarbled, got.StreamsEnded)
	h.check(strategy+": connections behind a relay go on where they are to", got.Relay.Moves > 0 && (got.Relay.Switched > 0) == (strategy == string(service.Transfer)),
		"%d answers, %d moves of %d connections, %d times another server answered than before, %d broken, %d lost with their server",
		got.Relay.Requests, got.Relay.Moves, got.Relay.Connections, got.Relay.Switched, got.Relay.Broken, got.Relay.LostWithServer)
	h.checkFlows(strategy, got.UDP)
	switch service.Strategy(strategy) {
	case service.Transfer:
		h.check(strategy+": streams go on at their new server", got.Switched > 0, "%d times", got.Switched)
		var size report.Sizes
		if got.State != nil {
			size = *got.State
		}
		h.check(strategy+": servers say how large states are", size.Max > 0, "%d states, p50 %d bytes, the largest %d", h.states(strategy), size.P50, size.Max)
	default:
		h.check(strategy+": no stream goes on at another server", got.Switched == 0, "%d do", got.Switched)
	}
	h.o.Progress.Note("%s: waits of paced streams around %d moves, beyond their pace: p50 %.2f ms, p99 %.2f ms, at most %.2f ms; while nothing moves: p50 %.2f ms, p99 %.2f ms, at most %.2f ms",
		strategy, got.Blackout.Count, got.Blackout.P50, got.Blackout.P99, got.Blackout.Max, got.Quiet.P50, got.Quiet.P99, got.Quiet.Max)
}

// checkFlows: those of UDP stayed with the servers at which they began, and with reset they are the new servers'.
func (h *handover) checkFlows(strategy string, got report.Flows) {
	wrong, left := h.undisturbed(got.Wrong, false)
	h.check(strategy+": flows of UDP stay where they are to", got.Moves > 0 && len(wrong) == 0 && (got.Reset > 0) == (strategy == report.Reset),
		"%d moves of %d flows, %d taken by new servers, %d broken, %d began elsewhere, %d of them left out, %d lost with their server; of %d datagrams %d lost, %d answered twice%s",
		got.Moves, got.Flows, got.Reset, got.Broken, got.Strange, left, got.LostWithServer, got.Sent, got.Lost, got.Doubled, h.examples(wrong, h.tally.Timeline))
}
