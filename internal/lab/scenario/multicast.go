// Package scenario runs scenarios in a lab: users at work while the network changes under them, and checks that tell whether
// all went as it has to.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/lab"
	"github.com/manycast/manycast/internal/lab/report"
)

// Names are the scenarios that there are.
var Names = []string{"multicast", "failures", "tags", "handover", "bgp", "dyntcp"}

// Options say how a scenario is run.
type Options struct {
	Duration time.Duration // of the users' work; with several strategies under each
	Clients  int           // users
	Static   bool          // portions from a file, unsigned joins: the phases that need no bus
	Only     []string      // kinds of failures; empty: all
	Few      bool          // one failure of each kind
	Strategy string        // of scenario handover: one of StrategyNames, or AllStrategies
	Name     string        // of the lab; empty: the topology's
	Set      map[string]string
	Progress *Progress
}

// MinDuration lets a killed server be found and every phase be seen.
const MinDuration = 12 * time.Second

// multicast is one run of the scenario of that name.
type multicast struct {
	stage
	routers []string
	ledgers map[string]*ledger
	second  *follower // another service on the same VIP
}

// Multicast brings the lab of that name up, runs all phases and takes it down again. The report is there whenever the users
// worked; the error says what kept the scenario from its end.
func Multicast(ctx context.Context, s *lab.Store, o Options) (*report.Report, error) {
	if o.Duration < MinDuration {
		return nil, fmt.Errorf("duration %v: want at least %v", o.Duration, MinDuration)
	}
	set := map[string]string{}
	for k, v := range o.Set {
		set[k] = v
	}
	if o.Static {
		set["mode"] = "static"
	}
	m := &multicast{stage: stage{o: o, store: s, servers: []string{"s1", "s2", "s3"}}, routers: []string{"r1", "r2"}, ledgers: map[string]*ledger{}}
	if err := m.prepare(ctx, "multicast", set); err != nil {
		return nil, err
	}
	defer m.lab.Close()
	m.second = newFollower(m.vars["second"], o.Progress.Note)
	err := errors.Join(m.run(ctx), m.down(ctx))
	if m.began.IsZero() {
		return nil, err
	}
	return m.report(), err
}

func (m *multicast) run(ctx context.Context) (err error) {
	if err := m.admitUsers(); err != nil {
		return err
	}
	watchers, err := m.follow()
	defer func() {
		for _, w := range watchers {
			err = errors.Join(err, w.stop())
		}
	}()
	if err != nil {
		return err
	}
	m.o.Progress.Phase("ready")
	if err := m.waitReady(ctx); err != nil {
		return err
	}
	if err := m.count(ctx); err != nil {
		return err
	}
	sniffed, err := m.sniff(ctx, "r1", "users")
	if err != nil {
		return err
	}
	err = m.work(ctx, m.phases, m.client(nodeUsers))
	return errors.Join(err, sniffed(), m.count(context.WithoutCancel(ctx)))
}

// waitReady waits until every user is answered by its owner.
func (m *multicast) waitReady(ctx context.Context) error {
	if !m.o.Static {
		for f, pool := range map[*follower][]string{m.web: m.servers, m.second: secondPool} {
			everybody := func(c map[string]int) bool {
				return !slices.ContainsFunc(pool, func(s string) bool { return c[s] == 0 })
			}
			if _, err := f.await(ctx, "all servers serve", everybody); err != nil {
				return err
			}
		}
	}
	return m.waitServed(ctx)
}
